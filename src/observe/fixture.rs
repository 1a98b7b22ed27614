//! A small configuration for tests: one listener, two routes, two clusters.
//!
//! `orders` goes to a cluster of two TCP endpoints with active checks; `plain` answers directly. The second cluster has one unix
//! socket and no checks.

use crate::config::*;
use crate::units::{ClusterId, Instant, Ratio, Weight};
use http::{HeaderValue, StatusCode};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// The configuration.
pub(crate) fn config() -> Arc<Config> {
    let http = Probe::Http(HttpProbe::get("/healthz", (200, 399)));
    let unix = Address::Unix("/run/\"odd\".sock".into());
    let routes = vec![
        route("orders", "/orders", Target::Upstream(vec![(ClusterId(0), Weight(95)), (ClusterId(1), Weight(5))])),
        route(
            "plain",
            "/plain",
            Target::Respond {
                status: StatusCode::OK,
                body: "hello".into(),
                content_type: HeaderValue::from_static("text/plain"),
            },
        ),
    ];
    Arc::new(Config {
        limits: Vec::new(),
        redis: None,
        include: Vec::new(),
        gateway: Gateway {
            cores: vec![Some(0), None],
            driver: Driver::Auto,
            drain_delay: Duration::ZERO,
            quota_file: None,
            drain_timeout: Duration::from_secs(30),
            watch: false,
        },
        admin: Admin {
            listen: Bind::Tcp("127.0.0.1:0".parse().expect("a socket address")),
            hosts: vec![HostMatch::Wildcard("ops.example".into()), HostMatch::Exact("ops.example".into())],
        },
        resolver: Resolver {
            servers: None,
            min_ttl: Duration::from_secs(1),
            max_ttl: Duration::from_secs(3_600),
            timeout: Duration::from_secs(2),
            max_stale: Duration::from_secs(3_600),
        },
        access_log: None,
        listeners: vec![listener()],
        routes: routes.into(),
        consumers: Arc::default(),
        auth: Arc::new([]),
        clusters: vec![
            Arc::new(cluster("orders", vec![tcp("10.0.0.1:8080"), tcp("10.0.0.2:8080")], Some(health_check(http)))),
            Arc::new(cluster("local", vec![unix], None)),
        ],
    })
}

/// A clock for tests that need a running one.
#[expect(clippy::disallowed_methods, reason = "the clock of these tests")]
pub(crate) fn clock() -> Instant {
    static ZERO: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
    // Not at zero, which stands for "never".
    Instant::from_nanos(1_000_000_000) + ZERO.elapsed()
}

/// An endpoint's address.
pub(crate) fn tcp(address: &str) -> Address {
    Address::Tcp(address.parse().expect("a socket address"))
}

/// Quick checks.
pub(crate) fn health_check(probe: Probe) -> HealthCheck {
    HealthCheck { probe, interval: Duration::from_millis(20), timeout: Duration::from_millis(500), rise: 2, fall: 3 }
}

/// A cluster with the defaults of the file.
pub(crate) fn cluster(name: &str, addresses: Vec<Address>, health_check: Option<HealthCheck>) -> Cluster {
    let endpoint = |address| Endpoint { name: None, address, weight: Weight(100), priority: 0 };
    Cluster {
        name: name.into(),
        balance: Balance::LeastRequest,
        connect_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(55),
        idle_max: 256,
        proxy_protocol: crate::config::ProxyVersion::Off,
        requests_max: Some(1000),
        retry_budget: RetryBudget { ratio: Ratio::try_new(0.2).expect("a ratio"), min_per_second: 3 },
        endpoints: addresses.into_iter().map(endpoint).collect(),
        names: Vec::new(),
        health_check,
        outlier: None,
        retry_after_max: Duration::from_secs(30),
        spill: crate::config::Spill::Proportional,
        protocol: Default::default(),
        streams_max: 100,
        sticky: None,
        slow_start: Duration::from_secs(10),
        tls: None,
    }
}

fn listener() -> Listener {
    Listener {
        name: "edge".into(),
        bind: Bind::Tcp("0.0.0.0:8080".parse().expect("a socket address")),
        header_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(60),
        body_timeout: Duration::from_secs(30),
        tunnel_timeout: Duration::from_secs(3600),
        head_bytes_max: 16 << 10,
        headers_max: 100,
        body_bytes_max: 16 << 20,
        connections_max: 65_536,
        client_connections_max: None,
        connection_requests_max: Some(1_000_000),
        connection_age_max: Duration::from_secs(86_400),
        body_rate_min: 0,
        trusted_proxies: Vec::new(),
        unix_trusted: false,
        unix_mode: 0o666,
        proxy_protocol: false,
        header_underscores: crate::config::Underscores::Drop,
        encoded_separators: crate::config::Separators::Reject,
        forwarded_for: crate::config::ForwardedFor::Append,
        errors: Vec::new(),
        merge_slashes: false,
        limits: Vec::new(),
        auth: Vec::new(),
        access: crate::config::Access::default(),
        server: crate::config::ServerField::Pass,
        tls: None,
        http2: None,
        has_defaults: false,
    }
}

/// A route with the defaults of the file.
pub(crate) fn route(name: &str, prefix: &str, target: Target) -> Route {
    Route {
        name: name.into(),
        matcher: Match { path: PathMatch::Prefix(prefix.into()), ..Match::default() },
        target,
        rewrite: Rewrite::None,
        query: crate::config::QueryRules::default(),
        captures: None,
        templates: None,
        request_headers: HeaderRules::default(),
        response_headers: HeaderRules::default(),
        timeout: Timeout::Fixed(Duration::from_secs(2)),
        limits: Vec::new(),
        concurrent_max: None,
        defaulted: Default::default(),
        is_guard: false,
        auth: None,
        cors: None,
        access: crate::config::Access::default(),
        body_bytes_max: None,
        body_timeout: None,
        tunnel_timeout: None,
        body_rate_min: None,
        grpc_web: false,
        traffic: Default::default(),
        is_plain: true,
        retry: Retry {
            attempts: 2,
            on: RetryOn {
                connect: true,
                reset: true,
                timeout: true,
                statuses: vec![StatusCode::BAD_GATEWAY],
                codes: Vec::new(),
            },
            non_idempotent: false,
            per_try_timeout: None,
            backoff_max: Duration::from_millis(250),
            min_remaining: Ratio::try_new(0.1).expect("a ratio"),
        },
    }
}
