//! `route → admit → encode`: from a head in the inbox to what is to be done, in one go and without waiting.
//!
//! The parsed head borrows the inbox, so everything that needs it happens here: routing, limits, the encoded head for the endpoint,
//! the hash key, what the access log will want. What comes out is owned and small, and the future that waits for the network
//! carries nothing else.

use super::client::Connection;
use super::generation::{Generation, Slot};
use super::record::Record;
use super::request_id;
use crate::config::{self, HashKey, LimitKey, Target};
use crate::error::ProxyError;
use crate::http::body::Body;
use crate::http::cycle::Cycle;
use crate::http::encode::{self, UpstreamRequest};
use crate::http::framing::Framing;
use crate::http::head::{HeadPolicy, RequestHead};
use crate::http::headers::{self, Forwarding};
use crate::http::reply::{self, ALLOW_ANY, Reply, ReplyTo};
use crate::http::trailers::Trailers;
use crate::http::upgrade::Offer;
use crate::http::{Parsed, Version};
use crate::limits::{BLOCK_SMALL, ROUNDS_MAX};
use crate::net::block::Block;
use crate::policy::admission::Admitted;
use crate::policy::chance::hash_key;
use crate::policy::limit_fields::write_retry_after;
use crate::policy::retry::is_idempotent;
use crate::policy::router::{RequestView, Routed, pick_split, rewrite};
use crate::policy::token_bucket::Standing;
use crate::units::{ClusterId, Instant, RouteId};
use http::{HeaderName, Method, StatusCode};
use std::cell::OnceCell;
use std::net::IpAddr;
use std::rc::Rc;

/// One request, understood.
#[derive(Debug)]
pub(super) struct Plan {
    /// Bytes of the head, to be taken from the inbox.
    pub(super) head_bytes: usize,
    /// The client's connection.
    pub(super) cycle: Cycle,
    /// What is to be done.
    pub(super) way: Way,
}

/// What is to be done with a request.
#[derive(Debug)]
pub(super) enum Way {
    /// The gateway answers itself.
    Answer {
        /// The whole reply.
        out: Block,
        /// Of the request's body, which goes nowhere.
        framing: Framing,
    },
    /// An endpoint answers.
    Forward(Forward),
}

/// A request that goes on.
#[derive(Debug)]
pub(super) struct Forward {
    pub(super) route: RouteId,
    pub(super) cluster: ClusterId,
    pub(super) method: Method,
    pub(super) version: Version,
    pub(super) framing: Framing,
    /// For those of the request.
    pub(super) trailers: Trailers,
    pub(super) withheld: bool,
    pub(super) bytes_max: u64,
    pub(super) idempotent: bool,
    pub(super) hash: Option<u64>,
    /// To change the protocol; boxed, because hardly a request has one and all of them are moved.
    pub(super) offer: Option<Box<Offer>>,
    /// The encoded head.
    pub(super) outbound: Block,
    /// The route's share of concurrency, given back when the exchange ends.
    pub(super) slot: Option<Slot>,
}

/// Parses what is in the inbox, and puts the plan into `into`; nothing while the head is not all there. What will be counted and logged
/// goes into `record`.
///
/// # Errors
/// What is wrong with the head; the connection must be closed.
pub(super) fn plan(
    worker: &Rc<Generation>,
    connection: &Connection,
    buf: &[u8],
    record: &mut Record,
    (now, into): (Instant, &mut Option<Plan>),
) -> Result<(), ProxyError> {
    let config = connection.config(worker);
    let mut scratch = worker.scratch.borrow_mut();
    let scratch = &mut *scratch;
    let head = match RequestHead::parse(buf, &HeadPolicy::of(config), &mut scratch.head)? {
        Parsed::Partial => return Ok(()),
        Parsed::Complete(head) => head,
    };
    let behind = &buf[head.head_bytes()..];
    let planner = Planner { worker, connection, config, head: &head, behind, now, peer_text: OnceCell::new() };
    *into = Some(planner.plan(record, &mut scratch.path));
    Ok(())
}

/// Where an admitted request goes.
struct To {
    route: RouteId,
    cluster: ClusterId,
    slot: Option<Slot>,
}

/// Everything that planning looks at.
struct Planner<'p> {
    worker: &'p Rc<Generation>,
    connection: &'p Connection,
    config: &'p config::Listener,
    head: &'p RequestHead<'p>,
    /// What has arrived behind the head.
    behind: &'p [u8],
    now: Instant,
    /// The peer's address in words, once somebody asks for it.
    peer_text: OnceCell<String>,
}

impl Planner<'_> {
    fn plan(&self, record: &mut Record, path: &mut Vec<u8>) -> Plan {
        let head = self.head;
        #[cfg(test)]
        super::failing::on_head(head);
        let mut cycle = Cycle::default();
        cycle.on_request_head(head.framing(), head.is_persistent(), self.is_withheld());
        if self.connection.count_request(self.config, self.now) || self.connection.is_leaving() {
            cycle.on_drain();
        }
        let client = self.client();
        record.on_head(self.worker, self.connection, head, client);
        let way = self.way(&mut cycle, record, client, path);
        Plan { head_bytes: head.head_bytes(), cycle, way }
    }

    /// Whether the client waits to be told to send its body; not if it has begun to.
    fn is_withheld(&self) -> bool {
        self.head.expects_continue() && self.behind.is_empty()
    }

    /// What the endpoint will be told about the client.
    fn forwarding<'f>(&'f self, request_id: &'f [u8]) -> Forwarding<'f> {
        let peer = self.connection.peer;
        Forwarding {
            peer: peer.address.map(|address| address.ip().to_canonical()),
            is_trusted: peer.trusted,
            scheme: self.connection.scheme(),
            request_id,
            identity: self.connection.identity(),
            tells_certificate: self.config.tls.as_ref().is_some_and(|tls| tls.tells_certificate),
        }
    }

    /// A field as routes, limits and hashes see it.
    fn field(&self, name: &HeaderName) -> Option<&[u8]> {
        let peer_text = || self.connection.peer.address.map(|a| a.ip().to_canonical().to_string()).unwrap_or_default();
        let text: &[u8] = match *name == "x-forwarded-for" {
            true => self.peer_text.get_or_init(peer_text).as_bytes(),
            false => &[],
        };
        headers::routed(self.head, name.as_str(), &self.forwarding(&[]), text)
    }

    fn client(&self) -> IpAddr {
        let peer = self.connection.peer;
        if !peer.trusted {
            return peer.ip();
        }
        let trusted = &self.config.trusted_proxies;
        // a unix socket's peer has no address but the one that stands for it
        let is_peer = |ip: IpAddr| peer.address.is_none() && ip == peer.ip();
        self.head.client(peer.ip(), |ip| is_peer(ip) || trusted.iter().any(|net| net.contains(&ip)))
    }

    fn way(&self, cycle: &mut Cycle, record: &mut Record, client: IpAddr, path: &mut Vec<u8>) -> Way {
        let head = self.head;
        let header = |name: &HeaderName| self.field(name);
        let view = RequestView {
            host: head.host(),
            path: head.routed_path(),
            query: head.query(),
            method: head.method(),
            header: &header,
        };
        let worker = self.worker;
        if head.path() == "*" {
            return self.options(cycle, record); // RFC 9110 §9.3.7: it asks about the server, which is the gateway
        }
        if let Some(token) = worker.shared.challenges.token(head.path()) {
            return self.prove(cycle, record, &token);
        }
        let route = match worker.shared.router.route(&view, &mut worker.router_cache.borrow_mut()) {
            Routed::Route(route) => route,
            Routed::NoRoute => return self.refuse(cycle, record, ProxyError::NoRoute, &[]),
            Routed::MethodNotAllowed(allow) => {
                path.clear();
                allow.write(path);
                return self.refuse(cycle, record, ProxyError::MethodNotAllowed, &[("Allow", path)]);
            }
        };
        record.on_route(route);
        let limited_by = |key: &LimitKey| match key {
            LimitKey::Header(name) => self.field(name),
            _ => self.connection.identity().map(|identity| identity.key_hash.as_bytes()),
        };
        let slot = match worker.admit(route, client, &limited_by, self.now) {
            (Admitted::Pass { .. }, slot) => slot,
            (Admitted::ConcurrencyLimited, _) => {
                return self.refuse(cycle, record, ProxyError::ConcurrencyLimited, &[("Retry-After", b"1")]);
            }
            (Admitted::RateLimited { limit, standing }, _) => {
                return self.limit(cycle, record, route, limit, standing);
            }
        };
        let rules = &worker.shared.config.routes[route.index()];
        match &rules.target {
            Target::Upstream(split) => {
                let cluster = pick_split(split, &mut worker.rng.borrow_mut());
                self.forward(cycle, record, To { route, cluster, slot }, client, path)
            }
            Target::Respond { status, body, content_type } => {
                record.on_status(*status);
                self.answer(cycle, Some(&rules.response_headers), |out, to| {
                    let reply = Reply {
                        status: *status,
                        content_type: Some(content_type.as_bytes()),
                        body: body.as_bytes(),
                        extra: &[],
                    };
                    reply::reply(out, &reply, to);
                })
            }
            Target::Redirect { to: location, status } => {
                record.on_status(*status);
                self.answer(cycle, Some(&rules.response_headers), |out, to| {
                    reply::redirect(out, *status, location, head.path(), head.query(), to);
                })
            }
        }
    }

    fn forward(&self, cycle: &mut Cycle, record: &mut Record, to: To, client: IpAddr, path: &mut Vec<u8>) -> Way {
        let To { route, cluster, slot } = to;
        let (head, worker) = (self.head, self.worker);
        if head.max_forwards() == Some(0) {
            return self.options(cycle, record); // RFC 9110 §7.6.2: it asks who stands at this point of the way
        }
        if head.rounds() >= ROUNDS_MAX {
            return self.refuse(cycle, record, ProxyError::LoopDetected, &[]);
        }
        let rules = &worker.shared.config.routes[route.index()];
        let bytes_max = rules.body_bytes_max.unwrap_or(self.config.body_bytes_max);
        if head.framing().exceeds(bytes_max) {
            return self.refuse(cycle, record, ProxyError::PayloadTooLarge, &[]);
        }
        let mut outbound = match head.framing() {
            Framing::None => worker.blocks.borrow_mut().small(),
            Framing::Fixed(bytes) if bytes < BLOCK_SMALL as u64 / 2 => worker.blocks.borrow_mut().small(),
            _ => worker.blocks.borrow_mut().large(),
        };
        let id = head.request_id().is_none().then(|| request_id::draw(&mut worker.rng.borrow_mut()));
        let id = id.as_ref().map_or(&[][..], |id| id);
        record.on_request_id(id);
        let offer = head.upgrade();
        self.encode(&mut outbound, rules, (cluster, offer), id, path);
        Way::Forward(Forward {
            route,
            cluster,
            method: head.method().clone(),
            version: head.version(),
            framing: head.framing(),
            trailers: head.trailers(),
            withheld: self.is_withheld(),
            bytes_max,
            idempotent: is_idempotent(head.method()),
            hash: self.hash(cluster, client),
            offer: offer.map(Box::new),
            outbound,
            slot,
        })
    }

    fn encode(
        &self,
        outbound: &mut Block,
        rules: &config::Route,
        (cluster, offer): (ClusterId, Option<Offer>),
        request_id: &[u8],
        path: &mut Vec<u8>,
    ) {
        let (head, worker) = (self.head, self.worker);
        let upward = match rules.rewrite {
            config::Rewrite::None => head.path(),
            _ => {
                path.clear();
                rewrite(&rules.rewrite, &rules.matcher.path, head.path(), path);
                // the path is visible ASCII and so is every template that the configuration accepts
                str::from_utf8(path).unwrap_or(head.path())
            }
        };
        let forwarding = self.forwarding(request_id);
        let request = UpstreamRequest {
            head,
            path: upward,
            query: head.query(),
            framing: head.framing(),
            rules: &rules.request_headers,
            forwarding: &forwarding,
            host_fallback: &worker.shared.config.clusters[cluster.index()].name,
            expect_continue: self.is_withheld(),
            offer,
        };
        encode::request(outbound.vec_mut(), &request);
    }

    fn hash(&self, cluster: ClusterId, client: IpAddr) -> Option<u64> {
        let (config::Balance::RingHash(key) | config::Balance::Maglev(key)) =
            &self.worker.shared.config.clusters[cluster.index()].balance
        else {
            return None;
        };
        // who has no key yet (the first request of a session) must not meet all others who have none: the balancer draws for it
        let text = |value: Option<&[u8]>| value.filter(|value| !value.is_empty()).map(hash_key);
        match key {
            HashKey::ClientIp => Some(match client {
                IpAddr::V4(ip) => hash_key(&ip.octets()),
                IpAddr::V6(ip) => hash_key(&ip.octets()),
            }),
            HashKey::Header(name) => text(self.field(name)),
            HashKey::Cookie(name) => text(cookie(self.head, name)),
            HashKey::Path => Some(hash_key(self.head.path().as_bytes())),
        }
    }

    /// 429 with what the client needs to know (RFC 6585 §4, draft-ietf-httpapi-ratelimit-headers-11).
    fn limit(&self, cycle: &mut Cycle, record: &mut Record, route: RouteId, limit: usize, standing: Standing) -> Way {
        let limits = &self.worker.shared.limits;
        let mut texts = self.worker.limit_texts.borrow_mut();
        let (retry_after, rate_limit) = &mut *texts;
        retry_after.clear();
        rate_limit.clear();
        write_retry_after(standing.reset, retry_after);
        limits.write_standing(route, limit, standing, rate_limit);
        let fields: [(&str, &[u8]); 3] =
            [("Retry-After", retry_after), ("RateLimit", rate_limit), ("RateLimit-Policy", limits.policies(route))];
        self.refuse(cycle, record, ProxyError::RateLimited, &fields)
    }

    fn refuse(&self, cycle: &mut Cycle, record: &mut Record, error: ProxyError, extra: &[(&str, &[u8])]) -> Way {
        record.on_error(error);
        self.answer(cycle, None, |out, to| reply::error(out, error, extra, to))
    }

    /// What the gateway itself says to OPTIONS.
    fn options(&self, cycle: &mut Cycle, record: &mut Record) -> Way {
        record.on_status(StatusCode::OK);
        let allow: [(&str, &[u8]); 1] = [("Allow", ALLOW_ANY)];
        self.answer(cycle, None, |out, to| {
            let nothing = Reply { status: StatusCode::OK, content_type: None, body: b"", extra: &allow };
            reply::reply(out, &nothing, to);
        })
    }

    /// Answers an authority that looks whether a name leads here (RFC 8555 §8.3), whatever the routes say.
    fn prove(&self, cycle: &mut Cycle, record: &mut Record, token: &str) -> Way {
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
    fn answer(
        &self,
        cycle: &mut Cycle,
        rules: Option<&config::HeaderRules>,
        write: impl FnOnce(&mut Vec<u8>, &ReplyTo<'_>),
    ) -> Way {
        let head = self.head;
        let framing = head.framing();
        let left = match framing {
            Framing::Fixed(bytes) => Some(bytes.saturating_sub(self.behind.len() as u64)),
            Framing::None | Framing::UntilClose => Some(0),
            Framing::Chunked => self.has_last_chunk().then_some(0),
        };
        let close = cycle.announces_close(left);
        let mut out = self.worker.blocks.borrow_mut().small();
        let date = self.worker.date(self.now);
        let to = ReplyTo {
            version: head.version(),
            head_only: head.method() == Method::HEAD,
            close,
            date: &date,
            server: &self.config.server,
            rules,
        };
        write(out.vec_mut(), &to);
        cycle.on_response_head(Framing::Fixed(0), !close);
        Way::Answer { out, framing }
    }
}

/// The value of a cookie (RFC 6265 §5.4: pairs separated by `; `).
fn cookie<'h>(head: &RequestHead<'h>, name: &str) -> Option<&'h [u8]> {
    head.fields().get("cookie")?.split(|byte| *byte == b';').find_map(|pair| {
        let pair = pair.trim_ascii_start();
        pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fields::HeadScratch;

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let mut scratch = HeadScratch::default();
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nCookie: xid=1; id=22;b=3\r\n\r\n";
        let Ok(Parsed::Complete(head)) = RequestHead::parse(bytes, &HeadPolicy::default(), &mut scratch) else {
            panic!("a valid head")
        };
        assert_eq!(cookie(&head, "id"), Some(&b"22"[..]));
        assert_eq!(cookie(&head, "b"), Some(&b"3"[..]));
        assert_eq!(cookie(&head, "d"), None);
    }
}
