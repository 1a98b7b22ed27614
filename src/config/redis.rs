//! `[redis]`: what counts limits that several gateways share.

use super::names::{FilePath, Name};
use super::problem::Sink;
use super::read::Written;
use super::secret::SecretText;
use super::tables::table;
use super::values::{Time, words};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

table! {
    /// A Redis or Valkey that counts limits with `shared = "redis"`, for all gateways that ask the same one. No request waits for it.
    Redis {
        /// redis://HOST:PORT/DB, with USER:PASSWORD@ before the host where it wants them, or rediss:// for TLS; ${NAME} is a variable of the environment, and { file = "/…" } a file with all of it.
        required url: SecretText;
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

/// As used; see the table.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// With its password: shown nowhere.
    pub url: String,
    /// The same without user and password.
    pub shown: String,
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
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    Some(Config {
        shown: format!("{}://{host}", if is_tls { "rediss" } else { "redis" }),
        ca,
        prefix: table.prefix.as_ref()?.value.0.clone(),
        timeout: table.timeout.as_ref()?.value.0,
        on_failure: table.on_failure.as_ref()?.value,
        url,
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
}
