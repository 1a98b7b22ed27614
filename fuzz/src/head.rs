//! Heads of requests and responses: one answer however they arrive, and nothing in what is taken that could end a line.

use crate::feed::ways;
use crate::{Knobs, is_field_value, is_token, is_visible};
use http::Method;
use ringgate::config::Underscores;
use ringgate::error::ProxyError;
use ringgate::http::fields::{Fields, HeadScratch};
use ringgate::http::framing::Framing;
use ringgate::http::glimpse::Glimpse;
use ringgate::http::head::{HeadPolicy, RequestHead};
use ringgate::http::path::{EmptySegments, EncodedSeparators};
use ringgate::http::response::ResponseHead;
use ringgate::http::scan::HeadScanner;
use ringgate::http::{Parsed, Version};
use ringgate::limits;
use std::net::{IpAddr, Ipv4Addr};

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// All that a caller can see of a head, and its length; `None` while it is not all there.
type Seen = Result<Option<(String, usize)>, ProxyError>;

/// Knobs: 0 request or response; then for requests 1–2 underscores, 3 separators, 4 a small limit of bytes, 5 of headers, 6 empty segments;
/// for responses
/// 1–2 the method.
pub fn check(input: &[u8]) {
    let Some((knobs, bytes)) = Knobs::split(input) else { return };
    if knobs.bit(0) {
        let method = [Method::GET, Method::HEAD, Method::POST, Method::OPTIONS][knobs.number(1, 2)].clone();
        let seen =
            every_way(bytes, limits::RESPONSE_HEAD_BYTES_MAX, |buf, scratch| see_response(buf, &method, scratch));
        if let Ok(Some((_, len))) = seen {
            check_response(&bytes[..len], &method);
        }
    } else {
        let policy = policy(knobs);
        let seen = every_way(bytes, policy.head_bytes_max, |buf, scratch| see_request(buf, &policy, scratch));
        if let Ok(Some((_, len))) = seen {
            check_request(&bytes[..len], &policy);
        }
    }
}

/// What the knobs say about a listener.
pub(crate) fn policy(knobs: Knobs) -> HeadPolicy {
    let usual = HeadPolicy::default();
    HeadPolicy {
        underscores: [Underscores::Drop, Underscores::Keep, Underscores::Reject, Underscores::Drop][knobs.number(1, 2)],
        separators: if knobs.bit(3) { EncodedSeparators::Keep } else { EncodedSeparators::Refuse },
        empty: if knobs.bit(6) { EmptySegments::Merge } else { EmptySegments::Keep },
        head_bytes_max: if knobs.bit(4) { 128 } else { usual.head_bytes_max },
        headers_max: if knobs.bit(5) { 4 } else { usual.headers_max },
    }
}

/// What comes of the bytes, which must be the same for each way of their arrival.
fn every_way(bytes: &[u8], bytes_max: usize, see: impl Fn(&[u8], &mut HeadScratch) -> Seen) -> Seen {
    let whole = see(bytes, &mut HeadScratch::default());
    let mut used = HeadScratch::default();
    let _ = see(b"GET /%41/../b HTTP/1.1\r\nHost: EXAMPLE\r\nX: y\r\n\r\n", &mut used);
    assert_eq!(see(bytes, &mut used), whole, "a scratch remembers");
    if let Ok(Some((_, len))) = whole {
        assert!(len <= bytes.len() && len <= bytes_max, "a head of {len} bytes");
        assert_eq!(see(&bytes[..len], &mut used), whole, "what follows the head matters");
        assert_eq!(see(&bytes[..len - 1], &mut used), Ok(None), "a head ends before its empty line");
    }
    for ends in ways(bytes) {
        let seen = arrive(bytes, &ends, |buf| see(buf, &mut used)).unwrap_or_else(|| {
            assert!(!matches!(whole, Ok(Some(_))), "a head that is all there is not looked at, in pieces {ends:?}");
            whole.clone() // looked at once more when a deadline comes
        });
        // beyond the limit the head is refused in any case, but for what depends on how much of it is looked at
        let both_refused = bytes.len() > bytes_max && seen.is_err() && whole.is_err();
        assert!(both_refused || seen == whole, "{seen:?} in pieces {ends:?}, {whole:?} in one");
    }
    whole
}

/// What comes of the pieces, if the scanner lets them be parsed.
fn arrive(bytes: &[u8], ends: &[usize], mut see: impl FnMut(&[u8]) -> Seen) -> Option<Seen> {
    let mut scanner = HeadScanner::default();
    for &end in ends {
        if scanner.is_ready(&bytes[..end]) {
            let seen = see(&bytes[..end]);
            if seen != Ok(None) {
                return Some(seen);
            }
        }
    }
    None
}

fn see_request(buf: &[u8], policy: &HeadPolicy, scratch: &mut HeadScratch) -> Seen {
    Ok(match RequestHead::parse(buf, policy, scratch)? {
        Parsed::Partial => None,
        Parsed::Complete(head) => Some((
            format!(
                "{} {:?} {} {} {} {:?} {:?} {:?} {:?} {} {} {:?} {} {:?} {:?} {} {} {}",
                head.method(),
                head.version(),
                head.target(),
                head.path(),
                head.routed_path(),
                head.query(),
                head.host(),
                head.authority(),
                head.framing(),
                head.is_persistent(),
                head.expects_continue(),
                head.upgrade(),
                head.accepts_trailers(),
                head.request_id(),
                head.max_forwards(),
                head.rounds(),
                head.client(PEER, |_| true),
                lines(&head.fields()),
            ),
            head.head_bytes(),
        )),
    })
}

fn see_response(buf: &[u8], method: &Method, scratch: &mut HeadScratch) -> Seen {
    Ok(match ResponseHead::parse(buf, method, scratch)? {
        Parsed::Partial => None,
        Parsed::Complete(head) => Some((
            format!(
                "{} {:?} {:?} {:?} {:?} {} {:?} {:?} {}",
                head.status().as_str(),
                head.version(),
                head.reason(),
                head.framing(),
                head.content_length(),
                head.is_persistent(),
                head.idle_timeout(),
                head.retry_after(|| 784_111_777),
                lines(&head.fields()),
            ),
            head.head_bytes(),
        )),
    })
}

fn lines(fields: &Fields<'_>) -> String {
    fields.iter().map(|(name, value)| format!("{}: {}\n", name.escape_ascii(), value.escape_ascii())).collect()
}

fn check_request(bytes: &[u8], policy: &HeadPolicy) {
    let mut scratch = HeadScratch::default();
    let Ok(Parsed::Complete(head)) = RequestHead::parse(bytes, policy, &mut scratch) else { panic!("it was taken") };
    check_lines(bytes, &head.fields(), policy.headers_max);
    let method = head.method().as_str();
    assert!(is_token(method.as_bytes()) && method.len() <= limits::METHOD_BYTES_MAX);
    assert!(!matches!(method, "TRACE" | "CONNECT"), "{method}");
    let (path, query) = (head.path(), head.query().unwrap_or_default());
    assert!(path.starts_with('/') || (path == "*" && method == "OPTIONS"), "{path}");
    assert!(is_visible(path) && !path.contains(['?', '#', '\\']), "{path}");
    let routed = head.routed_path();
    assert!(!routed.contains("//") && (path.contains("//") || routed == path), "{routed} for {path}");
    assert!(is_visible(query) && !query.contains('#'), "{query}");
    assert!(is_visible(head.target()) && path.len() <= head.target().len().max(1));
    assert_eq!(head.host().is_some(), head.authority().is_some());
    assert!(head.host().is_some() || head.version() == Version::Http10, "1.1 without a host");
    if let Some(host) = head.host() {
        let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._[]:".contains(&b);
        assert!(!host.is_empty() && host.bytes().all(is_name) && host.len() <= limits::HOST_BYTES_MAX, "{host}");
        assert!(head.authority().is_some_and(|text| text.to_ascii_lowercase().starts_with(host)), "{host}");
    }
    let hosts: Vec<&[u8]> = head.fields().get_all("host").collect();
    assert!(hosts.len() <= 1, "two hosts");
    assert!(head.target().contains("://") || hosts.first().copied() == head.authority().map(str::as_bytes));
    let framing = head.framing();
    assert!(framing != Framing::UntilClose && (framing, head.version()) != (Framing::Chunked, Version::Http10));
    assert!(!head.expects_continue() || (!framing.is_empty() && head.version() == Version::Http11));
    assert!(head.request_id().is_none_or(|id| id.iter().all(u8::is_ascii_graphic) && !id.is_empty()));
    if policy.underscores != Underscores::Keep {
        assert!(head.fields().iter().all(|(name, _)| !name.contains(&b'_')), "an underscore in a name");
    }
    if head.version() == Version::Http11 {
        assert_eq!(head.client(PEER, |_| false), PEER, "an untrusted peer is believed");
    }
    let glimpse = Glimpse::of(bytes);
    // minor versions above 1 are read as 1.1 (RFC 9110 §2.5)
    let minor = match head.version() {
        Version::Http10 => 0,
        Version::Http2 => panic!("a head of HTTP/1 only"),
        Version::Http11 => glimpse.version.map_or(1, |(_, minor)| minor.max(1)),
    };
    let wanted = Glimpse { method: method.as_bytes(), target: head.target().as_bytes(), version: Some((1, minor)) };
    assert_eq!(glimpse, wanted, "the log shows another request line");
}

fn check_response(bytes: &[u8], method: &Method) {
    let mut scratch = HeadScratch::default();
    let Ok(Parsed::Complete(head)) = ResponseHead::parse(bytes, method, &mut scratch) else { panic!("it was taken") };
    check_lines(bytes, &head.fields(), limits::RESPONSE_HEADERS_MAX);
    let status = head.status().as_u16();
    assert!((100..=599).contains(&status) && status != 101, "{status}");
    assert!(head.reason().bytes().all(|b| b == b'\t' || b == b' ' || b.is_ascii_graphic()), "{:?}", head.reason());
    assert!(head.retry_after(|| 784_111_777).is_none_or(|wait| wait <= limits::TIMEOUT_MAX));
    assert!(head.idle_timeout().is_none_or(|wait| wait <= limits::TIMEOUT_MAX));
    assert!(!head.is_persistent() || head.framing() != Framing::UntilClose);
    let has_no_body = *method == Method::HEAD || status < 200 || matches!(status, 204 | 304);
    assert_eq!(head.framing() == Framing::None, has_no_body, "{status} {method}");
    assert_eq!(head.is_interim(), status < 200);
    let may = (0..=bytes.len()).all(|end| ResponseHead::may_be_informational(&bytes[..end]));
    assert!(may || status >= 200, "the beginning of a 1xx looks like something else");
}

/// Of every head that is taken: lines end in CRLF and nothing else does, names are tokens, values hold no control byte.
fn check_lines(bytes: &[u8], fields: &Fields<'_>, headers_max: usize) {
    assert!(bytes.ends_with(b"\r\n\r\n"));
    for (at, &byte) in bytes.iter().enumerate() {
        assert!(byte != b'\n' || (at > 0 && bytes[at - 1] == b'\r'), "a bare LF at {at}");
        assert!(byte != b'\r' || bytes.get(at + 1) == Some(&b'\n'), "a bare CR at {at}");
        assert!(byte != 0 && byte != 0x7f, "a control byte at {at}");
    }
    let mut count = 0;
    for (name, value) in fields.iter() {
        assert!(is_token(name), "{}", name.escape_ascii());
        assert!(is_field_value(value), "{}: {}", name.escape_ascii(), value.escape_ascii());
        let known = fields.get(str::from_utf8(name).expect("a token"));
        assert!(known.is_some(), "{} is listed and not found", name.escape_ascii());
        count += 1;
    }
    assert!(count <= headers_max);
}
