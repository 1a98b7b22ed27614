//! What the gateway does for itself, as the file writes it: its log, and whom it asks for names.

use super::configuration::duration;
use crate::config::{AccessLog, LogFormat, LogPath, Resolver};
use serde_json::{Value, json};

pub(super) fn resolver(resolver: &Resolver) -> Value {
    let servers = resolver.servers.as_ref().map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>());
    json!({
        "servers": servers.map_or_else(|| "system".into(), Value::from),
        "min_ttl": duration(resolver.min_ttl),
        "max_ttl": duration(resolver.max_ttl),
        "timeout": duration(resolver.timeout),
        "max_stale": duration(resolver.max_stale),
    })
}

pub(super) fn access_log(log: &AccessLog) -> Value {
    let path = match &log.path {
        LogPath::Stdout => "stdout".to_owned(),
        LogPath::File(path) => path.display().to_string(),
    };
    let format = match log.format {
        LogFormat::Json => "json",
        LogFormat::Combined => "combined",
    };
    let fields: serde_json::Map<_, _> =
        log.fields.iter().map(|field| (field.name.clone(), field.value.to_string().into())).collect();
    json!({ "path": path, "format": format, "redact": log.redact, "fields": fields })
}
