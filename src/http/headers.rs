//! Which fields go on, which are cut, and what the gateway adds (RFC 9110 §7.6).
//!
//! Hop-by-hop fields end here; `Connection` can nominate more of them, but not those that are end-to-end by definition (see
//! [`crate::http::fields`], which marks them while it reads). Then the route's rules: removed first, then set. What the gateway says
//! about the client (`X-Forwarded-*`) is added to what a trusted proxy said, and replaces what anybody else said. `Via` is added
//! to requests, where RFC 9110 §7.6.3 demands it of a gateway, and not to responses, where it is optional.
//!
//! Copies are made by runs: neighbouring lines that go on unchanged are one move.

use super::Version;
use super::fields::{Fields, Kind, classify};
use super::head::RequestHead;
use super::text::push_address;
use crate::config::{HeaderRules, Underscores};
use crate::tls::Identity;
use std::net::IpAddr;

/// What the gateway calls itself in `Via` (RFC 9110 §7.6.3).
pub(super) const PSEUDONYM: &[u8] = b"ringgate";

/// What the gateway tells the endpoint about the client.
#[derive(Clone, Copy, Debug)]
pub struct Forwarding<'a> {
    /// The neighbour that the request came from; `None` on a unix socket, where `X-Forwarded-For` gets nothing appended. Where that is replaced: the
    /// client.
    pub peer: Option<IpAddr>,
    /// `X-Forwarded-For` names `peer` alone, whoever has sent one.
    pub replaces: bool,
    /// Whether the neighbour is one of the listener's `trusted_proxies`.
    pub is_trusted: bool,
    /// `http` or `https`: what the client spoke with this gateway.
    pub scheme: &'a str,
    /// The id for a request that brings none of its own (or an unfit one): visible ASCII.
    pub request_id: &'a [u8],
    /// Who the client is by its certificate, which the gateway has verified.
    pub identity: Option<&'a Identity>,
    /// The endpoint gets `X-Forwarded-Client-Cert` from the gateway, and from nobody else.
    pub tells_certificate: bool,
}

/// What Envoy calls it, which has made it known.
const CLIENT_CERTIFICATE: &[u8] = b"X-Forwarded-Client-Cert";

/// Whether a route's rules may name this field. Those that frame the message or manage the connection are the gateway's own, and
/// encoding ignores rules about them; `name` is in lower case.
#[must_use]
pub fn is_configurable(name: &str) -> bool {
    !matches!(
        name,
        "connection"
            | "content-length"
            | "expect"
            | "http2-settings"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Whether the rules say something about a field: then the original is not copied.
pub(super) fn overrides(rules: &HeaderRules, name: &[u8]) -> bool {
    // what the gateway says under a name nobody says beside it under one that services cannot tell from that
    let is = |rule: &http::HeaderName| is_same_variable(rule.as_str().as_bytes(), name);
    rules.remove.iter().any(is)
        || rules.set.iter().any(|(rule, _)| is(rule))
        || rules.templates.iter().any(|(rule, _)| is(rule))
        || rules.strip.iter().any(is)
}

/// Whether CGI and its heirs could take the two names for one: there `X_Consumer` is `X-Consumer` (RFC 3875 §4.1.18).
fn is_same_variable(name: &[u8], other: &[u8]) -> bool {
    let plain = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.len() == other.len() && name.iter().map(plain).eq(other.iter().map(plain))
}

pub(super) fn is_empty(rules: &HeaderRules) -> bool {
    rules.remove.is_empty() && rules.set.is_empty() && rules.templates.is_empty() && rules.strip.is_empty()
}

/// Appends the lines of `fields` whose kind passes and that the rules leave alone.
pub(super) fn copy(out: &mut Vec<u8>, fields: &Fields<'_>, rules: &HeaderRules, passes: impl Fn(Kind, &[u8]) -> bool) {
    let has_rules = !is_empty(rules);
    let buf = fields.buf;
    let mut run = 0..0;
    for field in fields.table {
        if !passes(field.kind, field.name(buf)) || (has_rules && overrides(rules, field.name(buf))) {
            continue;
        }
        if field.canonical && run.end == field.name_start as usize {
            run.end = field.line_end();
            continue;
        }
        out.extend_from_slice(&buf[run]);
        run = 0..0;
        if field.canonical {
            run = field.name_start as usize..field.line_end();
        } else {
            push(out, field.name(buf), field.value(buf));
        }
    }
    out.extend_from_slice(&buf[run]);
}

/// Appends what the rules set.
pub(super) fn push_set(out: &mut Vec<u8>, rules: &HeaderRules) {
    for (name, value) in &rules.set {
        if is_configurable(name.as_str()) && name != http::header::HOST {
            push(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
}

/// Whether a field is what the gateway itself says of the client's certificate.
pub(super) fn is_client_certificate(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(CLIENT_CERTIFICATE)
}

/// Appends a field whose name is known when this is compiled: `name` with the colon and the blank behind it.
#[inline(always)] // so that the name is written with two moves
pub(super) fn push_known<const N: usize>(out: &mut Vec<u8>, name: &[u8; N], value: &[u8]) {
    out.reserve(N + value.len() + 2);
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends one field.
pub fn push(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// A field as routes, limits and hashes see it: what is said about the client is what the endpoint will be told, so that nobody chooses a
/// route by an `X-Forwarded-*` of his own making. `peer_text` is [`Forwarding::peer`] in words.
#[must_use]
pub fn routed<'v>(
    head: &RequestHead<'v>,
    name: &str,
    forwarding: &Forwarding<'v>,
    peer_text: &'v [u8],
) -> Option<&'v [u8]> {
    let fields = head.fields();
    if name == "host" {
        return head.authority().map(str::as_bytes); // which HTTP/2 and a target in absolute form say elsewhere
    }
    let trusted = || fields.get(name).filter(|value| forwarding.is_trusted && !value.is_empty());
    match classify(name.as_bytes(), Underscores::Keep) {
        Kind::XForwardedFor => {
            trusted().filter(|_| !forwarding.replaces).or(Some(peer_text).filter(|text| !text.is_empty()))
        }
        Kind::XForwardedProto => trusted().or(Some(forwarding.scheme.as_bytes())),
        Kind::XForwardedHost => trusted().or(head.authority().map(str::as_bytes)),
        Kind::ForwardedOther if forwarding.tells_certificate && is_client_certificate(name.as_bytes()) => {
            forwarding.identity.map(|identity| identity.forwarded.as_bytes())
        }
        Kind::ForwardedOther => fields.get(name).filter(|_| forwarding.is_trusted),
        _ => fields.get(name),
    }
}

/// Whether a field is one that says something of the client, and of which [`routed`] makes one value of its own.
#[must_use]
pub fn is_forwarding(name: &str) -> bool {
    let kind = classify(name.as_bytes(), Underscores::Keep);
    matches!(kind, Kind::XForwardedFor | Kind::XForwardedProto | Kind::XForwardedHost | Kind::ForwardedOther)
}

/// Appends X-Forwarded-For, -Proto, -Host, X-Request-Id and Via, but for those that the rules name.
pub(super) fn push_forwarding(
    out: &mut Vec<u8>,
    head: &RequestHead<'_>,
    forwarding: &Forwarding<'_>,
    rules: &HeaderRules,
) {
    let wants = |name: &[u8]| is_empty(rules) || !overrides(rules, name);
    let fields = head.fields();
    if wants(b"X-Forwarded-For") {
        push_forwarded_for(out, &fields, forwarding);
    }
    let trusted = |kind| fields.of(kind).next().filter(|value| forwarding.is_trusted && !value.is_empty());
    if wants(b"X-Forwarded-Proto") {
        push_known(out, b"X-Forwarded-Proto: ", trusted(Kind::XForwardedProto).unwrap_or(forwarding.scheme.as_bytes()));
    }
    if let Some(host) = trusted(Kind::XForwardedHost).or(head.authority().map(str::as_bytes))
        && wants(b"X-Forwarded-Host")
    {
        push_known(out, b"X-Forwarded-Host: ", host);
    }
    if let Some(identity) = forwarding.identity.filter(|_| forwarding.tells_certificate)
        && wants(CLIENT_CERTIFICATE)
    {
        push(out, CLIENT_CERTIFICATE, identity.forwarded.as_bytes());
    }
    if wants(b"X-Request-Id") {
        push_known(out, b"X-Request-Id: ", head.request_id().unwrap_or(forwarding.request_id));
    }
    if wants(b"Via") {
        push_via(out, head.version());
    }
}

/// Appends the gateway's own `Via`, for a request that came in this version. A field of its own continues the list of those before it (RFC 9110
/// §7.6.3).
pub fn push_via(out: &mut Vec<u8>, version: Version) {
    out.extend_from_slice(match version {
        Version::Http10 => b"Via: 1.0 ",
        Version::Http11 => b"Via: 1.1 ",
        Version::Http2 => b"Via: 2.0 ",
    });
    out.extend_from_slice(PSEUDONYM);
    out.extend_from_slice(b"\r\n");
}

fn push_forwarded_for(out: &mut Vec<u8>, fields: &Fields<'_>, forwarding: &Forwarding<'_>) {
    let start = out.len();
    out.extend_from_slice(b"X-Forwarded-For: ");
    let empty = out.len();
    if forwarding.is_trusted && !forwarding.replaces {
        for value in fields.of(Kind::XForwardedFor).filter(|value| !value.is_empty()) {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
    }
    match forwarding.peer {
        Some(peer) => push_address(out, peer),
        None if out.len() > empty => out.truncate(out.len() - 2),
        None => return out.truncate(start),
    }
    out.extend_from_slice(b"\r\n");
}
