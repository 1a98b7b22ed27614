//! `record`: what will be counted and logged about one exchange.
//!
//! The head is gone from the inbox by the time the response has been sent, so the texts that the access log wants are copied while it
//! is parsed, into a reused buffer, and only when there is an access log.

use super::attempts::{Attempts, Outcomes};
use super::generation::Generation;
use super::inbound::Inbound;
use super::state::{LogTexts, TEXTS};
use crate::error::{ProxyError, Rule};
use crate::http::Version;
use crate::http::glimpse::Glimpse;
use crate::http::grpc;
use crate::http::head::RequestHead;
use crate::limits::{CONSUMER_LABELS_MAX, LOG_FIELD_BYTES_MAX};
use crate::observe::access_log::{LogRecord, LogTls};
use crate::observe::labels::MethodLabel;
use crate::observe::recorder::{ConsumerKey, Finished};
use crate::observe::stats::CallMethod;
use crate::policy::visited::Visited;
use crate::units::{ClusterId, ConsumerId, Instant, ListenerId, RouteId};
use http::StatusCode;
use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

/// One exchange so far.
#[derive(Debug)]
pub(super) struct Record {
    listener: ListenerId,
    route: Option<RouteId>,
    method: MethodLabel,
    /// `None`: no version could be read.
    version: Option<(u8, u8)>,
    status: StatusCode,
    /// Of a call of gRPC.
    call: Option<CallMethod>,
    /// What that was answered with, if any was told.
    code: Option<u8>,
    /// It is a service's word.
    heard: bool,
    error: Option<ProxyError>,
    rule: Option<Rule>,
    started: Instant,
    /// When the response was over, if the exchange went on after it.
    answered: Option<Instant>,
    client: Option<IpAddr>,
    consumer: Option<ConsumerKey>,
    /// Head and body.
    pub(super) request_bytes: u64,
    /// Head and body.
    pub(super) response_bytes: u64,
    cluster: Option<ClusterId>,
    /// Endpoints, in order; only for the log.
    tried: Visited,
    outcomes: Outcomes,
    upstream_time: Option<Duration>,
    texts: Option<LogTexts>,
    tls: Option<LogTls>,
}

impl LogTexts {
    fn fill(&mut self, texts: [&[u8]; 7]) {
        self.bytes.clear();
        let none = [&b""[..]; TEXTS - 7];
        for (text, end) in texts.into_iter().chain(none).zip(&mut self.ends) {
            self.bytes.extend_from_slice(&text[..text.len().min(LOG_FIELD_BYTES_MAX)]);
            *end = u16::try_from(self.bytes.len()).expect("bounded texts");
        }
    }

    /// Puts the name of the session, and of its client, behind the others.
    fn add_session(&mut self, inbound: &Inbound<'_>) {
        inbound.with_server_name(|name| self.bytes.extend_from_slice(name.as_bytes()));
        self.ends[6] = u16::try_from(self.bytes.len()).expect("bounded texts");
        let subject = inbound.identity().map_or(&[][..], |identity| identity.subject.as_bytes());
        self.bytes.extend_from_slice(&subject[..subject.len().min(LOG_FIELD_BYTES_MAX)]);
        self.ends[7..].fill(u16::try_from(self.bytes.len()).expect("bounded texts"));
    }

    /// Puts the name of the consumer behind that.
    fn add_consumer(&mut self, name: &str) {
        self.bytes.extend_from_slice(name.as_bytes());
        self.ends[8..].fill(u16::try_from(self.bytes.len()).expect("bounded texts"));
    }

    /// Puts the name of the limit that has refused the request behind that.
    fn add_limit(&mut self, name: &str) {
        self.bytes.extend_from_slice(name.as_bytes());
        self.ends[9..].fill(u16::try_from(self.bytes.len()).expect("bounded texts"));
    }

    /// Puts what else has refused it behind that.
    fn add_refuser(&mut self, by: std::fmt::Arguments<'_>) {
        let _ = self.bytes.write_fmt(by); // into memory, which cannot fail
        self.ends[10..].fill(u16::try_from(self.bytes.len()).expect("bounded texts"));
    }

    /// Puts the fault that was made for it at the end.
    fn add_fault(&mut self, word: &str) {
        self.bytes.extend_from_slice(word.as_bytes());
        self.ends[11] = u16::try_from(self.bytes.len()).expect("bounded texts");
    }

    /// What stands behind the texts.
    fn chosen(&self) -> &[u8] {
        &self.bytes[usize::from(self.ends[TEXTS - 1])..]
    }

    fn get(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| usize::from(self.ends[before]));
        &self.bytes[start..usize::from(self.ends[index])]
    }
}

impl Record {
    /// Of a request that began at `started`, and of which nothing is known yet.
    pub(super) fn new(inbound: &Inbound<'_>, started: Instant) -> Self {
        Self {
            listener: inbound.listener,
            route: None,
            method: MethodLabel::Other,
            version: None,
            status: StatusCode::OK,
            call: None,
            code: None,
            heard: false,
            error: None,
            rule: None,
            started,
            answered: None,
            client: None,
            consumer: None,
            request_bytes: 0,
            response_bytes: 0,
            cluster: None,
            tried: Visited::EMPTY,
            outcomes: Outcomes::NONE,
            upstream_time: None,
            texts: None,
            tls: inbound.log_tls(),
        }
    }

    /// The head is understood.
    pub(super) fn on_head(&mut self, inbound: &Inbound<'_>, head: &RequestHead<'_>, client: IpAddr) {
        let worker = inbound.worker;
        self.method = head.method().into();
        self.version = Some(match head.version() {
            Version::Http10 => (1, 0),
            Version::Http11 => (1, 1),
            Version::Http2 => (2, 0),
        });
        self.client = (inbound.client.peer.address.is_some() || client != inbound.client.peer.ip()).then_some(client);
        self.request_bytes = head.head_bytes() as u64;
        if let Some(mut texts) = worker.log.as_ref().map(|_| worker.log_texts()) {
            let field = |name| head.fields().get(name).unwrap_or_default();
            texts.fill([
                head.method().as_str().as_bytes(),
                head.target().as_bytes(),
                head.authority().unwrap_or_default().as_bytes(),
                head.request_id().unwrap_or_default(),
                field("user-agent"),
                field("referer"),
                b"",
            ]);
            texts.add_session(inbound);
            self.texts = Some(texts);
        }
    }

    /// The head could not be read: `bytes` is what there is of it.
    pub(super) fn on_unread(&mut self, inbound: &Inbound<'_>, bytes: &[u8]) {
        let worker = inbound.worker;
        if let Some(mut texts) = worker.log.as_ref().map(|_| worker.log_texts()) {
            let seen = Glimpse::of(bytes);
            texts.fill([seen.method, seen.target, b"", b"", b"", b"", b""]);
            texts.add_session(inbound);
            self.version = seen.version;
            self.texts = Some(texts);
        }
        self.client = inbound.client.peer.address.map(|address| address.ip().to_canonical());
        self.request_bytes = bytes.len() as u64;
    }

    /// The attempts are over: where they went, and how long the last one took to its response head.
    pub(super) fn on_attempts(&mut self, attempts: &Attempts<'_>) {
        self.cluster = Some(attempts.cluster());
        self.upstream_time = attempts.upstream_time();
        if self.texts.is_some() {
            self.tried = attempts.tried();
            self.outcomes = attempts.outcomes();
        }
    }

    /// The request has found its route.
    pub(super) fn on_route(&mut self, inbound: &Inbound<'_>, route: RouteId, path: &str) {
        self.route = Some(route);
        if let Some(call) = &mut self.call {
            *call = inbound.worker.recorder.call_method(route, path);
        }
    }

    /// When the request's first byte came.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Somebody of this name sends the request.
    pub(super) fn on_consumer(&mut self, name: &str, number: u64, id: Option<ConsumerId>) {
        let is_labelled = id.is_some_and(|id| id.index() < CONSUMER_LABELS_MAX);
        self.consumer = Some(ConsumerKey { number, is_labelled });
        if let Some(texts) = &mut self.texts {
            texts.add_consumer(name);
        }
    }

    /// A limit of this name has refused the request.
    pub(super) fn on_limit(&mut self, name: &str) {
        if let Some(texts) = &mut self.texts {
            texts.add_limit(name);
        }
    }

    /// Something that is no limit has refused the request.
    pub(super) fn on_refused_by(&mut self, by: std::fmt::Arguments<'_>) {
        if let Some(texts) = &mut self.texts {
            texts.add_refuser(by);
        }
    }

    /// Where fields that the file has chosen are put, and where they begin there; `None`: there is no log.
    pub(super) fn chosen_mut(&mut self) -> Option<(&mut Vec<u8>, usize)> {
        let texts = self.texts.as_mut()?;
        let start = usize::from(texts.ends[TEXTS - 1]);
        Some((&mut texts.bytes, start))
    }

    /// This fault is made for the request.
    pub(super) fn on_fault(&mut self, word: &str) {
        if let Some(texts) = &mut self.texts {
            texts.add_fault(word);
        }
    }

    /// The gateway chose an id for the request.
    pub(super) fn on_request_id(&mut self, id: &[u8]) {
        if let Some(texts) = &mut self.texts
            && texts.get(3).is_empty()
        {
            let at = usize::from(texts.ends[3]);
            texts.bytes.splice(at..at, id.iter().copied());
            let grown = u16::try_from(id.len()).expect("an id is short");
            texts.ends[3..].iter_mut().for_each(|end| *end += grown);
        }
    }

    /// The status of the response that is passed on, or of the route's own.
    pub(super) fn on_status(&mut self, status: StatusCode) {
        self.status = status;
    }

    /// The request is a call of gRPC.
    pub(super) fn on_call(&mut self) {
        self.call = Some(CallMethod::Other);
    }

    /// The code that its client is told; `heard`: by a service, in the head of its response or behind the body.
    pub(super) fn on_code(&mut self, code: u8, heard: bool) {
        if self.call.is_some() {
            (self.code, self.heard) = (Some(code), heard);
        }
    }

    /// The gateway's verdict, which sets the status too, unless a response has been begun.
    pub(super) fn on_error(&mut self, error: ProxyError) {
        self.status = error.status();
        self.error = Some(error);
        let is_told = !matches!(error, ProxyError::ClientClosed | ProxyError::ClientWriteTimeout);
        if self.call.is_some() && is_told {
            self.status = StatusCode::OK;
            self.on_code(grpc::code(error), false);
        }
    }

    /// The same with another status than the error's own.
    pub(super) fn on_error_as(&mut self, error: ProxyError, status: StatusCode) {
        self.on_error(error);
        if self.call.is_none() {
            self.status = status;
        }
    }

    /// The request breaks this rule.
    pub(super) fn on_malformed(&mut self, rule: Rule) {
        self.rule = Some(rule);
    }

    /// The response that was begun has not been ended; its status stays.
    pub(super) fn on_broken(&mut self, error: ProxyError) {
        self.error = Some(error);
    }

    /// The response is over, the exchange is not: a tunnel has begun, or the rest of the request is thrown away. The histogram of
    /// durations is about responses; the log tells how long all of it took.
    pub(super) fn on_answered(&mut self, now: Instant) {
        self.answered = Some(now);
    }

    /// Counts and logs it. `sent`: whether the client took the last byte, and why not.
    pub(super) fn finish(&mut self, worker: &Generation, now: Instant, sent: Result<(), ProxyError>) {
        if let (Err(error), None) = (sent, self.error) {
            self.on_error(error);
        }
        if self.error.is_some() && worker.is_cutting() {
            self.error = Some(ProxyError::Draining);
        }
        let duration = now.since(self.started);
        worker.recorder.finished(&Finished {
            route: self.route,
            method: self.method,
            status: self.status,
            error: self.error,
            duration: self.answered.map_or(duration, |answered| answered.since(self.started)),
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            client: self.client,
            consumer: self.consumer,
        });
        if let Some(method) = self.call.take() {
            worker.recorder.call_finished(self.route, method, self.code, self.heard);
        }
        if let Some(log) = &worker.log {
            let texts = self.texts.take().unwrap_or_default();
            let kept = log.send(&LogRecord {
                generation: worker.shared.number,
                time_unix_ms: u64::try_from(worker.wall(now).as_millis()).unwrap_or(u64::MAX),
                listener: self.listener,
                route: self.route,
                client: self.client,
                method: texts.get(0),
                target: texts.get(1),
                host: texts.get(2),
                version: self.version,
                status: self.status,
                grpc_status: self.code,
                error: self.error,
                rule: self.rule,
                request_bytes: self.request_bytes,
                response_bytes: self.response_bytes,
                duration,
                upstream_time: self.upstream_time,
                attempts: u8::try_from(self.tried.as_slice().len()).unwrap_or(u8::MAX),
                upstream: self.cluster,
                endpoints: self.tried.as_slice(),
                outcomes: self.outcomes.as_slice(),
                request_id: texts.get(3),
                user_agent: texts.get(4),
                referer: texts.get(5),
                tls: self.tls,
                sni: texts.get(6),
                client_subject: texts.get(7),
                consumer: texts.get(8),
                limit: texts.get(9),
                refused_by: texts.get(10),
                fault: texts.get(11),
                chosen: texts.chosen(),
            });
            if !kept {
                worker.life.log_line_dropped();
            }
            worker.put_log_texts(texts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_where_they_were_put() {
        let mut texts = LogTexts::default();
        texts.fill([b"GET", b"/a", b"", b"", b"curl", b"", b""]);
        assert_eq!([0, 1, 2, 3, 4, 5].map(|i| texts.get(i).len()), [3, 2, 0, 0, 4, 0]);
        texts.fill([b"", b"/b", b"h", b"", b"", b"r", b""]);
        texts.add_consumer("acme");
        assert_eq!((texts.get(7), texts.get(8), texts.get(9)), (&b""[..], &b"acme"[..], &b""[..]));
        texts.add_limit("plan");
        assert_eq!((texts.get(8), texts.get(9)), (&b"acme"[..], &b"plan"[..]));
        texts.add_fault("delay");
        assert_eq!((texts.get(9), texts.get(10), texts.get(11)), (&b"plan"[..], &b""[..], &b"delay"[..]));
        texts.bytes.push(b'x');
        assert_eq!(texts.chosen(), b"x");
        assert_eq!((texts.get(1), texts.get(5)), (&b"/b"[..], &b"r"[..]));
    }
}
