//! Keys of tokens that are fetched from where an issuer shows them: now, every few minutes, and sooner when a token names a key that is not there.
//!
//! A set that cannot be had, or has no key in it that could be used, changes nothing: the last good one stays, and the log says why, once for
//! each time that it begins to fail.

use super::probes::check::fetch;
use crate::config::{Config, FetchedKeys, HttpProbe, TokenRules, keys_of};
use crate::net::guarded::guarded;
use http::HeaderValue;
use http::header::{ACCEPT, USER_AGENT};
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Between two looks at keys that are fine.
const EVERY: Duration = Duration::from_secs(300);
/// For one fetch, with the lookup of its name.
const PATIENCE: Duration = Duration::from_secs(10);
/// The shortest time between two fetches that tokens of unknown keys bring about: nobody makes the gateway ask more often by inventing some.
const WANTED_MIN: Duration = Duration::from_secs(10);
/// After a failure: this long, twice that, and so on …
const RETRY_MIN: Duration = Duration::from_secs(1);
/// … up to this.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How often is looked whether keys are wanted.
const LOOK: Duration = Duration::from_millis(250);

/// What fetches the keys of one configuration; dropping it ends that.
#[derive(Debug, Default)]
pub(super) struct KeySets {
    _tasks: JoinSet<()>,
}

impl KeySets {
    /// Begins to fetch what `config` asks for. What the configuration before has fetched from the same place for the same algorithms is there at
    /// once.
    pub(super) fn follow(config: &Config, before: Option<&Config>) -> Self {
        let mut tasks = JoinSet::new();
        for way in &*config.auth {
            let Some((rules, fetched)) = way.tokens().and_then(|rules| Some((rules, rules.fetched.as_ref()?))) else {
                continue;
            };
            let mut known = before.iter().flat_map(|before| &*before.auth).filter_map(|way| {
                let old = way.tokens().filter(|old| old.algorithms == rules.algorithms)?;
                old.fetched.as_ref().filter(|old| old.url == fetched.url && old.version() > 0)
            });
            if let Some(known) = known.next() {
                fetched.set(known.keys());
            }
            let (name, rules, fetched) = (way.name.clone(), Arc::clone(rules), Arc::clone(fetched));
            tasks.spawn(async move {
                if guarded(keep(&name, &rules, &fetched)).await.is_none() {
                    tracing::error!("auth.{name}: fetching its keys has panicked; those that are there stay");
                }
            });
        }
        Self { _tasks: tasks }
    }
}

async fn keep(name: &str, rules: &TokenRules, fetched: &FetchedKeys) {
    let (mut retry, mut said) = (RETRY_MIN, String::new());
    loop {
        let begun = Instant::now();
        let outcome = timeout(PATIENCE, read(fetched)).await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let outcome = outcome.and_then(|text| keys_of(&text, &rules.algorithms));
        let pause = match outcome {
            Ok(keys) => {
                if !said.is_empty() || fetched.version() == 0 {
                    tracing::info!("auth.{name}: keys fetched from {} count={}", fetched.url.written, keys.len());
                }
                fetched.set(keys.into());
                (retry, said) = (RETRY_MIN, String::new());
                EVERY
            }
            Err(why) => {
                if why != said {
                    tracing::warn!("auth.{name}: {}: {why}; the keys before stay", fetched.url.written);
                    said = why;
                }
                retry = (retry * 2).min(RETRY_MAX);
                retry / 2
            }
        };
        fetched.take_wanted();
        while begun.elapsed() < pause && !(begun.elapsed() >= WANTED_MIN && fetched.take_wanted()) {
            sleep(LOOK).await;
        }
    }
}

/// What stands there.
async fn read(fetched: &FetchedKeys) -> Result<String, String> {
    let url = &fetched.url;
    let addresses = lookup_host((url.host.as_str(), url.port)).await.map_err(|error| format!("no address: {error}"))?;
    let mut probe = HttpProbe::get(&url.path, (200, 200));
    probe.host = Some(url.authority.clone());
    let agent = HeaderValue::from_static(concat!("ringgate/", env!("CARGO_PKG_VERSION")));
    probe.headers = vec![(USER_AGENT, agent), (ACCEPT, HeaderValue::from_static("application/json"))];
    let mut failure = "no address".to_owned();
    for address in addresses {
        let tls = fetched.tls.as_ref().map(|tls| {
            let name = tls.name.clone().or_else(|| ServerName::try_from(url.host.clone()).ok());
            (Arc::clone(&tls.rules), name)
        });
        match fetch(address, &probe, tls).await {
            Ok(bytes) => return String::from_utf8(bytes).map_err(|_| "what stands there is no text".to_owned()),
            Err(why) => failure = why,
        }
    }
    Err(failure)
}
