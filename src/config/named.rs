//! Endpoints that a resolver tells: what is asked for, and a cluster with what was answered.
//!
//! A cluster of the file has its addresses as endpoints and its names beside them; with every answer there is another cluster, which has the
//! endpoints that are there now. An endpoint is known by its name and its address together, so that one which stays is the same. What an
//! operator has changed about endpoints while the gateway runs ([`Manual`]) comes last.

use super::{Address, Cluster, Config, Endpoint};
use crate::limits::{ENDPOINTS_MAX, TIERS_MAX};
use crate::units::{ClusterId, Weight};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// `[resolver]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    /// Who is asked; `None`: whom the system asks (`/etc/resolv.conf`, and `/etc/hosts` first).
    pub servers: Option<Vec<SocketAddr>>,
    /// An answer is asked for anew no sooner …
    pub min_ttl: Duration,
    /// … and no later than after this, whatever its records say.
    pub max_ttl: Duration,
    /// For one lookup, whomever it asks.
    pub timeout: Duration,
    /// How long the last addresses are kept when there are none any more.
    pub max_stale: Duration,
}

/// What is asked for. As text as the file writes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lookup {
    /// Addresses of a host (A and AAAA), each of which has this port.
    Host {
        /// Its name, without port.
        host: String,
        /// The port.
        port: u16,
    },
    /// Hosts, ports, priorities and weights of a service (SRV, RFC 2782).
    Service(String),
    /// Addresses, priorities and weights that a file says (`endpoints_file`).
    File(PathBuf),
}

impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { host, port } => write!(f, "{host}:{port}"),
            Self::Service(name) => f.write_str(name),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl Lookup {
    /// What its endpoints are called by, before their addresses.
    fn label(&self) -> String {
        match self {
            Self::File(_) => "file".to_owned(),
            Self::Host { .. } | Self::Service(_) => self.to_string(),
        }
    }
}

/// One of `upstream.endpoints[]` that is a name, or the upstream's `endpoints_file`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// What is asked for.
    pub lookup: Lookup,
    /// Of each of its endpoints, where the answer has no weights.
    pub weight: Weight,
    /// Their tier; of a service's, the first one.
    pub priority: u8,
}

/// One endpoint of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    /// Which tier, counted from the name's.
    pub rank: u8,
    /// Where it is.
    pub address: SocketAddr,
    /// Its share; `None`: the name's.
    pub weight: Option<u16>,
}

/// What an operator has changed about a cluster's endpoints: by what they are known by, or where they are. It holds until the next
/// configuration is read, and stands in no file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manual(BTreeMap<String, Wish>);

/// What is wished of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// It is not to be there.
    pub is_gone: bool,
    /// Another weight than it has.
    pub weight: Option<u16>,
    /// Another tier than it has.
    pub priority: Option<u8>,
    /// Where it is if nobody else says so.
    pub added: Option<SocketAddr>,
}

impl Manual {
    /// Weight of an endpoint that is added without one; the same as in the file.
    const WEIGHT: u16 = 100;
    /// What those are called by that nobody else has said.
    const NAME: &str = "admin";

    /// How many endpoints they are about.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether something is wished of what is called so.
    #[must_use]
    pub fn has(&self, endpoint: &str) -> bool {
        self.0.contains_key(endpoint)
    }

    /// Nothing is wished any more of what is called as this one is, by its address or by all that it is known by.
    pub fn forget(&mut self, endpoint: &Endpoint) {
        self.0.retain(|called, _| !endpoint.is_called(called));
    }

    /// The wish for one endpoint, to be changed.
    pub fn wish(&mut self, endpoint: &str) -> &mut Wish {
        self.0.entry(endpoint.to_owned()).or_default()
    }

    fn apply(&self, endpoints: &mut Vec<Endpoint>) {
        for (endpoint, wish) in &self.0 {
            if wish.is_gone {
                endpoints.retain(|it| !it.is_called(endpoint));
                continue;
            }
            if let Some(address) = wish.added.filter(|_| !endpoints.iter().any(|it| it.is_called(endpoint))) {
                endpoints.push(Endpoint {
                    name: Some(Self::NAME.into()),
                    address: Address::Tcp(address),
                    weight: Weight(Self::WEIGHT.into()),
                    priority: 0,
                });
            }
            for it in endpoints.iter_mut().filter(|it| it.is_called(endpoint)) {
                it.weight = wish.weight.map_or(it.weight, |weight| Weight(weight.into()));
                it.priority = wish.priority.unwrap_or(it.priority);
            }
        }
    }
}

/// What is known of a name: its endpoints, sorted, each once.
pub type Answer = Arc<[Told]>;

impl Endpoint {
    /// By what it is known in its cluster: its address, with the name behind which it stands before it.
    #[must_use]
    pub fn identity(&self) -> String {
        match &self.name {
            Some(name) => format!("{name}/{}", self.address),
            None => self.address.to_string(),
        }
    }

    /// Whether it is there because an operator wishes it, and for no other reason.
    #[must_use]
    pub fn is_added(&self) -> bool {
        self.name.as_deref() == Some(Manual::NAME)
    }

    /// Whether an operator means it by that: what it is known by, or its address alone.
    #[must_use]
    pub fn is_called(&self, endpoint: &str) -> bool {
        self.identity() == endpoint || self.address.to_string() == endpoint
    }
}

impl Cluster {
    /// The cluster with the endpoints that `answer` tells for each name, and those that an operator wishes; `None` if these are the ones that
    /// it has.
    fn told(&self, answer: &dyn Fn(&Lookup) -> Option<Answer>, manual: Option<&Manual>) -> Option<Self> {
        if self.names.is_empty() && manual.is_none() {
            return None;
        }
        let mut endpoints: Vec<Endpoint> = self.endpoints.iter().filter(|it| it.name.is_none()).cloned().collect();
        for named in &self.names {
            let name: Arc<str> = named.lookup.label().into();
            let told = answer(&named.lookup);
            endpoints.extend(told.iter().flat_map(|told| told.iter()).map(|told| Endpoint {
                name: Some(Arc::clone(&name)),
                address: Address::Tcp(told.address),
                weight: told.weight.map_or(named.weight, |weight| Weight(weight.into())),
                priority: named.priority.saturating_add(told.rank).min(TIERS_MAX as u8 - 1),
            }));
        }
        if let Some(manual) = manual {
            manual.apply(&mut endpoints);
        }
        endpoints.truncate(ENDPOINTS_MAX);
        (endpoints != self.endpoints).then(|| Self { endpoints, ..self.clone() })
    }
}

impl Config {
    /// All names, as often as clusters have them.
    pub fn lookups(&self) -> impl Iterator<Item = &Lookup> {
        self.clusters.iter().flat_map(|cluster| &cluster.names).map(|named| &named.lookup)
    }

    /// The configuration with the endpoints that `answer` tells and those that operators wish, by clusters' names; and the clusters that have
    /// others than before. What has not changed is shared, not copied.
    #[must_use]
    pub fn told(
        &self,
        answer: &dyn Fn(&Lookup) -> Option<Answer>,
        manual: &HashMap<String, Manual>,
    ) -> (Self, Vec<ClusterId>) {
        let (mut next, mut changed) = (self.clone(), Vec::new());
        for (row, cluster) in next.clusters.iter_mut().enumerate() {
            let manual = if manual.is_empty() { None } else { manual.get(&cluster.name) };
            if let Some(told) = cluster.told(answer, manual) {
                *cluster = Arc::new(told);
                changed.push(ClusterId::from_index(row));
            }
        }
        (next, changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn parse(endpoints: &str) -> Config {
        let text = format!(
            "[[listener]]\nlisten = \"127.0.0.1:80\"\n[[route]]\nupstream = \"a\"\n[upstream.a]\nendpoints = [{endpoints}]\n\
             [upstream.b]\nendpoints = [{{ address = \"10.0.0.9:1\" }}]\n"
        );
        config::check::parse_for(&text, "test", &[0]).unwrap_or_else(|errors| panic!("{errors}"))
    }

    fn shown(config: &Config) -> Vec<String> {
        let row = |it: &Endpoint| format!("{} {} {}", it.identity(), it.weight.0, it.priority);
        config.clusters[0].endpoints.iter().map(row).collect()
    }

    fn told(address: &str, rank: u8, weight: Option<u16>) -> Told {
        Told { rank, address: address.parse().unwrap(), weight }
    }

    #[test]
    fn endpoints_are_the_addresses_of_the_file_and_those_that_are_told() {
        let config = parse(
            "{ srv = \"_http._tcp.a.test\", priority = 14 }, { address = \"10.0.0.1:80\" }, { address = \"A.test.:8080\", weight = 7, priority = 1 }",
        );
        assert_eq!(shown(&config), ["10.0.0.1:80 100 0"]);
        let lookups: Vec<_> = config.lookups().map(ToString::to_string).collect();
        assert_eq!(lookups, ["_http._tcp.a.test", "a.test.:8080"]);
        let answer = |lookup: &Lookup| match lookup {
            Lookup::Host { .. } => Some(Arc::from([told("10.0.0.1:8080", 0, None), told("[::1]:8080", 0, None)])),
            Lookup::File(_) => None,
            Lookup::Service(_) => Some(Arc::from([told("10.0.0.1:80", 0, Some(5)), told("10.0.0.2:81", 3, Some(1))])),
        };
        let (next, changed) = config.told(&answer, &HashMap::new());
        assert_eq!(changed, [ClusterId(0)]);
        assert_eq!(
            shown(&next),
            [
                "10.0.0.1:80 100 0",
                "_http._tcp.a.test/10.0.0.1:80 5 14",
                "_http._tcp.a.test/10.0.0.2:81 1 15",
                "a.test.:8080/10.0.0.1:8080 7 1",
                "a.test.:8080/[::1]:8080 7 1",
            ]
        );
        assert!(Arc::ptr_eq(&next.clusters[1], &config.clusters[1]), "what has no names is not touched");
        let (same, changed) = next.told(&answer, &HashMap::new());
        assert!(changed.is_empty() && Arc::ptr_eq(&same.clusters[0], &next.clusters[0]));
        let (none, changed) = next.told(&|_| None, &HashMap::new());
        assert_eq!((shown(&none).len(), changed.len()), (1, 1));
    }

    #[test]
    fn what_an_operator_wishes_comes_last_and_again_with_every_answer() {
        let config = parse("{ address = \"10.0.0.1:80\" }, { address = \"10.0.0.2:80\" }, { address = \"a.test:80\" }");
        let answer = |_: &Lookup| Some(Arc::from([told("10.0.0.3:80", 0, None), told("10.0.0.4:80", 0, None)]));
        let mut manual = Manual::default();
        manual.wish("10.0.0.1:80").is_gone = true;
        manual.wish("10.0.0.2:80").weight = Some(0);
        *manual.wish("a.test:80/10.0.0.3:80") = Wish { weight: Some(7), priority: Some(2), ..Wish::default() };
        let added = |text: &str| Wish { added: Some(text.parse().unwrap()), ..Wish::default() };
        *manual.wish("10.0.0.9:80") = Wish { weight: Some(9), ..added("10.0.0.9:80") };
        *manual.wish("10.0.0.4:80") = added("10.0.0.4:80");
        let manual = HashMap::from([("a".to_owned(), manual)]);
        let (next, changed) = config.told(&answer, &manual);
        let expected =
            ["10.0.0.2:80 0 0", "a.test:80/10.0.0.3:80 7 2", "a.test:80/10.0.0.4:80 100 0", "admin/10.0.0.9:80 9 0"];
        assert_eq!((shown(&next).as_slice(), changed.len()), (expected.map(str::to_owned).as_slice(), 1));
        assert!(next.told(&answer, &manual).1.is_empty(), "it is what it is");
        let (fewer, _) = next.told(&|_| None, &manual);
        assert_eq!(shown(&fewer), ["10.0.0.2:80 0 0", "admin/10.0.0.4:80 100 0", "admin/10.0.0.9:80 9 0"]);
    }

    #[test]
    fn a_cluster_has_no_more_endpoints_than_clusters_have() {
        let config = parse("{ address = \"a.test:80\" }");
        let many: Answer = (0..ENDPOINTS_MAX as u32 + 5)
            .map(|n| Told { rank: 0, address: (std::net::Ipv4Addr::from(0x0a00_0000 + n), 80).into(), weight: None })
            .collect();
        assert_eq!(
            config.told(&|_| Some(Arc::clone(&many)), &HashMap::new()).0.clusters[0].endpoints.len(),
            ENDPOINTS_MAX
        );
    }
}
