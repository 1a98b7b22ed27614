//! What a gateway knows that outlives its process: an upgrade passes it on, by name.

use super::Shared;
use crate::net::clock;
use crate::policy::far::FarTable;
use crate::policy::key_table::Debts;
use crate::policy::limiter::Moment;
use crate::policy::replay::Left;
use crate::policy::standings::Words;
use crate::units::Instant;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;

/// Where endpoints stand, what rate limits per route have left, and which clients have used theirs. What nothing is known of is not in it.
/// It is a secret: keys of clients come with what they are hashed with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Estate {
    /// By the upstream's name, then by endpoint.
    upstreams: HashMap<String, HashMap<u64, Words>>,
    /// Tokens, by the limit's name.
    limits: HashMap<String, u64>,
    /// Limits per client, consumer, header and certificate.
    clients: Clients,
    /// Quotas, by the time at which they end.
    quotas: Clients,
    /// Nonces of signed requests.
    nonces: Nonces,
}

/// [`Left`], as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Nonces {
    secret: [u64; 2],
    places: usize,
    words: Vec<(usize, u64)>,
    /// Not said by older ones.
    #[serde(default)]
    life: u64,
}

/// [`Debts`], as they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Clients {
    secret: [u64; 2],
    debts: Vec<(u64, u64)>,
}

impl Shared {
    /// What is to be passed on at `now`.
    #[must_use]
    pub fn estate(&self, now: Instant) -> Estate {
        let known = self.clusters.iter().zip(&self.config.clusters).filter_map(|(common, cluster)| {
            let known: HashMap<_, _> = common.known(cluster).collect();
            (!known.is_empty()).then(|| (cluster.name.clone(), known))
        });
        let Debts { secret, clients: debts } = self.limits.table().debts(now);
        let quotas = self.quotas(clock::wall().as_secs());
        Estate {
            upstreams: known.collect(),
            limits: self.limits.left(now).collect(),
            clients: Clients { secret, debts },
            quotas: Clients { secret: quotas.secret, debts: quotas.clients },
            nonces: self.nonces(),
        }
    }

    fn nonces(&self) -> Nonces {
        let left = self.replays.as_ref().map(|(replays, _)| replays.left(clock::wall()));
        let Left { secret, places, words, life } = left.unwrap_or_default();
        Nonces { secret, places, words, life }
    }

    /// What was taken of quotas, as it means the same in every process; `unix`: seconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn quotas(&self, unix: u64) -> Debts {
        let now = Moment::of_quotas(unix);
        let mut taken = self.limits.quotas().debts(now);
        taken.clients.iter_mut().for_each(|(_, debt)| *debt = debt.saturating_add(now.as_nanos()));
        taken
    }

    /// Goes on with what was taken of quotas. Before any request is served.
    pub fn take_on_quotas(&self, mut taken: Debts, unix: u64) {
        let now = Moment::of_quotas(unix);
        taken.clients.iter_mut().for_each(|(_, until)| *until = until.saturating_sub(now.as_nanos()));
        self.limits.quotas().take_on(&taken, now);
    }

    /// The table of rates that several hosts share.
    #[must_use]
    pub fn far(&self) -> &Arc<FarTable> {
        self.limits.far()
    }

    /// Whether there is any quota.
    #[must_use]
    pub fn has_quotas(&self) -> bool {
        self.limits.has_quotas()
    }

    /// Goes on with what another process has passed on. Before any request is served.
    pub fn take_on(&self, estate: Estate, now: Instant) {
        let Estate { mut upstreams, limits, clients, quotas, nonces } = estate;
        for (common, cluster) in self.clusters.iter().zip(&self.config.clusters) {
            if let Some(known) = upstreams.remove(&cluster.name) {
                common.take_on(cluster, known);
            }
        }
        self.limits.take_on(&limits, now);
        // from a process that knows of none there is no secret either
        if clients.secret != [0, 0] {
            self.limits.table().take_on(&Debts { secret: clients.secret, clients: clients.debts }, now);
        }
        if let Some((replays, _)) = &self.replays {
            let Nonces { secret, places, words, life } = nonces;
            replays.take_on(&Left { secret, places, words, life }, clock::wall());
        }
        if quotas.secret != [0, 0] {
            let taken = Debts { secret: quotas.secret, clients: quotas.debts };
            self.take_on_quotas(taken, clock::wall().as_secs());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::stats::Stats;
    use crate::policy::descriptors::Fit;
    use crate::policy::router::Router;
    use crate::units::EndpointId;

    const CHECKED: &str = "health_check = { path = \"/\" }\n";

    fn shared(more: &str) -> Shared {
        let text = format!(
            "[gateway]\nworkers = 1\n[[listener]]\nname = \"edge\"\nlisten = \"127.0.0.1:0\"\n\
             [[route]]\nname = \"all\"\nupstream = \"svc\"\nlimit = [ {{ rate = \"1/h\", burst = 9, per = \"route\" }} ]\n\
             [upstream.svc]\nendpoints = [ {{ address = \"127.0.0.1:1\" }}, {{ address = \"127.0.0.1:2\" }} ]\n{more}"
        );
        let config = Arc::new(crate::config::parse(&text, "a test").unwrap());
        let (router, stats) = (Router::try_new(&config).unwrap(), Stats::new(&config, 1));
        Shared::new(config, router, stats, &Fit::WHOLE)
    }

    #[test]
    fn what_is_known_is_known_by_the_next_and_what_nobody_would_take_back_is_not() {
        let (before, now) = (shared(CHECKED), Instant::from_nanos(1 << 40));
        let [first, second] = [0, 1].map(EndpointId::from_index);
        before.clusters[0].standings.set_healthy(second, false);
        let left = HashMap::from([("all".to_owned(), 4)]);
        before.limits.take_on(&left, now);
        let estate = before.estate(now);
        assert_eq!(estate.limits, left);
        let text = serde_json::to_string(&estate).unwrap();
        let read: Estate = serde_json::from_str(&text).unwrap();
        let (after, unchecked) = (shared(CHECKED), shared(""));
        after.take_on(read.clone(), now);
        unchecked.take_on(read, now);
        assert_eq!(after.estate(now), estate);
        let healthy = |shared: &Shared| [first, second].map(|id| shared.clusters[0].standings.is_healthy(id));
        assert_eq!((healthy(&after), healthy(&unchecked)), ([true, false], [true, true]));
    }

    #[test]
    fn an_estate_of_another_configuration_is_no_harm() {
        let (after, now) = (shared(CHECKED), Instant::from_nanos(1 << 40));
        let full = after.estate(now);
        let strange = r#"{"upstreams":{"gone":{"1":{}},"svc":{"9":{"down":true}}},
            "limits":{"gone":1,"all":18446744073709551615},"later":[]}"#;
        after.take_on(serde_json::from_str(strange).unwrap(), now);
        assert_eq!(after.estate(now), full);
    }
}
