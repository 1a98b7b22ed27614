//! What `/upstreams`, `/routes` and `/usage` show: rows of JSON from the numbers of [`Stats`].
//!
//! Durations are seconds, as Prometheus has them; times are seconds from now (`*_in_seconds`) or ago (`*_age_seconds`), because the
//! gateway's clock has no date. Each row is read when it is sent.

use super::rows::{array, glue};
use super::{AdminState, configuration};
use crate::config::{Endpoint, Lookup};
use crate::error::ProxyError;
use crate::observe::labels::{
    AttemptOutcome, EjectReason, EndpointState, FailureReason, Http2Failure, LookupResult, ProbeState,
};
use crate::observe::stats::{NO_ROUTE, RouteView, Stats};
use crate::observe::usage::{Usage, UsageKey};
use crate::units::{ClusterId, EndpointId, Instant, RouteId};
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// `{"workers": n, "upstreams": […]}`
pub(super) fn upstreams(state: Arc<AdminState>) -> impl Iterator<Item = String> {
    let now = (state.clock)();
    let workers = state.stats.workers_len();
    let ids = (0..state.config.clusters.len()).map(ClusterId::from_index);
    let rows = array("upstreams", ids.map(move |id| upstream(&state, id, now)));
    glue(format!("{{\"workers\":{workers},")).chain(rows).chain(glue("}\n"))
}

fn upstream(state: &AdminState, id: ClusterId, now: Instant) -> Value {
    let cluster = &state.config.clusters[id.index()];
    let rows: Vec<Value> = (0..)
        .map(EndpointId)
        .zip(&cluster.endpoints)
        .map(|(number, config)| endpoint(&state.stats, id, number, config, now))
        .collect();
    json!({
        "name": cluster.name,
        "balance": configuration::balance(&cluster.balance),
        "endpoints": rows,
        "names": cluster.names.iter().map(|named| name(&state.stats, &named.lookup, now)).collect::<Vec<_>>(),
    })
}

/// What is known of a name, and for how long.
fn name(stats: &Stats, lookup: &Lookup, now: Instant) -> Value {
    let view = stats.name(&lookup.to_string());
    let view = view.as_ref();
    let lookups = view.map(|view| counted(LookupResult::ALL.iter().map(|result| result.token()), view.lookups));
    json!({
        "name": lookup.to_string(),
        "endpoints": view.map_or(0, |view| view.endpoints),
        "answer_age_seconds": view.and_then(|view| view.learned).map(|learned| now.since(learned).as_secs_f64()),
        "failures": view.map_or(0, |view| view.failures),
        "lookups": lookups,
    })
}

fn endpoint(stats: &Stats, cluster: ClusterId, id: EndpointId, config: &Endpoint, now: Instant) -> Value {
    let view = stats.endpoint(cluster, id);
    let states = counted(EndpointState::ALL.iter().map(|state| state.token()), view.states.map(|n| n as u64));
    let outcomes = counted(AttemptOutcome::ALL.iter().map(|outcome| outcome.token()), view.attempts);
    let ejections = counted(EjectReason::ALL.iter().map(|reason| reason.token()), view.ejections);
    json!({
        "address": config.address.to_string(),
        "name": config.name.as_deref(),
        "tier": config.priority,
        "weight": config.weight.0,
        "available": format!("{} of {} workers", view.workers_available, view.workers),
        "states": states,
        "readmitted_in_seconds": view.ejected_until.map(|until| until.since(now).as_secs_f64()),
        "health_check": health_check(stats, cluster, id, now),
        "handshake_failure": stats.handshake_failure(cluster, id).map(|(reason, at)| {
            json!({ "reason": reason.token(), "age_seconds": now.since(at).as_secs_f64() })
        }),
        "in_flight": view.in_flight,
        "availability": view.availability,
        "attempts": view.attempts_total(),
        "failures": view.failures_total(),
        "outcomes": outcomes,
        "ejections": ejections,
        "http2_failures": counted(Http2Failure::ALL.iter().map(|reason| reason.token()), view.http2_failures),
    })
}

fn health_check(stats: &Stats, cluster: ClusterId, id: EndpointId, now: Instant) -> Value {
    let Some(probe) = stats.probe(cluster, id) else { return Value::Null };
    let state: ProbeState = probe.state;
    json!({
        "state": state.token(),
        "reason": probe.reason().map(|failure| failure.to_string()),
        "last_check_age_seconds": probe.checked.map(|checked| now.since(checked).as_secs_f64()),
        "passed": probe.passed,
        "failed": probe.failed(),
        "failures": counted(FailureReason::ALL.iter().map(|reason| reason.token()), probe.failed),
        "exhausted": probe.exhausted,
    })
}

/// An object of those names whose number is not zero.
fn counted(names: impl Iterator<Item = &'static str>, numbers: impl IntoIterator<Item = u64>) -> Map<String, Value> {
    let named = names.zip(numbers).filter(|(_, number)| *number > 0);
    named.map(|(name, number)| (name.to_owned(), number.into())).collect()
}

/// `{"routes": […]}`, with a last row for requests that matched none once there were any.
pub(super) fn routes(state: Arc<AdminState>) -> impl Iterator<Item = String> {
    let ids = (0..state.config.routes.len()).map(RouteId::from_index);
    let rows = ids.map(Some).chain([None]).filter_map(move |id| route(&state, id));
    glue("{").chain(array("routes", rows)).chain(glue("}\n"))
}

fn route(state: &AdminState, id: Option<RouteId>) -> Option<Value> {
    let view = state.stats.route(id);
    let numbers = route_numbers(&view);
    let Some(id) = id else {
        let unused = numbers["requests"] == 0;
        return (!unused).then(|| json!({ "name": NO_ROUTE, "numbers": numbers }));
    };
    let route = &state.config.routes[id.index()];
    Some(json!({
        "name": route.name,
        "guard": route.is_guard,
        "match": configuration::matcher(&route.matcher),
        "target": configuration::target(&route.target, &state.config),
        "numbers": numbers,
    }))
}

fn route_numbers(view: &RouteView) -> Value {
    let seconds = |q| view.duration.quantile(q).map(|duration| duration.as_secs_f64());
    let mut rejected = counted(ProxyError::ALL.iter().map(|error| error.token()), view.rejected);
    if view.rate_limited_dry_run > 0 {
        rejected.insert("rate_limited_dry_run".into(), view.rate_limited_dry_run.into());
    }
    if view.forbidden_dry_run > 0 {
        rejected.insert("forbidden_dry_run".into(), view.forbidden_dry_run.into());
    }
    json!({
        "requests": view.duration.count(),
        "errors": view.errors,
        "bytes": view.bytes,
        "p50_seconds": seconds(0.5),
        "p90_seconds": seconds(0.9),
        "p99_seconds": seconds(0.99),
        "rejected": rejected,
    })
}

/// What each route has used, with `None` for requests that matched none.
pub(super) fn route_totals(state: &AdminState) -> impl Iterator<Item = (Option<RouteId>, Usage)> {
    let ids = (0..state.config.routes.len()).map(RouteId::from_index);
    ids.map(Some).chain([None]).map(|id| (id, state.stats.route(id).usage()))
}

/// `{"by": …, "top": […], "routes": […]}`, each in the order given.
pub(super) fn usage(
    state: Arc<AdminState>,
    by: String,
    pairs: Vec<(UsageKey, Usage)>,
    routes: Vec<(Option<RouteId>, Usage)>,
) -> impl Iterator<Item = String> {
    let named = Arc::clone(&state);
    let wanted: HashSet<u64> = pairs.iter().map(|(key, _)| key.consumer).collect();
    let consumers = named.config.consumers.all.iter().filter(|consumer| wanted.contains(&consumer.number));
    let consumers: HashMap<u64, Arc<str>> = consumers.map(|it| (it.number, Arc::clone(&it.name))).collect();
    let pairs = pairs.into_iter().map(move |(key, usage)| {
        let mut row = usage_row(route_name(&named, key.route), &usage);
        row["client"] = key.client.to_string().into();
        row["consumer"] = consumers.get(&key.consumer).map(|name| &**name).into();
        row
    });
    let totals = routes.into_iter().map(move |(id, usage)| usage_row(route_name(&state, id), &usage));
    glue(format!("{{\"by\":\"{by}\","))
        .chain(array("top", pairs))
        .chain(glue(","))
        .chain(array("routes", totals))
        .chain(glue("}\n"))
}

fn route_name(state: &AdminState, route: Option<RouteId>) -> &str {
    route.map_or(NO_ROUTE, |route| &state.config.routes[route.index()].name)
}

fn usage_row(route: &str, usage: &Usage) -> Value {
    json!({
        "route": route,
        "requests": usage.requests,
        "errors": usage.errors,
        "bytes": usage.bytes,
        "latency_seconds": usage.latency_nanos as f64 / 1e9,
    })
}
