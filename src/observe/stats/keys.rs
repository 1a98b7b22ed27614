//! Where the numbers of a name are, over generations: a reload changes rows, and a name keeps its numbers.
//!
//! A route is known by its name, a limit, a listener and an upstream by theirs, an endpoint by its upstream, its name and its address (the second of the
//! same in one upstream is another one). What a new configuration does not have any more stays for a while, so that a name which
//! returns goes on where it was: Prometheus' counters never go back. Of each kind the last [`KEPT_MAX`] are kept, and whatever an older
//! generation still counts lives as long as that does.
//!
//! Only the control thread comes here, with each configuration, and a worker at the beginning and end of its life.

use super::cells::{ClusterStats, EndpointStats, Gauges, LimitStats, ListenerStats, RouteStats};
use super::probe::ProbeCell;
use crate::config::{Cluster, Config};
use crate::observe::counter::Rows;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Names of each kind whose numbers are kept though the configuration has them no more.
const KEPT_MAX: usize = 1_024;

/// A route's numbers, and the number that stands for its name where there is no room for that.
#[derive(Clone, Debug)]
pub(super) struct RouteRow {
    /// Never given to another name.
    pub(super) number: u32,
    pub(super) parts: Rows<RouteStats>,
}

/// A limit's numbers.
#[derive(Debug)]
pub(crate) struct LimitRow {
    pub(crate) name: String,
    /// No row before it has the same name, and the same numbers.
    pub(crate) is_first: bool,
    pub(crate) parts: Rows<LimitStats>,
}

/// An endpoint's numbers.
#[derive(Clone, Debug)]
pub(super) struct EndpointRow {
    pub(super) parts: Rows<EndpointStats>,
    pub(super) probe: Arc<ProbeCell>,
    pub(super) by_hand: Arc<ByHand>,
}

/// What operators have had done to an endpoint, which the control thread counts.
#[derive(Debug, Default)]
pub(super) struct ByHand {
    pub(super) ejections: AtomicU64,
    pub(super) readmissions: AtomicU64,
}

/// Upstream, address, and how many of the same stand before it.
type EndpointKey = (String, String, usize);

/// Numbers by name.
#[derive(Debug)]
struct Table<K, V> {
    known: HashMap<K, (V, u64)>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { known: HashMap::new() }
    }
}

/// Numbers of which rows are copies.
trait Shared: Clone {
    /// Whether somebody else has them too.
    fn is_shared(&self) -> bool;
}

impl<T> Shared for Rows<T> {
    fn is_shared(&self) -> bool {
        Self::is_shared(self)
    }
}

impl Shared for RouteRow {
    fn is_shared(&self) -> bool {
        self.parts.is_shared()
    }
}

impl Shared for EndpointRow {
    fn is_shared(&self) -> bool {
        self.parts.is_shared()
    }
}

impl<K: Clone + Eq + Hash, V: Shared> Table<K, V> {
    /// The numbers of `key`, which generation `now` has.
    fn take(&mut self, key: K, now: u64, make: impl FnOnce() -> V) -> V {
        let (row, seen) = self.known.entry(key).or_insert_with(|| (make(), now));
        *seen = now;
        row.clone()
    }

    /// Forgets those that were seen longest ago, of more than are kept. Those that a configuration still has do not count: what comes now may
    /// never come into use, and the one before goes on.
    fn forget(&mut self, now: u64) {
        let mut gone: Vec<(u64, K)> = self
            .known
            .iter()
            .filter(|(_, (row, seen))| *seen != now && !row.is_shared())
            .map(|(key, (_, seen))| (*seen, key.clone()))
            .collect();
        if gone.len() > KEPT_MAX {
            gone.sort_unstable_by_key(|(seen, _)| *seen);
            let surplus = gone.len() - KEPT_MAX;
            gone.drain(..surplus).for_each(|(_, key)| {
                self.known.remove(&key);
            });
        }
    }

    /// No configuration has it any more since `now`.
    fn leave(&mut self, key: &K, now: u64) {
        if let Some((_, seen)) = self.known.get_mut(key) {
            *seen = now - 1;
        }
    }

    fn rows(&self) -> impl Iterator<Item = &V> {
        self.known.values().map(|(row, _)| row)
    }
}

/// All names that are known.
#[derive(Debug)]
pub(super) struct Keys {
    /// How many parts everything has: one for each life of each worker.
    parts: usize,
    /// Configurations so far.
    now: u64,
    /// Routes' numbers given so far.
    numbers: u32,
    /// Endpoints that have gone since they were last looked through.
    gone: usize,
    routes: Table<Option<String>, RouteRow>,
    clusters: Table<String, Rows<ClusterStats>>,
    endpoints: Table<EndpointKey, EndpointRow>,
    listeners: Table<String, Rows<ListenerStats>>,
    limits: Table<String, Rows<LimitStats>>,
}

/// One cluster's numbers.
#[derive(Debug)]
pub(super) struct ClusterRow {
    pub(super) parts: Rows<ClusterStats>,
    pub(super) endpoints: Box<[EndpointRow]>,
}

/// The rows of one configuration.
pub(super) struct Rowed {
    pub(super) routes: Arc<[RouteRow]>,
    pub(super) clusters: Vec<Arc<ClusterRow>>,
    pub(super) listeners: Arc<[Rows<ListenerStats>]>,
    pub(super) limits: Arc<[LimitRow]>,
}

impl Keys {
    pub(super) fn new(parts: usize) -> Self {
        Self {
            parts,
            now: 0,
            numbers: 0,
            gone: 0,
            routes: Table::default(),
            clusters: Table::default(),
            endpoints: Table::default(),
            listeners: Table::default(),
            limits: Table::default(),
        }
    }

    /// The numbers of all that `config` names; of the routes, those of requests without one stand last.
    pub(super) fn rows_of(&mut self, config: &Config) -> Rowed {
        self.now += 1;
        let (now, parts) = (self.now, self.parts);
        let names = config.routes.iter().map(|route| Some(route.name.clone())).chain([None]);
        let routes = names
            .map(|name| {
                self.routes.take(name, now, || {
                    self.numbers += 1;
                    RouteRow { number: self.numbers, parts: Rows::new(parts) }
                })
            })
            .collect();
        let clusters = config.clusters.iter().map(|cluster| Arc::new(self.cluster(cluster))).collect();
        let listener = |name: &String| self.listeners.take(name.clone(), now, || Rows::new(parts));
        let listeners = config.listeners.iter().map(|it| &it.name).map(listener).collect();
        self.routes.forget(now);
        self.clusters.forget(now);
        self.endpoints.forget(now);
        let mut seen = HashSet::new();
        let limit = |name: String| LimitRow {
            is_first: seen.insert(name.clone()),
            parts: self.limits.take(name.clone(), now, || Rows::new(parts)),
            name,
        };
        let limits = config.limit_names().map(limit).collect();
        self.listeners.forget(now);
        self.limits.forget(now);
        Rowed { routes, clusters, listeners, limits }
    }

    /// The numbers of a cluster that has other endpoints now.
    pub(super) fn replace(&mut self, old: &Cluster, new: &Cluster) -> ClusterRow {
        let row = self.cluster(new);
        let stays: HashSet<EndpointKey> = keys_of(new).collect();
        for gone in keys_of(old).filter(|key| !stays.contains(key)) {
            self.endpoints.leave(&gone, self.now);
            self.gone += 1;
        }
        // all of them are looked through: not with every change
        if self.gone > KEPT_MAX {
            self.gone = 0;
            self.endpoints.forget(self.now);
        }
        row
    }

    fn cluster(&mut self, cluster: &Cluster) -> ClusterRow {
        let (now, parts) = (self.now, self.parts);
        let endpoints = keys_of(cluster).map(|key| {
            self.endpoints.take(key, now, || EndpointRow {
                parts: Rows::new(parts),
                probe: Arc::default(),
                by_hand: Arc::default(),
            })
        });
        let endpoints = endpoints.collect();
        let parts = self.clusters.take(cluster.name.clone(), now, || Rows::new(parts));
        ClusterRow { parts, endpoints }
    }

    /// What a thread that is gone had open is gone with it.
    pub(super) fn reset_gauges(&self, part: usize) {
        self.clusters.rows().filter_map(|rows| rows.get(part)).for_each(Gauges::reset);
        self.endpoints.rows().filter_map(|row| row.parts.get(part)).for_each(Gauges::reset);
        self.listeners.rows().filter_map(|rows| rows.get(part)).for_each(Gauges::reset);
    }
}

/// What each endpoint of a cluster is known by.
fn keys_of(cluster: &Cluster) -> impl Iterator<Item = EndpointKey> {
    let mut twins: HashMap<String, usize> = HashMap::new();
    cluster.endpoints.iter().map(move |endpoint| {
        let identity = endpoint.identity();
        let twin = twins.entry(identity.clone()).or_default();
        *twin += 1;
        (cluster.name.clone(), identity, *twin)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_returns_has_its_numbers_and_the_oldest_that_is_gone_is_forgotten() {
        let mut table: Table<usize, Rows<ListenerStats>> = Table::default();
        let count = |rows: &Rows<ListenerStats>| rows.touch(0, ListenerStats::default).accepted.add(1);
        let counted = |rows: &Rows<ListenerStats>| rows.get(0).map_or(0, |stats| stats.accepted.get());
        count(&table.take(0, 1, || Rows::new(1)));
        table.forget(2);
        let first = table.take(0, 3, || unreachable!("it is known"));
        assert_eq!(counted(&first), 1);
        for key in 1..=KEPT_MAX + 1 {
            table.take(key, 4 + key as u64, || Rows::new(1));
        }
        let now = 5 + KEPT_MAX as u64;
        table.forget(now);
        assert_eq!(
            table.known.len(),
            KEPT_MAX + 2,
            "one is used, one more is of a configuration that is, the others are kept"
        );
        drop(first);
        table.take(KEPT_MAX + 2, now, || Rows::new(1));
        table.forget(now);
        assert_eq!(table.known.len(), KEPT_MAX + 2);
        assert!(!table.known.contains_key(&0), "it was seen first");
    }
}
