//! The end of a connection of HTTP/2: told before, said at last, and heard.

use super::mux::{Mux, Next};
use crate::http::h2::code::Code;
use crate::http::h2::frame::ID_MAX;
use crate::net::clock;
use crate::net::lane::Lane;
use crate::net::stream::Stream;
use crate::net::timer::Watch;
use crate::observe::labels::{StreamCode, StreamSide};
use crate::units::Instant;
use crate::worker::client::{Client, Connection};
use crate::worker::state::Worker;
use std::io;
use std::net::Shutdown;
use std::pin::pin;
use std::rc::Rc;
use std::task::Context;
use std::time::Duration;

/// How long a client may go on to open streams when it was told not to.
const GRACE: Duration = Duration::from_secs(1);
/// What its answer to our ping carries, when it has been told.
pub(super) const GRACE_PING: [u8; 8] = *b"farewell";
/// How long, and how much, a client's last words are listened to.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 16 << 20;

/// How far the end of a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// It goes on.
    No,
    /// The client was told; until then it may still open streams.
    Told(Instant),
    /// No more streams are taken.
    Final,
}

/// What the timers shut when a drain begins: a lane that nobody serves.
pub(super) struct Alarm {
    pub(super) stream: Stream,
    pub(super) watch: Watch,
}

impl Alarm {
    pub(super) fn new(client: &Client, worker: &Rc<Worker>) -> Self {
        let stream = Stream::of_lane(&Lane::new());
        let watch = worker.timers.watch_client(&stream, client.door.tag);
        Self { stream, watch }
    }

    /// Whether a drain has begun since the last look.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> bool {
        let waiting = pin!(self.stream.readable());
        waiting.poll(cx).is_ready() && self.stream.hear()
    }
}

impl Mux {
    /// Tells the client that the connection ends, if that is so and it has not been told.
    pub(super) fn say_farewell(&mut self) {
        let now = clock::now();
        if self.client.is_leaving() {
            self.tell_to_go(now);
        }
        match self.farewell {
            Farewell::Told(until) if now >= until || self.codec.streams() == 0 => {
                self.farewell = Farewell::Final;
                self.count_goaway(Code::NoError);
                self.codec.go_away(Code::NoError, None);
            }
            _ => {}
        }
    }

    pub(super) fn tell_to_go(&mut self, now: Instant) {
        if self.farewell == Farewell::No && self.codec.is_greeted() {
            self.farewell = Farewell::Told(now + GRACE);
            self.codec.go_away(Code::NoError, Some(ID_MAX));
            self.codec.ping(GRACE_PING);
        }
    }

    pub(super) fn is_over(&self) -> bool {
        (self.farewell == Farewell::Final || self.is_deaf) && self.codec.streams() == 0
    }

    /// The client has ended its direction and no more than that, as far as anybody knows, so what it has asked for it may still read (RFC 9113
    /// §5.4.1 has no word about it; HTTP/1.1 does so, RFC 9112 §9.6). A request that has not come whole will not. False: it is gone.
    pub(super) fn on_half_close(&mut self, connection: &Connection, received: &io::Result<usize>) -> bool {
        if !matches!(received, Ok(0)) || connection.watch.expired() || self.codec.streams() == 0 {
            return false;
        }
        (self.is_deaf, self.head_began) = (true, None);
        for (place, slot) in self.slots.iter().enumerate().filter_map(|(place, slot)| Some((place, slot.as_ref()?))) {
            match self.codec.stream(place).is_whole() {
                true => slot.runner.lane.half_close(),
                false => slot.runner.lane.lose(),
            }
        }
        true
    }

    /// The client has ended its direction, so what waits for a window waits for one that will not come.
    #[cold]
    pub(super) fn give_up_blocked(&mut self) {
        for place in self.writing.iter().map(|&place| place as usize) {
            if let Some(slot) = self.slots.get(place).and_then(Option::as_ref)
                && self.codec.reset(place, Code::Cancel)
            {
                self.count_reset(StreamSide::Gateway, Code::Cancel);
                slot.runner.lane.lose();
            }
        }
    }

    /// The client has ended its direction, or its time is over.
    pub(super) fn on_end(&mut self, connection: &Connection) -> Next {
        if connection.watch.expired() {
            let code = if self.head_began.is_some() { Code::EnhanceYourCalm } else { Code::NoError };
            self.count_goaway(code);
            self.codec.go_away(code, None);
            return Next::Close;
        }
        Next::Over
    }

    /// Sends what is left to be said, and gives the client time to hear it.
    pub(super) async fn close(&mut self, connection: &Connection, sending: &Watch) -> Next {
        let Connection { stream, client, .. } = connection;
        let worker = &client.door.worker;
        self.lose_all();
        let patience = client.door.ask(|listener| listener.body_timeout);
        if let Some(out) = self.collect(worker) {
            let _guard = sending.over_send(stream, patience.min(LINGER), clock::now());
            let (sent, block) = stream.send_noting(out, || sending.on_sent(clock::now())).await;
            worker.put(block);
            if sent.is_err() {
                return Next::Over;
            }
        }
        let _guard = sending.over(stream, clock::now() + LINGER, Shutdown::Both);
        // what was posted may not have left, and an end would overtake it
        stream.posted().await;
        if stream.end().await.is_err() {
            return Next::Over;
        }
        let mut left = LINGER_BYTES;
        let mut inbox = worker.blocks.borrow_mut().small();
        while left > 0 {
            inbox.clear();
            let (received, block) = stream.receive(inbox).await;
            inbox = block;
            match received {
                Ok(count @ 1..) => left = left.saturating_sub(count),
                _ => break,
            }
        }
        worker.put(inbox);
        Next::Over
    }

    pub(super) fn count_goaway(&self, code: Code) {
        let at = self.client.door.at();
        at.generation.recorder.goaway(at.row, StreamCode::ALL[code as usize]);
    }

    /// Nobody is left at the other end: whoever serves a stream hears of it.
    pub(super) fn lose_all(&mut self) {
        for slot in self.slots.iter_mut().filter_map(Option::take) {
            slot.runner.leave(&self.client.door.worker);
        }
        self.writing.clear();
    }
}
