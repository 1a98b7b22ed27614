//! What all workers of a gateway read, and the reservoirs that they take leases from.
//!
//! Everything here is immutable but for the reservoirs, the key table and the slots; those are atomics, touched when a lease is taken, when
//! a limited client or header value is looked up, and when a connection begins or ends.

use crate::config::{Config, Limit, LimitKey};
use crate::observe::stats::Stats;
use crate::policy::concurrency::SharedSlots;
use crate::policy::key_table::{KeyTable, LimiterId};
use crate::policy::router::{Router, RouterError};
use crate::policy::token_bucket::{Gcra, Reservoir};
use std::hash::RandomState;
use std::sync::Arc;

/// One gateway's common ground.
#[derive(Debug)]
pub struct Shared {
    /// The configuration.
    pub config: Arc<Config>,
    /// The compiled routes.
    pub router: Router,
    /// The numbers.
    pub stats: Arc<Stats>,
    /// By route, in the order of its limits.
    pub(super) limiters: Vec<Vec<Limiter>>,
    /// For limits per client or header.
    pub(super) keys: Option<KeyTable>,
    /// `max_concurrent`, by route.
    pub(super) route_slots: Vec<Option<Arc<SharedSlots>>>,
    /// `max_requests`, by cluster and endpoint; empty for a cluster without.
    pub(super) endpoint_slots: Vec<Vec<Arc<SharedSlots>>>,
    /// `max_connections`, by listener.
    pub(super) connection_slots: Vec<Arc<SharedSlots>>,
}

/// One limit of one route.
#[derive(Debug)]
pub(super) struct Limiter {
    /// What clients read; distinct within the route.
    pub(super) name: String,
    pub(super) gcra: Gcra,
    pub(super) kind: LimiterKind,
}

/// What a limit counts, and with what.
#[derive(Debug)]
pub(super) enum LimiterKind {
    /// All requests of the route.
    Route(Reservoir),
    /// Rows of [`Shared::keys`].
    Keyed(LimiterId),
}

impl Shared {
    /// Compiles what the workers of `config` need.
    ///
    /// # Errors
    /// The routes cannot be compiled.
    pub fn try_new(config: Arc<Config>, stats: Arc<Stats>) -> Result<Self, RouterError> {
        let workers = config.gateway.cores.len();
        let mut numbers = 0..;
        let limiters: Vec<Vec<_>> =
            config.routes.iter().map(|route| limiters_of(&route.limits, workers, &mut numbers)).collect();
        let keyed = limiters.iter().flatten().any(|limiter| matches!(limiter.kind, LimiterKind::Keyed(_)));
        let endpoint_slots = config
            .clusters
            .iter()
            .map(|cluster| match cluster.requests_max {
                Some(limit) => cluster.endpoints.iter().map(|_| Arc::new(SharedSlots::new(limit, workers))).collect(),
                None => Vec::new(),
            })
            .collect();
        Ok(Self {
            router: Router::try_new(&config)?,
            limiters,
            keys: keyed.then(|| KeyTable::new(crate::limits::LIMIT_TABLE_BUCKETS, RandomState::new())),
            route_slots: config
                .routes
                .iter()
                .map(|route| route.concurrent_max.map(|limit| Arc::new(SharedSlots::new(limit, workers))))
                .collect(),
            endpoint_slots,
            connection_slots: config
                .listeners
                .iter()
                .map(|l| u32::try_from(l.connections_max).unwrap_or(u32::MAX))
                .map(|limit| Arc::new(SharedSlots::new(limit, workers)))
                .collect(),
            config,
            stats,
        })
    }
}

fn limiters_of(limits: &[Limit], workers: usize, numbers: &mut impl Iterator<Item = u32>) -> Vec<Limiter> {
    let mut limiters: Vec<Limiter> = Vec::with_capacity(limits.len());
    for limit in limits {
        let per = match &limit.per {
            LimitKey::Route => "route",
            LimitKey::ClientIp => "client_ip",
            LimitKey::Header(name) => name.as_str(),
        };
        let alike = limiters.iter().filter(|other| other.name.split('#').next() == Some(per)).count();
        let kind = match limit.per {
            LimitKey::Route => LimiterKind::Route(Reservoir::new(limit.rate, limit.burst, workers)),
            LimitKey::ClientIp | LimitKey::Header(_) => {
                LimiterKind::Keyed(LimiterId(numbers.next().expect("fewer limits than there are numbers")))
            }
        };
        limiters.push(Limiter {
            name: if alike == 0 { per.to_owned() } else { format!("{per}#{}", alike + 1) },
            gcra: Gcra::new(limit.rate, limit.burst),
            kind,
        });
    }
    limiters
}
