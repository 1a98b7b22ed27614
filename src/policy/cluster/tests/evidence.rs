//! What evidence may do, what workers learn together, and how endpoints come back.

use super::*;

#[test]
fn hard_evidence_takes_out_any_number_to_the_last_and_with_it() {
    let mut world = World::new(&config(Balance::RoundRobin, &[0, 0, 0, 1]), 130);
    for _ in 0..5 {
        assert_eq!(world.walk(&[0, 1, 2, 3], at(0)).1, None);
    }
    assert!((0..4).all(|id| world.standing(id).is_hard()));
    assert_eq!(world.cluster.available(at(0)), 0);
}

#[test]
fn two_dead_of_three_fail_nobody_and_cost_little() {
    for (seed, balance) in
        [Balance::Random, Balance::RoundRobin, Balance::Weighted, Balance::LeastRequest, Balance::PeakEwma]
            .into_iter()
            .enumerate()
    {
        let mut world = World::new(&config(balance.clone(), &[0, 0, 0]), 140 + seed as u64);
        let mut refusals = 0;
        for i in 0..1_000 {
            let (met, served) = world.walk(&[0, 2], at(i));
            assert_eq!(served, Some(1), "{balance:?}");
            refusals += met.len();
        }
        assert!((2..=10).contains(&refusals), "{balance:?}: five each at most, {refusals}");
    }
}

#[test]
fn workers_learn_together() {
    let mut workers = World::workers(&config(Balance::RoundRobin, &[0, 0]), 150, 16);
    let mut refusals = 0;
    for i in 0..320 {
        let (met, served) = workers[i % 16].walk(&[0], at(i as u64));
        assert_eq!(served, Some(1));
        refusals += met.len();
    }
    assert_eq!(refusals, 5, "over all of them");
    let told: usize = workers.iter_mut().map(|worker| worker.cluster.take_changes().count()).sum();
    assert_eq!(told, 1, "one tells it");
    // one probes for all, and all see what came of it
    let due = workers[3].ejected_until(0).unwrap();
    let probe = workers[3].begin(&[], due).unwrap();
    assert_eq!(probe.endpoint, EndpointId(0));
    assert!(workers.iter_mut().skip(4).all(|worker| worker.request(|_| true, due) == 1));
    workers[3].conclude(probe, true, due);
    let full = due + Duration::from_secs(10);
    assert!(workers.iter_mut().all(|worker| worker.counts(20, full) == [10, 10]));
}

#[test]
fn a_dead_primary_tier_sends_everybody_to_its_backup() {
    let mut world = World::new(&config(Balance::LeastRequest, &[0, 1]), 151);
    let met: usize = (0..400)
        .map(|i| world.walk(&[0], at(i)))
        .map(|(met, served)| {
            assert_eq!(served, Some(1));
            met.len()
        })
        .sum();
    assert_eq!(met, 5);
}

#[test]
fn an_ejected_endpoint_that_is_back_serves_when_the_other_one_goes() {
    let mut world = World::new(&config(Balance::RoundRobin, &[0, 0]), 152);
    (0..50).for_each(|i| assert_eq!(world.walk(&[0], at(i)).1, Some(1)));
    assert!(world.standing(0).is_hard());
    for i in 100..200 {
        assert_eq!(world.walk(&[1], at(i)).1, Some(0), "the ejection is a hint");
    }
    assert_eq!(world.standing(0), Standing::Serving);
}

#[test]
fn a_full_outage_costs_ten_attempts_a_second_and_its_end_is_seen_in_a_tenth_of_one() {
    let mut world = World::new(&config(Balance::LeastRequest, &[0, 0]), 153);
    let mut attempts = 0;
    for i in 0..50_000u64 {
        let now = Instant::from_nanos(i * 200_000);
        let (met, served) = world.walk(&[0, 1], now);
        assert_eq!(served, None);
        attempts += met.len();
    }
    assert!((150..=230).contains(&attempts), "{attempts} in ten seconds at two endpoints");
    let end = at(10_000);
    let first = (0..).map(|i| end + Duration::from_micros(200 * i)).find(|now| world.walk(&[], *now).1.is_some());
    assert!(first.is_some_and(|first| first.since(end) <= Duration::from_millis(100)), "{first:?}");
    let later = first.unwrap() + Duration::from_millis(1);
    assert!((0..100).all(|i| world.walk(&[], later + Duration::from_millis(i)).1.is_some()));
}

#[test]
fn who_relapses_must_prove_more_but_comes_back_quickly_when_it_is_well() {
    let mut config = config(Balance::RoundRobin, &[0, 0]);
    config.outlier.as_mut().unwrap().eject = Duration::from_secs(3);
    config.slow_start = Duration::from_secs(3);
    let mut world = World::new(&config, 154);
    // a fault of 25 seconds, in which one of two answers every second request badly
    for turn in 0..25_000 {
        world.request(|id| id == 0 || turn % 2 == 0 || turn % 3 == 0, at(turn));
    }
    let counts = world.counts(200, at(25_000 + 3_100));
    assert!(counts[1] > 0, "its proofs are made: {counts:?} {:?}", world.standing(1));
    assert_eq!(world.counts(100, at(25_000 + 9_000)), [50, 50], "two ramps and an ejection later");
}

#[test]
fn a_relapse_is_brought_back_by_a_row_of_probes_before_its_doubled_time() {
    let mut world = World::new(&config(Balance::RoundRobin, &[0, 0]), 155);
    let first = world.eject(1, at(0));
    while world.standing(1) != Standing::Serving {
        world.request(|_| true, first);
    }
    let relapse = first + Duration::from_secs(1);
    let due = world.eject(1, relapse);
    assert!(due.since(relapse) <= Duration::from_secs(10));
    assert!(world.cluster.standings.whole(EndpointId(1)).since(relapse) > Duration::from_secs(15));
    let probes = (0..100).filter(|_| matches!(world.request(|_| true, due), 1)).count();
    assert!(probes >= PROOFS as usize, "{probes}");
    assert_eq!(world.standing(1), Standing::Serving);
}

#[test]
fn a_shunned_endpoint_is_asked_only_when_nobody_else_is_left() {
    let mut world = World::new(&config(Balance::RoundRobin, &[0, 0, 0]), 156);
    // two of three fail softly: one is ejected, the other shunned
    for _ in 0..200 {
        world.request(|id| id == 0, at(0));
    }
    let soft = [1, 2].map(|id| world.standing(id).is_soft());
    assert_eq!(soft.iter().filter(|is| **is).count(), 1, "{soft:?}");
    assert_eq!(world.counts(100, at(1)), [100, 0, 0]);
    let shunned = if soft[0] { 2 } else { 1 };
    assert_eq!(world.begin(&[0], at(1)).unwrap().endpoint, EndpointId(shunned), "for who has met the other one");
    let kinds: Vec<_> = world.cluster.take_changes().map(|change| change.kind).collect();
    assert!(kinds.iter().any(|kind| matches!(kind, ChangeKind::EjectionRefused { reason: Reason::Consecutive })));
    assert!(kinds.iter().any(|kind| matches!(kind, ChangeKind::Shunned { .. })));
}

#[test]
fn a_shunned_endpoint_that_answers_well_is_shunned_no_more() {
    let mut world = World::new(&config(Balance::RoundRobin, &[0]), 157);
    world.fail_all(20);
    assert!(matches!(world.standing(0), Standing::Shunned { .. }));
    (0..500).for_each(|i| assert_eq!(world.request(|_| true, at(i)), 0));
    assert!(matches!(world.standing(0), Standing::Shunned { .. }), "who comes back at once would come and go");
    assert_eq!(world.request(|_| true, at(1_000)), 0);
    assert_eq!(world.standing(0), Standing::Serving);
    let last = world.cluster.take_changes().last().map(|change| change.kind);
    assert_eq!(last, Some(ChangeKind::Readmitted { by: Readmission::Answers }));
}

#[test]
fn a_full_outage_of_answers_does_not_make_one_endpoint_carry_all_when_it_ends() {
    let mut world = World::new(&config(Balance::RoundRobin, &[0, 0, 0]), 158);
    for i in 0..1_000 {
        world.request(|_| false, at(i));
    }
    let now = at(20_000);
    let shares = world.counts(3_000, now);
    assert!(shares.iter().filter(|share| **share > 500).count() >= 2, "{shares:?}");
}

#[test]
fn one_bad_moment_under_peak_ewma_costs_no_more_than_a_ramp() {
    let mut world = World::new(&config(Balance::PeakEwma, &[0, 0, 0]), 159);
    let mut served = [0; 3];
    let mut failed = false;
    for i in 0..2_000u64 {
        let now = at(i * 10);
        let attempt = world.begin(&[], now).unwrap();
        let id = usize::from(attempt.endpoint.0);
        let works = failed || id != 1 || i < 100;
        failed |= !works;
        served[id] += u32::from(i > 1_200);
        world.conclude(attempt, works, now + Duration::from_millis(1));
    }
    assert!(failed && served[1] > 150, "{served:?}");
}

#[test]
fn a_strict_cluster_uses_a_lower_tier_only_when_nobody_is_left_above() {
    let mut config = config(Balance::RoundRobin, &[0, 0, 0, 0, 5]);
    config.spill = config::Spill::None;
    let mut world = World::new(&config, 160);
    [0, 1, 2].iter().for_each(|id| world.cluster.set_health(EndpointId(*id), false, at(0)));
    assert_eq!(world.counts(100, at(0)), [0, 0, 0, 100, 0]);
    world.cluster.set_health(EndpointId(3), false, at(0));
    assert_eq!(world.counts(100, at(0)), [0, 0, 0, 0, 100]);
}

#[test]
fn without_outlier_detection_nothing_is_ejected() {
    let mut config = config(Balance::RoundRobin, &[0, 0]);
    config.outlier = None;
    let mut world = World::new(&config, 118);
    world.fail_all(200);
    assert_eq!(world.cluster.available(at(0)), 2);
}

#[test]
fn success_while_failing_open_readmits_an_ejected_endpoint() {
    let mut world = World::new(&config(Balance::RoundRobin, &[0, 0]), 113);
    world.eject(0, at(0));
    world.cluster.set_health(EndpointId(1), false, at(1));
    assert_eq!(world.request(|_| true, at(2)), 0);
    assert_eq!(world.standing(0), Standing::Serving);
    let last = world.cluster.take_changes().last().map(|change| change.kind);
    assert_eq!(last, Some(ChangeKind::Readmitted { by: Readmission::LastResort }));
    assert_eq!(world.cluster.available(at(2)), 1);
}

#[test]
fn who_has_failed_once_asks_those_first_of_whom_nothing_bad_is_known() {
    for seed in 0..50 {
        let mut workers = World::workers(&config(Balance::LeastRequest, &[0; 20]), 160 + seed, 4);
        let dead: Vec<u32> = (0..20).filter(|id| *id != 7).collect();
        // the first request may meet all of them
        assert_eq!(workers[0].walk(&dead, at(0)).1, Some(7));
        let known = |world: &World| {
            dead.iter().filter(|id| world.cluster.standings.is_unreached(EndpointId(**id as u16))).count()
        };
        for i in 1..200 {
            let world = &mut workers[i % 4];
            let unknown = dead.len() - known(world);
            let (met, served) = world.walk(&dead, at(i as u64));
            assert_eq!(served, Some(7));
            assert!(met.len() <= unknown + 1, "seed {seed}: {} met, {unknown} unknown", met.len());
        }
        workers[1].cluster.on_connected(EndpointId(3), at(300));
        assert!(!workers[0].cluster.standings.is_unreached(EndpointId(3)), "one connection suffices");
    }
}

#[test]
fn where_checks_call_everybody_down_weights_and_keys_still_count() {
    let down = |balance, seed| {
        let mut config = config(balance, &[0, 0, 1]);
        config.endpoints[0].weight = Weight(300);
        let mut world = World::new(&config, seed);
        (0..3).for_each(|id| world.cluster.set_health(EndpointId(id), false, at(0)));
        world
    };
    let mut world = down(Balance::LeastRequest, 170);
    let mut counts = [0; 3];
    for _ in 0..4_000 {
        let attempt = world.begin(&[], at(1)).unwrap();
        assert_eq!(attempt.terms, Terms::LastResort);
        counts[attempt.endpoint.index()] += 1;
        world.conclude(attempt, true, at(1));
    }
    assert_eq!(counts[2], 0, "the better tier first");
    assert_shares(&counts[..2], &[0.75, 0.25]);
    let mut world = down(Balance::Maglev(HashKey::ClientIp), 171);
    let mut first = std::collections::HashMap::new();
    for turn in 0..600u64 {
        let attempt = world.ask(&[], true, Some(turn % 100), at(1)).unwrap();
        let place = *first.entry(turn % 100).or_insert(attempt.endpoint);
        assert_eq!(attempt.endpoint, place, "key {}", turn % 100);
        world.conclude(attempt, true, at(1));
    }
    let on_first = first.values().filter(|id| id.0 == 0).count();
    assert!((60..=90).contains(&on_first), "{on_first} of 100 keys");
}

#[test]
fn a_worker_that_begins_later_knows_what_checks_have_found() {
    let config = config(Balance::RoundRobin, &[0, 0]);
    let common = Common::new(&config, 1);
    common.standings.set_healthy(EndpointId(1), false);
    let mut rng = Rng::seed_from_u64(172);
    let mut world = World { cluster: Cluster::new(&config, &common, &mut rng), rng, session: None };
    assert_eq!(world.counts(10, at(0)), [10, 0]);
    common.standings.set_healthy(EndpointId(1), true);
    world.cluster.set_health(EndpointId(1), true, at(1));
    assert_eq!(world.counts(10, at(60_000)), [5, 5]);
}
