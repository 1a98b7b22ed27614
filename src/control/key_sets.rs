//! Keys of tokens that are fetched from where an issuer shows them: now, every few minutes, and sooner when a token names a key that is not there.
//!
//! The issuer may be the one who says where they are (OpenID Connect Discovery). Then it is asked each time, by its own name only.
//!
//! A set that cannot be had, or has no key in it that could be used, changes nothing: the last good one stays, and the log says why, once for
//! each time that it begins to fail.

use super::probes::check::fetch;
use crate::config::{Config, FetchedKeys, HttpProbe, JwksUrl, TokenRules, keys_of};
use crate::net::clock;
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
                old.fetched
                    .as_ref()
                    .filter(|old| old.url == fetched.url && old.issuer == fetched.issuer && old.version() > 0)
            });
            if let Some(known) = known.next() {
                fetched.succeed(known);
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

/// When keys are fetched again.
#[derive(Debug)]
struct Pace {
    retry: Duration,
}

impl Pace {
    /// How long those that have come, or have not, are left alone.
    fn after(&mut self, has_come: bool) -> Duration {
        if has_come {
            self.retry = RETRY_MIN;
            return EVERY;
        }
        let pause = self.retry;
        self.retry = (pause * 2).min(RETRY_MAX);
        pause
    }

    /// Whether it is time for the next fetch, so long after the beginning of the last one; asks whether one is wanted only when that counts.
    fn is_due(elapsed: Duration, pause: Duration, is_wanted: impl FnOnce() -> bool) -> bool {
        elapsed >= pause || (elapsed >= WANTED_MIN && is_wanted())
    }
}

async fn keep(name: &str, rules: &TokenRules, fetched: &FetchedKeys) {
    let (mut pace, mut said) = (Pace { retry: RETRY_MIN }, String::new());
    loop {
        let begun = Instant::now();
        let outcome = timeout(PATIENCE, read(fetched)).await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let outcome = outcome.and_then(|text| keys_of(&text, &rules.algorithms));
        let pause = pace.after(outcome.is_ok());
        match outcome {
            Ok(keys) => {
                if !said.is_empty() || fetched.version() == 0 {
                    tracing::info!("auth.{name}: keys fetched from {} count={}", fetched.url.written, keys.len());
                }
                fetched.on_fetched(keys.into(), clock::wall());
                said = String::new();
            }
            Err(why) => {
                fetched.on_failed();
                if why != said {
                    tracing::warn!("auth.{name}: {}: {why}; the keys before stay", fetched.url.written);
                    said = why;
                }
            }
        }
        fetched.take_wanted();
        while !Pace::is_due(begun.elapsed(), pause, || fetched.take_wanted()) {
            sleep(LOOK).await;
        }
    }
}

/// The set of keys, wherever it is.
async fn read(fetched: &FetchedKeys) -> Result<String, String> {
    let Some(issuer) = &fetched.issuer else { return get(fetched, &fetched.url).await };
    let document = get(fetched, &fetched.url).await?;
    let keys = fetched.url.of_discovery(issuer, &document)?;
    get(fetched, &keys).await
}

/// What stands at a URL.
async fn get(fetched: &FetchedKeys, url: &JwksUrl) -> Result<String, String> {
    let addresses = lookup_host((url.host.as_str(), url.port)).await.map_err(|error| format!("no address: {error}"))?;
    let mut probe = HttpProbe::get(&url.path, (200, 200));
    probe.host = Some(url.authority.clone());
    let agent = HeaderValue::from_static(concat!("ringgate/", env!("CARGO_PKG_VERSION")));
    probe.headers = vec![(USER_AGENT, agent), (ACCEPT, HeaderValue::from_static("application/json"))];
    let mut failure = "no address".to_owned();
    for address in addresses {
        let tls = fetched.tls.as_ref().filter(|_| url.is_tls).map(|tls| {
            // a name of the configuration is that of whom the configuration names
            let given = tls.name.clone().filter(|_| url.host == fetched.url.host);
            (Arc::clone(&tls.rules), given.or_else(|| ServerName::try_from(url.host.clone()).ok()))
        });
        if tls.is_none() && url.is_tls {
            return Err("no TLS is spoken with it".to_owned());
        }
        match fetch(address, &probe, tls).await {
            Ok(bytes) => return String::from_utf8(bytes).map_err(|_| "what stands there is no text".to_owned()),
            Err(why) => failure = why,
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second of somebody who invents keys all the time, in steps of [`LOOK`].
    #[test]
    fn who_invents_keys_has_them_fetched_every_ten_seconds_and_no_sooner() {
        let fetches = |mut has_come: Box<dyn FnMut() -> bool>, is_wanted: bool, for_secs: u64| {
            let (mut pace, mut at, mut begun) = (Pace { retry: RETRY_MIN }, Duration::ZERO, Vec::new());
            while at < Duration::from_secs(for_secs) {
                begun.push(at);
                let (start, pause) = (at, pace.after(has_come()));
                while !Pace::is_due(at - start, pause, || is_wanted) {
                    at += LOOK;
                }
            }
            begun
        };
        let secs = |list: &[u64]| list.iter().map(|secs| Duration::from_secs(*secs)).collect::<Vec<_>>();
        assert_eq!(fetches(Box::new(|| true), true, 45), secs(&[0, 10, 20, 30, 40]));
        assert_eq!(fetches(Box::new(|| true), false, 700), secs(&[0, 300, 600]));
        // while there is nothing to be had, sooner at first, wanted or not
        assert_eq!(fetches(Box::new(|| false), false, 70), secs(&[0, 1, 3, 7, 15, 31, 61]));
        let wanted = fetches(Box::new(|| false), true, 120);
        assert!(wanted.windows(2).skip(4).all(|two| two[1] - two[0] >= WANTED_MIN), "{wanted:?}");
    }
}
