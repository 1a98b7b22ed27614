//! The gateway's numbers: who writes them, where they lie.
//!
//! Each life of a worker has its own memory, which only it writes (through its [`Recorder`]) and which the control thread adds up on a
//! scrape: a worker that was replaced finishes what it has beside its successor, and both count (`lives`).
//! What is per route, cluster or endpoint is made when it is first used: a route without traffic costs pointers. What the control
//! thread and the log writer know themselves (states of workers, results of health checks, lines written) stands beside it.
//!
//! Ids are rows of one configuration's tables, and so are the tables of one `Stats`. The numbers themselves belong to names: the next
//! configuration's `Stats` ([`Stats::succeed`]) has the same ones in other rows (`keys`), both count into them as long as both are in
//! use, and no counter goes back.
//!
//! Requests that matched no route are counted in a row of their own, whose `route` label is `-`.
//!
//! Architecture invariant: no lock and no read-modify-write on a worker's memory; a scrape never waits for a worker, nor a worker
//! for a scrape.

mod calls;
mod cells;
mod keys;
mod lives;
mod names;
mod probe;
mod reloads;
mod view;

pub use calls::CallMethod;
pub(crate) use calls::OUTCOMES;
#[cfg(test)]
pub(crate) use cells::RequestSlot;
pub(crate) use cells::{ClusterStats, EndpointStats, LimitStats, ListenerStats, LoopStats, RequestKey, RouteStats};
pub(crate) use keys::LimitRow;
pub(crate) use lives::LifeStats;
pub use lives::Tenure;
pub use names::NameView;
pub use probe::Failure;
pub(crate) use reloads::Reloads;
pub use view::{ConsumerSums, EndpointView, ProbeView, RouteView, WorkerView};

use super::counter::{Counter, Rows};
use super::labels::{EjectReason, EndpointState, HandshakeFailure, ProbeState, ReadmitReason, WorkerState};
use super::recorder::Recorder;
use super::usage::{Usage, UsageKey};
use crate::config::Config;
use crate::limits::{self, WORKER_LIVES_MAX};
use crate::units::{ClusterId, EndpointId, Instant, ListenerId, RouteId, WorkerId};
use keys::{ClusterRow, EndpointRow, Keys, RouteRow, Rowed};
use lives::WorkerMemory;
use probe::ProbeCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// The `route` label of requests that matched no route.
pub const NO_ROUTE: &str = "-";

/// All numbers, in the rows of one configuration.
#[derive(Debug)]
pub struct Stats {
    /// What the numbers are about.
    pub(crate) config: Arc<Config>,
    hub: Arc<Hub>,
    pub(crate) control: Arc<ControlStats>,
    /// One row a route, and a last one for requests without a route.
    routes: Arc<[RouteRow]>,
    clusters: Vec<Arc<ClusterRow>>,
    listeners: Arc<[Rows<ListenerStats>]>,
    limits: Arc<[LimitRow]>,
}

/// What the numbers of all configurations have in common.
#[derive(Debug)]
pub(crate) struct Hub {
    workers: Box<[WorkerMemory]>,
    #[expect(
        clippy::disallowed_types,
        reason = "taken with each configuration and each life of a worker, never by a request"
    )]
    keys: std::sync::Mutex<Keys>,
}

impl Hub {
    #[expect(clippy::disallowed_types, reason = "as above")]
    fn new(workers: usize) -> Arc<Self> {
        let keys = std::sync::Mutex::new(Keys::new(workers * WORKER_LIVES_MAX));
        Arc::new(Self { workers: (0..workers).map(|_| WorkerMemory::new()).collect(), keys })
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, Keys> {
        // a panic while it is held leaves tables that are whole
        self.keys.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What is known outside the workers. Several threads may write it, rarely.
#[derive(Debug)]
pub(crate) struct ControlStats {
    pub(crate) workers: Box<[WorkerLife]>,
    pub(crate) reloads: Reloads,
    names: names::Names,
    pub(crate) redis_answers: AtomicU64,
    pub(crate) redis_failures: AtomicU64,
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

impl ControlStats {
    /// Takes down what is known of a name.
    pub(crate) fn set_name(&self, view: NameView) {
        self.names.set(view);
    }

    /// Forgets names that no endpoint has any more.
    pub(crate) fn forget_names(&self, is_kept: impl Fn(&str) -> bool) {
        self.names.retain(is_kept);
    }
}

impl Stats {
    /// Memory for `workers` workers under `config`.
    ///
    /// # Panics
    /// When `workers` is 0 or more than [`limits::WORKERS_MAX`].
    #[must_use]
    pub fn new(config: &Arc<Config>, workers: usize) -> Arc<Self> {
        assert!((1..=limits::WORKERS_MAX).contains(&workers), "{workers} workers");
        let control = ControlStats {
            workers: (0..workers).map(|_| WorkerLife::default()).collect(),
            reloads: Reloads::default(),
            names: names::Names::default(),
            redis_answers: AtomicU64::new(0),
            redis_failures: AtomicU64::new(0),
            log_lines_written: AtomicU64::new(0),
            log_write_errors: AtomicU64::new(0),
            log_lines_lost: AtomicU64::new(0),
        };
        Self::of(config, Hub::new(workers), Arc::new(control))
    }

    /// The same numbers in the rows of `config`: what it names as this one does goes on.
    #[must_use]
    pub fn succeed(&self, config: &Arc<Config>) -> Arc<Self> {
        Self::of(config, Arc::clone(&self.hub), Arc::clone(&self.control))
    }

    /// The same numbers for `config`, which differs from this one's in the endpoints of these clusters only.
    #[must_use]
    pub fn with_endpoints(&self, config: &Arc<Config>, changed: &[ClusterId]) -> Arc<Self> {
        let mut clusters = self.clusters.clone();
        let mut keys = self.hub.keys();
        for row in changed.iter().map(|id| id.index()) {
            clusters[row] = Arc::new(keys.replace(&self.config.clusters[row], &config.clusters[row]));
        }
        drop(keys);
        Arc::new(Self {
            config: Arc::clone(config),
            hub: Arc::clone(&self.hub),
            control: Arc::clone(&self.control),
            routes: Arc::clone(&self.routes),
            listeners: Arc::clone(&self.listeners),
            limits: Arc::clone(&self.limits),
            clusters,
        })
    }

    fn of(config: &Arc<Config>, hub: Arc<Hub>, control: Arc<ControlStats>) -> Arc<Self> {
        let Rowed { routes, clusters, listeners, limits } = hub.keys().rows_of(config);
        Arc::new(Self { config: Arc::clone(config), hub, control, routes, clusters, listeners, limits })
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
        Recorder::new(Arc::clone(self), worker, Tenure::begin(&self.hub, worker.index()))
    }

    /// The memory of all lives of all workers: what is about them and not about the configuration.
    pub(crate) fn lives(&self) -> impl Iterator<Item = &LifeStats> {
        self.hub.workers.iter().flat_map(WorkerMemory::lives)
    }

    /// The same of one worker.
    pub(crate) fn lives_of(&self, worker: usize) -> impl Iterator<Item = &LifeStats> {
        self.hub.workers[worker].lives()
    }

    /// The memory of the life of a worker that has begun last.
    pub(crate) fn current(&self, worker: usize) -> &LifeStats {
        self.hub.workers[worker].current()
    }

    /// The part of each worker's life that has begun last.
    fn current_parts(&self) -> impl Iterator<Item = usize> {
        self.hub.workers.iter().enumerate().map(|(worker, memory)| worker * WORKER_LIVES_MAX + memory.current_index())
    }

    /// One row of the routes, as each life has counted it.
    pub(crate) fn route_parts(&self, row: usize) -> &Rows<RouteStats> {
        &self.routes[row].parts
    }

    /// One cluster, as each life has counted it.
    pub(crate) fn cluster_parts(&self, cluster: ClusterId) -> &Rows<ClusterStats> {
        &self.clusters[cluster.index()].parts
    }

    /// One endpoint, as each life has counted it.
    pub(crate) fn endpoint_parts(&self, cluster: ClusterId, endpoint: EndpointId) -> &Rows<EndpointStats> {
        &self.endpoint_row(cluster, endpoint).parts
    }

    /// The limits, in the order of [`Config::limit_names`], as each life has counted them.
    pub(crate) fn limit_rows(&self) -> &[LimitRow] {
        &self.limits
    }

    /// One listener, as each life has counted it.
    pub(crate) fn listener_parts(&self, listener: ListenerId) -> &Rows<ListenerStats> {
        &self.listeners[listener.index()]
    }

    fn endpoint_row(&self, cluster: ClusterId, endpoint: EndpointId) -> &EndpointRow {
        &self.clusters[cluster.index()].endpoints[endpoint.index()]
    }

    /// The number that stands for a route's name, whatever row it has.
    pub(crate) fn number_of(&self, row: usize) -> u32 {
        self.routes[row].number
    }

    /// Number of workers.
    #[must_use]
    pub fn workers_len(&self) -> usize {
        self.hub.workers.len()
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
        (0..self.hub.workers.len()).map(WorkerId::from_index)
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

    /// Takes down a handshake with an endpoint that has come to nothing.
    pub fn record_handshake_failure(
        &self,
        cluster: ClusterId,
        endpoint: EndpointId,
        reason: HandshakeFailure,
        now: Instant,
    ) {
        self.endpoint_row(cluster, endpoint).probe.record_handshake(reason, now);
    }

    /// Why the last handshake with an endpoint that came to nothing did, and when.
    #[must_use]
    pub fn handshake_failure(&self, cluster: ClusterId, endpoint: EndpointId) -> Option<(HandshakeFailure, Instant)> {
        self.endpoint_row(cluster, endpoint).probe.handshake()
    }

    /// Takes down a health check that could not be made for want of something of our own, and so says nothing.
    pub fn record_probe_exhausted(&self, cluster: ClusterId, endpoint: EndpointId) {
        if let Some(cell) = self.probe_cell(cluster, endpoint) {
            cell.record_exhausted();
        }
    }

    /// An operator has had an endpoint put aside, or readmitted.
    pub fn record_by_hand(&self, cluster: ClusterId, endpoint: EndpointId, is_ejected: bool) {
        let by_hand = &self.endpoint_row(cluster, endpoint).by_hand;
        let count = if is_ejected { &by_hand.ejections } else { &by_hand.readmissions };
        count.fetch_add(1, Relaxed);
    }

    /// What is known of a name; `None` where nobody has asked for it.
    #[must_use]
    pub fn name(&self, name: &str) -> Option<NameView> {
        self.control.names.get(name)
    }

    /// What is known of all names.
    #[must_use]
    pub fn names(&self) -> Vec<NameView> {
        self.control.names.views()
    }

    /// Health checks of one endpoint; `None` when its cluster has none.
    #[must_use]
    pub fn probe(&self, cluster: ClusterId, endpoint: EndpointId) -> Option<ProbeView> {
        self.probe_cell(cluster, endpoint).map(ProbeCell::view)
    }

    fn probe_cell(&self, cluster: ClusterId, endpoint: EndpointId) -> Option<&ProbeCell> {
        self.config.clusters[cluster.index()].health_check.as_ref()?;
        Some(&self.endpoint_row(cluster, endpoint).probe)
    }

    /// One endpoint over all workers now.
    #[must_use]
    pub fn endpoint(&self, cluster: ClusterId, endpoint: EndpointId) -> EndpointView {
        let mut view = EndpointView::default();
        // those of active checks, which know it once for all workers
        view.ejections[EjectReason::HealthCheck.index()] =
            self.probe_cell(cluster, endpoint).map_or(0, ProbeCell::downs);
        let by_hand = &self.endpoint_row(cluster, endpoint).by_hand;
        view.ejections[EjectReason::ByHand.index()] = by_hand.ejections.load(Relaxed);
        view.readmissions[ReadmitReason::ByHand.index()] = by_hand.readmissions.load(Relaxed);
        let mut millionths = 0;
        let parts = self.endpoint_parts(cluster, endpoint);
        for stats in parts.touched() {
            add_up(&mut view.attempts, &stats.attempts);
            add_up(&mut view.ejections, &stats.ejections);
            add_up(&mut view.refused, &stats.refused);
            add_up(&mut view.shunnings, &stats.shunnings);
            add_up(&mut view.readmissions, &stats.readmissions);
            add_up(&mut view.http2_failures, &stats.http2_failures);
            view.in_flight += stats.in_flight.get();
        }
        // a worker that was replaced has no say any more
        for stats in self.current_parts().filter_map(|part| parts.get(part)) {
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
        let mut rows = self.route_parts(row).touched().peekable();
        rows.peek()?;
        let mut view = RouteView::default();
        for stats in rows {
            view.duration.add(&stats.duration);
            view.errors += stats.errors.get();
            view.bytes += stats.bytes.get();
            view.rejected.iter_mut().zip(&stats.rejected).for_each(|(sum, n)| *sum += n.get());
            view.rate_limited_dry_run += stats.rate_limited_dry_run.get();
            view.forbidden_dry_run += stats.forbidden_dry_run.get();
            view.refused_elsewhere += stats.refused_elsewhere.get();
        }
        Some(view)
    }

    /// All followed (route, client) pairs of routes that the configuration has, summed over the workers.
    #[must_use]
    pub fn usage(&self) -> HashMap<UsageKey, Usage> {
        let mut sums = HashMap::new();
        self.lives().for_each(|life| life.usage.sum_into(&mut sums));
        let rows: HashMap<u32, usize> = self.routes.iter().zip(0..).map(|(route, row)| (route.number, row)).collect();
        let named = sums.into_iter().filter_map(|(key, usage)| {
            let row = *rows.get(&key.route?.0)?;
            let route = (row < self.config.routes.len()).then(|| RouteId::from_index(row));
            Some((UsageKey { route, ..key }, usage))
        });
        named.collect()
    }
}

impl Stats {
    /// Redis has answered what it was told, or has not.
    pub fn count_redis(&self, has_answered: bool) {
        let count = if has_answered { &self.control.redis_answers } else { &self.control.redis_failures };
        count.fetch_add(1, Relaxed);
    }

    /// What consumers have used, over all workers.
    #[must_use]
    pub fn consumers(&self) -> ConsumerSums {
        let mut sums = ConsumerSums::default();
        for life in self.lives() {
            let other = &life.consumers_other;
            sums.others = (sums.others.0 + other.requests.get(), sums.others.1 + other.bytes.get());
            for slot in life.consumers.iter() {
                let sum = sums.by_number.entry(slot.number.get()).or_default();
                *sum = (sum.0 + slot.requests.get(), sum.1 + slot.bytes.get());
            }
        }
        sums
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
