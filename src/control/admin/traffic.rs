//! What upstreams and routes do with traffic beyond passing it on, as the file writes it.

use super::configuration::duration;
use crate::config::{Bandwidth, Compression, Config, Fault, Flow, Mirror, SameSite, Sticky, Traffic, bytes};
use crate::units::Ratio;
use serde_json::{Value, json};

/// `sticky` of an upstream.
pub(super) fn sticky(sticky: &Sticky) -> Value {
    json!({
        "cookie": sticky.cookie,
        "key": sticky.key.as_ref().map(|_| "(hidden)"),
        "path": sticky.path,
        "max_age": duration(sticky.max_age),
        "secure": sticky.secure,
        "http_only": sticky.http_only,
        "same_site": match sticky.same_site {
            SameSite::Strict => "strict",
            SameSite::Lax => "lax",
            SameSite::None => "none",
        },
    })
}

/// The keys of a route.
pub(super) fn of_route(traffic: &Traffic, config: &Config, shown: &mut Value) {
    shown["split_by"] = traffic.split_by.as_ref().map(ToString::to_string).into();
    shown["split_fallback"] = traffic.split_fallback.into();
    shown["rewrite_location"] = traffic.relocation.is_some().into();
    shown["fault"] = traffic.fault.as_ref().map(fault).into();
    let mirror = |mirror: &Mirror| {
        json!({
            "upstream": config.clusters[mirror.cluster.index()].name,
            "percent": percent(mirror.share),
            "max_body": bytes(mirror.body_bytes_max as u64),
            "timeout": duration(mirror.timeout),
        })
    };
    shown["mirror"] = traffic.mirror.as_ref().map(mirror).into();
    shown["timeout_from"] = if traffic.timeout_from_end { "request_end" } else { "request_start" }.into();
    let buffering = traffic.buffered_bytes_max.map(|max| json!({ "max": bytes(max as u64) }));
    shown["request_buffering"] = buffering.into();
    let compression = |it: &Compression| {
        json!({
            "codings": it.codings.iter().map(|coding| coding.as_str()).collect::<Vec<_>>(),
            "types": it.types.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "min_size": bytes(it.bytes_min),
            "max_size": bytes(it.bytes_max),
        })
    };
    shown["compression"] = traffic.compression.as_ref().map(compression).into();
    shown["bandwidth"] = traffic.bandwidth.as_deref().map(bandwidth).into();
}

fn bandwidth(it: &Bandwidth) -> Value {
    let rate = |flow: Option<Flow>| flow.map(|flow| format!("{}/s", bytes(flow.rate)));
    let mut bursts = [it.down, it.up].into_iter().flatten().map(|flow| flow.burst);
    // what follows from two rates is two bursts, and null
    let burst = bursts.next().filter(|burst| bursts.all(|other| other == *burst));
    json!({
        "rate": rate(it.down),
        "upload_rate": rate(it.up),
        "burst": burst.map(bytes),
        "per": it.per.to_string(),
    })
}

fn fault(fault: &Fault) -> Value {
    let delay = fault.delay.map(|(share, time)| json!({ "percent": percent(share), "time": duration(time) }));
    let abort = fault.abort.map(|(share, status)| json!({ "percent": percent(share), "status": status.as_u16() }));
    json!({ "delay": delay, "abort": abort, "header": fault.header.as_ref().map(|name| name.as_str()) })
}

fn percent(share: Ratio) -> f64 {
    (share.get() * 1e8).round() / 1e6
}
