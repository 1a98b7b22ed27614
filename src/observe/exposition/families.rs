//! Every metric of what the gateway does: its name, its help, its rows, and how a row becomes lines.
//!
//! One table, because it *is* the user's contract: dashboards and alerts are written against these names and labels. What is
//! neither here nor in its other parts ([`super::tls_families`], [`super::own_families`]) is not exposed.
//!
//! What this does not do: count. The numbers are [`crate::observe::stats`]'s.

use super::Family;
use super::rows::{
    by_reason, consumers, each_endpoint, limited, listener, of_process, once, once_if_told, per_cluster, per_listener,
    per_request_key, per_route, readmissions, rejected, requests,
};
use crate::observe::histogram::HistogramSum;
use crate::observe::labels::{AttemptOutcome, FailureReason, ProbeState, RefuseReason, RetryReason};
use crate::observe::own_log;
use crate::observe::stats::ListenerStats;
use crate::units::ListenerId;
use std::sync::atomic::Ordering::Relaxed;

pub(super) const COUNTER: &str = "counter";
pub(super) const GAUGE: &str = "gauge";
pub(super) const HISTOGRAM: &str = "histogram";

/// The metrics of what the gateway does, in the order of a scrape. Names and labels are the user's contract.
pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "ringgate_requests_total",
        help: "Requests that are over, by route (- is none), method and status.",
        kind: COUNTER,
        rows: per_request_key,
        render: requests,
    },
    Family {
        name: "ringgate_request_duration_seconds",
        help: "From the first byte of a request to the end of its response.",
        kind: HISTOGRAM,
        rows: per_route,
        render: |scrape, row, out| {
            if let Some(route) = scrape.stats.route_row(row) {
                out.histogram(("route", scrape.stats.row_name(row)), &route.duration);
            }
        },
    },
    Family {
        name: "ringgate_request_bytes_total",
        help: "Bytes of requests and responses, heads included.",
        kind: COUNTER,
        rows: per_route,
        render: |scrape, row, out| {
            if let Some(route) = scrape.stats.route_row(row) {
                out.sample(&[("route", scrape.stats.row_name(row))], route.bytes);
            }
        },
    },
    Family {
        name: "ringgate_rejected_total",
        help: "Requests that the gateway answered itself or broke off, by the error token; dry runs count and reject nothing.",
        kind: COUNTER,
        rows: per_route,
        render: rejected,
    },
    Family {
        name: "ringgate_limited_total",
        help: "Requests that a rate limit rejected, by the limit's name; dry runs count and reject nothing.",
        kind: COUNTER,
        rows: |scrape| scrape.stats.limit_rows().len(),
        render: limited,
    },
    Family {
        name: "ringgate_redis_exchanges_total",
        help: "What Redis was told for limits that gateways share, by whether it has answered in time.",
        kind: COUNTER,
        rows: once,
        render: |scrape, _, out| {
            let control = &scrape.stats.control;
            for (result, count) in [("answered", &control.redis_answers), ("failed", &control.redis_failures)] {
                out.sample(&[("result", result)], count.load(Relaxed));
            }
        },
    },
    Family {
        name: "ringgate_consumer_requests_total",
        help: "Requests that are over of consumers that were recognised; beyond the first thousand of the configuration, other.",
        kind: COUNTER,
        rows: once,
        render: |scrape, _, out| consumers(scrape, out, |(requests, _)| requests),
    },
    Family {
        name: "ringgate_consumer_bytes_total",
        help: "Bytes of their requests and responses, heads included.",
        kind: COUNTER,
        rows: once,
        render: |scrape, _, out| consumers(scrape, out, |(_, bytes)| bytes),
    },
    Family {
        name: "ringgate_upstream_attempts_total",
        help: "Attempts at an endpoint that are over, by how they ended.",
        kind: COUNTER,
        rows: per_cluster,
        render: |scrape, row, out| {
            each_endpoint(scrape, row, |cluster, name, endpoint| {
                let view = scrape.stats.endpoint(cluster, endpoint);
                for outcome in AttemptOutcome::ALL {
                    let labels = [("upstream", name.0), ("endpoint", name.1), ("outcome", outcome.token())];
                    out.sample(&labels, view.attempts[outcome.index()]);
                }
            });
        },
    },
    Family {
        name: "ringgate_upstream_duration_seconds",
        help: "From the start of an attempt to the response head or the failure; cancelled and stale ones are left out.",
        kind: HISTOGRAM,
        rows: per_cluster,
        render: |scrape, row, out| {
            let mut sum = HistogramSum::default();
            scrape.clusters(row).for_each(|cluster| sum.add(&cluster.duration));
            out.histogram(("upstream", &scrape.cluster(row).name), &sum);
        },
    },
    Family {
        name: "ringgate_retries_total",
        help: "Retries made, by what went wrong before.",
        kind: COUNTER,
        rows: per_cluster,
        render: |scrape, row, out| {
            for reason in RetryReason::ALL {
                let retries = scrape.cluster_sum(row, |cluster| cluster.retries[reason.index()].get());
                out.sample(&[("upstream", &scrape.cluster(row).name), ("reason", reason.token())], retries);
            }
        },
    },
    Family {
        name: "ringgate_failovers_total",
        help: "Requests that went on to another endpoint because they could not be sent to the one before; no retries.",
        kind: COUNTER,
        rows: per_cluster,
        render: |scrape, row, out| {
            let failovers = scrape.cluster_sum(row, |cluster| cluster.failovers.get());
            out.sample(&[("upstream", &scrape.cluster(row).name)], failovers);
        },
    },
    Family {
        name: "ringgate_retry_budget_exhausted_total",
        help: "Retries that were not made because the budget was spent.",
        kind: COUNTER,
        rows: per_cluster,
        render: |scrape, row, out| {
            let exhausted = scrape.cluster_sum(row, |cluster| cluster.budget_exhausted.get());
            out.sample(&[("upstream", &scrape.cluster(row).name)], exhausted);
        },
    },
    Family {
        name: "ringgate_stale_connections_total",
        help: "Pooled connections that the service had closed when a request was sent on them.",
        kind: COUNTER,
        rows: per_cluster,
        render: |scrape, row, out| {
            let stale = scrape.cluster_sum(row, |cluster| cluster.connections_stale.get());
            out.sample(&[("upstream", &scrape.cluster(row).name)], stale);
        },
    },
    Family {
        name: "ringgate_endpoint_available",
        help: "Share of workers that would send requests to the endpoint: 1 is all of them, 0 none.",
        kind: GAUGE,
        rows: per_cluster,
        render: |scrape, row, out| {
            each_endpoint(scrape, row, |cluster, name, endpoint| {
                let share = scrape.stats.endpoint(cluster, endpoint).available_share();
                out.sample(&[("upstream", name.0), ("endpoint", name.1)], share);
            });
        },
    },
    Family {
        name: "ringgate_endpoint_in_flight",
        help: "Requests that wait for or receive a response of the endpoint.",
        kind: GAUGE,
        rows: per_cluster,
        render: |scrape, row, out| {
            each_endpoint(scrape, row, |cluster, name, endpoint| {
                let in_flight = scrape.stats.endpoint(cluster, endpoint).in_flight;
                out.sample(&[("upstream", name.0), ("endpoint", name.1)], in_flight);
            });
        },
    },
    Family {
        name: "ringgate_endpoint_ejections_total",
        help: "Ejections and pauses, by reason; all workers eject together.",
        kind: COUNTER,
        rows: per_cluster,
        render: |scrape, row, out| by_reason(scrape, row, out, |view| &view.ejections),
    },
    Family {
        name: "ringgate_endpoint_ejections_refused_total",
        help: "Ejections that were not made because too few endpoints would have been left, by reason.",
        kind: COUNTER,
        rows: per_cluster,
        render: |scrape, row, out| by_reason(scrape, row, out, |view| &view.refused),
    },
    Family {
        name: "ringgate_endpoint_shunnings_total",
        help: "Times that an endpoint began to be asked only when nobody else is left, by reason.",
        kind: COUNTER,
        rows: per_cluster,
        render: |scrape, row, out| by_reason(scrape, row, out, |view| &view.shunnings),
    },
    Family {
        name: "ringgate_endpoint_readmissions_total",
        help: "Returns of endpoints that were ejected, paused or shunned, by what brought them back.",
        kind: COUNTER,
        rows: per_cluster,
        render: readmissions,
    },
    Family {
        name: "ringgate_upstream_connections",
        help: "Connections to the upstream, by whether they carry a request.",
        kind: GAUGE,
        rows: per_cluster,
        render: |scrape, row, out| {
            let name = ("upstream", scrape.cluster(row).name.as_str());
            let idle = scrape.cluster_sum(row, |cluster| cluster.connections_idle.get());
            let active = scrape.cluster_sum(row, |cluster| cluster.connections_active.get());
            out.sample(&[name, ("state", "idle")], idle);
            out.sample(&[name, ("state", "active")], active);
        },
    },
    Family {
        name: "ringgate_health_check_healthy",
        help: "Verdict of the active checks: 1 healthy, 0 unhealthy; absent before the first check that says something.",
        kind: GAUGE,
        rows: per_cluster,
        render: |scrape, row, out| {
            each_endpoint(scrape, row, |cluster, name, endpoint| {
                let probe = scrape.stats.probe(cluster, endpoint).filter(|probe| probe.checked.is_some());
                if let Some(probe) = probe {
                    let healthy = u8::from(probe.state == ProbeState::Healthy);
                    out.sample(&[("upstream", name.0), ("endpoint", name.1)], healthy);
                }
            });
        },
    },
    Family {
        name: "ringgate_health_checks_total",
        help: "Active checks that are over, by result; exhausted ones could not be made for want of descriptors, memory or ports, and say nothing.",
        kind: COUNTER,
        rows: per_cluster,
        render: |scrape, row, out| {
            each_endpoint(scrape, row, |cluster, name, endpoint| {
                if let Some(probe) = scrape.stats.probe(cluster, endpoint) {
                    let labels = |result| [("upstream", name.0), ("endpoint", name.1), ("result", result)];
                    out.sample(&labels("passed"), probe.passed);
                    out.sample(&labels("failed"), probe.failed());
                    out.sample(&labels("exhausted"), probe.exhausted);
                }
            });
        },
    },
    Family {
        name: "ringgate_health_check_failures_total",
        help: "Active checks that failed, by reason.",
        kind: COUNTER,
        rows: per_cluster,
        render: |scrape, row, out| {
            each_endpoint(scrape, row, |cluster, name, endpoint| {
                let Some(probe) = scrape.stats.probe(cluster, endpoint) else { return };
                for reason in FailureReason::ALL {
                    let labels = [("upstream", name.0), ("endpoint", name.1), ("reason", reason.token())];
                    out.sample(&labels, probe.failed[reason.index()]);
                }
            });
        },
    },
    Family {
        name: "ringgate_health_check_age_seconds",
        help: "Time since the last active check that says something ended; far above the interval means that checking has stalled.",
        kind: GAUGE,
        rows: per_cluster,
        render: |scrape, row, out| {
            each_endpoint(scrape, row, |cluster, name, endpoint| {
                if let Some(checked) = scrape.stats.probe(cluster, endpoint).and_then(|probe| probe.checked) {
                    let age = scrape.now.since(checked).as_secs_f64();
                    out.sample(&[("upstream", name.0), ("endpoint", name.1)], age);
                }
            });
        },
    },
    Family {
        name: "ringgate_connections",
        help: "Downstream connections that are open.",
        kind: GAUGE,
        rows: per_listener,
        render: |scrape, row, out| listener(scrape, row, out, |stats| stats.connections.get()),
    },
    Family {
        name: "ringgate_connections_accepted_total",
        help: "Downstream connections accepted, those included that were refused then.",
        kind: COUNTER,
        rows: per_listener,
        render: |scrape, row, out| listener(scrape, row, out, |stats| stats.accepted.get()),
    },
    Family {
        name: "ringgate_connections_refused_total",
        help: "Downstream connections that were accepted and closed before their first request, by reason.",
        kind: COUNTER,
        rows: per_listener,
        render: |scrape, row, out| {
            let name = &scrape.stats.config.listeners[row].name;
            for reason in RefuseReason::ALL {
                let refused = |listener: &ListenerStats| listener.refused[reason.index()].get();
                let sum: u64 = scrape.stats.listener_parts(ListenerId::from_index(row)).touched().map(refused).sum();
                out.sample(&[("listener", name), ("reason", reason.token())], sum);
            }
        },
    },
    Family {
        name: "ringgate_accept_exhausted_total",
        help: "Times that accepting paused for 50 ms because no descriptor or no memory was left.",
        kind: COUNTER,
        rows: per_listener,
        render: |scrape, row, out| listener(scrape, row, out, |stats| stats.exhausted.get()),
    },
    Family {
        name: "ringgate_tunnels",
        help: "Downstream connections that were upgraded (WebSocket) and are open.",
        kind: GAUGE,
        rows: per_listener,
        render: |scrape, row, out| listener(scrape, row, out, |stats| stats.tunnels.get()),
    },
    Family {
        name: "ringgate_tunnels_opened_total",
        help: "Downstream connections that were upgraded.",
        kind: COUNTER,
        rows: per_listener,
        render: |scrape, row, out| listener(scrape, row, out, |stats| stats.tunnels_opened.get()),
    },
    Family {
        name: "ringgate_rate_limit_evictions_total",
        help: "Clients that the tables of rate limits forgot to make room for others.",
        kind: COUNTER,
        rows: once,
        render: |scrape, _, out| {
            // of one table, which one worker tells, in each of its lives
            let evictions = scrape.stats.lives().map(|life| life.event_loop.limit_evictions.get()).max();
            out.sample(&[], evictions.unwrap_or_default());
        },
    },
    Family {
        name: "ringgate_access_log_lines_total",
        help: "Access log lines written.",
        kind: COUNTER,
        rows: once,
        render: |scrape, _, out| out.sample(&[], scrape.stats.control.log_lines_written.load(Relaxed)),
    },
    Family {
        name: "ringgate_access_log_lines_lost_total",
        help: "Access log lines that the writer had to give up when it ended.",
        kind: COUNTER,
        rows: once,
        render: |scrape, _, out| out.sample(&[], scrape.stats.control.log_lines_lost.load(Relaxed)),
    },
    Family {
        name: "ringgate_access_log_write_errors_total",
        help: "Writes of the access log that failed (disk full, pipe closed) and were or will be repeated.",
        kind: COUNTER,
        rows: once,
        render: |scrape, _, out| out.sample(&[], scrape.stats.control.log_write_errors.load(Relaxed)),
    },
    Family {
        name: "ringgate_log_lines_lost_total",
        help: "Lines of the gateway's own log that standard error did not take: nobody reads it, or its reader is gone.",
        kind: COUNTER,
        rows: once,
        render: |_, _, out| out.sample(&[], own_log::lines_lost()),
    },
    Family {
        name: "process_cpu_seconds_total",
        help: "Processor time of user and system, in seconds.",
        kind: COUNTER,
        rows: once_if_told,
        render: |scrape, _, out| of_process(scrape, out, |numbers| numbers.cpu_seconds),
    },
    Family {
        name: "process_open_fds",
        help: "Open descriptors.",
        kind: GAUGE,
        rows: once_if_told,
        render: |scrape, _, out| of_process(scrape, out, |numbers| numbers.open_descriptors),
    },
    Family {
        name: "process_max_fds",
        help: "Descriptors that may be open (RLIMIT_NOFILE).",
        kind: GAUGE,
        rows: once_if_told,
        render: |scrape, _, out| of_process(scrape, out, |numbers| numbers.descriptors_max),
    },
    Family {
        name: "process_virtual_memory_bytes",
        help: "Address space.",
        kind: GAUGE,
        rows: once_if_told,
        render: |scrape, _, out| of_process(scrape, out, |numbers| numbers.virtual_bytes),
    },
    Family {
        name: "process_resident_memory_bytes",
        help: "Resident memory.",
        kind: GAUGE,
        rows: once_if_told,
        render: |scrape, _, out| of_process(scrape, out, |numbers| numbers.resident_bytes),
    },
    Family {
        name: "process_threads",
        help: "Threads of the operating system.",
        kind: GAUGE,
        rows: once_if_told,
        render: |scrape, _, out| of_process(scrape, out, |numbers| numbers.threads),
    },
    Family {
        name: "process_start_time_seconds",
        help: "When the process began, in seconds since 1970-01-01T00:00:00Z.",
        kind: GAUGE,
        rows: once_if_told,
        render: |scrape, _, out| of_process(scrape, out, |numbers| numbers.start_seconds),
    },
];
