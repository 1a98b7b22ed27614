//! The head of an endpoint's response, as strict as a request's: a confused endpoint must not confuse the client.
//!
//! Everything wrong is [`ProxyError::UpstreamProtocol`] (a 502), and the connection is never used again. A status outside 100 to 599 is
//! wrong (RFC 9110 §15), and so is a 101 that does not take up what the client has offered.

use super::fields::{Fields, HeadScratch, Kind, Seen};
use super::framing::Framing;
use super::lines::{self, Lines, StatusLine, Unreadable};
use super::text::{list, number};
use super::trailers::Trailers;
use super::upgrade::Offer;
use super::{Parsed, Version, date};
use crate::error::ProxyError;
use crate::limits;
use http::{Method, StatusCode};
use std::time::Duration;

/// A response's head. Borrows the buffer that it was parsed from and the scratch that it was parsed with.
#[derive(Clone, Debug)]
pub struct ResponseHead<'b> {
    status: StatusCode,
    version: Version,
    reason: &'b str,
    fields: Fields<'b>,
    seen: Seen<'b>,
    framing: Framing,
    /// Whether the head announced no body that it must not have.
    honest: bool,
}

impl<'b> ResponseHead<'b> {
    /// Parses the head at the front of `buf`, the answer to a request of `method`. Worth calling when
    /// [`crate::http::scan::HeadScanner::is_ready`].
    ///
    /// # Errors
    /// [`ProxyError::UpstreamProtocol`], or [`ProxyError::UpstreamHeadTooLarge`] above `RESPONSE_HEAD_BYTES_MAX` or
    /// `RESPONSE_HEADERS_MAX`.
    pub fn parse(buf: &'b [u8], method: &Method, scratch: &'b mut HeadScratch) -> Result<Parsed<Self>, ProxyError> {
        Self::parse_answer(buf, method, None, scratch)
    }

    /// The same for a request that offered to change the protocol, if `offer` says so.
    ///
    /// # Errors
    /// As [`ResponseHead::parse`].
    pub fn parse_answer(
        buf: &'b [u8],
        method: &Method,
        offer: Option<&Offer>,
        scratch: &'b mut HeadScratch,
    ) -> Result<Parsed<Self>, ProxyError> {
        let (line, at) = match lines::status_line(buf) {
            Ok(Lines::Whole(line, at)) => (line, at),
            Ok(Lines::Cut) => return unfinished(buf),
            Err(_) => return Err(ProxyError::UpstreamProtocol),
        };
        let table = &mut scratch.fields;
        match lines::field_lines(buf, at, limits::RESPONSE_HEADERS_MAX, table) {
            Ok(Lines::Whole(seen, len)) if len <= limits::RESPONSE_HEAD_BYTES_MAX => {
                Self::check(Fields { buf: &buf[..len], table }, line, seen, (method, offer)).map(Parsed::Complete)
            }
            Ok(Lines::Cut) => unfinished(buf),
            Ok(Lines::Whole(..)) | Err(Unreadable::TooMany) => Err(ProxyError::UpstreamHeadTooLarge),
            Err(Unreadable::Malformed) => Err(ProxyError::UpstreamProtocol),
        }
    }

    fn check(
        fields: Fields<'b>,
        StatusLine { version, code, reason }: StatusLine<'b>,
        seen: Seen<'b>,
        (method, offer): (&Method, Option<&Offer>),
    ) -> Result<Self, ProxyError> {
        if !(100..=599).contains(&code) {
            return Err(ProxyError::UpstreamProtocol);
        }
        let status = StatusCode::from_u16(code).map_err(|_| ProxyError::UpstreamProtocol)?;
        let (framing, honest) = seen.lengths.response(version, status, method)?;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            // RFC 9110 §15.2.2, §7.8: only in answer to an Upgrade, with both fields, and to what was offered
            let taken = offer.zip(seen.upgrade).is_some_and(|(offer, answer)| offer.covers(answer, &fields));
            if !taken || !seen.upgrade_option || !honest || version == Version::Http10 {
                return Err(ProxyError::UpstreamProtocol);
            }
        }
        Ok(Self { status, version, reason, fields, seen, framing, honest })
    }

    /// Bytes of the buffer that the head took; the body begins behind them.
    #[must_use]
    pub fn head_bytes(&self) -> usize {
        self.fields.buf.len()
    }

    /// The status, 100 to 599.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether what begins with `buf` can still turn out to be interim or a 101; looks at the status line only.
    #[must_use]
    pub fn may_be_informational(buf: &[u8]) -> bool {
        const START: &[u8] = b"HTTP/1.";
        let known = buf.len().min(START.len());
        buf[..known] == START[..known]
            && buf.get(START.len() + 1).is_none_or(|&b| b == b' ')
            && buf.get(START.len() + 2).is_none_or(|&b| b == b'1')
    }

    /// Whether what begins with `buf` is a client or server error (4xx, 5xx), if it is a response; looks at the status line only.
    #[must_use]
    pub fn may_be_error(buf: &[u8]) -> bool {
        buf.get(b"HTTP/1.1 ".len()).is_some_and(|first| matches!(first, b'4' | b'5'))
    }

    /// Whether what begins with `buf` is a 408, if it is a response; looks at the status line only.
    #[must_use]
    pub fn may_be_request_timeout(buf: &[u8]) -> bool {
        buf.get(b"HTTP/1.1 ".len()..).is_some_and(|status| status.starts_with(b"408"))
    }

    /// Whether it is interim (1xx but 101): another head follows. At most [`limits::INTERIM_RESPONSES_MAX`] of them, which the caller
    /// counts.
    #[must_use]
    pub fn is_interim(&self) -> bool {
        self.status.is_informational() && !self.is_switching()
    }

    /// Whether it is a 101: no HTTP follows it, in either direction.
    #[must_use]
    pub fn is_switching(&self) -> bool {
        self.status == StatusCode::SWITCHING_PROTOCOLS
    }

    /// What a 101 changes to, or a 426 requires.
    pub(super) fn upgrade(&self) -> Option<&'b [u8]> {
        self.seen.upgrade
    }

    /// The reason phrase; empty if there is none, or one that is not ASCII.
    #[must_use]
    pub fn reason(&self) -> &'b str {
        self.reason
    }

    /// The endpoint's version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The headers.
    #[must_use]
    pub fn fields(&self) -> Fields<'b> {
        self.fields
    }

    /// To take the body's trailers with.
    #[must_use]
    pub fn trailers(&self) -> Trailers {
        if self.seen.nominates && self.framing == Framing::Chunked {
            return Trailers::without(self.fields.nominated());
        }
        Trailers::default()
    }

    /// How the body ends.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// The Content-Length it gave, also where there is no body to measure (HEAD, 304).
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.seen.lengths.content_length()
    }

    /// Whether the endpoint keeps the connection and can be trusted to have nothing more on it (RFC 9112 §9.3).
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        self.honest
            && self.framing != Framing::UntilClose
            && !self.seen.close
            && (self.version == Version::Http11 || self.seen.keep_alive)
    }

    /// How long the endpoint keeps an idle connection: `Keep-Alive: timeout=SECONDS` (RFC 2068 §19.7.1).
    #[must_use]
    pub fn idle_timeout(&self) -> Option<Duration> {
        let mut parameters = self.fields.of(Kind::KeepAlive).flat_map(list);
        parameters.find_map(|parameter| {
            let (name, value) = parameter.split_at_checked("timeout=".len())?;
            name.eq_ignore_ascii_case(b"timeout=").then_some(())?;
            number(value, limits::TIMEOUT_MAX.as_secs()).map(Duration::from_secs)
        })
    }

    /// When to come back: `Retry-After` as seconds or as a date (RFC 9110 §10.2.3), which is compared with `unix_seconds`, the wall
    /// clock. A date that has passed is zero; more than `TIMEOUT_MAX` is `TIMEOUT_MAX`.
    #[must_use]
    pub fn retry_after(&self, unix_seconds: impl FnOnce() -> u64) -> Option<Duration> {
        let value = self.fields.of(Kind::RetryAfter).next()?;
        let seconds = match number(value, u64::MAX) {
            Some(seconds) => seconds,
            None => date::parse(value)?.saturating_sub(unix_seconds()),
        };
        Some(Duration::from_secs(seconds).min(limits::TIMEOUT_MAX))
    }
}

/// More of a head is to come, if it may.
fn unfinished<T>(buf: &[u8]) -> Result<Parsed<T>, ProxyError> {
    if buf.len() < limits::RESPONSE_HEAD_BYTES_MAX {
        Ok(Parsed::Partial)
    } else {
        Err(ProxyError::UpstreamHeadTooLarge)
    }
}
