//! Sessions that stay with one endpoint: what a request's cookie says, what its response sets, and what an endpoint does not see of it.

use super::compression::Coder;
use super::inbound::Inbound;
use super::line::Line;
use super::shared::Shared;
use crate::config::{HeaderRules, Sticky, Target};
use crate::http::coding;
use crate::http::head::RequestHead;
use crate::http::push_number;
use crate::http::response::ResponseHead;
use crate::observe::labels::TrafficEvent;
use crate::policy::cookies;
use crate::policy::sticky::{Meaning, Sessions};
use crate::units::{ClusterId, EndpointId, RouteId};
use aws_lc_rs::rand;
use http::header::ETAG;
use http::{Method, StatusCode};
use std::sync::Arc;

/// Cookies of one name that are looked at; each costs a hash, and a browser has one for each path.
const COOKIES_READ_MAX: usize = 4;

/// A key for who has none in the file; it lives as long as the process.
///
/// # Panics
/// The system has no random bytes.
pub(super) fn made_key() -> Arc<[u8; 32]> {
    let mut key = [0; 32];
    rand::fill(&mut key).expect("the system has random bytes");
    Arc::new(key)
}

/// The endpoint of this cluster that a request's cookie names.
#[inline]
pub(super) fn session(inbound: &Inbound<'_>, head: &RequestHead<'_>, cluster: ClusterId) -> Option<EndpointId> {
    of(&inbound.worker.shared, cluster).and_then(|of| named(of, head))
}

#[cold]
#[inline(never)]
fn named((sticky, sessions): (&Sticky, &Sessions), head: &RequestHead<'_>) -> Option<EndpointId> {
    let fields = head.fields();
    let mut values = cookies::values(fields.get_all("cookie"), &sticky.cookie);
    values.by_ref().take(COOKIES_READ_MAX).find_map(|value| match sessions.meaning(value) {
        Meaning::Endpoint(endpoint) => Some(endpoint),
        Meaning::Stale | Meaning::Foreign => None,
    })
}

#[inline]
fn of(shared: &Shared, cluster: ClusterId) -> Option<(&Sticky, &Sessions)> {
    let sessions = shared.sessions.get(cluster.index())?.as_deref()?;
    Some((shared.config.clusters[cluster.index()].sticky.as_ref()?, sessions))
}

/// What is the gateway's own among the cookies of a route's requests; `None`: nothing is.
pub(super) struct OwnCookies<'s> {
    shared: &'s Shared,
    route: RouteId,
}

impl<'s> OwnCookies<'s> {
    #[inline]
    pub(super) fn of(shared: &'s Shared, route: RouteId) -> Option<Self> {
        if shared.sessions.is_empty() {
            return None;
        }
        let own = Self { shared, route };
        own.clusters().next()?;
        Some(own)
    }

    fn clusters(&self) -> impl Iterator<Item = (&'s Sticky, &'s Sessions)> {
        let split = match &self.shared.config.routes[self.route.index()].target {
            Target::Upstream(split) => split.as_slice(),
            _ => &[],
        };
        let shared = self.shared;
        split.iter().filter_map(move |(cluster, _)| of(shared, *cluster))
    }

    /// Whether the gateway has set it, whichever endpoint it names. A cookie of that name which somebody else has set is none.
    pub(super) fn has(&self, pair: &[u8], read: &mut usize) -> bool {
        let is_ours = |(sticky, sessions): (&Sticky, &Sessions)| {
            let Some(value) = cookies::value_of(pair, &sticky.cookie) else { return false };
            *read += 1;
            // beyond that it is not looked which of them are ours, and none goes on
            *read > COOKIES_READ_MAX || sessions.meaning(value) != Meaning::Foreign
        };
        self.clusters().any(is_ours)
    }
}

impl Line<'_> {
    /// Lines of a response that this endpoint has given: those that follow from the request, the cookie, if the session has met another endpoint before
    /// or none, what is to be said of its coding, if anything, and what has become of the places that it names. `out` is where they are put together; most responses have the first alone, or nothing.
    #[inline]
    pub(super) fn lines_of<'l>(
        &'l self,
        endpoint: EndpointId,
        of_head: (&ResponseHead<'_>, Option<bool>),
        out: &'l mut Vec<u8>,
    ) -> &'l [u8] {
        let found = of(&self.inbound.worker.shared, self.attempts.cluster());
        if self.rules.is_plain && found.is_none() {
            return self.forward.own_lines.all();
        }
        self.put_together((endpoint, found), of_head, out)
    }

    #[inline(never)]
    fn put_together<'l>(
        &'l self,
        (endpoint, found): (EndpointId, Option<(&Sticky, &Sessions)>),
        (head, coded): (&ResponseHead<'_>, Option<bool>),
        out: &'l mut Vec<u8>,
    ) -> &'l [u8] {
        let is_met = self.attempts.moves() == 0 && self.forward.session == Some(endpoint);
        let cookie = found.filter(|_| !is_met);
        let relocation = self.relocation().filter(|_| !head.is_switching());
        if cookie.is_none() && coded.is_none() && relocation.is_none() {
            return self.forward.own_lines.all();
        }
        out.clear();
        out.extend_from_slice(self.forward.own_lines.all());
        if let Some((sticky, sessions)) = cookie {
            push_cookie(out, sticky, sessions.value(endpoint), self.inbound.scheme() == "https");
        }
        if let Some(relocation) = relocation {
            self.push_places((endpoint, head), relocation, out);
        }
        if let Some(is_coded) = coded {
            let rules = self.response_rules();
            let mut named = rules.remove.iter().chain(rules.set.iter().map(|(name, _)| name));
            let keeps_etag = !named.any(|name| *name == ETAG) && !rules.templates.iter().any(|(name, _)| *name == ETAG);
            coding::push_lines(out, head, self.forward.coding.filter(|_| is_coded), keeps_etag);
        }
        out
    }

    /// How a response is compressed: `None`: it is none of those that are, for nobody; else whether its head says that it is for this client, and what
    /// does it, if there is a body.
    pub(super) fn compressed(&self, head: &ResponseHead<'_>) -> Option<(bool, Option<Box<Coder>>)> {
        let (worker, route) = (self.inbound.worker, self.forward.route);
        let rules = self.rules.traffic.compression.as_ref()?;
        if self.forward.web.is_some() || !coding::suits(head, rules) {
            return None;
        }
        if self.forward.method == Method::HEAD || head.status() == StatusCode::NOT_MODIFIED {
            return Some((self.forward.coding.is_some(), None)); // it says what is true of the answer that it stands for
        }
        if head.framing().is_empty() {
            return None;
        }
        let coder = self.forward.coding.map(|coding| Coder::new(worker.worker(), coding));
        let event = match &coder {
            None => return Some((false, None)),
            Some(None) => TrafficEvent::CompressionSkipped,
            Some(Some(_)) => TrafficEvent::Compressed,
        };
        worker.recorder.traffic(route, event);
        let coder = coder.flatten();
        Some((coder.is_some(), coder))
    }

    /// The rules for what goes down, of a response in another coding or not.
    pub(super) fn rules_of(&self, is_coded: bool) -> &HeaderRules {
        let route = self.rules;
        match (&route.traffic.compression, &route.traffic.relocation) {
            (Some(_), Some(relocation)) if is_coded => &relocation.coded_rules,
            (_, Some(relocation)) => &relocation.rules,
            (Some(compression), None) if is_coded => &compression.rules,
            _ => &route.response_headers,
        }
    }
}

/// RFC 6265 §4.1; a session's place is nobody else's business, so it has no `Domain`.
fn push_cookie(out: &mut Vec<u8>, sticky: &Sticky, value: &[u8], is_encrypted: bool) {
    for part in [b"Set-Cookie: ", sticky.cookie.as_bytes(), b"=", value, b"; Path=", sticky.path.as_bytes()] {
        out.extend_from_slice(part);
    }
    if !sticky.max_age.is_zero() {
        out.extend_from_slice(b"; Max-Age=");
        push_number(out, sticky.max_age.as_secs());
    }
    if sticky.secure.unwrap_or(is_encrypted) {
        out.extend_from_slice(b"; Secure");
    }
    if sticky.http_only {
        out.extend_from_slice(b"; HttpOnly");
    }
    out.extend_from_slice(b"; SameSite=");
    out.extend_from_slice(sticky.same_site.as_str().as_bytes());
    out.extend_from_slice(b"\r\n");
}
