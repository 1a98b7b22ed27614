//! The metrics of HTTP/2: with clients, of listeners that speak it, and with endpoints, of upstreams that may.

use super::Family;
use super::families::{COUNTER, GAUGE};
use super::rows::{each_endpoint, listener, listener_sum, per_cluster, per_listener};
use crate::config::Protocol;
use crate::observe::labels::{Http2Failure, StreamCode, StreamSide};
use crate::observe::stats::ListenerStats;

/// They follow [`super::tls_families::TLS_FAMILIES`].
pub(super) const HTTP2_FAMILIES: &[Family] = &[
    Family {
        name: "ringgate_http2_streams",
        help: "Requests under way that are streams of HTTP/2.",
        kind: GAUGE,
        rows: per_listener,
        render: |scrape, row, out| {
            if scrape.stats.config.listeners[row].http2.is_some() {
                listener(scrape, row, out, |stats| stats.streams.get());
            }
        },
    },
    Family {
        name: "ringgate_http2_goaways_total",
        help: "Connections of HTTP/2 that the gateway has ended, by what it said (GOAWAY).",
        kind: COUNTER,
        rows: per_listener,
        render: |scrape, row, out| {
            let config = &scrape.stats.config.listeners[row];
            for code in StreamCode::ALL.iter().filter(|_| config.http2.is_some()) {
                let number = |stats: &ListenerStats| stats.goaways[code.index()].get();
                let labels = [("listener", &*config.name), ("code", code.token())];
                out.sample(&labels, listener_sum(scrape, row, number));
            }
        },
    },
    Family {
        name: "ringgate_http2_resets_total",
        help: "Streams that were reset before they were over, by who did it and why (RST_STREAM).",
        kind: COUNTER,
        rows: per_listener,
        render: |scrape, row, out| {
            let config = &scrape.stats.config.listeners[row];
            for side in StreamSide::ALL.iter().filter(|_| config.http2.is_some()) {
                for code in StreamCode::ALL {
                    let number = |stats: &ListenerStats| stats.stream_resets[side.index()][code.index()].get();
                    let labels = [("listener", &*config.name), ("side", side.token()), ("code", code.token())];
                    out.sample(&labels, listener_sum(scrape, row, number));
                }
            }
        },
    },
    Family {
        name: "ringgate_endpoint_http2_failures_total",
        help: "What an endpoint has done to connections of HTTP/2 that requests share, by reason.",
        kind: COUNTER,
        rows: per_cluster,
        render: |scrape, row, out| {
            if scrape.cluster(row).protocol == Protocol::Http1 {
                return;
            }
            each_endpoint(scrape, row, |cluster, name, endpoint| {
                let view = scrape.stats.endpoint(cluster, endpoint);
                for (reason, number) in Http2Failure::ALL.iter().zip(view.http2_failures) {
                    out.sample(&[("upstream", name.0), ("endpoint", name.1), ("reason", reason.token())], number);
                }
            });
        },
    },
];
