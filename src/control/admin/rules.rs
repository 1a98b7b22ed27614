//! What routes ask of values, which pages may call them, and how often anybody may, as the file writes it.

use super::configuration::{HIDDEN, duration};
use crate::config::{AllowedHeaders, Cors, Limit, LimitKey, Measure, Redis, RedisPlace as Place, Test, Tier};
use serde_json::{Value, json};

/// What a value is to be, as the file writes it.
pub(super) fn test(test: &Test) -> Value {
    match test {
        Test::Is(text) => json!(text),
        Test::Not(text) => json!({ "not": text }),
        Test::Prefix(text) => json!({ "prefix": text }),
        Test::Regex(pattern) => json!({ "regex": pattern.as_str() }),
        Test::Present => json!({ "present": true }),
        Test::Absent => json!({ "present": false }),
    }
}

/// `cors` of a route.
pub(super) fn cors(cors: &Cors) -> Value {
    let listed = |text: &str| text.split(", ").filter(|name| !name.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    json!({
        "origins": cors.origins.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "methods": listed(&cors.methods),
        "headers": match &cors.headers {
            AllowedHeaders::Asked => vec!["*".to_owned()],
            AllowedHeaders::These(names) => listed(names),
        },
        "expose": listed(&cors.expose),
        "credentials": cors.credentials,
        "max_age": duration(cors.max_age),
    })
}

/// `[redis]`, without its password.
pub(super) fn redis(redis: &Redis) -> Value {
    let (master, password) = match &redis.place {
        Place::Sentinel { master, password } => (Some(master), password.as_ref()),
        Place::Server | Place::Cluster => (None, None),
    };
    let node = |(host, port): &(String, u16)| match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    json!({
        "url": redis.shown,
        "kind": redis.place.word(),
        "nodes": redis.nodes.iter().map(node).collect::<Vec<_>>(),
        "master": master,
        "sentinel_password": password.map(|_| HIDDEN),
        "ca": redis.ca.as_ref().map(|(path, _)| path.display().to_string()),
        "prefix": redis.prefix,
        "timeout": duration(redis.timeout),
        "on_failure": redis.on_failure.word(),
    })
}

/// `[limit.NAME]`.
pub(super) fn shared_limits(limits: &[Limit]) -> Value {
    let tier = |tier: &Tier| (tier.group.clone(), measure(tier.measure));
    let named = |limit: &Limit| {
        let mut shown = own_limit(limit, "gateway");
        if limit.is_shared {
            shown["shared"] = "redis".into();
        }
        shown["tiers"] = limit.tiers.iter().map(tier).collect::<serde_json::Map<_, _>>().into();
        Some((limit.name.as_deref()?.to_owned(), shown))
    };
    limits.iter().filter_map(named).collect::<serde_json::Map<_, _>>().into()
}

/// A limit of a route or a listener.
pub(super) fn limit(limit: &Limit) -> Value {
    let mut shown = match limit.name.as_deref() {
        Some(name) if limit.cost == 1 && limit.cost_header.is_none() => return Value::from(name),
        Some(name) => json!({ "name": name }),
        None => own_limit(limit, "route"),
    };
    shown["cost"] = limit.cost.into();
    if let Some(header) = &limit.cost_header {
        shown["cost_header"] = header.as_str().into();
    }
    shown
}

/// `all`: what counts everything together.
fn own_limit(limit: &Limit, all: &str) -> Value {
    let per = match &limit.per {
        LimitKey::Route => Value::from(all),
        LimitKey::Several(keys) => keys.iter().map(ToString::to_string).collect(),
        key => Value::from(key.to_string()),
    };
    let mut shown = measure(limit.measure);
    (shown["per"], shown["dry_run"]) = (per, limit.dry_run.into());
    shown
}

fn measure(measure: Measure) -> Value {
    match measure {
        Measure::Rate { rate, burst } => json!({ "rate": rate.to_string(), "burst": burst }),
        Measure::Quota { .. } => json!({ "quota": measure.to_string() }),
        Measure::Concurrency(most) => json!({ "concurrency": most }),
    }
}
