//! The configuration in effect as JSON, with the keys of the file, in its tables and its units.
//!
//! Written by hand rather than derived, so that what is shown is a decision: values of headers that a route sets are hidden (they may be
//! credentials for the service), and so are bodies of direct answers; their names and sizes are shown. Every key is there, `null`
//! where it is not set; a test compares them with the file's schema.

use super::identity;
use super::own::{access_log, resolver};
use super::rows::{array, glue};
use super::rules::{cors, limit, shared_limits, test};
use super::traffic;
use crate::config::{
    Admin, Balance, Bind, BodyMatch, Cluster, Condition, Config, ErrorPage, ForwardedFor, HashKey, HeaderRules,
    HealthCheck, HostMatch, Listener, Lookup, Match, Outlier, Probe, ProxyVersion, QueryRules, Retry, Rewrite, Route,
    Separators, ServerField, Spill, Target, Timeout, Underscores, bytes,
};
use crate::units::Weight;
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Stands for a value that may be a secret.
pub(super) const HIDDEN: &str = "(hidden)";

/// The whole configuration, row by row.
pub(super) fn pieces(config: &Arc<Config>) -> impl Iterator<Item = String> + use<> {
    let head = json!({
        "include": config.include,
        "gateway": gateway(config),
        "admin": admin(&config.admin),
        "resolver": resolver(&config.resolver),
        "access_log": config.access_log.as_ref().map(access_log),
        "listener": config.listeners.iter().map(|it| listener(it, config)).collect::<Vec<_>>(),
        "consumers_file": config.consumers.file.as_ref().map(|path| path.display().to_string()),
        "limit": shared_limits(&config.limits),
        "redis": config.redis.as_ref().map(|redis| super::rules::redis(redis)),
        "auth": identity::all_ways(&config.auth),
        "consumer": identity::consumers(&config.consumers),
    });
    // The head is an object; its closing brace comes at the end of all.
    let mut head = head.to_string();
    head.pop();
    let (routes, clusters) = (Arc::clone(config), Arc::clone(config));
    // guards stand behind the routes
    let (guards, first) = (Arc::clone(config), config.routes.partition_point(|route| !route.is_guard));
    let routes = (0..first).map(move |row| route(&routes.routes[row], &routes));
    let guards = (first..guards.routes.len()).map(move |row| guard(&guards.routes[row], &guards));
    let clusters = (0..clusters.clusters.len()).map(move |row| {
        let comma = if row == 0 { "" } else { "," };
        let name = Value::from(clusters.clusters[row].name.as_str());
        format!("{comma}\n{name}:{}", cluster(&clusters.clusters[row]))
    });
    glue(head + ",")
        .chain(array("guard", guards))
        .chain(glue(","))
        .chain(array("route", routes))
        .chain(glue(",\"upstream\":{"))
        .chain(clusters)
        .chain(glue("\n}}\n"))
}

fn admin(admin: &Admin) -> Value {
    json!({
        "listen": admin.listen.to_string(),
        "hosts": admin.hosts.iter().map(host).collect::<Vec<_>>(),
    })
}

/// A host as the file writes it; `null` for any.
fn host(host: &HostMatch) -> Value {
    match host {
        HostMatch::Any => Value::Null,
        host => json!(host.to_string()),
    }
}

/// A duration as the file writes it: `"1s"`, `"250ms"`, in the largest unit that is exact.
pub(super) fn duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let units = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us"), (1, "ns")];
    let (size, unit) =
        units.into_iter().find(|(size, _)| nanos.is_multiple_of(*size)).expect("every duration is whole nanoseconds");
    format!("{}{unit}", nanos / size)
}

fn gateway(config: &Config) -> Value {
    let driver = config.gateway.driver.to_string();
    json!({
        "workers": config.gateway.cores.len(),
        "cores": config.gateway.cores,
        "driver": driver,
        "drain_delay": duration(config.gateway.drain_delay),
        "drain_timeout": duration(config.gateway.drain_timeout),
        "quota_file": config.gateway.quota_file.as_ref().map(|path| path.display().to_string()),
        "watch": config.gateway.watch,
    })
}

fn listener(listener: &Listener, config: &Config) -> Value {
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
        "max_head": bytes(listener.head_bytes_max as u64),
        "max_headers": listener.headers_max,
        "max_body": bytes(listener.body_bytes_max),
        "max_connections": listener.connections_max,
        "max_connections_per_client": listener.client_connections_max.unwrap_or(0),
        "max_requests_per_connection": listener.connection_requests_max.unwrap_or(0),
        "max_connection_age": duration(listener.connection_age_max),
        "min_body_rate": body_rate(listener.body_rate_min),
        "trusted_proxies": trusted,
        "mode": unix.then(|| format!("{:04o}", listener.unix_mode)),
        "proxy_protocol": listener.proxy_protocol,
        "header_underscores": match listener.header_underscores {
            Underscores::Drop => "drop",
            Underscores::Keep => "keep",
            Underscores::Reject => "reject",
        },
        "x_forwarded_for": match listener.forwarded_for {
            ForwardedFor::Append => "append",
            ForwardedFor::Replace => "replace",
        },
        "encoded_separators": match listener.encoded_separators {
            Separators::Reject => "reject",
            Separators::Keep => "keep",
        },
        "merge_slashes": listener.merge_slashes,
        "errors": listener.errors.iter().map(error_page).collect::<Vec<_>>(),
        "server": match &listener.server {
            ServerField::Pass => "pass".into(),
            ServerField::Remove => "remove".into(),
            ServerField::Set(value) => String::from_utf8_lossy(value.as_bytes()),
        },
        "auth": identity::ways(&listener.auth, config),
        "limit": listener.limits.iter().map(limit).collect::<Vec<_>>(),
        "allow": identity::rules(&listener.access.allow),
        "deny": identity::rules(&listener.access.deny),
        "tls": listener.tls.as_ref().map(|tls| &tls.shown),
        "http2": listener.http2.map(|http2| {
            json!({ "enabled": http2.over_tls, "cleartext": http2.in_clear, "max_streams": http2.streams_max })
        }),
    })
}

/// Bytes a second as the file writes them.
fn body_rate(rate: u64) -> String {
    match rate {
        0 => "0".to_owned(),
        rate => format!("{}/s", bytes(rate)),
    }
}

fn route(route: &Route, config: &Config) -> Value {
    let (strip_prefix, rewrite) = match &route.rewrite {
        Rewrite::None => (None, None),
        Rewrite::StripPrefix(prefix) => (Some(prefix), None),
        Rewrite::Template(template) | Rewrite::Made { written: template, .. } => (None, Some(template)),
    };
    let timeout = match route.timeout {
        Timeout::Fixed(timeout) => json!(duration(timeout)),
        Timeout::Adaptive { k, min, max } => {
            json!({ "adaptive": true, "k": k, "min": duration(min), "max": duration(max) })
        }
    };
    let target = target(&route.target, config);
    let mut shown = json!({
        "name": route.name,
        "match": matcher(&route.matcher),
        "upstream": target["upstream"],
        "split": target["split"],
        "respond": target["respond"],
        "redirect": target["redirect"],
        "auth": route.auth.as_ref().map(|ways| identity::ways(ways, config)),
        "allow": identity::rules(&route.access.allow),
        "deny": identity::rules(&route.access.deny),
        "cors": route.cors.as_ref().map(cors),
        "strip_prefix": strip_prefix,
        "rewrite": rewrite,
        "query": query(&route.query),
        "request_headers": header_rules(&route.request_headers),
        "response_headers": response_rules(&route.response_headers),
        "timeout": timeout,
        "limit": route.limits.iter().map(limit).collect::<Vec<_>>(),
        "max_concurrent": route.concurrent_max,
        "max_body": route.body_bytes_max.map(bytes),
        "body_timeout": route.body_timeout.map(duration),
        "tunnel_timeout": route.tunnel_timeout.map(duration),
        "min_body_rate": route.body_rate_min.map(body_rate),
        "grpc_web": route.grpc_web,
        "retry": retry(&route.retry),
    });
    traffic::of_route(&route.traffic, config, &mut shown);
    shown
}

fn error_page(page: &ErrorPage) -> Value {
    json!({
        "status": page.statuses,
        "body": page.file.is_none().then(|| page.text()),
        "file": page.file,
        "content_type": String::from_utf8_lossy(page.content_type.as_bytes()),
    })
}

fn query(rules: &QueryRules) -> Value {
    let set = rules.set.iter().map(|(name, template)| (name.clone(), template.to_string().into()));
    let rename = rules.rename.iter().map(|(from, to)| (from.clone(), to.clone().into()));
    json!({ "set": set.collect::<Map<String, Value>>(), "remove": rules.remove, "rename": rename.collect::<Map<String, Value>>() })
}

fn guard(guard: &Route, config: &Config) -> Value {
    let target = target(&guard.target, config);
    json!({
        "name": guard.name,
        "match": matcher(&guard.matcher),
        "deny": target.get("deny"),
        "respond": target["respond"],
        "redirect": target["redirect"],
    })
}

/// `match` of a route.
pub(super) fn matcher(matcher: &Match) -> Value {
    // one stands for itself, as in the file
    let listed = |mut all: Vec<Value>| if all.len() == 1 { all.remove(0) } else { Value::from(all) };
    let path = listed(matcher.paths().map(|path| path.to_string().into()).collect());
    let header = |(name, value): &(http::HeaderName, http::HeaderValue)| {
        (name.to_string(), Value::from(String::from_utf8_lossy(value.as_bytes())))
    };
    let mut headers: Map<String, Value> = matcher.headers.iter().map(header).collect();
    let query = matcher.query.iter().map(|(name, value)| (name.clone(), value.as_str().into()));
    let (mut query, mut cookies) = (query.collect::<Map<String, Value>>(), Map::new());
    let (mut listeners, mut scheme, mut networks) = (Vec::new(), None, Vec::new());
    for condition in &matcher.more {
        match condition {
            Condition::Header(name, is) => drop(headers.insert(name.to_string(), test(is))),
            Condition::Query(name, is) => drop(query.insert(name.clone(), test(is))),
            Condition::Cookie(name, is) => drop(cookies.insert(name.clone(), test(is))),
            Condition::Listener(names) => listeners.clone_from(names),
            Condition::Scheme(wanted) => scheme = Some(wanted.as_str()),
            Condition::ClientIp(nets) => networks = nets.iter().map(ToString::to_string).collect(),
        }
    }
    json!({
        "host": listed(matcher.hosts().map(host).collect()),
        "path": path,
        "method": matcher.methods.iter().map(|method| method.as_str()).collect::<Vec<_>>(),
        "header": headers,
        "query": query,
        "cookie": cookies,
        "listener": listeners,
        "scheme": scheme,
        "client_ip": networks,
    })
}

/// `upstream`, `split`, `respond` or `redirect` of a route; `deny` of a guard.
pub(super) fn target(target: &Target, config: &Config) -> Value {
    let name = |cluster: crate::units::ClusterId| config.clusters[cluster.index()].name.as_str();
    match target {
        Target::Upstream(split) => match split.as_slice() {
            [(cluster, _)] => json!({ "upstream": name(*cluster) }),
            split => {
                let row = |(cluster, weight): &(_, Weight)| json!({ "upstream": name(*cluster), "weight": weight.0 });
                json!({ "split": split.iter().map(row).collect::<Vec<_>>() })
            }
        },
        Target::Respond { status, body, content_type } => json!({ "respond": {
            "status": status.as_u16(),
            "body": format!("({} bytes)", body.len()),
            "content_type": String::from_utf8_lossy(content_type.as_bytes()),
        }}),
        Target::Deny => json!({ "deny": true }),
        Target::Redirect { to, status } => json!({ "redirect": { "to": to, "status": status.as_u16() } }),
    }
}

/// Names only: a value may be a secret.
fn hidden(headers: &[(HeaderName, HeaderValue)]) -> Map<String, Value> {
    headers.iter().map(|(name, _)| (name.to_string(), HIDDEN.into())).collect()
}

fn header_rules(rules: &HeaderRules) -> Value {
    let mut set = hidden(&rules.set);
    set.extend(rules.templates.iter().map(|(name, text)| (name.to_string(), text.to_string().into())));
    json!({
        "set": set,
        "remove": rules.remove.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
    })
}

fn response_rules(rules: &HeaderRules) -> Value {
    let mut shown = header_rules(rules);
    shown["always"] = rules.always.into();
    shown
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

/// `balance` and `hash` of a cluster, as the file writes them.
fn balance_and_hash(balance: &Balance) -> (&'static str, Option<String>) {
    let written = |key: &HashKey| match key {
        HashKey::ClientIp => "client_ip".to_owned(),
        HashKey::Header(name) => format!("header:{name}"),
        HashKey::Cookie(name) => format!("cookie:{name}"),
        HashKey::Path => "path".to_owned(),
        HashKey::Capture(name) => format!("capture:{name}"),
    };
    match balance {
        Balance::Random => ("random", None),
        Balance::RoundRobin => ("round_robin", None),
        Balance::Weighted => ("weighted", None),
        Balance::LeastRequest => ("least_request", None),
        Balance::PeakEwma => ("peak_ewma", None),
        Balance::RingHash(key) => ("ring_hash", Some(written(key))),
        Balance::Maglev(key) => ("maglev", Some(written(key))),
    }
}

/// How a cluster chooses, for pages about clusters.
pub(super) fn balance(balance: &Balance) -> Value {
    match balance_and_hash(balance) {
        (strategy, None) => json!({ "strategy": strategy }),
        (strategy, Some(hash)) => json!({ "strategy": strategy, "hash": hash }),
    }
}

fn cluster(cluster: &Cluster) -> Value {
    let row = |address: Option<String>, srv: Option<String>, weight: Weight, priority: u8| {
        // the records of a service have its weights
        let weight = srv.is_none().then_some(weight.0);
        json!({ "address": address, "srv": srv, "weight": weight, "priority": priority })
    };
    // those of the file: what its names stand for now is the matter of /upstreams
    let written = cluster.endpoints.iter().filter(|endpoint| endpoint.name.is_none());
    let written = written.map(|it| row(Some(it.address.to_string()), None, it.weight, it.priority));
    let named = cluster.names.iter().filter_map(|it| match &it.lookup {
        Lookup::Host { .. } => Some(row(Some(it.lookup.to_string()), None, it.weight, it.priority)),
        Lookup::Service(name) => Some(row(None, Some(name.clone()), it.weight, it.priority)),
        Lookup::File(_) => None,
    });
    let file = cluster.names.iter().find_map(|it| match &it.lookup {
        Lookup::File(path) => Some(path.display().to_string()),
        Lookup::Host { .. } | Lookup::Service(_) => None,
    });
    let (balance, hash) = balance_and_hash(&cluster.balance);
    json!({
        "balance": balance,
        "hash": hash,
        "connect_timeout": duration(cluster.connect_timeout),
        "idle_timeout": duration(cluster.idle_timeout),
        "max_idle": cluster.idle_max,
        "proxy_protocol": match cluster.proxy_protocol {
            ProxyVersion::Off => "off",
            ProxyVersion::V1 => "v1",
            ProxyVersion::V2 => "v2",
        },
        "max_requests": cluster.requests_max,
        "retry_budget": {
            "ratio": cluster.retry_budget.ratio.get(),
            "min_per_second": cluster.retry_budget.min_per_second,
        },
        "endpoints": written.chain(named).collect::<Vec<_>>(),
        "endpoints_file": file,
        "health_check": cluster.health_check.as_ref().map(health_check),
        "outlier": outlier(cluster.outlier.as_ref()),
        "retry_after_max": duration(cluster.retry_after_max),
        "spill": spill(cluster.spill),
        "slow_start": duration(cluster.slow_start),
        "sticky": cluster.sticky.as_ref().map(traffic::sticky),
        "protocol": match cluster.protocol {
            crate::config::Protocol::Http1 => "http1",
            crate::config::Protocol::Http2 => "h2",
            crate::config::Protocol::Negotiated => "auto",
        },
        "max_streams": cluster.streams_max,
        "tls": cluster.tls.as_ref().map(|tls| &tls.shown),
    })
}

fn health_check(check: &HealthCheck) -> Value {
    let mut shown = match &check.probe {
        Probe::Tcp => {
            json!({ "tcp": true, "grpc": null, "method": null, "path": null, "host": null, "headers": {}, "expect": null, "body": null })
        }
        Probe::Grpc(call) => json!({
            "tcp": false,
            "grpc": if call.service.is_empty() { Value::from(true) } else { call.service.as_str().into() },
            "method": null,
            "path": null,
            "host": call.host,
            "headers": {},
            "expect": null,
            "body": null,
        }),
        Probe::Http(http) => json!({
            "tcp": false,
            "grpc": null,
            "method": http.method.as_str(),
            "path": http.path,
            "host": http.host,
            "headers": hidden(&http.headers),
            "expect": format!("{}-{}", http.expect.0, http.expect.1),
            "body": http.body.as_ref().map(BodyMatch::as_str),
        }),
    };
    let when = [
        ("interval", Value::from(duration(check.interval))),
        ("timeout", duration(check.timeout).into()),
        ("rise", check.rise.into()),
        ("fall", check.fall.into()),
    ];
    when.into_iter().for_each(|(key, value)| shown[key] = value);
    shown
}

/// What is switched off has no numbers.
fn outlier(outlier: Option<&Outlier>) -> Value {
    json!({
        "enabled": outlier.is_some(),
        "consecutive": outlier.map(|outlier| outlier.consecutive),
        "min_success": outlier.map(|outlier| outlier.min_success.get()),
        "min_requests": outlier.map(|outlier| outlier.min_requests),
        "window": outlier.map(|outlier| duration(outlier.window)),
        "eject": outlier.map(|outlier| duration(outlier.eject)),
        "eject_max": outlier.map(|outlier| duration(outlier.eject_max)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HttpProbe;
    use crate::observe::fixture;
    use std::collections::BTreeSet;

    #[test]
    fn the_configuration_is_one_json_object_with_the_file_s_keys() {
        let text: String = pieces(&fixture::config()).collect();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["gateway"]["drain_timeout"], "30s");
        assert_eq!(value["gateway"]["cores"], json!([0, null]));
        assert_eq!(value["listener"][0]["max_head"], "16KiB");
        assert_eq!(value["route"][0]["match"]["path"], "/orders/*");
        assert_eq!(value["route"][0]["split"][1], json!({ "upstream": "local", "weight": 5 }));
        assert_eq!(value["route"][0]["retry"]["on"], json!(["connect", "reset", "timeout", "502"]));
        assert_eq!(value["route"][0]["retry"]["min_remaining"], "10%");
        assert_eq!(value["route"][1]["respond"]["status"], 200);
        assert_eq!(value["upstream"]["orders"]["health_check"]["interval"], "20ms");
        assert_eq!(value["upstream"]["local"]["endpoints"][0]["address"], "unix:/run/\"odd\".sock");
        assert!(value["access_log"].is_null());
    }

    /// A file in which every key that excludes another stands somewhere.
    const EVERYTHING: &str = r#"
[access_log]
fields = { agent = "{header.user-agent}", cache = "{response.x-cache}" }
[[listener]]
listen = "unix:/run/ringgate.sock"
http2 = { cleartext = true }
errors = [{ body = "{error}" }]
allow = { method = ["GET"], claim = { scope = "a" } }
deny = { client_ip = ["10.0.0.0/8"], claim = { scope = "a" } }
tls = { certificates = [{ chain = "/dir/a.pem", key = "/dir/a.key" }], client_auth = { ca = "/dir/a.pem" }, acme = { directory = "https://acme.example/", names = ["a.example"], cache = "/dir" } }
[[route]]
match = { path = "/a/*", header = { x-a = "1" }, query = { b = "2" }, cookie = { c = "3" } }
upstream = "app"
cors = { origins = ["https://a.example"] }
fault = { delay = { time = "1s" }, abort = {}, header = "x-fault" }
mirror = { upstream = "b" }
request_buffering = {}
compression = {}
bandwidth = { rate = "1MiB/s", upload_rate = "2MiB/s" }
strip_prefix = "/a"
request_headers = { set = { x-env = "prod" } }
query = { set = { a = "b" }, rename = { c = "d" } }
limit = [{ rate = "1/s", cost_header = "x-cost" }, { name = "plan", cost_header = "x-cost" }, { quota = "5/day" }, { concurrency = 3 }, "month", "few"]
timeout = { adaptive = true }
auth = ["api_key"]
allow = { group = ["partners"], claim = { scope = "a" } }
deny = { client_ip = ["10.0.0.0/8"], claim = { scope = "a" } }
[[route]]
match = { path = "/b/*" }
split = [{ upstream = "app", weight = 1 }, { upstream = "b", weight = 1 }]
rewrite = "/v2{rest}"
[[route]]
match = { path = "/c" }
respond = { body = "c" }
response_headers = { set = { x-d = "d" } }
[[route]]
match = { path = "/d" }
redirect = { to = "/e" }
[[guard]]
match = { path = "/g", header = { x-a = "1" }, query = { b = "2" }, cookie = { c = "3" } }
deny = true
[[guard]]
match = { path = "/h" }
respond = {}
[[guard]]
match = { path = "/i" }
redirect = { to = "/" }
[auth.api_key]
header = "x-api-key"
headers = { x-consumer = "{consumer}" }
[auth.fetched]
jwks = "https://issuer.example/jwks.json"
tls = { ca = "/dir/a.pem", certificate = { chain = "/dir/a.pem", key = "/dir/a.key" } }
algorithms = ["ES256"]
[auth.jwt]
key = { secret = "a-secret-of-at-least-32-bytes-of-which-nobody-knows" }
algorithms = ["HS256"]
[auth.gate]
forward = { upstream = "app", path = "/check" }
[auth.login]
basic = { realm = "orders" }
[auth.signed]
signature = {}
[consumer.acme]
signature = [{ keyid = "a", secret = "a-secret-of-at-least-32-bytes-of-which-nobody-knows" }]
mtls = [{ subject = "CN=a" }, { san = "DNS:a.example" }, { spki = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" }]
keys = [{ sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" }]
basic = { password = "$2b$04$abcdefghijklmnopqrstuu8c93m3H5k8kq4eGHwY7leIekIaHh5P6" }
[redis]
url = "rediss://127.0.0.1"
ca = "/dir/a.pem"
[limit.plan]
rate = "1/s"
shared = "redis"
per = ["consumer", "client_ip/24"]
tiers = { gold = { rate = "2/s" } }
[limit.month]
quota = "9/month"
per = "consumer"
tiers = { gold = { quota = "90/month" } }
[limit.few]
concurrency = 9
per = "group"
tiers = { gold = { concurrency = 90 } }
[upstream.app]
balance = "maglev"
endpoints = [{ address = "10.0.0.1:1" }]
health_check = { path = "/", headers = { x-check = "1" } }
sticky = { key = "0123456789abcdef" }
tls = { ca = "/dir/a.pem", certificate = { chain = "/dir/a.pem", key = "/dir/a.key" } }
[upstream.b]
endpoints = [{ address = "10.0.0.2:1" }]
"#;

    /// The keys of what is shown, with the tables that they stand in; names that users choose are `*`.
    fn shown_keys(value: &Value, at: &str, keys: &mut BTreeSet<String>) {
        match value {
            Value::Object(table) => {
                let chosen = [".upstream", ".limit"].contains(&at)
                    || [
                        ".set",
                        ".match.header",
                        ".match.query",
                        ".rename",
                        ".cookie",
                        ".headers",
                        ".consumer",
                        ".auth",
                        ".claim",
                        ".tiers",
                        ".access_log.fields",
                    ]
                    .iter()
                    .any(|table| at.ends_with(table));
                for (key, value) in table {
                    let at = if chosen { format!("{at}.*") } else { format!("{at}.{key}") };
                    shown_keys(value, &at, keys);
                    keys.insert(at);
                }
            }
            Value::Array(list) => list.iter().for_each(|value| shown_keys(value, at, keys)),
            _ => {}
        }
    }

    /// The same of the file's schema.
    fn schema_keys(schema: &Value, node: &Value, at: &str, keys: &mut BTreeSet<String>) {
        let target = |reference: &Value| {
            let name = reference.as_str().and_then(|text| text.strip_prefix("#/$defs/")).expect("a definition");
            &schema["$defs"][name]
        };
        let parts = node["anyOf"].as_array().into_iter().flatten().chain(node.get("items"));
        for part in parts.chain(node.get("$ref").map(target)) {
            schema_keys(schema, part, at, keys);
        }
        let named =
            node["properties"].as_object().into_iter().flatten().map(|(key, value)| (format!("{at}.{key}"), value));
        let chosen = node.get("additionalProperties").filter(|value| value.is_object());
        for (at, value) in named.chain(chosen.map(|value| (format!("{at}.*"), value))) {
            schema_keys(schema, value, &at, keys);
            keys.insert(at);
        }
    }

    #[test]
    fn every_key_of_the_file_is_shown_under_its_name_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (chain, key) = crate::tls::testing::pem(&["a.example"], crate::tls::testing::Algorithm::Ecdsa);
        std::fs::write(dir.path().join("a.pem"), chain).unwrap();
        std::fs::write(dir.path().join("a.key"), key).unwrap();
        let text = EVERYTHING.replace("/dir", dir.path().to_str().unwrap());
        let config = Arc::new(crate::config::parse(&text, "f").unwrap_or_else(|errors| panic!("{errors}")));
        let text: String = pieces(&config).collect();
        let (mut shown, mut wanted) = (BTreeSet::new(), BTreeSet::new());
        shown_keys(&serde_json::from_str(&text).unwrap(), "", &mut shown);
        let schema: Value = serde_json::from_str(&crate::config::schema()).unwrap();
        schema_keys(&schema, &schema, "", &mut wanted);
        // the other form of a value that is not shown
        wanted.retain(|key| {
            if key.starts_with(".defaults") || key.starts_with(".listener.defaults") {
                return false; // what they say is shown where it counts, in the routes
            }
            let forms = [
                ".*.file",
                ".key.file",
                ".secret.file",
                ".url.file",
                ".sentinel_password.file",
                ".claim.*.all",
                ".claim.*.exact",
                ".*.prefix",
                ".*.regex",
                ".*.not",
                ".*.present",
            ];
            !forms.iter().any(|form| key.ends_with(form)) || key == ".auth.*.key.file"
        });
        assert!(wanted.len() > 100 && wanted.contains(".upstream.*.health_check.path"), "{wanted:?}");
        assert_eq!(wanted.symmetric_difference(&shown).collect::<Vec<_>>(), Vec::<&String>::new());
    }

    #[test]
    fn values_of_headers_that_are_set_are_not_shown() {
        let secret = (HeaderName::from_static("authorization"), HeaderValue::from_static("Bearer s3cr3t"));
        let shown = header_rules(&HeaderRules { set: vec![secret.clone()], ..HeaderRules::default() });
        assert_eq!(shown, json!({ "set": { "authorization": "(hidden)" }, "remove": [] }));
        let probe = Probe::Http(HttpProbe { headers: vec![secret], ..HttpProbe::get("/", (200, 200)) });
        let shown = health_check(&fixture::health_check(probe));
        assert_eq!(shown["headers"], json!({ "authorization": "(hidden)" }));
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
