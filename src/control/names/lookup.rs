//! One lookup: what is asked, and what the answers mean.
//!
//! Addresses are asked for in both families at once. A family that nobody answers for keeps what it had, if the other one is answered: half an
//! answer must not take the other half's endpoints away. Of a service all hosts are asked for; without one of them the answer is none.
//!
//! A system's configuration is followed as resolv.conf(5) has it: `/etc/hosts` comes first, and a name without a dot at its end is tried in the
//! domains of `search` too. One of these that nobody answers for leaves the name unknown, unless another one has it: only if all say so
//! there is no such name.

use crate::config::{Lookup, Resolver, Told};
use crate::limits::{ENDPOINTS_MAX, SERVICE_HOSTS_AT_ONCE, SERVICE_HOSTS_MAX};
use crate::policy::names::Learned;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ServerOrderingStrategy,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{Hosts, ResolverBuilder, TokioResolver};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// Tries of one question, of which each may take its part of the time.
const TRIES: u32 = 3;

/// Who asks.
pub(super) struct Asker {
    ways: Result<Ways, String>,
    timeout: Duration,
}

/// Where answers come from.
struct Ways {
    resolver: TokioResolver,
    /// What the system's own table has; nothing where servers are named.
    hosts: Hosts,
    /// Domains in which a name is tried, in this order; none where servers are named.
    search: Vec<Name>,
    /// A name with as many dots is tried as it is first.
    dots: usize,
}

/// What came of one question.
enum Records {
    Some(Vec<RData>, Duration),
    Nothing,
    Unknown(String),
}

/// A host, its port, its tier, and its weight.
type Service = (u16, String, u16, u16);

impl Ways {
    fn new(rules: &Resolver) -> Result<Self, NetError> {
        let (mut builder, hosts, search) = match &rules.servers {
            None => {
                let (config, options) = read_system_conf()?;
                let domain = config.domain().filter(|_| config.search().is_empty()).cloned();
                let search = config.search().iter().cloned().chain(domain).filter(|domain| !domain.is_root()).collect();
                let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
                (builder.with_options(options), Hosts::from_system().unwrap_or_default(), search)
            }
            Some(servers) => (asking(servers), Hosts::default(), Vec::new()),
        };
        let options = builder.options_mut();
        // what is known is kept elsewhere, by rules of its own
        options.cache_size = 0;
        options.timeout = rules.timeout / TRIES;
        options.attempts = TRIES as usize - 1;
        // asked here, before anything else
        options.use_hosts_file = ResolveHosts::Never;
        let dots = options.ndots;
        Ok(Self { resolver: builder.build()?, hosts, search, dots })
    }

    /// The whole names that one may stand for, in the order in which they are tried.
    fn candidates(&self, name: Name) -> Vec<Name> {
        let dots = usize::from(name.num_labels()).saturating_sub(1);
        let whole = |mut name: Name| {
            name.set_fqdn(true);
            name
        };
        if name.is_fqdn() || self.search.is_empty() {
            return vec![whole(name)];
        }
        // one that would be too long is none
        let in_domains = self.search.iter().filter_map(|domain| name.clone().append_domain(domain).ok()).map(whole);
        let mut names: Vec<Name> = in_domains.collect();
        let at = if dots >= self.dots { 0 } else { names.len() };
        names.insert(at, whole(name));
        names
    }

    /// Addresses that the system's table has for it; `None`: it is not there.
    fn of_table(&self, name: &Name) -> Option<Vec<IpAddr>> {
        let of = |family| self.hosts.lookup_static_host(&Query::query(name.clone(), family));
        let found: Vec<_> = [RecordType::A, RecordType::AAAA].into_iter().filter_map(of).collect();
        let addresses = found.iter().flat_map(|lookup| lookup.answers()).filter_map(|record| address(&record.data));
        (!found.is_empty()).then(|| addresses.collect())
    }

    async fn records(&self, name: &Name, of: RecordType) -> Records {
        let mut unknown = None;
        for candidate in self.candidates(name.clone()) {
            match self.ask(candidate, of).await {
                Records::Nothing => {}
                Records::Unknown(why) => unknown = Some(why),
                found @ Records::Some(..) => return found,
            }
        }
        unknown.map_or(Records::Nothing, Records::Unknown)
    }

    async fn ask(&self, name: Name, of: RecordType) -> Records {
        match self.resolver.lookup(name, of).await {
            Ok(lookup) => {
                let answers = lookup.answers();
                let ttl = answers.iter().map(|record| record.ttl).min().unwrap_or_default();
                let records: Vec<_> =
                    answers.iter().map(|it| &it.data).filter(|it| it.record_type() == of).cloned().collect();
                if records.is_empty() {
                    return Records::Nothing;
                }
                Records::Some(records, Duration::from_secs(ttl.into()))
            }
            Err(error) if error.is_nx_domain() || error.is_no_records_found() => Records::Nothing,
            Err(NetError::Timeout) => Records::Unknown("no answer in time".to_owned()),
            Err(error) => Records::Unknown(error.to_string()),
        }
    }
}

impl Asker {
    /// By these rules. Must be called within a runtime, and used there. A system's configuration that cannot be read makes every lookup fail.
    pub(super) fn new(rules: &Resolver) -> Self {
        let ways = Ways::new(rules).map_err(|error| format!("the system's configuration cannot be used: {error}"));
        Self { ways, timeout: rules.timeout }
    }

    /// Asks; with the reason where it is not learned. `before` is what was known.
    pub(super) async fn ask(self: Arc<Self>, lookup: &Lookup, before: &[Told]) -> (Learned, Option<String>) {
        let until = Instant::now() + self.timeout;
        match lookup {
            Lookup::Host { host, port } => self.host((host, *port), before, until).await,
            Lookup::Service(name) => self.service(name, before, until).await,
            // a thread reads it, which cannot be ended: no second one is to be begun while a disk hangs
            Lookup::File(path) => super::file::read(path.clone()).await,
        }
    }

    async fn host(&self, (host, port): (&str, u16), before: &[Told], until: Instant) -> (Learned, Option<String>) {
        let at = |ip: IpAddr| Told { rank: 0, address: (ip, port).into(), weight: None };
        let (ways, name) = match (&self.ways, Name::from_ascii(host)) {
            (Ok(ways), Ok(name)) => (ways, name),
            (Err(why), _) => return (Learned::Unknown, Some(why.clone())),
            (_, Err(error)) => return (Learned::Unknown, Some(error.to_string())),
        };
        if let Some(addresses) = ways.of_table(&name) {
            let told: Vec<_> = addresses.into_iter().filter(|ip| can_be_reached(*ip)).map(at).collect();
            // who changes the table is seen
            let learned = if told.is_empty() { Learned::Nothing } else { Learned::Endpoints(told, Duration::MAX) };
            return (learned, None);
        }
        let (v4, v6) =
            tokio::join!(self.records(&name, RecordType::A, until), self.records(&name, RecordType::AAAA, until));
        let (mut told, mut ttl, mut why) = (Vec::new(), Duration::MAX, None);
        for (records, is_v4) in [(&v4, true), (&v6, false)] {
            match records {
                Records::Some(records, theirs) => {
                    ttl = ttl.min(*theirs);
                    told.extend(records.iter().filter_map(address).filter(|ip| can_be_reached(*ip)).map(at));
                }
                Records::Nothing => {}
                Records::Unknown(reason) => {
                    why = Some(reason.clone());
                    let is_theirs = |told: &&Told| told.address.is_ipv4() == is_v4 && told.address.port() == port;
                    told.extend(before.iter().filter(is_theirs));
                }
            }
        }
        match (why, told.is_empty()) {
            (None, true) => (Learned::Nothing, None),
            (Some(why), is_empty) if is_empty || ttl == Duration::MAX => (Learned::Unknown, Some(why)),
            _ => (Learned::Endpoints(told, ttl), None),
        }
    }

    async fn service(self: &Arc<Self>, name: &str, before: &[Told], until: Instant) -> (Learned, Option<String>) {
        let name = match Name::from_ascii(name) {
            Ok(name) => name,
            Err(error) => return (Learned::Unknown, Some(error.to_string())),
        };
        let (records, mut ttl) = match self.records(&name, RecordType::SRV, until).await {
            Records::Some(records, ttl) => (records, ttl),
            Records::Nothing => return (Learned::Nothing, None),
            Records::Unknown(why) => return (Learned::Unknown, Some(why)),
        };
        let mut services: Vec<Service> = records.into_iter().filter_map(service).collect();
        services.sort();
        // the last ones are those that are asked last
        services.truncate(SERVICE_HOSTS_MAX);
        let mut priorities: Vec<u16> = services.iter().map(|(priority, ..)| *priority).collect();
        priorities.dedup();
        let before: Arc<[Told]> = before.into();
        let (mut told, mut asked, mut services) = (Vec::new(), JoinSet::new(), services.into_iter());
        loop {
            let room = SERVICE_HOSTS_AT_ONCE.saturating_sub(asked.len());
            for (priority, host, port, weight) in services.by_ref().take(room) {
                let rank = priorities.partition_point(|known| *known < priority);
                let (asker, before) = (Arc::clone(self), Arc::clone(&before));
                asked.spawn(async move { (rank, weight, asker.host((&host, port), &before, until).await) });
            }
            let Some(ended) = asked.join_next().await else { break };
            let Ok((rank, weight, answer)) = ended else {
                // a lookup has no business panicking: a defect of ours, which must not end in silence
                std::panic::resume_unwind(ended.expect_err("it is none").into_panic());
            };
            match answer {
                (Learned::Endpoints(endpoints, theirs), _) => {
                    ttl = ttl.min(theirs);
                    let rank = u8::try_from(rank).unwrap_or(u8::MAX);
                    // a weight of 0 means a small share (RFC 2782), where ours means none
                    told.extend(endpoints.into_iter().map(|it| Told { rank, weight: Some(weight.max(1)), ..it }));
                }
                (Learned::Nothing, _) => {}
                unknown @ (Learned::Unknown, _) => return unknown,
            }
            if told.len() > ENDPOINTS_MAX {
                // more than an upstream has
                told.sort_unstable();
                told.dedup();
                told.truncate(ENDPOINTS_MAX);
            }
        }
        if told.is_empty() { (Learned::Nothing, None) } else { (Learned::Endpoints(told, ttl), None) }
    }

    async fn records(&self, name: &Name, of: RecordType, until: Instant) -> Records {
        match &self.ways {
            Ok(ways) => timeout_at(until, ways.records(name, of))
                .await
                .unwrap_or_else(|_| Records::Unknown(format!("no answer within {:?}", self.timeout))),
            Err(why) => Records::Unknown(why.clone()),
        }
    }
}

/// One that asks these servers, in their order, first by UDP.
fn asking(servers: &[SocketAddr]) -> ResolverBuilder<TokioRuntimeProvider> {
    let server = |address: &SocketAddr| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = address.port();
            connection
        });
        NameServerConfig::new(address.ip(), true, connections.into())
    };
    let config = ResolverConfig::from_name_servers(servers.iter().map(server).collect());
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.options_mut().server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    builder
}

/// Servers that block names answer with the address of any interface, where this machine would be asked itself.
fn can_be_reached(ip: IpAddr) -> bool {
    !ip.is_unspecified()
}

fn address(record: &RData) -> Option<IpAddr> {
    match record {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    }
}

/// Priority, host, port and weight of a service; `None` for `.`, which says that there is none (RFC 2782), and for port 0.
fn service(record: RData) -> Option<Service> {
    let RData::SRV(service) = record else { return None };
    let mut host = service.target;
    // no domain is tried behind it
    host.set_fqdn(true);
    let host = host.to_ascii();
    (host != "." && service.port > 0).then_some((service.priority, host, service.port, service.weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ways(table: &str, search: &[&str]) -> Ways {
        let mut hosts = Hosts::default();
        hosts.read_hosts_conf(table.as_bytes()).unwrap();
        let search = search.iter().map(|domain| Name::from_ascii(domain).unwrap()).collect();
        // nobody listens there
        let resolver = asking(&["127.0.0.1:1".parse().unwrap()]).build().unwrap();
        Ways { resolver, hosts, search, dots: 1 }
    }

    fn block_on(future: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
    }

    #[test]
    fn a_name_is_tried_in_the_domains_of_the_system_unless_a_dot_ends_it() {
        block_on(async {
            let tried = |search: &[&str], name: &str| {
                let names = ways("", search).candidates(Name::from_ascii(name).unwrap());
                names.iter().map(Name::to_ascii).collect::<Vec<_>>()
            };
            let search = ["x.test", "y.test."];
            assert_eq!(tried(&search, "a"), ["a.x.test.", "a.y.test.", "a."]);
            assert_eq!(tried(&search, "a.b"), ["a.b.", "a.b.x.test.", "a.b.y.test."]);
            assert_eq!(tried(&search, "a."), ["a."]);
            assert_eq!(tried(&search, "a.b."), ["a.b."]);
            assert_eq!(tried(&[], "a"), ["a."]);
        });
    }

    #[test]
    fn what_the_system_s_table_has_is_not_asked_for() {
        block_on(async {
            let table = "10.0.0.1 a A.test\n::1 a\n10.0.0.2 a\n0.0.0.0 blocked\n";
            let asker = Asker { ways: Ok(ways(table, &["x.test"])), timeout: Duration::from_millis(10) };
            let until = Instant::now() + asker.timeout;
            let addresses = async |host: &str| match asker.host((host, 80), &[], until).await.0 {
                Learned::Endpoints(mut told, Duration::MAX) => {
                    told.sort_unstable();
                    told.iter().map(|told| told.address.to_string()).collect()
                }
                Learned::Nothing => vec!["nothing".to_owned()],
                other => vec![format!("{other:?}")],
            };
            assert_eq!(addresses("a").await, ["10.0.0.1:80", "10.0.0.2:80", "[::1]:80"]);
            assert_eq!(addresses("a.test.").await, ["10.0.0.1:80"]);
            assert_eq!(addresses("blocked").await, ["nothing"], "that would be this machine");
            assert_eq!(addresses("b").await, ["Unknown"]);
        });
    }
}
