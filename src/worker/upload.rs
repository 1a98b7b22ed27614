//! The request on its way up: its rebuilt head, and its body as the client sends it.
//!
//! What goes out is collected in one block. As long as head and body fit into what may be replayed ([`REPLAY_BYTES_MAX`]), the block
//! keeps everything, and a second attempt begins by sending it again; beyond that, each piece is forgotten once it is sent, and the
//! request can be tried a second time only where nothing was sent. The body is never read before a connection stands, so a
//! connect failure can be retried whatever the body's size.
//!
//! A client that waits for `100 Continue` is not read from before it was told ([`Talk::go`]); who tells it is
//! [`super::attempt`], which hears the endpoint.

use super::attempt::Failure;
use super::attempts::Attempts;
use super::connection::Connection;
use super::discard::Rest;
use super::state::Worker;
use crate::error::ProxyError;
use crate::http::body::{Body, push_piece};
use crate::http::framing::Framing;
use crate::http::trailers::Trailers;
use crate::limits::{DISCARD_BYTES_MAX, REPLAY_BYTES_MAX};
use crate::net::block::Block;
use crate::net::clock;
use crate::net::stream::Stream;
use crate::policy::retry::Sent;
use crate::units::Instant;
use std::cell::Cell;
use std::future::poll_fn;
use std::net::Shutdown;
use std::task::Poll;
use std::time::Duration;

/// A request that is being sent; outlives its attempts.
pub(super) struct Upload<'c> {
    worker: &'c Worker,
    client: &'c Connection,
    attempts: &'c Attempts<'c>,
    inbox: &'c mut Block,
    outbound: Block,
    head_bytes: usize,
    body: Body,
    framing: Framing,
    trailers: Trailers,
    patience: Duration,
    progress: Progress,
    /// The client waits for `100 Continue`, and has not been told yet.
    withheld: bool,
    body_bytes: u64,
    waits: bool,
    /// A receive was dropped that the client's next bytes may have gone into.
    severed: bool,
    rate_min: u64,
    /// Time spent waiting for the client, while a rate is asked of it.
    waited: Duration,
    /// The time of the attempt, which begins to run once the client has sent everything.
    time: Duration,
}

/// What [`Upload::run`] and the one who hears the endpoint tell each other while both are under way.
#[derive(Debug, Default)]
pub(super) struct Talk {
    /// The client was told to send the body that it holds back.
    pub(super) go: Cell<bool>,
    /// The answer is there, or there will be none: nothing more is to be sent.
    pub(super) stop: Cell<bool>,
    /// Bytes of the client are being received that have arrived already: dropping the upload now would lose them, and one more poll
    /// or two complete it.
    pub(super) receiving: Cell<bool>,
}

/// Where the client is with its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has sent all of it.
    Complete,
    /// It is sending.
    Sending,
    /// It waits for `100 Continue`.
    Withheld,
    /// Some of it is lost, and the connection with it.
    Severed,
}

/// What [`Upload::run`] is doing, and so what its sudden end would mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// All that was collected is in `outbound`.
    Kept,
    /// Some of it has been forgotten, or is inside a send that may be dropped.
    Lost,
}

/// How a request's body comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incoming {
    /// Its framing as the client declared it, which is also how it goes up.
    pub(super) framing: Framing,
    /// Payload bytes allowed.
    pub(super) bytes_max: u64,
    /// The client waits for `100 Continue`.
    pub(super) withheld: bool,
    /// Without a byte from the client.
    pub(super) patience: Duration,
    /// Bytes per second of waiting, once that has taken `patience`; 0: none.
    pub(super) rate_min: u64,
}

impl<'c> Upload<'c> {
    /// `outbound` holds the encoded head; `inbox` what the client sent behind its own.
    pub(super) fn new(
        worker: &'c Worker,
        client: &'c Connection,
        attempts: &'c Attempts<'c>,
        inbox: &'c mut Block,
        outbound: Block,
        incoming: Incoming,
    ) -> Self {
        Self {
            worker,
            client,
            attempts,
            inbox,
            head_bytes: outbound.all().len(),
            outbound,
            body: Body::new(incoming.framing, incoming.bytes_max),
            framing: incoming.framing,
            trailers: Trailers::default(),
            patience: incoming.patience,
            progress: Progress::Kept,
            withheld: incoming.withheld,
            body_bytes: 0,
            waits: false,
            severed: false,
            rate_min: incoming.rate_min,
            waited: Duration::ZERO,
            time: Duration::MAX,
        }
    }

    /// Makes the next attempt begin with the first byte.
    pub(super) fn rewind(&mut self) {
        if self.is_replayable() {
            self.outbound.rewind();
        }
        self.waits = false;
    }

    /// The end of an attempt that begins now and may take until `until`: while the client is still sending, only T_max counts, because
    /// its slowness is not the endpoint's. The rest of the attempt's time runs from the end of the body on.
    pub(super) fn time_attempt(&mut self, until: Instant) -> Instant {
        if self.is_complete() {
            self.time = Duration::MAX;
            return until;
        }
        self.time = until.since(clock::now());
        self.attempts.deadline()
    }

    /// Whether an attempt can be made with what is here: either nothing went out, or all of it can go out again.
    pub(super) fn can_begin(&self) -> bool {
        self.is_replayable() && !self.severed
    }

    /// Whether everything that went out can go out again.
    pub(super) fn is_replayable(&self) -> bool {
        self.progress == Progress::Kept
    }

    /// Whether a byte of it was handed to a connection since the last [`Upload::rewind`].
    pub(super) fn has_sent(&self) -> bool {
        self.progress == Progress::Lost || self.outbound.consumed() > 0
    }

    /// Bytes handed to the connection of this attempt, when they are the whole request and can all be sent again.
    pub(super) fn sent_whole_bytes(&self) -> Option<usize> {
        (self.is_complete() && self.is_replayable()).then(|| self.outbound.consumed())
    }

    /// Whether the client has sent its whole body.
    pub(super) fn is_complete(&self) -> bool {
        self.body.is_done()
    }

    /// Whether the client's next bytes are being waited for.
    pub(super) fn waits_for_client(&self) -> bool {
        self.waits
    }

    /// Payload bytes taken from the client.
    pub(super) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Where the client is with its body.
    pub(super) fn standing(&self) -> Standing {
        match self.is_complete() {
            true => Standing::Complete,
            false if self.severed => Standing::Severed,
            false if self.withheld => Standing::Withheld,
            false => Standing::Sending,
        }
    }

    /// Payload bytes still to come, if the client has said.
    pub(super) fn left(&self) -> Option<u64> {
        self.body.left()
    }

    /// The client was told to send what it held back.
    pub(super) fn on_told(&mut self) {
        self.withheld = false;
    }

    /// What the client has sent behind its request.
    pub(super) fn take_inbox(&mut self) -> Block {
        std::mem::take(self.inbox)
    }

    /// What is still to come, for somebody who does not want it.
    pub(super) fn rest(&mut self) -> Rest<'_> {
        Rest { inbox: self.inbox, body: &mut self.body, trailers: &mut self.trailers }
    }

    /// Gives the block back.
    pub(super) fn finish(self) {
        self.worker.put(self.outbound);
    }

    /// Sends what is there, then the rest of the body as it comes.
    pub(super) async fn run(&mut self, upstream: &Stream, talk: &Talk) -> Result<(), Failure> {
        self.take_in()?;
        loop {
            self.send(upstream).await?;
            if self.body.is_done() {
                if self.time != Duration::MAX {
                    // one that cannot be sent again has all the time that is left
                    let time = if self.is_replayable() { self.time } else { Duration::MAX };
                    self.client.watch.move_to((clock::now() + time).min(self.attempts.deadline()));
                }
                return Ok(());
            }
            if self.withheld {
                poll_fn(|_| if talk.go.get() { Poll::Ready(()) } else { Poll::Pending }).await;
            }
            self.receive(talk).await?;
            self.take_in()?;
            if talk.stop.get() {
                return Err(Failure::Reset { sent: Sent::Maybe, reused: false });
            }
        }
    }

    async fn send(&mut self, upstream: &Stream) -> Result<(), Failure> {
        if self.outbound.is_empty() {
            return Ok(());
        }
        let kept = std::mem::replace(&mut self.progress, Progress::Lost);
        let (sent, outbound) = upstream.send(std::mem::take(&mut self.outbound)).await;
        self.outbound = outbound;
        self.progress = kept;
        // chunk lines count only when they are most of it: a body in chunks of a byte each must not be kept either
        let encoded = self.outbound.all().len() - self.head_bytes.min(self.outbound.all().len());
        let outgrown = self.body_bytes > REPLAY_BYTES_MAX as u64 || encoded > 2 * REPLAY_BYTES_MAX;
        if kept == Progress::Kept && outgrown {
            self.progress = Progress::Lost;
            self.attempts.forbid_replay();
        }
        if self.progress == Progress::Lost {
            self.outbound.clear();
        }
        sent.map_err(|_| Failure::Reset { sent: Sent::Maybe, reused: false })
    }

    /// Receives more of the body. While it could still be thrown away or sent again it is waited for by poll, which may be dropped
    /// without losing a byte; a body that is too large for either is spared the extra turn of the loop.
    async fn receive(&mut self, talk: &Talk) -> Result<(), Failure> {
        let watch = self.worker.timers.watch();
        let began = clock::now();
        let _guard = watch.over(&self.client.stream, began + self.patience, Shutdown::Read);
        let by_poll = self.body.left().is_none_or(|left| left <= DISCARD_BYTES_MAX);
        self.waits = true;
        if by_poll {
            // what is wrong with the socket, the receive will say
            let _ = self.client.stream.readable().await;
        }
        let block = self.worker.widen(std::mem::take(self.inbox), self.body.left());
        let kept = std::mem::replace(&mut self.progress, Progress::Lost);
        self.severed = true;
        talk.receiving.set(by_poll);
        let (received, block) = self.client.stream.receive(block).await;
        talk.receiving.set(false);
        self.severed = false;
        self.progress = kept;
        self.waits = false;
        *self.inbox = block;
        match received {
            Ok(1..) if self.rate_min > 0 && self.is_too_slow(clock::now().since(began)) => {
                Err(Failure::Downstream(ProxyError::RequestTimeout))
            }
            Ok(1..) => Ok(()),
            _ if watch.expired() => Err(Failure::Downstream(ProxyError::RequestTimeout)),
            _ => Err(Failure::Downstream(ProxyError::ClientClosed)),
        }
    }

    /// Whether the client is below its floor, after having been waited for once more. What the endpoint takes its time for is not the
    /// client's fault and does not count.
    fn is_too_slow(&mut self, waited: Duration) -> bool {
        self.waited += waited;
        let bytes = u128::from(self.body_bytes) + self.inbox.unread().len() as u128;
        self.waited > self.patience && bytes * 1_000_000_000 < u128::from(self.rate_min) * self.waited.as_nanos()
    }

    /// Moves what the client has sent of its body from the inbox into the outbound block, in the canonical framing.
    fn take_in(&mut self) -> Result<(), Failure> {
        if self.body.is_done() || self.inbox.is_empty() {
            return Ok(());
        }
        let filled = self.inbox.unread_mut();
        let range = 0..filled.len();
        let decoded = self.body.decode(filled, range, &mut self.trailers).map_err(|error| {
            self.severed = true; // nobody knows where the next request begins
            Failure::Downstream(error.downstream())
        })?;
        let payload = &self.inbox.unread()[decoded.payload.clone()];
        self.body_bytes += payload.len() as u64;
        let end = decoded.done.then(|| self.trailers.lines());
        push_piece(self.outbound.vec_mut(), self.framing, payload, end);
        self.inbox.consume(decoded.consumed);
        if self.inbox.is_empty() {
            self.inbox.clear();
        }
        Ok(())
    }
}
