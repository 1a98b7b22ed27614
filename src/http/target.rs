//! The request target and the authority: which resource, at which host (RFC 9112 §3.2, RFC 9110 §4.2, RFC 3986 §3.2).
//!
//! Stricter than the grammar where it is older than its users: a registered name here is one that DNS could hold, so that
//! `ex%61mple.com`, `a,b` or `user@host` never reach a host comparison. A fragment, non-ASCII bytes and a host that is empty
//! are refused.
//!
//! The path stays as it was sent; [`crate::http::path`] gives it its one spelling.

use crate::error::ProxyError;
use crate::limits;
use http::Method;
use std::net::Ipv6Addr;

/// `host[:port]`, as sent and taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'b> {
    /// All of it.
    pub text: &'b str,
    /// The host, brackets of an IPv6 address included, in the case it was sent in, without a final dot.
    pub host: &'b str,
    /// The port, if one was given.
    pub port: Option<u16>,
}

impl<'b> Authority<'b> {
    /// Takes `host[:port]` apart.
    ///
    /// # Errors
    /// [`ProxyError::BadRequest`]: empty, userinfo (RFC 9110 §4.2.4), anything that is not a DNS name, an IPv4 or a bracketed IPv6
    /// address, or a port above 65535.
    pub fn try_new(bytes: &'b [u8]) -> Result<Self, ProxyError> {
        let host_len = match bytes {
            [b'[', inner @ ..] => memchr::memchr(b']', inner).ok_or(ProxyError::BadRequest)? + 2,
            _ => dns_name_len(bytes).ok_or(ProxyError::BadRequest)?,
        };
        let port = parse_port(&bytes[host_len..])?;
        let text = str::from_utf8(bytes).map_err(|_| ProxyError::BadRequest)?;
        let host = &text[..host_len];
        if let Some(literal) = host.strip_prefix('[')
            && literal.strip_suffix(']').is_none_or(|inner| inner.parse::<Ipv6Addr>().is_err())
        {
            return Err(ProxyError::BadRequest);
        }
        Ok(Self { text, host: host.strip_suffix('.').unwrap_or(host), port })
    }

    /// Whether both name the same place; a missing port is `default_port`.
    #[must_use]
    pub fn is_same(&self, other: &Self, default_port: u16) -> bool {
        self.host.eq_ignore_ascii_case(other.host)
            && self.port.unwrap_or(default_port) == other.port.unwrap_or(default_port)
    }
}

/// What names in DNS and IPv4 addresses are made of.
const NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        byte += 1;
    }
    table
};

/// The length of the name in front of a port, or of all there is: at least one byte besides a final dot, and only [`NAME`]'s.
fn dns_name_len(bytes: &[u8]) -> Option<usize> {
    let len = bytes.iter().position(|&b| !NAME[usize::from(b)]).unwrap_or(bytes.len());
    let is_one =
        len <= limits::HOST_BYTES_MAX && bytes.first() != Some(&b'.') && bytes.get(len).is_none_or(|&b| b == b':');
    (len > 0 && is_one).then_some(len)
}

/// `""`, `":"` (RFC 3986 §3.2.3 allows it) or `":" 1*5DIGIT`.
fn parse_port(text: &[u8]) -> Result<Option<u16>, ProxyError> {
    match text {
        [] | [b':'] => Ok(None),
        [b':', digits @ ..] if digits.len() <= 5 => {
            let port = super::text::number(digits, u64::from(u16::MAX)).ok_or(ProxyError::BadRequest)?;
            Ok(Some(port as u16))
        }
        _ => Err(ProxyError::BadRequest),
    }
}

/// A request target, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target<'b> {
    /// Of the absolute form, with its default port.
    pub(super) authority: Option<(Authority<'b>, u16)>,
    /// As sent; `/` when the absolute form has none; `*` for the asterisk form.
    pub(super) path: &'b str,
    /// Behind the first `?`.
    pub(super) query: Option<&'b str>,
}

impl<'b> Target<'b> {
    /// # Errors
    /// [`ProxyError::BadRequest`], or [`ProxyError::NotImplemented`] for CONNECT (RFC 9110 §9.3.6), whatever its target.
    pub(super) fn parse(target: &'b str, method: &Method) -> Result<Self, ProxyError> {
        if method == Method::CONNECT {
            return Err(ProxyError::NotImplemented);
        }
        // RFC 9112 §3.2: no fragment; RFC 3986 §2: ASCII. httparse has refused blanks and control characters.
        if !target.is_ascii() || memchr::memchr(b'#', target.as_bytes()).is_some() {
            return Err(ProxyError::BadRequest);
        }
        if target.starts_with('/') {
            let (path, query) = split_query(target);
            return Ok(Self { authority: None, path, query });
        }
        if target == "*" {
            // RFC 9112 §3.2.4: only for a server-wide OPTIONS
            let path = if method == Method::OPTIONS { target } else { return Err(ProxyError::BadRequest) };
            return Ok(Self { authority: None, path, query: None });
        }
        Self::parse_absolute(target, method)
    }

    fn parse_absolute(target: &'b str, method: &Method) -> Result<Self, ProxyError> {
        let (scheme, rest) = target.split_once("://").ok_or(ProxyError::BadRequest)?;
        let default_port = match scheme {
            _ if scheme.eq_ignore_ascii_case("http") => 80,
            _ if scheme.eq_ignore_ascii_case("https") => 443,
            _ => return Err(ProxyError::BadRequest),
        };
        let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let authority = Authority::try_new(authority.as_bytes())?;
        let (path, query) = split_query(rest);
        let path = match path {
            "" if query.is_none() && method == Method::OPTIONS => "*", // RFC 9112 §3.2.4
            "" => "/",                                                 // RFC 9110 §4.2.3
            path => path,
        };
        Ok(Self { authority: Some((authority, default_port)), path, query })
    }
}

fn split_query(target: &str) -> (&str, Option<&str>) {
    match memchr::memchr(b'?', target.as_bytes()) {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_names_or_addresses_and_ports() {
        for (text, host, port) in [
            ("a", "a", None),
            ("A.example:8080", "A.example", Some(8080)),
            ("a.example.", "a.example", None),
            ("a.example.:80", "a.example", Some(80)),
            ("a:", "a", None),
            ("127.0.0.1:1", "127.0.0.1", Some(1)),
            ("[::1]", "[::1]", None),
            ("[2001:DB8::1]:443", "[2001:DB8::1]", Some(443)),
            ("my_service", "my_service", None),
            ("xn--bcher-kva.example", "xn--bcher-kva.example", None),
        ] {
            let found = Authority::try_new(text.as_bytes());
            assert_eq!(found, Ok(Authority { text, host, port }));
        }
    }

    #[test]
    fn other_authorities_are_refused() {
        let long = "a".repeat(256);
        for text in [
            "",
            ":80",
            ".",
            ".:80",
            ".a",
            "a b",
            "a,b",
            "a/b",
            "user@a",
            "a@",
            "user:pw@a",
            "a:b",
            "a:-1",
            "a:65536",
            "a:000080",
            "a:80:80",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]]",
            "[]",
            "[v1.x]",
            "[fe80::1%25eth0]",
            "ex%61mple.com",
            "a\\b",
            "a#",
            "a?b",
            "ä.example",
            "a\"",
            &long,
        ] {
            assert_eq!(Authority::try_new(text.as_bytes()), Err(ProxyError::BadRequest), "{text}");
        }
        assert!(Authority::try_new(b"a\xff").is_err());
    }

    #[test]
    fn targets_have_the_forms_of_rfc_9112() {
        let get = |t| Target::parse(t, &Method::GET).map(|t| (t.authority.map(|a| (a.0.text, a.1)), t.path, t.query));
        assert_eq!(get("/a?b?c=/"), Ok((None, "/a", Some("b?c=/"))));
        assert_eq!(get("/?"), Ok((None, "/", Some(""))));
        assert_eq!(get("http://a/b?c"), Ok((Some(("a", 80)), "/b", Some("c"))));
        assert_eq!(get("HTTPS://a:1"), Ok((Some(("a:1", 443)), "/", None)));
        assert_eq!(get("http://a?b"), Ok((Some(("a", 80)), "/", Some("b"))));
        for bad in [
            "*",
            "a",
            "a:80",
            "ftp://a/",
            "http:/a",
            "http://",
            "http:///a",
            "http://u@a/",
            "/a#b",
            "/ä",
            "?a",
            "://a",
            "http://a#b",
        ] {
            assert_eq!(get(bad), Err(ProxyError::BadRequest), "{bad}");
        }
        let options = |t| Target::parse(t, &Method::OPTIONS).map(|t| t.path);
        assert_eq!(options("*"), Ok("*"));
        assert_eq!(options("http://a"), Ok("*"));
        assert_eq!(options("http://a/"), Ok("/"));
        assert_eq!(Target::parse("a:443", &Method::CONNECT), Err(ProxyError::NotImplemented));
    }
}
