//! `[redis]`: what counts limits that several gateways share.

use super::names::{FilePath, Name};
use super::problem::{Refusal, Sink};
use super::read::{List, Scalar, Written};
use super::secret::SecretText;
use super::tables::{scalar_schema, table};
use super::values::{Time, text, words};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use toml::de::DeValue;

table! {
    /// A Redis or Valkey that counts limits with `shared = "redis"`, for all gateways that ask the same one. No request waits for it.
    Redis {
        /// redis://HOST:PORT/DB, with USER:PASSWORD@ before the host where it wants them, or rediss:// for TLS; ${NAME} is a variable of the environment, and { file = "/…" } a file with all of it.
        required url: SecretText;
        /// What answers at `url`: "server" is the one that counts, "cluster" any node of a cluster, "sentinel" one of those that know which server counts now.
        /// User, password and DB are the server's in any case.
        default kind: RedisKind = "server";
        /// HOST:PORT of other nodes of the cluster, or other sentinels; whoever answers says who else there is.
        default nodes: List<NodeAddress, 0, NODES_MAX> = [];
        /// What sentinels call the servers that are meant.
        optional master: Name;
        /// What sentinels themselves want to hear.
        optional sentinel_password: SecretText;
        /// An absolute path of the authorities that are believed with rediss://, in PEM; those of the system without it.
        optional ca: FilePath;
        /// With what the names of its keys begin; gateways with the same one share their limits.
        default prefix: Name = "ringgate";
        /// How long an answer may take, 1ms to 10s; after that the gateway counts without.
        default timeout: Time<1, 10_000> = "100ms";
        /// Without an answer: "local" leaves each gateway its share of rate and burst (of as many as were seen last), "allow" lets everything pass
        /// and "deny" nothing.
        default on_failure: WithoutRedis = "local";
    }
}

words! {
    /// `redis.kind`: what answers at its `url`.
    RedisKind {
        /// The server that counts.
        Server = "server",
        /// A node of a cluster.
        Cluster = "cluster",
        /// A sentinel.
        Sentinel = "sentinel",
    }
}

words! {
    /// `redis.on_failure`: what holds for limits that are shared while nobody answers.
    WithoutRedis {
        /// Each gateway has its share.
        Local = "local",
        /// Everything passes.
        Allow = "allow",
        /// Nothing does.
        Deny = "deny",
    }
}

words! {
    /// `limit.shared`
    SharedBy {
        /// By `[redis]`.
        Redis = "redis",
    }
}

impl WithoutRedis {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// Addresses beside the one in the url.
const NODES_MAX: usize = 32;

/// Where a node of a cluster, or a sentinel, listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddress(String, u16);

impl Scalar for NodeAddress {
    fn allowed() -> String {
        "HOST:PORT, such as \"10.0.0.2:6379\" or \"[::1]:26379\"".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        if written.contains("://") || written.contains('@') {
            return Err(Refusal::why("user, password and TLS are those of the url").help("write HOST:PORT alone"));
        }
        let (host, port) = written.rsplit_once(':').ok_or_else(|| Refusal::why("there is no port"))?;
        let is_v6 = host.starts_with('[') && host.ends_with(']');
        let inner = if is_v6 { &host[1..host.len() - 1] } else { host };
        let is_host = match is_v6 {
            true => inner.parse::<std::net::Ipv6Addr>().is_ok(),
            false => !inner.is_empty() && inner.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
        };
        let port = port.parse::<u16>().ok().filter(|port| *port > 0 && is_host);
        port.map(|port| Self(inner.to_owned(), port)).ok_or_else(Refusal::plain)
    }

    fn schema() -> serde_json::Value {
        serde_json::json!({ "type": "string", "minLength": 3 })
    }
}

scalar_schema!(NodeAddress);

/// Where to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The server itself.
    Server,
    /// Whichever node of a cluster has the keys.
    Cluster,
    /// The server that the sentinels name.
    Sentinel {
        /// What they call it.
        master: String,
        /// What they want to hear first; shown nowhere.
        password: Option<SentinelPassword>,
    },
}

/// Not to be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SentinelPassword(pub String);

impl fmt::Debug for SentinelPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Place {
    /// The word for it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Cluster => "cluster",
            Self::Sentinel { .. } => "sentinel",
        }
    }
}

/// As used; see the table.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// With its password: shown nowhere.
    pub url: String,
    /// The same without user and password.
    pub shown: String,
    /// What is there.
    pub place: Place,
    /// Hosts and ports beside the one in the url.
    pub nodes: Vec<(String, u16)>,
    /// The text of the file.
    pub ca: Option<(PathBuf, String)>,
    /// Of all keys.
    pub prefix: String,
    /// For an answer.
    pub timeout: Duration,
    /// Without one.
    pub on_failure: WithoutRedis,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis")
            .field("url", &self.shown)
            .field("place", &self.place)
            .field("nodes", &self.nodes)
            .field("ca", &self.ca.as_ref().map(|(path, _)| path))
            .field("prefix", &self.prefix)
            .field("timeout", &self.timeout)
            .field("on_failure", &self.on_failure)
            .finish_non_exhaustive()
    }
}

/// From the table; `None` if something was reported.
pub(super) fn redis(table: &Written<Redis>, sink: &mut Sink<'_>) -> Option<Config> {
    let table = &table.value;
    let written = table.url.as_ref()?;
    let url = std::str::from_utf8(written.value.0.as_bytes()).unwrap_or_default().to_owned();
    let read = url.strip_prefix("redis://").map(|rest| (false, rest));
    let read = read.or_else(|| url.strip_prefix("rediss://").map(|rest| (true, rest)));
    let Some((is_tls, rest)) = read.filter(|_| ::redis::Client::open(url.as_str()).is_ok()) else {
        let message = "must be redis://[USER:PASSWORD@]HOST[:PORT][/DB], or the same with rediss://".to_owned();
        sink.place(table.at.key("url"), written.span.start, message, None);
        return None;
    };
    let ca = match table.ca.as_ref() {
        Some(path) if !is_tls => {
            let message = "has no effect: the url is redis://, which is not encrypted".to_owned();
            sink.value(table.at.key("ca"), path.span.clone(), message, Some("write rediss://".to_owned()));
            return None;
        }
        Some(path) => match std::fs::read_to_string(&path.value.0) {
            Ok(text) => Some((path.value.0.clone(), text)),
            Err(error) => {
                sink.value(table.at.key("ca"), path.span.clone(), format!("cannot be read: {error}"), None);
                return None;
            }
        },
        None => None,
    };
    let place = place(table, sink)?;
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    Some(Config {
        shown: format!("{}://{host}", if is_tls { "rediss" } else { "redis" }),
        place,
        nodes: table.nodes.as_ref()?.value.0.iter().map(|node| (node.value.0.clone(), node.value.1)).collect(),
        ca,
        prefix: table.prefix.as_ref()?.value.0.clone(),
        timeout: table.timeout.as_ref()?.value.0,
        on_failure: table.on_failure.as_ref()?.value,
        url,
    })
}

/// What is at the url, and that what is said of it belongs to that.
fn place(table: &Redis, sink: &mut Sink<'_>) -> Option<Place> {
    let kind = table.kind.as_ref()?.value;
    let refuse = |key: &str, at: std::ops::Range<usize>, why: &str, help: &str, sink: &mut Sink<'_>| {
        sink.value(table.at.key(key), at, why.to_owned(), Some(help.to_owned()));
        None
    };
    if kind != RedisKind::Sentinel {
        const HELP: &str = "write kind = \"sentinel\", or leave it out";
        for (key, span) in [
            ("master", table.master.as_ref().map(|master| master.span.clone())),
            ("sentinel_password", table.sentinel_password.as_ref().map(|password| password.span.clone())),
        ] {
            if let Some(span) = span {
                return refuse(key, span, "has no effect: no sentinels are asked", HELP, sink);
            }
        }
    }
    let nodes = table.nodes.as_ref()?;
    if kind == RedisKind::Server && !nodes.value.0.is_empty() {
        let help = "write kind = \"cluster\" or \"sentinel\", or leave it out";
        return refuse("nodes", nodes.span.clone(), "has no effect: the server is the one of the url", help, sink);
    }
    let text = |written: &Written<SecretText>| String::from_utf8_lossy(written.value.0.as_bytes()).into_owned();
    Some(match kind {
        RedisKind::Server => Place::Server,
        RedisKind::Cluster => Place::Cluster,
        RedisKind::Sentinel => {
            let Some(master) = &table.master else {
                let at = table.kind.as_ref()?.span.clone();
                let help = "write master = \"mymaster\", or what the sentinels call it";
                return refuse("master", at, "is missing: sentinels know servers by their name", help, sink);
            };
            let password = table.sentinel_password.as_ref().map(|written| SentinelPassword(text(written)));
            Place::Sentinel { master: master.value.0.clone(), password }
        }
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_password_is_shown_nowhere() {
        let text = "[redis]\nurl = \"redis://me:planted@127.0.0.1:6379/1\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nrespond = {}\n";
        let config = crate::config::parse(text, "f").unwrap();
        assert!(config.redis.as_ref().unwrap().url.contains("planted"));
        let shown = format!("{config:?}");
        assert!(!shown.contains("planted") && shown.contains("redis://127.0.0.1:6379/1"), "{shown}");
    }

    fn read(keys: &str) -> Result<super::Config, String> {
        let text = format!("[redis]\n{keys}[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nrespond = {{}}\n");
        let config = crate::config::parse(&text, "f").map_err(|errors| errors.to_string())?;
        Ok(config.redis.as_deref().expect("it was written").clone())
    }

    #[test]
    fn a_cluster_and_sentinels_have_nodes_and_a_server_has_none() {
        let config = read("url = \"redis://a:1\"\nkind = \"cluster\"\nnodes = [\"b:2\", \"[::1]:3\"]\n").unwrap();
        assert_eq!(config.place, super::Place::Cluster);
        assert_eq!(config.nodes, [("b".to_owned(), 2), ("::1".to_owned(), 3)]);
        let keys =
            "url = \"redis://a:1\"\nkind = \"sentinel\"\nmaster = \"mymaster\"\nsentinel_password = \"planted\"\n";
        let config = read(keys).unwrap();
        assert!(matches!(&config.place, super::Place::Sentinel { master, .. } if master == "mymaster"));
        assert!(!format!("{config:?}").contains("planted"));
        for (keys, said) in [
            ("nodes = [\"b:2\"]", "redis.nodes\n    has no effect"),
            ("master = \"m\"", "redis.master = \"m\"\n    has no effect"),
            ("sentinel_password = \"planted\"", "redis.sentinel_password\n    has no effect"),
            ("kind = \"sentinel\"", "redis.master"),
            ("kind = \"cluster\"\nmaster = \"m\"", "redis.master"),
            ("kind = \"replica\"", "redis.kind"),
            ("kind = \"cluster\"\nnodes = [\"b\"]", "there is no port"),
            ("kind = \"cluster\"\nnodes = [\"b:0\"]", "HOST:PORT"),
            ("kind = \"cluster\"\nnodes = [\"::1:2\"]", "HOST:PORT"),
            ("kind = \"cluster\"\nnodes = [\"redis://:planted@b:2\"]", "those of the url"),
        ] {
            let error = read(&format!("url = \"redis://a:1\"\n{keys}\n")).unwrap_err();
            assert!(error.contains(said) && !error.contains("planted"), "{keys}: {error}");
        }
    }
}
