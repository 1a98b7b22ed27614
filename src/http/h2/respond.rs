//! The head of a response, as a header block: what [`crate::http::encode`] does for HTTP/1.1, by the same rules.
//!
//! There is no reason phrase, and nothing about the connection (RFC 9113 §8.2.2, §8.3.2).

use super::encoder::{push_field, push_status};
use crate::config::{HeaderRules, ServerField};
use crate::http::Version;
use crate::http::encode::{DownstreamResponse, passes_down};
use crate::http::fields::{Field, Fields, Kind};
use crate::http::framing::Framing;
use crate::http::headers::{is_configurable, is_empty, overrides};
use crate::http::response::ResponseHead;
use http::StatusCode;

/// Appends the block of a final response, and returns how its body is framed for whoever passes it on.
pub fn response(out: &mut Vec<u8>, response: &DownstreamResponse<'_>) -> Framing {
    let (head, rules) = (response.head, response.rules);
    let framing = head.framing().for_downstream(Version::Http2);
    out.reserve(head.head_bytes() + 256);
    push_status(out, head.status());
    copy(out, &head.fields(), rules, |kind| passes_down(kind, framing, response.server));
    if let ServerField::Set(value) = response.server
        && !overrides(rules, b"server")
    {
        push_field(out, b"server", value.as_bytes(), false);
    }
    if head.fields().of(Kind::Date).next().is_none() && !overrides(rules, b"date") {
        push_field(out, b"date", response.date, false);
    }
    for (name, value) in response.extra {
        push_field(out, name.as_bytes(), value, false);
    }
    push_set(out, rules);
    let length = match (framing, head.content_length()) {
        // HEAD and 304 tell the length of a body that is not there (RFC 9110 §8.6); 204 must not
        (Framing::None, Some(bytes)) if head.status() != StatusCode::NO_CONTENT => Some(bytes),
        (Framing::Fixed(bytes), _) => Some(bytes),
        _ => None,
    };
    if let Some(bytes) = length {
        push_length(out, bytes);
    }
    framing
}

/// Appends the block of an interim response (RFC 9110 §15.2); never of a 101, which HTTP/2 does not have (RFC 9113 §8.6).
pub fn interim(out: &mut Vec<u8>, head: &ResponseHead<'_>, rules: &HeaderRules) {
    push_status(out, head.status());
    copy(out, &head.fields(), rules, |kind| passes_down(kind, Framing::None, &ServerField::Remove));
}

/// Appends the block of `100 Continue`.
pub fn go_on(out: &mut Vec<u8>) {
    push_status(out, StatusCode::CONTINUE);
}

/// Appends the block of a reply that the gateway has written itself, as HTTP/1.1 has it.
pub fn own(out: &mut Vec<u8>, reply: &ResponseHead<'_>) {
    push_status(out, reply.status());
    for field in reply.fields().table.iter().filter(|field| !matches!(field.kind, Kind::Connection | Kind::Dropped)) {
        push_field(out, field.name(reply.fields().buf), field.value(reply.fields().buf), false);
    }
}

/// Appends the block of trailers, which are lines of `name: value CRLF`.
pub fn trailers(out: &mut Vec<u8>, lines: &[u8]) {
    for line in lines.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(colon) = memchr::memchr(b':', line) {
            push_field(out, &line[..colon], crate::http::text::trim(&line[colon + 1..]), false);
        }
    }
}

fn copy(out: &mut Vec<u8>, fields: &Fields<'_>, rules: &HeaderRules, passes: impl Fn(Kind) -> bool) {
    let has_rules = !is_empty(rules);
    let goes_on = |field: &&Field| passes(field.kind) && !(has_rules && overrides(rules, field.name(fields.buf)));
    for field in fields.table.iter().filter(goes_on) {
        push_field(out, field.name(fields.buf), field.value(fields.buf), false);
    }
}

fn push_set(out: &mut Vec<u8>, rules: &HeaderRules) {
    for (name, value) in &rules.set {
        if is_configurable(name.as_str()) && name != http::header::HOST {
            push_field(out, name.as_str().as_bytes(), value.as_bytes(), false);
        }
    }
}

fn push_length(out: &mut Vec<u8>, bytes: u64) {
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    let mut rest = bytes;
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    push_field(out, b"content-length", &digits[start..], false);
}
