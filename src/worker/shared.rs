//! What all workers of a gateway read under one configuration, and the reservoirs that they take leases from.
//!
//! Everything here is immutable but for the reservoirs, the key table, the slots, the budgets and the standings of endpoints; those are
//! atomics, touched when a lease is taken, when a limited client or header value is looked up, when a connection begins or ends, and
//! when something fails or comes back.
//!
//! The next configuration has a `Shared` of its own ([`Shared::succeed`]), which takes over by name (of routes, upstreams, listeners; of
//! endpoints by address) what does not change. Until [`Shared::commit`] nothing of this one is touched, so that a reload which fails
//! half-way leaves no trace. Where only endpoints of some clusters have changed (their names have other addresses) everything else is the very
//! same ([`Shared::with_endpoints`]). It is freed when the last worker has let go of it, with the last request that began under it.

use super::sticky;
use super::verifier::Verifier;
use crate::config::{Access, Cluster, Config, Endpoint, Listener, Route};
use crate::limits::{LIMIT_TABLE_BUCKETS, SIGNATURE_NONCES_MAX};
use crate::net::clock;
use crate::observe::labels::ProbeState;
use crate::observe::stats::Stats;
use crate::policy::access::Guards;
use crate::policy::admission::Limits;
use crate::policy::client_slots::ClientSlots;
use crate::policy::cluster::Common;
use crate::policy::concurrency::{SharedSlots, UNLIMITED};
use crate::policy::descriptors::Fit;
use crate::policy::identity::Identities;
use crate::policy::key_table::KeyTable;
use crate::policy::replay::Replays;
use crate::policy::router::Router;
use crate::policy::sticky::Sessions;
use crate::policy::try_time::TryTimes;
use crate::tls::challenges::Challenges;
use crate::tls::offer::offer;
use crate::tls::tickets::{TicketKeys, Tickets};
use crate::units::{ClusterId, EndpointId, Instant, ListenerId, RouteId};
use http::HeaderName;
use rustls::ServerConfig;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// One gateway's common ground under one configuration.
#[derive(Debug)]
pub struct Shared {
    /// Of the configuration, endpoints included; the first one is 1.
    pub number: u64,
    /// The number of the one that was read with it: those that have it differ in the endpoints of clusters only, and have the same rows.
    root: u64,
    /// The configuration.
    pub config: Arc<Config>,
    /// The compiled routes.
    pub router: Arc<Router>,
    /// Who can be recognised.
    pub(super) identities: Arc<Identities>,
    /// Who may do what.
    pub(super) guards: Arc<Guards>,
    /// Whether any route has a say in which pages may call it.
    pub(super) has_cors: bool,
    /// What verifies passwords, if anybody logs in.
    pub(super) verifier: Option<Arc<Verifier>>,
    /// Nonces of signed requests, once anybody signs, of all configurations from then on; and how long they are remembered.
    pub(super) replays: Option<(Arc<Replays>, Duration)>,
    /// Whether any request is asked for who sends it, or kept out.
    pub(super) has_guards: bool,
    /// The numbers.
    pub stats: Arc<Stats>,
    /// Rate limits and `max_concurrent` of all routes.
    pub(super) limits: Arc<Limits>,
    table: Arc<KeyTable>,
    /// Where endpoints stand, and retry budgets, by cluster.
    pub clusters: Vec<Common>,
    /// How long a try takes, by route.
    pub(super) try_times: Arc<TryTimes>,
    /// `max_requests`, by cluster and endpoint; empty for a cluster without.
    pub(super) endpoint_slots: Vec<Arc<[Arc<SharedSlots>]>>,
    /// `max_connections`, by listener.
    pub(crate) connection_slots: Vec<Arc<SharedSlots>>,
    /// Connections over all listeners, of which descriptors allow so many.
    pub(crate) descriptor_slots: Arc<SharedSlots>,
    /// [`UNLIMITED`], if they allow as many as the listeners do: who is there is counted all the same, for a configuration with more of them.
    descriptors_max: u32,
    /// Idle connections to endpoints that a worker keeps.
    pub(super) idle_max: usize,
    /// `max_connections_per_client`, by listener; `None` for one without.
    pub(crate) client_slots: Vec<Option<Arc<ClientSlots>>>,
    /// Rows of the configuration before.
    pub(super) before: Before,
    /// Clusters that have other endpoints than before, where nothing else has changed.
    changed: Vec<ClusterId>,
    /// By which sessions with clients are made, by listener; `None`: it speaks plain HTTP.
    tls_rules: Vec<Option<Arc<ServerConfig>>>,
    /// Keys of tickets, where no file says them.
    pub ticket_keys: Arc<TicketKeys>,
    /// Cookies that name endpoints, by cluster, `None` for one without; empty where all are.
    pub(super) sessions: Vec<Option<Arc<Sessions>>>,
    /// What they are made with where the file says no key.
    sticky_key: Arc<[u8; 32]>,
    /// What an authority is answered that looks whether names lead here.
    pub challenges: Arc<Challenges>,
    in_use: InUses,
}

/// Which rows of the configuration before this one's rows were; empty for the first configuration.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// Clusters of the same name, and whether nothing has changed about them.
    pub(super) clusters: Vec<Option<(ClusterId, bool)>>,
    /// How many there were.
    before_len: usize,
    /// Routes of the same name whose timeout and retries are the same.
    pub(super) routes: Vec<Option<RouteId>>,
}

/// What is in flight on one worker under one configuration; written by that worker now and then.
#[derive(Debug, Default)]
pub(super) struct InUse {
    pub(super) requests: AtomicU64,
    pub(super) tunnels: AtomicU64,
}

/// That of all workers that have begun with a configuration. A lock, because each adds its own once; no request ever sees it.
#[expect(clippy::disallowed_types, reason = "taken once by each worker, and by who looks")]
type InUses = std::sync::Mutex<Vec<Arc<InUse>>>;

fn has_guards(config: &Config) -> bool {
    let has_rules = |access: &Access| !access.allow.is_empty() || !access.deny.is_empty();
    config.listeners.iter().any(|listener| !listener.auth.is_empty() || has_rules(&listener.access))
        || config.routes.iter().any(|route| route.auth.is_some() || has_rules(&route.access))
}

/// A table of nonces, if requests are signed. A nonce that one way has taken must not come again by another one, where signatures may be older.
fn replays(config: &Config, old: Option<&(Arc<Replays>, Duration)>) -> Option<(Arc<Replays>, Duration)> {
    let rules = config.auth.iter().filter_map(|way| way.signature());
    let life = rules.map(|rules| rules.age_max + rules.leeway).max();
    let new = || {
        let chance = RandomState::new();
        Arc::new(Replays::new(SIGNATURE_NONCES_MAX, [0, 1].map(|half| chance.hash_one(half))))
    };
    let table = match (old, life) {
        (None, None) => return None,
        (Some((replays, old)), None) => return Some((Arc::clone(replays), *old)),
        (Some((replays, _)), Some(_)) => Arc::clone(replays),
        (None, Some(_)) => new(),
    };
    let life = life.unwrap_or_default();
    table.keep_for(life, clock::wall());
    Some((table, life))
}

impl Shared {
    /// What the workers of `config` need, with the descriptors that there are; `router` is compiled from it.
    #[must_use]
    pub fn new(config: Arc<Config>, router: Router, stats: Arc<Stats>, fit: &Fit) -> Self {
        let chance = RandomState::new();
        let table = Arc::new(KeyTable::new(LIMIT_TABLE_BUCKETS, [0, 1].map(|half| chance.hash_one(half))));
        Self::after(None, config, router, stats, table, fit)
    }

    /// What they need under the next configuration. It has to be for as many workers, and its `stats` have to be of [`Stats::succeed`].
    #[must_use]
    pub fn succeed(&self, config: Arc<Config>, router: Router, stats: Arc<Stats>, fit: &Fit) -> Self {
        Self::after(Some(self), config, router, stats, Arc::clone(&self.table), fit)
    }

    /// What they need when these clusters have other endpoints, and nothing else has changed: all but those is shared. `config` has to be one
    /// that [`Config::told`] has made of this one's, and `stats` of [`Stats::with_endpoints`].
    #[must_use]
    pub fn with_endpoints(&self, config: Arc<Config>, stats: Arc<Stats>, changed: Vec<ClusterId>) -> Self {
        let workers = config.gateway.cores.len();
        let (mut clusters, mut endpoint_slots) = (self.clusters.clone(), self.endpoint_slots.clone());
        let mut sessions = self.sessions.clone();
        for id in &changed {
            let (row, cluster) = (id.index(), &config.clusters[id.index()]);
            clusters[row] = self.clusters[row].succeed(&self.config.clusters[row], cluster);
            endpoint_slots[row] = self::endpoint_slots(Some((self, (*id, false))), cluster, workers);
            if let Some(sessions) = sessions.get_mut(row) {
                *sessions = self::sessions(cluster, &self.sticky_key);
            }
        }
        Self {
            number: self.number + 1,
            root: self.root,
            router: Arc::clone(&self.router),
            identities: Arc::clone(&self.identities),
            guards: Arc::clone(&self.guards),
            verifier: self.verifier.clone(),
            replays: self.replays.clone(),
            has_guards: self.has_guards,
            has_cors: self.has_cors,
            limits: Arc::clone(&self.limits),
            table: Arc::clone(&self.table),
            try_times: Arc::clone(&self.try_times),
            connection_slots: self.connection_slots.clone(),
            client_slots: self.client_slots.clone(),
            descriptor_slots: self.descriptor_slots.clone(),
            descriptors_max: self.descriptors_max,
            idle_max: self.idle_max,
            before: Before::default(),
            in_use: InUses::default(),
            tls_rules: self.tls_rules.clone(),
            ticket_keys: Arc::clone(&self.ticket_keys),
            challenges: Arc::clone(&self.challenges),
            sticky_key: Arc::clone(&self.sticky_key),
            sessions,
            clusters,
            endpoint_slots,
            changed,
            config,
            stats,
        }
    }

    /// Whether it is the gateway that says something in this header.
    pub(super) fn is_identity(&self, name: &HeaderName) -> bool {
        self.config.auth.iter().flat_map(|way| way.identity()).any(|header| header == name)
    }

    /// By which sessions with a listener's clients are made; `None`: it speaks plain HTTP.
    pub(super) fn tls_rules(&self, listener: ListenerId) -> Option<&Arc<ServerConfig>> {
        self.tls_rules[listener.index()].as_ref()
    }

    /// These are the endpoints from now on. Before any worker begins with them.
    pub fn commit_endpoints(&self) {
        self.changed.iter().for_each(|id| self.set_healthy(id.index()));
    }

    /// Whether the two differ in the endpoints of clusters only.
    pub(super) fn has_same_rows(&self, other: &Self) -> bool {
        self.root == other.root
    }

    fn after(
        old: Option<&Self>,
        config: Arc<Config>,
        router: Router,
        stats: Arc<Stats>,
        table: Arc<KeyTable>,
        fit: &Fit,
    ) -> Self {
        let workers = config.gateway.cores.len();
        let before = old.map_or_else(Before::default, |old| Before::new(&old.config, &config));
        let same_routes = || before.routes.iter().copied();
        let try_times = match old {
            Some(old) => old.try_times.succeed(same_routes()),
            None => TryTimes::new(config.routes.len()),
        };
        let clusters = config.clusters.iter().enumerate();
        let commons = clusters.clone().map(|(row, cluster)| common(old.zip(before.cluster(row)), cluster, workers));
        let endpoint_slots =
            clusters.map(|(row, cluster)| endpoint_slots(old.zip(before.cluster(row)), cluster, workers));
        let (connection_slots, client_slots) =
            config.listeners.iter().map(|listener| listener_slots(old, listener, workers)).unzip();
        let descriptors_max = fit.connections_max.unwrap_or(UNLIMITED);
        let descriptor_slots = match old {
            Some(old) => Arc::clone(&old.descriptor_slots),
            None => Arc::new(SharedSlots::new(descriptors_max, workers)),
        };
        let number = old.map_or(1, |old| old.number + 1);
        let ticket_keys = old.map_or_else(|| Arc::new(TicketKeys::random()), |old| Arc::clone(&old.ticket_keys));
        let challenges = old.map_or_else(Arc::default, |old| Arc::clone(&old.challenges));
        let sticky_key = old.map_or_else(sticky::made_key, |old| Arc::clone(&old.sticky_key));
        Self {
            tls_rules: config.listeners.iter().map(|listener| tls_rules(listener, &ticket_keys, &challenges)).collect(),
            ticket_keys,
            challenges,
            sessions: all_sessions(&config, &sticky_key),
            sticky_key,
            number,
            root: number,
            limits: Arc::new(Limits::new(&config, Arc::clone(&table), workers, old.map(|old| &*old.limits))),
            clusters: commons.collect(),
            endpoint_slots: endpoint_slots.collect(),
            router: Arc::new(router),
            identities: Arc::new(Identities::new(&config.consumers, RandomState::new)),
            guards: Arc::new(Guards::new(&config)),
            verifier: Verifier::of(&config, old.and_then(|old| old.verifier.as_ref())),
            replays: replays(&config, old.and_then(|old| old.replays.as_ref())),
            has_guards: has_guards(&config),
            has_cors: config.routes.iter().any(|route| route.cors.is_some()),
            try_times: Arc::new(try_times),
            connection_slots,
            client_slots,
            descriptor_slots,
            descriptors_max,
            idle_max: fit.idle_max,
            config,
            stats,
            table,
            before,
            changed: Vec::new(),
            in_use: InUses::default(),
        }
    }

    /// This is the configuration from now on: what was taken over takes on what has changed. Before any worker begins with it.
    pub fn commit(&self, now: Instant) {
        self.limits.commit(now);
        let resize = |slots: &SharedSlots, limit: u32| {
            if slots.limit() != limit {
                slots.resize(limit);
            }
        };
        for (slots, listener) in self.connection_slots.iter().zip(&self.config.listeners) {
            resize(slots, connections_max(listener));
        }
        resize(&self.descriptor_slots, self.descriptors_max);
        for (row, cluster) in self.config.clusters.iter().enumerate() {
            let limit = cluster.requests_max.unwrap_or_default();
            self.endpoint_slots[row].iter().for_each(|slots| resize(slots, limit));
            self.set_healthy(row);
        }
    }

    /// Where checks call endpoints of a cluster down, they are down from the beginning.
    fn set_healthy(&self, row: usize) {
        let id = ClusterId::from_index(row);
        for endpoint in (0..self.config.clusters[row].endpoints.len()).map(EndpointId::from_index) {
            // without a check nobody would ever call it up again
            let is_down = self.stats.probe(id, endpoint).is_some_and(|probe| probe.state == ProbeState::Unhealthy);
            self.clusters[row].standings.set_healthy(endpoint, !is_down);
        }
    }

    /// Whether its clusters are those of the configuration before, in the same rows, with nothing changed about them.
    pub(crate) fn has_same_clusters(&self) -> bool {
        let is_same = |(row, before): (usize, &Option<(ClusterId, bool)>)| {
            before.is_some_and(|(id, same)| same && id.index() == row)
        };
        self.before.before_len == self.before.clusters.len() && self.before.clusters.iter().enumerate().all(is_same)
    }

    /// Whether descriptors allow fewer connections than the listeners do.
    pub(super) fn has_few_descriptors(&self) -> bool {
        self.descriptors_max != UNLIMITED
    }

    /// Which row the listener of this name has.
    pub(super) fn listener(&self, name: &str) -> Option<ListenerId> {
        self.config.listeners.iter().position(|listener| listener.name == name).map(ListenerId::from_index)
    }

    /// Where one more worker says what it has in flight under this configuration.
    pub(super) fn use_by_worker(&self) -> Arc<InUse> {
        let in_use = Arc::<InUse>::default();
        // a panic while it is held leaves a list that is whole
        self.in_use.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(Arc::clone(&in_use));
        in_use
    }

    /// Requests, and tunnels among them, that are in flight under this configuration, as of the workers' last beat.
    #[must_use]
    pub fn in_use(&self) -> (u64, u64) {
        let in_use = self.in_use.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let sum = |number: fn(&InUse) -> &AtomicU64| in_use.iter().map(|of| number(of).load(Relaxed)).sum();
        (sum(|of| &of.requests), sum(|of| &of.tunnels))
    }
}

impl Before {
    fn new(old: &Config, new: &Config) -> Self {
        let clusters: HashMap<&str, (usize, &Arc<Cluster>)> =
            old.clusters.iter().enumerate().map(|(row, cluster)| (cluster.name.as_str(), (row, cluster))).collect();
        let routes: HashMap<&str, (usize, &Route)> =
            old.routes.iter().enumerate().map(|(row, route)| (route.name.as_str(), (row, route))).collect();
        let cluster = |cluster: &Arc<Cluster>| {
            let (row, old) = clusters.get(cluster.name.as_str())?;
            Some((ClusterId::from_index(*row), is_same(&***old, &**cluster)))
        };
        let route = |route: &Route| {
            let (row, old) = routes.get(route.name.as_str())?;
            is_same(&(&old.timeout, &old.retry), &(&route.timeout, &route.retry)).then(|| RouteId::from_index(*row))
        };
        Self {
            clusters: new.clusters.iter().map(cluster).collect(),
            before_len: old.clusters.len(),
            routes: new.routes.iter().map(route).collect(),
        }
    }

    /// The cluster that this row was, and whether it is the same in everything.
    pub(super) fn cluster(&self, row: usize) -> Option<(ClusterId, bool)> {
        self.clusters.get(row).copied().flatten()
    }
}

/// Whether two parts of configurations say the same. By their words: some of what they hold (compiled patterns) cannot be compared.
fn is_same<T: std::fmt::Debug>(old: &T, new: &T) -> bool {
    format!("{old:?}") == format!("{new:?}")
}

fn all_sessions(config: &Config, made: &[u8; 32]) -> Vec<Option<Arc<Sessions>>> {
    match config.clusters.iter().any(|cluster| cluster.sticky.is_some()) {
        true => config.clusters.iter().map(|cluster| sessions(cluster, made)).collect(),
        false => Vec::new(),
    }
}

fn sessions(cluster: &Cluster, made: &[u8; 32]) -> Option<Arc<Sessions>> {
    let key = cluster.sticky.as_ref()?.key.as_ref();
    Some(Arc::new(Sessions::new(key.map_or(made, |key| &key.0), cluster)))
}

fn common(old: Option<(&Shared, (ClusterId, bool))>, cluster: &Cluster, workers: usize) -> Common {
    let Some((old, (row, same))) = old else { return Common::new(cluster, workers) };
    let common = &old.clusters[row.index()];
    if same { common.clone() } else { common.succeed(&old.config.clusters[row.index()], cluster) }
}

fn endpoint_slots(
    old: Option<(&Shared, (ClusterId, bool))>,
    cluster: &Cluster,
    workers: usize,
) -> Arc<[Arc<SharedSlots>]> {
    let Some(limit) = cluster.requests_max else { return Arc::default() };
    let mut known: HashMap<String, &Arc<SharedSlots>> = HashMap::new();
    if let Some((old, (row, _))) = old {
        let addresses = old.config.clusters[row.index()].endpoints.iter().map(Endpoint::identity);
        known.extend(addresses.zip(&*old.endpoint_slots[row.index()]));
    }
    let slots = |address: String| match known.remove(&address) {
        Some(slots) => Arc::clone(slots),
        None => Arc::new(SharedSlots::new(limit, workers)),
    };
    cluster.endpoints.iter().map(Endpoint::identity).map(slots).collect()
}

fn connections_max(listener: &Listener) -> u32 {
    u32::try_from(listener.connections_max).unwrap_or(u32::MAX)
}

fn listener_slots(
    old: Option<&Shared>,
    listener: &Listener,
    workers: usize,
) -> (Arc<SharedSlots>, Option<Arc<ClientSlots>>) {
    let old = old.and_then(|old| Some((old, old.listener(&listener.name)?.index())));
    let connections = match old {
        Some((old, row)) => Arc::clone(&old.connection_slots[row]),
        None => Arc::new(SharedSlots::new(connections_max(listener), workers)),
    };
    let clients = listener.client_connections_max.map(|limit| {
        let same =
            |of: &Listener| (of.client_connections_max, of.connections_max) == (Some(limit), listener.connections_max);
        match old.filter(|(old, row)| same(&old.config.listeners[*row])) {
            Some((old, row)) => old.client_slots[row].clone(),
            None => None,
        }
        .unwrap_or_else(|| Arc::new(ClientSlots::new(limit, listener.connections_max, RandomState::new())))
    });
    (connections, clients)
}
fn tls_rules(listener: &Listener, random: &Arc<TicketKeys>, challenges: &Arc<Challenges>) -> Option<Arc<ServerConfig>> {
    let tls = listener.tls.as_ref()?;
    let keys = tls.ticket_keys.as_ref().unwrap_or(random);
    let tickets = Tickets::new(Arc::clone(keys), tls.clients.clone());
    Some(offer(
        Arc::clone(&tls.names),
        tls.oldest,
        tickets,
        tls.clients.as_deref(),
        tls.key_log.clone(),
        tls.acme.as_ref().map(|_| Arc::clone(challenges)),
        listener.http2.is_some_and(|http2| http2.over_tls),
    ))
}
