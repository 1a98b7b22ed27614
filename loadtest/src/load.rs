//! A load as it is described: what is asked, how often, for how long, over which connections.

use crate::wire::{Head, TlsClient};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// Targets of one mix.
pub const TARGETS_MAX: usize = 64;
/// How it calls itself.
const USER_AGENT: &str = concat!("ringgate-load/", env!("CARGO_PKG_VERSION"));
/// Requests under way on one connection of HTTP/2.
pub const STREAMS_MAX: u32 = 1_000;
/// The same where it is not said: what servers allow at least (RFC 9113 §6.5.2).
pub const STREAMS: u32 = 100;

/// What is offered to one server.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where connections go.
    pub address: SocketAddr,
    /// How TLS is spoken there; `None`: it is not.
    pub tls: Option<TlsClient>,
    /// What is spoken.
    pub protocol: Protocol,
    /// What is asked there; at least one, [`TARGETS_MAX`] at most.
    pub targets: Arc<[Target]>,
    /// When requests are due.
    pub pace: Pace,
    /// Requests that are due before this are made and not judged: caches and pools fill.
    pub warm_up: Duration,
    /// Over which requests are due that are judged, after [`Load::warm_up`].
    pub length: Duration,
    /// Ends of phases within `length`, ascending; empty for one phase.
    pub phases: Vec<Duration>,
    /// What the rate is multiplied with in each phase; empty: nothing. The warm-up is as the first one.
    pub factors: Vec<f64>,
    /// Whether a phase answers for what was under way when it began and failed after that, as one does whose begin does harm; empty: none does.
    pub harms: Vec<bool>,
    /// Length of a slice of the time series.
    pub slice: Duration,
    /// Connections that are opened at the start, over all threads.
    pub connections: usize,
    /// Connections there may be when all are busy, over all threads; at least `connections`.
    pub connections_max: usize,
    /// Each connection serves one request, and none waits open.
    pub reconnects: bool,
    /// From a request's due time: later answers are failures.
    pub timeout: Duration,
    /// Cores of the generator's threads, one each; empty for one thread that is not pinned.
    pub cores: Vec<usize>,
    /// No service that is measured runs on them: the generator may go before everybody else there.
    pub is_alone: bool,
    /// Of arrivals and of the mix; printed.
    pub seed: u64,
}

impl Load {
    /// What is spoken, in words.
    #[must_use]
    pub fn protocol(&self) -> String {
        let over = if self.tls.is_some() { " over TLS" } else { "" };
        match self.protocol {
            Protocol::Http1 => format!("HTTP/1.1{over}"),
            Protocol::Http2 { streams: 1 } => format!("HTTP/2{over}, 1 stream a connection"),
            Protocol::Http2 { streams } => format!("HTTP/2{over}, {streams} streams a connection"),
        }
    }

    /// The same over `length` in slices of that, without phases.
    #[must_use]
    pub fn in_one_phase(self, length: Duration, slice: Duration) -> Self {
        Self { length, slice, phases: Vec::new(), factors: Vec::new(), harms: Vec::new(), ..self }
    }
}

/// What is spoken with a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1: one request at a time on a connection.
    #[default]
    Http1,
    /// HTTP/2: by ALPN over TLS, known beforehand without (RFC 9113 §3.2, §3.3).
    Http2 {
        /// Requests that may be under way on a connection, 1 to [`STREAMS_MAX`]; fewer where the server allows fewer.
        streams: usize,
    },
}

impl Protocol {
    /// Requests that may be under way on one connection.
    #[must_use]
    pub fn streams(self) -> usize {
        match self {
            Self::Http1 => 1,
            Self::Http2 { streams } => streams,
        }
    }
}

/// When requests are due.
#[derive(Clone, Debug)]
pub enum Pace {
    /// Independent of each other, so many a second on average: what many users look like.
    Poisson(f64),
    /// Evenly spaced, so many a second.
    Even(f64),
    /// As they once came: time from the start and row of [`Load::targets`], ascending.
    Recorded(Arc<[(Duration, u32)]>),
    /// As fast as answers come, over [`Load::connections`]: saturation, which has no latency to speak of.
    Closed,
}

impl Pace {
    /// Requests a second, where that is decided beforehand.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        match self {
            Self::Poisson(rate) | Self::Even(rate) => Some(*rate),
            Self::Recorded(times) => {
                let last = times.last().map_or(0.0, |(at, _)| at.as_secs_f64());
                (last > 0.0).then(|| times.len() as f64 / last)
            }
            Self::Closed => None,
        }
    }
}

/// One kind of request, and which answer to it is a good one.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Its name in results; the path where none is given.
    pub name: String,
    /// Its part of all requests is this to the sum of all; more than 0.
    pub weight: f64,
    /// Such as `GET`.
    pub method: String,
    /// The request's bytes over HTTP/1.1: head and body, as they are sent.
    pub bytes: Arc<[u8]>,
    /// Where the body stands in them.
    pub body_at: usize,
    /// The head as HTTP/2 says it.
    pub head: Arc<Head>,
    /// Statuses that are good.
    pub status: RangeInclusive<u16>,
    /// What a good answer's body contains, as bytes; `None`: anything.
    pub body_has: Option<Arc<[u8]>>,
}

impl Target {
    /// A request of these parts; `Host`, and `Content-Length` where there is a body, are added unless they are among `fields`.
    #[must_use]
    pub fn new(
        method: &str,
        host: &str,
        path: &str,
        fields: &[(String, String)],
        body: &[u8],
        reconnects: bool,
    ) -> Self {
        let given = |name: &str| fields.iter().any(|(field, _)| field.eq_ignore_ascii_case(name));
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        let mut add = |name: &str, value: &str| {
            head.extend([name, ": ", value, "\r\n"]);
        };
        if !given("host") {
            add("Host", host);
        }
        if !given("user-agent") {
            add("User-Agent", USER_AGENT);
        }
        for (name, value) in fields {
            add(name, value);
        }
        let authority =
            fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")).map_or(host, |(_, host)| host);
        let mut sent: Vec<_> = fields.to_vec();
        if !given("user-agent") {
            sent.insert(0, ("user-agent".to_owned(), USER_AGENT.to_owned()));
        }
        let may_have_body = !matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "DELETE");
        if (!body.is_empty() || may_have_body) && !given("content-length") {
            add("Content-Length", &body.len().to_string());
            sent.push(("content-length".to_owned(), body.len().to_string()));
        }
        if reconnects && !given("connection") {
            add("Connection", "close");
        }
        head.push_str("\r\n");
        Self {
            name: path.to_owned(),
            weight: 1.0,
            method: method.to_owned(),
            bytes: [head.as_bytes(), body].concat().into(),
            body_at: head.len(),
            head: Arc::new(Head::new(method, authority, path, &sent)),
            status: 200..=299,
            body_has: None,
        }
    }

    /// Empty where there is none.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.bytes[self.body_at..]
    }
}

/// Ten seconds after a second of warm-up.
#[cfg(test)]
pub(crate) fn load_for_tests() -> Load {
    Load {
        address: SocketAddr::from(([127, 0, 0, 1], 1)),
        tls: None,
        protocol: Protocol::Http1,
        targets: [Target::new("GET", "a.test", "/", &[], b"", false)].into(),
        pace: Pace::Poisson(1_000.0),
        warm_up: Duration::from_secs(1),
        length: Duration::from_secs(10),
        phases: Vec::new(),
        factors: Vec::new(),
        harms: Vec::new(),
        slice: Duration::from_secs(1),
        connections: 4,
        connections_max: 64,
        reconnects: false,
        timeout: Duration::from_secs(5),
        cores: Vec::new(),
        is_alone: false,
        seed: 7,
    }
}
