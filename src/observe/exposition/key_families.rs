//! Metrics of keys that tokens are verified with and that are fetched (JWKS): whether that works, and how old they are.

use super::families::{COUNTER, GAUGE};
use super::rows::once;
use super::{Family, Samples, Scrape};
use crate::config::FetchedKeys;

/// They follow [`super::grpc_families::GRPC_FAMILIES`].
pub(super) const KEY_FAMILIES: &[Family] = &[
    Family {
        name: "ringgate_jwks_fetches_total",
        help: "Fetches of the keys of auth.X.jwks or discovery, by result: ok, or failed, after which those before stay.",
        kind: COUNTER,
        rows: once,
        render: |scrape, _, out| {
            each(scrape, out, |name, fetched, out| {
                let (good, failed) = fetched.counts();
                out.sample(&[("auth", name), ("result", "ok")], good);
                out.sample(&[("auth", name), ("result", "failed")], failed);
            });
        },
    },
    Family {
        name: "ringgate_jwks_last_success_timestamp_seconds",
        help: "When they were fetched last, in seconds since 1970; 0 before the first time. time() minus this is their age.",
        kind: GAUGE,
        rows: once,
        render: |scrape, _, out| {
            each(scrape, out, |name, fetched, out| {
                out.sample(&[("auth", name)], fetched.fetched_at().unwrap_or_default());
            });
        },
    },
    Family {
        name: "ringgate_jwks_keys",
        help: "Keys of the last good set that fit the algorithms.",
        kind: GAUGE,
        rows: once,
        render: |scrape, _, out| {
            each(scrape, out, |name, fetched, out| out.sample(&[("auth", name)], fetched.keys().len()));
        },
    },
];

fn each(scrape: &Scrape, out: &mut Samples<'_>, row: impl Fn(&str, &FetchedKeys, &mut Samples<'_>)) {
    for way in &*scrape.stats.config.auth {
        if let Some(fetched) = way.tokens().and_then(|rules| rules.fetched.as_ref()) {
            row(&way.name, fetched, out);
        }
    }
}
