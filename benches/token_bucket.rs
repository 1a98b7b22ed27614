//! What one admission costs: from a worker's lease, from the shared reservoir, and from the key table as its clients outgrow the cache.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ringgate::limits;
use ringgate::policy::concurrency::{LocalSlots, SharedSlots};
use ringgate::policy::key_table::{KeyTable, LimiterId};
use ringgate::policy::token_bucket::{Gcra, Lease, Reservoir};
use ringgate::units::{Instant, Rate};
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

fn per_second(count: u64) -> Rate {
    Rate::try_new(count, Duration::from_secs(1)).expect("a positive rate")
}

/// A clock that moves `step` nanoseconds a request.
fn ticking(step: u64) -> impl FnMut() -> Instant {
    let mut now = 1_000_000_000;
    move || {
        now += step;
        Instant::from_nanos(now)
    }
}

fn reservoir(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("token_bucket");
    for (name, workers, step) in [("lease", 4, 1_500), ("direct", 1, 1_500), ("rejected", 4, 10)] {
        let (shared, mut lease) = (Reservoir::new(per_second(1_000_000), 1_000_000, workers), Lease::new());
        let mut clock = ticking(step);
        group.bench_function(name, |bencher| bencher.iter(|| lease.take(black_box(&shared), clock())));
    }
}

fn key_table(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("key_table");
    let gcra = Gcra::new(per_second(1_000), 100);
    for clients in [1_u32, 1_000, 1_000_000] {
        let table = KeyTable::new(limits::LIMIT_TABLE_BUCKETS, [1, 2]);
        let (mut client, mut clock) = (0, ticking(1_500));
        group.bench_function(BenchmarkId::from_parameter(clients), |bencher| {
            bencher.iter(|| {
                client = (client + 7_919) % clients;
                let key = table.client(LimiterId(1), Ipv4Addr::from(black_box(client)).into());
                table.take(key, gcra, clock())
            });
        });
        println!("{clients} clients: {} evictions, {} contended", table.evictions(), table.contended());
    }
}

fn slots(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("slots");
    for limit in [100, 100_000] {
        let mut slots = LocalSlots::new(Arc::new(SharedSlots::new(limit, 4)));
        group.bench_function(BenchmarkId::from_parameter(limit), |bencher| {
            bencher.iter(|| {
                assert!(slots.acquire());
                slots.release();
            });
        });
    }
}

criterion_group!(benches, reservoir, key_table, slots);
criterion_main!(benches);
