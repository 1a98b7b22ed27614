//! Texts with a form of their own: names, addresses, hosts, methods, headers, and the choices that carry one of them.
//!
//! A text that is refused says which character or part is wrong where that is not obvious. Nothing is looked up: a host name as an
//! endpoint's address is refused, since a gateway must not start or route by what a resolver happens to say. Hop-by-hop headers
//! belong to one connection (RFC 9110 §7.6.1), so rules about them would corrupt framing and are refused.

use super::problem::{Refusal, did_you_mean, nearest};
use super::read::{Scalar, scalar_schema};
use super::values::{integer, text};
use super::{Address, Bind, HashKey, HostMatch, LimitKey, LogPath};
use crate::limits::{METHOD_BYTES_MAX, NAME_BYTES_MAX, WORKERS_MAX};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::json;
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use toml::de::DeValue;

/// Longest path of a unix socket (`sun_path` of unix(7), with its final zero).
const UNIX_PATH_BYTES_MAX: usize = 107;

/// A name for metrics and logs: printable, without quotes or backslashes, which every format that shows it would have to escape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(pub String);

impl Scalar for Name {
    fn allowed() -> String {
        format!("a name of 1 to {NAME_BYTES_MAX} printable ASCII characters without quotes and backslashes")
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let name = text(value)?;
        let fits = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.trim() == name;
        let clean = name.bytes().all(|b| (b' '..=b'~').contains(&b) && !matches!(b, b'"' | b'\'' | b'\\'));
        if fits && clean { Ok(Self(name.to_owned())) } else { Err(Refusal::plain()) }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1, "maxLength": NAME_BYTES_MAX })
    }
}

/// `auto`, or a number of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// One per core.
    Auto,
    /// This many.
    Count(usize),
}

impl Scalar for Workers {
    fn allowed() -> String {
        format!("\"auto\" or a whole number from 1 to {WORKERS_MAX}")
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        match value {
            DeValue::String(word) if word == "auto" => Ok(Self::Auto),
            DeValue::String(word) if word.parse::<usize>().is_ok() => {
                Err(Refusal::plain().help(format!("without quotes: {word}")))
            }
            DeValue::String(word) => Err(Refusal { why: None, help: did_you_mean(word, ["auto"]) }),
            _ => {
                let count = integer(value).and_then(|n| usize::try_from(n).ok());
                count.filter(|n| (1..=WORKERS_MAX).contains(n)).map(Self::Count).ok_or_else(Refusal::plain)
            }
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "anyOf": [{ "const": "auto" }, { "type": "integer", "minimum": 1, "maximum": WORKERS_MAX }] })
    }
}

/// `auto`, or a list of cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    /// Those the process may run on.
    Auto,
    /// These, in this order, each once.
    List(Vec<usize>),
}

impl Scalar for Cores {
    fn allowed() -> String {
        "\"auto\" or a list of different core numbers, such as [0, 2, 4]".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        match value {
            DeValue::String(word) if word == "auto" => Ok(Self::Auto),
            DeValue::String(word) => Err(Refusal { why: None, help: did_you_mean(word, ["auto"]) }),
            DeValue::Array(array) if (1..=WORKERS_MAX).contains(&array.len()) => {
                let mut list = Vec::with_capacity(array.len());
                for entry in array.iter() {
                    let core = integer(entry.get_ref()).and_then(|n| usize::try_from(n).ok());
                    let core = core.ok_or_else(Refusal::plain)?;
                    if list.contains(&core) {
                        return Err(Refusal::why(format!("core {core} stands there twice")));
                    }
                    list.push(core);
                }
                Ok(Self::List(list))
            }
            _ => Err(Refusal::plain()),
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "anyOf": [
            { "const": "auto" },
            { "type": "array", "items": { "type": "integer", "minimum": 0 }, "minItems": 1, "uniqueItems": true },
        ] })
    }
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen(pub Bind);

impl Scalar for Listen {
    fn allowed() -> String {
        "IP:PORT or unix:/PATH, such as \"0.0.0.0:8080\", \"[::]:8080\" or \"unix:/run/ringgate.sock\"".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        if let Some(path) = unix_path(written)? {
            return Ok(Self(Bind::Unix(path)));
        }
        let address = written.parse().map(|address| Self(Bind::Tcp(address)));
        address.map_err(|_| match written.strip_prefix(':').filter(|port| port.parse::<u16>().is_ok()) {
            Some(_) => Refusal::why("the address is missing").help(format!("did you mean \"0.0.0.0{written}\"?")),
            None => refused_address(written),
        })
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string" })
    }
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At(pub Address);

impl Scalar for At {
    fn allowed() -> String {
        "IP:PORT or unix:/PATH, such as \"10.0.0.1:8080\", \"[2001:db8::1]:8080\" or \"unix:/run/app.sock\"".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        if let Some(path) = unix_path(written)? {
            return Ok(Self(Address::Unix(path)));
        }
        let address: SocketAddr = written.parse().map_err(|_| refused_address(written))?;
        match address {
            _ if address.port() == 0 => Err(Refusal::why("port 0 cannot be connected to")),
            _ if address.ip().is_unspecified() => {
                let loopback = if address.is_ipv4() { "127.0.0.1" } else { "[::1]" };
                let help = format!("did you mean \"{loopback}:{}\"?", address.port());
                Err(Refusal::why("this address means any interface and is not one to connect to").help(help))
            }
            _ => Ok(Self(Address::Tcp(address))),
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string" })
    }
}

/// The path of `unix:/path`; `None` for other texts.
fn unix_path(written: &str) -> Result<Option<PathBuf>, Refusal> {
    let Some(path) = written.strip_prefix("unix:") else { return Ok(None) };
    if !path.starts_with('/') || path.contains('\0') {
        return Err(Refusal::why("the path of a unix socket is absolute"));
    }
    if path.len() > UNIX_PATH_BYTES_MAX {
        return Err(Refusal::why(format!("the path of a unix socket has at most {UNIX_PATH_BYTES_MAX} bytes")));
    }
    Ok(Some(PathBuf::from(path)))
}

/// Why a text is no `IP:PORT`.
fn refused_address(written: &str) -> Refusal {
    if let Some(rest) = ["http://", "https://", "tcp://"].iter().find_map(|scheme| written.strip_prefix(scheme)) {
        return Refusal::why("an address has no scheme")
            .help(format!("did you mean {:?}?", rest.trim_end_matches('/')));
    }
    if written.starts_with('/') {
        return Refusal::plain().help(format!("did you mean \"unix:{written}\"?"));
    }
    if let Ok(ip) = written.parse::<IpAddr>() {
        let shown = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
        return Refusal::why("the port is missing").help(format!("did you mean \"{shown}:8080\"?"));
    }
    if let Some((host, port)) = written.rsplit_once(':') {
        if host.contains(':') && host.parse::<IpAddr>().is_ok() {
            return Refusal::why("an IPv6 address stands in brackets")
                .help(format!("did you mean \"[{host}]:{port}\"?"));
        }
        let named = host.bytes().any(|b| b.is_ascii_alphabetic()) && !host.contains(['[', ':']);
        if named && port.parse::<u16>().is_ok() {
            let loopback = (host == "localhost").then(|| format!("did you mean \"{}:{port}\"?", Ipv4Addr::LOCALHOST));
            let why = Refusal::why(format!("host names are not resolved, and {host:?} is one"));
            return loopback.map_or(why.clone(), |help| why.help(help));
        }
    }
    Refusal::plain()
}

/// A network, `"10.0.0.0/8"`; an address alone is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(pub IpNet);

impl Scalar for Network {
    fn allowed() -> String {
        "a network or an address, such as \"10.0.0.0/8\", \"2001:db8::/32\" or \"192.0.2.7\"".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        let network = written.parse().or_else(|_| written.parse::<IpAddr>().map(IpNet::from));
        let network: IpNet = network.map_err(|_| Refusal::plain())?;
        if network.trunc() == network {
            return Ok(Self(network));
        }
        let why = format!("bits are set beyond the first {}", network.prefix_len());
        Err(Refusal::why(why).help(format!("did you mean \"{}\"?", network.trunc())))
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string" })
    }
}

/// `match.host`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host(pub HostMatch);

impl Scalar for Host {
    fn allowed() -> String {
        "a host such as \"api.example.com\", \"*.example.com\" or \"192.0.2.1\", without port".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let host = text(value)?.to_ascii_lowercase();
        if host == "*" {
            return Err(Refusal::why("a route without host takes any").help("leave `host` out"));
        }
        if host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).is_some_and(|ip| ip.parse::<IpAddr>().is_ok())
        {
            return Ok(Self(HostMatch::Exact(host)));
        }
        if let Some((name, port)) = host.rsplit_once(':')
            && port.parse::<u16>().is_ok()
            && !name.contains(':')
        {
            return Err(Refusal::why("a host has no port here").help(format!("did you mean {name:?}?")));
        }
        let (wild, name) = host.strip_prefix("*.").map_or((false, host.as_str()), |name| (true, name));
        check_host(name)?;
        let name = name.to_owned();
        Ok(Self(if wild { HostMatch::Wildcard(name) } else { HostMatch::Exact(name) }))
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1, "maxLength": 255 })
    }
}

/// Labels as in RFC 1123 §2.1, and the underscore, which real names have.
fn check_host(name: &str) -> Result<(), Refusal> {
    if name.contains('*') {
        return Err(Refusal::why("a wildcard stands only for the first labels, as \"*.\""));
    }
    if !name.is_ascii() {
        return Err(Refusal::why("a host has only ASCII characters: write its punycode form (xn--…)"));
    }
    let label = |label: &str| {
        let clean = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        clean && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.len() > 253 {
        return Err(Refusal::why("a host has at most 253 characters"));
    }
    match name.split('.').find(|part| !label(part)) {
        None => Ok(()),
        Some("") => Err(Refusal::why("a label is empty")),
        Some(part) => Err(Refusal::why(format!("{part:?} is no label of a host"))),
    }
}

/// An entry of `match.method`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodText(pub Method);

impl Scalar for MethodText {
    fn allowed() -> String {
        "a method such as \"GET\", in upper case".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        if written.bytes().any(|b| b.is_ascii_lowercase()) {
            let help = format!("did you mean {:?}?", written.to_ascii_uppercase());
            return Err(Refusal::why("methods are case-sensitive (RFC 9110 §9.1)").help(help));
        }
        if written == "CONNECT" {
            return Err(Refusal::why("the gateway opens no tunnels: CONNECT never reaches a route"));
        }
        if written.len() > METHOD_BYTES_MAX {
            return Err(Refusal::why(format!(
                "longer than {METHOD_BYTES_MAX} bytes, which no request's method may be"
            )));
        }
        Method::from_bytes(written.as_bytes()).map(Self).map_err(|_| Refusal::plain())
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// A header's name, in lower case once read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header(pub HeaderName);

impl Scalar for Header {
    fn allowed() -> String {
        "a header name such as \"x-request-id\" (letters, digits and !#$%&'*+-.^_`|~)".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        header(text(value)?).map(Self)
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

fn header(name: &str) -> Result<HeaderName, Refusal> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| match name.strip_suffix(':') {
        Some(bare) => Refusal::plain().help(format!("did you mean {bare:?}?")),
        None => Refusal::plain(),
    })
}

/// A header's name in `set` and `remove`: not one that belongs to the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EditableHeader(pub HeaderName);

/// RFC 9110 §7.6.1 and RFC 9113 §8.2.2, what decides the body's length (RFC 9112 §6), and `Expect`, which the gateway answers.
const CONNECTION_HEADERS: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Scalar for EditableHeader {
    fn allowed() -> String {
        Header::allowed()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let name = header(text(value)?)?;
        if CONNECTION_HEADERS.contains(&name.as_str()) {
            let why =
                format!("{name} belongs to the connection (RFC 9110 §7.6.1), and the gateway sets or drops it itself");
            return Err(Refusal::why(why));
        }
        Ok(Self(name))
    }

    fn schema() -> serde_json::Value {
        Header::schema()
    }
}

/// A header's value: visible ASCII, spaces and tabs inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderText(pub HeaderValue);

impl Scalar for HeaderText {
    fn allowed() -> String {
        "a header value: visible ASCII characters, spaces and tabs only between them".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        let trimmed = written.trim_matches([' ', '\t']) == written;
        let value = HeaderValue::from_str(written).ok().filter(|value| trimmed && value.as_bytes().is_ascii());
        value.map(Self).ok_or_else(Refusal::plain)
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string" })
    }
}

/// A name that access logs hide: of a header or a query parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redacted(pub String);

impl Scalar for Redacted {
    fn allowed() -> String {
        "the name of a header or a query parameter".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let name = text(value)?;
        let clean = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
        if clean { Ok(Self(name.to_ascii_lowercase())) } else { Err(Refusal::plain()) }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1, "maxLength": NAME_BYTES_MAX })
    }
}

/// `access_log.path`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogTo(pub LogPath);

impl Scalar for LogTo {
    fn allowed() -> String {
        "\"stdout\" or the absolute path of a file".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        match text(value)? {
            "stdout" => Ok(Self(LogPath::Stdout)),
            path if path.starts_with('/') && !path.ends_with('/') && !path.contains('\0') => {
                Ok(Self(LogPath::File(PathBuf::from(path))))
            }
            other => Err(Refusal { why: None, help: did_you_mean(other, ["stdout"]) }),
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^(stdout|/.*[^/])$" })
    }
}

/// `limit.per`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitPer(pub LimitKey);

impl Scalar for LimitPer {
    fn allowed() -> String {
        "one of route, client_ip, header:NAME".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        match keyed(text(value)?) {
            ("route", None) => Ok(Self(LimitKey::Route)),
            ("client_ip", None) => Ok(Self(LimitKey::ClientIp)),
            ("header", Some(name)) => Ok(Self(LimitKey::Header(header(name)?))),
            (word, name) => Err(refused_key(word, name, &["route", "client_ip"], &["header"])),
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^(route|client_ip|header:.+)$" })
    }
}

/// `upstream.hash`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hash(pub HashKey);

impl Scalar for Hash {
    fn allowed() -> String {
        "one of client_ip, path, header:NAME, cookie:NAME".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        match keyed(text(value)?) {
            ("client_ip", None) => Ok(Self(HashKey::ClientIp)),
            ("path", None) => Ok(Self(HashKey::Path)),
            ("header", Some(name)) => Ok(Self(HashKey::Header(header(name)?))),
            // a cookie's name is a token as a header's is (RFC 6265 §4.1.1), but keeps its case
            ("cookie", Some(name)) => header(name).map(|_| Self(HashKey::Cookie(name.to_owned()))),
            (word, name) => Err(refused_key(word, name, &["client_ip", "path"], &["header", "cookie"])),
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^(client_ip|path|(header|cookie):.+)$" })
    }
}

/// `word` or `word:name`
fn keyed(written: &str) -> (&str, Option<&str>) {
    written.split_once(':').map_or((written, None), |(word, name)| (word, Some(name)))
}

fn refused_key(word: &str, name: Option<&str>, bare: &[&str], named: &[&str]) -> Refusal {
    if name.is_none() && named.contains(&word) {
        return Refusal::why(format!("the {word}'s name is missing")).help(format!("write \"{word}:NAME\""));
    }
    let near = nearest(word, bare.iter().chain(named).copied());
    let help = near.map(|near| match name {
        Some(name) if named.contains(&near) => format!("did you mean \"{near}:{name}\"?"),
        _ => format!("did you mean {near:?}?"),
    });
    Refusal { why: None, help }
}

/// An entry of `retry.on`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryWord {
    /// No connection.
    Connect,
    /// Broken before a head.
    Reset,
    /// No head in time.
    Timeout,
    /// This status.
    Status(StatusCode),
}

impl Scalar for RetryWord {
    fn allowed() -> String {
        "one of connect, reset, timeout, or a status from \"400\" to \"599\"".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        if let Some(status) = integer(value) {
            return Err(Refusal::plain().help(format!("with quotes: \"{status}\"")));
        }
        match text(value)? {
            "connect" => Ok(Self::Connect),
            "reset" => Ok(Self::Reset),
            "timeout" => Ok(Self::Timeout),
            "5xx" => Err(Refusal::plain().help("name the statuses: \"500\", \"502\", \"503\", \"504\"")),
            other => {
                let status = other.parse::<u16>().ok().filter(|status| (400..=599).contains(status));
                let status = status.and_then(|status| StatusCode::from_u16(status).ok());
                let help = did_you_mean(other, ["connect", "reset", "timeout"]);
                status.map(Self::Status).ok_or(Refusal { why: None, help })
            }
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^(connect|reset|timeout|[45][0-9][0-9])$" })
    }
}

/// `health_check.expect`: a status or an inclusive range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expect(pub u16, pub u16);

impl Scalar for Expect {
    fn allowed() -> String {
        "a status from 200 to 599 or a range of them, such as \"200\" or \"200-399\"".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        if let Some(status) = integer(value) {
            return Err(Refusal::plain().help(format!("with quotes: \"{status}\"")));
        }
        let written = text(value)?;
        let (low, high) = written.split_once('-').unwrap_or((written, written));
        let status = |text: &str| text.trim().parse::<u16>().ok().filter(|status| (200..=599).contains(status));
        let (low, high) = status(low).zip(status(high)).ok_or_else(Refusal::plain)?;
        if low <= high { Ok(Self(low, high)) } else { Err(Refusal::why("the range is empty")) }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^[2-5][0-9][0-9](-[2-5][0-9][0-9])?$" })
    }
}

scalar_schema!(
    Name,
    Workers,
    Cores,
    Listen,
    At,
    Network,
    Host,
    MethodText,
    Header,
    EditableHeader,
    HeaderText,
    Redacted,
    LogTo,
    LimitPer,
    Hash,
    RetryWord,
    Expect,
);
