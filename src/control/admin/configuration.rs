//! The configuration in effect as JSON, with the keys of the file.
//!
//! Written by hand rather than derived, so that what is shown is a decision: the keys are the file's, durations are strings with
//! units as in the file, and values of headers that a route sets are left out (they may be credentials for the service); their
//! names are shown.

use super::rows::{array, glue};
use crate::config::{
    AccessLog, Balance, Bind, BodyMatch, Cluster, Config, Driver, HashKey, HeaderRules, HealthCheck, HostMatch, Limit,
    LimitKey, Listener, LogFormat, LogPath, Match, Outlier, PathMatch, Probe, Retry, Rewrite, Route, Spill, Target,
    Timeout,
};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// The whole configuration, row by row.
pub(super) fn pieces(config: &Arc<Config>) -> impl Iterator<Item = String> + use<> {
    let head = json!({
        "gateway": gateway(config),
        "admin": { "listen": config.admin.listen.to_string() },
        "access_log": config.access_log.as_ref().map(access_log),
        "listener": config.listeners.iter().map(listener).collect::<Vec<_>>(),
    });
    // The head is an object; its closing brace comes at the end of all.
    let mut head = head.to_string();
    head.pop();
    let (routes, clusters) = (Arc::clone(config), Arc::clone(config));
    let routes = (0..routes.routes.len()).map(move |row| route(&routes.routes[row], &routes));
    let clusters = (0..clusters.clusters.len()).map(move |row| cluster(&clusters.clusters[row]));
    glue(head + ",")
        .chain(array("route", routes))
        .chain(glue(","))
        .chain(array("upstream", clusters))
        .chain(glue("}\n"))
}

/// A duration as the file writes it: `"1s"`, `"250ms"`, in the largest unit that is exact.
fn duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let units = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us"), (1, "ns")];
    let (size, unit) =
        units.into_iter().find(|(size, _)| nanos.is_multiple_of(*size)).expect("every duration is whole nanoseconds");
    format!("{}{unit}", nanos / size)
}

fn gateway(config: &Config) -> Value {
    let driver = match config.gateway.driver {
        Driver::Auto => "auto",
        Driver::IoUring => "io_uring",
        Driver::Epoll => "epoll",
    };
    json!({
        "workers": config.gateway.cores.len(),
        "cores": config.gateway.cores,
        "driver": driver,
        "drain_timeout": duration(config.gateway.drain_timeout),
    })
}

fn access_log(log: &AccessLog) -> Value {
    let path = match &log.path {
        LogPath::Stdout => "stdout".to_owned(),
        LogPath::File(path) => path.display().to_string(),
    };
    let format = match log.format {
        LogFormat::Json => "json",
        LogFormat::Combined => "combined",
    };
    json!({ "path": path, "format": format, "redact": log.redact })
}

fn listener(listener: &Listener) -> Value {
    let unix = matches!(listener.bind, Bind::Unix(_));
    let trusted = listener.trusted_proxies.iter().map(ToString::to_string);
    let trusted: Vec<_> = trusted.chain(listener.unix_trusted.then(|| "unix".to_owned())).collect();
    json!({
        "name": listener.name,
        "listen": listener.bind.to_string(),
        "header_timeout": duration(listener.header_timeout),
        "idle_timeout": duration(listener.idle_timeout),
        "body_timeout": duration(listener.body_timeout),
        "tunnel_timeout": duration(listener.tunnel_timeout),
        "max_head_bytes": listener.head_bytes_max,
        "max_headers": listener.headers_max,
        "max_body_bytes": listener.body_bytes_max,
        "max_connections": listener.connections_max,
        "trusted_proxies": trusted,
        "mode": unix.then(|| format!("{:04o}", listener.unix_mode)),
    })
}

fn route(route: &Route, config: &Config) -> Value {
    let rewrite = match &route.rewrite {
        Rewrite::None => Value::Null,
        Rewrite::StripPrefix(prefix) => json!({ "strip_prefix": prefix }),
        Rewrite::Template(template) => json!({ "rewrite": template }),
    };
    let timeout = match route.timeout {
        Timeout::Fixed(timeout) => json!(duration(timeout)),
        Timeout::Adaptive { k, min, max } => {
            json!({ "adaptive": true, "k": k, "min": duration(min), "max": duration(max) })
        }
    };
    json!({
        "name": route.name,
        "match": matcher(&route.matcher),
        "target": target(&route.target, config),
        "rewrite": rewrite,
        "request_headers": header_rules(&route.request_headers),
        "response_headers": header_rules(&route.response_headers),
        "timeout": timeout,
        "limit": route.limits.iter().map(limit).collect::<Vec<_>>(),
        "max_concurrent": route.concurrent_max,
        "max_body_bytes": route.body_bytes_max,
        "retry": retry(&route.retry),
    })
}

/// `match` of a route.
pub(super) fn matcher(matcher: &Match) -> Value {
    let host = match &matcher.host {
        HostMatch::Any => Value::Null,
        HostMatch::Exact(host) => json!(host),
        HostMatch::Wildcard(host) => json!(format!("*.{host}")),
    };
    let path = match &matcher.path {
        PathMatch::Exact(path) => path.clone(),
        PathMatch::Prefix(prefix) => format!("{prefix}/*"),
        PathMatch::Regex(pattern) => format!("~{pattern}"),
    };
    let header = |(name, value): &(http::HeaderName, http::HeaderValue)| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into())
    };
    json!({
        "host": host,
        "path": path,
        "method": matcher.methods.iter().map(|method| method.as_str()).collect::<Vec<_>>(),
        "header": matcher.headers.iter().map(header).collect::<Map<String, Value>>(),
        "query": matcher.query.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect::<Map<_, _>>(),
    })
}

/// `upstream`, `split`, `respond` or `redirect` of a route.
pub(super) fn target(target: &Target, config: &Config) -> Value {
    let name = |cluster: crate::units::ClusterId| config.clusters[cluster.index()].name.as_str();
    match target {
        Target::Upstream(split) => match split.as_slice() {
            [(cluster, _)] => json!({ "upstream": name(*cluster) }),
            split => {
                let row = |(cluster, weight): &(_, crate::units::Weight)| json!({ "upstream": name(*cluster), "weight": weight.0 });
                json!({ "split": split.iter().map(row).collect::<Vec<_>>() })
            }
        },
        Target::Respond { status, body, content_type } => json!({ "respond": {
            "status": status.as_u16(),
            "body_bytes": body.len(),
            "content_type": String::from_utf8_lossy(content_type.as_bytes()),
        }}),
        Target::Redirect { to, status } => json!({ "redirect": { "to": to, "status": status.as_u16() } }),
    }
}

fn header_rules(rules: &HeaderRules) -> Value {
    json!({
        "set": rules.set.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        "remove": rules.remove.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
    })
}

fn limit(limit: &Limit) -> Value {
    let per = match &limit.per {
        LimitKey::Route => "route".to_owned(),
        LimitKey::ClientIp => "client_ip".to_owned(),
        LimitKey::Header(name) => format!("header:{name}"),
    };
    json!({ "rate": limit.rate.to_string(), "burst": limit.burst, "per": per, "dry_run": limit.dry_run })
}

fn retry(retry: &Retry) -> Value {
    let classes = [("connect", retry.on.connect), ("reset", retry.on.reset), ("timeout", retry.on.timeout)];
    let classes = classes.into_iter().filter(|(_, on)| *on).map(|(class, _)| class.to_owned());
    let on: Vec<String> = classes.chain(retry.on.statuses.iter().map(|status| status.as_str().to_owned())).collect();
    json!({
        "attempts": retry.attempts,
        "on": on,
        "non_idempotent": retry.non_idempotent,
        "per_try_timeout": retry.per_try_timeout.map_or_else(|| "auto".to_owned(), duration),
        "backoff_max": duration(retry.backoff_max),
        "min_remaining": percent(retry.min_remaining.get()),
    })
}

/// A share as the file writes it: `"10%"`, `"12.5%"`.
fn percent(share: f64) -> String {
    format!("{}%", (share * 1e6).round() / 1e4)
}

fn spill(spill: Spill) -> &'static str {
    match spill {
        Spill::Proportional => "proportional",
        Spill::None => "none",
    }
}

/// `balance` of a cluster, with the key that the hashes use.
pub(super) fn balance(balance: &Balance) -> Value {
    let hashed = |strategy: &str, key: &HashKey| {
        let key = match key {
            HashKey::ClientIp => "client_ip".to_owned(),
            HashKey::Header(name) => format!("header:{name}"),
            HashKey::Cookie(name) => format!("cookie:{name}"),
            HashKey::Path => "path".to_owned(),
        };
        json!({ "strategy": strategy, "hash": key })
    };
    match balance {
        Balance::Random => json!({ "strategy": "random" }),
        Balance::RoundRobin => json!({ "strategy": "round_robin" }),
        Balance::Weighted => json!({ "strategy": "weighted" }),
        Balance::LeastRequest => json!({ "strategy": "least_request" }),
        Balance::PeakEwma => json!({ "strategy": "peak_ewma" }),
        Balance::RingHash(key) => hashed("ring_hash", key),
        Balance::Maglev(key) => hashed("maglev", key),
    }
}

fn cluster(cluster: &Cluster) -> Value {
    let endpoint = |endpoint: &crate::config::Endpoint| {
        json!({
            "address": endpoint.address.to_string(),
            "weight": endpoint.weight.0,
            "priority": endpoint.priority,
        })
    };
    json!({
        "name": cluster.name,
        "balance": balance(&cluster.balance),
        "connect_timeout": duration(cluster.connect_timeout),
        "idle_timeout": duration(cluster.idle_timeout),
        "max_idle": cluster.idle_max,
        "max_requests": cluster.requests_max,
        "retry_budget": {
            "ratio": cluster.retry_budget.ratio.get(),
            "min_per_second": cluster.retry_budget.min_per_second,
        },
        "endpoints": cluster.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        "health_check": cluster.health_check.as_ref().map(health_check),
        "outlier": cluster.outlier.as_ref().map(outlier),
        "retry_after_max": duration(cluster.retry_after_max),
        "spill": spill(cluster.spill),
        "slow_start": duration(cluster.slow_start),
    })
}

fn health_check(check: &HealthCheck) -> Value {
    let probe = match &check.probe {
        Probe::Tcp => json!({ "tcp": true }),
        Probe::Http(http) => json!({
            "method": http.method.as_str(),
            "path": http.path,
            "host": http.host,
            // names only: a value may be a secret
            "headers": http.headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            "expect": format!("{}-{}", http.expect.0, http.expect.1),
            "body": http.body.as_ref().map(BodyMatch::as_str),
        }),
    };
    json!({
        "probe": probe,
        "interval": duration(check.interval),
        "timeout": duration(check.timeout),
        "rise": check.rise,
        "fall": check.fall,
    })
}

fn outlier(outlier: &Outlier) -> Value {
    json!({
        "consecutive": outlier.consecutive,
        "min_success": outlier.min_success.get(),
        "min_requests": outlier.min_requests,
        "window": duration(outlier.window),
        "eject": duration(outlier.eject),
        "eject_max": duration(outlier.eject_max),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HttpProbe;
    use crate::observe::fixture;
    use http::{HeaderName, HeaderValue};

    #[test]
    fn the_configuration_is_one_json_object_with_the_file_s_keys() {
        let text: String = pieces(&fixture::config()).collect();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["gateway"]["drain_timeout"], "30s");
        assert_eq!(value["gateway"]["cores"], json!([0, null]));
        assert_eq!(value["listener"][0]["max_head_bytes"], 16384);
        assert_eq!(value["route"][0]["match"]["path"], "/orders/*");
        assert_eq!(value["route"][0]["target"]["split"][1], json!({ "upstream": "local", "weight": 5 }));
        assert_eq!(value["route"][0]["retry"]["on"], json!(["connect", "reset", "timeout", "502"]));
        assert_eq!(value["route"][0]["retry"]["min_remaining"], "10%");
        assert_eq!(value["route"][1]["target"]["respond"]["status"], 200);
        assert_eq!(value["upstream"][0]["health_check"]["interval"], "20ms");
        let probe = json!({
            "method": "GET", "path": "/healthz", "host": null, "headers": [], "expect": "200-399", "body": null,
        });
        assert_eq!(value["upstream"][0]["health_check"]["probe"], probe);
        assert_eq!(value["upstream"][1]["endpoints"][0]["address"], "unix:/run/\"odd\".sock");
        assert!(value["access_log"].is_null());
    }

    #[test]
    fn values_of_headers_that_are_set_are_not_shown() {
        let secret = (HeaderName::from_static("authorization"), HeaderValue::from_static("Bearer s3cr3t"));
        let shown = header_rules(&HeaderRules { set: vec![secret.clone()], remove: Vec::new() });
        assert_eq!(shown, json!({ "set": ["authorization"], "remove": [] }));
        let probe = Probe::Http(HttpProbe { headers: vec![secret], ..HttpProbe::get("/", (200, 200)) });
        let shown = health_check(&fixture::health_check(probe));
        assert_eq!(shown["probe"]["headers"], json!(["authorization"]));
    }

    #[test]
    fn durations_are_written_in_the_largest_exact_unit() {
        let written = |nanos| duration(Duration::from_nanos(nanos));
        assert_eq!(written(0), "0s");
        assert_eq!(written(2_000_000_000), "2s");
        assert_eq!(written(250_000_000), "250ms");
        assert_eq!(written(1_500), "1500ns");
    }
}
