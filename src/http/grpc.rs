//! gRPC, as far as a gateway speaks it: which requests are calls, how long their clients wait, and how a call is told that it has failed.
//!
//! A call is a request whose content type says so. Its outcome stands in `grpc-status`, not in the status of HTTP: behind the body, or in the head of
//! an answer that has no body ("trailers-only"). A client that is told a failure in another form has to guess, so the gateway's own errors have
//! this one too.
//!
//! What is not done here: messages are not looked into, and nothing is decided.
//!
//! Sources: "gRPC over HTTP2", "HTTP to gRPC Status Code Mapping", gRFC A6 (the gRPC project's documents).

use super::fields::Fields;
use super::grpc_web::Form;
use super::headers::overrides;
use super::text::{number, push_number};
use crate::config::HeaderRules;
use crate::error::ProxyError;
use std::time::Duration;

/// The content type of every call, and of the gateway's own answers to one.
pub const CONTENT_TYPE: &[u8] = b"application/grpc";

/// Codes go from 0 (OK) to this one (UNAUTHENTICATED).
pub const STATUS_MAX: u8 = 16;

/// No more digits may stand in a `grpc-timeout`.
const TIMEOUT_MAX: u64 = 99_999_999;

/// What a request says about itself that is a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// How long its client waits, from the beginning on; `None`: it does not say, or not as it should.
    pub timeout: Option<Duration>,
    /// It is one of gRPC-Web, in this form.
    pub web: Option<Form>,
}

impl Call {
    /// The call that a request with these fields is, if it is one, of gRPC or of gRPC-Web.
    #[must_use]
    pub fn of(fields: &Fields<'_>) -> Option<Self> {
        let content_type = fields.get("content-type")?;
        let web = Form::of(content_type);
        let is_call = web.is_some() || is_content_type(content_type);
        is_call.then(|| Self { timeout: fields.get("grpc-timeout").and_then(timeout), web })
    }

    /// The content type of the gateway's own answers to it.
    #[must_use]
    pub fn content_type(&self) -> &'static [u8] {
        self.web.map_or(CONTENT_TYPE, Form::content_type)
    }
}

/// `application/grpc`, alone or followed by `+proto`, `+json`, … or parameters.
fn is_content_type(value: &[u8]) -> bool {
    let Some((front, rest)) = value.split_at_checked(CONTENT_TYPE.len()) else { return false };
    front.eq_ignore_ascii_case(CONTENT_TYPE) && matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t'))
}

/// The time that a `grpc-timeout` gives: one to eight digits, and a unit.
fn timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let count = number(digits, TIMEOUT_MAX).filter(|_| digits.len() <= 8)?;
    Some(match unit {
        b'H' => Duration::from_secs(count * 3_600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Appends the `grpc-timeout` that says so much in the smallest unit that eight digits allow: never more, and never nothing.
pub fn push_timeout(out: &mut Vec<u8>, time: Duration) {
    let units = [(time.as_nanos(), b'n'), (time.as_micros(), b'u'), (time.as_millis(), b'm')];
    let fitting = units.into_iter().find(|(count, _)| *count <= u128::from(TIMEOUT_MAX));
    let (count, unit) = fitting.unwrap_or((u128::from(time.as_secs()), b'S'));
    // eight digits are less than 2^64
    push_number(out, count.clamp(1, u128::from(TIMEOUT_MAX)) as u64);
    out.push(unit);
}

/// The name of the field that [`push_timeout`] writes.
pub(super) const TIMEOUT: &[u8] = b"grpc-timeout";

/// Replaces what a head, which ends at `head_bytes`, says in `grpc-timeout`: a request that is sent once more has less time. What a route's
/// rules say stays. How long the head is then.
pub fn restate_timeout(bytes: &mut Vec<u8>, head_bytes: usize, time: Duration, rules: &HeaderRules) -> usize {
    let line = memchr::memmem::find(&bytes[..head_bytes], b"\r\ngrpc-timeout: ");
    let Some(line) = line.filter(|_| !overrides(rules, TIMEOUT)) else { return head_bytes };
    let start = line + b"\r\ngrpc-timeout: ".len();
    let Some(len) = memchr::memchr(b'\r', &bytes[start..head_bytes]) else { return head_bytes };
    let mut text = Vec::with_capacity(9);
    push_timeout(&mut text, time);
    let grown = head_bytes - len + text.len();
    bytes.splice(start..start + len, text);
    grown
}

/// The code that a `grpc-status` says. One that is no code is UNKNOWN, which is what clients make of it.
#[must_use]
pub fn status(value: &[u8]) -> u8 {
    number(value, u64::from(STATUS_MAX)).map_or(2, |code| code as u8)
}

/// The code in trailers, which are lines of `name: value CRLF`; `None`: they say none.
#[must_use]
pub fn status_in(trailers: &[u8]) -> Option<u8> {
    trailers.split(|&byte| byte == b'\n').find_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (name, value) = line.split_at_checked(b"grpc-status:".len())?;
        name.eq_ignore_ascii_case(b"grpc-status:").then(|| status(value.trim_ascii()))
    })
}

/// When to come back, as `grpc-retry-pushback-ms` has it (gRFC A6). `None`: not at all, which a negative number says, and what is no number.
#[must_use]
pub fn pushback(value: &[u8]) -> Option<Duration> {
    number(value, u64::from(u32::MAX)).map(Duration::from_millis)
}

/// The code for an error of the gateway's own: that of its HTTP status by the official table, but for limits on rate (RESOURCE_EXHAUSTED) and for
/// time that is over (DEADLINE_EXCEEDED), which have codes of their own.
#[must_use]
pub fn code(error: ProxyError) -> u8 {
    match (error, error.status().as_u16()) {
        (ProxyError::UpstreamTimeout | ProxyError::RequestTimeout, _) => 4,
        (ProxyError::ClientClosed, _) => 1,
        (ProxyError::RateLimited, _) => 8,
        (_, 400) => 13,
        (_, 401) => 16,
        (_, 403) => 7,
        (_, 404) => 12,
        (_, 429 | 502 | 503 | 504) => 14,
        _ => 2,
    }
}

/// Appends a `grpc-message`: visible ASCII but `%` stands for itself, everything else is percent-encoded.
pub(super) fn push_message(out: &mut Vec<u8>, text: &[u8]) {
    for &byte in text {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(byte);
        } else {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_known_by_its_content_type() {
        for value in ["application/grpc", "application/grpc+proto", "Application/GRPC+json", "application/grpc;x=y"] {
            assert!(is_content_type(value.as_bytes()), "{value}");
        }
        for value in ["application/grpc-web", "application/grpc-web+proto", "application/grpcx", "application/json", ""]
        {
            assert!(!is_content_type(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn timeouts_have_eight_digits_and_a_unit() {
        for (text, time) in [
            ("1H", Duration::from_secs(3_600)),
            ("99999999H", Duration::from_secs(99_999_999 * 3_600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("00000100m", Duration::from_millis(100)),
            ("5u", Duration::from_micros(5)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(timeout(text.as_bytes()), Some(time), "{text}");
        }
        for text in ["", "m", "5", "100000000m", "000000001m", "-1m", "+1m", "1 m", "1s", "1.5S", "1mm", "\u{0661}m"] {
            assert_eq!(timeout(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn what_is_left_is_written_as_it_may_be_and_never_grows() {
        for (nanos, text) in [
            (0, "1n"),
            (1, "1n"),
            (99_999_999, "99999999n"),
            (100_000_999, "100000u"),
            (1_500_000_000, "1500000u"),
            (99_999_999_999, "99999999u"),
            (100_000_000_000, "100000m"),
            (1_000_000_000_000_000, "1000000S"),
        ] {
            let time = Duration::from_nanos(nanos);
            let mut out = Vec::new();
            push_timeout(&mut out, time);
            assert_eq!(str::from_utf8(&out).unwrap(), text, "{nanos}");
            let read = timeout(&out).unwrap();
            assert!(read <= time.max(Duration::from_nanos(1)) && (time - read.min(time)) * 10_000 <= time, "{text}");
        }
        let mut out = Vec::new();
        push_timeout(&mut out, Duration::MAX);
        assert_eq!(out, b"99999999S");
    }

    #[test]
    fn a_request_that_goes_once_more_says_what_is_left_then() {
        let head = b"POST / HTTP/1.1\r\nHost: a\r\ngrpc-timeout: 1500000u\r\nX: y\r\n\r\n";
        let mut bytes = [&head[..], b"\r\ngrpc-timeout: 7S\r\nbody"].concat();
        let len = restate_timeout(&mut bytes, head.len(), Duration::from_millis(20), &HeaderRules::default());
        let shorter = "POST / HTTP/1.1\r\nHost: a\r\ngrpc-timeout: 20000000n\r\nX: y\r\n\r\n";
        assert_eq!(
            (str::from_utf8(&bytes[..len]).unwrap(), &bytes[len..]),
            (shorter, &b"\r\ngrpc-timeout: 7S\r\nbody"[..])
        );
        let mut none = b"POST / HTTP/1.1\r\n\r\n\r\ngrpc-timeout: 7S\r\n".to_vec();
        let before = none.clone();
        assert_eq!((restate_timeout(&mut none, 19, Duration::ZERO, &HeaderRules::default()), none), (19, before));
    }

    #[test]
    fn codes_are_read_wherever_they_stand() {
        assert_eq!([&b"0"[..], b"14", b"16", b"17", b"x", b""].map(status), [0, 14, 16, 2, 2, 2]);
        assert_eq!(status_in(b"x-a: grpc-status: 1\r\nGrpc-Status: 14\r\ngrpc-message: no\r\n"), Some(14));
        assert_eq!(status_in(b"grpc-status:5\r\n"), Some(5));
        assert_eq!((status_in(b""), status_in(b"grpc-status-details-bin: x\r\n")), (None, None));
        assert_eq!(pushback(b"250"), Some(Duration::from_millis(250)));
        for value in [&b"-1"[..], b"", b"soon", b"99999999999"] {
            assert_eq!(pushback(value), None);
        }
    }

    #[test]
    fn own_errors_have_the_code_of_their_status() {
        use ProxyError as E;
        for (error, expected) in [
            (E::BadRequest, 13),
            (E::Unauthenticated, 16),
            (E::Forbidden, 7),
            (E::NoRoute, 12),
            (E::MethodNotAllowed, 2),
            (E::RateLimited, 8),
            (E::ConcurrencyLimited, 14),
            (E::NoHealthyEndpoint, 14),
            (E::Draining, 14),
            (E::UpstreamReset, 14),
            (E::UpstreamBodyTimeout, 14),
            (E::UpstreamTimeout, 4),
            (E::RequestTimeout, 4),
            (E::PayloadTooLarge, 2),
            (E::Internal, 2),
        ] {
            assert_eq!(code(error), expected, "{error:?}");
        }
        assert!(E::ALL.iter().all(|error| (1..=STATUS_MAX).contains(&code(*error))));
    }

    #[test]
    fn messages_are_percent_encoded() {
        let mut out = Vec::new();
        push_message(&mut out, "100 % ~\u{fc}\n".as_bytes());
        assert_eq!(out, b"100 %25 ~%C3%BC%0A");
    }
}
