//! What can be seen of a request line that was refused or never ended, for the log.
//!
//! A line that the parser does not accept still tells an operator who asked for what. This splits it by its spaces and decides
//! nothing: what it finds is only ever written down, escaped, and never routed or sent on. A method that is no token (the first bytes
//! of a TLS handshake, say) is not shown, and nor is what follows it.
//!
//! Source: the grammar of RFC 9112 §3.

use super::text::is_token_byte;
use crate::limits;

/// A request line as far as it can be read. Empty texts were not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Glimpse<'b> {
    /// The method, if it is a token.
    pub method: &'b [u8],
    /// What stands between method and version, or as much as has arrived of it; spaces included.
    pub target: &'b [u8],
    /// Major and minor version.
    pub version: Option<(u8, u8)>,
}

impl<'b> Glimpse<'b> {
    /// Of the first line in `bytes`, which may be cut off anywhere.
    #[must_use]
    pub fn of(bytes: &'b [u8]) -> Self {
        // empty lines before a request are skipped (RFC 9112 §2.2)
        let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
        let line = &bytes[start..];
        let line = &line[..memchr::memchr(b'\n', line).unwrap_or(line.len())];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (method, rest) = split_at_space(line, memchr::memchr(b' ', line));
        if method.len() > limits::METHOD_BYTES_MAX || !method.iter().all(|byte| is_token_byte(*byte)) {
            return Self::default();
        }
        let (target, last) = split_at_space(rest, memchr::memrchr(b' ', rest));
        match version(last) {
            Some(version) => Self { method, target, version: Some(version) },
            None => Self { method, target: rest, version: None },
        }
    }
}

/// Before and behind the space; all of it and nothing where there is none.
fn split_at_space(text: &[u8], space: Option<usize>) -> (&[u8], &[u8]) {
    space.map_or((text, &[]), |at| (&text[..at], &text[at + 1..]))
}

fn version(text: &[u8]) -> Option<(u8, u8)> {
    match text {
        [b'H', b'T', b'T', b'P', b'/', major @ b'0'..=b'9', b'.', minor @ b'0'..=b'9'] => {
            Some((major - b'0', minor - b'0'))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glimpse(line: &str) -> (&str, &str, Option<(u8, u8)>) {
        let Glimpse { method, target, version } = Glimpse::of(line.as_bytes());
        (std::str::from_utf8(method).unwrap(), std::str::from_utf8(target).unwrap(), version)
    }

    #[test]
    fn a_line_is_read_as_far_as_it_goes() {
        assert_eq!(glimpse("GET /a?b HTTP/1.1\r\nHost: x\r\n"), ("GET", "/a?b", Some((1, 1))));
        assert_eq!(glimpse("\r\nGET /a HTTP/2.0\n"), ("GET", "/a", Some((2, 0))));
        assert_eq!(glimpse("GET /a b HTTP/1.0\r\n"), ("GET", "/a b", Some((1, 0))));
        assert_eq!(glimpse("GET /a HTTX/1.1\r\n"), ("GET", "/a HTTX/1.1", None));
        assert_eq!(glimpse("GET /a"), ("GET", "/a", None));
        assert_eq!(glimpse("GET"), ("GET", "", None));
        assert_eq!(glimpse(""), ("", "", None));
    }

    #[test]
    fn what_is_no_method_hides_the_line() {
        assert_eq!(Glimpse::of(b"\x16\x03\x01 /secret HTTP/1.1\r\n"), Glimpse::default());
        assert_eq!(glimpse(&format!("{} / HTTP/1.1", "A".repeat(limits::METHOD_BYTES_MAX + 1))), ("", "", None));
    }

    #[test]
    fn no_cut_and_no_byte_is_too_strange() {
        let line = b"\r\nPOST /a b\xff\x00 HTTP/1.1\r\nHost";
        for end in 0..=line.len() {
            let seen = Glimpse::of(&line[..end]);
            assert!(b"POST".starts_with(seen.method), "{seen:?}");
        }
    }
}
