//! The upstreams of the file: what their keys must agree on.

use super::addresses::At;
use super::check::value;
use super::encryption;
use super::file;
use super::names::{Expect, Hash, Name};
use super::probe::ProbeHost;
use super::problem::Sink;
use super::read::{Map, Written};
use super::sticky;
use super::values::{BalanceWord, ProtocolWord, duration};
use super::{
    Balance, Cluster, Endpoint, GrpcProbe, HashKey, HealthCheck, HttpProbe, Lookup, Named, Outlier, Probe, Protocol,
    RetryBudget,
};
use crate::units::Weight;
use http::{HeaderName, HeaderValue, Method};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Statuses that pass a probe where the file does not say: what most checkers take (HAProxy's `http-check` default).
const EXPECT_DEFAULT: (u16, u16) = (200, 399);

/// Weight of an endpoint whose file does not say one; the same as in `endpoints`.
const FILE_WEIGHT: u32 = 100;

/// All upstreams, in file order.
pub(super) fn clusters<const MAX: usize>(
    map: &Written<Map<Name, file::Upstream, MAX>>,
    sink: &mut Sink<'_>,
) -> Option<Vec<Arc<Cluster>>> {
    let tables = &map.value.0;
    let made: Vec<_> =
        tables.iter().filter_map(|(name, table)| cluster(&name.value.0, &table.value, sink).map(Arc::new)).collect();
    (made.len() == tables.len()).then_some(made)
}

fn cluster(name: &str, table: &file::Upstream, sink: &mut Sink<'_>) -> Option<Cluster> {
    let balance = balance(table, sink);
    let endpoints = endpoints(table, sink);
    let health_check = table.health_check.as_ref().map(|check| health_check(&check.value, sink));
    let protocol = protocol(table, sink);
    let outlier = table.outlier.as_ref().and_then(|outlier| self::outlier(&outlier.value, sink));
    let tls = match &table.tls {
        None => Some(None),
        Some(tls) => encryption::client_side(&tls.value, sink).map(Some),
    };
    let sticky = match &table.sticky {
        None => Some(None),
        Some(sticky) => sticky::sticky(&sticky.value, sink).map(Some),
    };
    let budget = &table.retry_budget.as_ref()?.value;
    let (endpoints, names) = endpoints?;
    Some(Cluster {
        name: name.to_owned(),
        balance: balance?,
        protocol: protocol?,
        streams_max: u32::try_from(value(&table.max_streams)?.0).ok()?,
        connect_timeout: value(&table.connect_timeout)?.0,
        idle_timeout: value(&table.idle_timeout)?.0,
        idle_max: usize::try_from(value(&table.max_idle)?.0).ok()?,
        proxy_protocol: value(&table.proxy_protocol)?,
        requests_max: table.max_requests.as_ref().and_then(|max| u32::try_from(max.value.0).ok()),
        retry_budget: RetryBudget {
            ratio: value(&budget.ratio)?.0,
            min_per_second: u32::try_from(value(&budget.min_per_second)?.0).ok()?,
        },
        endpoints,
        names,
        health_check: health_check.map_or(Some(None), |check| check.map(Some))?,
        outlier: outlier?,
        retry_after_max: value(&table.retry_after_max)?.0,
        spill: value(&table.spill)?,
        sticky: sticky?,
        slow_start: value(&table.slow_start)?.0,
        tls: tls?,
    })
}

fn balance(table: &file::Upstream, sink: &mut Sink<'_>) -> Option<Balance> {
    let word = value(&table.balance)?;
    let key = value(&table.hash).map_or(HashKey::ClientIp, |Hash(key)| key);
    let balance = match word {
        BalanceWord::Random => Balance::Random,
        BalanceWord::RoundRobin => Balance::RoundRobin,
        BalanceWord::Weighted => Balance::Weighted,
        BalanceWord::LeastRequest => Balance::LeastRequest,
        BalanceWord::PeakEwma => Balance::PeakEwma,
        BalanceWord::RingHash => return Some(Balance::RingHash(key)),
        BalanceWord::Maglev => return Some(Balance::Maglev(key)),
    };
    if let Some(hash) = &table.hash {
        let message = "has no effect: only balance = \"ring_hash\" and \"maglev\" hash".to_owned();
        sink.value(table.at.key("hash"), hash.span.clone(), message, None);
    }
    Some(balance)
}

/// What is spoken. A connection that many requests share cannot begin with the name of one client.
fn protocol(table: &file::Upstream, sink: &mut Sink<'_>) -> Option<Protocol> {
    let protocol = match value(&table.protocol)? {
        ProtocolWord::Http1 => Protocol::Http1,
        ProtocolWord::Http2 => Protocol::Http2,
        ProtocolWord::Auto if table.tls.is_some() => Protocol::Negotiated,
        ProtocolWord::Auto => Protocol::Http1,
    };
    if let (Some(span), true) = (span_of_written(&table.proxy_protocol), protocol != Protocol::Http1) {
        let message =
            "names one client, and a connection of HTTP/2 is many clients'; leave it out, or protocol".to_owned();
        sink.value(table.at.key("proxy_protocol"), span, message, None);
    }
    let check = table.health_check.as_ref().map(|check| &check.value);
    if let (Some((check, call)), Protocol::Http1) =
        (check.and_then(|check| Some((check, check.grpc.as_ref()?))), protocol)
    {
        let message = "asks in HTTP/2, which this upstream does not speak; write protocol = \"h2\"".to_owned();
        sink.value(check.at.key("grpc"), call.span.clone(), message, None);
    }
    Some(protocol)
}

/// Where `proxy_protocol` stands, if it is not off.
fn span_of_written(key: &Option<Written<super::ProxyVersion>>) -> Option<Range<usize>> {
    key.as_ref().filter(|key| key.value != super::ProxyVersion::Off).map(|key| key.span.clone())
}

/// The addresses, and the names.
fn endpoints(table: &file::Upstream, sink: &mut Sink<'_>) -> Option<(Vec<Endpoint>, Vec<Named>)> {
    let list = match (&table.endpoints, &table.endpoints_file) {
        (Some(list), _) => list.value.0.as_slice(),
        (None, Some(_)) if !sink.reported(table.at.key("endpoints")) => &[],
        _ => {
            if !sink.reported(table.at.key("endpoints")) && !sink.reported(table.at.key("endpoints_file")) {
                let message =
                    "missing: an upstream has endpoints, or a file that says them (endpoints_file)".to_owned();
                sink.place(table.at.key("endpoints"), table.at.offset, message, None);
            }
            return None;
        }
    };
    let mut seen: HashMap<At, &super::place::Place> = HashMap::new();
    let (mut endpoints, mut names) = (Vec::with_capacity(list.len()), Vec::new());
    for written in list {
        let table = &written.value;
        let Some((key, at, span)) = place_of(table, sink) else { continue };
        if let Some(first) = seen.insert(at.clone(), &table.at) {
            let first = format!("{} ({})", first.path, sink.place_of(first.offset));
            let message = format!("{first} has this {key} too; give one of them a larger weight instead");
            sink.value(table.at.key(key), span, message, None);
        }
        let (Some(weight), Some(priority)) = (value(&table.weight), value(&table.priority)) else { continue };
        let (weight, priority) = (Weight(u32::try_from(weight.0).ok()?), u8::try_from(priority.0).ok()?);
        match at {
            At::Address(address) => endpoints.push(Endpoint { name: None, address, weight, priority }),
            At::Name(lookup) => names.push(Named { lookup, weight, priority }),
        }
    }
    let is_whole = endpoints.len() + names.len() == list.len();
    names.extend(table.endpoints_file.as_ref().map(|path| Named {
        lookup: Lookup::File(path.value.0.clone()),
        weight: Weight(FILE_WEIGHT),
        priority: 0,
    }));
    is_whole.then_some((endpoints, names))
}

/// Where an endpoint is said to be: by which key, and where that stands.
fn place_of(table: &file::Endpoint, sink: &mut Sink<'_>) -> Option<(&'static str, At, Range<usize>)> {
    if let (Some(weight), Some(_)) = (span_of(&table.weight), &table.srv) {
        let message = "has no effect: the records of a service have its weights".to_owned();
        sink.value(table.at.key("weight"), weight, message, None);
    }
    match (&table.address, &table.srv) {
        (Some(address), None) => Some(("address", address.value.clone(), address.span.clone())),
        (None, Some(srv)) => Some(("srv", At::Name(Lookup::Service(srv.value.0.clone())), srv.span.clone())),
        (Some(_), Some(srv)) => {
            let message = "an endpoint is an address or a service; leave address or srv out".to_owned();
            sink.value(table.at.key("srv"), srv.span.clone(), message, None);
            None
        }
        (None, None) => {
            if !sink.reported(table.at.key("address")) && !sink.reported(table.at.key("srv")) {
                let help =
                    "write address = \"10.0.0.1:8080\", or the name of a service: srv = \"_http._tcp.app.internal\"";
                let message = "missing: an endpoint has an address, or srv".to_owned();
                sink.place(table.at.key("address"), table.at.offset, message, Some(help.to_owned()));
            }
            None
        }
    }
}

fn health_check(table: &file::HealthCheck, sink: &mut Sink<'_>) -> Option<HealthCheck> {
    let tcp = table.tcp.as_ref().filter(|tcp| tcp.value);
    let call = table.grpc.as_ref().and_then(|call| Some((call.value.0.clone()?, &call.span)));
    let at = &table.at;
    let ways = [
        ("path", table.path.as_ref().map(|path| &path.span)),
        ("grpc", call.as_ref().map(|call| call.1)),
        ("tcp", tcp.map(|tcp| &tcp.span)),
    ];
    let mut ways = ways.into_iter().filter_map(|(key, span)| Some((key, span?)));
    match (ways.next(), ways.next()) {
        (Some((first, _)), Some((second, span))) => {
            let message = format!("a probe does one thing: leave {first} or {second} out");
            sink.value(at.key(second), span.clone(), message, None);
        }
        (None, _) if !sink.reported(at.key("path")) => {
            let help = "write path = \"/healthz\", grpc = true, or tcp = true to only connect".to_owned();
            sink.place(at.key("path"), at.offset, "missing: a probe asks for a path".to_owned(), Some(help));
        }
        _ => {}
    }
    let what = match (tcp, &call) {
        (Some(_), _) => Some("a probe that only connects asks nothing"),
        (None, Some(_)) => Some("a probe of gRPC asks for a service alone"),
        (None, None) => None,
    };
    if let Some(what) = what {
        nothing_asked(table, (what, tcp.is_some()), sink);
    }
    let probe = match call {
        _ if tcp.is_some() => Probe::Tcp,
        Some((service, _)) => Probe::Grpc(GrpcProbe { service, host: value(&table.host).map(|ProbeHost(host)| host) }),
        None => Probe::Http(http_probe(table, sink)?),
    };
    Some(HealthCheck {
        probe,
        interval: value(&table.interval)?.0,
        timeout: value(&table.timeout)?.0,
        rise: u32::try_from(value(&table.rise)?.0).ok()?,
        fall: u32::try_from(value(&table.fall)?.0).ok()?,
    })
}

/// Keys about a request and its response, where none of that kind is made.
fn nothing_asked(table: &file::HealthCheck, (why, is_silent): (&str, bool), sink: &mut Sink<'_>) {
    let given = [
        ("method", span_of(&table.method)),
        ("host", span_of(&table.host).filter(|_| is_silent)),
        ("headers", span_of(&table.headers)),
        ("expect", span_of(&table.expect)),
        ("body", span_of(&table.body)),
    ];
    for (key, span) in given.into_iter().filter_map(|(key, span)| Some((key, span?))) {
        sink.value(table.at.key(key), span, format!("has no effect: {why}"), None);
    }
}

/// Where a key stands, if the file has it.
fn span_of<T>(key: &Option<Written<T>>) -> Option<Range<usize>> {
    key.as_ref().filter(|key| key.given).map(|key| key.span.clone())
}

fn http_probe(table: &file::HealthCheck, sink: &mut Sink<'_>) -> Option<HttpProbe> {
    let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for (name, text) in table.headers.iter().flat_map(|map| &map.value.0) {
        if headers.iter().any(|(seen, _)| *seen == name.value.0) {
            sink.place(table.at.key("headers"), name.span.start, format!("{} stands there twice", name.value.0), None);
        }
        headers.push((name.value.0.clone(), text.value.0.clone()));
    }
    let method = value(&table.method)?.0;
    if let (Some(body), true) = (&table.body, method == Method::HEAD) {
        let message = "has no effect: the response to a HEAD has no body (RFC 9110 §9.3.2)".to_owned();
        sink.value(table.at.key("body"), body.span.clone(), message, None);
    }
    Some(HttpProbe {
        method,
        path: value(&table.path)?.0,
        host: value(&table.host).map(|ProbeHost(host)| host),
        headers,
        expect: value(&table.expect).map_or(EXPECT_DEFAULT, |Expect(low, high)| (low, high)),
        body: value(&table.body),
    })
}

/// `Some(None)` when it is switched off.
fn outlier(table: &file::Outlier, sink: &mut Sink<'_>) -> Option<Option<Outlier>> {
    let (first, longest) = (table.eject.as_ref()?, table.eject_max.as_ref()?);
    if first.value.0 > longest.value.0 {
        // one of the two may be a default: the report stands at one that was written
        let (key, span) = if longest.given { ("eject_max", &longest.span) } else { ("eject", &first.span) };
        let message =
            format!("eject ({}) is longer than eject_max ({})", duration(first.value.0), duration(longest.value.0));
        sink.value(table.at.key(key), span.clone(), message, None);
    }
    let outlier = Outlier {
        consecutive: u32::try_from(value(&table.consecutive)?.0).ok()?,
        min_success: value(&table.min_success)?.0,
        min_requests: u32::try_from(value(&table.min_requests)?.0).ok()?,
        window: value(&table.window)?.0,
        eject: first.value.0,
        eject_max: longest.value.0,
    };
    Some(value(&table.enabled)?.then_some(outlier))
}
