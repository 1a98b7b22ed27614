//! What a health check asks, and what its answer must be: values of the configuration, and how the file writes those of them that
//! stand nowhere else.

use super::addresses::check_host;
use super::names::EditableHeader;
use super::paths::compile_regex;
use super::problem::Refusal;
use super::read::Scalar;
use super::tables::scalar_schema;
use super::values::text;
use crate::limits::{HOST_BYTES_MAX, PATH_BYTES_MAX, REGEX_CACHE_BYTES_MIN};
use http::{HeaderName, HeaderValue, Method};
use memchr::memmem;
use regex_automata::meta::Regex;
use serde_json::json;
use std::net::Ipv6Addr;
use toml::de::DeValue;

/// The longest name of a service that is asked for: its length is one byte on the wire.
const SERVICE_BYTES_MAX: usize = 120;

/// What a probe does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Connect and close.
    Tcp,
    /// Send a request and look at the response.
    Http(HttpProbe),
    /// Ask by gRPC's health checking protocol.
    Grpc(GrpcProbe),
}

/// Whom a probe of gRPC asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcProbe {
    /// Less than 128 bytes; empty: the whole server.
    pub service: String,
    /// The authority; `None`: the endpoint's address.
    pub host: Option<String>,
}

/// A request, and the response that passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpProbe {
    /// Method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// The `Host` header; `None`: the endpoint's address.
    pub host: Option<String>,
    /// More headers, each once; none of them is `Host` or belongs to the connection.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Inclusive range of statuses that pass.
    pub expect: (u16, u16),
    /// What the body must have in it, within its first `limits::PROBE_BODY_BYTES_MAX` bytes; `None`: the body is not read.
    pub body: Option<BodyMatch>,
}

impl HttpProbe {
    /// A GET of `path` without anything special.
    #[must_use]
    pub fn get(path: &str, expect: (u16, u16)) -> Self {
        Self { method: Method::GET, path: path.to_owned(), host: None, headers: Vec::new(), expect, body: None }
    }
}

/// `health_check.body`: a text that stands somewhere in the body, or after a `~` a regex that matches somewhere.
#[derive(Clone, Debug)]
pub struct BodyMatch {
    written: String,
    /// `None`: `written` is the text.
    regex: Option<Regex>,
}

impl BodyMatch {
    /// What `written` means, or why it means nothing.
    pub(crate) fn try_new(written: &str) -> Result<Self, Refusal> {
        let regex = match written.strip_prefix('~') {
            // each upstream has its own: it gets as much memory to search with as a host's path regexes at least
            Some(pattern) => {
                Some(compile_regex(pattern, Regex::config().hybrid_cache_capacity(REGEX_CACHE_BYTES_MIN))?)
            }
            None if (1..=PATH_BYTES_MAX).contains(&written.len()) => None,
            None => return Err(Refusal::plain()),
        };
        Ok(Self { written: written.to_owned(), regex })
    }

    /// As the file writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// Whether `body` has it.
    #[must_use]
    pub fn is_match(&self, body: &[u8]) -> bool {
        match &self.regex {
            Some(regex) => regex.is_match(body),
            None => memmem::find(body, self.written.as_bytes()).is_some(),
        }
    }
}

impl PartialEq for BodyMatch {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for BodyMatch {}

impl Scalar for BodyMatch {
    fn allowed() -> String {
        format!("a text of 1 to {PATH_BYTES_MAX} bytes that the body has in it, or \"~regex\"")
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        Self::try_new(text(value)?)
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1, "maxLength": PATH_BYTES_MAX + 1 })
    }
}

/// `health_check.host`: a host, with its port or without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeHost(pub String);

impl Scalar for ProbeHost {
    fn allowed() -> String {
        "a host with its port or without, such as \"app.example.com\", \"10.0.0.1:8080\" or \"[2001:db8::1]\""
            .to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        if let Some((_, host)) = written.split_once("//") {
            let help = format!("did you mean {:?}?", host.split('/').next().unwrap_or(host));
            return Err(Refusal::why("a host has no scheme and no path").help(help));
        }
        let (host, port) = match written.rsplit_once(':') {
            Some((host, port)) if !written.ends_with(']') => (host, Some(port)),
            _ => (written, None),
        };
        if port.is_some_and(|port| !port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().is_err()) {
            return Err(Refusal::why("a port is a number from 0 to 65535"));
        }
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if bracketed.is_none_or(|ip| ip.parse::<Ipv6Addr>().is_err()) {
            check_host(host)?;
        }
        Ok(Self(written.to_owned()))
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1, "maxLength": HOST_BYTES_MAX + ":65535".len() })
    }
}

/// `health_check.grpc`: true for the whole server, or the name of a service; `None`: false.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeService(pub Option<String>);

impl Scalar for ProbeService {
    fn allowed() -> String {
        format!("true, or the name of a service, such as \"orders.v1.Orders\", of at most {SERVICE_BYTES_MAX} bytes")
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        if let DeValue::Boolean(is_on) = value {
            return Ok(Self(is_on.then(String::new)));
        }
        let name = text(value)?;
        let is_name = !name.is_empty() && name.len() <= SERVICE_BYTES_MAX && name.bytes().all(|b| b.is_ascii_graphic());
        if is_name { Ok(Self(Some(name.to_owned()))) } else { Err(Refusal::plain()) }
    }

    fn schema() -> serde_json::Value {
        json!({ "anyOf": [{ "type": "boolean" }, { "type": "string", "minLength": 1, "maxLength": SERVICE_BYTES_MAX }] })
    }
}

/// A header's name in `health_check.headers`: as in header rules, but for `Host`, which has a key of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeHeader(pub HeaderName);

impl Scalar for ProbeHeader {
    fn allowed() -> String {
        EditableHeader::allowed()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let EditableHeader(name) = EditableHeader::parse(value)?;
        if name == http::header::HOST {
            return Err(Refusal::why("Host has a key of its own").help("write host = \"…\" beside headers"));
        }
        Ok(Self(name))
    }

    fn schema() -> serde_json::Value {
        EditableHeader::schema()
    }
}

scalar_schema!(BodyMatch, ProbeHost, ProbeHeader, ProbeService);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::tests::{accepts, refuses};

    fn body(written: &str) -> BodyMatch {
        BodyMatch::try_new(written).unwrap()
    }

    #[test]
    fn a_text_stands_somewhere_in_the_body_and_a_regex_matches_somewhere() {
        assert!(body("ok").is_match(b"all is ok here"));
        assert!(!body("ok").is_match(b"O.K."));
        assert!(!body("o.*k").is_match(b"ok"), "a text is no regex");
        assert!(body("~(?i)^\\{\"status\": *\"(up|ok)\"").is_match(b"{\"status\": \"UP\"}"));
        assert!(!body("~^up$").is_match(b"not up"));
        assert!(body("~up").is_match(b"\xff\x00 up \xfe"), "a body is bytes");
        assert_ne!(body("a"), body("~a"));
    }

    #[test]
    fn bodies_are_searched_for_something_of_bounded_size() {
        accepts::<BodyMatch>(&["a", "~.", "\u{e9}", &"a".repeat(PATH_BYTES_MAX)]);
        refuses::<BodyMatch>(&["", "~", "~(", "~(?=a)", "~a{1000}{1000}", &"a".repeat(PATH_BYTES_MAX + 1)]);
    }

    #[test]
    fn hosts_have_a_port_or_not() {
        accepts::<ProbeHost>(&["a", "App.example.com", "a:80", "10.0.0.1:8080", "[::1]", "[2001:db8::1]:443", "_a.b"]);
        refuses::<ProbeHost>(&[
            "", ":80", "a:", "a:+1", "a:65536", "::1", "[::1", "[a]:80", "a b", "a/b", "u@a", "*.a",
        ]);
    }

    #[test]
    fn headers_are_those_that_rules_may_set_but_for_host() {
        accepts::<ProbeHeader>(&["x-a", "Authorization", "user-agent", "accept"]);
        refuses::<ProbeHeader>(&[
            "",
            "Host",
            "host",
            "a b",
            "Connection",
            "Content-Length",
            "Transfer-Encoding",
            "Expect",
        ]);
    }
}
