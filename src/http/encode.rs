//! Heads rebuilt: what goes to the endpoint, and what goes back to the client.
//!
//! Nothing of the framing is copied. One request line with the path that was routed on, one `Host`, one Content-Length or
//! Transfer-Encoding made from the [`Framing`] that was decided, and fields that hold no byte which was not checked.
//!
//! Decided here: `Expect` is not forwarded unless the caller asks for it (then it must hold the body back until the endpoint
//! answers; else it answers [`super::reply::go_on`] itself before it reads the body). `Upgrade` is forwarded if the
//! caller passes the offer on (it must then be ready for a 101). `TE: trailers` always is, so
//! that endpoints may send trailers (RFC 9110 §10.1.4).

use super::Version;
use super::date::HttpDate;
use super::fields::Kind;
use super::framing::Framing;
use super::grpc;
use super::h2::respond;
use super::head::RequestHead;
use super::headers::{self, Forwarding, push};
use super::response::ResponseHead;
use super::text::push_number;
use super::upgrade::{self, Offer};
use crate::config::{HeaderRules, ServerField};
use http::StatusCode;
use std::time::Duration;

/// A request on its way up.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamRequest<'a> {
    /// What the client sent.
    pub head: &'a RequestHead<'a>,
    /// The path after the route's rewrite: visible ASCII, begins with `/` (or is `*`).
    pub path: &'a str,
    /// Behind `?`.
    pub query: Option<&'a str>,
    /// How the body is sent. The head's own framing, or `Fixed` when the whole body is at hand.
    pub framing: Framing,
    /// The route's rules. A rule that sets `Host` replaces it.
    pub rules: &'a HeaderRules,
    /// What the endpoint learns about the client.
    pub forwarding: &'a Forwarding<'a>,
    /// `Host` for a request that has none (HTTP/1.0): the endpoint's address.
    pub host_fallback: &'a str,
    /// Ask the endpoint for `100 Continue`.
    pub expect_continue: bool,
    /// The request is a call whose client waits so long from now: in place of what it has said itself.
    pub grpc_timeout: Option<Duration>,
    /// Offer it to change the protocol.
    pub offer: Option<Offer>,
    /// Whole lines that the gateway has made for this request: who sends it, and what rules make of it. Not checked: free of CR and LF but for
    /// their ends.
    pub lines: &'a [u8],
}

/// Appends the head.
pub fn request(out: &mut Vec<u8>, request: &UpstreamRequest<'_>) {
    let (head, rules) = (request.head, request.rules);
    out.reserve(head.head_bytes() + 512);
    out.extend_from_slice(head.method().as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(request.path.as_bytes());
    if let Some(query) = request.query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    // RFC 9112 §3.2: Host first
    let ruled = rules.set.iter().find(|(name, _)| name == http::header::HOST).map(|(_, value)| value.as_bytes());
    headers::push_known(out, b"Host: ", ruled.unwrap_or(head.authority().unwrap_or(request.host_fallback).as_bytes()));
    headers::copy(out, &head.fields(), rules, |kind, name| passes_up(kind, name, request));
    headers::push_forwarding(out, head, request.forwarding, rules);
    if let Some(left) = head.max_forwards()
        && !headers::overrides(rules, b"max-forwards")
    {
        out.extend_from_slice(b"Max-Forwards: ");
        push_number(out, left.saturating_sub(1));
        out.extend_from_slice(b"\r\n");
    }
    if let Some(time) = request.grpc_timeout
        && !headers::overrides(rules, grpc::TIMEOUT)
    {
        out.extend_from_slice(b"grpc-timeout: ");
        grpc::push_timeout(out, time);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(request.lines);
    headers::push_set(out, rules);
    push_framing(out, request.framing);
    if request.expect_continue {
        out.extend_from_slice(b"Expect: 100-continue\r\n");
    }
    push_hop(out, request);
    out.extend_from_slice(b"\r\n");
}

/// What is said to the endpoint alone, and so nominated by `Connection` (RFC 9110 §7.6.1).
fn push_hop(out: &mut Vec<u8>, request: &UpstreamRequest<'_>) {
    let trailers = request.head.accepts_trailers();
    if trailers {
        out.extend_from_slice(b"TE: trailers\r\n");
    }
    if let Some(offer) = request.offer {
        push(out, b"Upgrade", offer.as_bytes());
    }
    match (trailers, request.offer.is_some()) {
        (true, true) => out.extend_from_slice(b"Connection: TE, upgrade\r\n"),
        (true, false) => out.extend_from_slice(b"Connection: TE\r\n"),
        (false, true) => out.extend_from_slice(b"Connection: upgrade\r\n"),
        (false, false) => {}
    }
}

fn passes_up(kind: Kind, name: &[u8], request: &UpstreamRequest<'_>) -> bool {
    match kind {
        Kind::Other if request.grpc_timeout.is_some() => !name.eq_ignore_ascii_case(grpc::TIMEOUT),
        Kind::Other | Kind::EndToEnd | Kind::Via | Kind::Server | Kind::Date | Kind::RetryAfter => true,
        Kind::Trailer => request.framing == Framing::Chunked,
        Kind::ForwardedOther => {
            let is_ours = request.forwarding.tells_certificate && headers::is_client_certificate(name);
            request.forwarding.is_trusted && !is_ours
        }
        Kind::MaxForwards => request.head.max_forwards().is_none(),
        _ => false,
    }
}

/// A response on its way down.
#[derive(Clone, Copy, Debug)]
pub struct DownstreamResponse<'a> {
    /// What the endpoint sent.
    pub head: &'a ResponseHead<'a>,
    /// The version of the request.
    pub version: Version,
    /// Whether the connection to the client is closed after this response ([`crate::http::cycle`] knows).
    pub close: bool,
    /// The route's rules.
    pub rules: &'a HeaderRules,
    /// Its body, if it has one, is sent in another coding, of which nobody knows the length yet. Not to a client of HTTP/1.0.
    pub is_recoded: bool,
    /// The listener's `Server`; a rule about it wins.
    pub server: &'a ServerField,
    /// Whole lines that the gateway has made for this response: what pages of other origins may do, and what rules make of the request. Not
    /// checked: free of CR and LF but for their ends.
    pub lines: &'a [u8],
    /// For a response without `Date` (RFC 9110 §6.6.1).
    pub date: &'a HttpDate,
}

/// Appends the head of a final response, and returns how its body must be sent: [`Framing::for_downstream`] of the endpoint's.
/// `UntilClose` says `Connection: close` whatever `close` is. To a client of HTTP/2 it is a frame ([`super::h2::respond`]).
pub fn response(out: &mut Vec<u8>, response: &DownstreamResponse<'_>) -> Framing {
    if response.version == Version::Http2 {
        return respond::response(out, response);
    }
    let head = response.head;
    let framing = match response.is_recoded && head.framing() != Framing::None {
        true => Framing::Chunked,
        false => head.framing().for_downstream(response.version),
    };
    out.reserve(head.head_bytes() + 256);
    push_status_line(out, head);
    // RFC 9110 §15.5.22: a 426 names the protocol that is required
    let requires = head.status() == StatusCode::UPGRADE_REQUIRED && {
        let mut required = head.fields().of(Kind::Upgrade);
        required.next().is_some_and(upgrade::is_list) && required.next().is_none()
    };
    headers::copy(out, &head.fields(), response.rules, |kind, _| {
        passes_down(kind, framing, response.server) || (requires && kind == Kind::Upgrade)
    });
    push_server(out, response.server, response.rules);
    if head.fields().of(Kind::Date).next().is_none() && !headers::overrides(response.rules, b"date") {
        push(out, b"Date", response.date);
    }
    out.extend_from_slice(response.lines);
    headers::push_set(out, response.rules);
    match (framing, head.content_length()) {
        // HEAD and 304 tell the length of a body that is not there (RFC 9110 §8.6); 204 must not
        (Framing::None, Some(bytes)) if head.status() != StatusCode::NO_CONTENT && !response.is_recoded => {
            push_framing(out, Framing::Fixed(bytes))
        }
        _ => push_framing(out, framing),
    }
    let close = response.close || framing == Framing::UntilClose;
    match (requires, close, response.version) {
        (false, ..) => push_connection(out, response.version, close),
        (true, true, _) => out.extend_from_slice(b"Connection: close, upgrade\r\n"),
        (true, false, Version::Http10) => out.extend_from_slice(b"Connection: keep-alive, upgrade\r\n"),
        (true, false, Version::Http11 | Version::Http2) => out.extend_from_slice(b"Connection: upgrade\r\n"),
    }
    out.extend_from_slice(b"\r\n");
    framing
}

fn push_server(out: &mut Vec<u8>, server: &ServerField, rules: &HeaderRules) {
    if let ServerField::Set(value) = server
        && !headers::overrides(rules, b"server")
    {
        push(out, b"Server", value.as_bytes());
    }
}

/// Appends an interim response (1xx), which only HTTP/1.1 clients may be sent (RFC 9110 §15.2). `Server` stays behind: it is for the
/// final response to say.
pub fn interim(out: &mut Vec<u8>, head: &ResponseHead<'_>, rules: &HeaderRules, version: Version) {
    if version == Version::Http2 {
        return respond::interim(out, head, rules);
    }
    push_status_line(out, head);
    headers::copy(out, &head.fields(), rules, |kind, _| passes_down(kind, Framing::None, &ServerField::Remove));
    out.extend_from_slice(b"\r\n");
}

/// Appends a 101, the last head on a connection that becomes a tunnel, or what that is to a client of HTTP/2; `lines` are as those of a
/// [`DownstreamResponse`].
pub fn switching(
    out: &mut Vec<u8>,
    head: &ResponseHead<'_>,
    (rules, lines): (&HeaderRules, &[u8]),
    server: &ServerField,
    version: Version,
) {
    if version == Version::Http2 {
        return respond::switching(out, head, (rules, lines), server);
    }
    push_status_line(out, head);
    headers::copy(out, &head.fields(), rules, |kind, _| passes_down(kind, Framing::None, server));
    push_server(out, server, rules);
    out.extend_from_slice(lines);
    headers::push_set(out, rules);
    push(out, b"Upgrade", head.upgrade().unwrap_or_default());
    out.extend_from_slice(b"Connection: upgrade\r\n\r\n");
}

pub(super) fn passes_down(kind: Kind, framing: Framing, server: &ServerField) -> bool {
    match kind {
        Kind::Server => *server == ServerField::Pass,
        Kind::Dropped | Kind::ContentLength | Kind::TransferEncoding => false,
        Kind::Refused | Kind::Connection | Kind::KeepAlive | Kind::Te | Kind::Upgrade => false,
        Kind::Trailer => framing == Framing::Chunked,
        _ => true,
    }
}

fn push_status_line(out: &mut Vec<u8>, head: &ResponseHead<'_>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status().as_str().as_bytes());
    out.push(b' '); // RFC 9112 §4: also before an empty reason
    let reason = match head.reason() {
        "" => head.status().canonical_reason().unwrap_or_default(),
        reason => reason,
    };
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The one canonical framing (RFC 9112 §6.1, §6.2).
pub(super) fn push_framing(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::None | Framing::UntilClose | Framing::Streamed => {}
        Framing::Fixed(bytes) => {
            out.extend_from_slice(b"Content-Length: ");
            push_number(out, bytes);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
}

/// What the client must be told about the connection (RFC 9112 §9.3): only what its version does not assume.
pub(super) fn push_connection(out: &mut Vec<u8>, version: Version, close: bool) {
    match (version, close) {
        (_, true) => out.extend_from_slice(b"Connection: close\r\n"),
        (Version::Http10, false) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        (Version::Http11 | Version::Http2, false) => {}
    }
}
