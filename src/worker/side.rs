//! Which upstream takes a request: its side of a split, and another one where nobody is left there; and what comes before: faults that are made for it,
//! its body where that is awaited.
//!
//! That nobody is left is known beforehand where endpoints are ejected or called down, and found out by the first requests otherwise: those go on to the
//! other side as they would to another endpoint, as long as nothing of them was sent that may not be sent twice.

use super::failure::Failure;
use super::generation::Generation;
use super::hashing::cookie;
use super::line::Line;
use super::plan::{Forward, Planner};
use super::record::Record;
use super::sticky;
use super::upload::Upload;
use crate::config::{ContentCoding, SplitKey, Target};
use crate::error::ProxyError;
use crate::http::Version;
use crate::http::coding::{has_directive, negotiate};
use crate::http::framing::Framing;
use crate::net::clock;
use crate::observe::labels::TrafficEvent;
use crate::policy::chance::{hash_key, mix, unit};
use crate::policy::exchange::{Action, Event};
use crate::policy::fault::{Injected, inject};
use crate::policy::split::pick;
use crate::units::{ClusterId, Instant, RouteId, Weight};
use rand::Rng as _;
use std::net::IpAddr;

/// Sides that a request goes on to, at most, where one after the other turns out to have nobody.
const MOVES_MAX: u8 = 3;

impl Planner<'_> {
    /// The side of a route's split that takes the request.
    pub(super) fn side(&self, route: RouteId, split: &[(ClusterId, Weight)], client: IpAddr) -> ClusterId {
        if let [(only, _)] = split {
            return *only;
        }
        let worker = self.inbound.worker;
        let traffic = &worker.shared.config.routes[route.index()].traffic;
        let key = traffic.split_by.as_ref().and_then(|key| self.split_key(key, client));
        let ticket = key.unwrap_or_else(|| worker.rng.borrow_mut().next_u64());
        let has_session = |cluster| sticky::session(self.inbound, self.head, cluster).is_some();
        let sides = split.iter().filter(|(_, weight)| weight.0 > 0).map(|(cluster, _)| *cluster);
        // a checked split has a side of positive weight
        let chosen = sides.clone().find(|cluster| has_session(*cluster)).or_else(|| pick(split, ticket, |_| true));
        let Some(chosen) = chosen else { return split[0].0 };
        if !traffic.split_fallback || has_somebody(worker, chosen, self.now) {
            return chosen;
        }
        let Some(other) = pick(split, mix(ticket), |cluster| has_somebody(worker, cluster, self.now)) else {
            return chosen;
        };
        worker.recorder.traffic(route, TrafficEvent::SplitFallback);
        other
    }

    fn split_key(&self, key: &SplitKey, client: IpAddr) -> Option<u64> {
        match (key, client) {
            (SplitKey::ClientIp, IpAddr::V4(ip)) => Some(hash_key(&ip.octets())),
            (SplitKey::ClientIp, IpAddr::V6(ip)) => Some(hash_key(&ip.octets())),
            _ => self.split_value(key).map(hash_key),
        }
    }

    /// What a request has of this, if it is not an address.
    pub(super) fn split_value(&self, key: &SplitKey) -> Option<&[u8]> {
        let value: &[u8] = match key {
            SplitKey::Consumer => self.identified.get()?.name(&self.inbound.worker.shared.identities).as_bytes(),
            SplitKey::ClientIp => return None,
            SplitKey::Header(name) => self.field(name)?,
            SplitKey::Cookie(name) => cookie(self.head, name)?,
        };
        Some(value).filter(|value| !value.is_empty())
    }

    /// The coding for the response that suits the client best.
    pub(super) fn coding(&self, route: RouteId) -> Option<ContentCoding> {
        let compression = self.inbound.worker.shared.config.routes[route.index()].traffic.compression.as_ref()?;
        let (head, fields) = (self.head, self.head.fields());
        // a client of HTTP/1.0 knows no chunks, and a call has codings of its own
        let is_left = head.version() == Version::Http10 || self.call.is_some();
        if is_left || has_directive(fields.get_all("cache-control"), "no-transform") {
            return None;
        }
        negotiate(fields.get_all("accept-encoding"), &compression.codings)
    }

    /// The faults that are made for the request on its route.
    pub(super) fn inject(&self, route: RouteId, record: &mut Record) -> Injected {
        let worker = self.inbound.worker;
        let Some(fault) = &worker.shared.config.routes[route.index()].traffic.fault else { return Injected::default() };
        if let Some(name) = &fault.header
            && self.field(name).is_none()
        {
            return Injected::default();
        }
        let injected = inject(fault, &mut worker.rng.borrow_mut());
        if injected.delay.is_some() {
            worker.recorder.traffic(route, TrafficEvent::FaultDelay);
        }
        if injected.abort.is_some() {
            worker.recorder.traffic(route, TrafficEvent::FaultAbort);
        }
        if let Some(word) = injected.word() {
            record.on_fault(word);
        }
        injected
    }
}

fn has_somebody(worker: &Generation, cluster: ClusterId, now: Instant) -> bool {
    worker.cluster(cluster).borrow_mut().available(now) > 0
}

/// Draws whether a copy of the request goes to another upstream. None of what is no request of HTTP/1.1 for whoever reads it.
pub(super) fn is_mirrored(worker: &Generation, forward: &Forward) -> bool {
    let Some(mirror) = &worker.shared.config.routes[forward.route.index()].traffic.mirror else { return false };
    forward.call.is_none() && forward.offer.is_none() && unit(&mut worker.rng.borrow_mut()) < mirror.share.get()
}

impl Line<'_> {
    /// The first pick; or nothing of it, if there is no time.
    pub(super) fn begin(&self) -> Action {
        match self.now < self.attempts.deadline() {
            true => self.attempts.step(Event::Start, self.now),
            // the client has used up T_max for the head alone, and no endpoint is to blame
            false => Action::Reply(ProxyError::RequestTimeout),
        }
    }

    /// Whether something is to be waited for before that: a fault that is made, or the request's body.
    pub(super) fn begins_late(&self) -> bool {
        self.forward.injected.is_some()
            || (self.buffered_bytes_max().is_some() && self.forward.framing != Framing::None)
            || self.has_signed_body()
            || self.forward.own_lines.paced_up().is_some()
    }

    pub(super) fn buffered_bytes_max(&self) -> Option<usize> {
        self.rules.traffic.buffered_bytes_max
    }

    /// The first pick behind that. All of it is a part of T_max.
    pub(super) async fn begin_late(&mut self, upload: &Upload<'_>) -> Action {
        if let Some(pace) = self.forward.own_lines.paced_up() {
            upload.pace_by(*pace);
        }
        let Injected { delay, abort } = self.forward.injected.as_deref().copied().unwrap_or_default();
        if let Some(delay) = delay {
            let until = (self.now + delay).min(self.attempts.deadline());
            let is_there = self.inbound.pause_until(until).await;
            self.now = clock::now();
            if !is_there {
                return self.fail(Failure::Downstream(ProxyError::ClientClosed), upload);
            }
            if self.now >= self.attempts.deadline() {
                return Action::Reply(ProxyError::UpstreamTimeout);
            }
        }
        if abort.is_some() {
            return Action::Reply(ProxyError::FaultInjected);
        }
        match self.await_body(upload).await {
            Some(action) => action,
            None => self.begin(),
        }
    }

    /// What is done in place of this reply: another side of the split is asked, if this one has nobody left, or nobody with room (`max_requests`).
    pub(super) fn other_side(&self, reply: ProxyError, upload: &Upload<'_>) -> Option<Action> {
        let worker = self.inbound.worker;
        let route = &worker.shared.config.routes[self.forward.route.index()];
        let Target::Upstream(split) = &route.target else { return None };
        let may_move = matches!(reply, ProxyError::NoHealthyEndpoint | ProxyError::UpstreamSaturated)
            && split.len() > 1
            && route.traffic.split_fallback
            && self.now < self.attempts.deadline()
            && upload.can_begin()
            && (self.forward.idempotent || !self.attempts.has_reached())
            && self.attempts.moves() < MOVES_MAX;
        if !may_move {
            return None;
        }
        let config = &worker.shared.config.clusters;
        let here = self.attempts.cluster();
        // a head is written for a protocol that can carry what the request is
        let suits = |cluster: ClusterId| config[cluster.index()].protocol == config[here.index()].protocol;
        let may = |cluster| cluster != here && suits(cluster) && has_somebody(worker, cluster, self.now);
        let ticket = worker.rng.borrow_mut().next_u64();
        let other = pick(split, ticket, may)?;
        worker.recorder.traffic(self.forward.route, TrafficEvent::SplitFallback);
        self.attempts.move_to(other);
        Some(self.begin())
    }
}
