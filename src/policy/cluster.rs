//! One cluster as one worker knows it: who may take a request, and what its outcome teaches.
//!
//! The cluster combines what the other pages know singly: the balancer of each tier, the spill between tiers, ejections and
//! their probes, ramps, penalties, health, the retry budget. A worker owns its clusters alone; nothing is shared or locked, and
//! workers learn separately (active health, which the control thread knows, is told to each by [`Cluster::set_health`]).
//!
//! An [`Attempt`] is the receipt for a request in flight: made by [`Cluster::begin`], consumed by [`Cluster::end`], never
//! copied, so nothing is counted twice. Time works lazily: the earliest moment at which time alone changes something is
//! remembered, and the first call after it looks through all endpoints; calls in between cost nothing for it.
//!
//! Order of [`Cluster::begin`]: an endpoint that waits for its probe; the drawn tier; the other tiers, best first; and only when no endpoint of
//! any tier is *available*, any endpoint at all (fail open). Whether to retry is not decided here but in [`crate::policy::exchange`].

mod pick;

use crate::config;
use crate::limits::{CHANGES_MAX, RETRY_AFTER_MAX, RTT_PENALTY, TIERS_MAX};
use crate::policy::attempt::{Ask, Attempt, Change, ChangeKind, Shortage, Terms};
use crate::policy::balancer::Strategy;
use crate::policy::balancer::rtt::Rtt;
use crate::policy::budget::Budget;
use crate::policy::chance::hash_key;
use crate::policy::endpoint::Endpoint;
use crate::policy::outlier::{Reason, Standing};
use crate::policy::tiers::Shares;
use crate::units::{EndpointId, Instant, Rng};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

#[derive(Debug)]
struct Tier {
    members: Vec<EndpointId>,
    /// Ascending.
    available: Vec<EndpointId>,
    strategy: Strategy,
    /// Members of positive weight.
    positive: u32,
    /// Of those, ejected and not readmitted.
    away: u32,
}

/// One cluster on one worker.
#[derive(Debug)]
pub struct Cluster {
    endpoints: Vec<Endpoint>,
    tiers: Vec<Tier>,
    shares: Shares,
    available: u32,
    /// Endpoints whose ejection is over and that nobody probes.
    ready: Vec<EndpointId>,
    ramping: u32,
    /// When time alone changes something next.
    next_change: Instant,
    /// The available sets are to be made anew.
    stale: bool,
    budget: Budget,
    outlier: Option<config::Outlier>,
    slow_start: Duration,
    connect_timeout: Duration,
    requests_max: u32,
    hashed: bool,
    changes: VecDeque<Change>,
}

impl Cluster {
    /// A cluster of which nothing is known yet; `workers` divide the floor of its retry budget. Hash tables are built here.
    #[must_use]
    pub fn new(config: &config::Cluster, workers: usize, rng: &mut Rng) -> Self {
        let mut priorities: Vec<u8> = config.endpoints.iter().map(|e| e.priority).collect();
        priorities.sort_unstable();
        priorities.dedup();
        let tier_of = |priority| priorities.partition_point(|p| *p < priority).min(TIERS_MAX - 1) as u8;
        let mut twins: HashMap<String, u64> = HashMap::new();
        let mut endpoint = |e: &config::Endpoint| {
            // the same address twice is two endpoints with two identities
            let twin = twins.entry(e.address.to_string()).and_modify(|n| *n += 1).or_insert(0);
            let identity = hash_key(e.address.to_string().as_bytes()).wrapping_add(*twin);
            Endpoint::new(e.weight.0, tier_of(e.priority), identity)
        };
        let endpoints: Vec<Endpoint> = config.endpoints.iter().map(&mut endpoint).collect();
        let tiers: Vec<Tier> = (0..priorities.len().min(TIERS_MAX))
            .map(|tier| Tier::new(tier, &config.balance, &endpoints, rng))
            .collect();
        Self {
            tiers,
            shares: Shares::new(std::iter::empty()),
            available: 0,
            ready: Vec::with_capacity(endpoints.len()),
            endpoints,
            ramping: 0,
            next_change: Instant::NEVER,
            stale: true,
            budget: Budget::new(&config.retry_budget, workers),
            outlier: config.outlier,
            slow_start: config.slow_start,
            connect_timeout: config.connect_timeout,
            requests_max: config.requests_max.unwrap_or(u32::MAX),
            hashed: matches!(config.balance, config::Balance::RingHash(_) | config::Balance::Maglev(_)),
            changes: VecDeque::new(),
        }
    }

    /// Takes over what `old` knew of the endpoints that both have, so that a reload forgets nothing. Requests in flight stay with
    /// the old cluster.
    pub fn inherit(&mut self, old: &Self, now: Instant) {
        let known: HashMap<u64, &Endpoint> = old.endpoints.iter().map(|e| (e.identity, e)).collect();
        for endpoint in &mut self.endpoints {
            if let Some(old) = known.get(&endpoint.identity) {
                let (weight, tier) = (endpoint.weight, endpoint.tier);
                *endpoint = Endpoint { weight, tier, in_flight: 0, started: 0, finished: 0, ..(*old).clone() };
                endpoint.outlier.cancel_probe(now); // a probe in flight is the old cluster's
                if self.outlier.is_none() && endpoint.outlier.standing() != Standing::Serving {
                    endpoint.outlier.readmit(now);
                }
            }
        }
        for tier in &mut self.tiers {
            let away = |id: &&EndpointId| {
                let endpoint = &self.endpoints[id.index()];
                endpoint.weight > 0 && endpoint.outlier.standing() != Standing::Serving
            };
            tier.away = tier.members.iter().filter(away).count() as u32;
        }
        self.sweep(now);
        self.stale = true;
    }

    /// What is known of each endpoint; ids are rows.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The retry budget.
    pub fn budget(&mut self) -> &mut Budget {
        &mut self.budget
    }

    /// Bound of the connect phase of an attempt.
    #[must_use]
    pub fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// Endpoints that are available at `now`, over all tiers.
    pub fn available(&mut self, now: Instant) -> usize {
        self.refresh(now);
        self.available as usize
    }

    /// Takes what happened since the last call, oldest first.
    pub fn take_changes(&mut self) -> impl Iterator<Item = Change> + '_ {
        self.changes.drain(..)
    }

    /// Active checks changed their mind about an endpoint. One that becomes healthy is also readmitted if it was ejected, and ramps up.
    pub fn set_health(&mut self, id: EndpointId, healthy: bool, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(id.index()) else { return };
        if endpoint.healthy == healthy {
            return;
        }
        endpoint.healthy = healthy;
        self.stale = true;
        self.note(id, now, if healthy { ChangeKind::Healthy } else { ChangeKind::Unhealthy });
        if !healthy {
            self.end_ramp(id);
        } else if self.endpoints[id.index()].outlier.standing() == Standing::Serving {
            self.endpoints[id.index()].rtt = Rtt::UNKNOWN;
            self.begin_ramp(id, now);
        } else {
            self.readmit(id, now);
        }
    }

    /// An active probe of an endpoint ended; counts for its availability only.
    pub fn on_probe(&mut self, id: EndpointId, passed: bool, now: Instant) {
        if let Some(endpoint) = self.endpoints.get_mut(id.index()) {
            endpoint.availability.on_outcome(passed, now);
        }
    }

    /// Chooses an endpoint and counts an attempt on it as in flight.
    ///
    /// # Errors
    /// [`Shortage`] when nobody takes the request.
    pub fn begin(&mut self, ask: &Ask<'_>, now: Instant, rng: &mut Rng) -> Result<Attempt, Shortage> {
        self.refresh(now);
        let (endpoint, terms) = if let Some(probe) = self.pick_probe(ask, now) {
            probe
        } else if self.available > 0 {
            (self.pick(ask, now, rng).ok_or_else(|| self.shortage(ask, now))?, Terms::Usual)
        } else {
            (self.pick_any(ask, rng).ok_or_else(|| self.shortage(ask, now))?, Terms::FailOpen)
        };
        let chosen = &mut self.endpoints[endpoint.index()];
        chosen.in_flight += 1;
        chosen.started += 1;
        Ok(Attempt { endpoint, terms, began: now })
    }

    /// Whether a request that tried `tried` could meet an endpoint it does not know, fail-open rules included. Saturation is not
    /// looked at.
    pub fn has_other(&mut self, tried: &[EndpointId], now: Instant) -> bool {
        self.refresh(now);
        let open = self.available == 0;
        let counts = |e: &Endpoint| if open { e.weight > 0 } else { e.is_available(now) };
        let all = if open { self.tiers.iter().map(|t| t.positive).sum() } else { self.available };
        let distinct = |i: usize| !tried[..i].contains(&tried[i]);
        let known = (0..tried.len()).filter(|i| distinct(*i) && counts(&self.endpoints[tried[*i].index()])).count();
        all as usize > known
    }

    /// A response head came that is not a failure: the endpoint answers. A probe has succeeded with it.
    pub fn on_answer(&mut self, attempt: &Attempt, now: Instant) {
        let endpoint = &mut self.endpoints[attempt.endpoint.index()];
        endpoint.rtt.on_sample(now.since(attempt.began), now);
        if attempt.terms != Terms::Usual && endpoint.outlier.standing() != Standing::Serving {
            self.readmit(attempt.endpoint, now);
        }
    }

    /// The attempt succeeded as a whole.
    pub fn on_success(&mut self, attempt: &Attempt, now: Instant) {
        let endpoint = &mut self.endpoints[attempt.endpoint.index()];
        endpoint.availability.on_outcome(true, now);
        if let Some(rules) = &self.outlier {
            endpoint.outlier.on_success(attempt.began, now, rules);
        }
    }

    /// The endpoint answered 429: alive, but it wants less. Counts against its availability and round trip, not towards ejection.
    pub fn on_throttled(&mut self, attempt: &Attempt, now: Instant) {
        let endpoint = &mut self.endpoints[attempt.endpoint.index()];
        endpoint.availability.on_outcome(false, now);
        endpoint.rtt.on_sample(now.since(attempt.began).max(RTT_PENALTY), now);
    }

    /// The attempt failed by the endpoint's fault. May eject it.
    pub fn on_failure(&mut self, attempt: &Attempt, now: Instant, rng: &mut Rng) {
        let id = attempt.endpoint;
        let endpoint = &mut self.endpoints[id.index()];
        endpoint.availability.on_outcome(false, now);
        endpoint.rtt.on_sample(now.since(attempt.began).max(RTT_PENALTY), now);
        let Some(rules) = self.outlier else { return };
        match (attempt.terms, endpoint.outlier.standing()) {
            (Terms::Probe { .. }, Standing::Ready { .. }) => self.eject(id, Reason::Probe, &rules, now, rng),
            (Terms::Probe { lease: own }, Standing::Probing { lease }) if own == lease => {
                self.eject(id, Reason::Probe, &rules, now, rng);
            }
            _ => {
                let reason = endpoint.outlier.on_failure(attempt.began, now, &rules);
                if let Some(reason) = reason
                    && self.may_eject(id, now)
                {
                    self.eject(id, reason, &rules, now, rng);
                }
            }
        }
    }

    /// The attempt was given up without telling anything about the endpoint but that it takes at least this long.
    pub fn on_given_up(&mut self, attempt: &Attempt, now: Instant) {
        self.endpoints[attempt.endpoint.index()].rtt.on_given_up(now.since(attempt.began), now);
    }

    /// The endpoint asked (Retry-After) for no requests for `time`, of which at most [`RETRY_AFTER_MAX`] is granted.
    pub fn penalise(&mut self, id: EndpointId, time: Duration, now: Instant) {
        let until = now + time.min(RETRY_AFTER_MAX);
        let endpoint = &mut self.endpoints[id.index()];
        if until > now && until > endpoint.penalised_until {
            let begins = endpoint.penalised_until <= now;
            endpoint.penalised_until = until;
            self.next_change = self.next_change.min(until);
            self.stale = true;
            if begins {
                self.note(id, now, ChangeKind::Paused { until });
            }
        }
    }

    /// The attempt was not made after all: as if it had never begun.
    pub fn undo(&mut self, attempt: Attempt, now: Instant) {
        let endpoint = &mut self.endpoints[attempt.endpoint.index()];
        endpoint.started -= 1;
        endpoint.in_flight -= 1;
        self.free_probe(&attempt, now);
    }

    /// The attempt is over: no longer in flight. A probe that told nothing frees its slot.
    pub fn end(&mut self, attempt: Attempt, now: Instant) {
        let endpoint = &mut self.endpoints[attempt.endpoint.index()];
        debug_assert!(endpoint.in_flight > 0, "an attempt ends once");
        endpoint.in_flight -= 1;
        endpoint.finished += 1;
        self.free_probe(&attempt, now);
    }

    fn free_probe(&mut self, attempt: &Attempt, now: Instant) {
        let detector = &mut self.endpoints[attempt.endpoint.index()].outlier;
        if let Terms::Probe { lease } = attempt.terms
            && detector.standing() == (Standing::Probing { lease })
        {
            detector.cancel_probe(now);
            self.ready.push(attempt.endpoint);
        }
    }

    /// At most half of a tier (but one at least) may be away, and never its last available endpoint.
    fn may_eject(&mut self, id: EndpointId, now: Instant) -> bool {
        self.refresh(now);
        let endpoint = &self.endpoints[id.index()];
        let tier = &self.tiers[usize::from(endpoint.tier)];
        let others = tier.available.len().saturating_sub(usize::from(endpoint.is_available(now)));
        others > 0 && tier.away < (tier.positive / 2).max(1)
    }

    fn eject(&mut self, id: EndpointId, reason: Reason, rules: &config::Outlier, now: Instant, rng: &mut Rng) {
        let endpoint = &mut self.endpoints[id.index()];
        if endpoint.outlier.standing() == Standing::Serving {
            self.tiers[usize::from(endpoint.tier)].away += 1;
        }
        let until = endpoint.outlier.eject(now, rules, rng);
        self.ready.retain(|ready| *ready != id);
        self.end_ramp(id);
        self.next_change = self.next_change.min(until);
        self.stale = true;
        self.note(id, now, ChangeKind::Ejected { reason, until });
    }

    fn readmit(&mut self, id: EndpointId, now: Instant) {
        let endpoint = &mut self.endpoints[id.index()];
        endpoint.outlier.readmit(now);
        // the round trip of an endpoint that came back is unknown, and its old penalty would keep it from being asked
        endpoint.rtt = Rtt::UNKNOWN;
        let tier = &mut self.tiers[usize::from(endpoint.tier)];
        tier.away = tier.away.saturating_sub(u32::from(endpoint.weight > 0));
        self.ready.retain(|ready| *ready != id);
        self.begin_ramp(id, now);
        self.stale = true;
        self.note(id, now, ChangeKind::Readmitted);
    }

    fn begin_ramp(&mut self, id: EndpointId, now: Instant) {
        if self.slow_start > Duration::ZERO {
            let ramp = &mut self.endpoints[id.index()].ramp_from;
            self.ramping += u32::from(ramp.is_none());
            *ramp = Some(now);
            self.next_change = self.next_change.min(now + self.slow_start);
        }
    }

    fn end_ramp(&mut self, id: EndpointId) {
        let ramp = self.endpoints[id.index()].ramp_from.take();
        self.ramping -= u32::from(ramp.is_some());
    }

    fn note(&mut self, endpoint: EndpointId, at: Instant, kind: ChangeKind) {
        if self.changes.len() == CHANGES_MAX {
            self.changes.pop_front();
        }
        self.changes.push_back(Change { endpoint, at, kind });
    }

    /// Brings everything that is kept beside the endpoints up to `now`.
    fn refresh(&mut self, now: Instant) {
        if now >= self.next_change {
            self.sweep(now);
        }
        if !self.stale {
            return;
        }
        self.stale = false;
        for tier in &mut self.tiers {
            let available = tier.members.iter().filter(|id| self.endpoints[id.index()].is_available(now));
            tier.available.clear();
            tier.available.extend(available);
            tier.strategy.rebuild(&tier.available, &self.endpoints);
        }
        self.shares = Shares::new(self.tiers.iter().map(|t| (t.available.len(), t.positive as usize)));
        self.available = self.tiers.iter().map(|t| t.available.len() as u32).sum();
    }

    /// Lets time pass for every endpoint.
    fn sweep(&mut self, now: Instant) {
        self.ready.clear();
        (self.next_change, self.ramping) = (Instant::NEVER, 0);
        for (i, endpoint) in self.endpoints.iter_mut().enumerate() {
            self.next_change = self.next_change.min(endpoint.outlier.on_time(now));
            if let Standing::Ready { .. } = endpoint.outlier.standing() {
                self.ready.push(EndpointId::from_index(i));
            }
            if endpoint.penalised_until > now {
                self.next_change = self.next_change.min(endpoint.penalised_until);
            }
            if let Some(from) = endpoint.ramp_from {
                let over = from + self.slow_start;
                if over <= now {
                    endpoint.ramp_from = None;
                } else {
                    self.ramping += 1;
                    self.next_change = self.next_change.min(over);
                }
            }
        }
        self.stale = true;
    }
}

impl Tier {
    fn new(tier: usize, balance: &config::Balance, endpoints: &[Endpoint], rng: &mut Rng) -> Self {
        let of_tier = |i: &usize| usize::from(endpoints[*i].tier) == tier;
        let members: Vec<_> = (0..endpoints.len()).filter(of_tier).map(EndpointId::from_index).collect();
        let positive = members.iter().filter(|id| endpoints[id.index()].weight > 0).count() as u32;
        let strategy = Strategy::new(balance, &members, endpoints, rng);
        Self { available: Vec::with_capacity(members.len()), members, strategy, positive, away: 0 }
    }
}

#[cfg(test)]
mod tests;
