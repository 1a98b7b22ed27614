//! The rules of a cluster, one test each.

mod evidence;
mod reload;
mod sessions;

use super::*;
use crate::config::{Balance, HashKey};
use crate::limits::PROOFS;
use crate::policy::balancer::testing::assert_shares;
use crate::policy::outlier::{Evidence, Reason};
use crate::policy::standings::coarse;
use crate::policy::testing::{at, cluster as config};
use crate::policy::visited::Visited;
use crate::units::Weight;
use rand::SeedableRng;

struct World {
    cluster: Cluster,
    rng: Rng,
    /// Where the next requests' session is.
    session: Option<EndpointId>,
}

impl World {
    fn new(config: &config::Cluster, seed: u64) -> Self {
        Self::workers(config, seed, 1).remove(0)
    }

    /// Several workers of one gateway.
    fn workers(config: &config::Cluster, seed: u64, n: u64) -> Vec<Self> {
        Self::of(&Common::new(config, n as usize), config, seed, n)
    }

    /// The same with what they share.
    fn of(common: &Common, config: &config::Cluster, seed: u64, n: u64) -> Vec<Self> {
        let one = |seed: u64| {
            let mut rng = Rng::seed_from_u64(seed);
            Self { cluster: Cluster::new(config, common, &mut rng), rng, session: None }
        };
        (0..n).map(|worker| one(seed + 1_000 * worker)).collect()
    }

    fn begin(&mut self, tried: &[u32], now: Instant) -> Result<Attempt, Shortage> {
        self.ask(tried, true, None, now)
    }

    fn ask(&mut self, tried: &[u32], expendable: bool, key: Option<u64>, now: Instant) -> Result<Attempt, Shortage> {
        let tried: Vec<EndpointId> = tried.iter().map(|id| EndpointId(*id as u16)).collect();
        let deadline = now + Duration::from_secs(2);
        let (refused, session) = (&Visited::EMPTY, self.session);
        let ask = Ask { tried: &tried, refused, session, key, probes: tried.is_empty(), expendable, deadline };
        self.cluster.begin(&ask, now, &mut self.rng)
    }

    /// One request that ends at once, well or not; where it went.
    fn request(&mut self, works: impl Fn(u32) -> bool, now: Instant) -> u32 {
        let attempt = self.begin(&[], now).expect("one takes it");
        let id = u32::from(attempt.endpoint.0);
        self.conclude(attempt, works(id), now);
        id
    }

    fn conclude(&mut self, attempt: Attempt, works: bool, now: Instant) {
        if works {
            self.cluster.on_answer(&attempt, now);
            self.cluster.on_success(&attempt, now);
        } else {
            self.cluster.on_failure(&attempt, Evidence::Soft, now, &mut self.rng);
        }
        self.cluster.end(attempt, now);
    }

    fn fail_all(&mut self, requests: u32) {
        for _ in 0..requests {
            self.request(|_| false, at(0));
        }
    }

    fn below(&mut self, n: usize) -> usize {
        crate::policy::chance::below(&mut self.rng, n)
    }

    /// Fails `id` until it is ejected; until when.
    fn eject(&mut self, id: u32, now: Instant) -> Instant {
        for _ in 0..10_000 {
            self.request(|i| i != id, now);
            if let Some(until) = self.ejected_until(id) {
                return until;
            }
        }
        panic!("{id} was never ejected");
    }

    fn ejected_until(&self, id: u32) -> Option<Instant> {
        match self.standing(id) {
            Standing::Ejected { due, .. } => Some(due),
            _ => None,
        }
    }

    fn standing(&self, id: u32) -> Standing {
        self.cluster.standings.get(EndpointId(id as u16))
    }

    /// What a request meets that cannot be sent to any of `dead`: the dead ones, then who takes it, if anybody does.
    fn walk(&mut self, dead: &[u32], now: Instant) -> (Vec<u32>, Option<u32>) {
        let mut met = Vec::new();
        while let Ok(attempt) = self.begin(&met, now) {
            let id = u32::from(attempt.endpoint.0);
            if !dead.contains(&id) {
                self.cluster.on_connected(attempt.endpoint, now);
                self.conclude(attempt, true, now);
                return (met, Some(id));
            }
            self.cluster.on_failure(&attempt, Evidence::Hard, now, &mut self.rng);
            self.cluster.end(attempt, now);
            met.push(id);
        }
        (met, None)
    }

    fn counts(&mut self, requests: u32, now: Instant) -> Vec<u32> {
        let mut counts = vec![0; self.cluster.endpoints().len()];
        (0..requests).for_each(|_| counts[self.request(|_| true, now) as usize] += 1);
        counts
    }
}

#[test]
fn of_two_endpoints_the_failing_one_is_ejected_and_gets_nothing_more() {
    for (seed, balance) in [Balance::Random, Balance::RoundRobin, Balance::Weighted].iter().enumerate() {
        let mut world = World::new(&config(balance.clone(), &[0, 0]), seed as u64);
        let until = world.eject(1, at(0));
        assert!(until > at(8_999) && until <= at(10_000));
        assert_eq!(world.counts(100, at(5_000)), [100, 0]);
        let changes: Vec<_> = world.cluster.take_changes().map(|c| (c.endpoint.0, c.kind)).collect();
        let [(1, ChangeKind::Ejected { reason: Reason::Consecutive, evidence: Evidence::Soft, until: told })] =
            changes[..]
        else {
            panic!("{changes:?}")
        };
        assert_eq!(coarse(told), until);
        assert_eq!(world.cluster.take_changes().count(), 0);
    }
}

#[test]
fn soft_evidence_never_ejects_the_last_endpoint_and_at_most_half_of_all() {
    for n in [1usize, 2, 3, 4, 7, 10] {
        let mut world = World::new(&config(Balance::RoundRobin, &vec![0; n]), 90 + n as u64);
        world.fail_all(1_000);
        let away = (0..n).filter(|i| world.ejected_until(*i as u32).is_some()).count();
        let expected = if n == 1 { 0 } else { (n / 2).max(1) };
        assert_eq!(away, expected, "of {n}");
        assert_eq!(world.cluster.available(at(0)), n - expected, "the shunned ones, because nobody else is left");
        let shunned = (0..n).filter(|i| matches!(world.standing(*i as u32), Standing::Shunned { .. })).count();
        assert_eq!(shunned, n - expected);
    }
}

#[test]
fn after_an_ejection_exactly_one_request_probes_and_success_readmits() {
    let mut world = World::new(&config(Balance::RoundRobin, &[0, 0, 0]), 101);
    let until = world.eject(2, at(0));
    let probe = world.begin(&[], until).unwrap();
    assert_eq!(probe.endpoint, EndpointId(2));
    assert!(matches!(probe.terms, Terms::Probe { .. }));
    for _ in 0..20 {
        assert_ne!(world.request(|_| true, until), 2, "the slot is taken");
    }
    world.conclude(probe, true, until);
    assert_eq!(world.cluster.endpoints()[2].ramp_from, Some(until));
    assert_eq!(
        world.cluster.take_changes().last().map(|c| c.kind),
        Some(ChangeKind::Readmitted { by: Readmission::Probe })
    );
    let full = until + Duration::from_secs(10);
    assert_eq!(world.counts(300, full), [100, 100, 100]);
}

#[test]
fn a_failed_probe_is_the_same_fault_going_on_and_ejects_for_no_longer() {
    let mut world = World::new(&config(Balance::RoundRobin, &[0, 0]), 102);
    let until = world.eject(1, at(0));
    assert_eq!(world.request(|i| i != 1, until), 1);
    let again = world.ejected_until(1).expect("ejected again").since(until).as_secs_f64();
    assert!((9.0..=10.0).contains(&again), "{again}");
    let last = world.cluster.take_changes().last().map(|c| c.kind);
    assert!(matches!(last, Some(ChangeKind::Ejected { reason: Reason::Probe, .. })));
}

#[test]
fn a_probe_whose_request_vanishes_frees_its_slot() {
    let mut world = World::new(&config(Balance::RoundRobin, &[0, 0]), 103);
    let until = world.eject(1, at(0));
    let gone = world.begin(&[], until).unwrap();
    world.cluster.end(gone, until);
    let forgotten = world.begin(&[], until).unwrap();
    assert_eq!(forgotten.endpoint, EndpointId(1), "the next request probes");
    let lease = until + Duration::from_secs(2);
    assert_eq!(world.request(|_| true, lease - Duration::from_millis(1)), 0);
    let lease = coarse(lease) + Duration::from_nanos(8);
    let next = world.begin(&[], lease).unwrap();
    assert_eq!(next.endpoint, EndpointId(1), "the lease of a request that never ended is over");
    world.cluster.end(forgotten, lease);
    assert_eq!(world.request(|_| true, lease), 0, "a late end does not free the slot of another probe");
    world.conclude(next, true, lease);
}

#[test]
fn a_request_that_cannot_be_retried_probes_only_when_no_other_came_for_a_second() {
    let mut world = World::new(&config(Balance::RoundRobin, &[0, 0]), 104);
    let until = world.eject(1, at(0));
    let attempt = world.ask(&[], false, None, until).unwrap();
    assert_eq!(attempt.endpoint, EndpointId(0));
    world.conclude(attempt, true, until);
    let later = until + Duration::from_secs(1);
    let attempt = world.ask(&[], false, None, later).unwrap();
    assert_eq!(attempt.endpoint, EndpointId(1));
    world.conclude(attempt, true, later);
}

#[test]
fn a_readmitted_endpoint_ramps_up_under_every_strategy() {
    let strategies = [
        Balance::Random,
        Balance::RoundRobin,
        Balance::Weighted,
        Balance::LeastRequest,
        Balance::RingHash(HashKey::Path),
        Balance::Maglev(HashKey::Path),
    ];
    for balance in strategies {
        let mut config = config(balance.clone(), &[0, 0, 0, 0]);
        config.slow_start = Duration::from_secs(1_000);
        let mut world = World::new(&config, 105);
        world.cluster.set_health(EndpointId(2), false, at(0));
        assert_eq!(world.counts(1_000, at(0))[2], 0, "{balance:?}");
        world.cluster.set_health(EndpointId(2), true, at(1_000));
        let shares: Vec<f64> = [1_000, 250_000, 500_000, 999_000]
            .map(|now| f64::from(world.counts(10_000, at(now))[2]) / 10_000.0)
            .to_vec();
        assert!(
            shares.is_sorted() && shares[0] < 0.06 && shares[0] > 0.01 && shares[3] > 0.18,
            "{balance:?} {shares:?}"
        );
    }
}

#[test]
fn nothing_ramps_at_the_start_or_without_slow_start() {
    let mut config = config(Balance::Weighted, &[0, 0]);
    assert_eq!(World::new(&config, 106).counts(100, at(0)), [50, 50]);
    config.slow_start = Duration::ZERO;
    let mut world = World::new(&config, 106);
    world.cluster.set_health(EndpointId(0), false, at(0));
    world.cluster.set_health(EndpointId(0), true, at(1));
    assert_eq!(world.counts(100, at(1)), [50, 50]);
}

#[test]
fn an_unhealthy_endpoint_is_away_until_it_is_healthy_and_that_ends_an_ejection_too() {
    let mut world = World::new(&config(Balance::RoundRobin, &[0, 0]), 107);
    world.eject(1, at(0));
    world.cluster.set_health(EndpointId(1), false, at(1));
    assert_eq!(world.counts(50, at(60_000)), [50, 0], "no probe goes to an unhealthy endpoint");
    world.cluster.set_health(EndpointId(1), true, at(60_000));
    world.cluster.set_health(EndpointId(1), true, at(60_001));
    assert_eq!(world.counts(100, at(80_000)), [50, 50]);
    let kinds: Vec<_> = world.cluster.take_changes().map(|c| c.kind).skip(1).collect();
    let by = Readmission::HealthCheck;
    assert_eq!(kinds, [ChangeKind::Unhealthy, ChangeKind::Healthy, ChangeKind::Readmitted { by }]);
    assert_eq!(world.cluster.standings.soft(), 0);
}

#[test]
fn load_spills_to_the_next_tier_in_proportion_to_lost_health() {
    let mut world = World::new(&config(Balance::RoundRobin, &[0, 0, 0, 0, 5, 5]), 108);
    let tier_counts = |world: &mut World| {
        let counts = world.counts(20_000, at(0));
        [counts[..4].iter().sum::<u32>(), counts[4..].iter().sum::<u32>()]
    };
    assert_eq!(tier_counts(&mut world), [20_000, 0]);
    world.cluster.set_health(EndpointId(0), false, at(0));
    assert_eq!(tier_counts(&mut world), [20_000, 0], "1.4 × 3/4 is more than the whole");
    world.cluster.set_health(EndpointId(1), false, at(0));
    assert_shares(&tier_counts(&mut world), &[0.7, 0.3]);
    [2, 3].iter().for_each(|id| world.cluster.set_health(EndpointId(*id), false, at(0)));
    assert_eq!(tier_counts(&mut world), [0, 20_000]);
}

#[test]
fn a_key_keeps_its_endpoint_while_load_spills() {
    let mut world = World::new(&config(Balance::Maglev(HashKey::Path), &[0, 0, 1, 1]), 109);
    world.cluster.set_health(EndpointId(0), false, at(0));
    let mut tiers = [0; 2];
    for key in 0..200 {
        let mut ids = (0..3).map(|_| {
            let attempt = world.ask(&[], true, Some(key), at(0)).unwrap();
            let id = attempt.endpoint;
            world.conclude(attempt, true, at(0));
            id
        });
        let first = ids.next().unwrap();
        assert!(ids.all(|id| id == first));
        tiers[usize::from(first.0 >= 2)] += 1;
    }
    assert!(tiers[0] > 100 && tiers[1] > 30, "{tiers:?}");
}

#[test]
fn a_retry_walks_through_the_tiers_before_it_repeats() {
    let mut world = World::new(&config(Balance::LeastRequest, &[0, 0, 1, 2]), 110);
    let mut tried = Vec::new();
    for expected_tier in [0, 0, 1, 2] {
        let attempt = world.begin(&tried, at(0)).unwrap();
        let id = u32::from(attempt.endpoint.0);
        assert_eq!(world.cluster.endpoints()[id as usize].tier, expected_tier);
        tried.push(id);
        world.conclude(attempt, true, at(0));
    }
    assert_eq!(world.begin(&tried, at(0)).unwrap_err(), Shortage::Tried);
}

#[test]
fn the_cluster_fails_open_only_when_no_endpoint_of_any_tier_is_available() {
    let mut world = World::new(&config(Balance::RoundRobin, &[0, 0, 1]), 111);
    [0, 1].iter().for_each(|id| world.cluster.set_health(EndpointId(*id), false, at(0)));
    assert_eq!(world.counts(20, at(0)), [0, 0, 20]);
    world.cluster.set_health(EndpointId(2), false, at(0));
    let attempt = world.begin(&[], at(0)).unwrap();
    assert_eq!(attempt.terms, Terms::LastResort);
    assert!(attempt.endpoint.0 < 2, "the better tier first");
    world.conclude(attempt, true, at(0));
    assert_eq!(world.begin(&[0, 1, 2], at(0)).unwrap_err(), Shortage::Tried);
}

#[test]
fn failing_open_prefers_an_endpoint_that_only_asked_for_a_pause() {
    let mut world = World::new(&config(Balance::RoundRobin, &[0, 0, 0, 0]), 112);
    world.eject(0, at(0));
    world.cluster.pause(EndpointId(2), Duration::from_secs(5), at(0));
    [1, 3].iter().for_each(|id| world.cluster.set_health(EndpointId(*id), false, at(0)));
    assert_eq!(world.cluster.available(at(0)), 0);
    assert_eq!(world.begin(&[], at(0)).unwrap().endpoint, EndpointId(2));
    assert_eq!(world.begin(&[2], at(0)).unwrap().endpoint, EndpointId(0), "then one that is ejected");
    let last = world.begin(&[2, 0], at(0)).unwrap();
    assert!([1, 3].contains(&last.endpoint.0) && last.terms == Terms::LastResort, "then those that are called down");
    let (probe, request) = (world.begin(&[2, 0, 1], at(0)).unwrap(), at(1));
    world.conclude(probe, true, request);
    world.conclude(last, true, request);
    assert_eq!(world.cluster.available(request), 0, "which a success does not change: the checks decide");
}

#[test]
fn retry_after_keeps_traffic_away_for_as_long_as_it_says_and_no_longer_than_the_limit() {
    let mut world = World::new(&config(Balance::RoundRobin, &[0, 0]), 114);
    world.cluster.pause(EndpointId(1), Duration::from_secs(2), at(0));
    world.cluster.pause(EndpointId(1), Duration::from_secs(3), at(0));
    world.cluster.pause(EndpointId(1), Duration::from_secs(1), at(0));
    let told: Vec<_> = world.cluster.take_changes().map(|change| (change.endpoint, change.kind)).collect();
    assert_eq!(told, [(EndpointId(1), ChangeKind::Paused { until: at(2_000) })], "a pause is told when it begins");
    assert_eq!(world.counts(10, at(2_999)), [10, 0]);
    assert_eq!(world.counts(10, at(3_000)), [5, 5]);
    world.cluster.pause(EndpointId(1), Duration::MAX, at(3_000));
    assert_eq!(world.counts(10, at(32_999)), [10, 0]);
    assert_eq!(world.counts(10, at(33_000)), [5, 5], "retry_after_max");
    world.cluster.pause(EndpointId(1), Duration::from_secs(9), at(40_000));
    world.cluster.pause(EndpointId(0), Duration::from_secs(9), at(40_000));
    assert_eq!(world.counts(10, at(40_001)), [10, 0], "the last one is not paused, whatever it wants");
    let mut config = config(Balance::RoundRobin, &[0, 0]);
    config.retry_after_max = Duration::ZERO;
    let mut deaf = World::new(&config, 114);
    deaf.cluster.pause(EndpointId(1), Duration::from_secs(2), at(0));
    assert_eq!(deaf.counts(10, at(0)), [5, 5]);
}

#[test]
fn full_and_drained_endpoints_get_nothing_and_the_shortage_has_a_name() {
    let mut config = config(Balance::LeastRequest, &[0, 0, 0]);
    config.requests_max = Some(1);
    config.endpoints[1].weight = Weight(0);
    let mut world = World::new(&config, 115);
    let held: Vec<Attempt> = (0..2).map(|_| world.begin(&[], at(0)).unwrap()).collect();
    let ids: Vec<u16> = held.iter().map(|a| a.endpoint.0).collect();
    assert!(ids.contains(&0) && ids.contains(&2));
    assert_eq!(world.begin(&[], at(0)).unwrap_err(), Shortage::Full);
    assert_eq!(world.begin(&[0], at(0)).unwrap_err(), Shortage::Full);
    assert_eq!(world.begin(&[0, 2], at(0)).unwrap_err(), Shortage::Tried);
    held.into_iter().for_each(|attempt| world.conclude(attempt, true, at(1)));
    assert!(world.begin(&[], at(1)).is_ok());
    config.endpoints.iter_mut().for_each(|e| e.weight = Weight(0));
    assert_eq!(World::new(&config, 116).begin(&[], at(0)).unwrap_err(), Shortage::Nothing);
}

#[test]
fn weight_zero_drains_under_every_strategy() {
    let strategies = [
        Balance::Random,
        Balance::RoundRobin,
        Balance::Weighted,
        Balance::LeastRequest,
        Balance::PeakEwma,
        Balance::RingHash(HashKey::Path),
        Balance::Maglev(HashKey::Path),
    ];
    for balance in strategies {
        let mut config = config(balance, &[0, 0, 0]);
        config.endpoints[0].weight = Weight(0);
        let counts = World::new(&config, 117).counts(600, at(0));
        assert!(counts[0] == 0 && counts[1] > 200 && counts[2] > 200, "{:?} {counts:?}", config.balance);
    }
}

#[test]
fn other_endpoints_are_those_that_the_request_has_not_met() {
    let mut world = World::new(&config(Balance::RoundRobin, &[0, 0, 1]), 119);
    let ids = |ids: &[u16]| ids.iter().map(|i| EndpointId(*i)).collect::<Vec<_>>();
    assert!(world.cluster.has_other(&ids(&[0, 1, 1, 0]), at(0)));
    assert!(!world.cluster.has_other(&ids(&[0, 1, 2]), at(0)));
    world.cluster.set_health(EndpointId(2), false, at(0));
    assert!(world.cluster.has_other(&ids(&[0, 1]), at(0)), "the last resort");
    world.cluster.standings.set_dead(EndpointId(2), at(0), at(0));
    assert!(!world.cluster.has_other(&ids(&[0, 1]), at(1)), "which is known to be dead");
    assert!(world.cluster.has_other(&ids(&[2, 1]), at(1)));
}

#[test]
fn changes_nobody_takes_are_bounded() {
    let mut world = World::new(&config(Balance::RoundRobin, &[0, 0]), 122);
    (0..2_000).for_each(|i| world.cluster.set_health(EndpointId(0), i % 2 == 1, at(i)));
    assert_eq!(world.cluster.take_changes().count(), CHANGES_MAX);
}

#[test]
fn a_timeless_storm_of_failures_and_probes_keeps_every_count_consistent() {
    let mut world = World::new(&config(Balance::LeastRequest, &[0, 0, 0, 1, 1]), 123);
    let mut held: Vec<Attempt> = Vec::new();
    for i in 0..20_000u64 {
        let now = at(i * 7);
        if world.below(3) > 0 {
            held.extend(world.begin(&[], now));
        }
        if held.len() > 20 || world.below(2) == 0 {
            let pick = world.below(held.len().max(1));
            if pick < held.len() {
                let attempt = held.swap_remove(pick);
                let works = world.below(3) > 0;
                world.conclude(attempt, works, now);
            }
        }
        let endpoints = world.cluster.endpoints();
        assert_eq!(endpoints.iter().map(|e| e.in_flight as usize).sum::<usize>(), held.len());
        let soft = (0..5).filter(|id| world.standing(*id).is_soft()).count();
        assert_eq!(soft, world.cluster.standings.soft() as usize);
        assert!(soft <= 2, "half of five");
        world.cluster.check_invariants();
    }
    assert!(world.cluster.take_changes().count() > 10);
}
