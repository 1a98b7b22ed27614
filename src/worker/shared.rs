//! What all workers of a gateway read, and the reservoirs that they take leases from.
//!
//! Everything here is immutable but for the reservoirs, the key table, the slots, the budgets and the standings of endpoints; those are
//! atomics, touched when a lease is taken, when a limited client or header value is looked up, when a connection begins or ends, and
//! when something fails or comes back.

use super::Report;
use crate::config::Config;
use crate::limits::LIMIT_TABLE_BUCKETS;
use crate::observe::stats::Stats;
use crate::policy::admission::Limits;
use crate::policy::client_slots::ClientSlots;
use crate::policy::cluster::Common;
use crate::policy::concurrency::SharedSlots;
use crate::policy::descriptors::Fit;
use crate::policy::key_table::KeyTable;
use crate::policy::router::Router;
use crate::policy::try_time::TryTimes;
use std::hash::RandomState;
use std::sync::Arc;
use tokio::sync::mpsc::Sender;

/// One gateway's common ground.
#[derive(Debug)]
pub struct Shared {
    /// The configuration.
    pub config: Arc<Config>,
    /// The compiled routes.
    pub router: Router,
    /// The numbers.
    pub stats: Arc<Stats>,
    /// Rate limits and `max_concurrent` of all routes.
    pub(super) limits: Arc<Limits>,
    /// To the control thread, which tells the operator.
    reports: Sender<Report>,
    /// Where endpoints stand, and retry budgets, by cluster.
    pub clusters: Vec<Common>,
    /// How long a try takes, by route.
    pub(super) try_times: TryTimes,
    /// `max_requests`, by cluster and endpoint; empty for a cluster without.
    pub(super) endpoint_slots: Vec<Vec<Arc<SharedSlots>>>,
    /// `max_connections`, by listener.
    pub(crate) connection_slots: Vec<Arc<SharedSlots>>,
    /// Connections over all listeners, where descriptors allow fewer than the listeners do.
    pub(crate) descriptor_slots: Option<Arc<SharedSlots>>,
    /// Idle connections to endpoints that a worker keeps.
    pub(super) idle_max: usize,
    /// `max_connections_per_client`, by listener; `None` for one without.
    pub(crate) client_slots: Vec<Option<ClientSlots>>,
}

impl Shared {
    /// What the workers of `config` need, with the descriptors that there are; `router` is compiled from it.
    #[must_use]
    pub fn new(config: Arc<Config>, router: Router, stats: Arc<Stats>, reports: Sender<Report>, fit: &Fit) -> Self {
        let workers = config.gateway.cores.len();
        let table = Arc::new(KeyTable::new(LIMIT_TABLE_BUCKETS, RandomState::new()));
        let endpoint_slots = config
            .clusters
            .iter()
            .map(|cluster| match cluster.requests_max {
                Some(limit) => cluster.endpoints.iter().map(|_| Arc::new(SharedSlots::new(limit, workers))).collect(),
                None => Vec::new(),
            })
            .collect();
        Self {
            router,
            limits: Arc::new(Limits::new(&config, table, workers, None)),
            clusters: config.clusters.iter().map(|cluster| Common::new(cluster, workers)).collect(),
            try_times: TryTimes::new(config.routes.len()),
            endpoint_slots,
            connection_slots: config
                .listeners
                .iter()
                .map(|l| u32::try_from(l.connections_max).unwrap_or(u32::MAX))
                .map(|limit| Arc::new(SharedSlots::new(limit, workers)))
                .collect(),
            descriptor_slots: fit.connections_max.map(|limit| Arc::new(SharedSlots::new(limit, workers))),
            idle_max: fit.idle_max,
            client_slots: config
                .listeners
                .iter()
                .map(|l| Some(ClientSlots::new(l.client_connections_max?, l.connections_max, RandomState::new())))
                .collect(),
            config,
            stats,
            reports,
        }
    }

    /// Tells the control thread, without waiting: a full queue loses the report's line in the log, not what the metrics say.
    pub(super) fn report(&self, report: Report) {
        let _ = self.reports.try_send(report);
    }
}
