//! epoll, in an event loop of our own: what runs where io_uring is forbidden.
//!
//! The kernel tells once what has become possible (edge-triggered), and a [`socket`] remembers it. So a receive or a send is one system call
//! that is made where it arises, and it is made again only after the kernel has said that it may bring something: a receive that has not filled
//! its room has emptied the socket (epoll(7)), with a few exceptions ([`UNSURE`]), and one that nobody was told of is not tried in vain. Nothing is
//! in flight while somebody waits, so a wait may be dropped, and whoever waits needs no buffer.
//!
//! A turn: every task that was woken runs, then one `epoll_wait(2)` says what has become possible meanwhile. It also waits for the next
//! deadline ([`Epoll::set_alarm`]), in milliseconds, rounded up: a tick of the timers is ten.
//!
//! Who has always more to do would never wait, and so never give the others a turn: a task that has had its [`SHARE`] is woken by the end of
//! the next wait, and has its place behind those who were told of something by then. Of those who move bulk only one is, and the same one until
//! it has had its part of a [`ROUND`] or nothing has arrived for it any more: what a connection has in the kernel is in this core's caches when it
//! is drained in one go, and not any more when sixteen take turns with each quarter of a megabyte.
//!
//! Descriptors are closed as they are dropped, which takes them out of the kernel's list as well. One that has a duplicate elsewhere (a unix
//! listener, the bell of a mailbox) stays in there, and what is told of it then finds no row.

pub(super) mod socket;
#[cfg(test)]
mod tests;

use super::block::Blocks;
use super::clock;
use super::engine::{self, Engine};
use super::tasks::{Tasks, Waiter};
use crate::units::Instant;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::{Context, Poll};

/// What one turn is told of at most: those that more happens to are told of by the next. 1.5 KiB.
const EVENTS: usize = 128;
/// Bytes that one task receives before others have their turn. A block of the largest size is as much.
const SHARE: usize = 256 << 10;
/// Bytes that those who move bulk receive, all together, before the first of them has his next part: some ten milliseconds.
const ROUND: usize = 32 << 20;
/// What anything counts for at least that is done without waiting.
const SHARE_LEAST: usize = 32 << 10;
/// What is always wanted to be known of a socket.
const ARRIVALS: u32 = (libc::EPOLLIN | libc::EPOLLPRI | libc::EPOLLRDHUP | libc::EPOLLET) as u32;
/// The same, and when there is room for what is sent. Asked for only where there was none: unix sockets tell it with everything that their
/// peer reads.
const ARRIVALS_AND_ROOM: u32 = ARRIVALS | libc::EPOLLOUT as u32;
/// From now on a receive that does not fill its room need not be the last one: the connection, or the peer's direction of it, is over; or the
/// peer has sent urgent data (RFC 6093), in front of which a receive ends.
const UNSURE: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR | libc::EPOLLPRI) as u32;

/// See the module.
pub(super) struct Epoll {
    tasks: Tasks,
    fd: OwnedFd,
    rows: RefCell<Slab<Row>>,
    /// Of the row that was made last.
    generation: Cell<u32>,
    events: RefCell<Box<[libc::epoll_event; EVENTS]>>,
    pub(super) stock: Rc<RefCell<Blocks>>,
    alarm: Alarm,
    /// What a task has had of its share, and the number of its run.
    share: Cell<(u64, usize)>,
    /// Those who have had theirs.
    served: RefCell<Vec<Waiter>>,
    /// Those of them who move bulk.
    bulk: RefCell<Bulk>,
    #[cfg(test)]
    refuses: Cell<bool>,
}

/// The timers', which are told by the end of a turn.
#[derive(Default)]
struct Alarm {
    /// `NEVER` when it is not set.
    at: Cell<Instant>,
    rings: Cell<bool>,
    waiter: Cell<Waiter>,
}

/// Tasks that move bulk and have had their share.
#[derive(Default)]
struct Bulk {
    waiting: VecDeque<Waiter>,
    /// Who was woken last, and goes on while it is his part.
    ahead: Waiter,
    /// What he has had of that.
    had: usize,
}

/// What is known of a socket.
struct Row {
    /// Tells a row from one that had its number before.
    generation: u32,
    /// A receive may bring something.
    is_readable: bool,
    /// A send may be taken.
    is_writable: bool,
    /// Only a receive that finds nothing has emptied the socket ([`UNSURE`]).
    is_unsure: bool,
    /// The kernel tells when there is room again.
    tells_room: bool,
    /// Who waits for what arrives: one task at a time.
    reader: Waiter,
    /// Who waits for room.
    writer: Waiter,
}

// one for each connection
const _: () = assert!(size_of::<Row>() == 16);

/// Who made the event loop of this thread, and ends it.
pub(super) struct Owner(*mut Epoll);

impl Owner {
    /// The event loop. Whatever holds on to it is a task of its own, or has a row of it.
    pub(super) fn epoll(&self) -> &'static Epoll {
        // SAFETY: it was leaked by `Epoll::leak`, and `end` frees it only when nobody is left who could have asked.
        unsafe { &*self.0 }
    }

    /// Drops every task and gives back the event loop. Returns how many sockets are left, which keep it.
    pub(super) fn end(self) -> usize {
        let epoll = self.epoll();
        epoll.tasks.end();
        engine::set_current(None);
        clock::end_turns();
        let left = epoll.rows.borrow().len();
        if left == 0 {
            // SAFETY: the pointer is that of a leaked box, and nobody uses it any more: tasks are dropped and no socket is left. A waker
            // that is kept somewhere finds no loop.
            drop(unsafe { Box::from_raw(self.0) });
        }
        left
    }
}

impl Epoll {
    /// Makes the event loop of this thread.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(super) fn leak(stock: Rc<RefCell<Blocks>>) -> io::Result<Owner> {
        // SAFETY: no memory is involved.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let owner = Owner(Box::into_raw(Box::new(Self {
            tasks: Tasks::default(),
            // SAFETY: the kernel has just given us this descriptor.
            fd: unsafe { OwnedFd::from_raw_fd(fd) },
            rows: RefCell::default(),
            generation: Cell::default(),
            events: RefCell::new(Box::new([libc::epoll_event { events: 0, u64: 0 }; EVENTS])),
            stock,
            alarm: Alarm { at: Cell::new(Instant::NEVER), ..Alarm::default() },
            share: Cell::default(),
            served: RefCell::default(),
            bulk: RefCell::default(),
            #[cfg(test)]
            refuses: Cell::new(false),
        })));
        engine::set_current(Some(Engine::Epoll(owner.epoll())));
        clock::begin_turn();
        Ok(owner)
    }

    pub(super) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// A turn of the loop.
    ///
    /// # Panics
    /// The kernel refuses it for good.
    pub(super) fn turn_or_panic(&self, wait: bool) {
        if let Err(error) = self.turn(wait) {
            panic!("epoll is broken: {error}");
        }
    }

    /// Hears what has become possible, with `wait` when something has or the alarm rings, and wakes who waits for it.
    fn turn(&self, wait: bool) -> io::Result<()> {
        #[cfg(test)]
        if self.refuses.get() {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let mut events = self.events.borrow_mut();
        let is_idle = wait && self.served.borrow().is_empty() && self.bulk.borrow().waiting.is_empty();
        let patience = if is_idle { self.alarm.patience() } else { 0 };
        // SAFETY: as many live events as it is told of.
        let told = unsafe { libc::epoll_wait(self.fd.as_raw_fd(), events.as_mut_ptr(), EVENTS as i32, patience) };
        let told = usize::try_from(told).or_else(|_| match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            error => Err(error),
        })?;
        clock::begin_turn();
        let mut rows = self.rows.borrow_mut();
        for event in &events[..told] {
            let (number, generation) = (event.u64 as u32, (event.u64 >> 32) as u32);
            if let Some(row) = rows.get_mut(number as usize).filter(|row| row.generation == generation) {
                row.on_told(event.events);
            }
        }
        drop(rows);
        self.alarm.ring_if_due(clock::now());
        self.served.borrow_mut().drain(..).for_each(Waiter::wake);
        self.bulk.borrow_mut().wake_next();
        Ok(())
    }

    /// Has the timers told at `at`, and not before.
    pub(super) fn set_alarm(&self, at: Instant) {
        self.alarm.at.set(at);
    }

    /// Ready once after it has rung.
    pub(super) fn poll_alarm(&self, cx: &Context<'_>) -> Poll<()> {
        if self.alarm.rings.take() {
            return Poll::Ready(());
        }
        self.alarm.waiter.set(Waiter::of(cx));
        Poll::Pending
    }

    #[cfg(test)]
    pub(super) fn break_it(&self) {
        self.refuses.set(true);
    }

    /// Makes the row of a descriptor and has the kernel tell what happens to it; `connecting`: also when there is room, and there is none yet.
    fn add(&self, fd: RawFd, connecting: bool) -> io::Result<u32> {
        let generation = self.generation.get().wrapping_add(1);
        self.generation.set(generation);
        let row = Row {
            generation,
            is_readable: false,
            is_writable: !connecting,
            is_unsure: false,
            tells_room: connecting,
            reader: Waiter::default(),
            writer: Waiter::default(),
        };
        let mut rows = self.rows.borrow_mut();
        let number = rows.insert(row);
        let tell = if connecting { ARRIVALS_AND_ROOM } else { ARRIVALS };
        if let Err(error) = self.control(libc::EPOLL_CTL_ADD, fd, (number as u32, generation), tell) {
            rows.remove(number);
            return Err(error);
        }
        Ok(number as u32)
    }

    fn control(&self, what: libc::c_int, fd: RawFd, (number, generation): (u32, u32), events: u32) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: u64::from(generation) << 32 | u64::from(number) };
        // SAFETY: a live event.
        match unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), what, fd, &raw mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Looks at a row.
    fn with<T>(&self, number: u32, look: impl FnOnce(&mut Row) -> T) -> T {
        look(&mut self.rows.borrow_mut()[number as usize])
    }

    /// Whether the running task has had its share: it is woken again in the next turn, or, with bulk, when it is its turn.
    fn is_served(&self, cx: &Context<'_>, moves_bulk: bool) -> bool {
        let is_served = self.share.get().0 == self.tasks.run_number() && self.share.get().1 >= SHARE;
        match (is_served, moves_bulk) {
            (true, true) => self.bulk.borrow_mut().put(Waiter::of(cx)),
            (true, false) => self.served.borrow_mut().push(Waiter::of(cx)),
            (false, _) => {}
        }
        is_served
    }

    /// Counts what the running task has had.
    fn count_share(&self, bytes: usize) {
        let run = self.tasks.run_number();
        let (of, had) = self.share.get();
        self.share.set((run, if of == run { had } else { 0 } + bytes.max(SHARE_LEAST)));
    }
}

impl Bulk {
    /// It has had a share, and there is more for it.
    fn put(&mut self, waiter: Waiter) {
        // one that moves bulk both ways, or was woken for something else meanwhile, has one place all the same
        if self.waiting.contains(&waiter) {
            return;
        }
        let part = (ROUND / (self.waiting.len() + 1)).max(SHARE);
        if waiter == self.ahead {
            self.had += SHARE;
            if self.had < part {
                return self.waiting.push_front(waiter);
            }
            self.had = 0;
        }
        self.waiting.push_back(waiter);
    }

    fn wake_next(&mut self) {
        if let Some(next) = self.waiting.pop_front() {
            if next != self.ahead {
                (self.ahead, self.had) = (next, 0);
            }
            next.wake();
        }
    }
}

impl Row {
    fn on_told(&mut self, events: u32) {
        self.is_unsure |= events & UNSURE != 0;
        if events & (UNSURE | libc::EPOLLIN as u32) != 0 {
            self.is_readable = true;
            std::mem::take(&mut self.reader).wake();
        }
        if events & (libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR) as u32 != 0 {
            self.is_writable = true;
            std::mem::take(&mut self.writer).wake();
        }
    }
}

impl Alarm {
    /// How long a turn may wait: milliseconds, -1 without an end.
    fn patience(&self) -> libc::c_int {
        let at = self.at.get();
        if at == Instant::NEVER {
            return -1;
        }
        let left = at.since(clock::read_now()).as_nanos().div_ceil(1_000_000);
        libc::c_int::try_from(left).unwrap_or(libc::c_int::MAX)
    }

    fn ring_if_due(&self, now: Instant) {
        if now >= self.at.get() {
            self.at.set(Instant::NEVER);
            self.rings.set(true);
            self.waiter.take().wake();
        }
    }
}

impl fmt::Debug for Epoll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epoll").field("fd", &self.fd).finish_non_exhaustive()
    }
}
