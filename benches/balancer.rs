//! What a choice costs: each strategy with 2, 10 and 1,000 endpoints, through the cluster as a request meets it (choose, count, learn).
//!
//! `mixed` has a different weight on every endpoint, the worst case of `weighted`; `failing` has every attempt fail, so that
//! `random` draws by availability near 0; `exchange` is a whole request's decisions.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::StatusCode;
use rand::SeedableRng;
use ringgate::config::{self, Address, Balance, HashKey, RetryBudget, RetryOn};
use ringgate::policy::attempt::Ask;
use ringgate::policy::cluster::{Cluster, Common};
use ringgate::policy::deadline::Deadline;
use ringgate::policy::exchange::{Event, Exchange, Facts};
use ringgate::policy::outlier::Evidence;
use ringgate::policy::retry::Rules;
use ringgate::policy::visited::Visited;
use ringgate::units::{Instant, Ratio, Rng, Weight};
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

const STRATEGIES: [(&str, Balance); 7] = [
    ("random", Balance::Random),
    ("round_robin", Balance::RoundRobin),
    ("weighted", Balance::Weighted),
    ("least_request", Balance::LeastRequest),
    ("peak_ewma", Balance::PeakEwma),
    ("ring_hash", Balance::RingHash(HashKey::Path)),
    ("maglev", Balance::Maglev(HashKey::Path)),
];

fn ratio(value: f64) -> Ratio {
    Ratio::try_new(value).expect("a share")
}

fn cluster(balance: &Balance, endpoints: u32, weight: impl Fn(u32) -> u32) -> Cluster {
    let endpoint = |i: u32| config::Endpoint {
        name: None,
        address: Address::Tcp(SocketAddr::from((Ipv4Addr::from(0x0A00_0000 + i), 80))),
        weight: Weight(weight(i)),
        priority: 0,
    };
    let config = config::Cluster {
        name: "bench".to_owned(),
        balance: balance.clone(),
        connect_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(55),
        idle_max: 256,
        proxy_protocol: ringgate::config::ProxyVersion::Off,
        requests_max: Some(1_000),
        retry_budget: RetryBudget { ratio: ratio(0.2), min_per_second: 3 },
        endpoints: (0..endpoints).map(endpoint).collect(),
        names: Vec::new(),
        health_check: None,
        outlier: None,
        retry_after_max: Duration::from_secs(30),
        spill: config::Spill::Proportional,
        sticky: None,
        slow_start: Duration::from_secs(10),
        protocol: ringgate::config::Protocol::default(),
        streams_max: 100,
        tls: None,
    };
    Cluster::new(&config, &Common::new(&config, 1), &mut Rng::seed_from_u64(1))
}

/// One request: chosen, counted, judged, ended; a microsecond passes.
fn request(cluster: &mut Cluster, works: bool, now: &mut Instant, rng: &mut Rng) {
    *now += Duration::from_micros(1);
    let ask = Ask {
        tried: &[],
        refused: &Visited::EMPTY,
        session: None,
        key: Some(now.as_nanos()),
        probes: true,
        expendable: true,
        deadline: *now + Duration::from_secs(2),
    };
    let attempt = black_box(cluster.begin(&ask, *now, rng)).expect("one takes it");
    if works {
        cluster.on_answer(&attempt, *now);
        cluster.on_success(&attempt, *now);
    } else {
        cluster.on_failure(&attempt, Evidence::Soft, *now, rng);
    }
    cluster.end(attempt, *now);
}

fn bench_requests(c: &mut Criterion, name: &str, cases: &[(&str, Balance)], weight: fn(u32) -> u32, works: bool) {
    let mut group = c.benchmark_group(name);
    for (label, balance) in cases {
        for endpoints in [2, 10, 1_000] {
            let mut cluster = cluster(balance, endpoints, weight);
            let (mut now, mut rng) = (Instant::from_nanos(1), Rng::seed_from_u64(2));
            (0..20 * endpoints).for_each(|_| request(&mut cluster, works, &mut now, &mut rng));
            group.bench_function(BenchmarkId::new(*label, endpoints), |b| {
                b.iter(|| request(&mut cluster, works, &mut now, &mut rng));
            });
        }
    }
}

fn bench_exchange(c: &mut Criterion) {
    let statuses = vec![StatusCode::SERVICE_UNAVAILABLE];
    let rules = Rc::new(Rules::new(&config::Retry {
        attempts: 2,
        on: RetryOn { connect: true, reset: true, timeout: true, statuses, codes: Vec::new() },
        non_idempotent: false,
        per_try_timeout: None,
        backoff_max: Duration::from_millis(250),
        min_remaining: ratio(0.1),
    }));
    let mut cluster = cluster(&Balance::LeastRequest, 10, |_| 100);
    let (mut now, mut rng) = (Instant::from_nanos(1), Rng::seed_from_u64(3));
    c.bench_function("exchange/least_request/10", |b| {
        b.iter(|| {
            now += Duration::from_micros(1);
            let total = Duration::from_secs(2);
            let deadline = Deadline { at: now + total, total, shortened: false };
            let retry = Rc::clone(&rules);
            let facts =
                Facts { deadline, retry, idempotent: true, replayable: true, session: None, key: None, try_time: None };
            let mut exchange = Exchange::new(facts);
            black_box(exchange.step(Event::Start, &mut cluster, now, &mut rng));
            let head = Event::Head { status: StatusCode::OK, retry_after: None };
            black_box(exchange.step(head, &mut cluster, now, &mut rng));
            black_box(exchange.step(Event::BodyDone, &mut cluster, now, &mut rng))
        });
    });
}

fn benches(c: &mut Criterion) {
    bench_requests(c, "request", &STRATEGIES, |_| 100, true);
    bench_requests(c, "mixed", &STRATEGIES[2..4], |i| i + 1, true);
    bench_requests(c, "failing", &STRATEGIES[..1], |_| 100, false);
    bench_exchange(c);
}

criterion_group! {
    name = balancer;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_millis(1_000)).warm_up_time(Duration::from_millis(200));
    targets = benches
}
criterion_main!(balancer);
