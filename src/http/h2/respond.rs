//! The head and the body of a response, as frames: what [`crate::http::encode`] and [`crate::http::body`] do for HTTP/1.1, by the same rules.
//!
//! Whoever passes a response on knows neither the stream's id nor what its windows allow. So these frames have the id 0 and any length, and
//! the connection puts in the one and cuts by the other ([`super::connection::Connection::push_headers`],
//! [`super::connection::Connection::push_data_head`]).
//!
//! There is no reason phrase, and nothing about the connection (RFC 9113 §8.2.2, §8.3.2).

use super::encoder::{push_field, push_field_from_within, push_status};
use super::frame::{END_HEADERS, END_STREAM, FRAME_HEAD_BYTES, FrameHead, Kind as FrameKind, push_head};
use crate::config::{HeaderRules, ServerField};
use crate::http::encode::{DownstreamResponse, passes_down};
use crate::http::fields::{Field, Fields, Kind};
use crate::http::framing::Framing;
use crate::http::headers::{is_configurable, is_empty, overrides};
use crate::http::response::ResponseHead;
use crate::http::text::{push_number, trim};
use crate::http::websocket;
use http::StatusCode;
use std::ops::Range;

/// Appends the head of a final response, and returns how its body is sent: [`Framing::Streamed`], or not at all.
pub fn response(out: &mut Vec<u8>, response: &DownstreamResponse<'_>) -> Framing {
    let (head, rules) = (response.head, response.rules);
    let framing = head.framing().for_downstream(response.version);
    out.reserve(head.head_bytes() + 256);
    let start = begin(out);
    push_status(out, head.status());
    // a body that can have trailers is one that comes in chunks
    copy(out, &head.fields(), rules, |kind| passes_down(kind, head.framing(), response.server));
    if let ServerField::Set(value) = response.server
        && !overrides(rules, b"server")
    {
        push_field(out, b"server", value.as_bytes(), false);
    }
    if head.fields().of(Kind::Date).next().is_none() && !overrides(rules, b"date") {
        push_field(out, b"date", response.date, false);
    }
    push_lines(out, response.lines);
    push_set(out, rules);
    let length = match (head.framing(), head.content_length()) {
        // a call that is over with its head: the end of the stream says it, as it did where this came from
        (_, Some(0)) if head.fields().get("grpc-status").is_some() => None,
        // HEAD and 304 tell the length of a body that is not there (RFC 9110 §8.6); 204 must not
        (Framing::None, Some(bytes)) if head.status() != StatusCode::NO_CONTENT && !response.is_recoded => Some(bytes),
        (Framing::Fixed(bytes), _) if !response.is_recoded => Some(bytes),
        _ => None,
    };
    if let Some(bytes) = length {
        push_length(out, bytes);
    }
    end(out, start, framing.is_empty());
    framing
}

/// Appends an interim response (RFC 9110 §15.2); never a 101, which HTTP/2 does not have (RFC 9113 §8.6).
pub fn interim(out: &mut Vec<u8>, head: &ResponseHead<'_>, rules: &HeaderRules) {
    let start = begin(out);
    push_status(out, head.status());
    copy(out, &head.fields(), rules, |kind| passes_down(kind, Framing::None, &ServerField::Remove));
    end(out, start, false);
}

/// Appends what a 101 is to who has sent an extended CONNECT (RFC 8441 §5), and no end of the stream.
pub(in crate::http) fn switching(
    out: &mut Vec<u8>,
    head: &ResponseHead<'_>,
    (rules, lines): (&HeaderRules, &[u8]),
    server: &ServerField,
) {
    let start = begin(out);
    push_status(out, StatusCode::OK);
    for field in head.fields().table.iter().filter(|field| passes_down(field.kind, Framing::None, server)) {
        let name = field.name(head.fields().buf);
        if !overrides(rules, name) && !name.eq_ignore_ascii_case(websocket::ACCEPT.as_bytes()) {
            push_field(out, name, field.value(head.fields().buf), false);
        }
    }
    if let ServerField::Set(value) = server
        && !overrides(rules, b"server")
    {
        push_field(out, b"server", value.as_bytes(), false);
    }
    push_lines(out, lines);
    push_set(out, rules);
    end(out, start, false);
}

/// Appends `100 Continue`.
pub(in crate::http) fn go_on(out: &mut Vec<u8>) {
    let start = begin(out);
    push_status(out, StatusCode::CONTINUE);
    end(out, start, false);
}

/// Replaces the reply from `start` on, which the gateway has written itself as HTTP/1.1 has it, by frames that say the same.
pub(in crate::http) fn restate(out: &mut Vec<u8>, start: usize) {
    let text_end = out.len();
    let head_end = memchr::memmem::find(&out[start..], b"\r\n\r\n").map_or(text_end, |at| start + at + 4);
    let frame = begin(out);
    let mut at = start;
    while at + 2 < head_end {
        let end = at + memchr::memchr(b'\n', &out[at..head_end]).unwrap_or(head_end - at - 1);
        let line = &out[at..end - 1];
        if at == start {
            let code = line.get(9..12).and_then(|code| StatusCode::from_bytes(code).ok());
            push_status(out, code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
        } else if let Some(colon) = memchr::memchr(b':', line)
            && !line[..colon].eq_ignore_ascii_case(b"connection")
        {
            // it is written with one blank behind the colon
            push_field_from_within(out, at..at + colon, at + colon + 2..end - 1);
        }
        at = end + 1;
    }
    let body = head_end..text_end;
    end(out, frame, body.is_empty());
    if !body.is_empty() {
        push_data_head(out, body.len(), true);
        out.extend_from_within(body);
    }
    out.drain(start..text_end);
}

/// Frames the bytes `payload` of a block as one piece of a body, in place: [`FRAME_HEAD_BYTES`] before them are written over. `end` are the
/// [`crate::http::trailers::Trailers::lines`] of a body that is complete. Where the frames lie, which is nowhere for no payload that is not the end;
/// `None` if there is no room before it. What lay behind is gone.
pub fn frame_piece(bytes: &mut Vec<u8>, payload: Range<usize>, end: Option<&[u8]>) -> Option<Range<usize>> {
    if payload.is_empty() && end.is_none() {
        return Some(payload);
    }
    let is_last = end.is_some_and(<[u8]>::is_empty);
    let start = payload.start.checked_sub(FRAME_HEAD_BYTES)?;
    let flags = if is_last { END_STREAM } else { 0 };
    let head = FrameHead { len: payload.len(), kind: FrameKind::Data, flags, id: 0 };
    bytes[start..payload.start].copy_from_slice(&head.to_bytes());
    bytes.truncate(payload.end);
    if let Some(lines) = end.filter(|_| !is_last) {
        trailers(bytes, lines);
    }
    Some(start..bytes.len())
}

/// Appends the head of a DATA frame.
pub fn push_data_head(out: &mut Vec<u8>, bytes: usize, is_last: bool) {
    push_head(out, bytes, FrameKind::Data, if is_last { END_STREAM } else { 0 }, 0);
}

/// Appends trailers, which are lines of `name: value CRLF`, and the end of the stream.
pub fn trailers(out: &mut Vec<u8>, lines: &[u8]) {
    let start = begin(out);
    push_lines(out, lines);
    end(out, start, true);
}

fn push_lines(out: &mut Vec<u8>, lines: &[u8]) {
    for line in lines.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(colon) = memchr::memchr(b':', line) {
            push_field(out, &line[..colon], trim(&line[colon + 1..]), false);
        }
    }
}

/// Appends room for the head of a frame; where that is.
fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEAD_BYTES]);
    start
}

/// Writes the head of the HEADERS frame whose block ends here.
fn end(out: &mut [u8], start: usize, ends_stream: bool) {
    let len = out.len() - start - FRAME_HEAD_BYTES;
    let flags = END_HEADERS | if ends_stream { END_STREAM } else { 0 };
    let head = FrameHead { len, kind: FrameKind::Headers, flags, id: 0 };
    out[start..start + FRAME_HEAD_BYTES].copy_from_slice(&head.to_bytes());
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
    push_field(out, b"content-length", b"", false);
    // the empty value is one byte, its length, which comes before the digits
    let at = out.len() - 1;
    push_number(out, bytes);
    out[at] = (out.len() - at - 1) as u8;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Version;
    use crate::http::date;
    use crate::http::h2::decoder::Decoder;
    use crate::http::h2::section::{Bounds, Role, Section};
    use crate::http::reply::{self, Reply, ReplyTo};

    /// `HEADERS+END_STREAM …` and `DATA …`, one a line.
    fn read(mut bytes: &[u8]) -> String {
        let mut text = String::new();
        let mut decoder = Decoder::default();
        while let Some(head) = FrameHead::parse(bytes) {
            let payload = &bytes[FRAME_HEAD_BYTES..FRAME_HEAD_BYTES + head.len];
            bytes = &bytes[FRAME_HEAD_BYTES + head.len..];
            let said = match head.kind {
                FrameKind::Headers => {
                    let mut section = Section::default();
                    section.clear(if text.contains("Data") { Role::Trailers } else { Role::Response });
                    let bounds = Bounds { bytes_max: 1 << 16, fields_max: 100 };
                    decoder.decode(payload, &bounds, &mut section).unwrap();
                    assert_eq!(section.fault(), None);
                    String::from_utf8(section.lines().to_vec()).unwrap().replace("\r\n", "; ")
                }
                _ => String::from_utf8(payload.to_vec()).unwrap(),
            };
            text += &format!("{:?}{} {said}\n", head.kind, if head.has(END_STREAM) { "." } else { "" });
        }
        assert!(bytes.is_empty());
        text
    }

    #[test]
    fn own_replies_are_said_in_frames() {
        let to = ReplyTo {
            version: Version::Http2,
            head_only: false,
            close: true,
            date: &date::format(0),
            server: &ServerField::Remove,
            rules: None,
            lines: b"",
            call_type: None,
            errors: &[],
            id: b"",
        };
        let date = "date: Thu, 01 Jan 1970 00:00:00 GMT";
        let written = |write: &dyn Fn(&mut Vec<u8>, &ReplyTo<'_>), to| {
            let mut out = b"before".to_vec();
            write(&mut out, to);
            read(out.strip_prefix(b"before").unwrap())
        };
        let body = Reply {
            status: StatusCode::OK,
            content_type: Some(b"text/plain"),
            body: b"hello",
            extra: &[("X-Y", b"1")],
        };
        let head = format!(":status: 200; {date}; content-type: text/plain; x-y: 1; content-length: 5; ");
        assert_eq!(written(&|out, to| reply::reply(out, &body, to), &to), format!("Headers {head}\nData. hello\n"));
        let head_only = ReplyTo { head_only: true, ..to };
        assert_eq!(written(&|out, to| reply::reply(out, &body, to), &head_only), format!("Headers. {head}\n"));
        let asked = reply::Asked { scheme: "http", host: "a", path: "/", query: None };
        let said = written(&|out, to| reply::redirect(out, StatusCode::FOUND, "/a", asked, to), &to);
        assert_eq!(said, format!("Headers. :status: 302; {date}; location: /a; content-length: 0; \n"));
        let said = written(&|out, to| reply::error(out, crate::error::ProxyError::NoRoute, &[], to), &to);
        assert!(said.starts_with("Headers :status: 404; ") && said.ends_with("\"}\n\n"), "{said}");
        assert_eq!(written(&|out, _| reply::go_on(out, Version::Http2), &to), "Headers :status: 100; \n");
    }

    #[test]
    fn pieces_of_a_body_are_framed_where_they_lie() {
        let piece = |payload: &str, end: Option<&[u8]>| {
            let mut bytes = vec![b'?'; FRAME_HEAD_BYTES + 1];
            bytes.extend_from_slice(payload.as_bytes());
            let range = FRAME_HEAD_BYTES + 1..bytes.len();
            bytes.extend_from_slice(b"behind");
            let frames = frame_piece(&mut bytes, range, end).unwrap();
            read(&bytes[frames])
        };
        assert_eq!(piece("abc", None), "Data abc\n");
        assert_eq!(piece("abc", Some(b"")), "Data. abc\n");
        assert_eq!(piece("", None), "");
        assert_eq!(piece("", Some(b"")), "Data. \n");
        assert_eq!(piece("abc", Some(b"Grpc-Status: 0\r\nx:  y \r\n")), "Data abc\nHeaders. grpc-status: 0; x: y; \n");
        assert_eq!(frame_piece(&mut vec![0; 20], 8..20, None), None);
    }

    #[test]
    fn lengths_are_written_in_digits() {
        for bytes in [0, 7, 10, 1_024, u64::MAX] {
            let mut out = Vec::new();
            let start = begin(&mut out);
            push_status(&mut out, StatusCode::OK);
            push_length(&mut out, bytes);
            end(&mut out, start, true);
            assert_eq!(read(&out), format!("Headers. :status: 200; content-length: {bytes}; \n"));
        }
    }
}
