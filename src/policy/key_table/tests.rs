//! Tests of the key table: exact counting, eviction, and many threads on the same keys.

use super::*;
use crate::units::{Rate, Rng};
use rand::{RngExt as _, SeedableRng as _};
use std::sync::Barrier;

const SECOND: u64 = 1_000_000_000;

fn gcra(count: u64, burst: u64) -> Gcra {
    Gcra::new(Rate::try_new(count, Duration::from_secs(1)).unwrap(), burst)
}

fn at(nanos: u64) -> Instant {
    Instant::from_nanos(nanos)
}

fn table(lines: usize) -> KeyTable {
    KeyTable::new(lines, [1, 2])
}

/// How many of `tries` requests pass.
fn passed(table: &KeyTable, key: KeyHash, gcra: Gcra, now: u64, tries: usize) -> usize {
    (0..tries).filter(|_| table.take(key, gcra, at(now)).admits()).count()
}

#[test]
fn each_client_has_its_own_bucket() {
    let (table, gcra) = (table(1 << 10), gcra(10, 3));
    let [one, two] = ["10.0.0.1", "10.0.0.2"].map(|address| table.client(LimiterId(0), address.parse().unwrap()));
    assert_eq!(passed(&table, one, gcra, SECOND, 9), 3);
    assert_eq!(passed(&table, two, gcra, SECOND, 9), 3);
    assert_eq!(passed(&table, one, gcra, SECOND + SECOND / 10, 9), 1);
    assert_eq!(passed(&table, two, gcra, 9 * SECOND, 9), 3);
}

#[test]
fn another_table_goes_on_with_those_in_debt_at_another_clock() {
    let (before, gcra) = (table(1 << 10), gcra(10, 3));
    let key = |table: &KeyTable, value: &str| table.header(LimiterId(7), Some(value.as_bytes()));
    assert_eq!(passed(&before, key(&before, "one"), gcra, SECOND, 2), 2);
    assert_eq!(passed(&before, key(&before, "paid"), gcra, SECOND / 2, 3), 3);
    let debts = before.debts(at(SECOND));
    assert_eq!(debts.clients.len(), 1, "who is not in debt is as good as unknown: {debts:?}");
    for lines in [1 << 10, 1 << 12, 1] {
        let after = KeyTable::new(lines, [8, 9]);
        after.take_on(&debts, at(50 * SECOND));
        assert_eq!(passed(&after, key(&after, "one"), gcra, 50 * SECOND, 9), 1);
        assert_eq!(passed(&after, key(&after, "paid"), gcra, 50 * SECOND, 9), 3);
        assert_eq!(passed(&after, key(&after, "one"), gcra, 50 * SECOND + SECOND / 10, 9), 1);
    }
}

#[test]
fn of_more_debts_than_a_table_has_room_for_the_largest_are_kept() {
    let after = table(1);
    let clients: Vec<_> = (1..=9).map(|key| (key, key * SECOND)).chain([(0, SECOND), (77, u64::MAX)]).collect();
    after.take_on(&Debts { secret: [1, 2], clients }, at(SECOND));
    let mut kept: Vec<_> = after.debts(at(SECOND)).clients.iter().map(|(key, _)| *key).collect();
    kept.sort_unstable();
    assert_eq!(kept, [7, 8, 9, 77]);
}

#[test]
fn limits_do_not_share_clients() {
    let (table, gcra) = (table(1 << 10), gcra(1, 1));
    let address = "10.0.0.1".parse().unwrap();
    for limiter in 0..3 {
        assert_eq!(passed(&table, table.client(LimiterId(limiter), address), gcra, SECOND, 2), 1);
    }
}

#[test]
fn ipv6_clients_count_by_64_bits_and_ipv4_ones_whole_even_when_mapped() {
    let table = table(1);
    let key = |address: &str| table.client(LimiterId(0), address.parse().unwrap());
    assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff:ffff:ffff:ffff"));
    assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
    assert_ne!(key("10.0.0.1"), key("10.0.0.2"));
    assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"));
    assert_ne!(key("::ffff:10.0.0.1"), key("::ffff:10.0.0.2"));
}

#[test]
fn requests_without_the_header_count_together_and_apart_from_an_empty_one() {
    let table = table(1);
    let key = |value: Option<&[u8]>| table.header(LimiterId(0), value);
    assert_eq!(key(None), key(None));
    assert_ne!(key(None), key(Some(b"")));
    assert_ne!(key(Some(b"a")), key(Some(b"b")));
    assert_ne!(key(Some(&[10, 0, 0, 1])), table.client(LimiterId(0), "10.0.0.1".parse().unwrap()));
}

#[test]
fn keys_depend_on_the_secret() {
    let key = |secret| KeyTable::new(1, secret).client(LimiterId(0), "10.0.0.1".parse().unwrap());
    assert_ne!(key([1, 2]), key([1, 3]));
    assert_ne!(key([1, 2]), key([2, 2]));
}

#[test]
fn clients_out_of_debt_are_replaced_without_loss() {
    let (table, gcra) = (table(1), gcra(10, 2));
    for key in 1..1_000 {
        let now = SECOND + key * SECOND / 10;
        assert_eq!(
            passed(&table, KeyHash(key), gcra, now, 3),
            2,
            "a bucket is full again after 200 ms, so two are in debt at a time"
        );
    }
    assert_eq!(table.evictions(), 0);
}

#[test]
fn a_full_line_forgets_the_client_with_the_least_debt_and_counts_it() {
    let (table, gcra) = (table(1), gcra(1, 9));
    for (key, requests) in [(1, 4), (2, 2), (3, 5), (4, 3)] {
        assert_eq!(passed(&table, KeyHash(key), gcra, SECOND, requests), requests);
    }
    assert_eq!(table.evictions(), 0);
    assert_eq!(passed(&table, KeyHash(5), gcra, SECOND, 9), 9);
    assert_eq!(table.evictions(), 1);
    let left = |key| table.quota(KeyHash(key), gcra, at(SECOND)).remaining;
    assert_eq!([1, 2, 3, 4, 5].map(left), [5, 9, 4, 6, 0], "the second owed least");
}

#[test]
fn a_worker_whose_clock_lags_cannot_spend_a_burst_again() {
    let (table, gcra) = (table(1), gcra(10, 2));
    assert_eq!(passed(&table, KeyHash(1), gcra, SECOND, 3), 2);
    for key in 2..6 {
        assert_eq!(passed(&table, KeyHash(key), gcra, SECOND + SECOND / 5, 1), 1);
    }
    assert!(table.line(KeyHash(1)).find(KeyHash(1)).is_none(), "it was full again and has been replaced");
    assert_eq!(passed(&table, KeyHash(1), gcra, SECOND + 1, 3), 0);
    assert_eq!(table.evictions(), 0);
}

#[test]
fn quota_and_peeking_take_nothing_and_agree_with_taking() {
    let (table, gcra, key) = (table(4), gcra(10, 2), KeyHash(7));
    let now = at(SECOND);
    assert_eq!(table.quota(key, gcra, now), Quota { remaining: 2, reset: Duration::ZERO });
    assert!(table.peek(key, gcra, now).admits());
    assert!(table.take(key, gcra, now).admits());
    assert_eq!(table.quota(key, gcra, now), Quota { remaining: 1, reset: Duration::from_millis(100) });
    assert!(table.take(key, gcra, now).admits());
    assert_eq!(table.take(key, gcra, now), table.peek(key, gcra, now));
    assert_eq!(table.take(key, gcra, now), Decision::Reject(Quota { remaining: 0, reset: Duration::from_millis(100) }));
}

#[test]
fn lines_are_cache_lines() {
    for lines in [1, 64, 1 << 12] {
        let table = table(lines);
        assert_eq!(std::ptr::from_ref(table.line(KeyHash(5)).words).addr() % 64, 0);
        assert_eq!(std::ptr::from_ref(table.line(KeyHash(u64::MAX)).words).addr() % 64, 0);
    }
}

#[test]
fn a_million_clients_fit_in_the_table_that_was_there_before() {
    let (table, gcra) = (table(1 << 14), gcra(1, 1));
    let before = table.words.len();
    for client in 0..1_000_000_u32 {
        let key = table.client(LimiterId(0), std::net::Ipv4Addr::from(client).into());
        assert!(table.take(key, gcra, at(SECOND)).admits());
    }
    assert_eq!(table.words.len(), before);
    let entries = (WAYS << 14) as u64;
    assert!(table.evictions() >= 1_000_000 - entries, "{}", table.evictions());
    assert!(
        table.evictions() < 1_000_000 - entries * 9 / 10,
        "nine tenths of the entries are used: {}",
        table.evictions()
    );
}

#[test]
fn an_entry_that_changed_hands_is_not_taken_for_its_former_owners() {
    let (table, gcra, now) = (table(1), gcra(1, 3), at(SECOND));
    assert!(table.take(KeyHash(1), gcra, now).admits());
    let line = table.line(KeyHash(1));
    // As if the entry had been another's when it was looked up and this one's when it was charged.
    assert_eq!(line.charge(0, KeyHash(2), &|tat| gcra.take(tat, 1, now).ok_or_else(|| gcra.quota(tat, now))), None);
    assert_eq!(table.quota(KeyHash(1), gcra, now).remaining, 1, "its owner pays a token too much");
    assert_eq!(table.quota(KeyHash(2), gcra, now).remaining, 3);
}

#[test]
fn a_line_whose_inserter_is_held_up_rejects_instead_of_waiting() {
    let (table, gcra, now) = (table(1), gcra(10, 3), at(SECOND));
    table.line(KeyHash(1)).tat(0).store(BUSY, Ordering::Relaxed);
    let rejected = Decision::Reject(Quota { remaining: 0, reset: Duration::from_millis(100) });
    assert_eq!(table.take(KeyHash(1), gcra, now), rejected);
    assert_eq!(table.contended(), 1);
}

/// Runs `work` on four threads at once and returns what each made.
fn race<T: Send>(work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(4);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let (start, work) = (&start, &work);
                scope.spawn(move || {
                    start.wait();
                    work(thread)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn threads_that_insert_and_charge_the_same_clients_admit_each_exactly_its_burst() {
    let gcra = gcra(1, 20);
    for round in 0..300 {
        let table = table(1);
        let counts = race(|thread| {
            let mut rng = Rng::seed_from_u64(round * 4 + thread as u64);
            let mut counts = [0_u64; 4];
            for _ in 0..400 {
                let key = rng.random_range(0..4_usize);
                counts[key] += u64::from(table.take(KeyHash(key as u64 + 1), gcra, at(SECOND)).admits());
            }
            counts
        });
        let total = |key: usize| counts.iter().map(|counts| counts[key]).sum::<u64>();
        assert_eq!([0, 1, 2, 3].map(total), [20; 4], "round {round}");
        assert_eq!(table.evictions(), 0);
    }
}

#[test]
fn threads_that_evict_each_others_clients_never_make_a_token() {
    let (burst, round_count) = (5, 100);
    let gcra = gcra(1, burst);
    for round in 0..round_count {
        let table = table(1);
        let admitted: u64 = race(|thread| {
            let mut rng = Rng::seed_from_u64(round * 4 + thread as u64);
            let take = |_| u64::from(table.take(KeyHash(rng.random_range(1..9)), gcra, at(SECOND)).admits());
            (0..1_000).map(take).sum::<u64>()
        })
        .into_iter()
        .sum();
        // Time stands still, so every insertion but the first four forgets somebody, and each serves at most one burst.
        let bound = burst * (WAYS as u64 + table.evictions());
        assert!(admitted <= bound, "round {round}: {admitted} admitted, at most {bound}");
        assert!(table.evictions() > 0);
    }
}

#[test]
fn threads_on_a_moving_clock_never_exceed_a_clients_limit() {
    // Six clients in a line of four, but so slow that two at most are in debt: nobody is forgotten.
    let (count, burst) = (1_000_000, 3);
    let gcra = gcra(count, burst);
    for round in 0..20 {
        let (table, clock) = (table(1), AtomicU64::new(SECOND));
        let all = race(|thread| {
            let mut rng = Rng::seed_from_u64(round * 4 + thread as u64);
            let mut mine: Vec<(u64, u64)> = Vec::new();
            for _ in 0..5_000 {
                let now = clock.fetch_add(rng.random_range(0..200), Ordering::Relaxed);
                // The client changes slowly, so that entries die and are taken over all the time.
                let key = 1 + (now / 4_000) % 6;
                if table.take(KeyHash(key), gcra, at(now)).admits() {
                    mine.push((key, now));
                }
            }
            mine
        });
        let mut all: Vec<(u64, u64)> = all.into_iter().flatten().collect();
        all.sort_unstable();
        for key in 1..=6 {
            let times: Vec<u64> = all.iter().filter(|(owner, _)| *owner == key).map(|(_, now)| *now).collect();
            for (end, &last) in times.iter().enumerate() {
                for (start, &first) in times.iter().enumerate().take(end + 1).skip(end.saturating_sub(50)) {
                    let admitted = (end - start + 1) as u64;
                    let limit = burst + (last - first) / gcra.interval_nanos();
                    assert!(
                        admitted <= limit,
                        "round {round}, client {key}: {admitted} of {limit} in {first}..={last}"
                    );
                }
            }
        }
    }
}
