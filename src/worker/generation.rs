//! A worker under one configuration: everything that follows from that, over what does not ([`Worker`]).
//!
//! A request pins the generation that it begins under ([`Pinned`]) and ends under it, whatever comes meanwhile; the next request on the same
//! connection reads anew which one is in use. So ids, which are rows of one configuration's tables, never meet another's. What a new
//! generation has in common with the one before it shares ([`Generation::new`]): clusters, pools and measured times of what has not changed
//! are the same ones; of what has changed, what is known of endpoints that stay is taken over. An old generation is freed with its last
//! request.

use super::believed::Believed;
use super::charges::Places;
use super::lease::Lease;
use super::shared::{InUse, Shared};
use super::state::Worker;
use super::up::links::Links;
use crate::config::{Cluster as ClusterConfig, Protocol, ProxyVersion, Route};
use crate::error::ProxyError;
use crate::net::driver;
use crate::net::pool::Pool;
use crate::net::upstream::Upstream;
use crate::observe::access_log::LogSender;
use crate::observe::recorder::Recorder;
use crate::policy::admission::Admission;
use crate::policy::cluster::Cluster;
use crate::policy::concurrency::{LocalSlots, SharedSlots};
use crate::policy::deadline::RouteDeadline;
use crate::policy::retry::Rules;
use crate::policy::router::RouterCache;
use crate::policy::try_time::TryTime;
use crate::tls::HTTP2;
use crate::tls::demand::with_memory;
use crate::units::{ClusterId, EndpointId, Instant, RouteId, WorkerId};
use rustc_hash::FxHashSet;
use rustls::ClientConfig;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Deref;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A hand in slots that outlives a generation.
pub(super) type Hand = Rc<RefCell<LocalSlots>>;

/// One core's state under one configuration.
pub(super) struct Generation {
    worker: Rc<Worker>,
    pub(super) shared: Arc<Shared>,
    pub(super) recorder: Recorder,
    pub(super) log: Option<Rc<LogSender>>,
    pub(super) router_cache: Rc<RefCell<RouterCache>>,
    pub(super) believed: Rc<RefCell<Believed>>,
    /// One pointer each: a request keeps the generation that it began under, and of those there may be as many as requests and tunnels.
    clusters: Box<[Rc<OneCluster>]>,
    routes: Rc<[Rc<RefCell<RouteState>>]>,
    pub(super) admission: Rc<RefCell<Admission>>,
    /// `max_connections`, by listener.
    pub(super) connection_slots: Box<[Hand]>,
    /// Of all listeners.
    pub(super) descriptor_slots: Hand,
    /// Requests that have begun under it and not ended, and those among them that are tunnels.
    requests: Cell<u64>,
    pub(super) tunnels: Cell<u64>,
    in_use: Arc<InUse>,
}

/// What belongs to one cluster, over all generations in which it is the same.
struct OneCluster {
    policy: RefCell<Cluster>,
    pool: RefCell<Pool>,
    /// Connections that many requests share; `None`: there are none.
    links: Option<Rc<Links>>,
    /// `max_requests`, by endpoint; empty without.
    slots: RefCell<Vec<LocalSlots>>,
    /// Requests in flight.
    active: Rc<Cell<usize>>,
    /// What it was before it changed, for as long as requests have places there.
    before: Box<[Weak<Self>]>,
    /// By which sessions are made, with this worker's own memory of them; `None`: plain HTTP is spoken.
    tls_rules: Option<Arc<ClientConfig>>,
}

/// What one route needs of its own on this core.
pub(super) struct RouteState {
    pub(super) deadline: RouteDeadline,
    pub(super) retry: Rc<Rules>,
    pub(super) try_time: TryTime,
}

impl Deref for Generation {
    type Target = Worker;

    fn deref(&self) -> &Worker {
        &self.worker
    }
}

impl Generation {
    /// The worker under `shared`, with what `before` (the one in use) has of it. `log` is where records go.
    pub(super) fn new(
        worker: &Rc<Worker>,
        shared: &Arc<Shared>,
        recorder: Recorder,
        log: Option<Rc<LogSender>>,
        before: Option<&Self>,
        now: Instant,
    ) -> Rc<Self> {
        let root = before.filter(|before| before.shared.has_same_rows(shared));
        // one that has taken another worker's place has none, and one that was busy may have missed some
        let before = before.filter(|before| root.is_some() || before.shared.number + 1 == shared.number);
        let admission = || Rc::new(RefCell::new(Admission::new(Arc::clone(&shared.limits))));
        let hand = |slots: &Arc<SharedSlots>| before.map_or_else(|| new_hand(slots), |before| before.hand(slots));
        if shared.has_few_descriptors() {
            driver::close_at_once();
        }
        let rows = 0..shared.config.clusters.len();
        Rc::new(Self {
            recorder,
            log,
            router_cache: root.map_or_else(Rc::default, |root| Rc::clone(&root.router_cache)),
            believed: root.map_or_else(Rc::default, |root| Rc::clone(&root.believed)),
            clusters: rows.map(|row| OneCluster::new(worker, shared, row, before, now)).collect(),
            routes: root.map_or_else(|| route_states(shared, before), |root| Rc::clone(&root.routes)),
            admission: root.map_or_else(admission, |root| Rc::clone(&root.admission)),
            connection_slots: shared.connection_slots.iter().map(hand).collect(),
            descriptor_slots: hand(&shared.descriptor_slots),
            requests: Cell::new(0),
            tunnels: Cell::new(0),
            in_use: shared.use_by_worker(),
            worker: Rc::clone(worker),
            shared: Arc::clone(shared),
        })
    }

    /// The worker, whatever its configuration.
    pub(super) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// This worker's hand in those slots, if it has one, which does with what their limit may have become.
    fn hand(&self, slots: &Arc<SharedSlots>) -> Hand {
        let mut hands = self.connection_slots.iter().chain([&self.descriptor_slots]);
        let own = hands.find(|hand| Arc::ptr_eq(hand.borrow().shared(), slots));
        own.inspect(|hand| hand.borrow_mut().settle()).map_or_else(|| new_hand(slots), Rc::clone)
    }

    /// `next` is in use from now on: what is spare here is given back, and pools that nobody takes from any more are closed.
    pub(super) fn retire_for(&self, next: &Self) {
        if !Rc::ptr_eq(&self.admission, &next.admission) {
            self.admission.borrow_mut().retire();
        }
        let kept: FxHashSet<_> = next.clusters.iter().map(Rc::as_ptr).collect();
        for gone in self.clusters.iter().filter(|cluster| !kept.contains(&Rc::as_ptr(cluster))) {
            gone.slots.borrow_mut().iter_mut().for_each(LocalSlots::retire);
            gone.pool.borrow_mut().close();
            gone.links.iter().for_each(|links| links.retire());
        }
    }

    /// Does what is due now and then, while it is in use.
    pub(super) fn beat(&self, now: Instant) {
        if self.life.worker() == WorkerId(0) {
            // one table for all workers: one of them tells
            self.life.publish_limit_evictions(self.shared.limits.table().evictions());
        }
        for (index, cluster) in self.clusters.iter().enumerate() {
            let mut pool = cluster.pool.borrow_mut();
            pool.reap(now);
            let (idle, active) = (pool.idle(), cluster.active.get());
            self.recorder.publish_upstream_connections(ClusterId::from_index(index), idle, active);
        }
        self.publish_endpoints(now);
    }

    /// Says what is in flight.
    pub(super) fn publish_use(&self) {
        self.in_use.requests.store(self.requests.get(), Relaxed);
        self.in_use.tunnels.store(self.tunnels.get(), Relaxed);
    }

    // ---- clusters ----

    /// A cluster as this worker knows it.
    pub(super) fn cluster(&self, cluster: ClusterId) -> &RefCell<Cluster> {
        &self.clusters[cluster.index()].policy
    }

    /// Whether a cluster is the same one in both, which have the same rows.
    pub(super) fn shares_cluster(&self, other: &Self, cluster: ClusterId) -> bool {
        let row = cluster.index();
        Rc::ptr_eq(&self.clusters[row], &other.clusters[row])
    }

    /// All of them.
    pub(super) fn each_cluster(&self) -> impl Iterator<Item = (ClusterId, &RefCell<Cluster>)> {
        self.clusters.iter().enumerate().map(|(row, cluster)| (ClusterId::from_index(row), &cluster.policy))
    }

    /// By which sessions with a cluster's endpoints are made; `None`: plain HTTP is spoken.
    pub(super) fn tls_rules(&self, cluster: ClusterId) -> Option<&Arc<ClientConfig>> {
        self.clusters[cluster.index()].tls_rules.as_ref()
    }

    /// Requests that are in flight to an endpoint since before its cluster has changed.
    pub(super) fn in_flight_since_before(&self, cluster: ClusterId, identity: u64) -> u32 {
        let before = self.clusters[cluster.index()].before.iter().filter_map(Weak::upgrade);
        let of = |cluster: Rc<OneCluster>| {
            let cluster = cluster.policy.borrow();
            cluster.endpoints().iter().find(|endpoint| endpoint.identity == identity).map_or(0, |it| it.in_flight)
        };
        before.map(of).sum()
    }

    /// What a route has measured.
    pub(super) fn route(&self, route: RouteId) -> &RefCell<RouteState> {
        &self.routes[route.index()]
    }

    /// The pooled connection that was used last, if there is one; or a stream of one that is shared.
    pub(super) fn checkout(&self, cluster: ClusterId, endpoint: EndpointId, now: Instant) -> Option<Lease> {
        let cluster = &self.clusters[cluster.index()];
        let pooled = cluster.pool.borrow_mut().checkout(endpoint, now);
        pooled.map(Lease::pooled).or_else(|| cluster.links.as_ref()?.checkout(endpoint, true))
    }

    /// The connections of a cluster that many requests share.
    pub(super) fn links(&self, cluster: ClusterId) -> Option<&Rc<Links>> {
        self.clusters[cluster.index()].links.as_ref()
    }

    /// Takes a connection back for the next request, which must come within `keep`, and not at all if the connection began with a
    /// PROXY header: that names one client for good.
    pub(super) fn checkin(
        &self,
        cluster: ClusterId,
        endpoint: EndpointId,
        upstream: Upstream,
        keep: std::time::Duration,
        now: Instant,
    ) {
        if self.shared.config.clusters[cluster.index()].proxy_protocol != ProxyVersion::Off {
            return;
        }
        let idle_max = self.shared.idle_max;
        let pools = || self.clusters.iter().map(|cluster| &cluster.pool);
        if idle_max < usize::MAX && pools().map(|pool| pool.borrow().idle()).sum::<usize>() >= idle_max {
            // descriptors are few: the one that was used last is the one that will be used next
            let used = pools().filter(|pool| pool.borrow().idle() > 0);
            match used.min_by_key(|pool| pool.borrow().idle_since()) {
                Some(pool) if idle_max > 0 => pool.borrow_mut().close_longest_idle(),
                _ => return,
            }
        }
        let mut pool = self.clusters[cluster.index()].pool.borrow_mut();
        if let Some(kept) = pool.checkin(endpoint, upstream, keep, now) {
            kept.stand_by();
        }
    }

    /// Closes the idle connections of an endpoint that has just dropped one of them.
    pub(super) fn forget_idle(&self, cluster: ClusterId, endpoint: EndpointId) {
        self.clusters[cluster.index()].pool.borrow_mut().forget(endpoint);
    }

    /// Counts a request in flight to a cluster.
    pub(super) fn count_active(&self, cluster: ClusterId, change: isize) {
        let active = &self.clusters[cluster.index()].active;
        active.set(active.get().saturating_add_signed(change));
    }

    /// Room for one more request at an endpoint, over all cores; a slot if there is a limit, an error if it is reached.
    pub(super) fn enter_endpoint(
        self: &Rc<Self>,
        cluster: ClusterId,
        endpoint: EndpointId,
    ) -> Result<Option<Slot>, ProxyError> {
        let taken =
            self.clusters[cluster.index()].slots.borrow_mut().get_mut(endpoint.index()).map(LocalSlots::acquire);
        match taken {
            None => Ok(None),
            Some(true) => Ok(Some(self.slot(SlotOf::Endpoint(cluster, endpoint), Places::default()))),
            Some(false) => Err(ProxyError::UpstreamSaturated),
        }
    }

    pub(super) fn slot(self: &Rc<Self>, of: SlotOf, places: Places) -> Slot {
        Slot { generation: Rc::clone(self), of, places }
    }

    fn leave(&self, of: SlotOf) {
        match of {
            SlotOf::Route(route) => self.admission.borrow_mut().release(route),
            SlotOf::Limits => {}
            SlotOf::Endpoint(cluster, endpoint) => {
                self.clusters[cluster.index()].slots.borrow_mut()[endpoint.index()].release();
            }
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.in_use.requests.store(0, Relaxed);
        self.in_use.tunnels.store(0, Relaxed);
    }
}

impl OneCluster {
    /// The same one if nothing has changed about it; else a new one that takes over what is known.
    fn new(worker: &Worker, shared: &Shared, row: usize, before: Option<&Generation>, now: Instant) -> Rc<Self> {
        let config = &shared.config.clusters[row];
        let same_row = |before: &Generation| {
            let same = Arc::ptr_eq(&before.shared.config.clusters[row], config);
            (ClusterId::from_index(row), same)
        };
        let old = before.and_then(|before| match before.shared.has_same_rows(shared) {
            true => Some((before, same_row(before))),
            false => Some((before, shared.before.cluster(row)?)),
        });
        let old = old.map(|(before, (id, same))| {
            (&before.clusters[id.index()], &before.shared.config.clusters[id.index()], same)
        });
        if let Some((old, _, true)) = old {
            return Rc::clone(old);
        }
        let mut cluster = Cluster::new(config, &shared.clusters[row], &mut worker.rng.borrow_mut());
        let mut pool = Pool::new(config.endpoints.len(), config.idle_max, config.idle_timeout);
        let active = old.map(|(old, ..)| Rc::clone(&old.active)).unwrap_or_default();
        let before = old.map_or_else(Box::default, |(old, ..)| Self::and_before(old));
        if let Some((old, old_config, _)) = old {
            cluster.inherit(&old.policy.borrow(), now);
            if old_config.proxy_protocol == config.proxy_protocol && same_words(old_config, config) {
                pool.inherit(&mut old.pool.borrow_mut(), same_endpoints(old_config, config));
            }
        }
        let slots = RefCell::new(hands_in(&shared.endpoint_slots[row]));
        let known =
            old.filter(|(_, old_config, _)| same_words(old_config, config)).map(|(old, ..)| old.tls_rules.clone());
        let tls_rules =
            known.unwrap_or_else(|| config.tls.as_ref().map(|tls| with_memory(&tls.rules, spoken(config.protocol))));
        let (policy, pool) = (RefCell::new(cluster), RefCell::new(pool));
        let links = (config.protocol != Protocol::Http1).then(|| Links::new(config));
        Rc::new(Self { policy, pool, links, slots, active, before, tls_rules })
    }

    /// It, and what it was before, as far as that is in use.
    fn and_before(this: &Rc<Self>) -> Box<[Weak<Self>]> {
        let used = this.before.iter().filter(|before| before.strong_count() > 0);
        used.cloned().chain([Rc::downgrade(this)]).collect()
    }
}

/// What is offered by ALPN, what is liked best first.
fn spoken(protocol: Protocol) -> &'static [&'static [u8]] {
    match protocol {
        Protocol::Http1 => &[b"http/1.1"],
        Protocol::Http2 => &[HTTP2],
        Protocol::Negotiated => &[HTTP2, b"http/1.1"],
    }
}

/// Whether connections are made in the same way.
fn same_words(old: &ClusterConfig, new: &ClusterConfig) -> bool {
    old.tls == new.tls && old.protocol == new.protocol
}

/// Old and new rows of the endpoints that both have.
fn same_endpoints(old: &ClusterConfig, new: &ClusterConfig) -> Vec<(EndpointId, EndpointId)> {
    let mut known: HashMap<String, EndpointId> = HashMap::new();
    for (row, endpoint) in old.endpoints.iter().enumerate() {
        known.insert(endpoint.identity(), EndpointId::from_index(row));
    }
    let rows = new.endpoints.iter().enumerate();
    rows.filter_map(|(row, it)| Some((known.remove(&it.identity())?, EndpointId::from_index(row)))).collect()
}

/// Those that have measured something go on. Routes with the same rules one after the other share them, as most do: those that say nothing
/// about retries.
fn route_states(shared: &Shared, before: Option<&Generation>) -> Rc<[Rc<RefCell<RouteState>>]> {
    let mut last: Option<Rc<Rules>> = None;
    let state = |(row, route): (usize, &Route)| {
        let known = shared.before.routes.get(row).copied().flatten();
        if let Some((before, known)) = before.zip(known) {
            return Rc::clone(&before.routes[known.index()]);
        }
        let rules = Rules::new(&route.retry);
        let retry = match &last {
            Some(last) if **last == rules => Rc::clone(last),
            _ => Rc::new(rules),
        };
        last = Some(Rc::clone(&retry));
        Rc::new(RefCell::new(RouteState {
            deadline: RouteDeadline::new(route.timeout),
            retry,
            try_time: TryTime::default(),
        }))
    };
    shared.config.routes.iter().enumerate().map(state).collect()
}

fn new_hand(slots: &Arc<SharedSlots>) -> Hand {
    Rc::new(RefCell::new(LocalSlots::new(Arc::clone(slots))))
}

fn hands_in(slots: &[Arc<SharedSlots>]) -> Vec<LocalSlots> {
    slots.iter().map(|slots| LocalSlots::new(Arc::clone(slots))).collect()
}

/// A generation that a request uses, from its first byte to its end.
pub(super) struct Pinned(Rc<Generation>);

impl Pinned {
    pub(super) fn new(generation: Rc<Generation>) -> Self {
        generation.requests.set(generation.requests.get() + 1);
        Self(generation)
    }
}

impl Deref for Pinned {
    type Target = Rc<Generation>;

    fn deref(&self) -> &Rc<Generation> {
        &self.0
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.0.requests.set(self.0.requests.get() - 1);
    }
}

/// Where a place is.
#[derive(Clone, Copy, Debug)]
pub(super) enum SlotOf {
    Route(RouteId),
    /// Nowhere but in limits.
    Limits,
    Endpoint(ClusterId, EndpointId),
}

/// A place under a concurrency limit; dropping it gives it back.
pub(super) struct Slot {
    generation: Rc<Generation>,
    of: SlotOf,
    places: Places,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Slot").field(&self.of).finish()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.generation.leave(self.of);
        self.generation.leave_limits(std::mem::take(&mut self.places));
    }
}
