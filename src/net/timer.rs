//! Deadlines: one alarm ([`super::alarm`]) and one lazy hashed wheel per worker (Varghese and Lauck 1987, scheme 6).
//!
//! Nearly every deadline is moved or dropped before it passes, so moving must cost nothing: a [`Watch`] holds its deadline in a
//! slab row, and moving it *later* only writes that row. The wheel finds out when the row's old slot comes up, and puts it into
//! the slot it belongs to by then. Only moving a deadline *earlier* than its slot touches the wheel.
//!
//! When a deadline passes, the watched socket is shut down, so that whatever waits on it completes by itself, and/or a task is
//! woken; [`Watch::expired`] then tells a passed deadline from a peer's end. No wait is
//! ended by dropping its operation, so none loses a byte.
//!
//! Resolution is one tick (10 ms), never early. The alarm is set for the next slot in use only: an idle worker sleeps.
//!
//! A loop that was *away* (a stopped process, a machine that was paused, a core that was taken) comes back to deadlines that have passed
//! and to sockets in which everything stands that it has missed. So what waits on a socket is given [`SETTLING`] more, in which that is
//! received, and where nothing was there, [`Watch::was_away`] says that the peer is not to blame. A mere sleep is not prolonged.

use super::alarm::Alarm;
use super::clock;
use super::looks::SEND_LOOKS;
use super::stream::{Stream, shutdown_fd};
use super::wheel::{CLIENT_GONE, Doing, NOBODY, Row, Wheel};
use crate::units::Instant;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Length of a tick.
pub const TICK: Duration = Duration::from_millis(10);

/// A loop that hears of a deadline this late was away: many times a turn under load, and less than anybody should wait in vain.
const AWAY: Duration = Duration::from_millis(100);
/// What waits is given for what stands in the sockets: two turns of a loop that is not away, one that asks the kernel for what it has, and one
/// that takes it.
const SETTLING: Duration = Duration::from_millis(200);

/// One worker's deadlines.
#[derive(Debug)]
pub struct Timers {
    wheel: RefCell<Wheel>,
    alarm: Alarm,
    armed_for: Cell<Instant>,
    /// When the loop is to hear of that; `NEVER` once it has.
    due: Cell<Instant>,
    /// Until when the loop, which was away, takes in what it has missed.
    settled: Cell<Instant>,
}

impl Timers {
    /// Makes the wheel and its alarm. Must be called inside the worker's runtime.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new() -> io::Result<Rc<Self>> {
        let alarm = Alarm::new()?;
        Ok(Rc::new(Self {
            wheel: RefCell::new(Wheel::new(clock::now())),
            alarm,
            armed_for: Cell::new(Instant::NEVER),
            due: Cell::new(Instant::NEVER),
            settled: Cell::default(),
        }))
    }

    /// Drives the wheel; one task of each worker runs this for ever.
    pub async fn run(&self) {
        loop {
            if self.alarm.rings().await.is_err() {
                return;
            }
            self.advance(clock::now());
        }
    }

    /// Whether the loop was away until a moment ago: what has passed meanwhile is nobody's fault.
    #[must_use]
    pub fn was_away(&self, now: Instant) -> bool {
        now < self.settled.get() || now.since(self.due.get()) >= AWAY
    }

    /// Expires every watch over an idle connection now, so that each of them looks whether the worker drains.
    pub fn hurry_idle(&self) {
        self.hurry(|_| true);
    }

    /// The same for those that have this tag.
    pub fn hurry_idle_of(&self, tag: u16) {
        self.hurry(|row| row.tag == tag);
    }

    fn hurry(&self, is_meant: impl Fn(&Row) -> bool) {
        for (_, row) in &mut self.wheel.borrow_mut().rows {
            if row.doing == Doing::Idling && is_meant(row) {
                row.expired = true;
                row.deadline = Instant::NEVER;
                // only this direction: a request that has arrived meanwhile is still read and answered
                shutdown_fd(row.fd, Shutdown::Read);
            }
        }
    }

    /// Moves the deadline of every tunnel to `deadline`, if it is later.
    pub fn hurry_tunnels(&self, deadline: Instant) {
        let mut wheel = self.wheel.borrow_mut();
        let late = |row: &Row| row.doing == Doing::Tunnelling && row.deadline > deadline;
        let tunnels: Vec<usize> = wheel.rows.iter().filter(|(_, row)| late(row)).map(|(index, _)| index).collect();
        for index in tunnels {
            wheel.set(index, deadline);
        }
        drop(wheel);
        self.arm();
    }

    /// Has every wait end at `deadline`, whatever it is for, if it would be later; a send, however much its peer still takes.
    pub fn hurry_all(&self, deadline: Instant) {
        let mut wheel = self.wheel.borrow_mut();
        let late = |row: &Row| row.deadline > deadline && row.deadline < Instant::NEVER;
        let late: Vec<usize> = wheel.rows.iter().filter(|(_, row)| late(row)).map(|(index, _)| index).collect();
        for index in late {
            wheel.rows[index].set_patience(Duration::ZERO);
            wheel.set(index, deadline);
        }
        drop(wheel);
        self.arm();
    }

    /// Looks after the clients for whom something is being waited for ([`Guard::on_behalf_of`]), and nudges who asked for it
    /// ([`Watch::nudge`]); called about twice a second.
    ///
    /// One that has reset its connection is gone. One that has only ended its direction may still read (`shutdown(2)`, half-close), so
    /// it is given until the next but one look: an answer that takes longer is an answer for nobody (nginx and HAProxy give no time).
    /// What counts is the whole wait for the answer, over all attempts and what is between them: the looks begin anew when something is
    /// sent to the client, not when something else is waited for.
    pub fn look_for_gone_clients(&self) {
        let mut wheel = self.wheel.borrow_mut();
        let mut have_left = false;
        for (_, row) in &mut wheel.rows {
            if row.awaited > 0 {
                row.look();
                have_left |= row.has_left();
            }
            if row.client != NOBODY
                && let Some(waker) = row.waker.take()
            {
                waker.wake();
            }
        }
        if have_left {
            let waits = wheel.rows.iter().filter(|(_, row)| wheel.has_left(row.client) && row.doing != Doing::Nothing);
            waits.for_each(|(_, row)| shutdown_fd(row.fd, Shutdown::Both));
        }
    }

    /// A new watch, not armed.
    pub fn watch(self: &Rc<Self>) -> Watch {
        let index = self.wheel.borrow_mut().add();
        Watch { timers: Rc::clone(self), index }
    }

    /// The one over a client's stream, which is looked at while others wait on behalf of that client ([`Guard::on_behalf_of`]); with a tag, for
    /// [`Timers::hurry_idle_of`].
    pub fn watch_client(self: &Rc<Self>, client: &Stream, tag: u16) -> Watch {
        let watch = self.watch();
        let row = &mut self.wheel.borrow_mut().rows[watch.index];
        (row.fd, row.tag) = (client.fd(), tag);
        watch
    }

    fn advance(&self, now: Instant) {
        self.armed_for.set(Instant::NEVER);
        if now.since(self.due.replace(Instant::NEVER)) >= AWAY {
            self.settled.set(now + SETTLING);
        }
        let settled = self.settled.get();
        self.wheel.borrow_mut().advance(now, |row| {
            let later = row.send_goes_on(now);
            if later.is_some() {
                return later;
            }
            if now < settled && row.is_excused() {
                return Some(settled);
            }
            if let Some(how) = row.doing.end() {
                shutdown_fd(row.fd, how);
            }
            if let Some(waker) = row.waker.take() {
                waker.wake();
            }
            None
        });
        self.arm();
    }

    fn arm(&self) {
        let Some(next) = self.wheel.borrow().next() else { return };
        if next >= self.armed_for.get() {
            return;
        }
        self.armed_for.set(next);
        self.due.set(next.max(clock::now()));
        self.alarm.set(next);
    }

    fn set(&self, index: usize, deadline: Instant) {
        let sooner = self.wheel.borrow_mut().set(index, deadline);
        if sooner {
            self.arm();
        }
    }
}

/// One deadline, owned by a task; see [`Timers::watch`].
#[derive(Debug)]
pub struct Watch {
    timers: Rc<Timers>,
    index: usize,
}

impl Watch {
    /// While the guard lives: when `deadline` passes, `stream` is shut down as `how` says, which completes what waits on it.
    pub fn over<'a>(&'a self, stream: &'a Stream, deadline: Instant, how: Shutdown) -> Guard<'a> {
        self.over_fd(stream.fd(), deadline, Doing::Waiting(how))
    }

    /// While the guard lives: something is being sent on `stream`, which is shut down once its peer has taken nothing for `patience`.
    ///
    /// What counts is what the peer has taken from the kernel, not what the kernel has taken from us: that goes in steps of a third of
    /// the socket's buffer, which may be megabytes, and more than a slow reader takes in any sensible time.
    pub fn over_send<'a>(&'a self, stream: &'a Stream, patience: Duration, now: Instant) -> Guard<'a> {
        self.guard(now + patience / SEND_LOOKS, |row| {
            (row.fd, row.doing) = (stream.fd(), Doing::Waiting(Shutdown::Both));
            (row.since, row.queued) = (now, -1);
            row.set_patience(patience);
            row.begin_looks();
        })
    }

    /// The kernel has taken a part of what is being sent.
    pub fn on_sent(&self, now: Instant) {
        let row = &mut self.timers.wheel.borrow_mut().rows[self.index];
        (row.since, row.queued) = (now, -1);
    }

    /// The same as [`Watch::over`] for a connection between two requests, which [`Timers::hurry_idle`] may end.
    pub fn over_idle<'a>(&'a self, stream: &'a Stream, deadline: Instant) -> Guard<'a> {
        self.guard(deadline, |row| {
            row.set(stream.fd(), Doing::Idling);
            row.begin_looks();
        })
    }

    /// The same for a connection that is one end of a tunnel, which [`Timers::hurry_tunnels`] may hurry; its owner waits by
    /// [`Watch::passed`].
    pub fn over_tunnel<'a>(&'a self, stream: &'a Stream, deadline: Instant) -> Guard<'a> {
        self.over_fd(stream.fd(), deadline, Doing::Tunnelling)
    }

    /// The same for a connection that is being made. The caller keeps the descriptor open as long as the guard lives.
    pub fn over_connecting(&self, fd: RawFd, deadline: Instant) -> Guard<'_> {
        self.over_fd(fd, deadline, Doing::Waiting(Shutdown::Both))
    }

    /// While the guard lives: no socket is watched, only the time, and [`Watch::passed`] waits for that.
    pub fn over_pause(&self, deadline: Instant) -> Guard<'_> {
        self.over_fd(-1, deadline, Doing::Nothing)
    }

    fn over_fd(&self, fd: RawFd, deadline: Instant, doing: Doing) -> Guard<'_> {
        self.guard(deadline, |row| row.set(fd, doing))
    }

    fn guard(&self, deadline: Instant, set: impl FnOnce(&mut Row)) -> Guard<'_> {
        let sooner = self.timers.wheel.borrow_mut().set_with(self.index, deadline, set);
        if sooner {
            self.timers.arm();
        }
        Guard { watch: self }
    }

    /// Moves the deadline of the guard that lives, unless it has passed.
    pub fn move_to(&self, deadline: Instant) {
        if !self.expired() {
            self.timers.set(self.index, deadline);
        }
    }

    /// Moves the deadline of the guard over a socket that lives, if one does.
    pub fn extend(&self, deadline: Instant) {
        let is_over = self.timers.wheel.borrow().rows[self.index].doing != Doing::Nothing;
        if is_over {
            self.move_to(deadline);
        }
    }

    /// The guard over a socket that lives, if one does, is now over what is being sent on that, as [`Watch::over_send`] is.
    pub fn turn_to_send(&self, patience: Duration, now: Instant) {
        let mut wheel = self.timers.wheel.borrow_mut();
        let row = &mut wheel.rows[self.index];
        if row.doing == Doing::Nothing || row.expired {
            return;
        }
        (row.since, row.queued) = (now, -1);
        row.set_patience(patience);
        drop(wheel);
        self.timers.set(self.index, now + patience / SEND_LOOKS);
    }

    /// … and is over its deadline again, which is this.
    pub fn turn_to_wait(&self, deadline: Instant) {
        self.timers.wheel.borrow_mut().rows[self.index].set_patience(Duration::ZERO);
        self.extend(deadline);
    }

    /// True when the deadline of the last guard or sleep has passed.
    #[must_use]
    pub fn expired(&self) -> bool {
        self.timers.wheel.borrow().rows[self.index].expired
    }

    /// Whether the loop was away when the deadline of the last guard passed, so that its passing says nothing about the peer.
    #[must_use]
    pub fn was_away(&self) -> bool {
        self.timers.wheel.borrow().rows[self.index].late > 0
    }

    /// True when the client whose watch this is has left ([`Timers::look_for_gone_clients`], [`Watch::leave`]).
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.timers.wheel.borrow().rows[self.index].has_left()
    }

    /// The client whose watch this is has left, which is known otherwise than by its socket. What waits on its behalf ends with the next look.
    pub fn leave(&self) {
        self.timers.wheel.borrow_mut().rows[self.index].client_ended = CLIENT_GONE;
    }

    /// Has `waker` woken with the next look after clients ([`Timers::look_for_gone_clients`]), once: for who does not wait for something
    /// that is over as good as always, but must not be forgotten if it is not.
    pub fn nudge(&self, waker: &Waker) {
        let row = &mut self.timers.wheel.borrow_mut().rows[self.index];
        if !row.waker.as_ref().is_some_and(|set| set.will_wake(waker)) {
            row.waker = Some(waker.clone());
        }
    }

    /// Waits until `deadline`.
    pub async fn sleep_until(&self, deadline: Instant) {
        self.timers.set(self.index, deadline);
        self.passed().await;
    }

    /// The same on behalf of a client, and no longer than that is there. Returns whether it is, as far as its watch knows.
    pub async fn pause_until(&self, deadline: Instant, client: &Watch) -> bool {
        let _guard = self.over_pause(deadline).on_behalf_of(client);
        self.passed().await;
        !client.has_left()
    }

    /// Waits until the deadline that was set last, wherever it is moved meanwhile, or until the guard's client has left.
    pub async fn passed(&self) {
        poll_fn(|cx| self.poll_passed(cx)).await;
    }

    /// The same for who waits for something else besides.
    pub fn poll_passed(&self, cx: &Context<'_>) -> Poll<()> {
        let mut wheel = self.timers.wheel.borrow_mut();
        let Row { expired: is_over, client, .. } = wheel.rows[self.index];
        if is_over || wheel.has_left(client) {
            return Poll::Ready(());
        }
        wheel.rows[self.index].waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // the waker is dropped outside of the borrow: it may own a task, whose drop may come back here
        let waker = self.timers.wheel.borrow_mut().remove(self.index);
        drop(waker);
    }
}

/// A socket is being watched; dropping it ends the watch.
#[derive(Debug)]
pub struct Guard<'a> {
    watch: &'a Watch,
}

impl<'a> Guard<'a> {
    /// The socket is waited for on behalf of the client with this watch: when that leaves, the wait ends too ([`Watch::has_left`]).
    #[must_use]
    pub fn on_behalf_of(self, client: &'a Watch) -> Self {
        let mut wheel = self.watch.timers.wheel.borrow_mut();
        debug_assert_eq!(wheel.rows[self.watch.index].client, NOBODY, "one guard at a time");
        wheel.rows[client.index].awaited += 1;
        wheel.rows[self.watch.index].client = u32::try_from(client.index).expect("fewer rows than descriptors");
        drop(wheel);
        self
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let mut wheel = self.watch.timers.wheel.borrow_mut();
        let row = &mut wheel.rows[self.watch.index];
        row.doing = Doing::Nothing;
        row.deadline = Instant::NEVER;
        row.set_patience(Duration::ZERO);
        let client = std::mem::replace(&mut row.client, NOBODY);
        if client != NOBODY {
            wheel.rows[client as usize].awaited -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::block::Block;
    use crate::net::driver::spawn;
    use crate::net::testing::{on_each_driver, pair};
    use std::io::{Read, Write};
    use std::pin::pin;

    #[test]
    fn a_sleep_never_ends_early() {
        on_each_driver(|timers| async move {
            let watch = timers.watch();
            for micros in [0, 1, 900, 9_999, 10_000, 10_001, 25_000, 60_000] {
                let deadline = clock::now() + Duration::from_micros(micros);
                watch.sleep_until(deadline).await;
                assert!(clock::now() >= deadline && watch.expired(), "{micros} µs");
            }
            watch.sleep_until(Instant::default()).await;
        });
    }

    #[test]
    fn a_loop_that_was_away_takes_what_it_has_missed_before_time_is_over() {
        on_each_driver(|timers| async move {
            let stand_still = |until: Duration| {
                let (_open, closed) = std::sync::mpsc::channel::<()>();
                assert!(closed.recv_timeout(until).is_err());
            };
            let room = || Block::from_vec(Vec::with_capacity(64));
            let ((spoke, mut peer), (silent, _peer)) = (pair(), pair());
            let (over_spoke, over_silent, pause) = (timers.watch(), timers.watch(), timers.watch());
            let deadline = clock::now() + TICK;
            let _guards = (
                over_spoke.over(&spoke, deadline, Shutdown::Both),
                over_silent.over(&silent, deadline, Shutdown::Both),
            );
            let (heard, unheard) = (spoke.receive(room()), silent.receive(room()));
            stand_still(2 * AWAY);
            peer.write_all(b"in time").unwrap();
            let (received, got) = heard.await;
            assert_eq!((received.unwrap(), got.unread()), (7, &b"in time"[..]));
            assert!(!over_spoke.expired() && timers.was_away(clock::now()));
            assert!(!matches!(unheard.await.0, Ok(1..)));
            assert!(over_silent.expired() && over_silent.was_away(), "nobody is to blame");
            // on time again
            let settled = timers.settled.get();
            pause.sleep_until(settled + TICK).await;
            let (late, _peer) = pair();
            let watch = timers.watch();
            let _guard = watch.over(&late, clock::now() + TICK, Shutdown::Both);
            assert!(!matches!(late.receive(room()).await.0, Ok(1..)));
            assert!(watch.expired());
            assert!(!watch.was_away() || timers.settled.get() > settled, "but for a machine that is away by itself");
        });
    }

    #[test]
    fn a_loop_that_is_away_again_and_again_still_has_an_end() {
        let row = |doing| {
            let mut wheel = Wheel::new(Instant::default());
            let index = wheel.add();
            wheel.rows[index].doing = doing;
            wheel.rows.remove(index)
        };
        let mut waits = row(Doing::Waiting(Shutdown::Both));
        assert_eq!((0..10).filter(|_| waits.is_excused()).count(), usize::from(crate::net::looks::LATE_MAX));
        assert!(!row(Doing::Nothing).is_excused(), "a sleep is over when it is over");
    }

    #[test]
    fn sleeps_end_in_the_order_of_their_deadlines() {
        on_each_driver(|timers| async move {
            let began = clock::now();
            let order = Rc::new(RefCell::new(Vec::new()));
            for millis in [90, 30, 60] {
                let (watch, order) = (timers.watch(), Rc::clone(&order));
                spawn(async move {
                    watch.sleep_until(began + Duration::from_millis(millis)).await;
                    order.borrow_mut().push(millis);
                });
            }
            let watch = timers.watch();
            while order.borrow().len() < 3 {
                watch.sleep_until(clock::now() + TICK).await;
            }
            assert_eq!(*order.borrow(), [30, 60, 90]);
        });
    }

    #[test]
    fn a_pause_ends_with_its_client_and_says_so() {
        on_each_driver(|timers| async move {
            let far = clock::now() + Duration::from_secs(3_600);
            for (leave, looks) in [(Shutdown::Write, 3), (Shutdown::Both, 1)] {
                let ((client, peer), watch) = (pair(), timers.watch());
                let over_client = timers.watch_client(&client, 0);
                assert!(watch.pause_until(clock::now() + TICK, &over_client).await, "it is there");
                let mut pausing = pin!(watch.pause_until(far, &over_client));
                let mut paused = async || poll_fn(|cx| Poll::Ready(pausing.as_mut().poll(cx))).await;
                assert!(paused().await.is_pending());
                peer.shutdown(leave).unwrap();
                client.readable().await.unwrap();
                if leave == Shutdown::Both {
                    // both directions are over once we have ended ours: as good as a reset
                    client.shutdown(Shutdown::Write);
                }
                for _ in 1..looks {
                    timers.look_for_gone_clients();
                    assert!(paused().await.is_pending(), "it may still read");
                }
                timers.look_for_gone_clients();
                assert_eq!(paused().await, Poll::Ready(false));
            }
        });
    }

    #[test]
    fn looks_at_a_client_go_on_from_wait_to_wait_until_something_is_sent_to_it() {
        on_each_driver(|timers| async move {
            let ((client, peer), (upstream, _endpoint), watch) = (pair(), pair(), timers.watch());
            let over_client = timers.watch_client(&client, 0);
            let far = clock::now() + Duration::from_secs(3_600);
            peer.shutdown(Shutdown::Write).unwrap();
            client.readable().await.unwrap();
            let look_twice = || {
                // two attempts at once are one look
                let other = timers.watch();
                let _other = other.over_pause(far).on_behalf_of(&over_client);
                let guard = watch.over(&upstream, far, Shutdown::Both).on_behalf_of(&over_client);
                timers.look_for_gone_clients();
                drop(guard);
                let _guard = watch.over_pause(far).on_behalf_of(&over_client);
                timers.look_for_gone_clients();
                over_client.has_left()
            };
            assert!(!look_twice());
            drop(over_client.over_send(&client, Duration::from_secs(3_600), clock::now()));
            assert!(!look_twice(), "it takes what it is sent");
            assert!(look_twice());
        });
    }

    #[test]
    fn a_client_that_is_said_to_have_left_has_and_what_waits_for_it_ends() {
        on_each_driver(|timers| async move {
            let ((client, _peer), (upstream, _endpoint), watch) = (pair(), pair(), timers.watch());
            let over_client = timers.watch_client(&client, 0);
            let far = clock::now() + Duration::from_secs(3_600);
            let _guard = watch.over(&upstream, far, Shutdown::Both).on_behalf_of(&over_client);
            let receiving = upstream.receive(Block::from_vec(Vec::with_capacity(64)));
            over_client.leave();
            timers.look_for_gone_clients();
            assert!(!matches!(receiving.await.0, Ok(1..)));
            assert!(over_client.has_left() && !watch.expired());
            let next = timers.watch();
            assert!(!next.pause_until(far, &over_client).await, "and nothing more is waited for");
        });
    }

    #[test]
    fn hurrying_ends_idle_connections_and_no_others() {
        on_each_driver(|timers| async move {
            let far = clock::now() + Duration::from_secs(3_600);
            let ((idle, mut idle_peer), (busy, mut busy_peer)) = (pair(), pair());
            let (over_idle, over_busy) = (timers.watch(), timers.watch());
            let _guards = (over_idle.over_idle(&idle, far), over_busy.over(&busy, far, Shutdown::Both));
            let room = || Block::from_vec(Vec::with_capacity(64));
            let (idling, waiting) = (idle.receive(room()), busy.receive(room()));
            timers.hurry_idle();
            assert_eq!(idling.await.0.unwrap(), 0);
            assert!(over_idle.expired() && !over_busy.expired());
            // what was being waited for still comes, and the idle one can still say why it goes
            busy_peer.write_all(b"x").unwrap();
            assert_eq!(waiting.await.0.unwrap(), 1);
            let mut farewell = room();
            farewell.vec_mut().push(b'!');
            idle.send(farewell).await.0.unwrap();
            let mut got = [0];
            idle_peer.read_exact(&mut got).unwrap();
            assert_eq!(got, *b"!");
        });
    }
}
