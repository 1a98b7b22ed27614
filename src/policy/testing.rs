//! What the tests of the combining pages share: a cluster's and a route's configuration, and a clock.

use crate::config::{Address, Balance, Cluster, Endpoint, Outlier, Retry, RetryBudget, RetryOn, Spill};
use crate::units::{Instant, Ratio, Weight};
use http::StatusCode;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

pub(crate) fn at(millis: u64) -> Instant {
    Instant::from_nanos(0) + Duration::from_millis(millis)
}

pub(crate) fn ratio(value: f64) -> Ratio {
    Ratio::try_new(value).expect("a share")
}

pub(crate) fn outlier() -> Outlier {
    Outlier {
        consecutive: 5,
        min_success: ratio(0.5),
        min_requests: 10,
        window: Duration::from_secs(10),
        eject: Duration::from_secs(10),
        eject_max: Duration::from_secs(300),
    }
}

/// Endpoints of weight 100 with these priorities; every other key at its default.
pub(crate) fn cluster(balance: Balance, priorities: &[u8]) -> Cluster {
    let endpoint = |(i, priority): (usize, &u8)| Endpoint {
        name: None,
        address: Address::Tcp(SocketAddr::from((Ipv4Addr::new(10, 0, 0, i as u8), 80))),
        weight: Weight(100),
        priority: *priority,
    };
    Cluster {
        name: "test".to_owned(),
        balance,
        connect_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(55),
        idle_max: 256,
        proxy_protocol: crate::config::ProxyVersion::Off,
        requests_max: None,
        retry_budget: RetryBudget { ratio: ratio(0.2), min_per_second: 3 },
        retry_after_max: Duration::from_secs(30),
        spill: Spill::Proportional,
        endpoints: priorities.iter().enumerate().map(endpoint).collect(),
        names: Vec::new(),
        health_check: None,
        outlier: Some(outlier()),
        protocol: Default::default(),
        streams_max: 100,
        sticky: None,
        slow_start: Duration::from_secs(10),
        tls: None,
    }
}

/// `[route.retry]` at its defaults.
pub(crate) fn retry() -> Retry {
    let statuses = vec![StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
    Retry {
        attempts: 2,
        on: RetryOn { connect: true, reset: true, timeout: true, statuses, codes: Vec::new() },
        non_idempotent: false,
        per_try_timeout: None,
        backoff_max: Duration::from_millis(250),
        min_remaining: ratio(0.1),
    }
}
