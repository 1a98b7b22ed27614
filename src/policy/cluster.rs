//! One cluster as one worker knows it: who may take a request, and what its outcome teaches.
//!
//! The cluster combines what the other pages know singly: the balancer of each tier, the spill between tiers, ejections and
//! their probes, ramps, pauses, health, the retry budget. Where an endpoint stands all workers know together
//! ([`crate::policy::standings`]), and the budget is one account for all ([`crate::policy::budget`]); what is measured per request
//! (in flight, round trips, availability, turns) each worker has for itself. Active health, which the control thread knows, is told to
//! each by [`Cluster::set_health`].
//!
//! An [`Attempt`] is the receipt for a request in flight: made by [`Cluster::begin`], consumed by [`Cluster::end`], never
//! copied, so nothing is counted twice. Time works lazily: the earliest moment at which time alone changes something is
//! remembered, and the first call after it, or after another worker's change, looks through all endpoints; calls in between cost one
//! look at the version of the standings.
//!
//! # Who takes a request, in this order
//!
//! 1. The one that its session has met, while that is available, whatever its tier and load.
//! 2. An endpoint that waits for its probe, if a failure could be mended.
//! 3. The available ones: the drawn tier, then the others, best first.
//! 4. The shunned ones. Where nobody is available they are the available ones, and the balancer chooses among them.
//! 5. When all of those have failed this request, or there are none: *the last resort*. The paused and the ejected, soonest due first,
//!    then those that checks call down. An ejection is a hint about whom to ask first, and no reason to fail a request.
//!    Endpoints that are freshly dead are left out.
//!
//! A request that has failed once leaves out, as long as there are others, whoever could not be reached by the last one who tried: with
//! nineteen of twenty endpoints dead it goes on to the twentieth, and does not meet the nineteen in a row.
//!
//! # What evidence may do
//!
//! Hard evidence (nobody could be reached there) takes out any endpoint, to the last and with it. Soft evidence (it answered, badly; or
//! not in time) takes out at most half of what is left, and never the last of the cluster, over all tiers: it may be the requests that
//! are bad, or the service as a whole. What cannot be ejected for that is *shunned*. Pauses count like soft ejections.
//!
//! Whether to retry is not decided here but in [`crate::policy::exchange`].

mod estate;
mod learn;
mod pick;
mod refresh;

use crate::config;
use crate::limits::{CHANGES_MAX, TIERS_MAX};
use crate::policy::attempt::{Ask, Attempt, Change, ChangeKind, Readmission, Shortage, Terms};
use crate::policy::balancer::Strategy;
use crate::policy::balancer::rtt::Rtt;
use crate::policy::budget::{Account, Budget};
use crate::policy::chance::hash_key;
use crate::policy::endpoint::Endpoint;
use crate::policy::standings::{Standing, Standings};
use crate::policy::tiers::Shares;
use crate::units::{EndpointId, Instant, Rng};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// What all workers share of one cluster.
#[derive(Clone, Debug)]
pub struct Common {
    /// Where its endpoints stand.
    pub standings: Arc<Standings>,
    /// What its traffic has paid for retries.
    pub account: Arc<Account>,
    workers: usize,
}

impl Common {
    /// Of a cluster of which nothing is known yet, for so many workers.
    #[must_use]
    pub fn new(config: &config::Cluster, workers: usize) -> Self {
        Self {
            standings: Arc::new(Standings::new(config.endpoints.len())),
            account: Arc::new(Account::new(&config.retry_budget)),
            workers,
        }
    }

    /// The same cluster as `config` has it now, which was `old`: where endpoints stand that both have, and the retry budget if it is the
    /// same. Where even the endpoints are, all of it goes on.
    #[must_use]
    pub fn succeed(&self, old: &config::Cluster, config: &config::Cluster) -> Self {
        let account = match old.retry_budget == config.retry_budget {
            true => Arc::clone(&self.account),
            false => Arc::new(Account::new(&config.retry_budget)),
        };
        let (before, now) = (identities(old), identities(config));
        if before == now && old.outlier.is_some() == config.outlier.is_some() {
            return Self { standings: Arc::clone(&self.standings), account, workers: self.workers };
        }
        let standings = Standings::new(config.endpoints.len());
        for (row, identity) in now.iter().enumerate() {
            if let Some(old_row) = before.iter().position(|known| known == identity) {
                let (id, old_id) = (EndpointId::from_index(row), EndpointId::from_index(old_row));
                standings.set_healthy(id, self.standings.is_healthy(old_id));
                if config.outlier.is_some() {
                    standings.inherit(id, &self.standings, old_id);
                }
            }
        }
        Self { standings: Arc::new(standings), account, workers: self.workers }
    }
}

/// What each endpoint is known by: its name and its address, and the same once more is another one.
fn identities(config: &config::Cluster) -> Vec<u64> {
    let mut twins: HashMap<String, u64> = HashMap::new();
    let identity = |e: &config::Endpoint| {
        let address = e.identity();
        let hash = hash_key(address.as_bytes());
        let twin = twins.entry(address).and_modify(|n| *n += 1).or_insert(0);
        hash.wrapping_add(*twin)
    };
    config.endpoints.iter().map(identity).collect()
}

#[derive(Debug)]
struct Tier {
    members: Vec<EndpointId>,
    /// Ascending.
    available: Vec<EndpointId>,
    strategy: Strategy,
    /// Members of positive weight.
    positive: u32,
}

/// One cluster on one worker.
#[derive(Debug)]
pub struct Cluster {
    endpoints: Vec<Endpoint>,
    tiers: Vec<Tier>,
    shares: Shares,
    available: u32,
    standings: Arc<Standings>,
    /// The version of the standings that the endpoints' copies are of; `None`: of none.
    seen: Option<u64>,
    /// Endpoints whose ejection is over and that nobody probes.
    ready: Vec<EndpointId>,
    ramping: u32,
    /// When time alone changes something next.
    next_change: Instant,
    /// The available sets are to be made anew.
    stale: bool,
    budget: Budget,
    workers: usize,
    /// Attempts in flight, over all endpoints.
    in_flight: usize,
    outlier: Option<config::Outlier>,
    slow_start: Duration,
    connect_timeout: Duration,
    pause_max: Duration,
    requests_max: u32,
    hashed: bool,
    strict: bool,
    changes: VecDeque<Change>,
}

impl Cluster {
    /// A cluster as a worker finds it that begins. Hash tables are built here.
    #[must_use]
    pub fn new(config: &config::Cluster, common: &Common, rng: &mut Rng) -> Self {
        let mut priorities: Vec<u8> = config.endpoints.iter().map(|e| e.priority).collect();
        priorities.sort_unstable();
        priorities.dedup();
        let tier_of = |priority| priorities.partition_point(|p| *p < priority).min(TIERS_MAX - 1) as u8;
        let endpoint =
            |(e, identity): (&config::Endpoint, u64)| Endpoint::new(e.weight.0, tier_of(e.priority), identity);
        let mut endpoints: Vec<Endpoint> = config.endpoints.iter().zip(identities(config)).map(endpoint).collect();
        for (row, endpoint) in endpoints.iter_mut().enumerate() {
            // one that takes another worker's place hears of changes only
            endpoint.healthy = common.standings.is_healthy(EndpointId::from_index(row));
        }
        let tiers: Vec<Tier> = (0..priorities.len().min(TIERS_MAX))
            .map(|tier| Tier::new(tier, &config.balance, &endpoints, rng))
            .collect();
        Self {
            tiers,
            shares: Shares::new(std::iter::empty(), true),
            available: 0,
            standings: Arc::clone(&common.standings),
            seen: None,
            ready: Vec::with_capacity(endpoints.len()),
            endpoints,
            ramping: 0,
            next_change: Instant::NEVER,
            stale: true,
            budget: Budget::new(Arc::clone(&common.account)),
            workers: common.workers.max(1),
            in_flight: 0,
            outlier: config.outlier,
            slow_start: config.slow_start,
            connect_timeout: config.connect_timeout,
            pause_max: config.retry_after_max,
            requests_max: config.requests_max.unwrap_or(u32::MAX),
            hashed: matches!(config.balance, config::Balance::RingHash(_) | config::Balance::Maglev(_)),
            strict: config.spill == config::Spill::None,
            changes: VecDeque::new(),
        }
    }

    /// Takes over what this worker knew of the endpoints that both have, so that a reload forgets nothing; where they stand
    /// [`Common::succeed`] has taken over. One that is new beside others begins with a ramp. Requests in flight stay with the old cluster.
    pub fn inherit(&mut self, old: &Self, now: Instant) {
        let known: HashMap<u64, usize> = old.endpoints.iter().enumerate().map(|(row, e)| (e.identity, row)).collect();
        // the first ones have nobody beside whom they would be cold
        let ramps = !old.endpoints.is_empty() && self.slow_start > Duration::ZERO;
        for (row, endpoint) in self.endpoints.iter_mut().enumerate() {
            let Some(old_row) = known.get(&endpoint.identity) else {
                endpoint.ramp_from = ramps.then_some(now);
                continue;
            };
            let (weight, tier, from) = (endpoint.weight, endpoint.tier, &old.endpoints[*old_row]);
            *endpoint = Endpoint { weight, tier, in_flight: 0, started: 0, finished: 0, ..from.clone() };
            endpoint.ramp_from = endpoint.ramp_from.filter(|_| self.slow_start > Duration::ZERO);
            endpoint.healthy = self.standings.is_healthy(EndpointId::from_index(row));
        }
        self.ramping = self.endpoints.iter().filter(|e| e.ramp_from.is_some()).count() as u32;
        (self.seen, self.stale) = (None, true);
        self.refresh(now);
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

    /// Endpoints that are available at `now`, over all tiers; where none is, those that are shunned.
    pub fn available(&mut self, now: Instant) -> usize {
        self.refresh(now);
        self.available as usize
    }

    /// Whether anything happened since changes were taken last.
    #[inline]
    #[must_use]
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Takes what happened since the last call, oldest first. Each change is told by one worker.
    pub fn take_changes(&mut self) -> impl Iterator<Item = Change> + '_ {
        self.changes.drain(..)
    }

    /// Active checks changed their mind about an endpoint. One that becomes healthy is also readmitted if it was ejected, and ramps up.
    pub fn set_health(&mut self, id: EndpointId, healthy: bool, now: Instant) {
        self.refresh(now);
        let Some(endpoint) = self.endpoints.get_mut(id.index()) else { return };
        if endpoint.healthy == healthy {
            return;
        }
        endpoint.healthy = healthy;
        self.stale = true;
        self.note(id, now, if healthy { ChangeKind::Healthy } else { ChangeKind::Unhealthy });
        if !healthy {
            self.end_ramp(id);
            return;
        }
        self.standings.revive(id, now);
        if self.endpoints[id.index()].standing.ejected_on().is_some() {
            self.readmit(id, Readmission::HealthCheck, now);
        } else {
            self.endpoints[id.index()].rtt = Rtt::UNKNOWN;
            self.begin_ramp(id, now);
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
        let picked = self
            .pick_session(ask)
            .or_else(|| self.pick_probe(ask, now))
            .or_else(|| self.pick(ask, now, rng).map(|id| (id, Terms::Usual)))
            .or_else(|| self.pick_rest(ask, now, rng));
        let Some((endpoint, terms)) = picked else { return Err(self.shortage(ask, now)) };
        let chosen = &mut self.endpoints[endpoint.index()];
        chosen.in_flight += 1;
        chosen.started += 1;
        self.in_flight += 1;
        Ok(Attempt { endpoint, terms, began: now })
    }

    /// Whether a request that tried `tried` could meet an endpoint that it does not know and that is not known to be dead; one that was put
    /// aside is the last resort. Saturation is not looked at.
    pub fn has_other(&mut self, tried: &[EndpointId], now: Instant) -> bool {
        if self.endpoints.len() == 1 && !tried.is_empty() {
            return false;
        }
        self.refresh(now);
        if self.available as usize > tried.len() {
            return true;
        }
        let distinct = |i: usize| !tried[..i].contains(&tried[i]);
        let counts = |i: usize| self.tier_of(tried[i]).available.binary_search(&tried[i]).is_ok();
        let known = (0..tried.len()).filter(|i| distinct(*i) && counts(*i)).count();
        if self.available as usize > known {
            return true;
        }
        let ids = (0..self.endpoints.len()).map(EndpointId::from_index);
        let may = |id: &EndpointId| self.endpoints[id.index()].weight > 0 && !self.standings.is_dead(*id, now);
        ids.filter(may).any(|id| !tried.contains(&id))
    }

    /// Whether the budget would cover a retry of everything that is in flight. Only then an attempt may be cut short: when the whole service
    /// slows down all of them run out of time together, and one that was cut and cannot be made again has failed by our impatience
    /// alone. Other workers are taken to have as much in flight as this one, but for the one or two that tell nothing about others.
    pub fn affords_cuts(&mut self, now: Instant) -> bool {
        let elsewhere = self.in_flight.saturating_sub(2).saturating_mul(self.workers - 1);
        self.budget.covers(1 + self.in_flight + elsewhere, now)
    }

    /// Whether a retry is worth making for a request that has `tried` these: somebody serves well, or somebody is put aside at whom nobody has
    /// failed lately, and who may be well again. When all are failing, a retry only adds to their load: then one is made now and then
    /// ([`Standings::claim_retry`]), and finds out when that is over.
    pub fn is_promising(&mut self, tried: &[EndpointId], now: Instant) -> bool {
        self.refresh(now);
        let may_serve = |(row, endpoint): (usize, &Endpoint)| {
            let id = EndpointId::from_index(row);
            endpoint.may_be_well() && !tried.contains(&id) && self.standings.has_rested(id, now)
        };
        self.endpoints.iter().any(Endpoint::is_available) || self.endpoints.iter().enumerate().any(may_serve)
    }

    /// What this cluster's workers share.
    pub(super) fn standings(&self) -> &Standings {
        &self.standings
    }

    /// Whether an endpoint may still be there though it could not be reached: nobody has put it aside yet.
    pub fn has_hope(&mut self, now: Instant) -> bool {
        self.refresh(now);
        self.endpoints.iter().any(Endpoint::is_left)
    }

    /// The attempt was not made after all: as if it had never begun.
    pub fn undo(&mut self, attempt: Attempt, now: Instant) {
        let endpoint = &mut self.endpoints[attempt.endpoint.index()];
        endpoint.started -= 1;
        endpoint.in_flight -= 1;
        self.in_flight -= 1;
        self.free_probe(&attempt, now);
    }

    /// The attempt is over: no longer in flight. A probe that told nothing frees its slot.
    pub fn end(&mut self, attempt: Attempt, now: Instant) {
        let endpoint = &mut self.endpoints[attempt.endpoint.index()];
        debug_assert!(endpoint.in_flight > 0, "an attempt ends once");
        endpoint.in_flight -= 1;
        endpoint.finished += 1;
        self.in_flight -= 1;
        self.free_probe(&attempt, now);
    }

    fn free_probe(&mut self, attempt: &Attempt, now: Instant) {
        let Terms::Probe { lease } = attempt.terms else { return };
        let id = attempt.endpoint;
        if let from @ Standing::Probing { evidence, lease: holds } = self.standings.get(id)
            && holds == lease
        {
            self.change(id, from, Standing::Ejected { evidence, due: now }, now);
        }
    }

    /// Brings an endpoint back, if it is away. With the first one that comes back where all others were shunned, these are not: they were
    /// compared with nobody.
    fn readmit(&mut self, id: EndpointId, by: Readmission, now: Instant) {
        let from = self.standings.get(id);
        if from == Standing::Serving {
            return;
        }
        let alone = !self.endpoints.iter().any(Endpoint::is_available);
        let ramps = self.slow_start > Duration::ZERO && !matches!(from, Standing::Paused { .. });
        if self.standings.readmit(id, from, now, ramps) {
            self.note(id, now, ChangeKind::Readmitted { by });
        }
        if alone {
            let shunned = (0..self.endpoints.len()).map(EndpointId::from_index);
            for other in shunned {
                if let from @ Standing::Shunned { .. } = self.standings.get(other)
                    && self.standings.readmit(other, from, now, false)
                {
                    self.note(other, now, ChangeKind::Readmitted { by: Readmission::Answers });
                }
            }
        }
        self.refresh(now);
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

    fn tier_of(&self, id: EndpointId) -> &Tier {
        &self.tiers[usize::from(self.endpoints[id.index()].tier)]
    }

    /// Asserts what must hold whatever has happened; for tests and debug builds.
    ///
    /// # Panics
    /// When it does not.
    pub fn check_invariants(&self) {
        for endpoint in &self.endpoints {
            assert_eq!(endpoint.started, endpoint.finished + u64::from(endpoint.in_flight));
        }
        assert_eq!(self.in_flight, self.endpoints.iter().map(|e| e.in_flight as usize).sum::<usize>());
        let soft = self.endpoints.iter().filter(|e| e.standing.is_soft()).count();
        if self.seen == Some(self.standings.version()) && !self.stale {
            assert!(soft <= self.standings.soft() as usize, "who is away softly is counted");
            let ramping = self.endpoints.iter().filter(|e| e.ramp_from.is_some()).count();
            assert_eq!(ramping, self.ramping as usize);
        }
        assert!(self.tiers.iter().all(|tier| tier.available.is_sorted()));
    }
}

impl Tier {
    fn new(tier: usize, balance: &config::Balance, endpoints: &[Endpoint], rng: &mut Rng) -> Self {
        let of_tier = |i: &usize| usize::from(endpoints[*i].tier) == tier;
        let members: Vec<_> = (0..endpoints.len()).filter(of_tier).map(EndpointId::from_index).collect();
        let positive = members.iter().filter(|id| endpoints[id.index()].weight > 0).count() as u32;
        let strategy = Strategy::new(balance, &members, endpoints, rng);
        Self { available: Vec::with_capacity(members.len()), members, strategy, positive }
    }
}

#[cfg(test)]
mod tests;
