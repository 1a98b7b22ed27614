//! The metrics of TLS with clients.

use super::families::{COUNTER, GAUGE, HISTOGRAM};
use super::rows::{listener_sum, per_listener};
use super::{Family, Samples, Scrape};
use crate::observe::histogram::HistogramSum;
use crate::observe::labels::{HandshakeFailure, TlsVersion};
use crate::observe::stats::ListenerStats;
use crate::units::ListenerId;

/// They follow [`super::families::FAMILIES`].
pub(super) const TLS_FAMILIES: &[Family] = &[
    Family {
        name: "ringgate_tls_handshakes_total",
        help: "TLS sessions made with clients, by version, and by whether they went on with the keys of one before.",
        kind: COUNTER,
        rows: per_listener,
        render: |scrape, row, out| {
            let config = &scrape.stats.config.listeners[row];
            if config.tls.is_none() {
                return;
            }
            for version in TlsVersion::ALL {
                for (resumed, word) in ["false", "true"].into_iter().enumerate() {
                    let number = |stats: &ListenerStats| stats.handshakes[version.index()][resumed].get();
                    let labels = [("listener", &*config.name), ("version", version.token()), ("resumed", word)];
                    out.sample(&labels, listener_sum(scrape, row, number));
                }
            }
        },
    },
    Family {
        name: "ringgate_tls_handshake_failures_total",
        help: "TLS handshakes with clients that have come to nothing, by reason.",
        kind: COUNTER,
        rows: per_listener,
        render: |scrape, row, out| {
            let config = &scrape.stats.config.listeners[row];
            if config.tls.is_none() {
                return;
            }
            for reason in HandshakeFailure::ALL {
                let number = |stats: &ListenerStats| stats.handshake_failures[reason.index()].get();
                let labels = [("listener", &*config.name), ("reason", reason.token())];
                out.sample(&labels, listener_sum(scrape, row, number));
            }
        },
    },
    Family {
        name: "ringgate_tls_handshakes_under_way",
        help: "TLS handshakes with clients that have a place.",
        kind: GAUGE,
        rows: per_listener,
        render: |scrape, row, out| encrypted(scrape, row, out, |stats| stats.handshakes_under_way.get()),
    },
    Family {
        name: "ringgate_tls_handshakes_queued_total",
        help: "TLS handshakes that had to wait for a place, because their client or their worker had as many as it may.",
        kind: COUNTER,
        rows: per_listener,
        render: |scrape, row, out| encrypted(scrape, row, out, |stats| stats.handshakes_queued.get()),
    },
    Family {
        name: "ringgate_tls_handshake_duration_seconds",
        help: "From a client's first byte to its session, its own share and the network's included.",
        kind: HISTOGRAM,
        rows: per_listener,
        render: |scrape, row, out| {
            let config = &scrape.stats.config.listeners[row];
            if config.tls.is_some() {
                let mut sum = HistogramSum::default();
                let parts = scrape.stats.listener_parts(ListenerId::from_index(row));
                parts.touched().for_each(|stats| sum.add(&stats.handshake_duration));
                out.histogram(("listener", &config.name), &sum);
            }
        },
    },
    Family {
        name: "ringgate_certificate_expiry_seconds",
        help: "When a listener's certificate ends, in seconds since 1970, by the first name that it is for.",
        kind: GAUGE,
        rows: per_listener,
        render: |scrape, row, out| {
            let config = &scrape.stats.config.listeners[row];
            for (certificate, origin) in config.tls.iter().flat_map(|tls| tls.names.all().iter().zip(&tls.origins)) {
                let name = certificate.names.first().map_or("", String::as_str);
                let file = origin.chain.display().to_string();
                let labels = [("listener", config.name.as_str()), ("name", name), ("chain", &file)];
                out.sample(&labels, certificate.not_after);
            }
        },
    },
];

/// One number of a listener that speaks TLS.
fn encrypted(scrape: &Scrape, row: usize, out: &mut Samples<'_>, number: fn(&ListenerStats) -> u64) {
    let config = &scrape.stats.config.listeners[row];
    if config.tls.is_some() {
        out.sample(&[("listener", &config.name)], listener_sum(scrape, row, number));
    }
}
