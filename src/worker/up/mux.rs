//! The task of one shared connection to an endpoint: it owns the socket, takes what comes, and sends what waits.
//!
//! It is listened to all the time, so what ends it is known before the next request comes. A PING asks after an endpoint that has been silent
//! while streams are open, and only then: servers of gRPC end connections that ping when they are idle. So a connection that was idle for long gets its
//! PING with the next request.

use super::link::Link;
use crate::http::h2::connection::INPUT_BYTES_MAX;
use crate::net::block::Block;
use crate::net::guarded::guarded;
use crate::net::stream::Stream;
use crate::net::timer::Watch;
use crate::net::{clock, driver};
use crate::observe::labels::Http2Failure;
use crate::units::Instant;
use crate::worker::state::Worker;
use std::future::{Future, poll_fn};
use std::io;
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// Silence while streams are open, after which an endpoint is asked for a sign of life.
const SILENCE: Duration = Duration::from_secs(15);
/// Silence without streams, after which one is asked for along with the next request: who is gone is known a round trip later.
const STALE: Duration = Duration::from_secs(10);
/// … which it has so long for.
const ANSWER: Duration = Duration::from_secs(5);
/// How long an endpoint may take nothing of what is sent.
const SEND_PATIENCE: Duration = Duration::from_secs(60);

type Received = (io::Result<usize>, Block);

/// Begins to serve a connection that has just been made.
pub(super) fn spawn(worker: &Rc<Worker>, link: Rc<Link>, stream: Stream, idle_timeout: Duration) {
    let worker = Rc::clone(worker);
    driver::spawn(async move {
        let lost = Lost(Rc::clone(&link));
        let mux = Mux { link, worker: Rc::clone(&worker), stream, idle_timeout };
        if guarded(mux.run()).await.is_none() {
            worker.life.panic_caught();
        }
        drop(lost);
    });
}

/// Ends the streams of a connection whose task is over, however that came.
struct Lost(Rc<Link>);

impl Drop for Lost {
    fn drop(&mut self) {
        self.0.lose();
    }
}

struct Mux {
    link: Rc<Link>,
    worker: Rc<Worker>,
    stream: Stream,
    idle_timeout: Duration,
}

/// Since when what is waited for.
struct Clocks {
    heard: Instant,
    pinged: Option<Instant>,
    quiet: Option<Instant>,
}

enum Happened {
    Sent((io::Result<()>, Block)),
    Received(Received),
    Rung,
    Passed,
}

impl Mux {
    async fn run(&self) {
        let Self { link, worker, stream, .. } = self;
        let (pause, watch) = (worker.timers.watch(), worker.timers.watch());
        let mut clocks = Clocks { heard: clock::now(), pinged: None, quiet: None };
        let mut inbox = Block::default();
        let mut receiving = pin!(None);
        loop {
            match link.take(&mut inbox, worker, clock::now()) {
                Ok(true) => clocks.pinged = None,
                Ok(false) => {}
                Err(_) => {
                    link.on_violation(inbox.unread());
                    break;
                }
            }
            if receiving.is_none() && link.takes_more() {
                if !self.make_room(&mut inbox) {
                    link.on_violation(inbox.unread());
                    break; // a frame that is larger than any may be
                }
                receiving.set(Some(self.receive(&mut inbox)));
            }
            self.wake(&mut clocks);
            if let Some(out) = link.collect(worker) {
                match self.send(out, &watch, receiving.as_mut()).await {
                    Ok(Some(block)) => {
                        receiving.set(None);
                        self.on_block(block, &mut inbox, &mut clocks);
                    }
                    Ok(None) => {}
                    Err(_) => return,
                }
                continue;
            }
            if link.is_over() {
                link.go_away();
                break;
            }
            match self.wait(&pause, &mut clocks, receiving.as_mut()).await {
                Happened::Received((Ok(1..), block)) => {
                    receiving.set(None);
                    self.on_block(block, &mut inbox, &mut clocks);
                }
                Happened::Received(_) => break,
                Happened::Passed if !self.on_passed(&mut clocks) => break,
                _ => {}
            }
        }
        receiving.set(None);
        worker.put(inbox);
        if let Some(out) = link.collect(worker) {
            let _ = stream.post(out);
            stream.say_farewell();
        }
    }

    /// Notes whether there are streams now.
    fn wake(&self, clocks: &mut Clocks) {
        if self.link.streams() == 0 || clocks.quiet.is_none() {
            return;
        }
        let now = clock::now();
        if clocks.quiet.take().is_some_and(|since| now >= since + STALE) {
            self.link.ping();
            clocks.pinged = Some(now);
        }
        clocks.heard = now; // silence counts from the first request on
    }

    fn on_block(&self, block: Block, inbox: &mut Block, clocks: &mut Clocks) {
        *inbox = block;
        clocks.heard = clock::now();
    }

    /// Room for a receive behind what is there of a frame.
    fn make_room(&self, inbox: &mut Block) -> bool {
        if inbox.is_empty() {
            return true;
        }
        inbox.compact();
        if inbox.room() == 0 {
            self.worker.grow(inbox, INPUT_BYTES_MAX);
        }
        inbox.room() > 0
    }

    fn receive<'s>(&'s self, inbox: &mut Block) -> impl Future<Output = Received> + use<'s> {
        let mut into = std::mem::take(inbox);
        if into.is_empty() && self.stream.listen() {
            self.worker.put(std::mem::take(&mut into));
        } else if into.room() == 0 {
            into = self.worker.blocks.borrow_mut().large();
        }
        self.stream.receive(into)
    }

    async fn send<F: Future<Output = Received>>(
        &self,
        out: Block,
        watch: &Watch,
        mut receiving: Pin<&mut Option<F>>,
    ) -> io::Result<Option<Block>> {
        let out = match self.stream.post(out) {
            Ok(()) => return Ok(None),
            Err(out) => out,
        };
        let _guard = watch.over_send(&self.stream, SEND_PATIENCE, clock::now());
        let mut send = pin!(self.stream.send_noting(out, || watch.on_sent(clock::now())));
        let mut arrived = None;
        loop {
            let happened = poll_fn(|cx| {
                if let Poll::Ready(sent) = send.as_mut().poll(cx) {
                    return Poll::Ready(Happened::Sent(sent));
                }
                match receiving.as_mut().as_pin_mut().map(|future| future.poll(cx)) {
                    Some(Poll::Ready(received)) => Poll::Ready(Happened::Received(received)),
                    _ => Poll::Pending,
                }
            });
            match happened.await {
                Happened::Sent((sent, block)) => {
                    self.worker.put(block);
                    return sent.map(|()| arrived);
                }
                Happened::Received((Ok(1..), block)) => {
                    receiving.set(None);
                    arrived = Some(block);
                }
                _ => return Err(io::ErrorKind::ConnectionReset.into()),
            }
        }
    }

    async fn wait<F: Future<Output = Received>>(
        &self,
        pause: &Watch,
        clocks: &mut Clocks,
        mut receiving: Pin<&mut Option<F>>,
    ) -> Happened {
        let Self { link, worker, .. } = self;
        let now = clock::now();
        self.wake(clocks);
        if link.streams() == 0 {
            clocks.quiet.get_or_insert(now);
        }
        let until = match (clocks.quiet, clocks.pinged) {
            (Some(since), _) => since + self.idle_timeout,
            (None, Some(since)) => since + ANSWER,
            (None, None) => clocks.heard + SILENCE,
        };
        let until = link.lingers_until().map_or(until, |lingers| lingers.min(until));
        let until = link.part_until().map_or(until, |late| late.min(until));
        let _guard = pause.over_pause(until);
        poll_fn(|cx| {
            let mut is_rung = link.is_over();
            while let Poll::Ready(key) = link.bells.poll_next(cx) {
                link.on_rung(key, worker);
                is_rung = true;
            }
            if let Some(future) = receiving.as_mut().as_pin_mut()
                && let Poll::Ready(received) = future.poll(cx)
            {
                return Poll::Ready(Happened::Received(received));
            }
            // what waits with windows that have no room is woken by what is received
            match is_rung || clocks.quiet.is_some() != (link.streams() == 0) {
                true => Poll::Ready(Happened::Rung),
                false => pause.poll_passed(cx).map(|()| Happened::Passed),
            }
        })
        .await
    }

    /// What has been waited for long enough; false: the connection is over.
    fn on_passed(&self, clocks: &mut Clocks) -> bool {
        let (now, link) = (clock::now(), &self.link);
        if link.is_part_late(now) {
            self.stream.shutdown(Shutdown::Both);
            return false;
        }
        if link.end_lingering(now, &self.worker) {
            return true;
        }
        match (clocks.quiet, clocks.pinged) {
            // it was for a stream that lingered, and has ended in the meantime
            (Some(since), _) if now < since + self.idle_timeout => true,
            (None, Some(since)) if now < since + ANSWER => true,
            (Some(_), _) => {
                link.drain();
                true
            }
            (None, Some(_)) => {
                link.note(Http2Failure::PingTimeout);
                self.stream.shutdown(Shutdown::Both);
                false
            }
            (None, None) => {
                if now >= clocks.heard + SILENCE {
                    link.ping();
                    clocks.pinged = Some(now);
                }
                true
            }
        }
    }
}
