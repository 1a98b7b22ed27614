//! What operators may ask of one endpoint while the gateway runs, at the admin API; and what comes of it.
//!
//! It changes what is in use and no file: a reload and a restart begin with the file again. So it is for what cannot wait for one: to take an
//! endpoint out before its host is restarted, to add one in an emergency, a controller's changes of weight.

use crate::config::{Endpoint, Manual, Wish};
use crate::limits::{ENDPOINTS_MAX, TIERS_MAX};
use crate::net::clock;
use crate::policy::outlier::Evidence;
use crate::policy::standings::{Standing, coarse};
use crate::units::{ClusterId, EndpointId};
use crate::worker::Shared;
use serde::Deserialize;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How long an endpoint is ejected by hand where its upstream ejects nobody by itself.
const EJECTED: Duration = Duration::from_secs(10);
/// How often a change is tried that a worker's own comes before: they are far between.
const CHANGES_MAX: usize = 100;
/// Endpoints that may have been changed by hand: more are a controller's, which has `endpoints_file`.
const WISHES_MAX: usize = 4_096;

/// The body of a PUT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Put {
    /// Its share; as it is, or 100, where it is not given.
    pub weight: Option<u16>,
    /// Its tier; as it is, or 0, where it is not given.
    pub priority: Option<u8>,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// It is to be there, so.
    Put(Put),
    /// It is to be gone.
    Delete,
    /// It is to have no new requests: weight 0.
    Drain,
    /// It is to be put aside for a while, as if it had failed: it is asked again when that is over, or once a health check passes.
    Eject,
    /// It is to serve again that was put aside.
    Readmit,
}

/// An order, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Name of the upstream.
    pub upstream: String,
    /// What the endpoint is known by, or its address.
    pub endpoint: String,
    /// What is to become of it.
    pub order: Order,
}

/// Why nothing comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such upstream or endpoint.
    Unknown(String),
    /// It is not to be had so.
    Wrong(String),
}

/// What operators have wished since the configuration was read, by upstreams.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    by_cluster: HashMap<String, Manual>,
}

impl Wishes {
    /// By the names of clusters.
    pub(super) fn all(&self) -> &HashMap<String, Manual> {
        &self.by_cluster
    }

    /// Takes one down. Whether endpoints are others by it.
    ///
    /// # Errors
    /// Nothing can come of it.
    pub(super) fn take(&mut self, asked: &Asked, shared: &Shared) -> Result<bool, Refused> {
        let Asked { upstream, endpoint, order } = asked;
        let address = endpoint.parse::<SocketAddr>().ok();
        // as it is written everywhere else: `[0:0::1]:80` is `[::1]:80`
        let endpoint = &address.map_or_else(|| endpoint.clone(), |address| address.to_string());
        let row = shared.config.clusters.iter().position(|cluster| cluster.name == *upstream);
        let row = row.ok_or_else(|| Refused::Unknown(format!("no upstream is called {upstream:?}")))?;
        let found: Vec<EndpointId> = rows(&shared.config.clusters[row].endpoints, endpoint);
        if found.is_empty() && !matches!(order, Order::Put(_)) {
            return Err(Refused::Unknown(format!("{upstream:?} has no endpoint {endpoint:?}; /upstreams shows them")));
        }
        match order {
            Order::Eject | Order::Readmit => {
                found.iter().for_each(|id| stand(shared, row, *id, *order == Order::Eject));
                Ok(false)
            }
            Order::Put(put) => {
                let added = address.filter(|address| address.port() > 0 && !address.ip().is_unspecified());
                if added.is_none() && found.is_empty() {
                    return Err(Refused::Wrong(format!("{endpoint:?} is no IP:PORT to connect to")));
                }
                if put.priority.is_some_and(|priority| usize::from(priority) >= TIERS_MAX) {
                    return Err(Refused::Wrong(format!("priority is 0 to {}", TIERS_MAX - 1)));
                }
                if found.is_empty() && shared.config.clusters[row].endpoints.len() >= ENDPOINTS_MAX {
                    return Err(Refused::Wrong(format!(
                        "{upstream:?} has {ENDPOINTS_MAX} endpoints, and no room for more"
                    )));
                }
                let wish = self.wish(upstream, endpoint)?;
                let (weight, priority) = (put.weight.or(wish.weight), put.priority.or(wish.priority));
                *wish = Wish { is_gone: false, weight, priority, added };
                Ok(true)
            }
            Order::Delete => {
                let is_own = |id: &EndpointId| shared.config.clusters[row].endpoints[id.index()].is_added();
                match found.iter().all(is_own) {
                    // nobody else says that it is there: nothing is left to wish
                    true => self.forget(upstream, &found, shared, row),
                    false => *self.wish(upstream, endpoint)? = Wish { is_gone: true, ..Wish::default() },
                }
                Ok(true)
            }
            Order::Drain => {
                self.wish(upstream, endpoint)?.weight = Some(0);
                Ok(true)
            }
        }
    }

    /// Forgets what was wished of endpoints that are there by a wish only, whatever they were called by.
    fn forget(&mut self, upstream: &str, ids: &[EndpointId], shared: &Shared, row: usize) {
        let Some(manual) = self.by_cluster.get_mut(upstream) else { return };
        for id in ids {
            manual.forget(&shared.config.clusters[row].endpoints[id.index()]);
        }
    }

    fn wish(&mut self, upstream: &str, endpoint: &str) -> Result<&mut Wish, Refused> {
        let is_new = !self.by_cluster.get(upstream).is_some_and(|manual| manual.has(endpoint));
        if is_new && self.by_cluster.values().map(Manual::len).sum::<usize>() >= WISHES_MAX {
            let why = format!("{WISHES_MAX} endpoints have been changed by hand; endpoints_file is for more");
            return Err(Refused::Wrong(why));
        }
        Ok(self.by_cluster.entry(upstream.to_owned()).or_default().wish(endpoint))
    }
}

fn rows(endpoints: &[Endpoint], called: &str) -> Vec<EndpointId> {
    let meant = endpoints.iter().enumerate().filter(|(_, endpoint)| endpoint.is_called(called));
    meant.map(|(row, _)| EndpointId::from_index(row)).collect()
}

/// Has an endpoint put aside, or serve. Workers see it with their next pick.
fn stand(shared: &Shared, row: usize, id: EndpointId, away: bool) {
    let (standings, now) = (&shared.clusters[row].standings, clock::now());
    let config = &shared.config.clusters[row];
    let due = coarse(now + config.outlier.map_or(EJECTED, |outlier| outlier.eject));
    let change = |from: Standing| match away {
        true => standings.change(id, from, Standing::Ejected { evidence: Evidence::Hard, due }),
        false => standings.readmit(id, from, now, !config.slow_start.is_zero()),
    };
    for _ in 0..CHANGES_MAX {
        let from = standings.get(id);
        if !away && from == Standing::Serving {
            return;
        }
        if change(from) {
            shared.stats.record_by_hand(ClusterId::from_index(row), id, away);
            return;
        }
        // a worker has changed it meanwhile
    }
}
