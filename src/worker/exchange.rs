//! One request, one straight line:
//! `read_head → route → admit → pick → checkout → send → await_head → classify → relay → record → checkin`.
//!
//! [`exchange`] is that line. It waits for bytes and moves them; every decision in it is a call into `policy`
//! ([`crate::policy::exchange`] decides about attempts, and is the same code that the simulator runs). It knows neither which
//! protocol the two sides speak beyond "a head and a body", nor whether they are encrypted.

use super::answer::{Answered, Answering};
use super::attempt::{Asked, Conversation};
use super::attempts::{Attempts, Brings};
use super::client::Connection;
use super::discard::{Rest, Served, conclude};
use super::failure::{Ending, Failure};
use super::generation::Generation;
use super::going::Going;
use super::line::Line;
use super::opening::{self, Opened, Try};
use super::plan::{self, Forward, Plan, Way};
use super::record::Record;
use super::upload::{Incoming, Upload};
use crate::error::{ProxyError, Rule};
use crate::http::Version;
use crate::http::body::Body;
use crate::http::cycle::Cycle;
use crate::http::glimpse::Glimpse;
use crate::http::reply::{self, ReplyTo};
use crate::http::scan::HeadScanner;
use crate::http::trailers::Trailers;
use crate::limits::REPLAY_BYTES_MAX;
use crate::net::block::Block;
use crate::net::clock;
use crate::policy::exchange::{Action, Event};
use crate::units::Instant;
use std::net::Shutdown;
use std::pin::pin;
use std::rc::Rc;

/// How every TLS handshake begins: a record of that kind, of version 3 (RFC 8446 §5.1). No method begins so.
const HANDSHAKE: &[u8] = b"\x16\x03";

/// Serves the request whose first bytes are in the inbox and arrived at `arrived`. With `due` more of it has arrived since.
///
/// `None`: its head is not all there, and too many connections wait in here; its bytes are still in the inbox.
pub(super) async fn exchange(
    worker: &Rc<Generation>,
    connection: &Connection,
    inbox: &mut Block,
    record: &mut Record,
    (arrived, due): (Instant, bool),
) -> Option<Served> {
    // filled and used where it stands: it is large, and moved from hand to hand it would cost more than it takes to make
    let mut plan = None;
    let now = match read_head(worker, connection, (inbox, &mut plan), record, (arrived, due)).await {
        Ok(now) => now,
        Err(error) => return Some(refuse_head(worker, connection, inbox, record, error)),
    };
    let Plan { head_bytes, cycle, way } = plan.as_mut()?;
    inbox.consume(*head_bytes);
    Some(match way {
        Way::Answer { out, framing } => {
            record.response_bytes = out.unread().len() as u64;
            let mut body = Body::new(*framing, u64::MAX);
            let rest = Rest { inbox, body: &mut body, trailers: &mut Trailers::default() };
            let served = Served { last: std::mem::take(out), close: false, linger: true, at: now };
            conclude(worker, connection, (cycle, rest), record, served).await
        }
        Way::Forward(to) => forward((worker, connection), inbox, cycle, record, to, (arrived, now)).await,
    })
}

/// Receives until the head is whole, within `header_timeout` of its first byte, plans, and says when it was. Without a plan there is no
/// room to wait in here.
async fn read_head(
    worker: &Rc<Generation>,
    connection: &Connection,
    (inbox, plan): (&mut Block, &mut Option<Plan>),
    record: &mut Record,
    (arrived, mut due): (Instant, bool),
) -> Result<Instant, ProxyError> {
    let config = connection.config(worker);
    let mut scanner = HeadScanner::default();
    // a head may take long to arrive, and what is decided about it must not be decided for the moment of its first byte
    let mut now = if due { clock::now() } else { arrived };
    // one that was waited for elsewhere has been given its time there, and that of a gateway which stood still
    let is_over = connection.watch.expired() || !worker.timers.was_away(now);
    if now >= arrived + config.header_timeout && is_over {
        return Err(ProxyError::RequestTimeout);
    }
    loop {
        if !std::mem::take(&mut due) {
            // a head that has reached its limit is judged even without an end in sight
            if scanner.is_ready(inbox.unread()) || inbox.unread().len() >= config.head_bytes_max {
                plan::plan(worker, connection, inbox.unread(), record, (now, plan))?;
            }
            if inbox.unread().starts_with(HANDSHAKE) {
                return Err(ProxyError::BadRequest);
            }
            if plan.is_some() || worker.is_crowded() {
                return Ok(now);
            }
        }
        let _armed = worker.arm();
        inbox.compact();
        if inbox.room() == 0 {
            worker.grow(inbox, config.head_bytes_max);
        }
        let deadline = arrived + config.header_timeout;
        let _guard = connection.watch.over(&connection.stream, deadline, Shutdown::Read);
        let (received, block) = connection.stream.receive(std::mem::take(inbox)).await;
        *inbox = block;
        match received {
            // also when some bytes have come with it: what follows would be the end that it has made
            _ if connection.watch.expired() => return Err(ProxyError::RequestTimeout),
            Ok(1..) => now = clock::now(),
            _ => return Err(ProxyError::ClientClosed),
        }
    }
}

/// A request that could not be read: one reply, then the end.
fn refuse_head(
    worker: &Generation,
    connection: &Connection,
    inbox: &mut Block,
    record: &mut Record,
    error: ProxyError,
) -> Served {
    let mut last = worker.blocks.borrow_mut().small();
    let now = clock::now();
    if error != ProxyError::ClientClosed {
        let server = &connection.config(worker).server;
        // RFC 9110 §9.3.2: no content for HEAD, whatever is wrong with the rest of it
        let head_only = Glimpse::of(inbox.unread()).method == b"HEAD";
        let to =
            ReplyTo { version: Version::Http11, head_only, close: true, date: &worker.date(now), server, rules: None };
        let broken = match inbox.unread().starts_with(HANDSHAKE) {
            true => Some(Rule::Handshake),
            false => worker.scratch.borrow().head.broken_rule(),
        };
        let broken = broken.filter(|_| error == ProxyError::BadRequest);
        match broken {
            Some(rule) => {
                record.on_malformed(rule);
                reply::malformed(last.vec_mut(), rule, &to);
            }
            None => reply::error(last.vec_mut(), error, &[], &to),
        }
    }
    record.on_unread(worker, connection, inbox.unread());
    record.on_error(error);
    record.response_bytes = last.unread().len() as u64;
    inbox.clear();
    Served { last, close: true, linger: true, at: now }
}

async fn forward(
    (worker, connection): (&Rc<Generation>, &Connection),
    inbox: &mut Block,
    cycle: &mut Cycle,
    record: &mut Record,
    forward: &mut Forward,
    (arrived, now): (Instant, Instant),
) -> Served {
    let Forward { route, cluster, version, framing, withheld, bytes_max, idempotent, hash, .. } = *forward;
    let Forward { method, offer, outbound, slot, trailers, .. } = forward;
    let (offer, slot) = (offer.take(), slot.take());
    let replayable = !framing.exceeds(REPLAY_BYTES_MAX as u64);
    // the time for which the gateway itself stood still is not the client's
    let arrived = if worker.timers.was_away(now) { now } else { arrived };
    let attempts = Attempts::new(worker, Brings { route, cluster, idempotent, replayable, hash, arrived });
    let config = connection.config(worker);
    let (patience, rate_min) = (config.body_timeout, config.body_rate_min);
    let incoming = Incoming { framing, trailers: std::mem::take(trailers), bytes_max, withheld, patience, rate_min };
    let blocks = (std::mem::take(inbox), std::mem::take(outbound));
    let mut upload = Upload::new(worker, connection, &attempts, blocks, incoming);
    let mut line = Line {
        worker,
        connection,
        attempts: &attempts,
        cycle,
        record,
        route,
        method,
        version,
        idempotent,
        met_stale: false,
        offer,
        now,
    };
    let (last, linger) = line.run(&upload).await;
    let Line { cycle, record, now, .. } = line;
    record.request_bytes += upload.body_bytes();
    record.on_attempts(&attempts);
    drop(slot); // before what is left of the request is waited for
    let served = Served { last, close: false, linger, at: now };
    let served = conclude(worker, connection, (cycle, upload.rest()), record, served).await;
    *inbox = upload.finish();
    served
}

impl Line<'_> {
    /// From the first pick to the last bytes for the client, which it returns, with whether the client is there to read them.
    async fn run(&mut self, upload: &Upload<'_>) -> (Block, bool) {
        let mut action = match self.now < self.attempts.deadline() {
            true => self.attempts.step(Event::Start, self.now),
            // the client has used up T_max for the head alone, and no endpoint is to blame
            false => Action::Reply(ProxyError::RequestTimeout),
        };
        loop {
            action = match action {
                // the drain's time is over, which is what this has failed of or would fail of
                _ if self.worker.is_cutting() => return self.reply(ProxyError::Draining, upload),
                Action::Attempt { endpoint, connect_until, until } => {
                    let (cluster, strict) = (self.attempts.cluster(), self.attempts.are_strict());
                    let to = Try { cluster, endpoint, connect_until, until, repeatable: self.idempotent, strict };
                    match self.attempt(to, upload).await {
                        Ok(last) => return last,
                        Err(action) => action,
                    }
                }
                Action::Backoff { until } => {
                    let Connection { stream, watch, .. } = self.connection;
                    let is_there = watch.pause_until(until, stream).await;
                    self.now = clock::now();
                    match is_there {
                        true => self.attempts.step(Event::BackoffOver, self.now),
                        false => self.fail(Failure::Downstream(ProxyError::ClientClosed), upload),
                    }
                }
                Action::Reply(error) => return self.reply(error, upload),
                // neither is an answer to an event of this loop
                Action::Relay | Action::Finish => return self.reply(ProxyError::Internal, upload),
            };
        }
    }

    /// One attempt: to the end of the exchange, or to what is to be done instead.
    async fn attempt(&mut self, to: Try, upload: &Upload<'_>) -> Result<(Block, bool), Action> {
        loop {
            if !upload.can_begin() {
                // a part of the request is gone with the last attempt, and half a request must not be sent
                return Err(self.fail(Failure::Downstream(ProxyError::UpstreamReset), upload));
            }
            let opened = opening::open(self.worker, self.connection, to, !self.met_stale, self.now).await;
            let opened = opened.map_err(|failure| {
                self.now = clock::now();
                self.fail(failure, upload)
            })?;
            match self.converse(&opened, to, upload).await {
                Ok(Answered { outcome, keep }) => {
                    if let Some(keep) = keep {
                        self.worker.checkin(to.cluster, to.endpoint, opened.upstream, keep, self.now);
                    }
                    return outcome;
                }
                Err(Failure::Reset { sent, ending: Ending::Stale { may_be_read } }) => {
                    // the others were closed with it, most likely; and once is enough: from now on, every end is a failure
                    self.worker.forget_idle(to.cluster, to.endpoint);
                    self.met_stale = true;
                    let repaired = opening::may_repair(sent, to, upload);
                    self.attempts.on_stale(repaired && may_be_read, self.now);
                    if !repaired {
                        let failure = Failure::Reset { sent, ending: Ending::Stale { may_be_read } };
                        return Err(self.fail(failure, upload));
                    }
                }
                Err(failure) => return Err(self.fail(failure, upload)),
            }
        }
    }

    /// `send → await_head → classify → relay` on one connection.
    async fn converse(&mut self, opened: &Opened, to: Try, upload: &Upload<'_>) -> Result<Answered, Failure> {
        let asked = Asked {
            method: self.method,
            version: self.version,
            rules: &self.worker.shared.config.routes[self.route.index()].response_headers,
            offer: self.offer.as_deref(),
        };
        upload.rewind();
        let mut sending = pin!(upload.run(opened.upstream.stream()));
        let mut going = Going::new(&upload.attempt, sending.as_mut());
        let mut conversation = Conversation::new((self.worker, self.connection), upload, opened, asked, to);
        let mut block = Block::default();
        let heard = conversation.hold(&mut going, (self.now, &mut block)).await;
        self.now = clock::now();
        if let Err(failure) = heard {
            self.worker.put(block);
            return Err(failure);
        }
        let mut answering = Answering { upstream: &opened.upstream, block, going, upload };
        match self.answer_at_once(&mut answering) {
            Ok(answered) => Ok(answered),
            Err(verdict) => self.answer(answering, verdict).await,
        }
    }
}
