//! What a response says of its request: CORS and headers that are made of it; and preflights, which the gateway answers itself.
//!
//! A preflight asks, without credentials, whether another request would be allowed. So it is about the route which *that* would take, and is
//! answered before anybody is asked who he is. Every response of a route whose answer depends on the origin says `Vary: Origin`, that to a
//! request without `Origin` too: a cache would give it to a page otherwise (Fetch standard, "CORS protocol").

use super::own_lines::OwnLines;
use super::plan::{Answer, Planner};
use super::record::Record;
use super::variables::Known;
use crate::config::{AllowedHeaders, Cors};
use crate::error::ProxyError;
use crate::http::cycle::Cycle;
use crate::http::grpc_web;
use crate::http::headers::push;
use crate::http::push_number;
use crate::http::reply::{self, Reply};
use crate::policy::cors::{Grant, grant};
use crate::policy::router::Routed;
use crate::units::RouteId;
use http::{Method, StatusCode};

impl Planner<'_> {
    /// The lines of this request's response, once its route is known.
    pub(super) fn own_lines(&self) -> OwnLines {
        let worker = self.inbound.worker;
        let Some(route) = self.routed.get() else { return OwnLines::default() };
        let rules = &worker.shared.config.routes[route.index()];
        let templates = &rules.response_headers.templates;
        let relocates = rules.traffic.relocation.is_some();
        let bandwidth = rules.traffic.bandwidth.as_deref();
        let says_more = relocates || bandwidth.is_some() || !self.config.errors.is_empty();
        if rules.cors.is_none() && templates.is_empty() && !says_more {
            return OwnLines::default();
        }
        let known = self.known(route);
        let (always, never) = match rules.response_headers.always {
            true => (&templates[..], &[][..]),
            false => (&[][..], &templates[..]),
        };
        let mut lines = worker.room_for_own_lines();
        lines.fill(
            |out| {
                if let Some(cors) = &rules.cors {
                    self.push_cors(cors, route, out);
                }
                known.push_lines(always, out);
            },
            |out| known.push_lines(never, out),
        );
        if !self.config.errors.is_empty() {
            lines.name(self.head.request_id().or(self.request_id.get().map(|id| &id[..])).unwrap_or_default());
        }
        if relocates {
            lines.call(self.head.authority().unwrap_or_default().as_bytes());
        }
        if let Some(bandwidth) = bandwidth {
            lines.pace(self.paces(route, bandwidth));
        }
        lines
    }

    /// The request, as far as it is known by now.
    pub(super) fn known(&self, route: RouteId) -> Known<'_> {
        let (identified, id) = (self.identified.get(), self.request_id.get());
        Known { inbound: self.inbound, route: Some(route), identified, id, head: self.head }
    }

    /// Appends what the page that sends the request may do with the response.
    fn push_cors(&self, cors: &Cors, route: RouteId, out: &mut Vec<u8>) {
        let granted = self.push_origin(cors, route, out);
        if granted != Grant::Nobody && !cors.expose.is_empty() {
            push(out, b"Access-Control-Expose-Headers", cors.expose.as_bytes());
        }
        if granted != Grant::Nobody && self.inbound.worker.shared.config.routes[route.index()].grpc_web {
            // an outcome that stands in a head is of no use to a page that may not read it
            push(out, b"Access-Control-Expose-Headers", grpc_web::EXPOSED);
        }
    }

    /// Appends whose pages may read it.
    fn push_origin(&self, cors: &Cors, route: RouteId, out: &mut Vec<u8>) -> Grant {
        let origin = self.head.fields().get("origin");
        let granted = match origin {
            // no page, but a cache may show it to one
            None if cors.is_for_all() => Grant::Everybody,
            None => Grant::Nobody,
            Some(origin) => grant(cors, route, origin, &mut self.inbound.worker.router_cache.borrow_mut()),
        };
        match (granted, origin) {
            (Grant::Everybody, _) => push(out, b"Access-Control-Allow-Origin", b"*"),
            (Grant::Named, Some(origin)) => {
                push(out, b"Access-Control-Allow-Origin", origin);
                if cors.credentials {
                    push(out, b"Access-Control-Allow-Credentials", b"true");
                }
            }
            (Grant::Named | Grant::Nobody, _) => {}
        }
        if !cors.is_for_all() {
            push(out, b"Vary", b"Origin");
        }
        granted
    }

    /// The answer to a preflight, if this is one and the route that it is about has a say in it.
    pub(super) fn preflight(&self, cycle: &mut Cycle, record: &mut Record) -> Option<Answer> {
        let (head, shared) = (self.head, &self.inbound.worker.shared);
        if head.method() != Method::OPTIONS || !shared.has_cors {
            return None;
        }
        let (_, wanted) = head.fields().get("origin").zip(head.fields().get("access-control-request-method"))?;
        let Routed::Route(route) = self.look_up(&Method::from_bytes(wanted).ok()?) else { return None };
        let cors = shared.config.routes[route.index()].cors.as_ref()?;
        record.on_route(self.inbound, route, head.path());
        let mut lines = self.inbound.worker.room_for_own_lines();
        let mut granted = Grant::Nobody;
        lines.fill(|out| granted = self.push_origin(cors, route, out), |out| self.push_permission(cors, out));
        if granted == Grant::Nobody {
            self.inbound.worker.put_own_lines(lines);
            self.routed.set(Some(route)); // so that the refusal says on what it depends
            return Some(self.refuse(cycle, record, ProxyError::OriginNotAllowed, &[]));
        }
        record.on_status(StatusCode::NO_CONTENT);
        let nothing = Reply { status: StatusCode::NO_CONTENT, content_type: None, body: b"", extra: &[] };
        let answer = self
            .answer(cycle, None, |out, to| reply::reply(out, &nothing, &reply::ReplyTo { lines: lines.all(), ..*to }));
        self.inbound.worker.put_own_lines(lines);
        Some(answer)
    }

    /// Appends what a preflight is answered beyond whose pages are meant.
    fn push_permission(&self, cors: &Cors, out: &mut Vec<u8>) {
        push(out, b"Access-Control-Allow-Methods", cors.methods.as_bytes());
        match &cors.headers {
            AllowedHeaders::These(names) if names.is_empty() => {}
            AllowedHeaders::These(names) => push(out, b"Access-Control-Allow-Headers", names.as_bytes()),
            AllowedHeaders::Asked => {
                let asked = self.head.fields().get("access-control-request-headers");
                if let Some(asked) = asked.filter(|asked| is_list_of_names(asked)) {
                    push(out, b"Access-Control-Allow-Headers", asked);
                }
                push(out, b"Vary", b"Access-Control-Request-Headers");
            }
        }
        out.extend_from_slice(b"Access-Control-Max-Age: ");
        push_number(out, cors.max_age.as_secs());
        out.extend_from_slice(b"\r\n");
    }
}

/// Whether it is what a browser sends: names of headers with commas between them.
fn is_list_of_names(text: &[u8]) -> bool {
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(|byte| is_of_name(byte) || matches!(byte, b',' | b' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_are_sent_back() {
        for yes in ["x-a", "content-type, x-b", "a,b"] {
            assert!(is_list_of_names(yes.as_bytes()), "{yes}");
        }
        for no in ["", "a: b", "<b>", "a;b", "\"a\"", "a\tb"] {
            assert!(!is_list_of_names(no.as_bytes()), "{no}");
        }
    }
}
