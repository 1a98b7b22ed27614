//! The worker's pen: every number that a worker counts goes through its [`Recorder`].
//!
//! One call per event, each a handful of ordinary loads and stores on memory that only this worker writes. Nothing allocates once a
//! route, cluster or (route, method, status) was seen for the first time.
//!
//! Each life of a worker writes memory of its own: one that was replaced finishes what it has, and counts it, beside its successor
//! ([`Stats::recorder`]). What a life counts about itself goes through its [`Life`]; a `Recorder` is that life under one configuration,
//! whose ids it is told, and the next configuration has the next one ([`Recorder::under`]).
//!
//! What this does not do: decide anything, or read a clock.

mod connections;

use super::counter::Rows;
use super::labels::{
    AttemptOutcome, DriverRung, EjectReason, EndpointState, HandshakeFailure, Http2Failure, MethodLabel, ReadmitReason,
    RetryReason, TrafficEvent,
};
use super::stats::{
    CallMethod, ClusterStats, EndpointStats, LifeStats, LimitStats, ListenerStats, RequestKey, RouteStats, Stats,
    Tenure,
};
use super::usage::{Usage, UsageIndex, UsageKey};
use crate::error::ProxyError;
use crate::limits;
use crate::units::{self, ClusterId, EndpointId, Instant, ListenerId, Ratio, RouteId, WorkerId};
use http::StatusCode;
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// One request that is over, however it ended.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// `None`: it matched no route, or was never understood.
    pub route: Option<RouteId>,
    /// [`MethodLabel::Other`] when it was never understood.
    pub method: MethodLabel,
    /// What was answered; 499 when nobody was left to answer.
    pub status: StatusCode,
    /// The gateway's own verdict; `None` when the upstream's response (of any status) was passed on whole, or the route answers
    /// itself.
    pub error: Option<ProxyError>,
    /// From the request's first byte to the end of the response.
    pub duration: Duration,
    /// Head and body.
    pub request_bytes: u64,
    /// Head and body.
    pub response_bytes: u64,
    /// The client after trusted proxies; `None`: unix socket.
    pub client: Option<IpAddr>,
    /// The consumer that was recognised.
    pub consumer: Option<ConsumerKey>,
}

/// Whom a request is counted for besides its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerKey {
    /// Of the name ([`crate::config::Consumer::number`]).
    pub number: u64,
    /// Whether it has counters of its own.
    pub is_labelled: bool,
}

/// What a worker thinks of an endpoint now.
#[derive(Clone, Copy, Debug)]
pub struct EndpointGauges {
    /// May it get requests?
    pub state: EndpointState,
    /// End of its ejection or pause; looked at only in [`EndpointState::Ejected`] and [`EndpointState::Paused`].
    pub ejected_until: Instant,
    /// Requests of this worker.
    pub in_flight: u32,
    /// Decayed share of successes.
    pub availability: Ratio,
}

/// One worker's writing access to its numbers under one configuration; see [`Stats::recorder`]. It stays on one thread.
pub struct Recorder {
    stats: Arc<Stats>,
    life: Rc<Life>,
    /// [`RequestKey::pack`] to the slot of its counter.
    requests: RefCell<FxHashMap<u64, u32>>,
}

/// One worker's writing access to what it counts about itself, whatever the configuration.
pub struct Life {
    worker: WorkerId,
    tenure: Tenure,
    /// What only the worker needs to find its counters.
    usage: RefCell<UsageIndex>,
    /// The slots of consumers, by number.
    consumers: RefCell<FxHashMap<u64, u32>>,
}

impl Deref for Recorder {
    type Target = Life;

    fn deref(&self) -> &Life {
        &self.life
    }
}

impl Recorder {
    pub(crate) fn new(stats: Arc<Stats>, worker: WorkerId, tenure: Tenure) -> Self {
        let secret = RandomState::new().hash_one(worker);
        let memory = tenure.memory().expect("it has just begun");
        let usage = RefCell::new(UsageIndex::new(&memory.usage, limits::USAGE_CLIENTS, secret));
        Self {
            stats,
            life: Rc::new(Life { worker, tenure, usage, consumers: RefCell::default() }),
            requests: RefCell::default(),
        }
    }

    /// The same life under another configuration, to which `stats` belongs.
    #[must_use]
    pub fn under(life: &Rc<Life>, stats: Arc<Stats>) -> Self {
        Self { stats, life: Rc::clone(life), requests: RefCell::default() }
    }

    /// What is counted of this life whatever the configuration.
    #[must_use]
    pub fn life(&self) -> &Rc<Life> {
        &self.life
    }

    #[inline]
    fn part<'r, T>(&self, parts: &'r Rows<T>, make: impl FnOnce() -> T) -> Option<&'r T> {
        Some(parts.touch(self.life.tenure.part()?, make))
    }

    #[inline]
    fn route(&self, row: usize) -> Option<&RouteStats> {
        self.part(self.stats.route_parts(row), RouteStats::new)
    }

    #[inline]
    fn cluster(&self, cluster: ClusterId) -> Option<&ClusterStats> {
        self.part(self.stats.cluster_parts(cluster), ClusterStats::new)
    }

    #[inline]
    fn endpoint(&self, cluster: ClusterId, endpoint: EndpointId) -> Option<&EndpointStats> {
        self.part(self.stats.endpoint_parts(cluster, endpoint), EndpointStats::new)
    }

    #[inline]
    fn listener(&self, listener: ListenerId) -> Option<&ListenerStats> {
        self.part(self.stats.listener_parts(listener), ListenerStats::default)
    }

    /// Counts a request that is over: `requests_total`, its duration, `rejected_total` when it has an error token, and usage.
    pub fn finished(&self, finished: &Finished) {
        let Some(memory) = self.life.tenure.memory() else { return };
        let row = self.stats.row_of(finished.route);
        let Some(route) = self.route(row) else { return };
        let nanos = units::nanos(finished.duration);
        let bytes = finished.request_bytes.saturating_add(finished.response_bytes);
        let errors = u64::from(finished.status.as_u16() >= 400);

        route.duration.observe(nanos);
        route.bytes.add(bytes);
        route.errors.add(errors);
        if let Some(error) = finished.error {
            route.rejected[error as usize].add(1);
        }
        // Rows are bounded by ROUTES_MAX, which is less than 2^32.
        let key = RequestKey { route: row as u32, method: finished.method as u8, status: finished.status.as_u16() };
        count_request((memory, route), &mut self.requests.borrow_mut(), key.pack());
        if let Some(consumer) = finished.consumer {
            count_consumer(memory, &mut self.life.consumers.borrow_mut(), consumer, bytes);
        }
        let usage = Usage { requests: 1, errors, bytes, latency_nanos: nanos };
        // by the number of its name: rows change with the configuration, and the table does not
        let number = Some(RouteId(self.stats.number_of(row)));
        let pair = UsageKey {
            route: number,
            client: finished.client.into(),
            consumer: finished.consumer.map_or(0, |it| it.number),
        };
        self.life.usage.borrow_mut().record(&memory.usage, pair, &usage);
    }

    /// The method that a call of this path is counted under.
    #[must_use]
    pub fn call_method(&self, route: RouteId, path: &str) -> CallMethod {
        self.route(route.index()).map_or(CallMethod::Other, |route| route.calls.method(path))
    }

    /// Counts a call of gRPC that is over (`grpc_requests_total`). `code`: what its client was told; `heard`: it is a service's word.
    pub fn call_finished(&self, route: Option<RouteId>, method: CallMethod, code: Option<u8>, heard: bool) {
        if let Some(route) = self.route(self.stats.row_of(route)) {
            route.calls.count(method, code, heard);
        }
    }

    /// Counts a request that a limit has rejected, or would have if it were not in dry run (`limited_total`).
    pub fn limited(&self, limit: usize, dry_run: bool) {
        if let Some(limit) = self.part(&self.stats.limit_rows()[limit].parts, LimitStats::default) {
            if dry_run { limit.dry_run.add(1) } else { limit.rejected.add(1) }
        }
    }

    /// Counts a request that a limit in dry run would have rejected (`rejected_total`, reason `rate_limited_dry_run`).
    pub fn rate_limited_dry_run(&self, route: RouteId) {
        if let Some(route) = self.route(route.index()) {
            route.rate_limited_dry_run.add(1);
        }
    }

    /// Counts a request that rules in dry run would have refused (`rejected_total`, reason `forbidden_dry_run`).
    pub fn forbidden_dry_run(&self, route: RouteId) {
        if let Some(route) = self.route(route.index()) {
            route.forbidden_dry_run.add(1);
        }
    }

    /// Counts a request that somebody else has refused who was asked (`rejected_total`, reason `forward_auth`).
    pub fn refused_elsewhere(&self, route: RouteId) {
        if let Some(route) = self.route(route.index()) {
            route.refused_elsewhere.add(1);
        }
    }

    /// Counts something that was done with a route's traffic beyond passing it on.
    pub fn traffic(&self, route: RouteId, event: TrafficEvent) {
        if let Some(route) = self.route(route.index()) {
            route.traffic[event.index()].add(1);
        }
    }

    /// Counts one attempt that is over. `elapsed` runs from its start to the response head, or to its failure; it is not counted
    /// into the duration when that says nothing about the upstream: the attempt was cancelled, or met a connection that was closed.
    pub fn attempt(&self, cluster: ClusterId, endpoint: EndpointId, outcome: AttemptOutcome, elapsed: Duration) {
        if let Some(endpoint) = self.endpoint(cluster, endpoint) {
            endpoint.attempts[outcome.index()].add(1);
        }
        if outcome.is_timed()
            && let Some(cluster) = self.cluster(cluster)
        {
            cluster.duration.observe(units::nanos(elapsed));
        }
    }

    /// Counts a retry that is being made, by what went wrong before.
    pub fn retry(&self, cluster: ClusterId, reason: RetryReason) {
        if let Some(cluster) = self.cluster(cluster) {
            cluster.retries[reason.index()].add(1);
        }
    }

    /// Counts a pooled connection that was closed when a request was sent on it.
    pub fn stale_connection(&self, cluster: ClusterId) {
        if let Some(cluster) = self.cluster(cluster) {
            cluster.connections_stale.add(1);
        }
    }

    /// Counts a retry that was not made because the cluster's budget did not grant it.
    pub fn retry_budget_exhausted(&self, cluster: ClusterId) {
        if let Some(cluster) = self.cluster(cluster) {
            cluster.budget_exhausted.add(1);
        }
    }

    /// Counts a request that goes on to another endpoint because it could not be sent to the one before.
    pub fn failover(&self, cluster: ClusterId) {
        if let Some(cluster) = self.cluster(cluster) {
            cluster.failovers.add(1);
        }
    }

    /// Counts an ejection, or a pause.
    pub fn ejected(&self, cluster: ClusterId, endpoint: EndpointId, reason: EjectReason) {
        if let Some(endpoint) = self.endpoint(cluster, endpoint) {
            endpoint.ejections[reason.index()].add(1);
        }
    }

    /// Takes down why there is no session with an endpoint.
    pub fn endpoint_handshake_failed(
        &self,
        cluster: ClusterId,
        endpoint: EndpointId,
        reason: HandshakeFailure,
        now: Instant,
    ) {
        self.stats.record_handshake_failure(cluster, endpoint, reason, now);
    }

    /// Counts what an endpoint has done to connections of HTTP/2.
    pub fn http2_failed(&self, cluster: ClusterId, endpoint: EndpointId, failure: Http2Failure, times: u64) {
        if let Some(endpoint) = self.endpoint(cluster, endpoint) {
            endpoint.http2_failures[failure.index()].add(times);
        }
    }

    /// Counts an ejection that was not made because too few endpoints would have been left.
    pub fn ejection_refused(&self, cluster: ClusterId, endpoint: EndpointId, reason: EjectReason) {
        if let Some(endpoint) = self.endpoint(cluster, endpoint) {
            endpoint.refused[reason.index()].add(1);
        }
    }

    /// Counts the beginning of a shunning.
    pub fn shunned(&self, cluster: ClusterId, endpoint: EndpointId, reason: EjectReason) {
        if let Some(endpoint) = self.endpoint(cluster, endpoint) {
            endpoint.shunnings[reason.index()].add(1);
        }
    }

    /// Counts a return.
    pub fn readmitted(&self, cluster: ClusterId, endpoint: EndpointId, reason: ReadmitReason) {
        if let Some(endpoint) = self.endpoint(cluster, endpoint) {
            endpoint.readmissions[reason.index()].add(1);
        }
    }

    /// Publishes what this worker thinks of an endpoint: at start, whenever it changes, and now and then (each second, say) for
    /// the numbers that drift.
    pub fn publish_endpoint(&self, cluster: ClusterId, endpoint: EndpointId, gauges: &EndpointGauges) {
        let Some(stats) = self.endpoint(cluster, endpoint) else { return };
        stats.ejected_until.set(gauges.ejected_until.as_nanos());
        stats.in_flight.set(u64::from(gauges.in_flight));
        // A share in [0, 1] has at most a million millionths.
        stats.availability.set((gauges.availability.get() * 1e6).round() as u64);
        stats.state.set(gauges.state.index() as u64 + 1);
    }

    /// Publishes the pooled connections of a cluster on this worker: waiting, and carrying a request.
    pub fn publish_upstream_connections(&self, cluster: ClusterId, idle: usize, active: usize) {
        let Some(cluster) = self.cluster(cluster) else { return };
        cluster.connections_idle.set(idle as u64);
        cluster.connections_active.set(active as u64);
    }
}

impl Life {
    /// This life's memory; `None` when it is another's by now.
    #[inline]
    fn memory(&self) -> Option<&LifeStats> {
        self.tenure.memory()
    }

    /// What gives the memory back when the worker ends, also if it leaves something behind that has this.
    #[must_use]
    pub fn tenure(&self) -> Tenure {
        self.tenure.copy()
    }

    /// The worker that this one writes for.
    #[must_use]
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// Says which event loop this worker runs on.
    pub fn driver(&self, rung: DriverRung) {
        if let Some(memory) = self.memory() {
            memory.event_loop.driver.set(rung.index() as u64);
        }
    }

    /// Counts a turn of the event loop at `now`.
    pub fn turn(&self, now: Instant) {
        let Some(LifeStats { event_loop, .. }) = self.memory() else { return };
        event_loop.turns.add(1);
        event_loop.last_turn.set(now.as_nanos().max(1));
    }

    /// Counts a panic that was caught, in a connection or in one of the worker's own tasks.
    pub fn panic_caught(&self) {
        if let Some(memory) = self.memory() {
            memory.event_loop.panics.add(1);
        }
    }

    /// Counts an access log line that found no room in the ring.
    pub fn log_line_dropped(&self) {
        if let Some(memory) = self.memory() {
            memory.event_loop.log_lines_dropped.add(1);
        }
    }

    /// Publishes how many clients the table of rate limits has forgotten to make room for others. One worker does: it is one table for all.
    pub fn publish_limit_evictions(&self, evictions: u64) {
        if let Some(memory) = self.memory() {
            memory.event_loop.limit_evictions.set(evictions);
        }
    }

    /// Publishes the bytes of read blocks that are lent out and that are kept for reuse.
    pub fn publish_buffers(&self, in_use_bytes: usize, kept_bytes: usize) {
        let Some(LifeStats { event_loop, .. }) = self.memory() else { return };
        event_loop.buffers_in_use_bytes.set(in_use_bytes as u64);
        event_loop.buffers_kept_bytes.set(kept_bytes as u64);
    }
}

/// Counts one request of `route` under its packed key; in the common rest when there is no room for another key.
fn count_request((memory, route): (&LifeStats, &RouteStats), slots: &mut FxHashMap<u64, u32>, key: u64) {
    if let Some(&slot) = slots.get(&key) {
        route.requests.slot(slot as usize).count.add(1);
        return;
    }
    let kind = RequestKey::kind(key);
    // another configuration of the same life may have counted it, and a life before this one
    let known = route.requests.iter().position(|slot| slot.key.get() == kind);
    let slot = match known {
        Some(slot) => u32::try_from(slot).ok(),
        None if slots.len() >= limits::REQUEST_COUNTERS_MAX => None,
        None => route.requests.append(|slot| slot.key.set(kind)),
    };
    match slot {
        Some(slot) => {
            route.requests.slot(slot as usize).count.add(1);
            slots.insert(key, slot);
        }
        None => memory.requests_other.add(1),
    }
}

/// Counts one request of a consumer; among the others when it has no counters of its own.
fn count_consumer(memory: &LifeStats, slots: &mut FxHashMap<u64, u32>, consumer: ConsumerKey, bytes: u64) {
    let ConsumerKey { number, is_labelled } = consumer;
    let slot = slots.get(&number).copied().or_else(|| {
        // a life before this one may have counted it
        let known = memory.consumers.iter().position(|slot| slot.number.get() == number);
        let slot = match known {
            Some(slot) => u32::try_from(slot).ok(),
            None if is_labelled => memory.consumers.append(|slot| slot.number.set(number)),
            None => None,
        };
        slot.inspect(|slot| {
            slots.insert(number, *slot);
        })
    });
    let cells = slot.map_or(&memory.consumers_other, |slot| memory.consumers.slot(slot as usize));
    cells.requests.add(1);
    cells.bytes.add(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Route;
    use crate::observe::fixture;
    use crate::observe::stats::RequestSlot;
    use crate::observe::usage::ClientKey;

    const CLUSTER: ClusterId = ClusterId(0);
    const ENDPOINT: EndpointId = EndpointId(1);

    fn finished(route: Option<RouteId>, status: u16) -> Finished {
        Finished {
            route,
            method: MethodLabel::Get,
            status: StatusCode::from_u16(status).unwrap(),
            error: None,
            duration: Duration::from_millis(3),
            request_bytes: 100,
            response_bytes: 900,
            client: Some("192.0.2.1".parse().unwrap()),
            consumer: None,
        }
    }

    #[test]
    fn consumers_are_counted_apart_as_far_as_they_have_labels() {
        let stats = Stats::new(&fixture::config(), 1);
        let recorder = stats.recorder(WorkerId(0));
        for (number, is_labelled) in [(7, true), (7, true), (8, true), (9, false), (10, false)] {
            let consumer = Some(ConsumerKey { number, is_labelled });
            recorder.finished(&Finished { consumer, ..finished(Some(RouteId(0)), 200) });
        }
        let sums = stats.consumers();
        assert_eq!(sums.by_number.get(&7), Some(&(2, 2_000)));
        assert_eq!((sums.by_number.get(&8), sums.by_number.len()), (Some(&(1, 1_000)), 2));
        assert_eq!(sums.others, (2, 2_000));
        assert_eq!(stats.usage().keys().filter(|key| key.consumer > 0).count(), 4, "usage knows all of them");
    }

    fn requests(stats: &Stats, worker: usize) -> Vec<(RequestKey, u64)> {
        let key = |slot: &RequestSlot, route| RequestKey { route, ..RequestKey::unpack(slot.key.get()) };
        let part = worker * limits::WORKER_LIVES_MAX;
        let of = |row| stats.route_parts(row as usize).get(part).map(move |route| (row, route));
        let slots = (0..3).filter_map(of).flat_map(|(row, route)| route.requests.iter().map(move |slot| (row, slot)));
        slots.map(|(row, slot)| (key(slot, row), slot.count.get())).collect()
    }

    #[test]
    fn a_finished_request_is_counted_in_every_place() {
        let stats = Stats::new(&fixture::config(), 2);
        let recorders = [stats.recorder(WorkerId(0)), stats.recorder(WorkerId(1))];
        recorders.iter().for_each(|recorder| recorder.finished(&finished(Some(RouteId(1)), 200)));
        recorders[0].finished(&Finished { error: Some(ProxyError::RateLimited), ..finished(Some(RouteId(1)), 429) });

        let route = stats.route(Some(RouteId(1)));
        assert_eq!(route.usage(), Usage { requests: 3, errors: 1, bytes: 3000, latency_nanos: 9_000_000 });
        assert_eq!(route.rejected[ProxyError::RateLimited as usize], 1);
        assert_eq!(route.rejected.iter().sum::<u64>(), 1);
        assert_eq!(stats.route(Some(RouteId(0))).duration.count(), 0);
        let client = ClientKey::V4("192.0.2.1".parse().unwrap());
        assert_eq!(stats.usage()[&UsageKey { route: Some(RouteId(1)), client, consumer: 0 }], route.usage());
        let key = |status| RequestKey { route: 1, method: MethodLabel::Get as u8, status };
        assert_eq!(requests(&stats, 0), [(key(200), 1), (key(429), 1)]);
        assert_eq!(requests(&stats, 1), [(key(200), 1)]);
    }

    #[test]
    fn requests_without_a_route_have_their_own_row() {
        let stats = Stats::new(&fixture::config(), 1);
        let recorder = stats.recorder(WorkerId(0));
        recorder.finished(&Finished { error: Some(ProxyError::BadRequest), client: None, ..finished(None, 400) });
        assert_eq!(stats.route(None).rejected[ProxyError::BadRequest as usize], 1);
        assert_eq!(stats.usage()[&UsageKey { route: None, client: ClientKey::None, consumer: 0 }].errors, 1);
    }

    #[test]
    fn request_keys_beyond_the_bound_are_counted_together() {
        let stats = Stats::new(&fixture::config(), 1);
        let (memory, route) = (stats.current(0), RouteStats::new());
        let mut slots = FxHashMap::default();
        let max = limits::ROUTE_REQUEST_COUNTERS_MAX as u64;
        (0..max + 10).for_each(|key| count_request((memory, &route), &mut slots, key));
        (0..5).for_each(|key| count_request((memory, &route), &mut slots, key));
        assert_eq!(route.requests.len() as u64, max);
        assert_eq!(memory.requests_other.get(), 10);
        assert_eq!(route.requests.slot(4).count.get(), 2);
        let others = (0..limits::REQUEST_COUNTERS_MAX as u64).map(|key| (u64::MAX - key, 0));
        let mut full: FxHashMap<_, _> = others.collect();
        count_request((memory, &RouteStats::new()), &mut full, 0);
        assert_eq!(memory.requests_other.get(), 11, "of all routes together");
    }

    #[test]
    fn attempts_retries_and_ejections_are_counted_where_they_belong() {
        let stats = Stats::new(&fixture::config(), 1);
        let recorder = stats.recorder(WorkerId(0));
        recorder.attempt(CLUSTER, ENDPOINT, AttemptOutcome::Success, Duration::from_millis(2));
        recorder.attempt(CLUSTER, ENDPOINT, AttemptOutcome::Timeout, Duration::from_millis(500));
        recorder.attempt(CLUSTER, ENDPOINT, AttemptOutcome::Cancelled, Duration::from_millis(1));
        recorder.retry(CLUSTER, RetryReason::Timeout);
        recorder.retry_budget_exhausted(CLUSTER);
        recorder.ejected(CLUSTER, ENDPOINT, EjectReason::Consecutive);
        let view = stats.endpoint(CLUSTER, ENDPOINT);
        assert_eq!((view.attempts_total(), view.failures_total()), (3, 1));
        assert_eq!(view.ejections[EjectReason::Consecutive.index()], 1);
        assert_eq!(stats.endpoint(CLUSTER, EndpointId(0)).attempts_total(), 0);
        let cluster = stats.cluster_parts(CLUSTER).get(0).unwrap();
        let mut durations = crate::observe::histogram::HistogramSum::default();
        durations.add(&cluster.duration);
        assert_eq!(durations.count(), 2, "a cancelled attempt has no duration");
        assert_eq!(cluster.retries[RetryReason::Timeout.index()].get(), 1);
        assert_eq!(cluster.budget_exhausted.get(), 1);
    }

    #[test]
    fn an_endpoint_s_state_is_merged_over_the_workers_that_spoke() {
        let stats = Stats::new(&fixture::config(), 3);
        assert_eq!(stats.endpoint(CLUSTER, ENDPOINT).available_share(), 1.0);
        let gauges = |state, until, availability| EndpointGauges {
            state,
            ejected_until: Instant::from_nanos(until),
            in_flight: 2,
            availability: Ratio::try_new(availability).unwrap(),
        };
        let recorders = [0, 1].map(|worker| stats.recorder(WorkerId(worker)));
        recorders[0].publish_endpoint(CLUSTER, ENDPOINT, &gauges(EndpointState::Ejected, 70, 0.0));
        recorders[1].publish_endpoint(CLUSTER, ENDPOINT, &gauges(EndpointState::Ramping, 90, 0.5));
        let view = stats.endpoint(CLUSTER, ENDPOINT);
        assert_eq!((view.workers, view.workers_available, view.in_flight), (2, 1, 4));
        assert_eq!(view.ejected_until, Some(Instant::from_nanos(70)));
        assert_eq!(view.availability, Some(0.25));
        assert_eq!(view.states[EndpointState::Ejected.index()], 1);
    }

    #[test]
    fn a_restarted_worker_keeps_its_counters_and_clears_its_gauges() {
        let stats = Stats::new(&fixture::config(), 1);
        let first = stats.recorder(WorkerId(0));
        first.connection_accepted(ListenerId(0));
        first.connection_opened(ListenerId(0));
        first.finished(&finished(Some(RouteId(0)), 200));
        first.publish_upstream_connections(CLUSTER, 3, 4);
        drop(first);
        let second = stats.recorder(WorkerId(0));
        second.connection_closed(ListenerId(0));
        second.finished(&finished(Some(RouteId(0)), 200));
        let listener = stats.listener_parts(ListenerId(0)).get(0).unwrap();
        assert_eq!((listener.connections.get(), listener.accepted.get()), (0, 1));
        assert_eq!(stats.cluster_parts(CLUSTER).get(0).unwrap().connections_active.get(), 0);
        let key = RequestKey { route: 0, method: MethodLabel::Get as u8, status: 200 };
        assert_eq!(requests(&stats, 0), [(key, 2)]);
        assert_eq!(stats.usage().len(), 1);
    }

    #[test]
    fn one_that_was_replaced_counts_beside_its_successor_and_has_no_say_any_more() {
        let stats = Stats::new(&fixture::config(), 1);
        let gauges = EndpointGauges {
            state: EndpointState::Ejected,
            ejected_until: Instant::from_nanos(9),
            in_flight: 1,
            availability: Ratio::ONE,
        };
        let stalled = stats.recorder(WorkerId(0));
        stalled.turn(Instant::from_nanos(5));
        stalled.connection_opened(ListenerId(0));
        stalled.publish_endpoint(CLUSTER, ENDPOINT, &gauges);
        let successor = stats.recorder(WorkerId(0));
        successor.connection_opened(ListenerId(0));
        let connections =
            || stats.listener_parts(ListenerId(0)).touched().map(|listener| listener.connections.get()).sum::<u64>();
        assert_eq!(connections(), 2);
        assert_eq!(stats.worker(WorkerId(0)).last_turn, None, "that of the one who works");
        for recorder in [&stalled, &successor] {
            recorder.finished(&finished(Some(RouteId(0)), 200));
            recorder.attempt(CLUSTER, ENDPOINT, AttemptOutcome::Success, Duration::ZERO);
        }
        assert_eq!(stats.route(Some(RouteId(0))).usage().requests, 2);
        let view = stats.endpoint(CLUSTER, ENDPOINT);
        assert_eq!((view.attempts_total(), view.in_flight, view.workers), (2, 1, 0));
        stalled.connection_closed(ListenerId(0));
        drop(stalled);
        assert_eq!((connections(), stats.endpoint(CLUSTER, ENDPOINT).in_flight), (1, 0));
        assert_eq!(stats.route(Some(RouteId(0))).usage().requests, 2, "what it has counted stays");
    }

    #[test]
    fn names_keep_their_numbers_when_their_rows_change_and_return_to_them() {
        let first = fixture::config();
        let (mut turned, mut fewer) = ((*first).clone(), (*first).clone());
        turned.routes = first.routes.iter().rev().cloned().collect();
        Arc::make_mut(&mut turned.clusters[0]).endpoints.reverse();
        fewer.routes = [Route { name: "new".into(), ..first.routes[0].clone() }].into();
        Arc::make_mut(&mut fewer.clusters[0]).endpoints.truncate(1);
        let stats = Stats::new(&first, 1);
        let old = stats.recorder(WorkerId(0));
        let count = |recorder: &Recorder, route, endpoint| {
            recorder.finished(&finished(Some(RouteId(route)), 200));
            recorder.attempt(CLUSTER, EndpointId(endpoint), AttemptOutcome::Success, Duration::ZERO);
        };
        count(&old, 0, 0);
        let second = stats.succeed(&Arc::new(turned));
        let new = Recorder::under(old.life(), Arc::clone(&second));
        count(&new, 1, 1);
        count(&old, 0, 0);
        let of = |stats: &Stats, route, endpoint| {
            let requests = stats.route(Some(RouteId(route))).usage().requests;
            (requests, stats.endpoint(CLUSTER, EndpointId(endpoint)).attempts_total(), stats.usage().len())
        };
        assert_eq!((of(&stats, 0, 0), of(&second, 1, 1), of(&second, 0, 0)), ((3, 3, 1), (3, 3, 1), (0, 0, 1)));
        let client = ClientKey::V4("192.0.2.1".parse().unwrap());
        assert_eq!(second.usage()[&UsageKey { route: Some(RouteId(1)), client, consumer: 0 }].requests, 3);
        assert_eq!(requests(&second, 0).iter().map(|(key, count)| (key.route, *count)).collect::<Vec<_>>(), [(1, 3)]);
        let third = second.succeed(&Arc::new(fewer));
        assert_eq!((of(&third, 0, 0), third.usage().len()), ((0, 3, 0), 0), "what is gone is not shown");
        count(&new, 1, 1);
        let fourth = third.succeed(&first);
        assert_eq!(of(&fourth, 0, 0), (4, 4, 1), "and goes on when it returns");
    }
}
