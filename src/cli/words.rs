//! Parts of a configuration in words, as `explain` shows them. Units are written as the file writes them.

use http::Method;
use ringgate::config::{
    AllowedHeaders, Balance, Cluster, Cors, Endpoint, HashKey, HostMatch, Limit, LimitKey, Listener, Lookup, Match,
    Measure, Named, RetryOn, Route, ServerSide, Tier, Timeout,
};
use ringgate::limits::TRY_AUTO_MIN;
use ringgate::policy::cors::Grant;
use std::sync::Arc;
use std::time::Duration;

/// `host api.example.com, path /orders/*`
pub(crate) fn matcher(matcher: &Match) -> String {
    let hosts: Vec<_> = matcher.hosts().filter(|host| **host != HostMatch::Any).map(ToString::to_string).collect();
    let host = if hosts.is_empty() { "any host".to_owned() } else { format!("host {}", hosts.join(" or ")) };
    let paths: Vec<_> = matcher.paths().map(ToString::to_string).collect();
    let path = format!("path {}", paths.join(" or "));
    let mut parts = vec![host, path];
    if !matcher.methods.is_empty() {
        parts.push(methods(matcher));
    }
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    parts.extend(matcher.headers.iter().map(|(name, value)| format!("header {name}: {}", text(value))));
    parts.extend(matcher.query.iter().map(|(name, value)| format!("query {name}={value}")));
    parts.extend(matcher.more.iter().map(ToString::to_string));
    parts.join(", ")
}

/// `GET or POST`
pub(crate) fn methods(matcher: &Match) -> String {
    matcher.methods.iter().map(Method::as_str).collect::<Vec<_>>().join(" or ")
}

/// A listener's bounds.
pub(crate) fn listener(listener: &Listener) -> String {
    let per_client = listener.client_connections_max.map(|max| format!(", {max} of each client")).unwrap_or_default();
    let proxied = if listener.proxy_protocol { ", each with a PROXY header" } else { "" };
    format!(
        "head {} with {} headers in {}, body {} ({} without a byte), {} connections{per_client}{proxied}",
        size(listener.head_bytes_max as u64),
        listener.headers_max,
        duration(listener.header_timeout),
        size(listener.body_bytes_max),
        duration(listener.body_timeout),
        listener.connections_max,
    )
}

/// A route's limits, one a line.
pub(crate) fn limits(route: &Route) -> Vec<String> {
    let mut lines: Vec<_> = route.limits.iter().map(limit).collect();
    lines.extend(route.concurrent_max.map(|max| format!("{max} requests at once, else 503")));
    lines.extend(route.body_bytes_max.map(|max| format!("body {}, else 413", size(max))));
    lines.extend(route.body_timeout.map(|timeout| format!("{} without a byte of a body", duration(timeout))));
    lines.extend(route.tunnel_timeout.map(|timeout| format!("tunnels {} without a byte", duration(timeout))));
    lines.extend(route.body_rate_min.map(|rate| format!("body at {}/s at least, else 408", size(rate))));
    lines
}

/// A listener's limits, one a line.
pub(crate) fn limits_of_listener(listener: &Listener) -> Vec<String> {
    listener.limits.iter().map(limit).collect()
}

fn limit(limit: &Limit) -> String {
    let per = match (&limit.per, &limit.name) {
        (LimitKey::Route, None) => "the route".to_owned(),
        (LimitKey::Route, Some(_)) => "all together".to_owned(),
        (key, _) => counted(key),
    };
    let name = limit.name.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
    let tier = |tier: &Tier| match tier.measure {
        Measure::Rate { rate, burst } => format!(", {rate} for consumers in {} ({burst} at once)", tier.group),
        other => format!(", {other} for consumers in {}", tier.group),
    };
    let tiers: String = limit.tiers.iter().map(tier).collect();
    let consequence = if limit.dry_run { "only counted (dry_run)" } else { "else 429" };
    let cost = if limit.cost > 1 { format!(", {} a request", limit.cost) } else { String::new() };
    let header = limit
        .cost_header
        .as_ref()
        .map(|header| format!(", as many as {header} of the response says"))
        .unwrap_or_default();
    let measured = match limit.measure {
        Measure::Rate { rate, burst } => format!("{rate} for {per}, {burst} at once"),
        Measure::Quota { window, .. } => format!("{} for {per}, anew with each {window} of UTC", limit.measure),
        Measure::Concurrency(_) => format!("{} for {per}", limit.measure),
    };
    let shared = if limit.is_shared { ", counted by redis for all gateways together" } else { "" };
    format!("{name}{measured}{shared}{tiers}{cost}{header}, {consequence}")
}

fn counted(key: &LimitKey) -> String {
    match key {
        LimitKey::Route => "all together".to_owned(),
        LimitKey::ClientIp => "a client address".to_owned(),
        LimitKey::ClientNetwork { v4, v6 } => format!("a client network (/{v4}, of IPv6 /{v6})"),
        LimitKey::ClientCertificate => {
            "a key of clients' certificates (requests without one count together)".to_owned()
        }
        LimitKey::Consumer => "a consumer (requests of nobody who was recognised count together)".to_owned(),
        LimitKey::Group => "a group of consumers (requests of others count together)".to_owned(),
        LimitKey::Claim(name) => format!("a claim {name} of tokens (requests without it count together)"),
        LimitKey::Cookie(name) => format!("a value of the cookie {name} (requests without it count together)"),
        LimitKey::Header(name) => format!("a value of {name} (requests without it count together)"),
        LimitKey::Template => "a path as the route writes it".to_owned(),
        LimitKey::Capture(name) => format!("what the path has for {{{name}}} (requests without it count together)"),
        LimitKey::Several(keys) => keys.iter().map(counted).collect::<Vec<_>>().join(" and "),
    }
}

/// T_max.
pub(crate) fn timeout(timeout: &Timeout) -> String {
    match timeout {
        Timeout::Fixed(fixed) => format!("{} to the response's head, all tries together, then 504", duration(*fixed)),
        Timeout::Adaptive { k, min, max } => {
            let (min, max) = (duration(*min), duration(*max));
            format!("{k} times the route's latency, {min} to {max}, to the response's head, then 504")
        }
    }
}

/// What the first try gets when T_max is divided among the tries; `None` where it has all of it, or `per_try_timeout` decides.
/// `elsewhere`: there is a second endpoint.
pub(crate) fn first_try(route: &Route, method: &Method, elsewhere: bool) -> Option<String> {
    let retry = &route.retry;
    let twice = method.is_idempotent() || retry.non_idempotent;
    if retry.attempts == 0 || retry.per_try_timeout.is_some() || !retry.on.timeout || !twice || !elsewhere {
        return None;
    }
    let tries = retry.attempts + 1;
    Some(match route.timeout {
        Timeout::Fixed(fixed) => {
            format!(
                "first try at most {} (then another endpoint), once the route is known 3 × its p99, at least {}",
                duration(fixed / tries),
                duration(TRY_AUTO_MIN.min(fixed / tries))
            )
        }
        Timeout::Adaptive { .. } => {
            format!("first try at most 1/{tries} of that (then another endpoint), once the route is known 3 × its p99")
        }
    })
}

/// How often and when a request with this method is repeated.
pub(crate) fn retry(route: &Route, method: &Method) -> String {
    let retry = &route.retry;
    if retry.attempts == 0 {
        return "none".to_owned();
    }
    let sent = match (method.is_idempotent(), retry.non_idempotent) {
        (true, _) => format!("{method} is idempotent: also after it was sent"),
        (false, true) => format!("{method} also after it was sent (non_idempotent)"),
        (false, false) => format!("{method} is not idempotent: only what nobody has read"),
    };
    let per_try = retry.per_try_timeout.map_or_else(String::new, |timeout| format!(", {} a try", duration(timeout)));
    let left = retry.min_remaining.get() * 100.0;
    format!("{} on {}{per_try}, while {left}% of the timeout is left; {sent}", retry.attempts, retry_on(&retry.on))
}

fn retry_on(on: &RetryOn) -> String {
    let classes = [(on.connect, "connect"), (on.reset, "reset"), (on.timeout, "timeout")];
    let classes = classes.iter().filter(|(given, _)| *given).map(|(_, class)| (*class).to_owned());
    classes.chain(on.statuses.iter().map(|status| status.as_str().to_owned())).collect::<Vec<_>>().join(", ")
}

/// A cluster's strategy and bounds.
pub(crate) fn cluster(cluster: &Cluster) -> String {
    let requests = cluster.requests_max.map_or_else(String::new, |max| format!(", {max} requests at once each"));
    let probes = cluster
        .health_check
        .as_ref()
        .map_or_else(String::new, |check| format!(", probed every {}", duration(check.interval)));
    let outlier = if cluster.outlier.is_some() { ", failing ones ejected" } else { "" };
    format!(
        "{}, connect in {}{requests}{probes}{outlier}",
        balance(&cluster.balance),
        duration(cluster.connect_timeout)
    )
}

fn balance(balance: &Balance) -> String {
    let key = |key: &HashKey| match key {
        HashKey::ClientIp => "client address".to_owned(),
        HashKey::Header(name) => format!("header {name}"),
        HashKey::Cookie(name) => format!("cookie {name}"),
        HashKey::Path => "path".to_owned(),
        HashKey::Capture(name) => format!("what the path has for {{{name}}}"),
    };
    match balance {
        Balance::Random => "random by availability".to_owned(),
        Balance::RoundRobin => "round_robin".to_owned(),
        Balance::Weighted => "weighted".to_owned(),
        Balance::LeastRequest => "least_request".to_owned(),
        Balance::PeakEwma => "peak_ewma".to_owned(),
        Balance::RingHash(by) => format!("ring_hash by {}", key(by)),
        Balance::Maglev(by) => format!("maglev by {}", key(by)),
    }
}

/// An endpoint with its weight and tier.
pub(crate) fn endpoint(endpoint: &Endpoint) -> String {
    let drained = if endpoint.weight.0 == 0 { " (drained)" } else { "" };
    format!("{}, weight {}{drained}, priority {}", endpoint.address, endpoint.weight.0, endpoint.priority)
}

/// A name whose addresses are endpoints.
pub(crate) fn named(named: &Named) -> String {
    match &named.lookup {
        Lookup::Host { .. } => {
            format!("{} (its addresses), weight {}, priority {}", named.lookup, named.weight.0, named.priority)
        }
        Lookup::File(path) => format!("what {} says", path.display()),
        Lookup::Service(name) => {
            format!("{name} (its SRV records, with their weights), priority {} and above", named.priority)
        }
    }
}

/// What happens to headers, one rule a line.
pub(crate) fn header_rules(route: &Route) -> Vec<String> {
    let mut lines = Vec::new();
    for (side, rules) in [("request", &route.request_headers), ("response", &route.response_headers)] {
        lines.extend(rules.remove.iter().map(|name| format!("{side}: {name} removed")));
        let value = |value: &http::HeaderValue| match value.is_sensitive() {
            true => "(hidden)".to_owned(),
            false => String::from_utf8_lossy(value.as_bytes()).into_owned(),
        };
        lines.extend(rules.set.iter().map(|(name, set)| format!("{side}: {name} set to {}", value(set))));
        lines.extend(rules.templates.iter().map(|(name, text)| format!("{side}: {name} set to {text}, or removed")));
        lines.extend(rules.always.then(|| format!("{side}: also of the gateway's own errors")));
    }
    lines
}

/// Which pages may do what; `granted` is what the one that asks may.
pub(crate) fn cors(cors: &Cors, granted: Option<Grant>) -> String {
    let asker = match granted {
        None => "",
        Some(Grant::Everybody | Grant::Named) => "this page, too; ",
        Some(Grant::Nobody) => "not this page; ",
    };
    let origins: Vec<_> = cors.origins.iter().map(ToString::to_string).collect();
    let origins = if cors.is_for_all() { "any origin".to_owned() } else { origins.join(", ") };
    let credentials = if cors.credentials { ", with credentials," } else { "" };
    let headers = match &cors.headers {
        AllowedHeaders::Asked => ", with whatever headers they ask for".to_owned(),
        AllowedHeaders::These(names) if names.is_empty() => String::new(),
        AllowedHeaders::These(names) => format!(", with {names}"),
    };
    let expose = if cors.expose.is_empty() { String::new() } else { format!(", and read {}", cors.expose) };
    let again = duration(cors.max_age);
    format!(
        "{asker}pages of {origins}{credentials} may use {}{headers}{expose}; asked again after {again}",
        cors.methods
    )
}

/// `250ms`, `2s`, `1m`: the largest unit that is whole.
pub(super) fn duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let whole = units.iter().find(|(_, size)| millis > 0 && millis.is_multiple_of(*size));
    whole.map_or_else(|| "0s".to_owned(), |(unit, size)| format!("{}{unit}", millis / size))
}

/// `16KiB`: the largest unit that is whole.
pub(super) fn size(bytes: u64) -> String {
    let units = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
    let whole = units.iter().find(|(_, size)| bytes > 0 && bytes.is_multiple_of(*size));
    whole.map_or_else(|| "0B".to_owned(), |(unit, size)| format!("{}{unit}", bytes / size))
}
/// Which certificate a client gets that asks for this host.
pub(super) fn certificate(tls: &ServerSide, host: Option<&str>) -> String {
    let (found, is_for_it) = tls.names.of(host);
    let Some(first) = found.first() else { return "TLS without a certificate".to_owned() };
    let rows = tls.names.all().iter().zip(&tls.origins);
    let origin = rows.into_iter().find(|(it, _)| Arc::ptr_eq(it, first)).map(|(_, origin)| origin.chain.display());
    let file = origin.map_or_else(String::new, |file| file.to_string());
    let kind = match found.len() {
        1 => String::new(),
        count => format!(", the first of {count} that it can check"),
    };
    match (host, is_for_it) {
        (Some(host), true) => format!("TLS: the certificate for {host} is {file}{kind}"),
        (Some(host), false) => format!("TLS: no certificate is for {host}; the default is {file}{kind}"),
        (None, _) => format!("TLS: the default certificate is {file}{kind}"),
    }
}
