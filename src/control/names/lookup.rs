//! One lookup: what is asked, and what the answers mean.
//!
//! Addresses are asked for in both families at once. A family that nobody answers for keeps what it had, if the other one is answered: half an
//! answer must not take the other half's endpoints away. Of a service all hosts are asked for; without one of them the answer is none.

use crate::config::{Lookup, Resolver, Told};
use crate::limits::SERVICE_HOSTS_MAX;
use crate::policy::names::Learned;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ServerOrderingStrategy};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{ResolverBuilder, TokioResolver};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Tries of one question, of which each may take its part of the time.
const TRIES: u32 = 3;

/// Who asks.
pub(super) struct Asker {
    resolver: Result<TokioResolver, String>,
    timeout: Duration,
    /// Names are whole: no domain is tried behind them.
    is_whole: bool,
}

/// What came of one question.
enum Records {
    Some(Vec<RData>, Duration),
    Nothing,
    Unknown(String),
}

impl Asker {
    /// By these rules. Must be called within a runtime, and used there. A system's configuration that cannot be read makes every lookup fail.
    pub(super) fn new(rules: &Resolver) -> Self {
        let builder = match &rules.servers {
            None => TokioResolver::builder(TokioRuntimeProvider::default()),
            Some(servers) => Ok(asking(servers)),
        };
        let resolver = builder.and_then(|mut builder| {
            let options = builder.options_mut();
            // what is known is kept elsewhere, by rules of its own
            options.cache_size = 0;
            options.timeout = rules.timeout / TRIES;
            options.attempts = TRIES as usize - 1;
            builder.build()
        });
        let resolver = resolver.map_err(|error| format!("the system's configuration cannot be used: {error}"));
        Self { resolver, timeout: rules.timeout, is_whole: rules.servers.is_some() }
    }

    /// Asks; with the reason where it is not learned. `before` is what was known.
    pub(super) async fn ask(&self, lookup: &Lookup, before: &[Told]) -> (Learned, Option<String>) {
        let asked = async {
            match lookup {
                Lookup::Host { host, port } => self.host(host, *port, before).await,
                Lookup::Service(name) => self.service(name).await,
                Lookup::File(path) => super::file::read(path.clone()).await,
            }
        };
        if matches!(lookup, Lookup::File(_)) {
            // a thread reads it, which cannot be ended: no second one is to be begun while a disk hangs
            return asked.await;
        }
        let asked = tokio::time::timeout(self.timeout, asked).await;
        asked.unwrap_or_else(|_| (Learned::Unknown, Some(format!("no answer within {:?}", self.timeout))))
    }

    async fn host(&self, host: &str, port: u16, before: &[Told]) -> (Learned, Option<String>) {
        let (v4, v6) = tokio::join!(self.records(host, RecordType::A), self.records(host, RecordType::AAAA));
        let (mut told, mut ttl, mut why) = (Vec::new(), Duration::MAX, None);
        for (records, is_v4) in [(&v4, true), (&v6, false)] {
            match records {
                Records::Some(records, theirs) => {
                    ttl = ttl.min(*theirs);
                    let addresses = records.iter().filter_map(address);
                    told.extend(addresses.map(|ip| Told { rank: 0, address: (ip, port).into(), weight: None }));
                }
                Records::Nothing => {}
                Records::Unknown(reason) => {
                    why = Some(reason.clone());
                    told.extend(before.iter().filter(|told| told.address.is_ipv4() == is_v4));
                }
            }
        }
        match ttl {
            Duration::MAX if why.is_some() => (Learned::Unknown, why),
            Duration::MAX => (Learned::Nothing, None),
            ttl => (Learned::Endpoints(told, ttl), None),
        }
    }

    async fn service(&self, name: &str) -> (Learned, Option<String>) {
        let (records, mut ttl) = match self.records(name, RecordType::SRV).await {
            Records::Some(records, ttl) => (records, ttl),
            Records::Nothing => return (Learned::Nothing, None),
            Records::Unknown(why) => return (Learned::Unknown, Some(why)),
        };
        let mut services: Vec<_> = records.into_iter().filter_map(service).take(SERVICE_HOSTS_MAX).collect();
        services.sort();
        let mut priorities: Vec<u16> = services.iter().map(|(priority, ..)| *priority).collect();
        priorities.dedup();
        let mut told = Vec::new();
        for (priority, host, port, weight) in services {
            let rank = priorities.partition_point(|known| *known < priority);
            match self.host(&host, port, &[]).await {
                (Learned::Endpoints(endpoints, theirs), _) => {
                    ttl = ttl.min(theirs);
                    let rank = u8::try_from(rank).unwrap_or(u8::MAX);
                    // a weight of 0 means a small share (RFC 2782), where ours means none
                    told.extend(endpoints.into_iter().map(|it| Told { rank, weight: Some(weight.max(1)), ..it }));
                }
                (Learned::Nothing, _) => {}
                unknown => return unknown,
            }
        }
        if told.is_empty() { (Learned::Nothing, None) } else { (Learned::Endpoints(told, ttl), None) }
    }

    async fn records(&self, name: &str, of: RecordType) -> Records {
        let resolver = match &self.resolver {
            Ok(resolver) => resolver,
            Err(why) => return Records::Unknown(why.clone()),
        };
        let mut asked = match Name::from_ascii(name) {
            Ok(name) => name,
            Err(error) => return Records::Unknown(error.to_string()),
        };
        if self.is_whole {
            asked.set_fqdn(true);
        }
        match resolver.lookup(asked, of).await {
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

fn address(record: &RData) -> Option<IpAddr> {
    match record {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    }
}

/// Priority, host, port and weight of a service; `None` for `.`, which says that there is none (RFC 2782).
fn service(record: RData) -> Option<(u16, String, u16, u16)> {
    let RData::SRV(service) = record else { return None };
    let host = service.target.to_ascii();
    (host != ".").then_some((service.priority, host, service.port, service.weight))
}
