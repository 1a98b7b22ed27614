//! Addresses, networks and hosts as the file writes them.
//!
//! Nothing is looked up here: names of endpoints are asked for while the gateway runs. `match.host` compares names and never resolves them.

use super::problem::{Refusal, did_you_mean, is_unprintable};
use super::read::Scalar;
use super::tables::scalar_schema;
use super::values::text;
use super::{Address, Bind, HostMatch, Lookup};
use ipnet::IpNet;
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use toml::de::DeValue;

/// Longest path of a unix socket (`sun_path` of unix(7), with its final zero).
const UNIX_PATH_BYTES_MAX: usize = 107;
/// More servers than this are asked for nothing: resolv.conf(5) has three.
const NAME_SERVERS_MAX: usize = 8;

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

/// Where an endpoint is, or what tells where its endpoints are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// There.
    Address(Address),
    /// A resolver tells.
    Name(Lookup),
}

impl Scalar for At {
    fn allowed() -> String {
        "IP:PORT, NAME:PORT or unix:/PATH, such as \"10.0.0.1:8080\", \"[2001:db8::1]:8080\", \"app.internal:8080\" or \"unix:/run/app.sock\""
            .to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        if let Some(path) = unix_path(written)? {
            return Ok(Self::Address(Address::Unix(path)));
        }
        if let Some((host, port)) = host_and_port(written) {
            return match port.parse() {
                Ok(0) => Err(Refusal::why("port 0 cannot be connected to")),
                Ok(port) => Ok(Self::Name(Lookup::Host { host: dns_name(host)?, port })),
                Err(_) => Err(Refusal::why("a port is at most 65535")),
            };
        }
        let address: SocketAddr = written.parse().map_err(|_| refused_address(written))?;
        match address {
            _ if address.port() == 0 => Err(Refusal::why("port 0 cannot be connected to")),
            _ if address.ip().is_unspecified() => {
                let loopback = if address.is_ipv4() { "127.0.0.1" } else { "[::1]" };
                let help = format!("did you mean \"{loopback}:{}\"?", address.port());
                Err(Refusal::why("this address means any interface and is not one to connect to").help(help))
            }
            _ => Ok(Self::Address(Address::Tcp(address))),
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string" })
    }
}

/// A name and the digits of a port behind it. What looks like an address is no name.
fn host_and_port(written: &str) -> Option<(&str, &str)> {
    let (host, port) = written.rsplit_once(':')?;
    let last = host.strip_suffix('.').unwrap_or(host).rsplit('.').next()?;
    let is_name = last.bytes().any(|b| b.is_ascii_alphabetic()) && !host.contains(['[', ':', '/']);
    (is_name && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())).then_some((host, port))
}

/// A name as it is asked for: in lower case. The dot that may stand at its end stays: it says that the name is whole (RFC 1034 §3.1), and no
/// domain is tried behind it.
fn dns_name(written: &str) -> Result<String, Refusal> {
    let name = written.to_ascii_lowercase();
    check_host(name.strip_suffix('.').unwrap_or(&name))?;
    Ok(name)
}

/// `srv` of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName(pub String);

impl Scalar for ServiceName {
    fn allowed() -> String {
        "the name of a service (SRV), such as \"_http._tcp.app.internal\"".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        if written.contains(':') {
            return Err(Refusal::why("the records of a service have its ports"));
        }
        dns_name(written).map(Self)
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1, "maxLength": 254 })
    }
}

/// One of `resolver.servers`: an address, with port 53 where it has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameServers(pub Option<Vec<SocketAddr>>);

impl Scalar for NameServers {
    fn allowed() -> String {
        format!("\"system\", or a list of 1 to {NAME_SERVERS_MAX} addresses such as [\"10.0.0.2\", \"10.0.0.3:5353\"]")
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let list = match value {
            DeValue::String(word) if word == "system" => return Ok(Self(None)),
            DeValue::String(word) => return Err(Refusal { why: None, help: did_you_mean(word, ["system"]) }),
            DeValue::Array(list) if (1..=NAME_SERVERS_MAX).contains(&list.len()) => list,
            _ => return Err(Refusal::plain()),
        };
        let server = |entry: &toml::Spanned<DeValue<'_>>| {
            let written = text(entry.get_ref())?;
            let address = written.parse().or_else(|_| written.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)));
            address.map_err(|_| Refusal::why(format!("{written:?} is no address")))
        };
        list.iter().map(server).collect::<Result<_, _>>().map(|servers| Self(Some(servers)))
    }

    fn schema() -> serde_json::Value {
        json!({ "anyOf": [
            { "const": "system" },
            { "type": "array", "items": { "type": "string" }, "minItems": 1, "maxItems": NAME_SERVERS_MAX },
        ] })
    }
}

/// The path of `unix:/path`; `None` for other texts.
fn unix_path(written: &str) -> Result<Option<PathBuf>, Refusal> {
    let Some(path) = written.strip_prefix("unix:") else { return Ok(None) };
    if !path.starts_with('/') || path.contains('\0') {
        return Err(Refusal::why("the path of a unix socket is absolute"));
    }
    if path.chars().any(is_unprintable) {
        return Err(Refusal::why("a character of the path cannot be printed"));
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
        // `::1:8080` is an address of its own, which hardly anybody means
        if let Some((host, port)) = written.rsplit_once(':')
            && host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6())
            && port.parse::<u16>().is_ok_and(|port| port > 0)
        {
            return Refusal::why("an IPv6 address stands in brackets before its port")
                .help(format!("did you mean \"[{host}]:{port}\"?"));
        }
        let shown = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
        return Refusal::why("the port is missing").help(format!("did you mean \"{shown}:8080\"?"));
    }
    if !written.contains(':') && written.bytes().any(|b| b.is_ascii_alphabetic()) && check_host(written).is_ok() {
        return Refusal::why("the port is missing").help(format!("did you mean \"{written}:8080\"?"));
    }
    if let Some((host, port)) = written.rsplit_once(':') {
        let ip = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if ip.parse::<IpAddr>().is_ok()
            && port.len() > 4
            && port.bytes().all(|b| b.is_ascii_digit())
            && port.parse::<u16>().is_err()
        {
            return Refusal::why("a port is at most 65535");
        }
        if host.contains(':') && host.parse::<IpAddr>().is_ok() {
            return Refusal::why("an IPv6 address stands in brackets")
                .help(format!("did you mean \"[{host}]:{port}\"?"));
        }
        let named = host.bytes().any(|b| b.is_ascii_alphabetic()) && !host.contains(['[', ':']);
        if named && port.parse::<u16>().is_ok() {
            let loopback = (host == "localhost").then(|| format!("did you mean \"{}:{port}\"?", Ipv4Addr::LOCALHOST));
            let why = Refusal::why(format!("a gateway listens on addresses, and {host:?} is a name"));
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

/// One of `trusted_proxies`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustedPeer {
    /// Whoever connects from this network.
    Network(IpNet),
    /// Whoever connects through the listener's unix socket.
    Unix,
}

impl Scalar for TrustedPeer {
    fn allowed() -> String {
        format!("{}, or \"unix\" for the peers of a unix socket", Network::allowed())
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        if text(value)? == "unix" {
            return Ok(Self::Unix);
        }
        Network::parse(value).map(|Network(network)| Self::Network(network))
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string" })
    }
}

/// `listener.mode`: permissions of a socket file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl Scalar for FileMode {
    fn allowed() -> String {
        "the permissions of a file in octal, such as \"0666\" or \"0660\"".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let DeValue::String(written) = value else {
            return Err(Refusal::why("permissions stand in quotes").help("write \"0666\""));
        };
        let digits = written.strip_prefix('0').unwrap_or(written);
        let octal = digits.len() == 3 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
        let mode = octal.then(|| u32::from_str_radix(digits, 8).ok()).flatten();
        mode.map(Self).ok_or_else(Refusal::plain)
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^0?[0-7]{3}$" })
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

/// `host` or `host:port` of a URL (RFC 3986 §3.2), without user.
pub(super) fn check_authority(authority: &str) -> Result<(), Refusal> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err() || !port.bytes().all(|b| b.is_ascii_digit())) {
        return Err(Refusal::why(format!("{authority:?} is not a host, or a host and a port")));
    }
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(ip) => {
            ip.parse::<std::net::Ipv6Addr>().map(drop).map_err(|_| Refusal::why(format!("{host:?} is no address")))
        }
        None if host.is_empty() => Err(Refusal::why("the host is missing")),
        None => check_host(&host.to_ascii_lowercase()),
    }
}

/// Labels as in RFC 1123 §2.1, and the underscore, which real names have.
pub(super) fn check_host(name: &str) -> Result<(), Refusal> {
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

scalar_schema!(Listen, At, ServiceName, NameServers, Network, TrustedPeer, FileMode, Host);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::tests::{accepts, refuses};

    #[test]
    fn addresses_have_an_ip_and_a_port_or_are_sockets() {
        accepts::<Listen>(&["0.0.0.0:0", "[::]:8080", "127.0.0.1:65535", "unix:/run/a b.sock"]);
        refuses::<Listen>(&[
            "",
            "8080",
            ":8080",
            "0.0.0.0",
            "::1:80",
            "unix:run/a",
            "/run/a",
            "a.example:80",
            "1.2.3.4:65536",
        ]);
        refuses::<Listen>(&[&format!("unix:/{}", "a".repeat(UNIX_PATH_BYTES_MAX))]);
        accepts::<At>(&["10.0.0.1:80", "[2001:db8::1]:8080", "unix:/a"]);
        refuses::<At>(&["10.0.0.1:0", "0.0.0.0:80", "[::]:80", "http://10.0.0.1:80", "10.0.0.1:80/x"]);
    }

    #[test]
    fn names_have_a_port_and_letters() {
        let name = |host: &str, port| At::Name(Lookup::Host { host: host.to_owned(), port });
        let parse = |text: &str| At::parse(&DeValue::String(text.into()));
        assert_eq!(parse("App.internal:80").unwrap(), name("app.internal", 80));
        assert_eq!(parse("App.internal.:80").unwrap(), name("app.internal.", 80), "the dot says that it is whole");
        assert_eq!(parse("localhost:65535").unwrap(), name("localhost", 65_535));
        assert_eq!(parse("10.0.0.1.example:1").unwrap(), name("10.0.0.1.example", 1));
        refuses::<At>(&[
            "app",
            "app:",
            "app:0",
            "app:65536",
            "app:x",
            "a..b:80",
            "-a:80",
            "10.0.0.256:80",
            "1.2.3:80",
            "app/x:80",
            "*.a:80",
        ]);
        accepts::<ServiceName>(&["_http._tcp.a.example", "a", "a."]);
        refuses::<ServiceName>(&["", ".", "_http._tcp.a:80", "a b"]);
        assert_eq!(parse("app").unwrap_err().help.as_deref(), Some("did you mean \"app:8080\"?"));
    }

    #[test]
    fn name_servers_are_addresses_or_the_system_s() {
        let parse = |text: &str| NameServers::parse(DeValue::parse(text).unwrap().get_ref());
        assert_eq!(parse("\"system\"").unwrap(), NameServers(None));
        let servers = ["10.0.0.2:53", "[::1]:5353"].map(|text| text.parse().unwrap()).to_vec();
        assert_eq!(parse("[\"10.0.0.2\", \"[::1]:5353\"]").unwrap(), NameServers(Some(servers)));
        for wrong in ["\"sytem\"", "[]", "[\"a.example\"]", "[1]", "1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn refused_addresses_come_with_what_was_meant() {
        let help = |text: &str| Listen::parse(&DeValue::String(text.into())).unwrap_err().help.unwrap();
        assert_eq!(help("2001:db8:0:0:0:0:0:1:80"), "did you mean \"[2001:db8:0:0:0:0:0:1]:80\"?");
        assert_eq!(help("::1:8080"), "did you mean \"[::1]:8080\"?");
        assert_eq!(help("fe80::1:80"), "did you mean \"[fe80::1]:80\"?");
        assert_eq!(help("fe80::1:ab"), "did you mean \"[fe80::1:ab]:8080\"?");
        assert_eq!(help("2001:db8::1"), "did you mean \"[2001:db8::1]:8080\"?");
        assert_eq!(help("/run/app.sock"), "did you mean \"unix:/run/app.sock\"?");
        assert_eq!(help("http://10.0.0.1:80/"), "did you mean \"10.0.0.1:80\"?");
        for port in ["10.0.0.1:65536", "[::1]:99999"] {
            let refusal = At::parse(&DeValue::String(port.into())).unwrap_err();
            assert_eq!(refusal.why.as_deref(), Some("a port is at most 65535"), "{port}");
        }
        assert_eq!(help("localhost:80"), "did you mean \"127.0.0.1:80\"?");
    }

    #[test]
    fn networks_have_no_bits_beyond_their_prefix() {
        accepts::<TrustedPeer>(&["unix", "10.0.0.0/8", "192.0.2.7", "::1", "2001:db8::/32", "0.0.0.0/0"]);
        refuses::<TrustedPeer>(&["Unix", "unix:", "10.0.0.1/8", "10.0.0.0/33", "a", ""]);
    }

    #[test]
    fn permissions_are_three_octal_digits_with_a_zero_before_them_or_not() {
        accepts::<FileMode>(&["0666", "660", "0000"]);
        refuses::<FileMode>(&["", "0", "66", "0668", "1777", "00666", "rw-rw-rw-", "+66"]);
        assert_eq!(FileMode::parse(&DeValue::String("0640".into())).unwrap(), FileMode(0o640));
    }

    #[test]
    fn hosts_are_names_or_addresses_without_port() {
        accepts::<Host>(&["a", "A.example", "*.example.com", "xn--bcher-kva.example", "10.0.0.1", "[::1]", "_a.b"]);
        refuses::<Host>(&[
            "",
            "*",
            "*.",
            "*a.example",
            "a.*.example",
            "a..b",
            "a.",
            ".a",
            "-a.b",
            "b\u{fc}cher.example",
            "a:80",
            "a/b",
        ]);
        refuses::<Host>(&["::1", "[::1", "[a]", "a b", &"a".repeat(64), &"a.".repeat(127)]);
    }
}
