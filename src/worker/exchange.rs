//! One request, one straight line:
//! `read_head → route → admit → pick → checkout → send → await_head → classify → relay → record → checkin`.
//!
//! [`exchange`] is that line. It waits for bytes and moves them; every decision in it is a call into `policy`
//! ([`crate::policy::exchange`] decides about attempts, and is the same code that the simulator runs). It knows neither which
//! protocol the two sides speak beyond "a head and a body", nor whether they are encrypted.

use super::attempt::{self, Answering, Asked, Failure, Try};
use super::attempts::{Attempts, Brings};
use super::connection::Connection;
use super::discard::{Rest, conclude};
use super::plan::{self, Forward, Plan, Way};
use super::record::Record;
use super::relay::{Broken, Relay};
use super::state::Worker;
use super::tunnel::Tunnel;
use super::upload::{Incoming, Standing, Upload};
use super::verdict::{Commit, Verdict, keep};
use crate::error::{Fault, ProxyError};
use crate::http::body::Body;
use crate::http::cycle::{Cycle, Progress};
use crate::http::encode::{self, DownstreamResponse};
use crate::http::framing::Framing;
use crate::http::reply::{self, ReplyTo};
use crate::http::response::ResponseHead;
use crate::http::scan::HeadScanner;
use crate::http::trailers::Trailers;
use crate::http::upgrade::Offer;
use crate::http::{Parsed, Version};
use crate::limits::{REPLAY_BYTES_MAX, RESPONSE_HEAD_BYTES_MAX};
use crate::net::block::Block;
use crate::net::clock;
use crate::policy::exchange::{Action, Event};
use crate::units::{EndpointId, Instant, RouteId};
use http::Method;
use std::net::Shutdown;
use std::rc::Rc;

/// What is left to do when an exchange is over but for its last bytes.
#[derive(Debug)]
pub(super) struct Served {
    /// To be sent; may be empty.
    pub(super) last: Block,
    /// The client's connection ends with them.
    pub(super) close: bool,
    /// The client may still be sending.
    pub(super) unread: bool,
    /// To be finished once they are sent.
    pub(super) record: Record,
}

/// Serves the request whose first bytes are in the inbox.
pub(super) async fn exchange(
    worker: &Rc<Worker>,
    connection: &Connection,
    inbox: &mut Block,
    arrived: Instant,
) -> Served {
    let plan = match read_head(worker, connection, inbox, arrived).await {
        Ok(plan) => plan,
        Err(error) => return refuse_head(worker, connection, inbox, arrived, error),
    };
    let Plan { head_bytes, cycle, mut record, way } = plan;
    inbox.consume(head_bytes);
    match way {
        Way::Answer { out, framing } => {
            record.response_bytes = out.unread().len() as u64;
            let mut body = Body::new(framing, u64::MAX);
            let rest = Rest { inbox, body: &mut body, trailers: &mut Trailers::default() };
            let unread = cycle.request() != Progress::Done;
            conclude(worker, connection, (cycle, rest), Served { last: out, close: false, unread, record }).await
        }
        Way::Forward(to) => forward(worker, connection, inbox, cycle, record, to, arrived).await,
    }
}

/// Receives until the head is whole, within `header_timeout` of its first byte.
async fn read_head(
    worker: &Rc<Worker>,
    connection: &Connection,
    inbox: &mut Block,
    arrived: Instant,
) -> Result<Plan, ProxyError> {
    let config = connection.config(worker);
    let mut scanner = HeadScanner::default();
    loop {
        // a head that has reached its limit is judged even without an end in sight
        if (scanner.is_ready(inbox.unread()) || inbox.unread().len() >= config.head_bytes_max)
            && let Some(plan) = plan::plan(worker, connection, inbox.unread(), arrived)?
        {
            return Ok(plan);
        }
        inbox.compact();
        if inbox.room() == 0 {
            worker.grow(inbox, config.head_bytes_max);
        }
        let deadline = arrived + config.header_timeout;
        let _guard = connection.watch.over(&connection.stream, deadline, Shutdown::Read);
        let (received, block) = connection.stream.receive(std::mem::take(inbox)).await;
        *inbox = block;
        match received {
            Ok(1..) => {}
            _ if connection.watch.expired() => return Err(ProxyError::RequestTimeout),
            _ => return Err(ProxyError::ClientClosed),
        }
    }
}

/// A request that could not be read: one reply, then the end.
fn refuse_head(
    worker: &Worker,
    connection: &Connection,
    inbox: &mut Block,
    arrived: Instant,
    error: ProxyError,
) -> Served {
    let mut last = worker.blocks.borrow_mut().small();
    if error != ProxyError::ClientClosed {
        let server = &connection.config(worker).server;
        let to = ReplyTo { version: Version::Http11, head_only: false, close: true, date: &worker.date(), server };
        reply::error(last.vec_mut(), error, &[], &to);
    }
    let mut record = Record::unread(worker, connection, inbox.unread(), arrived);
    record.on_error(error);
    record.response_bytes = last.unread().len() as u64;
    inbox.clear();
    Served { last, close: true, unread: true, record }
}

/// A request on its way through; what the steps of the line share.
struct Line<'w> {
    worker: &'w Rc<Worker>,
    connection: &'w Connection,
    attempts: &'w Attempts<'w>,
    cycle: Cycle,
    record: Record,
    route: RouteId,
    method: Method,
    version: Version,
    idempotent: bool,
    offer: Option<Offer>,
}

async fn forward(
    worker: &Rc<Worker>,
    connection: &Connection,
    inbox: &mut Block,
    cycle: Cycle,
    mut record: Record,
    forward: Forward,
    arrived: Instant,
) -> Served {
    let Forward { route, cluster, method, version, framing, withheld, bytes_max, idempotent, hash, .. } = forward;
    let Forward { offer, outbound, slot, .. } = forward;
    record.cluster = Some(cluster);
    let replayable = !framing.exceeds(REPLAY_BYTES_MAX as u64);
    let attempts = Attempts::new(worker, Brings { route, cluster, idempotent, replayable, hash, arrived });
    let config = connection.config(worker);
    let (patience, rate_min) = (config.body_timeout, config.body_rate_min);
    let incoming = Incoming { framing, bytes_max, withheld, patience, rate_min };
    let mut upload = Upload::new(worker, connection, &attempts, inbox, outbound, incoming);
    let mut line =
        Line { worker, connection, attempts: &attempts, cycle, record, route, method, version, idempotent, offer };
    let (last, unread) = line.run(&mut upload).await;
    let Line { cycle, mut record, .. } = line;
    record.request_bytes += upload.body_bytes();
    record.tried = attempts.tried();
    record.upstream_time = attempts.upstream_time();
    drop(slot); // before what is left of the request is waited for
    let served = Served { last, close: false, unread, record };
    let served = conclude(worker, connection, (cycle, upload.rest()), served).await;
    upload.finish();
    served
}

impl Line<'_> {
    /// From the first pick to the last bytes for the client, which it returns, with whether the client may still be sending.
    async fn run(&mut self, upload: &mut Upload<'_>) -> (Block, bool) {
        let mut action = self.attempts.step(Event::Start);
        loop {
            action = match action {
                Action::Attempt { endpoint, connect_until, until } => {
                    let to = Try {
                        cluster: self.attempts.cluster(),
                        endpoint,
                        connect_until,
                        until,
                        repeatable: self.idempotent,
                    };
                    let asked = Asked {
                        method: &self.method,
                        version: self.version,
                        rules: &self.worker.shared.config.routes[self.route.index()].response_headers,
                        offer: self.offer.as_ref(),
                    };
                    match attempt::attempt(self.worker, self.connection, upload, to, asked).await {
                        Ok(answering) => match self.await_head(answering, upload, endpoint, until).await {
                            Ok((commit, answering)) if commit.switching => {
                                return self.tunnel(commit, answering, upload).await;
                            }
                            Ok((commit, answering)) => return self.relay(commit, answering, endpoint, upload).await,
                            Err(action) => action,
                        },
                        Err(Failure::Downstream(error)) => {
                            self.attempts.step(Event::DownstreamGone);
                            Action::Reply(error)
                        }
                        Err(failure) => self.step(failure.event(), upload),
                    }
                }
                Action::Backoff { until } => {
                    self.connection.watch.sleep_until(until).await;
                    self.attempts.step(Event::BackoffOver)
                }
                Action::Reply(error) => return self.reply(error, upload),
                // neither is an answer to an event of this loop
                Action::Relay | Action::Finish => return self.reply(ProxyError::Internal, upload),
            };
        }
    }

    /// Tells what an attempt has come to. One that took a part of the request with it was the last.
    fn step(&self, event: Event, upload: &Upload<'_>) -> Action {
        if !upload.can_begin() {
            self.attempts.forbid_replay();
        }
        self.attempts.step(event)
    }

    /// Receives until the response's head is whole, and has it classified.
    async fn await_head(
        &mut self,
        mut answering: Answering,
        upload: &Upload<'_>,
        endpoint: EndpointId,
        until: Instant,
    ) -> Result<(Commit, Answering), Action> {
        let mut scanner = HeadScanner::default();
        loop {
            let bytes = answering.block.unread();
            if scanner.is_ready(bytes) || bytes.len() >= RESPONSE_HEAD_BYTES_MAX {
                match self.classify(&mut answering, upload) {
                    Verdict::Commit(commit) => return Ok((commit, answering)),
                    Verdict::Next { action, keep } => {
                        self.worker.put(answering.block);
                        if let Some(keep) = keep {
                            self.worker.checkin(
                                self.attempts.cluster(),
                                endpoint,
                                answering.stream,
                                keep,
                                clock::now(),
                            );
                        }
                        return Err(action);
                    }
                    Verdict::More => {}
                }
            }
            if answering.block.room() == 0 {
                answering.block.compact();
                self.worker.grow(&mut answering.block, RESPONSE_HEAD_BYTES_MAX);
            }
            if let Err(failure) = answering.receive_more(&self.connection.watch, until).await {
                self.worker.put(answering.block);
                return Err(self.step(failure.event(), upload));
            }
        }
    }

    /// `classify`: parses what has arrived, asks the policy about it, and encodes the head of a response that is passed on.
    fn classify(&mut self, answering: &mut Answering, upload: &Upload<'_>) -> Verdict {
        let worker = self.worker;
        let mut scratch = worker.scratch.borrow_mut();
        let bytes = answering.block.unread();
        let head = match ResponseHead::parse_answer(bytes, &self.method, self.offer.as_ref(), &mut scratch.head) {
            Ok(Parsed::Complete(head)) => head,
            Ok(Parsed::Partial) => return Verdict::More,
            Err(error) => {
                return Verdict::Next { action: self.step(Event::BadHead(error), upload), keep: None };
            }
        };
        let retry_after = head.retry_after(clock::wall().as_secs());
        let action = self.step(Event::Head { status: head.status(), retry_after }, upload);
        if action != Action::Relay {
            let left = answering.block.unread().len() - head.head_bytes();
            let ended = match head.framing() {
                Framing::None => left == 0,
                Framing::Fixed(bytes) => bytes == left as u64,
                Framing::Chunked | Framing::UntilClose => false,
            };
            let kept = ended && answering.uploaded && upload.is_complete();
            return Verdict::Next { action, keep: keep(&head).filter(|_| kept) };
        }
        let head_bytes = head.head_bytes();
        let commit = match head.is_switching() {
            true => self.commit_to_tunnel(&head),
            false => self.commit(&head, answering.uploaded, upload),
        };
        answering.block.consume(head_bytes);
        Verdict::Commit(commit)
    }

    fn commit(&mut self, head: &ResponseHead<'_>, uploaded: bool, upload: &Upload<'_>) -> Commit {
        let uploaded = uploaded && upload.is_complete();
        self.settle(upload);
        if self.worker.is_draining() {
            self.cycle.on_drain();
        }
        let before = self.cycle;
        let close = self.cycle.announces_close(upload.left());
        let mut out = self.worker.blocks.borrow_mut().small();
        let response = DownstreamResponse {
            head,
            version: self.version,
            close,
            rules: &self.worker.shared.config.routes[self.route.index()].response_headers,
            server: &self.connection.config(self.worker).server,
            extra: &[],
            date: &self.worker.date(),
        };
        let to = encode::response(out.vec_mut(), &response);
        self.cycle.on_response_head(to, !close);
        self.record.on_status(head.status());
        Commit { out, from: head.framing(), to, keep: keep(head).filter(|_| uploaded), before, switching: false }
    }

    fn commit_to_tunnel(&mut self, head: &ResponseHead<'_>) -> Commit {
        let mut out = self.worker.blocks.borrow_mut().small();
        let rules = &self.worker.shared.config.routes[self.route.index()].response_headers;
        encode::switching(out.vec_mut(), head, rules, &self.connection.config(self.worker).server);
        self.record.on_status(head.status());
        Commit { out, from: Framing::None, to: Framing::None, keep: None, before: self.cycle, switching: true }
    }

    /// Takes down where the client is with its body.
    fn settle(&mut self, upload: &Upload<'_>) {
        match upload.standing() {
            Standing::Complete => self.cycle.on_request_done(),
            Standing::Sending => self.cycle.on_continue(),
            Standing::Withheld => {}
            Standing::Severed => self.cycle.on_request_broken(),
        }
    }

    /// The upgraded connection, to its end. T_max, retries and `body_timeout` are over; the places under `max_concurrent` and
    /// `max_requests` are not: a tunnel occupies its endpoint.
    async fn tunnel(&mut self, commit: Commit, answering: Answering, upload: &mut Upload<'_>) -> (Block, bool) {
        self.record.on_answered(clock::now());
        let tunnel = Tunnel::new(self.worker, self.connection, &answering.stream);
        let ended = tunnel.run(upload.take_inbox(), commit.out, answering.block).await;
        self.record.request_bytes += ended.up_bytes;
        self.record.response_bytes = ended.down_bytes;
        if let Some(error) = ended.error {
            self.record.on_broken(error);
        }
        // how the two of them part says nothing about the endpoint: it has answered
        self.attempts.step(Event::BodyDone);
        self.cycle.on_response_broken();
        (Block::default(), false)
    }

    /// `relay → checkin`: passes the body on and gives the endpoint's connection back.
    async fn relay(
        &mut self,
        commit: Commit,
        answering: Answering,
        endpoint: EndpointId,
        upload: &Upload<'_>,
    ) -> (Block, bool) {
        let Commit { out, from, to, keep, before, .. } = commit;
        let Answering { stream, block, .. } = answering;
        let mut relay = Relay {
            worker: self.worker,
            connection: self.connection,
            upstream: &stream,
            body: Body::new(from, u64::MAX),
            framing: to,
            patience: self.connection.config(self.worker).body_timeout,
            sent_bytes: 0,
            excess: false,
            trailers: Trailers::default(),
        };
        let relayed = relay.run(out, block).await;
        let (excess, sent_bytes) = (relay.excess, relay.sent_bytes);
        self.record.response_bytes = sent_bytes;
        match relayed {
            Ok(last) => {
                self.record.response_bytes += last.unread().len() as u64;
                self.cycle.on_response_done();
                self.attempts.step(Event::BodyDone);
                if let Some(keep) = keep.filter(|_| !excess) {
                    self.worker.checkin(self.attempts.cluster(), endpoint, stream, keep, clock::now());
                }
                (last, !upload.is_complete())
            }
            Err(Broken::Upstream(error)) => {
                self.attempts.step(Event::BodyFailed);
                if sent_bytes == 0 {
                    self.cycle = before;
                    return self.reply(error, upload);
                }
                self.cycle.on_response_broken();
                self.record.on_broken(error);
                // RFC 9112 §8: the client must not take the end of the connection for the end of the body
                self.connection.stream.reset_on_close();
                (Block::default(), false)
            }
            Err(Broken::Downstream(error)) => {
                self.attempts.step(Event::DownstreamGone);
                self.cycle.on_response_broken();
                self.record.on_broken(error);
                (Block::default(), false)
            }
        }
    }

    /// A reply of the gateway's own in place of a response.
    fn reply(&mut self, error: ProxyError, upload: &Upload<'_>) -> (Block, bool) {
        self.record.on_error(error);
        let mut last = self.worker.blocks.borrow_mut().small();
        if error == ProxyError::ClientClosed {
            self.cycle.on_request_broken();
            return (last, false);
        }
        self.settle(upload);
        if error.fault() == Fault::Downstream && !upload.is_complete() {
            self.cycle.on_request_broken(); // its body is what was wrong
        }
        let close = self.cycle.announces_close(upload.left());
        self.cycle.on_response_head(Framing::Fixed(0), !close);
        let to = ReplyTo {
            version: self.version,
            head_only: self.method == Method::HEAD,
            close,
            date: &self.worker.date(),
            server: &self.connection.config(self.worker).server,
        };
        let busy = matches!(error, ProxyError::NoHealthyEndpoint | ProxyError::UpstreamSaturated);
        let extra: &[(&str, &[u8])] = if busy { &[("Retry-After", b"1")] } else { &[] };
        reply::error(last.vec_mut(), error, extra, &to);
        self.record.response_bytes = last.unread().len() as u64;
        (last, !upload.is_complete())
    }
}
