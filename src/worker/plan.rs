//! `route → identify → authorize → admit`: from a head that has arrived to what is to be done, without waiting.
//!
//! Routing, limits, the hash key, what the access log will want: everything that is asked of the head but the head itself, which goes on
//! with the request and is encoded when it is known for whom ([`super::encoding`]). What comes out is owned and small, and the future that
//! waits for the network carries nothing else.

use super::charges::{Charges, Held};
use super::generation::Slot;
use super::hashing::cookie;
use super::identify::{Identified, Stop};
use super::inbound::Inbound;
use super::kept::Kept;
use super::own_lines::OwnLines;
use super::record::Record;
use super::request_id::{self, RequestId};
use super::sticky;
use super::waiting::{Heard, Wait};
use crate::config::{self, ContentCoding, LimitKey, Protocol, Target};
use crate::error::ProxyError;
use crate::http::Version;
use crate::http::cycle::Cycle;
use crate::http::framing::Framing;
use crate::http::grpc::Call;
use crate::http::grpc_web::Form;
use crate::http::head::RequestHead;
use crate::http::headers;
use crate::http::reply::{self, Asked, Reply};
use crate::http::trailers::Trailers;
use crate::http::upgrade::Offer;
use crate::limits::ROUNDS_MAX;
use crate::net::block::Block;
use crate::policy::admission::{Admitted, Met};
use crate::policy::fault::Injected;
use crate::policy::limiter::Caller;
use crate::policy::retry::is_idempotent;
use crate::policy::router::{RequestView, Routed, Source};
use crate::units::{ClusterId, EndpointId, Instant, RouteId};
use http::{HeaderName, Method};
use std::cell::{Cell, OnceCell};
use std::net::IpAddr;

/// What is to be done with a request.
pub(super) enum Way {
    /// The gateway answers itself.
    Answer(Answer),
    /// An endpoint answers.
    Forward(Forward),
    /// It is not known yet who sends it.
    Wait(Wait),
}

/// What the gateway answers itself.
#[derive(Debug)]
pub(super) struct Answer {
    /// The whole reply.
    pub(super) out: Block,
    /// Of the request's body, which goes nowhere.
    pub(super) framing: Framing,
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
    /// The endpoint that its cookie names.
    pub(super) session: Option<EndpointId>,
    /// Lines of the response.
    pub(super) own_lines: OwnLines,
    /// It is a call of gRPC; whether its client says how long it waits, which stands in the head.
    pub(super) call: Option<bool>,
    /// That call is one of gRPC-Web, and is to be made one of gRPC.
    pub(super) web: Option<Form>,
    /// To change the protocol; boxed, because hardly a request has one and all of them are moved.
    pub(super) offer: Option<Box<Offer>>,
    /// The coding that its client takes for the response, if the route compresses any.
    pub(super) coding: Option<ContentCoding>,
    /// What is made to go wrong with it; boxed, because hardly a request has it.
    pub(super) injected: Option<Box<Injected>>,
    /// The route's share of concurrency, given back when the exchange ends.
    pub(super) slot: Option<Slot>,
    /// What the response says the request has cost.
    pub(super) charges: Charges,
}

/// Plans what is to be done with a request whose head has arrived and been taken from the inbox, in which its bytes still stand. What will be
/// counted and logged goes into `record`.
pub(super) fn plan(of: (&Inbound<'_>, &mut Kept, &Block), cycle: &mut Cycle, record: &mut Record, now: Instant) -> Way {
    planned(of, now, &[], |planner| planner.begin(cycle, record))
}

/// The verbs over a head, which then knows what was found out of it.
pub(super) fn planned(
    (inbound, kept, inbox): (&Inbound<'_>, &mut Kept, &Block),
    now: Instant,
    heard: &Heard,
    verbs: impl FnOnce(&Planner<'_>) -> Way,
) -> Way {
    let head = kept.view(inbox);
    let config = inbound.config();
    let (behind, peer_text, request_id) = (inbox.unread(), OnceCell::new(), OnceCell::new());
    if let Some(id) = kept.id {
        let _ = request_id.set(id); // it has waited, and is called what it was
    }
    let (identified, routed, client) = (OnceCell::new(), Cell::new(None), Cell::new(None));
    // which HTTP/1.1 cannot carry (its trailers say how it went): there the type is only a word, and must not change what is timed
    let call = Call::of(&head.fields()).filter(|call| call.web.is_some() || head.version() == Version::Http2);
    let planner = Planner {
        inbound,
        config,
        head: &head,
        behind,
        now,
        client,
        call,
        peer_text,
        routed,
        request_id,
        identified,
        heard,
    };
    let way = verbs(&planner);
    let (id, identified) = (planner.request_id.into_inner(), planner.identified.into_inner());
    kept.id = id;
    if let Way::Forward(_) = way {
        kept.identified = identified; // who waits is recognised anew
    }
    way
}

/// Where an admitted request goes.
struct To {
    route: RouteId,
    cluster: ClusterId,
    held: Held,
    injected: Injected,
}

/// Everything that planning looks at.
pub(super) struct Planner<'p> {
    pub(super) inbound: &'p Inbound<'p>,
    pub(super) config: &'p config::Listener,
    pub(super) head: &'p RequestHead<'p>,
    /// What has arrived behind the head.
    pub(super) behind: &'p [u8],
    pub(super) now: Instant,
    /// The client's address, if it has one.
    pub(super) client: Cell<Option<IpAddr>>,
    /// The call of gRPC that the request is.
    pub(super) call: Option<Call>,
    /// The peer's address in words, once somebody asks for it.
    peer_text: OnceCell<String>,
    /// Where the request goes, once that is known.
    pub(super) routed: Cell<Option<RouteId>>,
    /// What the request is called, if a name was drawn for it.
    pub(super) request_id: OnceCell<RequestId>,
    /// Who sends the request.
    pub(super) identified: OnceCell<Identified>,
    /// What it has waited for.
    pub(super) heard: &'p Heard,
}

impl Planner<'_> {
    fn begin(&self, cycle: &mut Cycle, record: &mut Record) -> Way {
        let head = self.head;
        #[cfg(test)]
        super::failing::on_head(head);
        cycle.on_request_head(head.framing(), head.is_persistent(), self.is_withheld());
        if self.inbound.client.count_request(self.config, self.now) || self.inbound.client.is_leaving() {
            cycle.on_drain();
        }
        let client = self.inbound.client_ip(head);
        record.on_head(self.inbound, head, client);
        if self.call.is_some_and(|call| call.web.is_none()) {
            record.on_call();
        }
        self.way_and_fields(cycle, record, client)
    }

    /// The call that the request is: one of gRPC-Web only on a route that makes one of gRPC of it.
    pub(super) fn call(&self) -> Option<Call> {
        let is_bridged = |route: RouteId| self.inbound.worker.shared.config.routes[route.index()].grpc_web;
        self.call.filter(|call| call.web.is_none() || self.routed.get().is_some_and(is_bridged))
    }

    /// Whether the client waits to be told to send its body; not if it has begun to.
    fn is_withheld(&self) -> bool {
        self.head.expects_continue() && self.behind.is_empty()
    }

    /// A field as routes, limits and hashes see it.
    pub(super) fn field(&self, name: &HeaderName) -> Option<&[u8]> {
        if self.inbound.worker.shared.is_identity(name) {
            return None; // what a client says of itself there counts for nothing
        }
        let peer_text = || self.inbound.told_address(self.head).map(|address| address.to_string()).unwrap_or_default();
        let text: &[u8] = match *name == "x-forwarded-for" {
            true => self.peer_text.get_or_init(peer_text).as_bytes(),
            false => &[],
        };
        headers::routed(self.head, name.as_str(), &self.inbound.forwarding(self.head, &[]), text)
    }

    /// Whether one of the values of such a field is what is looked for.
    fn has_field(&self, name: &HeaderName, is: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        let fields = self.head.fields();
        let others = || fields.get_all(name.as_str()).skip(1);
        match self.field(name) {
            None => false,
            Some(first) => is(first) || (!headers::is_forwarding(name.as_str()) && others().any(is)),
        }
    }

    /// The verbs from here to the attempts. Each needs the head and what the verbs before it have found, and nothing that the worker lends: where
    /// one is to wait, the rest is planned anew from the head that is kept.
    pub(super) fn way(&self, cycle: &mut Cycle, record: &mut Record, client: IpAddr) -> Way {
        // a unix socket's peer has no address but the one that stands for it
        let peer = self.inbound.client.peer;
        self.client.set((peer.address.is_some() || client != peer.ip()).then_some(client));
        if self.head.request_id().is_none() {
            let draw = || request_id::draw(&mut self.inbound.worker.rng.borrow_mut());
            record.on_request_id(self.request_id.get_or_init(draw)); // before anything can be refused, so that refusals have it
        }
        let is_kept_out = self.is_kept_out();
        let route = match self.route(cycle, record, is_kept_out) {
            Ok(route) => route,
            Err(answer) => return Way::Answer(answer),
        };
        self.routed.set(Some(route));
        if self.call().is_some_and(|call| call.web.is_some()) {
            record.on_call();
        }
        record.on_route(self.inbound, route, self.head.path());
        if is_kept_out {
            return Way::Answer(self.refuse(cycle, record, ProxyError::Forbidden, &[]));
        }
        if self.inbound.worker.shared.config.routes[route.index()].is_guard {
            return self.aim(cycle, record, route, Held::default(), client); // whoever it is
        }
        let ways = config::identity::ways(&self.inbound.worker.shared.config.routes[route.index()], self.config);
        if !ways.is_empty() && self.head.rounds() >= ROUNDS_MAX {
            return Way::Answer(self.refuse(cycle, record, ProxyError::LoopDetected, &[])); // before anybody is asked
        }
        let met = if ways.is_empty() { Met::All } else { Met::Known };
        // who guesses passwords is limited before he is asked for one; once, however often it waits
        if met == Met::Known
            && self.heard.is_empty()
            && let Err(answer) = self.admit(cycle, record, (route, Met::Anybody), client)
        {
            return Way::Answer(answer);
        }
        match self.identify(route, client, record) {
            Ok(()) => {}
            Err(Stop::Wait(way, on)) => return Way::Wait(Wait { route, way, on }),
            Err(Stop::Answered(refusal)) => return Way::Answer(self.pass_refusal(cycle, record, &refusal)),
            Err(Stop::Refused(error)) => return Way::Answer(self.turn_away(cycle, record, route, error)),
        }
        match self.admit(cycle, record, (route, met), client) {
            Ok(held) => self.aim(cycle, record, route, held, client),
            Err(answer) => Way::Answer(answer),
        }
    }

    /// `is_kept_out`: nothing is answered but what an authority asks for; but if there is a route, the refusal is counted there.
    fn route(&self, cycle: &mut Cycle, record: &mut Record, is_kept_out: bool) -> Result<RouteId, Answer> {
        let (head, worker) = (self.head, self.inbound.worker);
        if head.path() == "*" && !is_kept_out {
            return Err(self.options(cycle, record)); // RFC 9110 §9.3.7: it asks about the server, which is the gateway
        }
        if let Some(token) = worker.shared.challenges.token(head.path()) {
            return Err(self.prove(cycle, record, &token));
        }
        let found = self.look_up(head.method());
        let is_guarded = matches!(found, Routed::Route(id) if worker.shared.config.routes[id.index()].is_guard);
        if !is_guarded
            && !is_kept_out
            && let Some(answer) = self.preflight(cycle, record)
        {
            return Err(answer);
        }
        match found {
            Routed::Route(route) => Ok(route),
            _ if is_kept_out => Err(self.refuse(cycle, record, ProxyError::Forbidden, &[])),
            Routed::NoRoute => Err(self.refuse(cycle, record, ProxyError::NoRoute, &[])),
            Routed::MethodNotAllowed(allow) => {
                let text = &mut worker.scratch.borrow_mut().text;
                text.clear();
                allow.write(text);
                Err(self.refuse(cycle, record, ProxyError::MethodNotAllowed, &[("Allow", text)]))
            }
        }
    }

    /// The route of a request that is like this one, but for its method.
    pub(super) fn look_up(&self, method: &Method) -> Routed<'_> {
        let (head, worker) = (self.head, self.inbound.worker);
        let header = |name: &HeaderName, is: &mut dyn FnMut(&[u8]) -> bool| self.has_field(name, is);
        let client = self.client.get();
        let view = RequestView {
            host: head.host(),
            path: head.routed_path(),
            query: head.query(),
            method,
            source: Source { listener: &self.config.name, scheme: self.inbound.scheme(), client },
            header: &header,
        };
        worker.shared.router.route(&view, &mut worker.router_cache.borrow_mut())
    }

    fn admit(
        &self,
        cycle: &mut Cycle,
        record: &mut Record,
        (route, met): (RouteId, Met),
        client: IpAddr,
    ) -> Result<Held, Answer> {
        let identities = &self.inbound.worker.shared.identities;
        let identified = self.identified.get();
        let consumer = identified.map(|identified| identified.name(identities));
        let groups = identified.map_or(&[][..], |identified| identified.groups(identities));
        let limited_by = |key: &LimitKey| match key {
            LimitKey::Header(name) => self.field(name),
            LimitKey::Cookie(name) => cookie(self.head, name),
            LimitKey::Template | LimitKey::Capture(_) => self.by_path(key),
            LimitKey::Claim(name) => identified?.claims()?.get(name)?.as_str().map(str::as_bytes),
            LimitKey::Group => Some(identities.consumers().groups[groups.first()?.index()].as_bytes()),
            _ => self.inbound.identity().map(|identity| identity.key_hash.as_bytes()),
        };
        let consumer = consumer.filter(|name| !name.is_empty());
        let caller = Caller { client, consumer, groups };
        match self.inbound.worker.admit((route, self.inbound.listener, met), caller, &limited_by, self.now) {
            (Admitted::Pass { .. }, held) => Ok(held),
            (Admitted::ConcurrencyLimited, _) => {
                Err(self.refuse(cycle, record, ProxyError::ConcurrencyLimited, &[("Retry-After", b"1")]))
            }
            (Admitted::RateLimited { limit, quota }, _) => Err(self.limit(cycle, record, route, limit, quota)),
        }
    }

    fn aim(&self, cycle: &mut Cycle, record: &mut Record, route: RouteId, held: Held, client: IpAddr) -> Way {
        let (head, worker) = (self.head, self.inbound.worker);
        let rules = &worker.shared.config.routes[route.index()];
        match &rules.target {
            Target::Upstream(split) => {
                let injected = if rules.is_plain { Injected::default() } else { self.inject(route, record) };
                if let Injected { delay: None, abort: Some(status) } = injected {
                    return Way::Answer(self.abort(cycle, record, status));
                }
                let cluster = self.side(route, split, client);
                self.forward(cycle, record, To { route, cluster, held, injected }, client)
            }
            // to an extended CONNECT any success would be a tunnel (RFC 9110 §9.3.6)
            Target::Respond { status, .. }
                if status.is_success() && head.version() == Version::Http2 && head.upgrade().is_some() =>
            {
                Way::Answer(self.refuse(cycle, record, ProxyError::NotImplemented, &[]))
            }
            Target::Respond { status, body, content_type } => {
                record.on_status(*status);
                Way::Answer(self.answer(cycle, Some(&rules.response_headers), |out, to| {
                    let reply = Reply {
                        status: *status,
                        content_type: Some(content_type.as_bytes()),
                        body: body.as_bytes(),
                        extra: &[],
                    };
                    reply::reply(out, &reply, to);
                }))
            }
            Target::Deny => Way::Answer(self.refuse(cycle, record, ProxyError::Guarded, &[])),
            Target::Redirect { to: location, status } => {
                let host = head.host().unwrap_or_default();
                if host.is_empty() && location.contains("{host}") {
                    return Way::Answer(self.refuse(cycle, record, ProxyError::BadRequest, &[])); // HTTP/1.0 need not name one
                }
                record.on_status(*status);
                let asked = Asked { scheme: self.inbound.scheme(), host, path: head.path(), query: head.query() };
                let known = self.known(route);
                let text = &mut worker.scratch.borrow_mut().text;
                let location = match rules.captures {
                    Some(_) => known.captured(location, text),
                    None => location,
                };
                Way::Answer(self.answer(cycle, Some(&rules.response_headers), |out, to| {
                    reply::redirect(out, *status, location, asked, to);
                }))
            }
        }
    }

    fn forward(&self, cycle: &mut Cycle, record: &mut Record, to: To, client: IpAddr) -> Way {
        let To { route, cluster, held, injected } = to;
        let (head, worker) = (self.head, self.inbound.worker);
        if head.max_forwards() == Some(0) {
            return Way::Answer(self.options(cycle, record)); // RFC 9110 §7.6.2: it asks who stands at this point of the way
        }
        if head.rounds() >= ROUNDS_MAX {
            return Way::Answer(self.refuse(cycle, record, ProxyError::LoopDetected, &[]));
        }
        let rules = &worker.shared.config.routes[route.index()];
        if let config::Rewrite::Made { pieces, .. } = &rules.rewrite
            && !self.known(route).has_path((rules, pieces), &mut worker.scratch.borrow_mut())
        {
            return Way::Answer(self.refuse_path(cycle, record));
        }
        let bytes_max = rules.body_bytes_max.unwrap_or(self.config.body_bytes_max);
        if head.framing().exceeds(bytes_max) {
            return Way::Answer(self.refuse(cycle, record, ProxyError::PayloadTooLarge, &[]));
        }
        let is_spoken = worker.shared.config.clusters[cluster.index()].protocol != Protocol::Http1;
        let call = self.call().filter(|_| is_spoken);
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
            session: sticky::session(self.inbound, head, cluster),
            own_lines: match rules.is_plain && self.config.errors.is_empty() {
                true => OwnLines::default(),
                false => self.own_lines(),
            },
            call: call.map(|call| call.timeout.is_some()),
            web: call.and_then(|call| call.web),
            offer: head.upgrade().map(Box::new),
            coding: if rules.is_plain { None } else { self.coding(route) },
            injected: injected.delay.map(|_| Box::new(injected)),
            slot: held.slot,
            charges: held.charges,
        })
    }
}
