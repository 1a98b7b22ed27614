//! One request, one straight line:
//! `read_head → route → identify → authorize → admit → pick → checkout → send → await_head → classify → relay → record → checkin`.
//!
//! [`exchange`] is that line, from a whole head on. It waits for bytes and moves them; every decision in it is a call into `policy`
//! ([`crate::policy::exchange`] decides about attempts, and is the same code that the simulator runs). It knows neither which
//! protocol the two sides speak beyond "a head and a body", nor whether they are encrypted.

use super::answer::{Answered, Answering};
use super::attempt::Attempt;
use super::attempts::{Attempts, Brings};
use super::conversation::{Asked, Conversation};
use super::discard::{Rest, Served, conclude};
use super::encoding;
use super::failure::{Ending, Failure};
use super::going::{Delivery, Going};
use super::hop::Hop;
use super::inbound::Inbound;
use super::incoming::Incoming;
use super::kept::Kept;
use super::line::{Last, Line};
use super::opening;
use super::plan::{self, Answer, Forward, Way};
use super::record::Record;
use super::side;
use super::upload::Upload;
use super::waiting;
use crate::error::ProxyError;
use crate::http::body::Body;
use crate::http::cycle::Cycle;
use crate::http::framing::Framing;
use crate::http::grpc::Call;
use crate::http::grpc_web::{self, Form};
use crate::http::trailers::Trailers;
use crate::limits::REPLAY_BYTES_MAX;
use crate::net::block::Block;
use crate::net::clock;
use crate::policy::exchange::{Action, Event};
use crate::units::Instant;
use std::future::Future;
use std::pin::pin;

/// A request as the line begins with it.
pub(super) struct Request {
    /// Its head, which has been taken from the inbox and whose bytes are there still.
    pub(super) kept: Box<Kept>,
    /// When its first byte has arrived.
    pub(super) arrived: Instant,
    /// When its head was whole.
    pub(super) now: Instant,
}

/// When a request has.
#[derive(Clone, Copy, Debug)]
struct Began {
    arrived: Instant,
    now: Instant,
}

/// Serves a request, of which the inbox has what came behind its head, and in the end what came behind the request.
#[expect(
    clippy::manual_async_fn,
    reason = "an async function holds its arguments twice, and what a request holds counts"
)]
pub(super) fn exchange(
    inbound: &Inbound<'_>,
    inbox: &mut Block,
    record: &mut Record,
    request: Request,
) -> impl Future<Output = Served> {
    async move {
        let Request { mut kept, arrived, mut now } = request;
        let mut cycle = Cycle::default();
        let mut way = plan::plan((inbound, &mut kept, inbox), &mut cycle, record, now);
        while let Way::Wait(wait) = way {
            // in a box, because hardly a request waits and all of them would be as large
            way = Box::pin(waiting::wait((inbound, &mut kept, inbox), &mut cycle, record, wait)).await;
            now = clock::now();
        }
        match &mut way {
            // the loop before has left none
            Way::Wait(_) => Served { last: Block::default(), close: true, linger: false, at: now },
            Way::Answer(Answer { out, framing }) => {
                inbound.worker.put_head(kept);
                record.response_bytes = out.unread().len() as u64;
                let mut body = Body::new(*framing, u64::MAX);
                let rest = Rest { inbox, body: &mut body, trailers: &mut Trailers::default() };
                let served = Served { last: std::mem::take(out), close: false, linger: true, at: now };
                conclude(inbound, &mut cycle, rest, record, served).await
            }
            Way::Forward(to) => forward((inbound, kept, inbox), &mut cycle, record, to, Began { arrived, now }).await,
        }
    }
}

#[expect(
    clippy::manual_async_fn,
    reason = "an async function holds its arguments twice, and what a request holds counts"
)]
fn forward(
    (inbound, kept, inbox): (&Inbound<'_>, Box<Kept>, &mut Block),
    cycle: &mut Cycle,
    record: &mut Record,
    forward: &mut Forward,
    Began { arrived, now }: Began,
) -> impl Future<Output = Served> {
    async move {
        let worker = inbound.worker;
        let (slot, trailers) = (forward.slot.take(), std::mem::take(&mut forward.trailers));
        let Forward { route, cluster, framing, withheld, bytes_max, idempotent, hash, session, .. } = *forward;
        let config = inbound.config();
        let rules = &worker.shared.config.routes[route.index()];
        let kept_bytes_max = rules.traffic.buffered_bytes_max.unwrap_or_default().max(REPLAY_BYTES_MAX);
        let replayable = !framing.exceeds(kept_bytes_max as u64);
        let of_head = || Call::of(&kept.view(inbox).fields())?.timeout;
        let timeout = forward.call.filter(|says| *says).and_then(|_| of_head());
        let is_coming = match framing {
            Framing::Fixed(bytes) => bytes > inbox.unread().len() as u64,
            framing => framing != Framing::None,
        };
        let is_open = match forward.call {
            Some(_) => framing == Framing::Chunked,
            None => rules.traffic.timeout_from_end && is_coming,
        };
        // the time for which the gateway itself stood still is not the client's
        let arrived = if worker.timers.was_away(now) { now } else { arrived };
        let attempts = Attempts::new(
            worker,
            Brings { route, cluster, idempotent, replayable, hash, session, arrived, timeout, is_open },
        );
        // a call may be a stream of which nothing is heard for long
        let (patience, rate_min) = match forward.call {
            Some(_) => (rules.tunnel_timeout.unwrap_or(config.tunnel_timeout), 0),
            None => {
                (rules.body_timeout.unwrap_or(config.body_timeout), rules.body_rate_min.unwrap_or(config.body_rate_min))
            }
        };
        let is_call = forward.call.is_some();
        let is_text = forward.web == Some(Form::Text);
        let is_mirrored = !rules.is_plain && side::is_mirrored(worker, forward);
        let incoming = Incoming {
            framing,
            trailers,
            bytes_max,
            withheld,
            patience,
            rate_min,
            is_call,
            is_text,
            is_open,
            is_mirrored,
        };
        let mut upload = Upload::new(inbound, &attempts, std::mem::take(inbox), incoming);
        let mut line = Line {
            inbound,
            attempts: &attempts,
            forward,
            rules,
            head: Some(kept),
            cycle,
            record,
            met_stale: false,
            now,
        };
        let last = line.run(&upload).await;
        let Line { head, cycle, record, now, .. } = line;
        if let Some(head) = head {
            worker.put_head(head);
        }
        record.request_bytes += upload.body_bytes();
        record.on_attempts(&attempts);
        if let Some(slot) = slot {
            drop(slot); // before what is left of the request is waited for
        }
        let served = Served { last: last.block, close: false, linger: last.is_heard, at: now };
        let served = conclude(inbound, cycle, upload.rest(), record, served).await;
        *inbox = upload.finish();
        worker.put_own_lines(std::mem::take(&mut forward.own_lines));
        worker.put_charges(std::mem::take(&mut forward.charges));
        served
    }
}

impl Line<'_> {
    /// From the first pick to the last bytes for the client.
    async fn run(&mut self, upload: &Upload<'_>) -> Last {
        let mut action = match self.begins_late() {
            false => self.begin(),
            true => Box::pin(self.begin_late(upload)).await,
        };
        loop {
            action = match action {
                // the drain's time is over, which is what this has failed of or would fail of
                _ if self.inbound.worker.is_cutting() => return self.reply(ProxyError::Draining, upload),
                Action::Attempt { endpoint, connect_until, until } => {
                    let (cluster, strict) = (self.attempts.cluster(), self.attempts.are_strict());
                    let (repeatable, watch) = (self.forward.idempotent, self.inbound.worker.timers.watch());
                    let to = Attempt { cluster, endpoint, connect_until, until, repeatable, strict, watch };
                    match self.attempt(&to, upload).await {
                        Ok(last) => return last,
                        Err(action) => action,
                    }
                }
                Action::Backoff { until } => {
                    let is_there = self.inbound.pause_until(until).await;
                    self.now = clock::now();
                    match is_there {
                        true => self.attempts.step(Event::BackoffOver, self.now),
                        false => self.fail(Failure::Downstream(ProxyError::ClientClosed), upload),
                    }
                }
                Action::Reply(error) => match self.other_side(error, upload) {
                    None => return self.reply(error, upload),
                    Some(action) => action,
                },
                // neither is an answer to an event of this loop
                Action::Relay | Action::Finish => return self.reply(ProxyError::Internal, upload),
            };
        }
    }

    /// One attempt: to the end of the exchange, or to what is to be done instead.
    async fn attempt(&mut self, to: &Attempt, upload: &Upload<'_>) -> Result<Last, Action> {
        loop {
            if !upload.can_begin() {
                // a part of the request is gone with the last attempt, and half a request must not be sent
                return Err(self.fail(Failure::Downstream(ProxyError::UpstreamReset), upload));
            }
            let lease = opening::open(self.inbound, to, !self.met_stale, self.now).await;
            let lease = lease.map_err(|failure| {
                self.now = clock::now();
                self.fail(failure, upload)
            })?;
            self.encode(upload);
            let delivery = Delivery::default();
            let hop = Hop { attempt: to, lease: &lease, delivery: &delivery, upload };
            match self.converse(&hop).await {
                Ok(Answered { outcome, keep }) => {
                    if let Some(keep) = keep {
                        lease.checkin(self.inbound.worker, to, keep, self.now);
                    }
                    return outcome;
                }
                Err(Failure::Reset { sent, ending: Ending::Stale { may_be_read } }) => {
                    // the others were closed with it, most likely; and once is enough: from now on, every end is a failure
                    self.inbound.worker.forget_idle(to.cluster, to.endpoint);
                    self.met_stale = true;
                    let repaired = opening::may_repair(sent, &hop);
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

    /// Writes the head for the endpoint, unless that was done for another one to which it is the same but for the time that is left.
    pub(super) fn encode(&mut self, upload: &Upload<'_>) {
        let limit = self.forward.call.filter(|says| *says);
        let left = limit.map(|_| self.attempts.deadline().since(clock::now()));
        if let Some(head) = self.head.take() {
            let request = |inbox: &Block| {
                let mut head = encoding::request(self.inbound, self.forward, (&head, left), inbox);
                if let Some(form) = self.forward.web {
                    grpc_web::restate_request(head.vec_mut(), form);
                }
                head
            };
            upload.begin_with(request);
            self.inbound.worker.put_head(head);
        } else if let Some(left) = left {
            upload.restate_timeout(left);
        }
    }

    /// `send → await_head → classify → relay` on one connection.
    async fn converse(&mut self, hop: &Hop<'_>) -> Result<Answered, Failure> {
        let asked = Asked {
            method: &self.forward.method,
            version: self.forward.version,
            rules: self.response_rules(),
            offer: self.forward.offer.as_deref(),
        };
        let mut sending = pin!(hop.upload.run(hop.delivery, hop.attempt, hop.upstream().stream()));
        let mut going = Going::new(hop.delivery, sending.as_mut());
        let mut conversation = Conversation::new(self.inbound, hop, asked);
        let mut block = Block::default();
        let heard = conversation.hold(&mut going, self.now, &mut block).await;
        self.now = clock::now();
        if let Err(failure) = heard {
            self.inbound.worker.put(block);
            return Err(failure);
        }
        let mut answering = Answering { hop, block, going };
        // bound, since what a match looks at is held until its end
        let known = match self.answer_at_once(&mut answering) {
            Ok(answered) => return Ok(answered),
            Err(known) => known,
        };
        self.answer(answering, known).await
    }
}
