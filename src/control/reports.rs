//! What workers report, as lines for the operator: the words are those of the metrics.

use crate::config::{Address, Config, Listener, printable};
use crate::net::clock;
use crate::observe::labels::Http2Failure;
use crate::policy::attempt::ChangeKind;
use crate::units::Instant;
use crate::worker::{Refusal, Report, eject_reason, readmit_reason};
use std::io;

/// Tells the operator what a worker has noticed.
pub(super) fn log(config: &Config, report: Report) {
    match report {
        Report::Endpoint { worker, cluster, endpoint, change } => {
            let cluster = &config.clusters[cluster.index()];
            log_change(&cluster.name, &cluster.endpoints[endpoint.index()].address, worker.index(), change);
        }
        Report::BudgetExhausted { worker, cluster } => {
            let (upstream, worker) = (&config.clusters[cluster.index()].name, worker.index());
            tracing::warn!("retry budget exhausted upstream={upstream} worker={worker}: requests are not retried");
        }
        Report::Handshake { worker, cluster, endpoint, reason, why } => {
            let cluster = &config.clusters[cluster.index()];
            let (upstream, address) = (&cluster.name, &cluster.endpoints[endpoint.index()].address);
            let (reason, worker) = (reason.token(), worker.index());
            let why = printable(&why);
            tracing::warn!(
                "tls handshake failed upstream={upstream} endpoint={address} reason={reason} worker={worker}: {why}"
            );
        }
        Report::Http2 { worker, cluster, endpoint, reason } => {
            let cluster = &config.clusters[cluster.index()];
            let (upstream, address) = (&cluster.name, &cluster.endpoints[endpoint.index()].address);
            let (what, reason, worker) = (told_of(reason), reason.token(), worker.index());
            tracing::warn!(
                "http2 failed upstream={upstream} endpoint={address} reason={reason} worker={worker}: {what}"
            );
        }
        Report::Refusing { worker, listener, refusal } => {
            let listener = &config.listeners[listener.index()];
            log_refusal(listener, worker.index(), refusal);
        }
    }
}

fn told_of(reason: Http2Failure) -> &'static str {
    match reason {
        Http2Failure::EnhanceYourCalm => {
            "it asks for calm (ENHANCE_YOUR_CALM), and is given fewer requests at once for a while"
        }
        Http2Failure::PlainHttp1 => "it answers in HTTP/1.1 where HTTP/2 is spoken: see protocol of the upstream",
        Http2Failure::PartTimeout => {
            "a frame or a header block of it did not come to its end; the connection is given up"
        }
        Http2Failure::PingTimeout => "it does not answer a PING; the connection is given up",
        Http2Failure::Protocol => "what it sends is against the rules of HTTP/2; the connection is given up",
    }
}

fn log_refusal(listener: &Listener, worker: usize, refusal: Refusal) {
    let name = &listener.name;
    match refusal {
        Refusal::ConnectionsMax => tracing::warn!(
            "connections refused listener={name} max_connections={} worker={worker}: see ringgate_connections_refused_total",
            listener.connections_max
        ),
        Refusal::Descriptors => tracing::warn!(
            "connections refused listener={name} worker={worker}: descriptors are few (RLIMIT_NOFILE): raise LimitNOFILE=, ulimit -n"
        ),
        Refusal::Exhausted(errno) => tracing::error!(
            "connections wait listener={name} worker={worker}: {}: raise the limit of descriptors (LimitNOFILE=, ulimit -n)",
            io::Error::from_raw_os_error(errno)
        ),
        Refusal::Unwatched(errno) => tracing::error!(
            "connections refused listener={name} worker={worker}: {}: memory, or the sysctl fs.epoll.max_user_watches",
            io::Error::from_raw_os_error(errno)
        ),
    }
}

fn log_change(upstream: &str, endpoint: &Address, worker: usize, change: ChangeKind) {
    let time = |until: Instant| until.since(clock::now());
    match change {
        ChangeKind::Ejected { reason, evidence, until } => {
            let (reason, evidence, time) = (eject_reason(reason).token(), evidence.token(), time(until));
            tracing::warn!(
                "ejected upstream={upstream} endpoint={endpoint} reason={reason} evidence={evidence} for={time:.1?} worker={worker}"
            );
        }
        ChangeKind::EjectionRefused { reason } => {
            let reason = eject_reason(reason).token();
            tracing::warn!(
                "ejection refused upstream={upstream} endpoint={endpoint} reason={reason} worker={worker}: too few would be left"
            );
        }
        ChangeKind::Shunned { reason, until } => {
            let (reason, time) = (eject_reason(reason).token(), time(until));
            tracing::warn!(
                "shunned upstream={upstream} endpoint={endpoint} reason={reason} for={time:.1?} worker={worker}"
            );
        }
        ChangeKind::Paused { until } => {
            let time = time(until);
            tracing::warn!(
                "paused upstream={upstream} endpoint={endpoint} reason=retry_after for={time:.1?} worker={worker}"
            );
        }
        ChangeKind::Readmitted { by } => {
            let reason = readmit_reason(by).token();
            tracing::info!("readmitted upstream={upstream} endpoint={endpoint} reason={reason} worker={worker}");
        }
        // the probes have logged their verdict, once for all workers
        ChangeKind::Unhealthy | ChangeKind::Healthy => {}
    }
}
