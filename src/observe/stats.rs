//! The gateway's numbers: who writes them, where they lie.
//!
//! Each life of a worker has its own memory, which only it writes (through its [`Recorder`]) and which the control thread adds up on a
//! scrape: a worker that was replaced finishes what it has beside its successor, and both count (`lives`).
//! What is per route, cluster or endpoint is made when it is first used: a route without traffic costs a pointer. What the control
//! thread and the log writer know themselves (states of workers, results of health checks, lines written) stands beside it.
//!
//! Requests that matched no route are counted in a row of their own, whose `route` label is `-`.
//!
//! What this does not do: keep anything over a reload. A new configuration has its own `Stats`, because ids are rows of its tables.
//!
//! Architecture invariant: no lock and no read-modify-write on a worker's memory; a scrape never waits for a worker, nor a worker
//! for a scrape.

mod lives;
mod probe;
mod view;

pub use lives::Tenure;
pub use probe::Failure;
pub use view::{EndpointView, ProbeView, RouteView, WorkerView};

use super::counter::{Arena, Counter, Rows, counters};
use super::histogram::Histogram;
use super::labels::{
    AttemptOutcome, EjectReason, EndpointState, ProbeState, ReadmitReason, RefuseReason, RetryReason, WorkerState,
};
use super::recorder::Recorder;
use super::usage::{Usage, UsageKey, UsageTable};
use crate::config::{Cluster, Config};
use crate::error::ProxyError;
use crate::limits;
use crate::units::{ClusterId, EndpointId, Instant, RouteId, WorkerId};
use lives::WorkerMemory;
use probe::ProbeCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// The `route` label of requests that matched no route.
pub const NO_ROUTE: &str = "-";

/// All numbers of one configuration.
#[derive(Debug)]
pub struct Stats {
    /// What the numbers are about.
    pub(crate) config: Arc<Config>,
    workers: Box<[WorkerMemory]>,
    pub(crate) control: ControlStats,
}

/// The memory of one life of a worker; no cache line of it is shared with another's.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct WorkerStats {
    /// The life that may write; 0: none.
    writer: AtomicU64,
    /// One row a route, and a last one for requests without a route.
    pub(crate) routes: Rows<RouteStats>,
    pub(crate) clusters: Rows<ClusterStats>,
    pub(crate) listeners: Box<[ListenerStats]>,
    pub(crate) requests: Arena<RequestSlot>,
    /// Requests whose counter found no room in `requests`.
    pub(crate) requests_other: Counter,
    pub(crate) usage: UsageTable,
    pub(crate) event_loop: LoopStats,
}

/// Requests of one (route, method, status).
#[derive(Debug, Default)]
pub(crate) struct RequestSlot {
    /// [`RequestKey::pack`].
    pub(crate) key: Counter,
    pub(crate) count: Counter,
}

/// What a request counter is about; packed, it orders by route, then method, then status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestKey {
    /// Row of the routes' table; the last one: no route.
    pub(crate) route: u32,
    /// Index of a [`super::labels::MethodLabel`].
    pub(crate) method: u8,
    /// HTTP status.
    pub(crate) status: u16,
}

impl RequestKey {
    pub(crate) fn pack(self) -> u64 {
        u64::from(self.route) << 32 | u64::from(self.method) << 16 | u64::from(self.status)
    }

    pub(crate) fn unpack(key: u64) -> Self {
        // Each field is cut back to what `pack` put there.
        Self { route: (key >> 32) as u32, method: (key >> 16) as u8, status: key as u16 }
    }
}

/// One route on one worker.
#[derive(Debug)]
pub(crate) struct RouteStats {
    pub(crate) duration: Histogram,
    pub(crate) errors: Counter,
    pub(crate) bytes: Counter,
    /// By [`ProxyError`].
    pub(crate) rejected: [Counter; ProxyError::ALL.len()],
    /// Requests that a limit in dry run would have rejected.
    pub(crate) rate_limited_dry_run: Counter,
}

impl RouteStats {
    pub(crate) fn new() -> Self {
        Self {
            duration: Histogram::new(),
            errors: Counter::default(),
            bytes: Counter::default(),
            rejected: counters(),
            rate_limited_dry_run: Counter::default(),
        }
    }
}

/// One cluster on one worker.
#[derive(Debug)]
pub(crate) struct ClusterStats {
    pub(crate) duration: Histogram,
    pub(crate) retries: [Counter; RetryReason::ALL.len()],
    pub(crate) failovers: Counter,
    pub(crate) budget_exhausted: Counter,
    pub(crate) connections_stale: Counter,
    pub(crate) connections_idle: Counter,
    pub(crate) connections_active: Counter,
    pub(crate) endpoints: Box<[EndpointStats]>,
}

impl ClusterStats {
    pub(crate) fn new(cluster: &Cluster) -> Self {
        Self {
            duration: Histogram::new(),
            retries: counters(),
            failovers: Counter::default(),
            budget_exhausted: Counter::default(),
            connections_stale: Counter::default(),
            connections_idle: Counter::default(),
            connections_active: Counter::default(),
            endpoints: cluster.endpoints.iter().map(|_| EndpointStats::new()).collect(),
        }
    }
}

/// One endpoint on one worker.
#[derive(Debug)]
pub(crate) struct EndpointStats {
    pub(crate) attempts: [Counter; AttemptOutcome::ALL.len()],
    pub(crate) ejections: [Counter; EjectReason::ALL.len()],
    /// Ejections that the cap on soft evidence refused.
    pub(crate) refused: [Counter; EjectReason::ALL.len()],
    pub(crate) shunnings: [Counter; EjectReason::ALL.len()],
    pub(crate) readmissions: [Counter; ReadmitReason::ALL.len()],
    /// 0: the worker has not said yet; else an [`EndpointState`]'s index plus one.
    pub(crate) state: Counter,
    /// Instant in nanoseconds; 0: neither ejected nor paused.
    pub(crate) ejected_until: Counter,
    pub(crate) in_flight: Counter,
    /// Millionths.
    pub(crate) availability: Counter,
}

impl EndpointStats {
    fn new() -> Self {
        Self {
            attempts: counters(),
            ejections: counters(),
            refused: counters(),
            shunnings: counters(),
            readmissions: counters(),
            state: Counter::default(),
            ejected_until: Counter::default(),
            in_flight: Counter::default(),
            availability: Counter::default(),
        }
    }

    /// What the worker last said of it; `None` before it said anything.
    pub(crate) fn state(&self) -> Option<EndpointState> {
        EndpointState::ALL.get(usize::try_from(self.state.get()).ok()?.checked_sub(1)?).copied()
    }
}

/// One listener on one worker.
#[derive(Debug, Default)]
pub(crate) struct ListenerStats {
    pub(crate) connections: Counter,
    pub(crate) accepted: Counter,
    /// By [`RefuseReason`].
    pub(crate) refused: [Counter; RefuseReason::ALL.len()],
    pub(crate) exhausted: Counter,
    /// Connections among them that are tunnels.
    pub(crate) tunnels: Counter,
    pub(crate) tunnels_opened: Counter,
}

/// The worker's event loop and its own resources.
#[derive(Debug, Default)]
pub(crate) struct LoopStats {
    pub(crate) driver: Counter,
    pub(crate) turns: Counter,
    /// Instant in nanoseconds; 0: never.
    pub(crate) last_turn: Counter,
    pub(crate) panics: Counter,
    pub(crate) log_lines_dropped: Counter,
    pub(crate) limit_evictions: Counter,
    pub(crate) buffers_in_use_bytes: Counter,
    pub(crate) buffers_kept_bytes: Counter,
}

/// What is known outside the workers. Several threads may write it, rarely.
#[derive(Debug)]
pub(crate) struct ControlStats {
    pub(crate) workers: Box<[WorkerLife]>,
    /// One row per cluster that has a health check, one cell an endpoint.
    pub(crate) probes: Box<[Box<[ProbeCell]>]>,
    pub(crate) log_lines_written: AtomicU64,
    pub(crate) log_write_errors: AtomicU64,
    pub(crate) log_lines_lost: AtomicU64,
}

/// One worker's thread, as the supervisor sees it.
#[derive(Debug, Default)]
pub(crate) struct WorkerLife {
    state: AtomicU64,
    restarts: AtomicU64,
}

impl Stats {
    /// Memory for `workers` workers under `config`.
    ///
    /// # Panics
    /// When `workers` is 0 or more than [`limits::WORKERS_MAX`].
    #[must_use]
    pub fn new(config: &Arc<Config>, workers: usize) -> Arc<Self> {
        assert!((1..=limits::WORKERS_MAX).contains(&workers), "{workers} workers");
        let probes = config.clusters.iter().map(|cluster| {
            let checked = if cluster.health_check.is_some() { cluster.endpoints.len() } else { 0 };
            (0..checked).map(|_| ProbeCell::default()).collect()
        });
        let control = ControlStats {
            workers: (0..workers).map(|_| WorkerLife::default()).collect(),
            probes: probes.collect(),
            log_lines_written: AtomicU64::new(0),
            log_write_errors: AtomicU64::new(0),
            log_lines_lost: AtomicU64::new(0),
        };
        let workers = (0..workers).map(|_| WorkerMemory::new(config)).collect();
        Arc::new(Self { config: Arc::clone(config), workers, control })
    }

    /// The pen of worker `worker`: to be taken by its thread when it starts (again). Gauges begin at zero, counters go on.
    ///
    /// At most one thread writes a piece of memory: the lives of a worker that go on at once have their own. Beyond
    /// [`limits::WORKER_LIVES_MAX`] the oldest falls silent; if it stood still in the middle of a call it may still end that call, and
    /// counts may be lost then, nothing else.
    ///
    /// # Panics
    /// When there is no such worker.
    #[must_use]
    pub fn recorder(self: &Arc<Self>, worker: WorkerId) -> Recorder {
        let tenure = self.workers[worker.index()].begin(&self.config);
        Recorder::new(Arc::clone(self), worker, tenure)
    }

    /// The memory of all lives of all workers: what counters and most gauges are summed over.
    pub(crate) fn lives(&self) -> impl Iterator<Item = &WorkerStats> {
        self.workers.iter().flat_map(WorkerMemory::lives)
    }

    /// The same of one worker.
    pub(crate) fn lives_of(&self, worker: usize) -> impl Iterator<Item = &WorkerStats> {
        self.workers[worker].lives()
    }

    /// The memory of the life of a worker that has begun last.
    pub(crate) fn current(&self, worker: usize) -> &WorkerStats {
        self.workers[worker].current()
    }

    /// Number of workers.
    #[must_use]
    pub fn workers_len(&self) -> usize {
        self.workers.len()
    }

    /// Says what the supervisor knows of a worker's thread.
    pub fn set_worker_state(&self, worker: WorkerId, state: WorkerState) {
        self.control.workers[worker.index()].state.store(state.index() as u64, Relaxed);
    }

    /// Counts a thread that was started in place of one that ended or stalled.
    pub fn count_worker_restart(&self, worker: WorkerId) {
        self.control.workers[worker.index()].restarts.fetch_add(1, Relaxed);
    }

    /// One worker now.
    #[must_use]
    pub fn worker(&self, worker: WorkerId) -> WorkerView {
        let life = &self.control.workers[worker.index()];
        let last_turn = self.current(worker.index()).event_loop.last_turn.get();
        WorkerView {
            state: WorkerState::ALL[life.state.load(Relaxed) as usize],
            restarts: life.restarts.load(Relaxed),
            last_turn: (last_turn > 0).then(|| Instant::from_nanos(last_turn)),
        }
    }

    /// Does every worker run?
    #[must_use]
    pub fn all_workers_running(&self) -> bool {
        self.worker_ids().all(|worker| self.worker(worker).state == WorkerState::Running)
    }

    /// All workers.
    pub fn worker_ids(&self) -> impl Iterator<Item = WorkerId> + use<> {
        (0..self.workers.len()).map(WorkerId::from_index)
    }

    /// Takes down the end of one health check that says something of the endpoint. `state` is the verdict after it (rise and fall
    /// considered). Does nothing for a cluster without health checks.
    pub fn record_probe(
        &self,
        cluster: ClusterId,
        endpoint: EndpointId,
        result: Result<(), Failure>,
        state: ProbeState,
        now: Instant,
    ) {
        if let Some(cell) = self.probe_cell(cluster, endpoint) {
            cell.record(result, state, now);
        }
    }

    /// Takes down a health check that could not be made for want of something of our own, and so says nothing.
    pub fn record_probe_exhausted(&self, cluster: ClusterId, endpoint: EndpointId) {
        if let Some(cell) = self.probe_cell(cluster, endpoint) {
            cell.record_exhausted();
        }
    }

    /// Health checks of one endpoint; `None` when its cluster has none.
    #[must_use]
    pub fn probe(&self, cluster: ClusterId, endpoint: EndpointId) -> Option<ProbeView> {
        self.probe_cell(cluster, endpoint).map(ProbeCell::view)
    }

    fn probe_cell(&self, cluster: ClusterId, endpoint: EndpointId) -> Option<&ProbeCell> {
        self.control.probes[cluster.index()].get(endpoint.index())
    }

    /// One endpoint over all workers now.
    #[must_use]
    pub fn endpoint(&self, cluster: ClusterId, endpoint: EndpointId) -> EndpointView {
        let mut view = EndpointView::default();
        // those of active checks, which know it once for all workers
        view.ejections[EjectReason::HealthCheck.index()] =
            self.probe_cell(cluster, endpoint).map_or(0, ProbeCell::downs);
        let mut millionths = 0;
        for stats in self.lives().filter_map(|life| life.endpoint(cluster, endpoint)) {
            add_up(&mut view.attempts, &stats.attempts);
            add_up(&mut view.ejections, &stats.ejections);
            add_up(&mut view.refused, &stats.refused);
            add_up(&mut view.shunnings, &stats.shunnings);
            add_up(&mut view.readmissions, &stats.readmissions);
            view.in_flight += stats.in_flight.get();
        }
        // a worker that was replaced has no say any more
        let current = self.workers.iter().map(WorkerMemory::current);
        for stats in current.filter_map(|life| life.endpoint(cluster, endpoint)) {
            let Some(state) = stats.state() else { continue };
            view.workers += 1;
            view.workers_available += usize::from(state.is_available());
            view.states[state.index()] += 1;
            millionths += stats.availability.get();
            if matches!(state, EndpointState::Ejected | EndpointState::Paused | EndpointState::Shunned) {
                view.ejected_until = view.ejected_until.max(Some(Instant::from_nanos(stats.ejected_until.get())));
            }
        }
        view.availability = (view.workers > 0).then(|| millionths as f64 / 1e6 / view.workers as f64);
        view
    }

    /// One route over all workers now (`None`: requests that matched none).
    #[must_use]
    pub fn route(&self, route: Option<RouteId>) -> RouteView {
        self.route_row(self.row_of(route)).unwrap_or_default()
    }

    /// The row of a route in the workers' tables.
    pub(crate) fn row_of(&self, route: Option<RouteId>) -> usize {
        route.map_or(self.config.routes.len(), RouteId::index)
    }

    /// The name of a row in the workers' route tables.
    pub(crate) fn row_name(&self, row: usize) -> &str {
        self.config.routes.get(row).map_or(NO_ROUTE, |route| &route.name)
    }

    /// A row of the route tables over all workers; `None` when no worker ever touched it.
    pub(crate) fn route_row(&self, row: usize) -> Option<RouteView> {
        let mut rows = self.lives().filter_map(|life| life.routes.get(row)).peekable();
        rows.peek()?;
        let mut view = RouteView::default();
        for stats in rows {
            view.duration.add(&stats.duration);
            view.errors += stats.errors.get();
            view.bytes += stats.bytes.get();
            view.rejected.iter_mut().zip(&stats.rejected).for_each(|(sum, n)| *sum += n.get());
            view.rate_limited_dry_run += stats.rate_limited_dry_run.get();
        }
        Some(view)
    }

    /// All followed (route, client) pairs, summed over the workers.
    #[must_use]
    pub fn usage(&self) -> HashMap<UsageKey, Usage> {
        let mut sums = HashMap::new();
        self.lives().for_each(|life| life.usage.sum_into(&mut sums));
        sums
    }
}

impl WorkerStats {
    fn new(config: &Config) -> Self {
        Self {
            writer: AtomicU64::new(0),
            routes: Rows::new(config.routes.len() + 1),
            clusters: Rows::new(config.clusters.len()),
            listeners: config.listeners.iter().map(|_| ListenerStats::default()).collect(),
            requests: Arena::new(limits::REQUEST_COUNTERS_MAX),
            requests_other: Counter::default(),
            usage: UsageTable::new(limits::USAGE_CLIENTS),
            event_loop: LoopStats::default(),
        }
    }

    fn endpoint(&self, cluster: ClusterId, endpoint: EndpointId) -> Option<&EndpointStats> {
        self.clusters.get(cluster.index()).map(|cluster| &cluster.endpoints[endpoint.index()])
    }

    /// What a thread that is gone had open is gone with it.
    fn reset_gauges(&self) {
        for listener in &self.listeners {
            listener.connections.set(0);
            listener.tunnels.set(0);
        }
        self.event_loop.buffers_in_use_bytes.set(0);
        self.event_loop.buffers_kept_bytes.set(0);
        for cluster in self.clusters.touched() {
            cluster.connections_idle.set(0);
            cluster.connections_active.set(0);
            for endpoint in &cluster.endpoints {
                endpoint.in_flight.set(0);
                endpoint.state.set(0);
            }
        }
    }
}

fn add_up(sums: &mut [u64], counters: &[Counter]) {
    sums.iter_mut().zip(counters).for_each(|(sum, counter)| *sum += counter.get());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::fixture;

    #[test]
    fn request_keys_survive_packing_and_order_by_route_first() {
        let key = RequestKey { route: 100_000, method: 9, status: 999 };
        assert_eq!(RequestKey::unpack(key.pack()), key);
        let next = RequestKey { route: 100_001, method: 0, status: 100 };
        assert!(next.pack() > key.pack());
    }

    #[test]
    fn readiness_needs_every_worker() {
        let stats = Stats::new(&fixture::config(), 2);
        assert_eq!(stats.worker(WorkerId(0)).state, WorkerState::Starting);
        stats.set_worker_state(WorkerId(0), WorkerState::Running);
        assert!(!stats.all_workers_running());
        stats.set_worker_state(WorkerId(1), WorkerState::Running);
        assert!(stats.all_workers_running());
        stats.set_worker_state(WorkerId(0), WorkerState::Stalled);
        stats.count_worker_restart(WorkerId(0));
        assert!(!stats.all_workers_running());
        assert_eq!(stats.worker(WorkerId(0)).restarts, 1);
    }

    #[test]
    fn probes_are_kept_only_where_the_cluster_has_a_check() {
        let stats = Stats::new(&fixture::config(), 1);
        let (checked, unchecked) = (ClusterId(0), ClusterId(1));
        assert_eq!(stats.probe(checked, EndpointId(0)).unwrap().state, ProbeState::Unknown);
        stats.record_probe(checked, EndpointId(0), Ok(()), ProbeState::Healthy, Instant::from_nanos(5));
        stats.record_probe(
            checked,
            EndpointId(0),
            Err(crate::observe::labels::FailureReason::Timeout.into()),
            ProbeState::Healthy,
            Instant::from_nanos(7),
        );
        stats.record_probe(unchecked, EndpointId(0), Ok(()), ProbeState::Healthy, Instant::from_nanos(5));
        let view = stats.probe(checked, EndpointId(0)).unwrap();
        assert_eq!((view.passed, view.failed(), view.checked), (1, 1, Some(Instant::from_nanos(7))));
        assert_eq!(stats.probe(unchecked, EndpointId(0)), None);
    }
}
