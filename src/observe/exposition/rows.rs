//! What the rows of a family are, and the shapes that several families have.

use super::{ProcessNumbers, Samples, Scrape};
use crate::error::ProxyError;
use crate::limits::CONSUMER_LABELS_MAX;
use crate::observe::labels::{EjectReason, MethodLabel, ReadmitReason};
use crate::observe::stats::{EndpointView, LimitStats, ListenerStats, LoopStats, OUTCOMES, RequestKey};
use crate::units::{ClusterId, EndpointId, ListenerId};
use std::collections::BTreeMap;
use std::fmt::Display;

pub(super) fn names(scrape: &Scrape) -> usize {
    scrape.names.len()
}

pub(super) fn once(_: &Scrape) -> usize {
    1
}

/// None where the system does not tell.
pub(super) fn once_if_told(scrape: &Scrape) -> usize {
    usize::from(scrape.process.is_some())
}

pub(super) fn of_process<T: Display>(scrape: &Scrape, out: &mut Samples<'_>, number: fn(&ProcessNumbers) -> T) {
    if let Some(numbers) = &scrape.process {
        out.sample(&[], number(numbers));
    }
}

pub(super) fn per_worker(scrape: &Scrape) -> usize {
    scrape.stats.workers_len()
}

pub(super) fn per_listener(scrape: &Scrape) -> usize {
    scrape.stats.config.listeners.len()
}

/// Routes, and the row of requests without a route.
pub(super) fn per_route(scrape: &Scrape) -> usize {
    scrape.stats.config.routes.len() + 1
}

pub(super) fn per_cluster(scrape: &Scrape) -> usize {
    scrape.stats.config.clusters.len()
}

/// The counted keys, and one line for what found no room.
pub(super) fn per_request_key(scrape: &Scrape) -> usize {
    scrape.requests.len() + 1
}

pub(super) fn requests(scrape: &Scrape, row: usize, out: &mut Samples<'_>) {
    let Some(&(key, count)) = scrape.requests.get(row) else {
        let other: u64 = scrape.stats.lives().map(|life| life.requests_other.get()).sum();
        if other > 0 {
            out.sample(&[("route", "other"), ("method", "other"), ("code", "other")], other);
        }
        return;
    };
    let RequestKey { route, method, status } = RequestKey::unpack(key);
    let route = scrape.stats.row_name(route as usize);
    let method = MethodLabel::ALL[usize::from(method)].token();
    out.sample(&[("route", route), ("method", method), ("code", &status.to_string())], count);
}

pub(super) fn readmissions(scrape: &Scrape, row: usize, out: &mut Samples<'_>) {
    each_endpoint(scrape, row, |cluster, name, endpoint| {
        let view = scrape.stats.endpoint(cluster, endpoint);
        for reason in ReadmitReason::ALL {
            let labels = [("upstream", name.0), ("endpoint", name.1), ("reason", reason.token())];
            out.sample(&labels, view.readmissions[reason.index()]);
        }
    });
}

pub(super) fn rejected(scrape: &Scrape, row: usize, out: &mut Samples<'_>) {
    let Some(route) = scrape.stats.route_row(row) else { return };
    let name = scrape.stats.row_name(row);
    let tokens = ProxyError::ALL.iter().map(|error| error.token()).zip(route.rejected);
    let others = [
        ("rate_limited_dry_run", route.rate_limited_dry_run),
        ("forbidden_dry_run", route.forbidden_dry_run),
        ("forward_auth", route.refused_elsewhere),
    ];
    for (token, count) in tokens.chain(others) {
        if count > 0 {
            out.sample(&[("route", name), ("reason", token)], count);
        }
    }
}

/// Limits that have rejected somebody.
pub(super) fn limited(scrape: &Scrape, row: usize, out: &mut Samples<'_>) {
    let limit = &scrape.stats.limit_rows()[row];
    let sum = |number: fn(&LimitStats) -> u64| limit.parts.touched().map(number).sum::<u64>();
    let sums = [("false", sum(|of| of.rejected.get())), ("true", sum(|of| of.dry_run.get()))];
    for (dry_run, count) in sums.into_iter().filter(|(_, count)| limit.is_first && *count > 0) {
        out.sample(&[("limit", &limit.name), ("dry_run", dry_run)], count);
    }
}

/// The consumers that the configuration names first and, as `other`, everybody else who was recognised.
pub(super) fn consumers(scrape: &Scrape, out: &mut Samples<'_>, number: fn((u64, u64)) -> u64) {
    let consumers = &scrape.stats.config.consumers.all;
    let mut sums = scrape.stats.consumers();
    for consumer in consumers.iter().take(CONSUMER_LABELS_MAX) {
        if let Some(sum) = sums.by_number.remove(&consumer.number) {
            out.sample(&[("consumer", &consumer.name)], number(sum));
        }
    }
    let others = sums.by_number.into_values().map(number).sum::<u64>() + number(sums.others);
    if others > 0 {
        out.sample(&[("consumer", "other")], others);
    }
}

/// The calls of a route by method and outcome: the methods that services know and, as `other`, all the rest.
pub(super) fn calls(scrape: &Scrape, row: usize, out: &mut Samples<'_>) {
    let mut sums: BTreeMap<(&str, &str), [u64; OUTCOMES]> = BTreeMap::new();
    for route in scrape.stats.route_parts(row).touched() {
        let methods = route.calls.methods.iter().map(|method| (method.name(), &method.outcomes));
        for (name, outcomes) in methods.chain([(("other", "other"), &route.calls.others)]) {
            let sum = sums.entry(name).or_default();
            sum.iter_mut().zip(outcomes).for_each(|(sum, count)| *sum += count.get());
        }
    }
    for ((service, method), outcomes) in sums {
        for (code, count) in outcomes.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            let code = if code == OUTCOMES - 1 { "none".to_owned() } else { code.to_string() };
            let route = scrape.stats.row_name(row);
            let labels = [("route", route), ("service", service), ("method", method), ("status", &code)];
            out.sample(&labels, count);
        }
    }
}

pub(super) fn each_endpoint(scrape: &Scrape, row: usize, mut each: impl FnMut(ClusterId, (&str, &str), EndpointId)) {
    let cluster = scrape.cluster(row);
    for (number, endpoint) in cluster.endpoints.iter().enumerate() {
        let address = endpoint.identity();
        each(ClusterId::from_index(row), (&cluster.name, &address), EndpointId::from_index(number));
    }
}

pub(super) fn by_reason(scrape: &Scrape, row: usize, out: &mut Samples<'_>, numbers: fn(&EndpointView) -> &[u64]) {
    each_endpoint(scrape, row, |cluster, name, endpoint| {
        let view = scrape.stats.endpoint(cluster, endpoint);
        for (reason, number) in EjectReason::ALL.iter().zip(numbers(&view)) {
            out.sample(&[("upstream", name.0), ("endpoint", name.1), ("reason", reason.token())], *number);
        }
    });
}

pub(super) fn listener(scrape: &Scrape, row: usize, out: &mut Samples<'_>, number: fn(&ListenerStats) -> u64) {
    out.sample(&[("listener", &scrape.stats.config.listeners[row].name)], listener_sum(scrape, row, number));
}

/// A number of a listener, over all workers.
pub(super) fn listener_sum(scrape: &Scrape, row: usize, number: impl Fn(&ListenerStats) -> u64) -> u64 {
    scrape.stats.listener_parts(ListenerId::from_index(row)).touched().map(number).sum()
}

pub(super) fn event_loop(scrape: &Scrape, row: usize, out: &mut Samples<'_>, number: fn(&LoopStats) -> u64) {
    let sum: u64 = scrape.stats.lives_of(row).map(|life| number(&life.event_loop)).sum();
    out.sample(&[("worker", &row.to_string())], sum);
}
