//! The seam from HTTP/2 to HTTP/1.1: what goes up for a head of HTTP/2 is one head of HTTP/1.1, the same one for any reader.
//!
//! The block is plain literals, so that bytes of the input are bytes of names and values; a smuggler's work would be to get one of them
//! read as something else behind the seam. Read by our own parser and by [`milo`], which knows nothing of ours.

use crate::Knobs;
use crate::milo::{self, Side};
use ringgate::config::{HeaderRules, Underscores};
use ringgate::http::Parsed;
use ringgate::http::encode::{self, UpstreamRequest};
use ringgate::http::fields::HeadScratch;
use ringgate::http::h2::decoder::Decoder;
use ringgate::http::h2::section::{Bounds, Role, Section};
use ringgate::http::head::{HeadPolicy, RequestHead};
use ringgate::http::headers::Forwarding;
use ringgate::http::kept::KeptHead;

/// Knobs: 0 the stream ends with its head; 1 underscores are kept; 2 usual pseudo-fields stand before the input's fields. Lines of the
/// input are fields, `name: value` apart at the first colon that is not the first byte.
pub fn check(input: &[u8]) {
    let Some((knobs, bytes)) = Knobs::split(input) else { return };
    let mut block = Vec::new();
    if knobs.bit(2) {
        for (name, value) in
            [(&b":method"[..], &b"POST"[..]), (b":scheme", b"http"), (b":path", b"/a"), (b":authority", b"a")]
        {
            push(&mut block, name, value);
        }
    }
    for line in bytes.split(|&byte| byte == b'\x1e') {
        let colon = line.iter().skip(1).position(|&byte| byte == b':').map_or(line.len(), |at| at + 1);
        let value = line.get(colon + 1..).unwrap_or_default();
        push(&mut block, &line[..colon], value.strip_prefix(b" ").unwrap_or(value));
    }
    let mut section = Section::default();
    section.clear(Role::Request);
    let bounds = Bounds { bytes_max: 16 << 10, fields_max: 100 };
    Decoder::default().decode(&block, &bounds, &mut section).expect("plain literals");
    if section.fault().is_some() {
        return;
    }
    let underscores = if knobs.bit(1) { Underscores::Keep } else { Underscores::Drop };
    let policy = HeadPolicy { underscores, ..HeadPolicy::default() };
    let mut kept = KeptHead::default();
    if kept.take(&mut section, knobs.bit(0), &policy).is_err() {
        return;
    }
    let lines = section.lines().to_vec();
    let head = kept.view(&lines);
    let mut sent = Vec::new();
    let forwarding = Forwarding {
        replaces: false,
        peer: None,
        is_trusted: false,
        scheme: "http",
        request_id: b"id",
        identity: None,
        tells_certificate: false,
    };
    encode::request(
        &mut sent,
        &UpstreamRequest {
            grpc_timeout: None,
            lines: b"",
            head: &head,
            path: head.path(),
            query: head.query(),
            framing: head.framing(),
            rules: &HeaderRules::default(),
            forwarding: &forwarding,
            host_fallback: "none",
            expect_continue: false,
            offer: None,
        },
    );
    check_sent(&head, &sent, &policy);
}

fn check_sent(head: &RequestHead<'_>, sent: &[u8], policy: &HeadPolicy) {
    let mut scratch = HeadScratch::default();
    let again = match RequestHead::parse(
        sent,
        &HeadPolicy { headers_max: 256, head_bytes_max: 64 << 10, ..*policy },
        &mut scratch,
    ) {
        Ok(Parsed::Complete(again)) => again,
        other => panic!("{other:?}: {}", sent.escape_ascii()),
    };
    assert_eq!(again.head_bytes(), sent.len(), "something stands behind it: {}", sent.escape_ascii());
    assert_eq!((again.method(), again.path(), again.query()), (head.method(), head.path(), head.query()));
    assert_eq!((again.host(), again.framing()), (head.host(), head.framing()), "{}", sent.escape_ascii());
    for name in ["connection", "te", "upgrade", "proxy-connection", "keep-alive"] {
        let values: Vec<_> = again.fields().get_all(name).collect();
        assert!(
            values.is_empty() || (head.accepts_trailers() && ["connection", "te"].contains(&name)),
            "{name}: {values:?}"
        );
    }
    let fields = head.fields().iter().filter(|(name, _)| name.starts_with(b"x-") && !name.starts_with(b"x-forwarded-"));
    for (name, value) in fields.filter(|(name, _)| *name != b"x-real-ip" && *name != b"x-request-id") {
        let name = std::str::from_utf8(name).expect("a token");
        assert!(again.fields().get_all(name).any(|other| other == value), "{name} is lost: {}", sent.escape_ascii());
    }
    let message = milo::read(Side::Request, sent, false);
    // it wants an element in a list that RFC 9110 §6.6.2 lets be empty
    let is_empty_trailer = |refusal: &milo::Refusal| refusal.0 == "Expected Trailer header value";
    assert!(message.as_ref().err().is_none_or(is_empty_trailer), "{message:?}: {}", sent.escape_ascii());
}

fn push(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0);
    for text in [name, value] {
        // lengths up to 127 + 2^14
        match text.len() {
            short @ 0..127 => block.push(short as u8),
            long => {
                let rest = long - 127;
                block.extend_from_slice(&[127, rest as u8 | 0x80, (rest >> 7) as u8 | 0x80, (rest >> 14) as u8 & 0x7f]);
            }
        }
        block.extend_from_slice(text);
    }
}
