//! What the gateway answers itself, and why: refusals, what OPTIONS asks about, proofs for a certificate authority.

use super::decision::Refusal;
use super::plan::{Answer, Planner};
use super::record::Record;
use crate::config;
use crate::error::{ProxyError, Rule};
use crate::http::body::Body;
use crate::http::cycle::Cycle;
use crate::http::framing::Framing;
use crate::http::reply::{self, ALLOW_ANY, Reply, ReplyTo};
use crate::net::block::Block;
use crate::policy::limit_fields::write_retry_after;
use crate::policy::token_bucket::Quota;
use crate::units::RouteId;
use http::{Method, StatusCode};

impl Planner<'_> {
    /// 401 with the ways to be recognised, or 403, or 503 where there is no time to find out.
    pub(super) fn turn_away(
        &self,
        cycle: &mut Cycle,
        record: &mut Record,
        route: RouteId,
        error: ProxyError,
    ) -> Answer {
        if error != ProxyError::Unauthenticated {
            return self.give_up(cycle, record, error);
        }
        let text = &mut self.inbound.worker.scratch.borrow_mut().text;
        text.clear();
        self.write_challenges(route, text);
        self.refuse(cycle, record, error, &[("WWW-Authenticate", text)])
    }

    /// What somebody else says to a request that he refuses.
    pub(super) fn pass_refusal(&self, cycle: &mut Cycle, record: &mut Record, refusal: &Refusal) -> Answer {
        record.on_status(refusal.status);
        self.note_refused(record, refusal);
        let extra: Vec<_> = refusal.headers.iter().map(|(name, value)| (name.as_str(), &**value)).collect();
        self.answer(cycle, None, |out, to| {
            let content_type = refusal.content_type.as_deref();
            reply::reply(out, &Reply { status: refusal.status, content_type, body: &refusal.body, extra: &extra }, to);
        })
    }

    /// A refusal that has nothing to say but itself, and when to come back.
    pub(super) fn give_up(&self, cycle: &mut Cycle, record: &mut Record, error: ProxyError) -> Answer {
        match error {
            ProxyError::ClientClosed => {
                record.on_error(error);
                cycle.on_request_broken();
                Answer { out: Block::default(), framing: self.head.framing() }
            }
            ProxyError::AuthenticationBusy | ProxyError::Undecided | ProxyError::NoncesExhausted => {
                self.refuse(cycle, record, error, &[("Retry-After", b"1")])
            }
            _ => self.refuse(cycle, record, error, &[]),
        }
    }

    /// 429 with what the client needs to know (RFC 6585 §4, draft-ietf-httpapi-ratelimit-headers-11).
    pub(super) fn limit(
        &self,
        cycle: &mut Cycle,
        record: &mut Record,
        route: RouteId,
        limit: usize,
        quota: Quota,
    ) -> Answer {
        let limits = &self.inbound.worker.shared.limits;
        let mut texts = self.inbound.worker.limit_texts.borrow_mut();
        texts.iter_mut().for_each(Vec::clear);
        let [retry_after, rate_limit, policies] = &mut *texts;
        write_retry_after(quota.reset, retry_after);
        limits.write_quota(limit, quota, rate_limit);
        let identities = &self.inbound.worker.shared.identities;
        let groups = self.identified.get().map_or(&[][..], |identified| identified.groups(identities));
        limits.write_policies((route, self.inbound.listener), groups, policies);
        record.on_limit(limits.name(limit));
        self.inbound.worker.recorder.limited(limit, false);
        let fields: [(&str, &[u8]); 3] =
            [("Retry-After", retry_after), ("RateLimit", rate_limit), ("RateLimit-Policy", policies)];
        self.refuse(cycle, record, ProxyError::RateLimited, &fields)
    }

    pub(super) fn refuse(
        &self,
        cycle: &mut Cycle,
        record: &mut Record,
        error: ProxyError,
        extra: &[(&str, &[u8])],
    ) -> Answer {
        record.on_error(error);
        if matches!(error, ProxyError::Guarded | ProxyError::Forbidden | ProxyError::Undecided) {
            self.note_refusal(record, error);
        }
        self.answer(cycle, None, |out, to| reply::error(out, error, extra, to))
    }

    /// 400 to a path of which a route would make what is none.
    pub(super) fn refuse_path(&self, cycle: &mut Cycle, record: &mut Record) -> Answer {
        record.on_error(ProxyError::BadRequest);
        record.on_malformed(Rule::Path);
        self.answer(cycle, None, |out, to| reply::malformed(out, Rule::Path, to))
    }

    /// The fault that is made for a request.
    pub(super) fn abort(&self, cycle: &mut Cycle, record: &mut Record, status: StatusCode) -> Answer {
        let error = ProxyError::FaultInjected;
        record.on_error_as(error, status);
        self.answer(cycle, None, |out, to| reply::error_as(out, error, status, to))
    }

    /// What the gateway itself says to OPTIONS.
    pub(super) fn options(&self, cycle: &mut Cycle, record: &mut Record) -> Answer {
        record.on_status(StatusCode::OK);
        let allow: [(&str, &[u8]); 1] = [("Allow", ALLOW_ANY)];
        self.answer(cycle, None, |out, to| {
            let nothing = Reply { status: StatusCode::OK, content_type: None, body: b"", extra: &allow };
            reply::reply(out, &nothing, to);
        })
    }

    /// Answers an authority that looks whether a name leads here (RFC 8555 §8.3), whatever the routes say.
    pub(super) fn prove(&self, cycle: &mut Cycle, record: &mut Record, token: &str) -> Answer {
        record.on_status(StatusCode::OK);
        self.answer(cycle, None, |out, to| {
            let content_type = Some(&b"application/octet-stream"[..]);
            reply::reply(out, &Reply { status: StatusCode::OK, content_type, body: token.as_bytes(), extra: &[] }, to);
        })
    }

    /// Whether a chunked body has arrived whole with its head, as small ones do.
    fn has_last_chunk(&self) -> bool {
        let mut copy = self.behind.to_vec();
        let filled = 0..copy.len();
        let decoded = Body::new(Framing::Chunked, u64::MAX).decode(&mut copy, filled, &mut self.head.trailers());
        decoded.is_ok_and(|decoded| decoded.done)
    }

    /// An answer of the gateway's own, before the request's body; by `rules`, if it is the route's.
    pub(super) fn answer(
        &self,
        cycle: &mut Cycle,
        rules: Option<&config::HeaderRules>,
        write: impl FnOnce(&mut Vec<u8>, &ReplyTo<'_>),
    ) -> Answer {
        let head = self.head;
        let framing = head.framing();
        let left = match framing {
            Framing::Fixed(bytes) => Some(bytes.saturating_sub(self.behind.len() as u64)),
            Framing::None | Framing::UntilClose | Framing::Streamed => Some(0),
            Framing::Chunked => self.has_last_chunk().then_some(0),
        };
        let close = cycle.announces_close(left);
        let mut out = self.inbound.worker.blocks.borrow_mut().small();
        let date = self.inbound.worker.date(self.now);
        let lines = self.own_lines();
        let routed = self.routed.get().map(|route| &self.inbound.worker.shared.config.routes[route.index()]);
        let always = routed.map(|route| &route.response_headers).filter(|rules| rules.always);
        let to = ReplyTo {
            version: head.version(),
            head_only: head.method() == Method::HEAD,
            close,
            date: &date,
            server: &self.config.server,
            rules: rules.or(always),
            lines: if rules.is_some() { lines.all() } else { lines.of_errors() },
            call_type: self.call().map(|call| call.content_type()),
            errors: &self.config.errors,
            id: head.request_id().or(self.request_id.get().map(|id| &id[..])).unwrap_or_default(),
        };
        write(out.vec_mut(), &to);
        self.inbound.worker.put_own_lines(lines);
        cycle.on_response_head(Framing::Fixed(0), !close);
        Answer { out, framing }
    }
}
