//! Tests of the token bucket: never above the limit in any window, and close below it, on virtual and on real threads.

use super::*;
use crate::units::Rng;
use rand::{RngExt as _, SeedableRng as _};
use std::sync::Barrier;

const SECOND: u64 = 1_000_000_000;

fn per_second(count: u64) -> Rate {
    Rate::try_new(count, Duration::from_secs(1)).unwrap()
}

fn at(nanos: u64) -> Instant {
    Instant::from_nanos(nanos)
}

/// Checks *every* window between two admissions: n of them need n ≤ burst + width / interval.
fn assert_no_window_exceeds(mut admitted: Vec<u64>, rate: Rate, burst: u64, note: &str) {
    admitted.sort_unstable();
    let interval = i128::from(rate.interval_nanos());
    let mut lowest = i128::MAX;
    for (index, &time) in admitted.iter().enumerate() {
        let (index, time) = (index as i128, i128::from(time));
        lowest = lowest.min(index * interval - time);
        let over = (index + 1) * interval - time - i128::from(burst) * interval - lowest;
        assert!(over <= 0, "{note}: a window that ends with admission {index} at {time} ns is over by {over} ns");
    }
}

#[test]
fn the_window_check_finds_one_admission_too_many() {
    let check = |times: &[u64]| {
        let times = times.to_vec();
        std::panic::catch_unwind(|| assert_no_window_exceeds(times, per_second(1), 2, "")).is_ok()
    };
    assert!(check(&[0, 0, SECOND, 2 * SECOND]));
    assert!(!check(&[0, 0, SECOND - 1]));
    assert!(!check(&[0, 5 * SECOND, 5 * SECOND, 5 * SECOND]));
}

#[test]
fn a_full_bucket_admits_its_burst_at_once_and_then_one_request_per_interval() {
    let reservoir = Reservoir::new(per_second(10), 3, 1);
    let mut lease = Lease::new();
    let mut passed = |now| lease.take(&reservoir, at(now)).admits();
    let start = 7 * SECOND;
    assert_eq!([start; 4].map(&mut passed), [true, true, true, false]);
    assert!(!passed(start + SECOND / 10 - 1));
    assert!(passed(start + SECOND / 10));
    assert!(!passed(start + SECOND / 10));
    assert_eq!(
        [start + SECOND; 4].map(&mut passed),
        [true, true, true, false],
        "idle time fills it up to the burst, not beyond"
    );
}

#[test]
fn a_rejection_says_to_the_nanosecond_when_a_request_would_pass() {
    for seed in 0..64 {
        let mut rng = Rng::seed_from_u64(seed);
        let reservoir = Reservoir::new(per_second(rng.random_range(1..2_000)), rng.random_range(1..50), 1);
        let mut lease = Lease::new();
        let mut now = SECOND;
        for _ in 0..500 {
            now += rng.random_range(0..2_000_000);
            if let Decision::Reject(Quota { remaining, reset }) = lease.take(&reservoir, at(now)) {
                let then = now + nanos(reset);
                assert_eq!(remaining, 0);
                assert!(!lease.peek(&reservoir, at(then - 1)).admits(), "seed {seed}");
                assert!(lease.peek(&reservoir, at(then)).admits(), "seed {seed}");
                now = then;
            }
        }
    }
}

#[test]
fn quota_counts_what_is_left_and_when_there_is_more() {
    let reservoir = Reservoir::new(per_second(10), 5, 1);
    let mut lease = Lease::new();
    let now = at(SECOND);
    assert_eq!(reservoir.quota(now), Quota { remaining: 5, reset: Duration::ZERO });
    assert!(lease.take(&reservoir, now).admits() && lease.take(&reservoir, now).admits());
    assert_eq!(reservoir.quota(now), Quota { remaining: 3, reset: Duration::from_millis(100) });
    let later = at(SECOND + SECOND / 20);
    assert_eq!(reservoir.quota(later), Quota { remaining: 3, reset: Duration::from_millis(50) });
}

#[test]
fn a_burst_of_nothing_counts_as_one_and_extreme_values_neither_overflow_nor_admit_for_ever() {
    assert_eq!(Gcra::new(per_second(1), 0).burst(), 1);
    let day = Rate::try_new(1, Duration::from_secs(86_400)).unwrap();
    let reservoir = Reservoir::new(day, u64::MAX, 4);
    assert!(Lease::new().take(&reservoir, at(u64::MAX / 2)).admits());
    let reservoir = Reservoir::new(day, 1, 4);
    assert!(!Lease::new().take(&reservoir, Instant::NEVER).admits());
}

#[test]
fn a_burst_that_takes_centuries_to_come_anew_refills_like_any_other() {
    let day = Rate::try_new(1, Duration::from_secs(86_400)).unwrap();
    for (burst, uptime) in [(250_000, SECOND), (1_000_000_000, 20 * 365 * 86_400 * SECOND)] {
        let reservoir = Reservoir::new(day, burst, 1);
        let mut lease = Lease::new();
        let now = at(uptime);
        let passed = (0..burst).take_while(|_| lease.take(&reservoir, now).admits()).count();
        assert!((53_000..54_000).contains(&passed), "{passed}: what comes in 146 years");
        let Decision::Reject(quota) = lease.peek(&reservoir, now) else { panic!("the bucket is empty") };
        assert_eq!(quota.reset, Duration::from_secs(86_400));
        assert!(lease.take(&reservoir, now + quota.reset).admits());
        assert!(!lease.take(&reservoir, now + quota.reset).admits());
    }
}

#[test]
fn peeking_takes_nothing() {
    let reservoir = Reservoir::new(per_second(1), 1, 1);
    let mut lease = Lease::new();
    assert!(lease.peek(&reservoir, at(0)).admits());
    assert!(lease.peek(&reservoir, at(0)).admits());
    assert!(lease.take(&reservoir, at(0)).admits());
    assert!(!lease.peek(&reservoir, at(0)).admits());
}

#[test]
fn low_rates_and_small_bursts_take_tokens_one_by_one_with_the_whole_burst() {
    for (rate, burst, workers) in [(500, 500, 2), (1_000_000, 10, 8), (1_000_000, 1_000_000, 1)] {
        let reservoir = Reservoir::new(per_second(rate), burst, workers);
        assert_eq!(reservoir.lease.tokens_max, 1);
        assert_eq!(reservoir.gcra.burst(), burst);
    }
    let leased = Reservoir::new(per_second(100_000), 100_000, 4);
    assert_eq!(leased.lease, LeasePlan { nanos: 5_000_000, tokens_max: 125 });
    assert_eq!(leased.gcra.burst(), 99_500);
}

/// Names the worker of the n-th request.
type Place = Box<dyn FnMut(u64) -> usize>;

/// Offers `demand` times the rate for ten seconds, each request on the worker that `place` names, and returns how many passed.
fn ten_seconds(count: u64, burst: u64, workers: usize, demand: u64, mut place: impl FnMut(u64) -> usize) -> u64 {
    let reservoir = Reservoir::new(per_second(count), burst, workers);
    let mut leases: Vec<Lease> = (0..workers).map(|_| Lease::new()).collect();
    let step = SECOND / (count * demand);
    let mut admitted = Vec::new();
    for index in 0..10 * count * demand {
        let now = SECOND + index * step;
        if leases[place(index)].take(&reservoir, at(now)).admits() {
            admitted.push(now);
        }
    }
    let passed = admitted.len() as u64;
    assert_no_window_exceeds(admitted, per_second(count), burst, "ten seconds");
    passed
}

#[test]
fn ten_seconds_admit_rate_and_burst_and_at_most_two_percent_less_wherever_the_load_lands() {
    for (count, burst, workers) in
        [(500, 2, 2), (500, 500, 2), (500, 1_000, 2), (40_000, 40_000, 2), (20_000, 100_000, 8)]
    {
        let limit = 10 * count + burst;
        let mut rng = Rng::seed_from_u64(3);
        let placements: [(&str, Place); 4] = [
            ("one worker", Box::new(|_| 0)),
            ("in turn", Box::new(move |index| index as usize % workers)),
            ("1 % and 99 %", Box::new(|index| usize::from(index % 100 != 0))),
            ("at random", Box::new(move |_| rng.random_range(0..workers))),
        ];
        for (name, place) in placements {
            let passed = ten_seconds(count, burst, workers, 3, place);
            assert!(
                passed <= limit && passed * 100 >= limit * 98,
                "{name}: {passed} of {limit} at {count}/s, {workers} workers"
            );
        }
    }
}

#[test]
fn tokens_in_hand_are_spent_within_the_lease_or_dropped() {
    let (rate, burst) = (per_second(100_000), 100_000);
    let reservoir = Reservoir::new(rate, burst, 2);
    let mut lease = Lease { earned: EARN * 250, ..Lease::new() };
    assert!(lease.take(&reservoir, at(SECOND)).admits());
    assert_eq!(lease.tokens, 249);
    assert!(lease.take(&reservoir, at(SECOND + 5_000_000)).admits());
    assert_eq!(lease.tokens, 248);
    assert!(lease.take(&reservoir, at(SECOND + 5_000_001)).admits(), "a new lease");
    assert_eq!(lease.tokens, 1, "248 wasted tokens cost 24,800 of 25,000 merits, and the next lease is small");
}

/// The worst that traffic can do to leases: earn a large one, take it, and fall silent.
#[test]
fn a_worker_that_keeps_falling_silent_with_tokens_in_hand_wastes_at_most_two_percent() {
    let (count, burst) = (50_000, 50_000);
    let reservoir = Reservoir::new(per_second(count), burst, 2);
    let (mut silent, mut steady) = (Lease::new(), Lease::new());
    let mut passed = 0;
    for millis in 0..10_000_u64 {
        let now = at(SECOND + millis * 1_000_000);
        // As soon as the hand is empty and a lease of several tokens is due, one request takes it; then nothing until it expires.
        if silent.tokens == 0 || now > silent.until {
            while passed < 10 * count + burst && silent.take(&reservoir, now).admits() {
                passed += 1;
                if silent.tokens > 0 {
                    break;
                }
            }
        }
        if millis % 5 == 4 {
            while steady.take(&reservoir, now).admits() {
                passed += 1;
            }
        }
    }
    let limit = 10 * count + burst;
    assert!(passed <= limit && passed * 100 >= limit * 98, "{passed} of {limit}");
}

/// A hand that has earned the largest lease.
fn deserving() -> Lease {
    Lease { earned: u64::MAX / 2, ..Lease::new() }
}

#[test]
fn tokens_spent_at_the_end_of_their_leases_are_covered_by_the_burst() {
    let (count, burst, workers) = (100_000, 6_400, 4);
    let reservoir = Reservoir::new(per_second(count), burst, workers);
    let mut leases: Vec<Lease> = (0..workers).map(|_| deserving()).collect();
    let taken = at(SECOND);
    for lease in &mut leases[1..] {
        assert!(lease.take(&reservoir, taken).admits());
        assert!(lease.tokens > 20, "the test needs tokens in hand");
    }
    // By the end of the leases the bucket is full again; now all spend all that they can at once.
    let end = SECOND + reservoir.lease.nanos;
    let mut admitted = vec![SECOND; workers - 1];
    for lease in &mut leases {
        while lease.take(&reservoir, at(end)).admits() {
            admitted.push(end);
        }
    }
    assert!(admitted.len() as u64 > reservoir.gcra.burst() + 60);
    assert_no_window_exceeds(admitted, per_second(count), burst, "the end of the leases");
}

#[test]
fn no_window_exceeds_the_limit_under_any_interleaving_of_workers() {
    for seed in 0..256 {
        let mut rng = Rng::seed_from_u64(seed);
        let count = [500, 20_000, 200_000, 1_000_000][rng.random_range(0..4)];
        let burst = [1, 20, 300, 2_000][rng.random_range(0..4)];
        let workers = rng.random_range(1..5);
        let reservoir = Reservoir::new(per_second(count), burst, workers);
        let mut leases: Vec<Lease> =
            (0..workers).map(|_| if rng.random() { deserving() } else { Lease::new() }).collect();
        let (mut admitted, mut now) = (Vec::new(), SECOND);
        for _ in 0..16 {
            // A run of requests on one worker: a few that leave it with tokens in hand, or until long after the bucket is empty.
            let worker = rng.random_range(0..workers);
            let gap = rng.random_range(0..SECOND / count);
            for _ in 0..[rng.random_range(1..20), 2_500][rng.random_range(0..2)] {
                // Workers read their clocks at different times.
                let seen = now - rng.random_range(0..2_000);
                if leases[worker].take(&reservoir, at(seen)).admits() {
                    admitted.push(seen);
                }
                now += rng.random_range(0..=gap);
            }
            // A pause: none, until a lease ends or just after, or long.
            let end = leases[rng.random_range(0..workers)].until.as_nanos();
            now = [now, now.max(end), now.max(end) + 1, now + SECOND / 20][rng.random_range(0..4)];
        }
        assert!(!admitted.is_empty());
        assert_no_window_exceeds(
            admitted,
            per_second(count),
            burst,
            &format!("seed {seed}: {count}/s, burst {burst}, {workers}"),
        );
    }
}

#[test]
fn threads_that_share_a_bucket_never_exceed_it() {
    for (count, burst) in [(1_000_000, 1), (1_000_000, 100), (1_000_000, 50_000)] {
        let threads = 4;
        let reservoir = Reservoir::new(per_second(count), burst, threads);
        let clock = AtomicU64::new(SECOND);
        let start = Barrier::new(threads);
        let admitted: Vec<u64> = std::thread::scope(|scope| {
            let worker = || {
                start.wait();
                let (mut lease, mut mine) = (Lease::new(), Vec::new());
                for _ in 0..50_000 {
                    // All threads push one clock, so they overtake each other between reading it and taking.
                    let now = clock.fetch_add(100, Ordering::Relaxed);
                    if lease.take(&reservoir, at(now)).admits() {
                        mine.push(now);
                    }
                }
                mine
            };
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        let limit = burst + (clock.into_inner() - SECOND) / 1_000;
        assert!(admitted.len() as u64 <= limit);
        assert!(
            admitted.len() as u64 * 100 >= limit.min(50_000 * threads as u64) * 90,
            "{} of {limit}",
            admitted.len()
        );
        assert_no_window_exceeds(admitted, per_second(count), burst, &format!("burst {burst}"));
    }
}

#[test]
fn a_rate_that_changes_begins_with_the_tokens_that_are_left() {
    let now = Instant::from_nanos(5_000_000_000);
    let rate = |count| Rate::try_new(count, Duration::from_secs(1)).unwrap();
    for (spent, burst, left) in [(30, 50, 20), (0, 20, 20), (50, 10, 0), (10, 400, 40)] {
        let (old, new) = (Reservoir::new(rate(10), 50, 2), Arc::new(Reservoir::new(rate(1), burst, 2)));
        assert!((0..spent).all(|_| Lease::new().take(&old, now).admits()));
        new.begin_with(&old, now);
        assert_eq!(new.quota(now).remaining, left, "{spent} of 50 were spent");
    }
}

#[test]
fn a_rate_that_changes_again_and_again_leaves_no_token_behind_and_gives_none_twice() {
    let now = at(SECOND);
    let mut all = vec![Arc::new(Reservoir::new(per_second(1_000_000), 100_000, 2))];
    let taken = AtomicU64::new(0);
    let first = Arc::clone(&all[0]);
    let barrier = Barrier::new(3);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut lease = Lease::new();
                barrier.wait();
                while lease.peek(&first, now).admits() {
                    taken.fetch_add(u64::from(lease.take(&first, now).admits()), Ordering::Relaxed);
                }
            });
        }
        barrier.wait();
        for round in 0..1_000 {
            let next = Arc::new(Reservoir::new(per_second(1_000_000 + round % 2), 100_000, 2));
            next.begin_with(&all[all.len() - 1], now);
            all.push(next);
        }
    });
    // leases keep some of the burst back, so that there are less tokens than that
    let burst = Reservoir::new(per_second(1_000_000), 100_000, 2).gcra.burst;
    assert_eq!(taken.into_inner(), burst);
}

#[test]
fn a_hundred_thousand_changes_can_be_forgotten_at_once() {
    let first = Arc::new(Reservoir::new(per_second(1), 1, 1));
    let mut last = Arc::clone(&first);
    for _ in 0..100_000 {
        let next = Arc::new(Reservoir::new(per_second(1), 1, 1));
        next.begin_with(&last, at(SECOND));
        last = next;
    }
    drop(last);
    drop(first);
}

#[test]
fn several_tokens_are_taken_at_once_or_none_in_every_window_no_more_than_allowed() {
    for seed in 0..16 {
        let mut rng = Rng::seed_from_u64(seed);
        let (count, burst) = (rng.random_range(1..5_000), rng.random_range(1..20_000));
        let reservoir = Reservoir::new(per_second(count), burst, 2);
        let mut leases = [Lease::new(), Lease::new()];
        let (mut admitted, mut now) = (Vec::new(), SECOND);
        for _ in 0..4_000 {
            now += rng.random_range(0..1_000_000);
            let (lease, cost) = (&mut leases[rng.random_range(0..2)], rng.random_range(1..=burst.min(9)));
            let peeked = lease.peek_many(&reservoir, cost, at(now));
            let taken = lease.take_many(&reservoir, cost, at(now));
            assert_eq!(peeked.admits(), taken.admits(), "seed {seed}");
            if taken.admits() {
                admitted.extend((0..cost).map(|_| now));
            } else if let Decision::Reject(quota) = taken {
                let then = at(now) + quota.reset;
                assert!(
                    reservoir.gcra.take(reservoir.tat.load(Ordering::Relaxed), cost, then).is_some(),
                    "seed {seed}"
                );
            }
        }
        assert_no_window_exceeds(admitted, per_second(count), burst, &format!("seed {seed}"));
    }
}

#[test]
fn a_charge_follows_tokens_that_have_moved() {
    let (now, rate) = (at(SECOND), per_second(1));
    let (old, new) = (Arc::new(Reservoir::new(rate, 10, 1)), Arc::new(Reservoir::new(rate, 20, 1)));
    new.begin_with(&old, now);
    old.charge(4, now);
    assert_eq!(new.left(now), 6, "ten were there");
    new.charge(1_000, now);
    assert_eq!(new.quota(now).reset, Duration::from_secs(21), "a burst below zero");
}

#[test]
fn tokens_until_an_end_come_anew_with_the_next_and_whatever_clock_is_set() {
    let (first, second) = (Gcra::until(at(1_000_000), 3), Gcra::until(at(2_000_000), 3));
    let (mut tat, now) = (0, at(900_000));
    for left in [2, 1, 0] {
        tat = first.take(tat, 1, now).unwrap();
        assert_eq!(first.quota(tat, now).remaining, left);
    }
    assert_eq!(first.take(tat, 1, at(999_999)), None, "however late it is");
    assert_eq!(second.quota(tat, at(1_000_000)).remaining, 3);
    let tat = second.charge(tat, 100, at(1_000_000));
    assert_eq!(tat, 2_000_006, "no further than twice");
    assert_eq!(second.take(tat, 1, at(1_999_999)), None);
    assert!(first.take(tat, 3, now).is_some(), "set back, nothing of what came later counts");
}
