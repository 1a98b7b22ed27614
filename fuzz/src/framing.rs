//! Where a body ends, against the rules of RFC 9112 §6 written down a second time, and through whole heads.

use crate::{Knobs, elements, is_field_value, is_token};
use http::{Method, StatusCode};
use ringgate::error::ProxyError;
use ringgate::http::fields::HeadScratch;
use ringgate::http::framing::{Framing, LengthFields};
use ringgate::http::head::{HeadPolicy, RequestHead};
use ringgate::http::response::ResponseHead;
use ringgate::http::{Parsed, Version};

const STATUSES: [u16; 8] = [200, 204, 304, 100, 205, 500, 103, 206];
const METHODS: [Method; 4] = [Method::GET, Method::HEAD, Method::POST, Method::OPTIONS];

/// What the length fields of a message say, in order of their kind.
#[derive(Debug, Default)]
struct Said<'a> {
    lengths: Vec<&'a [u8]>,
    codings: Vec<&'a [u8]>,
}

/// Knobs: 0 the version, 1–3 the status, 4–5 the method. Then lines: `T` and a Transfer-Encoding, anything else and a Content-Length.
pub fn check(input: &[u8]) {
    let Some((knobs, bytes)) = Knobs::split(input) else { return };
    let version = if knobs.bit(0) { Version::Http10 } else { Version::Http11 };
    let status = StatusCode::from_u16(STATUSES[knobs.number(1, 3)]).expect("a status");
    let method = &METHODS[knobs.number(4, 2)];
    let (mut fields, mut said) = (LengthFields::default(), Said::default());
    let mut lines = Vec::new();
    for line in bytes.split(|&b| b == b'\n').take(8) {
        let Some((&kind, value)) = line.split_first() else { continue };
        if !is_field_value(value) {
            return; // never reaches the decision: the parser refuses or trims it
        }
        if kind == b'T' {
            fields.note_transfer_encoding(value);
            said.codings.push(value);
            lines.extend([b"Transfer-Encoding: ", value, b"\r\n"].concat());
        } else {
            fields.note_content_length(value);
            said.lengths.push(value);
            lines.extend([b"Content-Length: ", value, b"\r\n"].concat());
        }
    }
    let request = fields.request(version);
    assert_eq!(request, said.request(version), "{said:?} {version:?}");
    let response = fields.response(version, status, method);
    assert_eq!(response, said.response(version, status, method), "{said:?} {version:?} {status} {method}");
    assert_eq!(fields.content_length(), said.length().ok().flatten());
    check_heads(&lines, version, (status, method), (request, response.map(|(framing, _)| framing)));
    for framing in [request.unwrap_or(Framing::None), response.map_or(Framing::None, |(framing, _)| framing)] {
        check_downstream(framing);
    }
}

/// The same through the parsers of heads.
fn check_heads(
    lines: &[u8],
    version: Version,
    (status, method): (StatusCode, &Method),
    (request, response): (Result<Framing, ProxyError>, Result<Framing, ProxyError>),
) {
    let minor = if version == Version::Http10 { "0" } else { "1" };
    let mut scratch = HeadScratch::default();
    let head = [format!("POST / HTTP/1.{minor}\r\nHost: a\r\n").as_bytes(), lines, b"\r\n"].concat();
    let parsed = RequestHead::parse(&head, &HeadPolicy::default(), &mut scratch).map(|parsed| match parsed {
        Parsed::Complete(head) => head.framing(),
        Parsed::Partial => panic!("a whole head"),
    });
    assert_eq!(parsed, request, "{}", head.escape_ascii());
    let mut scratch = HeadScratch::default();
    let head = [format!("HTTP/1.{minor} {} X\r\n", status.as_str()).as_bytes(), lines, b"\r\n"].concat();
    let parsed = ResponseHead::parse(&head, method, &mut scratch).map(|parsed| match parsed {
        Parsed::Complete(head) => head.framing(),
        Parsed::Partial => panic!("a whole head"),
    });
    assert_eq!(parsed, response, "{}", head.escape_ascii());
}

/// A length stays a length; a body without one gets an end that its reader can see, if its version has one.
fn check_downstream(framing: Framing) {
    let (new, old) = (framing.for_downstream(Version::Http11), framing.for_downstream(Version::Http10));
    assert!(new != Framing::UntilClose && old != Framing::Chunked);
    if let Framing::Fixed(bytes) = framing {
        assert_eq!((new, old), (framing, framing));
        assert!(!framing.exceeds(bytes) && (bytes == 0 || framing.exceeds(bytes - 1)));
    }
    assert!(!framing.is_empty() || (new, old) == (framing, framing));
}

impl Said<'_> {
    /// RFC 9110 §8.6: one number, or the same one several times.
    fn length(&self) -> Result<Option<u64>, ()> {
        let mut numbers = self.lengths.iter().flat_map(|value| elements(value)).map(|text| {
            let digits = str::from_utf8(text).ok().filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit()));
            digits.and_then(|digits| digits.parse::<i64>().ok()).ok_or(())
        });
        let Some(first) = numbers.next() else { return Ok(None) };
        let first = first?;
        if numbers.all(|other| other == Ok(first)) { Ok(Some(first as u64)) } else { Err(()) }
    }

    fn is_chunked(&self) -> bool {
        matches!(self.codings[..], [only] if only.eq_ignore_ascii_case(b"chunked"))
    }

    /// One field, tokens only, `chunked` at its end and nowhere else, and others before it.
    fn is_coded_and_chunked(&self) -> bool {
        let [only] = self.codings[..] else { return false };
        let codings: Vec<&[u8]> = elements(only).into_iter().filter(|element| !element.is_empty()).collect();
        let Some((last, others)) = codings.split_last() else { return false };
        let is_chunked = |coding: &&[u8]| coding.eq_ignore_ascii_case(b"chunked");
        is_chunked(last) && !others.is_empty() && others.iter().all(|other| is_token(other) && !is_chunked(other))
    }

    fn request(&self, version: Version) -> Result<Framing, ProxyError> {
        if self.codings.is_empty() {
            let length = self.length().map_err(|()| ProxyError::BadRequest)?;
            return Ok(length.map_or(Framing::None, Framing::Fixed));
        }
        if !self.lengths.is_empty() || version == Version::Http10 {
            return Err(ProxyError::BadRequest);
        }
        match (self.is_chunked(), self.is_coded_and_chunked()) {
            (true, _) => Ok(Framing::Chunked),
            (_, true) => Err(ProxyError::NotImplemented),
            _ => Err(ProxyError::BadRequest),
        }
    }

    fn response(&self, version: Version, status: StatusCode, method: &Method) -> Result<(Framing, bool), ProxyError> {
        if status.as_u16() < 200 || status == StatusCode::NO_CONTENT {
            return Ok((Framing::None, self.codings.is_empty() && matches!(self.length(), Ok(None | Some(0)))));
        }
        let length = self.length().map_err(|()| ProxyError::UpstreamProtocol)?;
        if !self.codings.is_empty() && (length.is_some() || version == Version::Http10) {
            return Err(ProxyError::UpstreamProtocol);
        }
        if method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
            return Ok((Framing::None, true));
        }
        match length {
            Some(bytes) => Ok((Framing::Fixed(bytes), true)),
            None if self.codings.is_empty() => Ok((Framing::UntilClose, true)),
            None if self.is_chunked() => Ok((Framing::Chunked, true)),
            None => Err(ProxyError::UpstreamProtocol),
        }
    }
}
