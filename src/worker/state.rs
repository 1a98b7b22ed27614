//! A worker's own things, and the small operations on them.
//!
//! All fields are reached by shared reference from the tasks of one thread. A `RefCell` is borrowed for the length of one call and
//! never across an await; what could be a cell is one.

use super::accept;
use super::cutting;
use super::report::Complaints;
use super::shared::Shared;
use super::{Command, Hands, Notice, Reason};
use crate::config::{ProxyVersion, Route};
use crate::error::ProxyError;
use crate::http::date::{self, HttpDate};
use crate::http::fields::HeadScratch;
use crate::limits::{ARMED_RECEIVES_MAX, BLOCK_LARGE, BLOCK_SMALL, CUT_BEFORE_DRAIN_ENDS};
use crate::net::block::{Block, Blocks, TAILROOM};
use crate::net::clock;
use crate::net::listener::Listener;
use crate::net::pool::Pool;
use crate::net::timer::Timers;
use crate::net::upstream::Upstream;
use crate::observe::access_log::LogSender;
use crate::observe::recorder::Recorder;
use crate::policy::admission::{Admission, Admitted};
use crate::policy::cluster::Cluster;
use crate::policy::concurrency::{LocalSlots, SharedSlots};
use crate::policy::deadline::RouteDeadline;
use crate::policy::retry::Rules;
use crate::policy::router::RouterCache;
use crate::policy::try_time::TryTime;
use crate::units::{ClusterId, EndpointId, Instant, ListenerId, Rng, RouteId, WorkerId};
use http::HeaderName;
use rand::SeedableRng;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

/// Texts of access log records kept for reuse.
const LOG_TEXTS_KEPT: usize = 256;

/// One core's state.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) recorder: Recorder,
    pub(super) log: Option<LogSender>,
    pub(super) timers: Rc<Timers>,
    pub(super) blocks: Rc<RefCell<Blocks>>,
    pub(super) rng: RefCell<Rng>,
    pub(super) scratch: RefCell<Scratch>,
    pub(super) router_cache: RefCell<RouterCache>,
    /// Connections that wait for a request, or the rest of its head, with a receive armed.
    pub(super) armed: Cell<usize>,
    pub(super) clusters: RefCell<Vec<Cluster>>,
    pub(super) routes: RefCell<Vec<RouteState>>,
    pools: RefCell<Vec<Pool>>,
    pub(super) admission: RefCell<Admission>,
    /// `Retry-After` and `RateLimit` of a rejection.
    pub(super) limit_texts: RefCell<(Vec<u8>, Vec<u8>)>,
    endpoint_slots: RefCell<Vec<Vec<LocalSlots>>>,
    /// `max_connections`, by listener.
    pub(super) connection_slots: RefCell<Vec<LocalSlots>>,
    /// Of all listeners, where descriptors are few.
    pub(super) descriptor_slots: RefCell<Option<LocalSlots>>,
    log_texts: RefCell<Vec<super::record::Texts>>,
    /// What [`clock::wall`] is ahead of [`clock::now`].
    epoch: Cell<Duration>,
    /// A formatted second, and when it is over.
    date: Cell<(Instant, HttpDate)>,
    listeners: Vec<Rc<Listener>>,
    /// Downstream connections, over all listeners.
    pub(super) connections: Cell<usize>,
    active_upstream: RefCell<Vec<usize>>,
    pub(super) draining: Cell<bool>,
    /// The drain's time is over: what is still in flight is ended.
    pub(super) cutting: Cell<bool>,
    /// When tunnels end whatever they carry; `NEVER` before a drain.
    tunnels_end: Cell<Instant>,
    pub(super) notice: Arc<Notice>,
    /// It cannot go on: what it still has is dropped with it.
    pub(super) is_broken: Cell<bool>,
    pub(super) waiting_for_end: RefCell<Option<Waker>>,
    pub(super) complaints: Complaints,
}

/// What one route needs of its own on this core.
pub(super) struct RouteState {
    pub(super) deadline: RouteDeadline,
    pub(super) retry: Rc<Rules>,
    pub(super) try_time: TryTime,
}

/// Buffers that one call at a time parses and encodes with.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) head: HeadScratch,
    pub(super) path: Vec<u8>,
    /// A response's head for the client.
    pub(super) response: Vec<u8>,
}

impl Worker {
    /// Takes the seat. Must be called inside the worker's runtime.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(super) fn new(shared: &Arc<Shared>, listeners: Vec<Rc<Listener>>, hands: Hands) -> io::Result<Rc<Self>> {
        let Hands { recorder, log, notice, stock } = hands;
        #[expect(clippy::disallowed_methods, reason = "the one seed of this worker's own generator")]
        let mut rng = Rng::from_rng(&mut rand::rng());
        let config = &shared.config;
        let commons = config.clusters.iter().zip(&shared.clusters);
        let clusters = commons.map(|(config, common)| Cluster::new(config, common, &mut rng)).collect();
        let pool = |c: &crate::config::Cluster| Pool::new(c.endpoints.len(), c.idle_max, c.idle_timeout);
        let worker = Rc::new(Self {
            recorder,
            log,
            timers: Timers::new()?,
            blocks: stock,
            clusters: RefCell::new(clusters),
            rng: RefCell::new(rng),
            scratch: RefCell::default(),
            router_cache: RefCell::default(),
            armed: Cell::new(0),
            routes: RefCell::new(route_states(&config.routes)),
            pools: RefCell::new(config.clusters.iter().map(pool).collect()),
            limit_texts: RefCell::default(),
            admission: RefCell::new(Admission::new(Arc::clone(&shared.limits))),
            endpoint_slots: RefCell::new(shared.endpoint_slots.iter().map(|s| hands_in(s)).collect()),
            connection_slots: RefCell::new(hands_in(&shared.connection_slots)),
            descriptor_slots: RefCell::new(shared.descriptor_slots.as_ref().map(|s| LocalSlots::new(Arc::clone(s)))),
            log_texts: RefCell::default(),
            epoch: Cell::new(epoch()),
            date: Cell::new((Instant::default(), date::format(0))),
            listeners,
            connections: Cell::new(0),
            active_upstream: RefCell::new(vec![0; config.clusters.len()]),
            draining: Cell::new(false),
            cutting: Cell::new(false),
            tunnels_end: Cell::new(Instant::NEVER),
            notice,
            is_broken: Cell::new(false),
            waiting_for_end: RefCell::default(),
            complaints: Complaints::default(),
            shared: Arc::clone(shared),
        });
        Ok(worker)
    }

    /// When a tunnel must end that has just carried a byte.
    pub(super) fn tunnel_deadline(&self, idle_timeout: Duration) -> Instant {
        (clock::now() + idle_timeout).min(self.tunnels_end.get())
    }

    /// Whether the time of tunnels is over.
    pub(super) fn tunnels_have_ended(&self) -> bool {
        clock::now() >= self.tunnels_end.get()
    }

    /// Gives the tunnels what the drain has, but for the moment that it takes to close and log them.
    fn end_tunnels(&self) {
        let limit = self.shared.config.gateway.drain_timeout;
        let end = clock::now() + (limit - (limit / 10).min(CUT_BEFORE_DRAIN_ENDS));
        self.tunnels_end.set(end);
        self.timers.hurry_tunnels(end);
    }

    /// Shows that the loop turns, and does what is due now and then.
    pub(super) fn beat(&self, now: Instant) {
        self.recorder.turn(now);
        self.epoch.set(epoch());
        self.timers.look_for_gone_clients();
        if self.recorder.worker() == WorkerId(0) {
            // one table for all workers: one of them tells
            self.recorder.publish_limit_evictions(self.shared.limits.table().evictions());
        }
        if let Some(reason) = self.notice.reason()
            && !self.draining.get()
        {
            self.retire(reason);
        }
        for (index, pool) in self.pools.borrow_mut().iter_mut().enumerate() {
            pool.reap(now);
            let active = self.active_upstream.borrow()[index];
            self.recorder.publish_upstream_connections(ClusterId::from_index(index), pool.idle(), active);
        }
        let mut blocks = self.blocks.borrow_mut();
        blocks.trim();
        self.recorder.publish_buffers(blocks.lent_bytes(), blocks.kept_bytes());
        drop(blocks);
        self.publish_endpoints(now);
    }

    // ---- buffers ----

    /// Gives a block back.
    pub(super) fn put(&self, block: Block) {
        self.blocks.borrow_mut().put(block);
    }

    /// Room for a receive: an empty block is exchanged for one that fits what is still to come (`None`: unknown). `fast`: the last receive
    /// has filled its block, so more may be there already than a large block holds.
    pub(super) fn widen(&self, block: Block, left: Option<u64>, fast: bool) -> Block {
        if !block.is_empty() {
            return block;
        }
        let mut blocks = self.blocks.borrow_mut();
        let exceeds = |bytes: usize| left.is_none_or(|left| left > bytes as u64);
        let wanted = match (block.is_large(), exceeds(BLOCK_SMALL)) {
            (true, true) if fast && exceeds(BLOCK_LARGE) && !block.is_bulk() => blocks.bulk(),
            (true, true) if !fast && block.is_bulk() => Some(blocks.large()),
            (false, true) => Some(blocks.large()),
            (_, false) if block.room() == 0 => Some(blocks.small()),
            _ => None,
        };
        let Some(wanted) = wanted else { return block };
        blocks.put(block);
        wanted
    }

    /// Makes room for a head of up to `bytes_max` bytes in a block that is full.
    pub(super) fn grow(&self, block: &mut Block, bytes_max: usize) {
        let mut blocks = self.blocks.borrow_mut();
        let mut larger = blocks.large();
        larger.vec_mut().extend_from_slice(block.unread());
        larger.vec_mut().reserve_exact((bytes_max + 1 + TAILROOM).saturating_sub(block.unread().len()));
        blocks.put(std::mem::replace(block, larger));
    }

    /// Whether so many connections wait with a receive armed that others must do without.
    pub(super) fn is_crowded(&self) -> bool {
        self.armed.get() >= ARMED_RECEIVES_MAX
    }

    /// Counts a connection that waits with a receive armed, until the guard is dropped.
    pub(super) fn arm(&self) -> impl Drop + use<'_> {
        struct Armed<'w>(&'w Cell<usize>);
        impl Drop for Armed<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() - 1);
            }
        }
        self.armed.set(self.armed.get() + 1);
        Armed(&self.armed)
    }

    // ---- small texts ----

    /// Time since 1970-01-01T00:00:00Z at `now`. A clock that is set is noticed with the next beat.
    pub(super) fn wall(&self, now: Instant) -> Duration {
        Duration::from_nanos(now.as_nanos()) + self.epoch.get()
    }

    /// `Date` at `now`.
    pub(super) fn date(&self, now: Instant) -> HttpDate {
        let (until, text) = self.date.get();
        if now < until {
            return text;
        }
        let wall = self.wall(now);
        let text = date::format(wall.as_secs());
        // no longer than to the next beat, which notices a clock that was set
        let left = Duration::from_secs(1) - Duration::from_nanos(u64::from(wall.subsec_nanos()));
        self.date.set((now + left.min(super::BEAT), text));
        text
    }

    /// A buffer for an access log record; `None` when nothing is logged.
    pub(super) fn log_texts(&self) -> Option<super::record::Texts> {
        self.log.as_ref().map(|_| self.log_texts.borrow_mut().pop().unwrap_or_default())
    }

    /// Gives it back.
    pub(super) fn put_log_texts(&self, texts: super::record::Texts) {
        let mut kept = self.log_texts.borrow_mut();
        if kept.len() < LOG_TEXTS_KEPT {
            kept.push(texts);
        }
    }

    // ---- upstream connections ----

    /// The pooled connection that was used last, if there is one.
    pub(super) fn checkout(&self, cluster: ClusterId, endpoint: EndpointId, now: Instant) -> Option<Upstream> {
        self.pools.borrow_mut()[cluster.index()].checkout(endpoint, now)
    }

    /// Takes a connection back for the next request, which must come within `keep`, and not at all if the connection began with a
    /// PROXY header: that names one client for good.
    pub(super) fn checkin(
        &self,
        cluster: ClusterId,
        endpoint: EndpointId,
        upstream: Upstream,
        keep: Duration,
        now: Instant,
    ) {
        if self.shared.config.clusters[cluster.index()].proxy_protocol != ProxyVersion::Off {
            return;
        }
        let mut pools = self.pools.borrow_mut();
        let idle_max = self.shared.idle_max;
        if idle_max < usize::MAX && pools.iter().map(Pool::idle).sum::<usize>() >= idle_max {
            // descriptors are few: the one that was used last is the one that will be used next
            let longest = pools.iter_mut().filter(|pool| pool.idle() > 0).min_by_key(|pool| pool.idle_since());
            match longest {
                Some(pool) if idle_max > 0 => pool.close_longest_idle(),
                _ => return,
            }
        }
        let pool = &mut pools[cluster.index()];
        if let Some(kept) = pool.checkin(endpoint, upstream, keep, now) {
            kept.stand_by();
        }
    }

    /// Closes the idle connections of an endpoint that has just dropped one of them.
    pub(super) fn forget_idle(&self, cluster: ClusterId, endpoint: EndpointId) {
        self.pools.borrow_mut()[cluster.index()].forget(endpoint);
    }

    /// Counts a request in flight to a cluster.
    pub(super) fn count_active(&self, cluster: ClusterId, change: isize) {
        let active = &mut self.active_upstream.borrow_mut()[cluster.index()];
        *active = active.saturating_add_signed(change);
    }

    /// Room for one more request at an endpoint, over all cores; a slot if there is a limit, an error if it is reached.
    pub(super) fn enter_endpoint(
        self: &Rc<Self>,
        cluster: ClusterId,
        endpoint: EndpointId,
    ) -> Result<Option<Slot>, ProxyError> {
        let taken =
            self.endpoint_slots.borrow_mut()[cluster.index()].get_mut(endpoint.index()).map(LocalSlots::acquire);
        match taken {
            None => Ok(None),
            Some(true) => Ok(Some(self.slot(SlotOf::Endpoint(cluster, endpoint)))),
            Some(false) => Err(ProxyError::UpstreamSaturated),
        }
    }

    /// Admits a request to its route, or says what is wanting; with a slot to hold if the route has `max_concurrent`.
    pub(super) fn admit<'h>(
        self: &Rc<Self>,
        route: RouteId,
        client: IpAddr,
        header: &dyn Fn(&HeaderName) -> Option<&'h [u8]>,
        now: Instant,
    ) -> (Admitted, Option<Slot>) {
        let admitted = self.admission.borrow_mut().admit(route, client, header, now);
        let Admitted::Pass { dry_run } = admitted else { return (admitted, None) };
        if dry_run != 0 {
            self.recorder.rate_limited_dry_run(route);
        }
        let limited = self.shared.config.routes[route.index()].concurrent_max.is_some();
        (admitted, limited.then(|| self.slot(SlotOf::Route(route))))
    }

    fn slot(self: &Rc<Self>, of: SlotOf) -> Slot {
        Slot { worker: Rc::clone(self), of }
    }

    fn leave(&self, of: SlotOf) {
        match of {
            SlotOf::Route(route) => self.admission.borrow_mut().release(route),
            SlotOf::Endpoint(cluster, endpoint) => {
                self.endpoint_slots.borrow_mut()[cluster.index()][endpoint.index()].release();
            }
        }
    }
}

fn epoch() -> Duration {
    clock::wall().saturating_sub(Duration::from_nanos(clock::now().as_nanos()))
}

/// Routes with the same rules one after the other share them, as most do: those that say nothing about retries.
fn route_states(routes: &[Route]) -> Vec<RouteState> {
    let mut states: Vec<RouteState> = Vec::with_capacity(routes.len());
    for route in routes {
        let rules = Rules::new(&route.retry);
        let retry = match states.last() {
            Some(last) if *last.retry == rules => Rc::clone(&last.retry),
            _ => Rc::new(rules),
        };
        states.push(RouteState { deadline: RouteDeadline::new(route.timeout), retry, try_time: TryTime::default() });
    }
    states
}

fn hands_in(slots: &[Arc<SharedSlots>]) -> Vec<LocalSlots> {
    slots.iter().map(|slots| LocalSlots::new(Arc::clone(slots))).collect()
}

/// Carries out what the control thread says.
pub(super) fn on_command(worker: &Rc<Worker>, command: Command) {
    match command {
        Command::Health { cluster, endpoint, healthy } => {
            let now = clock::now();
            worker.clusters.borrow_mut()[cluster.index()].set_health(endpoint, healthy, now);
            worker.publish_endpoints(now);
        }
        Command::Drain => {
            for (index, listener) in worker.listeners.iter().enumerate() {
                accept::close(worker, ListenerId::from_index(index), listener);
            }
            worker.draining.set(true);
            worker.timers.hurry_idle();
            worker.end_tunnels();
            worker.look_for_end();
        }
        Command::Cut => super::spawn(worker, Reason::Panicked, cutting::cut(Rc::clone(worker))),
        #[cfg(test)]
        Command::Fail(way) => way.fail(),
    }
}

#[derive(Clone, Copy, Debug)]
enum SlotOf {
    Route(RouteId),
    Endpoint(ClusterId, EndpointId),
}

/// A place under a concurrency limit; dropping it gives it back.
pub(super) struct Slot {
    worker: Rc<Worker>,
    of: SlotOf,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Slot").field(&self.of).finish()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.worker.leave(self.of);
    }
}
