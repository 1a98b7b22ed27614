//! What it costs a worker to write down one request that is over: counters, histogram, usage, and the access log's ring.

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderValue, StatusCode};
use ringgate::config::{
    Admin, Bind, Config, Driver, Gateway, HeaderRules, Match, QueryRules, Resolver, Retry, RetryOn, Rewrite, Route,
    Target, Timeout,
};
use ringgate::observe::access_log::{LogRecord, LogRing, LogSender};
use ringgate::observe::labels::AttemptOutcome;
use ringgate::observe::labels::MethodLabel;
use ringgate::observe::recorder::{Finished, Recorder};
use ringgate::observe::stats::Stats;
use ringgate::units::{Instant, ListenerId, Ratio, RouteId, WorkerId};
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

fn route(number: usize) -> Route {
    Route {
        name: format!("route-{number}"),
        matcher: Match::default(),
        target: Target::Respond {
            status: StatusCode::OK,
            body: String::new(),
            content_type: HeaderValue::from_static("text/plain"),
        },
        rewrite: Rewrite::None,
        query: QueryRules::default(),
        captures: None,
        templates: None,
        request_headers: HeaderRules::default(),
        response_headers: HeaderRules::default(),
        timeout: Timeout::Fixed(Duration::from_secs(1)),
        limits: Vec::new(),
        concurrent_max: None,
        defaulted: Default::default(),
        is_guard: false,
        auth: None,
        cors: None,
        access: ringgate::config::Access::default(),
        body_bytes_max: None,
        body_timeout: None,
        tunnel_timeout: None,
        body_rate_min: None,
        grpc_web: false,
        traffic: Default::default(),
        is_plain: true,
        retry: Retry {
            attempts: 0,
            on: RetryOn { connect: false, reset: false, timeout: false, statuses: Vec::new(), codes: Vec::new() },
            non_idempotent: false,
            per_try_timeout: None,
            backoff_max: Duration::from_millis(250),
            min_remaining: Ratio::try_new(0.1).expect("a ratio"),
        },
    }
}

fn stats(routes: usize) -> Arc<Stats> {
    let config = Config {
        limits: Vec::new(),
        include: Vec::new(),
        gateway: Gateway {
            cores: vec![None],
            driver: Driver::Auto,
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(1),
            watch: false,
            quota_file: None,
        },
        admin: Admin { listen: Bind::Tcp(([127, 0, 0, 1], 0).into()), hosts: Vec::new() },
        resolver: Resolver {
            servers: None,
            min_ttl: Duration::from_secs(1),
            max_ttl: Duration::from_secs(3_600),
            timeout: Duration::from_secs(2),
            max_stale: Duration::from_secs(3_600),
        },
        access_log: None,
        listeners: Vec::new(),
        routes: (0..routes).map(route).collect(),
        clusters: Vec::new(),
        consumers: Arc::default(),
        auth: Arc::new([]),
        redis: None,
    };
    Stats::new(&Arc::new(config), 1)
}

fn finished(route: u32, client: u32) -> Finished {
    Finished {
        consumer: None,
        route: Some(RouteId(route)),
        method: MethodLabel::Get,
        status: StatusCode::OK,
        error: None,
        duration: Duration::from_nanos(900_000 + u64::from(client % 1000) * 977),
        request_bytes: 300,
        response_bytes: 1_200,
        client: Some(Ipv4Addr::from_bits(client).into()),
    }
}

fn record(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record");
    let recorder = |routes: u32| -> Recorder {
        let recorder = stats(routes as usize).recorder(WorkerId(0));
        (0..routes).for_each(|route| recorder.finished(&finished(route, 1)));
        recorder
    };
    let one = recorder(1);
    group.bench_function("one_route_one_client", |bench| bench.iter(|| one.finished(black_box(&finished(0, 1)))));

    let many = recorder(1_000);
    let mut n = 0u32;
    group.bench_function("1000_routes_1000_clients", |bench| {
        bench.iter(|| {
            n = n.wrapping_add(1);
            many.finished(black_box(&finished(n * 7 % 1_000, n * 13 % 1_000)));
        });
    });

    let flood = recorder(1);
    group.bench_function("every_client_new", |bench| {
        bench.iter(|| {
            n = n.wrapping_add(1);
            flood.finished(black_box(&finished(0, n)));
        });
    });
    group.finish();
}

fn log(criterion: &mut Criterion) {
    let mut sender = LogSender::new(LogRing::new());
    let record = LogRecord {
        consumer: b"",
        limit: b"",
        refused_by: b"",
        fault: b"",
        chosen: b"",
        generation: 1,
        time_unix_ms: 1_700_000_000_000,
        listener: ListenerId(0),
        route: Some(RouteId(0)),
        client: Some(Ipv4Addr::LOCALHOST.into()),
        method: b"GET",
        target: b"/orders/12345?page=2",
        host: b"api.example.com",
        version: Some((1, 1)),
        status: StatusCode::OK,
        grpc_status: None,
        error: None,
        rule: None,
        request_bytes: 300,
        response_bytes: 1_200,
        duration: Duration::from_micros(900),
        upstream_time: None,
        attempts: 1,
        upstream: None,
        endpoints: &[],
        outcomes: &[AttemptOutcome::Success],
        request_id: b"0123456789abcdef0123456789abcdef",
        user_agent:
            b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari/537.36",
        client_subject: b"",
        tls: None,
        sni: b"",
        referer: b"",
    };
    criterion.bench_function("log_send", |bench| {
        bench.iter(|| {
            if !sender.send(black_box(&record)) {
                // Full: go on in an empty ring; once in some thousand records.
                sender = LogSender::new(LogRing::new());
            }
        });
    });
}

fn scrape(criterion: &mut Criterion) {
    let stats = stats(10_000);
    let recorder = stats.recorder(WorkerId(0));
    (0..10_000).for_each(|route| recorder.finished(&finished(route, 1)));
    criterion.bench_function("scrape_10000_routes", |bench| {
        bench.iter(|| {
            let scrape = ringgate::observe::exposition::Scrape::new(Arc::clone(&stats), None, Instant::from_nanos(1));
            scrape.map(|piece| piece.len()).sum::<usize>()
        });
    });
}

criterion_group!(benches, record, log, scrape);
criterion_main!(benches);
