//! Numbers and texts of a plan with their units and ranges, where the gateway's configuration has none that fits.
//!
//! Times of a plan's own making are as in the configuration (`"250ms"`, `"2s"`); bounds of latency may also be microseconds (`"500us"`),
//! which matter here and nowhere else.

use crate::gateways::Kind;
use ringgate::config::reading::{
    DeValue, HOUR, PerTime, Refusal, Scalar, Time, integer, json, measure, number, scalar_schema, text, words,
};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

/// Longest request target, bytes: what common servers read at least (RFC 9112 §3 recommends 8,000).
pub(super) const PATH_BYTES_MAX: usize = 8_192;
/// Longest body that stands in a plan itself, bytes; larger ones stand in a file.
pub(super) const BODY_BYTES_MAX: usize = 1 << 20;
/// Longest part of an answer's body that is looked for, bytes.
pub(super) const BODY_HAS_BYTES_MAX: usize = 8_192;
/// Highest rate that one plan may offer, requests a second: far beyond what one machine makes.
pub(super) const RATE_MAX: u64 = 10_000_000;
/// Highest peak of a fleet, requests a second.
pub(super) const PEAK_MAX: u64 = 1_000_000_000;

/// Units of short times in microseconds.
const SHORT_UNITS: &[(&str, u64)] = &[("us", 1), ("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000)];
const SHORT_UNITS_MEANT: &[(&str, &str)] = &[
    ("µs", "us"),
    ("μs", "us"),
    ("usec", "us"),
    ("msec", "ms"),
    ("sec", "s"),
    ("second", "s"),
    ("seconds", "s"),
    ("min", "m"),
    ("minutes", "m"),
];

/// A time in microseconds or longer units, `1us` to `10m`.
///
/// # Errors
/// It is none, or 0 where `is_zero_allowed` is false, or longer.
pub(super) fn short_time(written: &str, is_zero_allowed: bool) -> Result<Duration, Refusal> {
    let micros = measure(written, SHORT_UNITS, SHORT_UNITS_MEANT)?;
    let fits = (u64::from(!is_zero_allowed)..=600_000_000).contains(&micros);
    if fits { Ok(Duration::from_micros(micros)) } else { Err(Refusal::why("a time here is at most 10m, and not 0")) }
}

/// A bound of latency, 1us to 10m.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency(pub Duration);

impl Scalar for Latency {
    fn allowed() -> String {
        "a duration from 1us to 10m, such as \"500us\" or \"5ms\" (units: us, ms, s, m)".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        if let Some(number) = bare_number(value) {
            return Err(Refusal::why("a duration has a unit").help(format!("did you mean \"{number}ms\"?")));
        }
        let micros = measure(text(value)?, SHORT_UNITS, SHORT_UNITS_MEANT)?;
        let fits = (1..=600_000_000).contains(&micros);
        if fits { Ok(Self(Duration::from_micros(micros))) } else { Err(Refusal::plain()) }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?(us|ms|s|m)$" })
    }
}

/// Requests a second, 1 to `MAX`, written as rates of the configuration are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Requests<const MAX: u64>(pub f64);

impl<const MAX: u64> Scalar for Requests<MAX> {
    fn allowed() -> String {
        format!("a rate from \"1/s\" to \"{MAX}/s\", such as \"2000/s\" or \"120000/min\"")
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let abbreviated = value.as_str().and_then(in_full);
        if let Some(help) = abbreviated {
            return Err(Refusal::why("a rate is written in full").help(format!("did you mean \"{help}/s\"?")));
        }
        if let Some(number) = bare_number(value) {
            return Err(Refusal::why("a rate has a time").help(format!("did you mean \"{number}/s\"?")));
        }
        let rate = PerTime::parse(value)?.0;
        let rate = rate.count() as f64 / rate.per().as_secs_f64();
        if (1.0..=MAX as f64).contains(&rate) { Ok(Self(rate)) } else { Err(Refusal::plain()) }
    }

    fn schema() -> serde_json::Value {
        PerTime::schema()
    }
}

/// A whole number without its unit, with quotes or without.
fn bare_number(value: &DeValue<'_>) -> Option<u64> {
    integer(value).or_else(|| value.as_str()?.trim().parse().ok())
}

/// `200k` and `1.5M/s` in full, digit by digit.
fn in_full(written: &str) -> Option<u64> {
    let bare = written.strip_suffix("/s").unwrap_or(written).trim();
    let (count, factor) = match bare.strip_suffix(['k', 'K']) {
        Some(count) => (count, 1e3),
        None => (bare.strip_suffix('M')?, 1e6),
    };
    let count: f64 = count.trim().parse().ok()?;
    (0.0..=1e6).contains(&count).then_some((count * factor).round() as u64)
}

/// A phase's rate: a factor of the load's, 0 to 100, or a rate of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PhaseRate {
    /// Of the load's rate.
    Factor(f64),
    /// Requests a second.
    Absolute(f64),
}

impl Scalar for PhaseRate {
    fn allowed() -> String {
        format!("a factor of the load's rate from 0 to 100, such as 1.5, or a rate up to \"{RATE_MAX}/s\"")
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        match number(value) {
            Some(factor) if (0.0..=100.0).contains(&factor) => Ok(Self::Factor(factor)),
            Some(rate) if rate > 100.0 => Err(Refusal::plain().help(format!("did you mean \"{rate}/s\"?"))),
            Some(_) => Err(Refusal::plain()),
            None => Requests::<RATE_MAX>::parse(value).map(|rate| Self::Absolute(rate.0)),
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "anyOf": [{ "type": "number", "minimum": 0, "maximum": 100 }, PerTime::schema()] })
    }
}

/// How many failures may be: a whole number of requests, or a share of those that were due.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Allowed {
    /// Requests.
    Count(u64),
    /// 0 to 1.
    Share(f64),
}

impl Scalar for Allowed {
    fn allowed() -> String {
        "a whole number of requests, or a share such as \"0.1%\" or 0.001".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        match value {
            DeValue::Integer(_) => integer(value).map(Self::Count).ok_or_else(Refusal::plain),
            _ => ringgate::config::reading::Share::parse(value).map(|share| Self::Share(share.0.get())),
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "anyOf": [{ "type": "integer", "minimum": 0 }, ringgate::config::reading::Share::schema()] })
    }
}

impl Allowed {
    /// Whether `failed` of `due` requests are no more than this.
    #[must_use]
    pub fn permits(self, failed: u64, due: u64) -> bool {
        match self {
            Self::Count(count) => failed <= count,
            Self::Share(share) => failed as f64 <= share * due as f64,
        }
    }
}

impl std::fmt::Display for Allowed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Share(share) => write!(f, "{} %", (share * 1e8).round() / 1e6),
        }
    }
}

/// Requests that upstreams see for each of a client, 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Amplification(pub f64);

impl Scalar for Amplification {
    fn allowed() -> String {
        "a number from 1 to 100, such as 1.3".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        number(value).filter(|n| (1.0..=100.0).contains(n)).map(Self).ok_or_else(Refusal::plain)
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "number", "minimum": 1, "maximum": 100 })
    }
}

/// How much faster than it happened a log is replayed, 0.01 to 1000.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed(pub f64);

impl Scalar for Speed {
    fn allowed() -> String {
        "a factor from 0.01 to 1000, such as 2.0 for twice as fast".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        number(value).filter(|n| (0.01..=1_000.0).contains(n)).map(Self).ok_or_else(Refusal::plain)
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "number", "minimum": 0.01, "maximum": 1000 })
    }
}

/// What a request asks for: a path with its query, as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPath(pub String);

impl Scalar for RequestPath {
    fn allowed() -> String {
        format!("a path of at most {PATH_BYTES_MAX} bytes, with a query or not, such as \"/orders?page=2\"")
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        if !written.starts_with('/') {
            let help = (!written.is_empty()).then(|| format!("did you mean \"/{written}\"?"));
            return Err(Refusal { why: Some("a path begins with /".to_owned()), help });
        }
        if let Some(wrong) = written.chars().find(|c| !c.is_ascii_graphic() || *c == '#') {
            return Err(Refusal::why(format!("{wrong:?} stands percent-encoded in a path")));
        }
        if written.len() <= PATH_BYTES_MAX { Ok(Self(written.to_owned())) } else { Err(Refusal::plain()) }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^/", "maxLength": PATH_BYTES_MAX })
    }
}

/// A text of 0 to `MAX` bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text<const MIN: u64, const MAX: u64>(pub String);

impl<const MIN: u64, const MAX: u64> Scalar for Text<MIN, MAX> {
    fn allowed() -> String {
        format!("a text of {MIN} to {MAX} bytes")
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        let fits = (MIN..=MAX).contains(&(written.len() as u64));
        if fits { Ok(Self(written.to_owned())) } else { Err(Refusal::plain()) }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": MIN, "maxLength": MAX })
    }
}

/// The name of a file, from the folder of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileName(pub String);

impl Scalar for FileName {
    fn allowed() -> String {
        "the name of a file, as seen from the folder of the plan".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        let fits = (1..4_096).contains(&written.len()) && !written.contains('\0');
        if fits { Ok(Self(written.to_owned())) } else { Err(Refusal::plain()) }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// A server that is there already: `http://HOST:PORT/PATH`, or the same with `https`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// As it was written.
    pub text: String,
    /// `https`.
    pub is_tls: bool,
    /// Host and port, as requests say them.
    pub authority: String,
    /// Without brackets.
    pub host: String,
    /// 80 where it is not given, 443 with TLS.
    pub port: u16,
    /// Path and query; `/` where none is given.
    pub path: String,
}

impl Url {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it, in words, and what was probably meant.
    pub fn try_new(written: &str) -> Result<Self, (String, Option<String>)> {
        let refuse = |why: &str, help: Option<String>| Err((why.to_owned(), help));
        let is_tls = written.starts_with("https://");
        let Some(rest) = written.strip_prefix(if is_tls { "https://" } else { "http://" }) else {
            return match written.split_once("://") {
                Some((scheme, rest)) => {
                    refuse(&format!("{scheme}:// is not spoken here"), Some(format!("did you mean \"http://{rest}\"?")))
                }
                None => {
                    refuse("a URL begins with http:// or https://", Some(format!("did you mean \"http://{written}\"?")))
                }
            };
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = (&rest[..end], &rest[end..]);
        if authority.contains('@') {
            return refuse("a user in a URL is not sent: write the header Authorization instead", None);
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !authority.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let port =
            port.map_or(Ok(if is_tls { 443 } else { 80 }), |port| port.parse::<u16>()).ok().filter(|port| *port > 0);
        let Some(port) = port else { return refuse("a port is a number from 1 to 65535", None) };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_name = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        if !bare.map_or(is_name, |ip| ip.parse::<std::net::Ipv6Addr>().is_ok()) {
            return refuse("the host is none: a name, an IPv4 address or an IPv6 address in brackets", None);
        }
        if path.len() > PATH_BYTES_MAX || !path.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            return refuse("a path has only visible ASCII characters, without #", None);
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let host = bare.unwrap_or(host).to_owned();
        Ok(Self { text: written.to_owned(), is_tls, authority: authority.to_owned(), host, port, path })
    }

    /// Where its connections go: the first address that the system's resolver gives, and on this machine the first one where somebody listens.
    ///
    /// # Errors
    /// The name is not known.
    pub fn resolve(&self) -> std::io::Result<SocketAddr> {
        let unknown = || std::io::Error::new(std::io::ErrorKind::NotFound, format!("no address for {}", self.host));
        let addresses: Vec<_> = (self.host.as_str(), self.port).to_socket_addrs()?.collect();
        crate::url::answering(&addresses).ok_or_else(unknown)
    }
}

/// Whether nothing that is sent there leaves this machine. An address of the machine's own network card is not asked for: a tool that may
/// flood others errs on the side of asking.
#[must_use]
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// A [`Url`] of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlText(pub Url);

impl Scalar for UrlText {
    fn allowed() -> String {
        "a URL such as \"http://127.0.0.1:8080/\"".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        Url::try_new(text(value)?).map(Self).map_err(|(why, help)| Refusal { why: Some(why), help })
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^https?://" })
    }
}

words! {
    /// `load.pace`: when requests are due.
    PaceWord {
        /// Independent of each other.
        Poisson = "poisson",
        /// Evenly spaced.
        Even = "even",
        /// As fast as answers come.
        Closed = "closed",
    }
}

words! {
    /// What is spoken.
    ProtocolWord {
        /// HTTP/1.1.
        Http1 = "http1",
        /// HTTP/2.
        H2 = "h2",
    }
}

words! {
    /// A gateway that can be started.
    KindWord {
        /// ringgate.
        Ringgate = "ringgate",
        /// nginx.
        Nginx = "nginx",
        /// HAProxy.
        Haproxy = "haproxy",
        /// Envoy.
        Envoy = "envoy",
    }
}

impl From<KindWord> for Kind {
    fn from(word: KindWord) -> Self {
        match word {
            KindWord::Ringgate => Self::Ringgate,
            KindWord::Nginx => Self::Nginx,
            KindWord::Haproxy => Self::Haproxy,
            KindWord::Envoy => Self::Envoy,
        }
    }
}

/// A length of time in a plan, 1ms to 1h, where 0 would mean nothing.
pub(super) type Span = Time<1, HOUR>;

scalar_schema!(
    Latency,
    Requests<MAX>,
    PhaseRate,
    Allowed,
    Amplification,
    Speed,
    RequestPath,
    Text<MIN, MAX>,
    FileName,
    UrlText,
);

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Scalar>(toml: &str) -> Result<T, Refusal> {
        T::parse(DeValue::parse(toml).expect("it is TOML").get_ref())
    }

    #[test]
    fn urls_are_taken_apart() {
        let url = Url::try_new("http://[::1]:8080/a?b=c").expect("it is one");
        assert_eq!((url.authority.as_str(), url.host.as_str(), url.port), ("[::1]:8080", "::1", 8080));
        assert_eq!(url.path, "/a?b=c");
        let url = Url::try_new("http://api.example").expect("it is one");
        assert_eq!((url.port, url.path.as_str()), (80, "/"));
        assert_eq!(Url::try_new("http://a?x").expect("it is one").path, "/?x");
        for wrong in
            ["", "http://", "http://a b", "http://a:0", "http://a:99999", "http://[x]/", "http://u@a/", "http://a/#f"]
        {
            assert!(Url::try_new(wrong).is_err(), "{wrong}");
        }
        let url = Url::try_new("https://a/").expect("it is one");
        assert_eq!((url.is_tls, url.port), (true, 443));
        let (_, help) = Url::try_new("127.0.0.1:80").unwrap_err();
        assert_eq!(help.as_deref(), Some("did you mean \"http://127.0.0.1:80\"?"));
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (address, expected) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.1", false),
            ("::", false),
        ] {
            assert_eq!(is_loopback(address.parse().expect("an address")), expected, "{address}");
        }
    }

    #[test]
    fn rates_have_a_range_and_are_written_in_full() {
        assert_eq!(read::<Requests<RATE_MAX>>("\"2000/s\"").expect("it is one").0, 2_000.0);
        assert_eq!(read::<Requests<RATE_MAX>>("\"120/min\"").expect("it is one").0, 2.0);
        for wrong in ["\"0/s\"", "\"10000001/s\"", "\"1/h\"", "\"x\"", "true"] {
            assert!(read::<Requests<RATE_MAX>>(wrong).is_err(), "{wrong}");
        }
        let help = |toml: &str| read::<Requests<RATE_MAX>>(toml).unwrap_err().help.unwrap_or_default();
        assert!(help("\"200k\"").contains("\"200000/s\"") && help("2000").contains("\"2000/s\""));
        assert_eq!(read::<PhaseRate>("0").expect("it is one"), PhaseRate::Factor(0.0));
        assert_eq!(read::<PhaseRate>("\"300/s\"").expect("it is one"), PhaseRate::Absolute(300.0));
        assert!(read::<PhaseRate>("300").unwrap_err().help.unwrap().contains("\"300/s\""));
    }

    #[test]
    fn bounds_may_be_microseconds_and_allowances_are_counts_or_shares() {
        assert_eq!(read::<Latency>("\"0.5ms\"").expect("it is one").0, Duration::from_micros(500));
        assert_eq!(read::<Latency>("\"500us\"").expect("it is one").0, Duration::from_micros(500));
        for wrong in ["\"0us\"", "\"11m\"", "5", "\"5\"", "\"1h\""] {
            assert!(read::<Latency>(wrong).is_err(), "{wrong}");
        }
        let read = |toml| read::<Allowed>(toml).expect("it is one");
        assert_eq!(
            [read("0"), read("0.5"), read("\"1%\"")],
            [Allowed::Count(0), Allowed::Share(0.5), Allowed::Share(0.01)]
        );
        assert!(Allowed::Share(0.01).permits(1, 100) && !Allowed::Share(0.01).permits(2, 100));
        assert!(Allowed::Count(1).permits(1, 2) && !Allowed::Count(0).permits(1, 100));
    }
}
