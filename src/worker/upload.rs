//! The request on its way up: its rebuilt head, and its body as the client sends it.
//!
//! What goes out is collected in one block. As long as head and body fit into what may be replayed ([`crate::limits::REPLAY_BYTES_MAX`]), the block
//! keeps everything, and a second attempt begins by sending it again; beyond that, each piece is forgotten once it is sent, and the
//! request can be tried a second time only where nothing was sent. The body is never read before a connection stands, so a
//! connect failure can be retried whatever the body's size.
//!
//! An upload is driven beside whatever its attempt waits for ([`super::going`]): the response, and then, as long as that is no refusal, its
//! body too, because an endpoint may answer while it reads (RFC 9112 §9.5). All state is in cells, so that the answering side can look.
//!
//! A client that waits for `100 Continue` is not read from before [`super::conversation`], which hears the endpoint, has told it.

mod holding;
mod invariants;
mod paying;
mod waits;

use self::holding::Held;
pub(super) use self::holding::Hold;
use self::waits::Waits;
use super::attempt::Attempt;
use super::attempts::Attempts;
use super::compression::Coder;
use super::discard::Rest;
use super::failure::Failure;
use super::going::Delivery;
use super::inbound::Inbound;
use super::incoming::{Incoming, framing_up};
use super::mirror;
use crate::error::ProxyError;
use crate::http::body::{Body, push_piece};
use crate::http::framing::Framing;
use crate::http::grpc;
use crate::http::grpc_web::Text;
use crate::http::trailers::Trailers;
use crate::limits::DISCARD_BYTES_MAX;
use crate::net::block::Block;
use crate::net::clock;
use crate::net::stream::{SEND_AT_ONCE, Stream};
use crate::net::timer::Watch;
use crate::units::Instant;
use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::net::Shutdown;
use std::task::Poll;
use std::time::Duration;

/// A request that is being sent; outlives its attempts.
pub(super) struct Upload<'c> {
    inbound: &'c Inbound<'c>,
    attempts: &'c Attempts<'c>,
    /// What the client has sent and nobody has looked at.
    inbox: RefCell<Block>,
    outbound: RefCell<Block>,
    head_bytes: Cell<usize>,
    body: RefCell<Body>,
    framing: Framing,
    /// For a body that comes as text.
    text: Option<RefCell<Text>>,
    trailers: RefCell<Trailers>,
    patience: Duration,
    replay: Cell<Replay>,
    /// The client waits for `100 Continue`, and has not been told yet.
    withheld: Cell<bool>,
    body_bytes: Cell<u64>,
    /// Somebody waits for the client's next bytes; nobody else may then.
    waits: Cell<bool>,
    /// Nobody knows where the client's next request begins.
    severed: Cell<bool>,
    /// The last receive has filled its block.
    fast: Cell<bool>,
    rate_min: u64,
    /// It is a call of gRPC.
    is_call: bool,
    /// T_max begins with its end.
    is_open: bool,
    /// A copy of it is to be made.
    mirrors: Cell<bool>,
    /// What it holds of what a worker may, where a body is awaited.
    held: OnceCell<Box<Held>>,
    /// What compresses the answer.
    coder: Cell<Option<Box<Coder>>>,
    /// Over what is waited for of the client.
    watch: OnceCell<Watch>,
    /// Time spent waiting for the client, while a rate is asked of it.
    waited_nanos: Cell<u64>,
}

/// Where the client is with its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyState {
    /// It has sent all of it.
    Complete,
    /// It is sending.
    Sending,
    /// It waits for `100 Continue`.
    Withheld,
    /// It is malformed, and the connection is lost with it.
    Severed,
}

/// What [`Upload::run`] is doing, and so what its sudden end would mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replay {
    /// All that was collected is in `outbound`.
    Kept,
    /// Some of it has been forgotten, or is inside a send that may be dropped.
    Lost,
}

impl<'c> Upload<'c> {
    /// `inbox` holds what the client sent behind its head.
    pub(super) fn new(inbound: &'c Inbound<'c>, attempts: &'c Attempts<'c>, inbox: Block, incoming: Incoming) -> Self {
        Self {
            inbound,
            attempts,
            inbox: RefCell::new(inbox),
            head_bytes: Cell::new(0),
            outbound: RefCell::default(),
            body: RefCell::new(Body::new(incoming.framing, incoming.bytes_max)),
            framing: framing_up(incoming.framing, incoming.is_text),
            text: incoming.is_text.then(RefCell::default),
            trailers: RefCell::new(incoming.trailers),
            patience: incoming.patience,
            replay: Cell::new(Replay::Kept),
            withheld: Cell::new(incoming.withheld),
            body_bytes: Cell::new(0),
            waits: Cell::new(false),
            severed: Cell::new(false),
            fast: Cell::new(false),
            rate_min: incoming.rate_min,
            is_call: incoming.is_call,
            is_open: incoming.is_open,
            mirrors: Cell::new(incoming.is_mirrored),
            held: OnceCell::new(),
            coder: Cell::default(),
            watch: OnceCell::new(),
            waited_nanos: Cell::new(0),
        }
    }

    /// Puts the head before all else; `head` is shown the block whose unread part is what the client sent behind its own.
    pub(super) fn begin_with(&self, head: impl FnOnce(&Block) -> Block) {
        debug_assert!(self.outbound.borrow().all().is_empty(), "nothing can go before the head");
        let head = head(&self.inbox.borrow());
        self.head_bytes.set(head.all().len());
        self.outbound.replace(head);
    }

    /// Says in the head how long a call's client still waits. All of it can go out again.
    pub(super) fn restate_timeout(&self, left: Duration) {
        let (mut outbound, rules) = (self.outbound.borrow_mut(), self.attempts.request_rules());
        let head_bytes = grpc::restate_timeout(outbound.vec_mut(), self.head_bytes.get(), left, rules);
        self.head_bytes.set(head_bytes);
    }

    /// The end of an attempt that begins at `now` and may take until `until`: while the client is still sending, only T_max counts,
    /// because its slowness is not the endpoint's. The rest of the attempt's time runs from the end of the body on.
    pub(super) fn time(&self, delivery: &Delivery, until: Instant, now: Instant) -> Instant {
        let (time, until) = match self.is_complete() {
            true => (Duration::MAX, until),
            false => (until.since(now), self.end_of_silence(now)),
        };
        delivery.time.set(time);
        delivery.until.set(until);
        until
    }

    /// How long an endpoint may say nothing to a request that its client goes on with: until T_max, or, where that waits for the end of the request,
    /// as long as it is silent.
    fn end_of_silence(&self, now: Instant) -> Instant {
        let deadline = self.attempts.deadline();
        match (self.is_call, self.is_open) {
            (true, _) => deadline.min(now + self.patience),
            // a client that says nothing for so long has failed before
            (false, true) => deadline.min(now + 2 * self.patience),
            (false, false) => deadline,
        }
    }

    /// The endpoint has said something, which is patience for its client.
    pub(super) fn on_heard(&self, now: Instant) {
        if self.is_call
            && let Some(watch) = self.watch.get()
        {
            watch.extend(now + self.patience);
        }
    }

    /// Whether the whole request is here, and the kernel takes it at once: then nobody waits for its being sent.
    pub(super) fn goes_at_once(&self, delivery: &Delivery) -> bool {
        self.is_complete() && !delivery.has_left.get() && self.unsent_bytes(delivery) <= SEND_AT_ONCE
    }

    /// Bytes that are here and were not handed to the connection.
    fn unsent_bytes(&self, delivery: &Delivery) -> usize {
        let outbound = self.outbound.borrow();
        match self.replay.get() {
            Replay::Kept => outbound.all().len() - delivery.sent.get(),
            Replay::Lost => outbound.unread().len(),
        }
    }

    /// Whether an attempt can be made with what is here: either nothing went out, or all of it can go out again.
    pub(super) fn can_begin(&self) -> bool {
        self.is_replayable() && !self.severed.get()
    }

    /// Whether everything that went out can go out again.
    pub(super) fn is_replayable(&self) -> bool {
        self.replay.get() == Replay::Kept
    }

    /// Whether a byte of it was handed to the connection.
    pub(super) fn has_sent(&self, delivery: &Delivery) -> bool {
        self.replay.get() == Replay::Lost || delivery.sent.get() > 0
    }

    /// Bytes handed to the connection, when they are the whole request and can all be sent again.
    pub(super) fn sent_whole_bytes(&self, delivery: &Delivery) -> Option<usize> {
        (self.is_complete() && self.is_replayable()).then_some(delivery.sent.get())
    }

    /// Whether the client has sent its whole body.
    pub(super) fn is_complete(&self) -> bool {
        self.body.borrow().is_done()
    }

    /// Whether the client's next bytes are being waited for.
    pub(super) fn waits_for_client(&self) -> bool {
        self.waits.get()
    }

    /// Payload bytes taken from the client.
    pub(super) fn body_bytes(&self) -> u64 {
        self.body_bytes.get()
    }

    /// Where the client is with its body.
    pub(super) fn body_state(&self) -> BodyState {
        match self.is_complete() {
            true => BodyState::Complete,
            false if self.severed.get() => BodyState::Severed,
            false if self.withheld.get() => BodyState::Withheld,
            false => BodyState::Sending,
        }
    }

    /// Payload bytes still to come, if the client has said.
    pub(super) fn left(&self) -> Option<u64> {
        self.body.borrow().left()
    }

    /// The client was told to send what it held back.
    pub(super) fn let_go(&self) {
        self.withheld.set(false);
    }

    /// What the client has sent behind its request.
    pub(super) fn take_inbox(&self) -> Block {
        self.inbox.take()
    }

    /// What is still to come, for somebody who does not want it.
    pub(super) fn rest(&mut self) -> Rest<'_> {
        Rest { inbox: self.inbox.get_mut(), body: self.body.get_mut(), trailers: self.trailers.get_mut() }
    }

    /// Gives its own block back to the worker, and returns what the client has sent behind its request.
    pub(super) fn finish(self) -> Block {
        self.inbound.worker.put(self.outbound.into_inner());
        self.inbox.into_inner()
    }

    /// Sends what is there, from the first byte on, then the rest of the body as it comes.
    pub(super) async fn run(&self, delivery: &Delivery, attempt: &Attempt, upstream: &Stream) -> Result<(), Failure> {
        self.take_in()?;
        loop {
            if cfg!(debug_assertions) {
                self.check_invariants(delivery);
            }
            if let Some(paying) = self.owes() {
                paying.await?;
            }
            self.send(delivery, attempt, upstream).await?;
            if self.is_complete() {
                self.on_complete(delivery, attempt);
                return Ok(());
            }
            if delivery.stop.get() {
                return Err(Failure::BROKEN);
            }
            if self.withheld.get() {
                poll_fn(|_| if self.withheld.get() { Poll::Pending } else { Poll::Ready(()) }).await;
            }
            self.receive().await?;
            self.take_in()?;
            if delivery.stop.get() {
                return Err(Failure::BROKEN);
            }
        }
    }

    /// The client's part is done: what is left of the attempt's time begins to run.
    fn on_complete(&self, delivery: &Delivery, attempt: &Attempt) {
        let now = clock::now();
        self.attempts.begin_deadline(now);
        if self.mirrors.take() {
            let outbound = self.outbound.borrow();
            let text = self.is_replayable().then(|| (outbound.all(), self.head_bytes.get()));
            mirror::send(self.inbound.worker, self.attempts.route(), text);
        }
        if delivery.time.get() != Duration::MAX && !delivery.answered.get() {
            // one that cannot be sent again has all the time that is left
            let time = if self.is_replayable() { delivery.time.get() } else { Duration::MAX };
            delivery.until.set((now + time).min(self.attempts.deadline()));
            attempt.watch.move_to(delivery.until.get());
        }
    }

    /// Sends what is kept from where the delivery has come to.
    async fn send(&self, delivery: &Delivery, attempt: &Attempt, upstream: &Stream) -> Result<(), Failure> {
        if self.unsent_bytes(delivery) == 0 {
            return Ok(());
        }
        let unawaited = self.goes_at_once(delivery);
        let began = clock::now();
        // where T_max does not run while the client may say more, an endpoint that takes nothing of it has no more time than that all the same
        let is_open = self.is_call || self.is_open;
        let in_time = is_open && delivery.time.get() != Duration::MAX && !delivery.answered.get();
        if in_time {
            attempt.watch.turn_to_send(self.attempts.time(), began);
        }
        let kept = self.replay.replace(Replay::Lost);
        let mut outbound = self.outbound.take();
        if kept == Replay::Kept {
            outbound.set_unread(delivery.sent.get()..outbound.all().len());
        }
        delivery.moving.set(true);
        let (sent, mut outbound) = match unawaited {
            true => upstream.send_unawaited(outbound).await,
            false => upstream.send_noting(outbound, || delivery.has_left.set(true)).await,
        };
        delivery.moving.set(false);
        delivery.has_left.set(true);
        // chunk lines count only when they are most of it: a body in chunks of a byte each must not be kept either
        let encoded = outbound.all().len() - self.head_bytes.get().min(outbound.all().len());
        let kept_max = self.kept_bytes_max();
        let outgrown = self.body_bytes.get() > kept_max as u64 || encoded > 2 * kept_max;
        if kept == Replay::Kept && outgrown {
            self.attempts.forbid_replay();
        }
        let replay = if outgrown { Replay::Lost } else { kept };
        if replay == Replay::Lost {
            outbound.clear();
        }
        delivery.sent.set(outbound.consumed());
        self.replay.set(replay);
        self.outbound.replace(outbound);
        if delivery.answered.get() {
            attempt.watch.extend(clock::now() + self.patience);
        } else if in_time && attempt.watch.expired() {
            self.attempts.begin_deadline(began);
        } else if in_time {
            delivery.until.set(self.end_of_silence(clock::now()));
            attempt.watch.turn_to_wait(delivery.until.get());
        }
        sent.map_err(|_| Failure::BROKEN)
    }

    /// Receives more of the body. One that may be slow in coming holds no block meanwhile; bulk is spared the extra turn of the loop.
    /// May be dropped: what comes then belongs to the socket, and nothing was in the block.
    async fn receive(&self) -> Result<(), Failure> {
        let watch = self.watch.get_or_init(|| self.inbound.worker.timers.watch());
        let began = clock::now();
        let _guard = watch.over(self.inbound.stream, self.end_of_wait(began), Shutdown::Read);
        let left = self.left();
        let waits = Waits::begin(&self.waits);
        if left.is_none_or(|left| left <= DISCARD_BYTES_MAX) {
            // what is wrong with the socket, the receive will say
            let _ = self.inbound.stream.readable().await;
        }
        let mut block = self.take_inbox();
        {
            let mut outbound = self.outbound.borrow_mut();
            if block.all().is_empty() && outbound.all().is_empty() && outbound.room() > block.room() {
                // one large block is enough
                std::mem::swap(&mut block, &mut outbound);
            }
        }
        let (block, left) = self.paced_block(block, left);
        let block = self.inbound.worker.widen(block, left, self.fast.get());
        let (received, block) = self.inbound.stream.receive(block).await;
        drop(waits);
        self.fast.set(self.inbound.stream.has_filled(&block) && !self.is_paced());
        self.inbox.replace(block);
        match received {
            _ if watch.expired() => Err(Failure::Downstream(ProxyError::RequestTimeout)),
            Ok(1..) if self.rate_min > 0 && self.is_too_slow(began) => {
                Err(Failure::Downstream(ProxyError::RequestTimeout))
            }
            Ok(1..) => Ok(()),
            _ => Err(Failure::Downstream(ProxyError::ClientClosed)),
        }
    }

    /// Whether the client is below its floor, after having been waited for once more. What the endpoint takes its time for is not the
    /// client's fault and does not count.
    fn is_too_slow(&self, since: Instant) -> bool {
        let now = clock::now();
        if self.inbound.worker.timers.was_away(now) {
            return false;
        }
        let waited = Duration::from_nanos(self.waited_nanos.get()) + now.since(since);
        self.waited_nanos.set(u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX));
        let bytes = u128::from(self.body_bytes()) + self.inbox.borrow().unread().len() as u128;
        waited > self.patience && bytes * 1_000_000_000 < u128::from(self.rate_min) * waited.as_nanos()
    }

    /// Moves what the client has sent of its body from the inbox into the outbound block, in the canonical framing.
    fn take_in(&self) -> Result<(), Failure> {
        let mut inbox = self.inbox.borrow_mut();
        let mut body = self.body.borrow_mut();
        if body.is_done() || inbox.is_empty() {
            return Ok(());
        }
        let filled = inbox.unread_mut();
        let filled_bytes = filled.len();
        let mut trailers = self.trailers.borrow_mut();
        let decoded = body.decode(filled, 0..filled_bytes, &mut trailers).map_err(|error| {
            self.severed.set(true); // nobody knows where the next request begins
            Failure::Downstream(error.downstream())
        })?;
        self.body_bytes.set(self.body_bytes() + decoded.payload.len() as u64);
        let mut outbound = self.outbound.borrow_mut();
        let is_all = decoded.payload == (0..filled_bytes);
        if is_all && self.framing != Framing::Chunked && self.replay.get() == Replay::Lost && outbound.all().is_empty()
        {
            // nothing is kept of it, and it goes up as it came
            std::mem::swap(&mut *inbox, &mut *outbound);
            return Ok(());
        }
        let payload = &inbox.unread()[decoded.payload.clone()];
        if let Some(held) = self.held.get() {
            held.note(payload);
        }
        let end = trailers.end(decoded.done, self.attempts.request_rules());
        match &self.text {
            None => push_piece(outbound.vec_mut(), self.framing, payload, end),
            Some(text) => {
                let mut text = text.borrow_mut();
                let is_text = self.inbound.worker.restate_in_room(|said| {
                    let is_text = text.decode(payload, said).is_ok() && (!decoded.done || text.is_whole());
                    if is_text {
                        push_piece(outbound.vec_mut(), self.framing, said, end);
                    }
                    is_text
                });
                if !is_text {
                    self.severed.set(!body.is_done());
                    return Err(Failure::Downstream(ProxyError::BadRequest));
                }
            }
        }
        inbox.consume(decoded.consumed);
        if inbox.is_empty() {
            inbox.clear();
        }
        Ok(())
    }
}
