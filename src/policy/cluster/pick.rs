//! Who takes a request: probes, tiers, failing open, and the name of the shortage when nobody does.
//!
//! Nothing is counted here; [`Cluster::begin`] does that with the answer.

use super::{Cluster, Tier};
use crate::limits::{PROBE_LEASE_MAX, PROBE_PATIENCE};
use crate::policy::attempt::{Ask, Shortage, Terms};
use crate::policy::balancer::Candidates;
use crate::policy::chance::{self, mix};
use crate::policy::endpoint::Endpoint;
use crate::policy::outlier::Standing;
use crate::units::{EndpointId, Instant, Rng};
use rand::Rng as _;

impl Cluster {
    pub(super) fn pick_probe(&mut self, ask: &Ask<'_>, now: Instant) -> Option<(EndpointId, Terms)> {
        let suits = |id: &EndpointId| {
            let endpoint = &self.endpoints[id.index()];
            let Standing::Ready { since } = endpoint.outlier.standing() else { return false };
            let due = ask.expendable || self.available == 0 || now.since(since) >= PROBE_PATIENCE;
            due && endpoint.healthy
                && endpoint.weight > 0
                && endpoint.penalised_until <= now
                && endpoint.in_flight < self.requests_max
                && !ask.tried.contains(id)
                && !ask.refused.contains(*id)
        };
        let position = self.ready.iter().position(suits)?;
        let id = self.ready.swap_remove(position);
        let lease = ask.deadline.min(now + PROBE_LEASE_MAX);
        self.endpoints[id.index()].outlier.begin_probe(lease);
        self.next_change = self.next_change.min(lease);
        Some((id, Terms::Probe { lease }))
    }

    pub(super) fn pick(&mut self, ask: &Ask<'_>, now: Instant, rng: &mut Rng) -> Option<EndpointId> {
        let key = match (self.hashed, ask.key) {
            (true, Some(key)) => mix(key),
            (true, None) => rng.next_u64(),
            (false, _) => 0,
        };
        // a key has its own tier and its own coin, so that it keeps its endpoint while shares and ramps stay
        let mut bits = |salt: u64| if self.hashed { mix(key ^ salt) } else { rng.next_u64() };
        let drawn = self.shares.sole().or_else(|| self.shares.tier_of((bits(1) >> 48) as u16)).unwrap_or(0);
        let coin = (self.ramping > 0).then(|| chance::unit_of(bits(2)));
        let mut candidates = Candidates {
            endpoints: &self.endpoints,
            tried: ask.tried,
            refused: ask.refused,
            requests_max: self.requests_max,
            slow_start: self.slow_start,
            key,
            coin,
            now,
        };
        let others = (0..self.tiers.len()).filter(|tier| *tier != drawn);
        for tier in std::iter::once(drawn).chain(others) {
            let Tier { available, strategy, .. } = &mut self.tiers[tier];
            if available.is_empty() {
                continue;
            }
            candidates.coin = coin;
            let mut chosen = strategy.choose(available, &candidates, rng);
            if chosen.is_none() && coin.is_some() {
                candidates.coin = None;
                chosen = strategy.choose(available, &candidates, rng);
            }
            if chosen.is_some() {
                return chosen;
            }
        }
        None
    }

    /// Nobody is available: an endpoint that only asked for a pause, else one that was ejected, else one that checks call
    /// unhealthy; the better tier first, a random one of equals. O(n), and only then.
    pub(super) fn pick_any(&self, ask: &Ask<'_>, rng: &mut Rng) -> Option<EndpointId> {
        let (n, from) = (self.endpoints.len(), chance::below(rng, self.endpoints.len()));
        let takes = |i: &usize| {
            let (id, endpoint) = (EndpointId::from_index(*i), &self.endpoints[*i]);
            endpoint.weight > 0
                && endpoint.in_flight < self.requests_max
                && !ask.tried.contains(&id)
                && !ask.refused.contains(id)
        };
        let rank = |i: &usize| {
            let endpoint = &self.endpoints[*i];
            (!endpoint.healthy, endpoint.outlier.standing() != Standing::Serving, endpoint.tier)
        };
        (0..n).map(|i| (from + i) % n).filter(takes).min_by_key(rank).map(EndpointId::from_index)
    }

    pub(super) fn shortage(&self, ask: &Ask<'_>, now: Instant) -> Shortage {
        let open = self.available == 0;
        let counts = |e: &Endpoint| if open { e.weight > 0 } else { e.is_available(now) };
        let mut eligible = (0..self.endpoints.len()).filter(|i| counts(&self.endpoints[*i])).peekable();
        if eligible.peek().is_none() {
            Shortage::Nothing
        } else if eligible.all(|i| ask.tried.contains(&EndpointId::from_index(i))) {
            Shortage::Tried
        } else {
            Shortage::Full
        }
    }
}
