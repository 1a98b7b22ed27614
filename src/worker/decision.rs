//! Somebody else decides (`auth.forward`): a service behind the gateway is asked about a request, on this core, as any endpoint is asked.
//!
//! The question is a small GET with what the configuration sends of the request's head and never its body, so it may be tried again whatever the
//! request is. It goes the way of all attempts (balancing, pooled connections, failover, retries, what is learned of endpoints) and has a time of
//! its own. An answer of 2xx passes, one of 5xx is none, and any other is the client's. What is not understood decides nothing; a
//! refusal whose body is too large is a refusal without one, because who is refused must not get through by what is wrong behind that.

use super::attempt::Attempt;
use super::attempts::Attempts;
use super::believed::Bearer;
use super::failure::{Ending, Failure};
use super::inbound::Inbound;
use super::kept::Kept;
use super::lease::Lease;
use super::meaning::keep;
use super::opening;
use super::own_request::{Heard, await_head, read_body};
use super::waiting::Wait;
use crate::config::{Auth, Forward, is_told_anyway};
use crate::error::ProxyError;
use crate::http::Parsed;
use crate::http::fields::HeadScratch;
use crate::http::framing::Framing;
use crate::http::head::RequestHead;
use crate::http::headers::{push, push_via, routed};
use crate::http::response::ResponseHead;
use crate::http::trailers::Trailers;
use crate::limits::{DECISION_BODY_BYTES_MAX, DECISION_KEPT_BYTES_MAX, NAME_BYTES_MAX};
use crate::net::block::Block;
use crate::net::clock;
use crate::policy::deadline::Deadline;
use crate::policy::event::{Action, Event, Facts};
use crate::policy::retry::{Rules, Sent};
use crate::units::{AuthId, Instant};
use aws_lc_rs::digest;
use http::{HeaderName, Method, StatusCode};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

/// What is said of a request.
pub(super) enum Decision {
    /// It may go on, with what was said of it.
    Passed(Rc<Bearer>),
    /// It may not.
    Refused(Rc<Refusal>),
    /// Nothing, or nothing that is understood.
    None,
}

/// What the client is told who is refused.
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(HeaderName, Vec<u8>)>,
    pub(super) content_type: Option<Vec<u8>>,
    pub(super) body: Vec<u8>,
}

/// A question under way.
struct Question<'q> {
    inbound: &'q Inbound<'q>,
    way: &'q Auth,
    forward: &'q Forward,
    text: Vec<u8>,
    /// By what the answer is remembered: everything that is told decides.
    key: (AuthId, [u8; 32]),
}

/// An answer's head.
struct Answer {
    status: StatusCode,
    retry_after: Option<Duration>,
    headers: Vec<(HeaderName, Vec<u8>)>,
    content_type: Option<Vec<u8>>,
    framing: Framing,
    trailers: Trailers,
    keep: Option<Duration>,
}

/// Asks about a request that waits, whose head is in the inbox.
///
/// # Errors
/// Nobody is there to be told, or the drain's time is over.
pub(super) async fn ask(
    (inbound, kept, inbox): (&Inbound<'_>, &Kept, &Block),
    wait: &Wait,
    until: Instant,
) -> Result<Decision, ProxyError> {
    let worker = inbound.worker;
    let way = &worker.shared.config.auth[wait.way.index()];
    let Some(forward) = way.forward() else { return Ok(Decision::None) };
    let text = text(inbound, &kept.view(inbox), forward);
    let now = clock::now();
    let mut key = (wait.way, [0; 32]);
    key.1.copy_from_slice(digest::digest(&digest::SHA256, &text).as_ref());
    if !forward.cache.is_zero()
        && let Some(bearer) = worker.believed.borrow_mut().get(&key, worker.wall(now))
    {
        return Ok(Decision::Passed(bearer));
    }
    let question = Question { inbound, way, forward, text, key };
    let facts = Facts {
        deadline: Deadline { at: until.min(now + forward.timeout), total: forward.timeout, shortened: false },
        retry: Rc::new(Rules::new(&forward.retry)),
        idempotent: true,
        replayable: true,
        session: None,
        key: None,
        try_time: None,
    };
    let attempts = Attempts::of_question(worker, wait.route, forward.cluster, facts);
    let mut action = attempts.step(Event::Start, now);
    loop {
        action = match action {
            _ if worker.is_cutting() => return Err(ProxyError::Draining),
            Action::Attempt { endpoint, connect_until, until } => {
                let (cluster, strict, watch) = (attempts.cluster(), attempts.are_strict(), worker.timers.watch());
                let to = Attempt { cluster, endpoint, connect_until, until, repeatable: true, strict, watch };
                match question.attempt(&to, &attempts).await {
                    Ok(decision) => return Ok(decision),
                    Err(Failed::Client(error)) => return Err(error),
                    Err(Failed::Next(action)) => action,
                }
            }
            Action::Backoff { until } => match inbound.pause_until(until).await {
                true => attempts.step(Event::BackoffOver, clock::now()),
                false => return Err(ProxyError::ClientClosed),
            },
            _ if clock::now() >= until => return Err(ProxyError::UpstreamTimeout),
            Action::Reply(_) | Action::Relay | Action::Finish => return Ok(Decision::None),
        };
    }
}

/// What an attempt has come to in place of an answer.
enum Failed {
    Client(ProxyError),
    Next(Action),
}

impl Question<'_> {
    /// One try. A pooled connection that was closed is replaced by a new one, once.
    async fn attempt(&self, to: &Attempt, attempts: &Attempts<'_>) -> Result<Decision, Failed> {
        let mut reuse = true;
        loop {
            let failure = match opening::open(self.inbound, to, reuse, clock::now()).await {
                Err(failure) => failure,
                Ok(lease) => match self.converse(to, &lease).await {
                    Ok((answer, block)) => return self.conclude(to, attempts, lease, (answer, block)).await,
                    Err(Failure::Reset { ending: Ending::Failed, .. }) if lease.is_reused() && reuse => {
                        reuse = false;
                        attempts.on_stale(false, clock::now());
                        continue;
                    }
                    Err(failure) => lease.told().unwrap_or(failure),
                },
            };
            let now = clock::now();
            return Err(match failure {
                Failure::Downstream(error) => {
                    attempts.step(Event::DownstreamGone, now);
                    Failed::Client(error)
                }
                failure => Failed::Next(attempts.step(failure.event(), now)),
            });
        }
    }

    /// Sends it, and waits for the head of the answer; with what has come behind that.
    async fn converse(&self, to: &Attempt, lease: &Lease) -> Result<(Answer, Block), Failure> {
        let worker = self.inbound.worker;
        let (upstream, stream) = (lease.upstream(), lease.upstream().stream());
        let _guard = to.watch.over(stream, to.until, Shutdown::Both).on_behalf_of(self.inbound.watch);
        let mut out = worker.blocks.borrow_mut().small();
        out.vec_mut().extend_from_slice(&self.text);
        let (sent, out) = stream.send(out).await;
        worker.put(out);
        sent.map_err(|error| self.broken(to, Some(&error)))?;
        let read = |block: &Block| self.head(block, worker.wall(clock::now()));
        await_head((worker, to, upstream), read, |error| self.broken(to, error)).await
    }

    /// What the end of a connection means.
    fn broken(&self, to: &Attempt, error: Option<&std::io::Error>) -> Failure {
        match to.watch.expired() {
            _ if self.inbound.has_left() => Failure::Downstream(ProxyError::ClientClosed),
            true if to.watch.was_away() => Failure::Overslept { sent: Sent::Maybe },
            true => Failure::TimedOut,
            false => Failure::broken(error, Sent::Maybe),
        }
    }

    /// What has arrived, taken for a head.
    fn head(&self, block: &Block, wall: Duration) -> Result<Heard<Answer>, ProxyError> {
        let mut scratch = HeadScratch::default();
        let Parsed::Complete(head) = ResponseHead::parse(block.unread(), &Method::GET, &mut scratch)? else {
            return Ok(Heard::Part);
        };
        if head.is_switching() {
            return Err(ProxyError::UpstreamProtocol); // nobody has asked for that
        }
        if head.is_interim() {
            return Ok(Heard::Interim(head.head_bytes()));
        }
        let (names, consumer) = match head.status().is_success() {
            true => (&self.forward.copy, self.forward.consumer.as_ref()),
            false => (&self.forward.return_headers, None),
        };
        let fields = head.fields();
        let of =
            |name: &HeaderName| fields.get_all(name.as_str()).map(|value| (name.clone(), value.to_vec())).collect();
        let answer = Answer {
            status: head.status(),
            retry_after: head.retry_after(|| wall.as_secs()),
            headers: names
                .iter()
                .chain(consumer.filter(|name| !names.contains(name)))
                .flat_map(|name| -> Vec<_> { of(name) })
                .collect(),
            content_type: fields.get("content-type").map(<[u8]>::to_vec),
            framing: head.framing(),
            trailers: head.trailers(),
            keep: keep(&head),
        };
        Ok(Heard::Final(answer, head.head_bytes()))
    }

    /// Asks the policy about an answer, receives what there is of its body, and decides.
    async fn conclude(
        &self,
        to: &Attempt,
        attempts: &Attempts<'_>,
        lease: Lease,
        (answer, block): (Answer, Block),
    ) -> Result<Decision, Failed> {
        let worker = self.inbound.worker;
        let Answer { status, retry_after, .. } = answer;
        let action = attempts.step(Event::Head { status, retry_after }, clock::now());
        if action != Action::Relay {
            worker.put(block);
            return Err(Failed::Next(action));
        }
        let Answer { headers, content_type, framing, trailers, keep, .. } = answer;
        let body = self.body(to, &lease, (framing, trailers), block).await;
        attempts.step(Event::BodyDone, clock::now());
        if let (Some(keep), true) = (keep.filter(|_| framing != Framing::UntilClose), body.is_some()) {
            lease.checkin(worker, to, keep, clock::now());
        }
        Ok(match status {
            _ if status.is_success() => self.passed(headers),
            _ if status.is_server_error() => Decision::None,
            _ => {
                let content_type = content_type.filter(|_| body.is_some());
                let body = body.unwrap_or_default();
                Decision::Refused(Rc::new(Refusal { status, headers, content_type, body }))
            }
        })
    }

    /// The body, if it is whole within its bound and its time, and nothing stands behind it.
    async fn body(&self, to: &Attempt, lease: &Lease, framed: (Framing, Trailers), block: Block) -> Option<Vec<u8>> {
        let (worker, upstream) = (self.inbound.worker, lease.upstream());
        let _guard = to.watch.over(upstream.stream(), to.until, Shutdown::Both).on_behalf_of(self.inbound.watch);
        let mut whole = Vec::new();
        let each = |piece: &[u8]| whole.extend_from_slice(piece);
        let is_whole = read_body((worker, to, upstream), framed, block, DECISION_BODY_BYTES_MAX as u64, each).await;
        is_whole.then_some(whole)
    }

    fn passed(&self, headers: Vec<(HeaderName, Vec<u8>)>) -> Decision {
        let (mut name, mut lines) = (String::new(), Vec::new());
        for (header, value) in headers {
            if self.forward.consumer.as_ref() == Some(&header) {
                let is_name =
                    (1..=NAME_BYTES_MAX).contains(&value.len()) && value.iter().all(|b| (b' '..=b'~').contains(b));
                match String::from_utf8(value.clone()).ok().filter(|_| is_name && name.is_empty()) {
                    Some(text) => name = text,
                    None => return Decision::None, // one who cannot be named is nobody that was meant
                }
            }
            if self.forward.copy.contains(&header) {
                push(&mut lines, header.as_str().as_bytes(), &value);
            }
        }
        let worker = self.inbound.worker;
        let is_kept = !self.forward.cache.is_zero() && lines.len() <= DECISION_KEPT_BYTES_MAX;
        let until = worker.wall(clock::now()) + self.forward.cache;
        let bearer = Rc::new(Bearer::decided(&worker.shared, self.way, name, lines, until));
        if is_kept {
            worker.believed.borrow_mut().put(self.key, Rc::clone(&bearer));
        }
        Decision::Passed(bearer)
    }
}

/// The question about a request, as proxies commonly put it.
fn text(inbound: &Inbound<'_>, head: &RequestHead<'_>, forward: &Forward) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(b"GET ");
    out.extend_from_slice(forward.path.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    push(&mut out, b"Host", forward.upstream.as_bytes());
    push(&mut out, b"X-Forwarded-Method", head.method().as_str().as_bytes());
    // what the endpoint would be told, of a trusted proxy's words too
    for name in ["x-forwarded-proto", "x-forwarded-host"] {
        let value = routed(head, name, &inbound.forwarding(head, &[]), b"").unwrap_or_default();
        push(&mut out, name.as_bytes(), value);
    }
    let query = head.query().map_or_else(String::new, |query| format!("?{query}"));
    push(&mut out, b"X-Forwarded-Uri", format!("{}{query}", head.path()).as_bytes());
    push(&mut out, b"X-Forwarded-For", inbound.client_ip(head).to_string().as_bytes());
    let fields = head.fields();
    for name in forward.send.iter().filter(|name| !is_told_anyway(name.as_str())) {
        fields.get_all(name.as_str()).for_each(|value| push(&mut out, name.as_str().as_bytes(), value));
    }
    // so that a question that comes back here is known for one
    fields.get_all("via").for_each(|value| push(&mut out, b"Via", value));
    push_via(&mut out, head.version());
    out.extend_from_slice(b"\r\n");
    out
}
