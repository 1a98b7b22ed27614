//! `await_head → classify → relay`: from the first byte of an endpoint's answer to the last one for the client.
//!
//! The request may still be on its way up. As long as the answer is no refusal the upload goes on beside it, because an endpoint may
//! answer while it reads (RFC 9112 §9.5); a refusal ends it, which also brings back what could be sent to another endpoint.

use super::failure::Failure;
use super::generation::Generation;
use super::going::{Going, Sending};
use super::hop::Hop;
use super::line::{Last, Line};
use super::meaning::{Commit, Meaning, keep};
use super::priority;
use super::relay::{Broken, Relay};
use super::state::Scratch;
use super::tunnel::{Coding, Tunnel};
use super::upload::Upload;
use crate::error::ProxyError;
use crate::http::body::Body;
use crate::http::encode::{self, DownstreamResponse};
use crate::http::framing::Framing;
use crate::http::grpc;
use crate::http::grpc_web::{self, Form};
use crate::http::h2::respond;
use crate::http::response::ResponseHead;
use crate::http::scan::HeadScanner;
use crate::http::{Parsed, Version};
use crate::limits::{ANSWER_HELD_MAX, RESPONSE_HEAD_BYTES_MAX};
use crate::net::block::Block;
use crate::net::clock;
use crate::policy::exchange::{Action, Event};
use crate::policy::retry::Sent;
use crate::policy::verdict::Pushback;
use crate::units::EndpointId;
use http::StatusCode;
use std::future::Future;
use std::net::Shutdown;
use std::pin::pin;
use std::time::Duration;

/// A connection that has begun to answer.
pub(super) struct Answering<'a, F> {
    pub(super) hop: &'a Hop<'a>,
    /// What has arrived of the final response, or of a 101: the beginning of its head, at least.
    pub(super) block: Block,
    /// The request.
    pub(super) going: Going<'a, F>,
}

/// What an answer has led to.
pub(super) struct Answered {
    /// It was passed on, or something was in its place. `Err`: it is not passed on, and this is done instead.
    pub(super) outcome: Result<Last, Action>,
    /// How long the endpoint keeps the connection for another request; `None`: it is closed.
    pub(super) keep: Option<Duration>,
}

impl Line<'_> {
    /// Takes an answer to its end that is all there with its first piece, as most are: nothing is waited for.
    ///
    /// # Errors
    /// Something is to be waited for, and this is known of the answer.
    pub(super) fn answer_at_once(&mut self, answering: &mut Answering<'_, impl Sending>) -> Result<Answered, Meaning> {
        if self.forward.own_lines.paced().is_some() {
            return Err(Meaning::More); // it may have to wait
        }
        if !answering.going.is_through() || !HeadScanner::default().is_ready(answering.block.unread()) {
            return Err(Meaning::More);
        }
        match self.classify(answering) {
            Meaning::Commit(commit) if commit.is_whole => {
                answering.hop.delivery.answered.set(true);
                Ok(self.pass_last((0, commit.out), None, commit.keep))
            }
            meaning => Err(meaning),
        }
    }

    /// Takes an answer to its end, of which so much is known.
    ///
    /// # Errors
    /// Never a failure that another connection to the same endpoint could mend.
    #[expect(
        clippy::manual_async_fn,
        reason = "an async function holds its arguments twice, and what a request holds counts"
    )]
    pub(super) fn answer(
        &mut self,
        mut answering: Answering<'_, impl Sending>,
        mut known: Meaning,
    ) -> impl Future<Output = Result<Answered, Failure>> {
        // what is known stays where it is: each place that it is moved to would be held, too
        async move {
            if matches!(known, Meaning::More) {
                known = self.await_head(&mut answering).await;
            }
            if let Meaning::Commit(commit) = &mut known
                && !commit.switching
            {
                return Ok(self.relay(commit, &mut answering).await);
            }
            match known {
                // boxed: few requests become tunnels, and every connection would hold the room for one
                Meaning::Commit(commit) => {
                    Ok(Answered { outcome: Ok(Box::pin(self.tunnel(commit, answering)).await), keep: None })
                }
                Meaning::Next { action, keep } => {
                    let stream = answering.hop.upstream().stream();
                    answering.going.settle(stream, Shutdown::Both, &self.inbound.worker.timers).await;
                    self.inbound.worker.put(std::mem::take(&mut answering.block));
                    Ok(Answered { outcome: Err(action), keep })
                }
                Meaning::More => unreachable!("a head was awaited"),
            }
        }
    }

    /// Receives until the response's head is whole, and has it classified: what is to be done with it, or instead of passing it on.
    async fn await_head(&mut self, answering: &mut Answering<'_, impl Sending>) -> Meaning {
        let mut scanner = HeadScanner::default();
        loop {
            let bytes = answering.block.unread();
            if scanner.is_ready(bytes) || bytes.len() >= RESPONSE_HEAD_BYTES_MAX {
                if ResponseHead::may_be_error(bytes) {
                    // not wanted any more; what was not yet taken by the endpoint comes back
                    let stream = answering.hop.upstream().stream();
                    answering.going.settle(stream, Shutdown::Write, &self.inbound.worker.timers).await;
                }
                match self.classify(answering) {
                    Meaning::More => {}
                    known => return known,
                }
            }
            let block = &mut answering.block;
            if block.room() == 0 {
                block.compact();
                self.inbound.worker.grow(block, RESPONSE_HEAD_BYTES_MAX);
            }
            if let Err(failure) = self.receive_more(answering).await {
                return Meaning::Next { action: self.fail(failure, answering.hop.upload), keep: None };
            }
        }
    }

    /// Receives more of the head.
    async fn receive_more(&mut self, answering: &mut Answering<'_, impl Sending>) -> Result<(), Failure> {
        let Answering { hop, block, going } = answering;
        let (upstream, watch) = (hop.upstream(), &hop.attempt.watch);
        let over = watch.over(upstream.stream(), hop.delivery.until.get(), Shutdown::Both);
        let _guard = over.on_behalf_of(self.inbound.watch);
        upstream.arm(std::mem::take(block));
        let received = going.beside(pin!(upstream.received())).await;
        self.now = clock::now();
        let (received, back) = received?;
        *block = back;
        match received {
            _ if self.inbound.watch.has_left() => Err(Failure::Downstream(ProxyError::ClientClosed)),
            _ if watch.expired() => Err(Failure::TimedOut),
            Ok(1..) => Ok(()),
            _ => Err(Failure::BROKEN),
        }
    }

    /// `classify`: parses what has arrived, asks the policy about it, and encodes the head of a response that is passed on.
    fn classify(&mut self, answering: &mut Answering<'_, impl Sending>) -> Meaning {
        let Answering { hop: Hop { upload, attempt, .. }, block, going } = answering;
        let worker = self.inbound.worker;
        if let Some(form) = self.forward.web {
            restate(worker, block, form);
        }
        let mut scratch = worker.scratch.borrow_mut();
        let Scratch { head, response, lines, .. } = &mut *scratch;
        let head =
            match ResponseHead::parse_answer(block.unread(), &self.forward.method, self.forward.offer.as_deref(), head)
            {
                Ok(Parsed::Complete(head)) => head,
                Ok(Parsed::Partial) => return Meaning::More,
                Err(error) => {
                    return Meaning::Next { action: self.step(Event::BadHead(error), upload), keep: None };
                }
            };
        // whose length is told has no trailers here, and a call without them no outcome
        let web = self.forward.web.filter(|_| head.fields().get("content-type").and_then(Form::of).is_some());
        if web.is_some() && matches!(head.framing(), Framing::Fixed(1..)) {
            let action = self.step(Event::BadHead(ProxyError::UpstreamProtocol), upload);
            return Meaning::Next { action, keep: None };
        }
        let action = self.step(self.event_of(&head), upload);
        if action != Action::Relay {
            let left = block.unread().len() - head.head_bytes();
            let ended = match head.framing() {
                Framing::None => left == 0,
                Framing::Fixed(bytes) => bytes == left as u64,
                Framing::Chunked | Framing::UntilClose | Framing::Streamed => false,
            };
            return Meaning::Next { action, keep: keep(&head).filter(|_| ended && going.is_through()) };
        }
        self.charge(&head);
        // to an extended CONNECT any success would be a tunnel (RFC 9110 §9.3.6)
        let is_offer = self.forward.version == Version::Http2 && self.forward.offer.is_some();
        if is_offer && head.status().is_success() {
            self.attempts.step(Event::BodyDone, self.now);
            return Meaning::Next { action: Action::Reply(ProxyError::NotImplemented), keep: None };
        }
        let head_bytes = head.head_bytes();
        response.clear();
        let mut commit = match head.is_switching() {
            true => self.commit_to_tunnel((&head, attempt.endpoint), lines, response),
            false => self.commit((&head, attempt.endpoint), upload, lines, response),
        };
        commit.web = web;
        block.consume(head_bytes);
        let is_through = going.is_through() && !upload.has_coder();
        self.lay_out(&mut commit, response, block, is_through);
        Meaning::Commit(commit)
    }

    /// What a final head says to the policy.
    fn event_of(&self, head: &ResponseHead<'_>) -> Event {
        if let Some(code) = self.code_of(head).filter(|code| *code > 0) {
            let retry = match head.fields().get("grpc-retry-pushback-ms").map(grpc::pushback) {
                None => Pushback::None,
                Some(Some(time)) => Pushback::After(time),
                Some(None) => Pushback::Never,
            };
            return Event::Code { code, retry };
        }
        let retry_after = head.retry_after(|| self.inbound.worker.wall(self.now).as_secs());
        Event::Head { status: head.status(), retry_after }
    }

    /// How a call has ended, if it has with its head. Behind a body its trailers say it, whatever the head has said.
    fn code_of(&self, head: &ResponseHead<'_>) -> Option<u8> {
        self.forward.call?;
        let is_all = matches!(head.framing(), Framing::None | Framing::Fixed(0));
        head.fields().get("grpc-status").filter(|_| is_all).map(grpc::status)
    }

    /// Puts the client's head where it is sent from: right before the body, if all of that has arrived, else into a block of its own.
    fn lay_out(&self, commit: &mut Commit, head: &mut Vec<u8>, block: &mut Block, is_through: bool) {
        let arrived = block.unread().len();
        let body_bytes = match commit.from {
            Framing::None if !commit.switching => Some(0),
            Framing::Fixed(bytes) => usize::try_from(bytes).ok(),
            _ => None,
        };
        if let Some(bytes) = body_bytes.filter(|&bytes| is_through && bytes <= arrived) {
            if bytes < arrived {
                // nobody knows what stands behind the end
                commit.keep = None;
                block.set_unread(block.consumed()..block.consumed() + bytes);
            }
            let before_data = head.len();
            if commit.to == Framing::Streamed {
                respond::push_data_head(head, bytes, true);
            }
            if block.put_before(head) {
                commit.out = std::mem::take(block);
                commit.is_whole = true;
                return;
            }
            head.truncate(before_data);
        }
        commit.out = self.inbound.worker.blocks.borrow_mut().small();
        commit.out.vec_mut().extend_from_slice(head);
    }

    /// Encodes the client's head into `out`; `room` is for its lines.
    fn commit(
        &mut self,
        (head, endpoint): (&ResponseHead<'_>, EndpointId),
        upload: &Upload<'_>,
        room: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Commit {
        self.settle(upload);
        if self.forward.version == Version::Http2 {
            priority::heed(self.inbound.stream, head);
        }
        if self.inbound.client.is_leaving() {
            self.cycle.on_drain();
        }
        let before = *self.cycle;
        // a refusal ends the upload; beside any other answer it goes on, to an end that need not be known
        let is_refusal = head.status().is_client_error() || head.status().is_server_error();
        let close = self.cycle.announces_close(upload.left().or((!is_refusal).then_some(0)));
        let compressed = self.compressed(head);
        let is_coded = matches!(compressed, Some((true, _)));
        let response = DownstreamResponse {
            head,
            version: self.forward.version,
            close,
            rules: self.rules_of(is_coded),
            is_recoded: is_coded,
            server: &self.inbound.config().server,
            lines: self.lines_of(endpoint, (head, compressed.as_ref().map(|_| is_coded)), room),
            date: &self.inbound.worker.date(self.now),
        };
        let to = encode::response(out, &response);
        self.cycle.on_response_head(to, !close);
        self.record.on_status(head.status());
        self.record.on_response(self.inbound, head);
        if let Some(code) = self.code_of(head) {
            self.record.on_code(code, true);
        }
        upload.put_coder(compressed.and_then(|(_, coder)| coder));
        Commit { to, trailers: head.trailers(), keep: keep(head), ..Commit::new(head.framing(), before) }
    }

    fn commit_to_tunnel(
        &mut self,
        (head, endpoint): (&ResponseHead<'_>, EndpointId),
        room: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Commit {
        let lines = self.lines_of(endpoint, (head, None), room);
        let version = self.forward.version;
        encode::switching(out, head, (self.response_rules(), lines), &self.inbound.config().server, version);
        self.record.on_status(if version == Version::Http2 { StatusCode::OK } else { head.status() });
        self.record.on_response(self.inbound, head);
        Commit { switching: true, ..Commit::new(Framing::None, *self.cycle) }
    }

    /// The upgraded connection, to its end. T_max, retries and `body_timeout` are over; the places under `max_concurrent` and
    /// `max_requests` are not: a tunnel occupies its endpoint.
    async fn tunnel(&mut self, commit: Commit, answering: Answering<'_, impl Sending>) -> Last {
        let Answering { hop, block, .. } = answering;
        self.record.on_answered(self.now);
        let down = if self.forward.version == Version::Http2 { Coding::Frames } else { Coding::Bare };
        let codings = [down, hop.lease.coding()];
        let tunnel = Tunnel::new(
            (self.inbound, hop.upstream().stream()),
            codings,
            self.forward.own_lines.paces(),
            self.tunnel_timeout(),
        );
        let ended = tunnel.run(hop.upload.take_inbox(), commit.out, block).await;
        self.now = clock::now();
        self.record.request_bytes += ended.up_bytes;
        self.record.response_bytes = ended.down_bytes;
        if let Some(error) = ended.error {
            self.record.on_broken(error);
        }
        // how the two of them part says nothing about the endpoint: it has answered
        self.attempts.step(Event::BodyDone, self.now);
        self.cycle.on_response_broken();
        Last::default()
    }

    /// The end of a response of which `sent_bytes` were sent, and `block` is left. `code`: how a call has ended, if that stands behind the body.
    fn pass_last(&mut self, (sent_bytes, block): (u64, Block), code: Option<u8>, keep: Option<Duration>) -> Answered {
        self.record.response_bytes = sent_bytes + block.unread().len() as u64;
        self.cycle.on_response_done();
        let event = match code {
            Some(code) => {
                self.record.on_code(code, true);
                Event::BodyDoneWith { code }
            }
            None => Event::BodyDone,
        };
        self.attempts.step(event, self.now);
        Answered { outcome: Ok(Last { block, is_heard: true }), keep }
    }

    /// `relay → checkin`: passes the body on.
    async fn relay(&mut self, commit: &mut Commit, answering: &mut Answering<'_, impl Sending>) -> Answered {
        let Commit { out, from, to, trailers, keep, before, is_whole, web, .. } = commit;
        let Answering { hop, block, going } = answering;
        let Hop { attempt, upload, .. } = *hop;
        hop.delivery.answered.set(true);
        let is_replaceable = going.is_through() && upload.can_begin() && self.attempts.may_replace_answer();
        let mut relay = Relay {
            inbound: self.inbound,
            upstream: hop.upstream(),
            watch: &attempt.watch,
            going,
            body: Body::new(*from, u64::MAX),
            framing: *to,
            patience: match self.forward.call {
                Some(_) => self.tunnel_timeout(),
                None => self.body_timeout(),
            },
            begun: false,
            sent_bytes: 0,
            held_until: is_replaceable.then(|| self.now + ANSWER_HELD_MAX),
            asked: false,
            ended: false,
            fast: false,
            excess: false,
            now: self.now,
            trailers: std::mem::take(trailers),
            web: *web,
            rules: self.response_rules(),
            upload,
            pace: self.forward.own_lines.paced(),
        };
        let mut relayed = if *is_whole { Ok(()) } else { relay.run(out, block).await };
        if let (Ok(()), Some(pace)) = (relayed, relay.pace) {
            relayed = relay.wait_for(pace, out).await;
        }
        let code = self.forward.call.and_then(|_| grpc::status_in(relay.trailers.lines()));
        let Relay { excess, begun, sent_bytes, now, .. } = relay;
        self.now = now;
        self.inbound.worker.put(std::mem::take(block));
        self.record.response_bytes = sent_bytes;
        // a client may need our response to see that the rest of its request is not wanted
        going.settle(hop.upstream().stream(), Shutdown::Both, &self.inbound.worker.timers).await;
        self.settle(upload);
        let out = std::mem::take(out);
        let broken = match relayed {
            Ok(()) => return self.pass_last((sent_bytes, out), code, keep.filter(|_| !excess && going.is_through())),
            Err(broken) => broken,
        };
        self.inbound.worker.put(out);
        let overslept = broken == Broken::Upstream(ProxyError::UpstreamBodyTimeout) && attempt.watch.was_away();
        let overslept =
            overslept || (matches!(broken, Broken::Upstream(_)) && hop.lease.told().is_some_and(Failure::is_excused));
        if !begun {
            *self.cycle = *before;
            let action = match broken {
                Broken::Upstream(reply) => self.step(Event::AnswerBroken { reply, excused: overslept }, upload),
                Broken::Downstream(error) => self.fail(Failure::Downstream(error), upload),
            };
            return Answered { outcome: Err(action), keep: None };
        }
        let (event, error) = match broken {
            Broken::Upstream(error) if overslept => (Event::Overslept { sent: Sent::Maybe }, error),
            Broken::Upstream(error) => (Event::BodyFailed, error),
            Broken::Downstream(error) => (Event::DownstreamGone, error),
        };
        self.attempts.step(event, self.now);
        let is_heard = self.break_off(error, *to);
        Answered { outcome: Ok(Last { block: Block::default(), is_heard }), keep: None }
    }

    /// The response that was begun will not be ended. Returns whether the client is to be given time to read what there is of it.
    fn break_off(&mut self, error: ProxyError, framing: Framing) -> bool {
        self.cycle.on_response_broken();
        self.record.on_broken(error);
        // RFC 9112 §8: the client must not take the end of the connection for the end of the body. With any other framing it sees
        // what is missing, and a reset would take what it has not read yet of the responses before
        let must_reset = framing == Framing::UntilClose;
        if must_reset {
            self.inbound.stream.reset_on_close();
        }
        !must_reset
    }
}

/// Makes a head of gRPC that is in the block one of gRPC-Web.
fn restate(worker: &Generation, block: &mut Block, form: Form) {
    let Some((at, suffix)) = grpc_web::restate_response(block.unread(), form) else { return };
    if block.room() < suffix.len() {
        worker.grow(block, block.unread().len() + grpc_web::GROWTH_MAX);
    }
    let at = block.consumed() + at;
    block.vec_mut().splice(at..at, suffix.iter().copied());
}
