//! Mirroring: a copy of a request goes to another upstream too, and nobody waits for what that says.
//!
//! The copy is made when the endpoint has been sent the whole request: all of it is kept then, since it may have to be sent again. A request whose body has
//! outgrown that, or is larger than the configuration mirrors, is not mirrored. From there on it has a task, attempts and a time of its own: its
//! outcomes are evidence about the mirror's endpoints alone, and what is answered is read, so that the connection can be used again, and thrown away.
//! So many are under way on a worker at once, and no more are begun.

use super::attempt::Attempt;
use super::attempts::Attempts;
use super::failure::{Ending, Failure};
use super::generation::Generation;
use super::lease::Lease;
use super::meaning::keep;
use super::own_request::{Heard, await_head, read_body};
use crate::config::Mirror;
use crate::error::ProxyError;
use crate::http::Parsed;
use crate::http::fields::HeadScratch;
use crate::http::framing::Framing;
use crate::http::headers::push;
use crate::http::response::ResponseHead;
use crate::http::trailers::Trailers;
use crate::limits::{MIRROR_ANSWER_BYTES_MAX, MIRRORS_MAX};
use crate::net::block::Block;
use crate::net::stream::Stream;
use crate::net::tls::handshake;
use crate::net::{clock, connecting, driver, guarded};
use crate::observe::labels::TrafficEvent;
use crate::policy::deadline::Deadline;
use crate::policy::event::{Action, Event, Facts};
use crate::policy::retry::{Rules, Sent};
use crate::units::RouteId;
use http::{Method, StatusCode};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

/// The header of a copy, which says of which route.
const MARK: &[u8] = b"X-Mirrored";

/// A copy under way.
struct Copy {
    generation: Rc<Generation>,
    route: RouteId,
    method: Method,
    /// All of it.
    text: Vec<u8>,
}

/// The head of an answer.
struct Answer {
    status: StatusCode,
    framing: Framing,
    trailers: Trailers,
    keep: Option<Duration>,
}

/// Sends a copy of a request of this route on its way. `text` is the request as its endpoint has got it; `None`: it is not kept any more.
pub(super) fn send(generation: &Rc<Generation>, route: RouteId, text: Option<(&[u8], usize)>) {
    let config = &generation.shared.config.routes[route.index()];
    let Some(mirror) = &config.traffic.mirror else { return };
    let under_way = &generation.mirrors;
    let fitting = text.filter(|(text, head_bytes)| text.len() - head_bytes <= mirror.body_bytes_max);
    let Some((text, head_bytes)) = fitting.filter(|_| under_way.get() < MIRRORS_MAX) else {
        return generation.recorder.traffic(route, TrafficEvent::MirrorDropped);
    };
    let method = text.split(|byte| *byte == b' ').next().and_then(|word| Method::from_bytes(word).ok());
    let (head, body) = text.split_at(head_bytes);
    let (Some(method), Some(head)) = (method, head.strip_suffix(b"\r\n")) else { return };
    let mut copy = Vec::with_capacity(text.len() + MARK.len() + config.name.len() + 4);
    copy.extend_from_slice(head);
    push(&mut copy, MARK, config.name.as_bytes());
    copy.extend_from_slice(b"\r\n");
    copy.extend_from_slice(body);
    under_way.set(under_way.get() + 1);
    generation.recorder.traffic(route, TrafficEvent::Mirrored);
    let copy = Copy { generation: Rc::clone(generation), route, method, text: copy };
    driver::spawn(async move {
        let answered = guarded::guarded(copy.run()).await;
        if answered.is_none() {
            copy.generation.life.panic_caught();
        }
        if answered != Some(true) {
            copy.generation.recorder.traffic(copy.route, TrafficEvent::MirrorFailed);
        }
    });
}

impl Drop for Copy {
    fn drop(&mut self) {
        let under_way = &self.generation.mirrors;
        under_way.set(under_way.get() - 1);
    }
}

impl Copy {
    fn mirror(&self) -> Option<&Mirror> {
        self.generation.shared.config.routes[self.route.index()].traffic.mirror.as_ref()
    }

    /// Whether it was answered, whatever with.
    async fn run(&self) -> bool {
        let (worker, Some(mirror)) = (&self.generation, self.mirror()) else { return false };
        let now = clock::now();
        let facts = Facts {
            deadline: Deadline { at: now + mirror.timeout, total: mirror.timeout, shortened: false },
            retry: Rc::new(Rules::NONE),
            idempotent: false,
            replayable: true,
            session: None,
            key: None,
            try_time: None,
        };
        let attempts = Attempts::of_question(worker, self.route, mirror.cluster, facts);
        let mut action = attempts.step(Event::Start, now);
        loop {
            let Action::Attempt { endpoint, connect_until, until } = action else { return false };
            if worker.is_cutting() {
                return false;
            }
            let (cluster, watch) = (attempts.cluster(), worker.timers.watch());
            let to = Attempt { cluster, endpoint, connect_until, until, repeatable: false, strict: true, watch };
            action = match self.attempt(&to, &attempts).await {
                Ok(()) => return true,
                Err(failure) => attempts.step(failure.event(), clock::now()),
            };
        }
    }

    async fn attempt(&self, to: &Attempt, attempts: &Attempts<'_>) -> Result<(), Failure> {
        let worker = &self.generation;
        let lease = match worker.checkout(to.cluster, to.endpoint, clock::now()) {
            Some(lease) => lease,
            None => Lease::new(self.connect(to).await?),
        };
        let (answer, block) = self.converse(to, &lease).await.map_err(|failure| match failure {
            // it may have been closed when this came, and nobody is to blame
            Failure::Reset { sent, .. } if lease.is_reused() => {
                Failure::Reset { sent, ending: Ending::Stale { may_be_read: true } }
            }
            failure => failure,
        })?;
        let action = attempts.step(Event::Head { status: answer.status, retry_after: None }, clock::now());
        if action != Action::Relay {
            worker.put(block);
            return Ok(());
        }
        let Answer { framing, trailers, keep, .. } = answer;
        let of = (&**worker, to, lease.upstream());
        let guard = to.watch.over(lease.upstream().stream(), to.until, Shutdown::Both);
        let is_whole = read_body(of, (framing, trailers), block, MIRROR_ANSWER_BYTES_MAX as u64, |_| ()).await;
        drop(guard);
        attempts.step(Event::BodyDone, clock::now());
        if let Some(keep) = keep.filter(|_| is_whole && framing != Framing::UntilClose) {
            lease.checkin(worker, to, keep, clock::now());
        }
        Ok(())
    }

    async fn connect(&self, to: &Attempt) -> Result<Stream, Failure> {
        let cluster = &self.generation.shared.config.clusters[to.cluster.index()];
        let endpoint = &cluster.endpoints[to.endpoint.index()];
        let connecting = connecting::connect(&endpoint.address).await.map_err(|_| Failure::Refused)?;
        let _guard = to.watch.over_connecting(connecting.fd(), to.connect_until);
        let mut stream = connecting.established().await.map_err(|_| match to.watch.expired() {
            true => Failure::ConnectTimedOut,
            false => Failure::Refused,
        })?;
        if let (Some(tls), Some(rules)) = (&cluster.tls, self.generation.tls_rules(to.cluster)) {
            let name = tls.name_of(endpoint).ok_or(Failure::Refused)?;
            handshake::connect(&mut stream, rules, name).await.map_err(|_| Failure::Refused)?;
        }
        let mut policy = self.generation.cluster(to.cluster).borrow_mut();
        policy.on_connected(to.endpoint, clock::now());
        drop(policy);
        Ok(stream)
    }

    /// Sends it, and waits for the head of the answer; with what has come behind that.
    async fn converse(&self, to: &Attempt, lease: &Lease) -> Result<(Answer, Block), Failure> {
        let worker = &self.generation;
        let (upstream, stream) = (lease.upstream(), lease.upstream().stream());
        let _guard = to.watch.over(stream, to.until, Shutdown::Both);
        let broken = || match to.watch.expired() {
            true => Failure::TimedOut,
            false => Failure::Reset { sent: Sent::Maybe, ending: Ending::Failed },
        };
        let mut block = Block::from_vec(Vec::with_capacity(self.text.len()));
        block.vec_mut().extend_from_slice(&self.text);
        let (sent, _) = stream.send(block).await;
        sent.map_err(|_| broken())?;
        await_head((worker, to, upstream), |block| self.head(block), |_| broken()).await
    }

    /// What has arrived, taken for a head.
    fn head(&self, block: &Block) -> Result<Heard<Answer>, ProxyError> {
        let mut scratch = HeadScratch::default();
        let Parsed::Complete(head) = ResponseHead::parse(block.unread(), &self.method, &mut scratch)? else {
            return Ok(Heard::Part);
        };
        if head.is_interim() && !head.is_switching() {
            return Ok(Heard::Interim(head.head_bytes()));
        }
        // nobody has asked for another protocol, so one that changes it cannot be used again
        let keep = keep(&head).filter(|_| !head.is_switching());
        let answer = Answer { status: head.status(), framing: head.framing(), trailers: head.trailers(), keep };
        Ok(Heard::Final(answer, head.head_bytes()))
    }
}
