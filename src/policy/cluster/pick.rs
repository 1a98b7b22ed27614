//! Who takes a request: probes, tiers, the rest, and the name of the shortage when nobody does.
//!
//! Nothing is counted here; [`Cluster::begin`] does that with the answer.

use super::{Cluster, Tier};
use crate::limits::{PROBE_LEASE_MAX, PROBE_PATIENCE};
use crate::policy::attempt::{Ask, Shortage, Terms};
use crate::policy::balancer::Candidates;
use crate::policy::chance::{self, mix};
use crate::policy::standings::{Standing, coarse};
use crate::units::{EndpointId, Instant, Rng};
use rand::Rng as _;

impl Cluster {
    /// The endpoint of the request's session, if the balancer may choose it: a session is never a probe, and no ramp declines it.
    pub(super) fn pick_session(&self, ask: &Ask<'_>) -> Option<(EndpointId, Terms)> {
        let id = ask.session?;
        self.endpoints.get(id.index())?;
        let is_available = self.tier_of(id).available.binary_search(&id).is_ok();
        (is_available && self.has_room(id, ask)).then_some((id, Terms::Usual))
    }

    pub(super) fn pick_probe(&mut self, ask: &Ask<'_>, now: Instant) -> Option<(EndpointId, Terms)> {
        if self.ready.is_empty() || !ask.probes {
            return None;
        }
        // a strict backup is found out about when it is needed
        let last = if self.strict { self.shares.sole() } else { None };
        let suits = |id: &EndpointId| {
            let endpoint = &self.endpoints[id.index()];
            let Some(since) = endpoint.standing.ready_since(now) else { return false };
            let due = ask.expendable || self.available == 0 || now.since(since) >= PROBE_PATIENCE;
            let is_used = last.is_none_or(|last| usize::from(endpoint.tier) <= last);
            due && is_used && endpoint.healthy && endpoint.weight > 0 && self.has_room(*id, ask)
        };
        let id = self.ready.iter().copied().find(suits)?;
        let from = self.endpoints[id.index()].standing;
        let evidence = from.ejected_on()?;
        // one at a time asks an endpoint that is known to be dead, as a probe or as the last resort
        if !self.standings.claim(id, now) {
            return None;
        }
        let lease = coarse(ask.deadline.min(now + PROBE_LEASE_MAX));
        let begun = self.change(id, from, Standing::Probing { evidence, lease }, now);
        begun.then_some((id, Terms::Probe { lease }))
    }

    pub(super) fn pick(&mut self, ask: &Ask<'_>, now: Instant, rng: &mut Rng) -> Option<EndpointId> {
        if self.available == 0 {
            return None;
        }
        let key = if self.hashed { Self::key(ask, rng) } else { 0 };
        // a key has its own tier and its own coin, so that it keeps its endpoint while shares and ramps stay
        let mut bits = |salt: u64| if self.hashed { mix(key ^ salt) } else { rng.next_u64() };
        let drawn = self.shares.sole().or_else(|| self.shares.tier_of((bits(1) >> 48) as u16)).unwrap_or(0);
        let coin = (self.ramping > 0).then(|| chance::unit_of(bits(2)));
        let mut candidates = Candidates {
            endpoints: &self.endpoints,
            tried: ask.tried,
            refused: ask.refused,
            // who has failed once asks those first of whom nothing bad is known: others are not to be met one after the other
            reached: (!ask.tried.is_empty()).then_some(&self.standings),
            requests_max: self.requests_max,
            slow_start: self.slow_start,
            key,
            coin,
            now,
        };
        let chosen = choose(&mut self.tiers, drawn, &candidates, rng);
        if chosen.is_some() || candidates.reached.is_none() {
            return chosen;
        }
        candidates.reached = None;
        choose(&mut self.tiers, drawn, &candidates, rng)
    }

    /// What a request is spread by: its key, or without one a draw.
    fn key(ask: &Ask<'_>, rng: &mut Rng) -> u64 {
        ask.key.map_or_else(|| rng.next_u64(), mix)
    }

    /// No available endpoint takes the request: a shunned one, and if all of them have failed it, or are full, an endpoint that was put
    /// aside, those first at whom nobody has failed lately, and then soonest due first; then one that checks call down; the better tier first. Of equals one is drawn by weight, or, where a key
    /// is hashed, the key has its own: rendezvous hashing with weights (Schindelhauer and Schomaker 2005). O(n), and only then.
    pub(super) fn pick_rest(&mut self, ask: &Ask<'_>, now: Instant, rng: &mut Rng) -> Option<(EndpointId, Terms)> {
        let key = Self::key(ask, rng);
        let ids = || (0..self.endpoints.len()).map(EndpointId::from_index);
        let is_left = |id: &EndpointId| self.endpoints[id.index()].is_left();
        let distance = |id: &EndpointId| {
            let endpoint = &self.endpoints[id.index()];
            let uniform = chance::unit_of(mix(key ^ endpoint.identity));
            -(1.0 - uniform).ln() / f64::from(endpoint.weight.max(1))
        };
        let tier = |id: &EndpointId| self.endpoints[id.index()].tier;
        let shunned = ids().filter(|id| is_left(id) && self.has_room(*id, ask));
        let nearest = |a: &EndpointId, b: &EndpointId| distance(a).total_cmp(&distance(b));
        if let Some(id) = shunned.min_by(|a, b| tier(a).cmp(&tier(b)).then_with(|| nearest(a, b))) {
            return Some((id, Terms::Usual));
        }
        let rank = |id: &EndpointId| {
            let endpoint = &self.endpoints[id.index()];
            let paused = matches!(endpoint.standing, Standing::Paused { .. });
            let is_tired = !self.standings.has_rested(*id, now);
            (!endpoint.healthy, !paused, is_tired, endpoint.standing.changes_at(Instant::default()), endpoint.tier)
        };
        let in_order =
            |a: &EndpointId, b: &EndpointId| rank(a).cmp(&rank(b)).then_with(|| nearest(a, b)).then_with(|| a.cmp(b));
        let may_answer = |id: &EndpointId| {
            let endpoint = &self.endpoints[id.index()];
            endpoint.weight > 0 && !is_left(id) && self.has_room(*id, ask) && !self.standings.is_dead(*id, now)
        };
        let mut lost: Option<EndpointId> = None;
        loop {
            let is_next = |id: &EndpointId| lost.is_none_or(|lost| in_order(id, &lost).is_gt());
            let best = ids().filter(may_answer).filter(is_next).min_by(in_order)?;
            if self.standings.claim(best, now) {
                return Some((best, Terms::LastResort));
            }
            // somebody else has just begun to ask it
            lost = Some(best);
        }
    }

    fn has_room(&self, id: EndpointId, ask: &Ask<'_>) -> bool {
        let free = self.endpoints[id.index()].in_flight < self.requests_max;
        free && !ask.tried.contains(&id) && !ask.refused.contains(id)
    }

    pub(super) fn shortage(&self, ask: &Ask<'_>, now: Instant) -> Shortage {
        let ids = || (0..self.endpoints.len()).map(EndpointId::from_index);
        let untried = |id: &EndpointId| !ask.tried.contains(id);
        let is_full = |id: &EndpointId| !self.has_room(*id, ask);
        let is_left = |id: &EndpointId| self.endpoints[id.index()].is_left();
        let may_be_asked = |id: &EndpointId| is_left(id) || !self.standings.is_dead(*id, now);
        let mut positive = ids().filter(|id| self.endpoints[id.index()].weight > 0).peekable();
        if positive.peek().is_none() {
            Shortage::Nothing
        } else if positive.any(|id| untried(&id) && may_be_asked(&id) && is_full(&id)) {
            Shortage::Full
        } else {
            Shortage::Tried
        }
    }
}

/// One of the drawn tier, or else of the others, best first. Where ramps decline all of a tier, none declines.
fn choose(tiers: &mut [Tier], drawn: usize, candidates: &Candidates<'_>, rng: &mut Rng) -> Option<EndpointId> {
    let others = (0..tiers.len()).filter(|tier| *tier != drawn);
    for tier in std::iter::once(drawn).chain(others) {
        let Tier { available, strategy, .. } = &mut tiers[tier];
        if available.is_empty() {
            continue;
        }
        let mut chosen = strategy.choose(available, candidates, rng);
        if chosen.is_none() && candidates.coin.is_some() {
            chosen = strategy.choose(available, &Candidates { coin: None, ..*candidates }, rng);
        }
        if chosen.is_some() {
            return chosen;
        }
    }
    None
}
