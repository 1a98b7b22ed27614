//! A response on its way to a client.

use super::{check_headers, gateway, is_empty_trailer_field};
use crate::Knobs;
use crate::feed::ways;
use crate::milo::{self, Message, Side};
use http::Method;
use ringgate::config::{HeaderRules, ServerField};
use ringgate::http::body::{Body, CHUNK_HEADROOM, LAST_CHUNK, frame_piece};
use ringgate::http::date;
use ringgate::http::encode::{self, DownstreamResponse};
use ringgate::http::fields::HeadScratch;
use ringgate::http::framing::Framing;
use ringgate::http::response::ResponseHead;
use ringgate::http::trailers::Trailers;
use ringgate::http::{Parsed, Version};
use ringgate::limits::INTERIM_RESPONSES_MAX;

/// What the client is sent.
#[derive(Debug, Default)]
struct Sent {
    bytes: Vec<u8>,
    payload: Vec<u8>,
    /// All of it is there.
    done: bool,
}

/// Knobs: 1–2 the method, 3 a client of HTTP/1.0, 4 the connection is closed, 5 a route with rules, 6–7 what becomes of `Server`.
pub(super) fn check(knobs: Knobs, bytes: &[u8]) {
    let method = [Method::GET, Method::HEAD, Method::POST, Method::GET][knobs.number(1, 2)].clone();
    let routes = &gateway().0.routes;
    let with_rules = routes.iter().find(|route| (route.name == "rules") == knobs.bit(5)).expect("both kinds");
    let rules = &with_rules.response_headers;
    let mut rest = bytes;
    for _ in 0..=INTERIM_RESPONSES_MAX {
        let mut scratch = HeadScratch::default();
        let Ok(Parsed::Complete(head)) = ResponseHead::parse(rest, &method, &mut scratch) else { return };
        let behind = &rest[head.head_bytes()..];
        if !head.is_interim() {
            return check_final(knobs, &method, &head, behind, rules);
        }
        check_interim(&head, rules);
        rest = behind;
    }
}

fn check_interim(head: &ResponseHead<'_>, rules: &HeaderRules) {
    let mut sent = Vec::new();
    encode::interim(&mut sent, head, rules, ringgate::http::Version::Http11);
    let message = milo::read(Side::Response { bodiless: false }, &sent, false)
        .unwrap_or_else(|refusal| panic!("{refusal:?}: {}", sent.escape_ascii()));
    assert!(message.complete && message.consumed == sent.len(), "not one message: {}", sent.escape_ascii());
    assert_eq!(message.status, u32::from(head.status().as_u16()));
    assert!(message.values("content-length").is_empty() && message.values("transfer-encoding").is_empty());
    check_headers(&message, &sent);
}

fn check_final(knobs: Knobs, method: &Method, head: &ResponseHead<'_>, behind: &[u8], rules: &HeaderRules) {
    let version = if knobs.bit(3) { Version::Http10 } else { Version::Http11 };
    let server = match knobs.number(6, 2) {
        0 => ServerField::Remove,
        1 => ServerField::Set(http::HeaderValue::from_static("edge")),
        _ => ServerField::Pass,
    };
    let response = DownstreamResponse {
        is_recoded: false,
        head,
        version,
        close: knobs.bit(4),
        rules,
        server: &server,
        lines: b"RateLimit: \"a\";r=1\r\n",
        date: &date::format(784_111_777),
    };
    let mut start = Vec::new();
    let framing = encode::response(&mut start, &response);
    for ends in ways(behind) {
        // the end of the bytes is the end of the endpoint's stream
        let mut sent = Sent { bytes: start.clone(), ..Sent::default() };
        relay(&mut sent, head.framing(), framing, behind, &ends);
        check_sent(method, head, framing, knobs.bit(4), &sent);
    }
}

fn relay(sent: &mut Sent, from: Framing, to: Framing, behind: &[u8], ends: &[usize]) {
    let mut body = Body::new(from, u64::MAX);
    let (mut trailers, mut start) = (Trailers::default(), 0);
    sent.done = body.is_done();
    for &end in ends {
        if sent.done {
            break;
        }
        let mut block = vec![b'.'; CHUNK_HEADROOM];
        block.extend_from_slice(&behind[start..end]);
        let filled = CHUNK_HEADROOM..block.len();
        let Ok(decoded) = body.decode(&mut block, filled, &mut trailers) else { return };
        sent.done = decoded.done;
        sent.payload.extend_from_slice(&block[decoded.payload.clone()]);
        let piece = match to {
            Framing::Chunked => {
                let lines = decoded.done.then(|| trailers.lines());
                frame_piece(&mut block, decoded.payload, lines).expect("a block with room before its payload")
            }
            _ => decoded.payload,
        };
        sent.bytes.extend_from_slice(&block[piece]);
        start = end;
    }
    if !sent.done && body.on_eof().is_ok() {
        sent.done = true;
        if to == Framing::Chunked {
            sent.bytes.extend_from_slice(LAST_CHUNK);
        }
    }
}

fn check_sent(method: &Method, head: &ResponseHead<'_>, framing: Framing, close: bool, sent: &Sent) {
    let side = Side::Response { bodiless: method == Method::HEAD };
    // one that is cut closes the connection too, which is a whole body to a client that knows no other end
    let closes = close || framing == Framing::UntilClose;
    let bytes = &sent.bytes;
    let message = match milo::read(side, bytes, closes) {
        Ok(message) => message,
        Err(refusal) => {
            let trailer: Vec<&[u8]> = head.fields().get_all("trailer").collect();
            // RFC 9110 §15.3.6: a 205 may be told its length, which is 0; milo wants none
            let is_known = head.status().as_u16() == 205 || is_empty_trailer_field(&refusal, &trailer);
            assert!(is_known, "{refusal:?}: {}", bytes.escape_ascii());
            return;
        }
    };
    check_headers(&message, bytes);
    assert_eq!(message.status, u32::from(head.status().as_u16()), "{}", bytes.escape_ascii());
    if head.status().as_u16() == 205 {
        return; // milo takes no body of one, whatever its framing
    }
    if !sent.done {
        assert!(
            !message.complete || framing == Framing::UntilClose,
            "a cut response looks whole: {}",
            bytes.escape_ascii()
        );
        return;
    }
    assert!(message.complete, "it does not end: {}", bytes.escape_ascii());
    assert_eq!(message.consumed, bytes.len(), "something is behind it: {}", bytes.escape_ascii());
    assert_eq!(message.body, sent.payload, "{}", bytes.escape_ascii());
    check_fields(&message, method, head, framing, closes, bytes);
}

fn check_fields(
    message: &Message,
    method: &Method,
    head: &ResponseHead<'_>,
    framing: Framing,
    closes: bool,
    sent: &[u8],
) {
    let (lengths, codings) = (message.values("content-length"), message.values("transfer-encoding"));
    match framing {
        Framing::Fixed(bytes) => assert!(codings.is_empty() && lengths == [bytes.to_string().as_bytes()]),
        Framing::Chunked => assert!(lengths.is_empty() && codings == [b"chunked"]),
        Framing::UntilClose => assert!(lengths.is_empty() && codings.is_empty()),
        Framing::Streamed => panic!("nobody speaks HTTP/2 here"),
        Framing::None => {
            assert!(codings.is_empty() && message.body.is_empty());
            assert!(lengths.is_empty() || *method == Method::HEAD || head.status().as_u16() == 304);
        }
    }
    let options: Vec<&[u8]> = message
        .values("connection")
        .into_iter()
        .flat_map(|value| value.split(|&b| b == b','))
        .map(<[u8]>::trim_ascii)
        .collect();
    assert_eq!(options.contains(&&b"close"[..]), closes, "{}", sent.escape_ascii());
    assert!(!message.values("date").is_empty(), "{}", sent.escape_ascii());
    assert_eq!(message.values("ratelimit").last(), Some(&&b"\"a\";r=1"[..]));
    assert!(message.values("te").is_empty());
    // RFC 9110 §15.5.22: a 426 names the protocol that is required
    let names = !message.values("upgrade").is_empty();
    assert!(!names || head.status().as_u16() == 426, "{}", sent.escape_ascii());
    assert_eq!(names, options.contains(&&b"upgrade"[..]), "{}", sent.escape_ascii());
}
