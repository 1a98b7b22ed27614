//! A request on its way to an endpoint.

use super::{check_headers, gateway, is_empty_trailer_field};
use crate::feed::ways;
use crate::head::policy;
use crate::milo::{self, Message, Side};
use crate::{Knobs, is_field_value, is_token};
use http::{HeaderName, Method};
use ringgate::config::Rewrite;
use ringgate::http::Parsed;
use ringgate::http::body::{Body, push_piece};
use ringgate::http::encode::{self, UpstreamRequest};
use ringgate::http::fields::HeadScratch;
use ringgate::http::framing::Framing;
use ringgate::http::head::RequestHead;
use ringgate::http::headers::Forwarding;
use ringgate::http::trailers::Trailers;
use ringgate::limits::BLOCK_LARGE;
use ringgate::policy::router::{RequestView, Routed, RouterCache, Source, rewrite};
use ringgate::units::RouteId;

/// The default of `max_body`, near enough.
const BODY_BYTES_MAX: u64 = 1 << 20;

/// Knobs: 1–5 as for [`crate::head`], 6 a trusted peer, 7 a client that waits to be told to continue.
pub(super) fn check(knobs: Knobs, bytes: &[u8]) {
    let mut scratch = HeadScratch::default();
    let policy = policy(knobs);
    let Ok(Parsed::Complete(head)) = RequestHead::parse(bytes, &policy, &mut scratch) else { return };
    let Some(route) = route(&head) else { return };
    let bytes_max = gateway().0.routes[route.index()].body_bytes_max.unwrap_or(BODY_BYTES_MAX);
    if head.path() == "*" || head.max_forwards() == Some(0) || head.framing().exceeds(bytes_max) {
        return; // the gateway answers
    }
    let path = upward(&head, route);
    let mut encoded = Vec::new();
    encode_head(&mut encoded, &head, route, &path, knobs);
    for ends in ways(&bytes[head.head_bytes()..]) {
        let mut sent = encoded.clone();
        let body = send_body(&mut sent, &bytes[head.head_bytes()..], &ends, head.framing(), bytes_max);
        check_sent(&head, route, &path, &sent, &body);
    }
}

fn route(head: &RequestHead<'_>) -> Option<RouteId> {
    let header = |name: &HeaderName, is: &mut dyn FnMut(&[u8]) -> bool| head.fields().get_all(name.as_str()).any(is);
    let view = RequestView {
        host: head.host(),
        path: head.path(),
        query: head.query(),
        method: head.method(),
        source: Source::default(),
        header: &header,
    };
    match gateway().1.route(&view, &mut RouterCache::new()) {
        Routed::Route(route) => Some(route),
        _ => None,
    }
}

fn upward(head: &RequestHead<'_>, route: RouteId) -> String {
    let rules = &gateway().0.routes[route.index()];
    let mut path = Vec::new();
    match rules.rewrite {
        Rewrite::None => path.extend_from_slice(head.path().as_bytes()),
        _ => rewrite(&rules.rewrite, &rules.matcher, head.path(), &mut path),
    }
    String::from_utf8(path).expect("visible ASCII")
}

fn encode_head(out: &mut Vec<u8>, head: &RequestHead<'_>, route: RouteId, path: &str, knobs: Knobs) {
    let forwarding = Forwarding {
        replaces: false,
        peer: Some([192, 0, 2, 1].into()),
        is_trusted: knobs.bit(6),
        scheme: "http",
        request_id: b"0123456789abcdef",
        identity: None,
        tells_certificate: false,
    };
    let request = UpstreamRequest {
        grpc_timeout: None,
        lines: b"",
        head,
        path,
        query: head.query(),
        framing: head.framing(),
        rules: &gateway().0.routes[route.index()].request_headers,
        forwarding: &forwarding,
        host_fallback: "app",
        expect_continue: knobs.bit(7) && head.expects_continue(),
        offer: head.upgrade(),
    };
    encode::request(out, &request);
}

/// What became of a body.
#[derive(Debug, Default)]
struct Sent {
    payload: Vec<u8>,
    trailers: Vec<u8>,
    done: bool,
}

fn send_body(out: &mut Vec<u8>, bytes: &[u8], ends: &[usize], framing: Framing, bytes_max: u64) -> Sent {
    let mut body = Body::new(framing, bytes_max);
    let (mut trailers, mut sent, mut start) =
        (Trailers::default(), Sent { done: body.is_done(), ..Sent::default() }, 0);
    for &end in ends {
        if sent.done {
            break; // the rest is the next request
        }
        let mut block = bytes[start..end].to_vec();
        let filled = 0..block.len();
        let Ok(decoded) = body.decode(&mut block, filled, &mut trailers) else { break };
        let payload = &block[decoded.payload];
        push_piece(out, framing, payload, decoded.done.then(|| trailers.lines()));
        sent.payload.extend_from_slice(payload);
        sent.done = decoded.done;
        start = end;
    }
    assert!(sent.payload.len() as u64 <= bytes_max && out.len() < BLOCK_LARGE);
    sent.trailers = trailers.lines().to_vec();
    sent
}

fn check_sent(head: &RequestHead<'_>, route: RouteId, path: &str, sent: &[u8], body: &Sent) {
    let shown = under_another_method(head, sent);
    let message = match milo::read(Side::Request, &shown, false) {
        Ok(message) => message,
        Err(refusal) => {
            let trailer: Vec<&[u8]> = head.fields().get_all("trailer").collect();
            let is_known = is_odd_target(&refusal.0, path, head.query()) || is_empty_trailer_field(&refusal, &trailer);
            assert!(is_known, "{refusal:?}: {}", sent.escape_ascii());
            return;
        }
    };
    if !body.done {
        assert!(!message.complete, "a cut request looks whole: {}", sent.escape_ascii());
        return;
    }
    assert!(message.complete, "it does not end: {}", sent.escape_ascii());
    assert_eq!(message.consumed, shown.len(), "something is behind it: {}", sent.escape_ascii());
    let query = head.query().map(|query| format!("?{query}")).unwrap_or_default();
    assert_eq!(message.target, format!("{path}{query}").into_bytes(), "{}", sent.escape_ascii());
    if shown == sent {
        assert_eq!(message.method, head.method().as_str().as_bytes());
    }
    assert_eq!(message.body, body.payload, "{}", sent.escape_ascii());
    check_fields(head, route, &message, sent);
    check_trailers(&message, &body.trailers);
}

/// milo refuses content in a GET and a HEAD, which RFC 9110 §9.3.1 leaves to the two sides, and a request line shorter than that of
/// `GET /`; it sees the same bytes under another name.
fn under_another_method(head: &RequestHead<'_>, sent: &[u8]) -> Vec<u8> {
    let method = head.method().as_str();
    if method.len() < 3 || (matches!(*head.method(), Method::GET | Method::HEAD) && !head.framing().is_empty()) {
        return [b"OTHER", &sent[method.len()..]].concat();
    }
    sent.to_vec()
}

/// Some visible characters are not RFC 3986's and in use all the same (`{}|"<>^` and the backtick; the backslash in a query).
fn is_odd_target(refusal: &str, path: &str, query: Option<&str>) -> bool {
    refusal == "Invalid URL character"
        && [path, query.unwrap_or_default()].iter().any(|text| text.contains(|c| "{}|\"<>^`\\".contains(c)))
}

fn check_fields(head: &RequestHead<'_>, route: RouteId, message: &Message, sent: &[u8]) {
    check_headers(message, sent);
    let ruled = gateway().0.routes[route.index()].name == "rules";
    let host = if ruled { "inner:8080" } else { head.authority().unwrap_or("app") };
    assert_eq!(message.values("host"), [host.as_bytes()], "{}", sent.escape_ascii());
    let (lengths, codings) = (message.values("content-length"), message.values("transfer-encoding"));
    match head.framing() {
        Framing::None => assert!(lengths.is_empty() && codings.is_empty()),
        Framing::Fixed(bytes) => assert!(codings.is_empty() && lengths == [bytes.to_string().as_bytes()]),
        Framing::Chunked => assert!(lengths.is_empty() && codings == [b"chunked"]),
        Framing::UntilClose | Framing::Streamed => panic!("a request cannot end so"),
    }
    let connection = message.values("connection").first().copied().unwrap_or_default();
    assert!([&b""[..], b"TE", b"upgrade", b"TE, upgrade"].contains(&connection), "{}", sent.escape_ascii());
    assert_eq!(message.values("upgrade"), head.upgrade().iter().map(|offer| offer.as_bytes()).collect::<Vec<_>>());
    assert!(message.values("te").iter().all(|value| *value == b"trailers"));
    assert!(message.values("x-request-id").len() == 1 && message.values("expect").len() <= 1);
    for (name, value) in &message.headers {
        assert!(is_token(name) && is_field_value(value), "{}", sent.escape_ascii());
    }
    check_nothing_is_made_up(head, message);
}

/// Every field is one that the client sent for the endpoint (not nominated by `Connection`, not dropped for its name) or the gateway's.
fn check_nothing_is_made_up(head: &RequestHead<'_>, message: &Message) {
    const OWN: &[&str] = &[
        "host",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-request-id",
        "via",
        "x-env",
        "max-forwards",
        "content-length",
        "transfer-encoding",
        "expect",
        "te",
        "upgrade",
        "connection",
    ];
    let fields = head.fields();
    for (name, value) in &message.headers {
        let name = str::from_utf8(name).expect("a token");
        let is_own = OWN.iter().any(|own| own.eq_ignore_ascii_case(name));
        assert!(is_own || fields.get_all(name).any(|sent| sent == value), "{name}: {}", value.escape_ascii());
    }
}

fn check_trailers(message: &Message, lines: &[u8]) {
    let again: Vec<u8> =
        message.trailers.iter().flat_map(|(name, value)| [name, &b": "[..], value, b"\r\n"].concat()).collect();
    assert_eq!(again, lines);
    for (name, _) in &message.trailers {
        let name = name.to_ascii_lowercase();
        let is_bad = |bad: &&[u8]| name == **bad || name.starts_with(b"content-") || name.starts_with(b"if-");
        assert!(![&b"host"[..], b"transfer-encoding", b"connection", b"authorization", b"cookie"].iter().any(is_bad));
    }
}
