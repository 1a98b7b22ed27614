//! The configuration as the gateway uses it: typed, complete, immutable.
//!
//! Two stages: [`mod@file`] mirrors the TOML as it is written, [`check`] reports *all* its errors at once and otherwise makes the
//! [`Config`] of this page. A value of these types is valid by construction, so nothing behind this module checks again.
//! Names, units, defaults and ranges of the file are documented in `config/ringgate.toml`.

mod access_warnings;
mod acme;
mod addresses;
mod answer_keys;
mod bandwidth;
mod by_path;
mod captures;
mod certificate_warnings;
pub mod check;
mod check_consumers;
mod check_guard;
mod check_identity;
mod check_limits;
mod check_match;
mod check_route;
mod check_tokens;
mod check_upstream;
mod compression;
mod conditions;
mod cors;
mod defaults;
mod document;
mod effect_warnings;
mod encryption;
mod error_pages;
mod fetched;
pub mod file;
mod followed;
mod foreign;
mod forward;
mod hosts;
pub(crate) mod identity;
mod identity_keys;
mod knobs;
mod limit_keys;
pub(crate) mod limit_names;
pub(crate) mod location;
pub(crate) mod log_fields;
pub(crate) mod marks;
mod matching;
mod measure;
mod named;
mod names;
mod passwords;
mod paths;
mod pattern;
mod place;
mod probe;
pub mod problem;
mod read;
pub mod reading;
pub(crate) mod redis;
mod retry_word;
mod rewrites;
mod route_warnings;
mod secret;
mod signatures;
mod sticky;
pub(crate) mod strict_json;
mod tables;
#[cfg(test)]
mod tests;
mod texts;
mod tls_keys;
pub(crate) mod token_keys;
mod traffic;
mod values;
mod variables;
mod warnings;

pub use acme::Acme;
pub use bandwidth::{Bandwidth, BandwidthPer, Flow};
pub use by_path::Templates;
pub use captures::{CaptureRoom, Captures};
pub use check::{admin_address, load, parse, place_of_route};
pub use compression::{Compression, ContentCoding, MediaType};
pub use conditions::{Condition, Scheme, Test};
pub use cors::{AllowedHeaders, Cors, CorsOrigin};
pub use defaults::Defaulted;
pub use encryption::{ClientSide, Origin, ServerSide};
pub use error_pages::{ErrorPage, ErrorPiece};
pub use fetched::{FetchedKeys, JwksUrl};
pub use file::schema;
pub use followed::Followed;
pub use forward::{Forward, OnFailure, is_told_anyway};
pub use identity::{
    Access, Auth, ClaimTest, Consumer, Consumers, KeyPlace, NetworkFile, Networks, Proof, Rule, TokenRules,
};
pub use identity_keys::{Digest, IdentityText};
pub use knobs::{ForwardedFor, ProxyVersion, Separators, ServerField, Spill, Underscores};
pub use location::Relocation;
pub(crate) use log_fields::Parameters;
pub use log_fields::{LogField, LogValue};
pub use marks::Mark;
pub use matching::{HostMatch, Match, PathMatch, PathRank};
pub(crate) use matching::{placeholder, segments};
pub use measure::{Measure, lease_tokens};
pub use named::{Answer, Lookup, Manual, Named, Resolver, Told, Wish};
pub use passwords::{Login, Logins, PasswordHash};
pub use pattern::Pattern;
pub use probe::{BodyMatch, GrpcProbe, HttpProbe, Probe};
pub use problem::{Errors, Problem, printable};
pub use redis::{Config as Redis, Place as RedisPlace, WithoutRedis};
pub use rewrites::{PathPiece, QueryRules, Rewrite};
pub use secret::words as secret_words;
pub use signatures::{NonceRule, SignatureAlgorithm, SignatureRules, Signer};
pub use sticky::{SameSite, Sticky, StickyKey};
pub(crate) use token_keys::keys as keys_of;
pub use token_keys::{Algorithm, VerifyKey};
pub use traffic::{Fault, Mirror, SplitKey, Traffic};
pub(crate) use values::bytes;
pub use variables::{OfClient, Piece, Template, Variable};
pub use warnings::warnings;

use crate::units::{AuthId, ClusterId, Ratio, Weight};
use http::{HeaderName, HeaderValue, StatusCode};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// One gateway. Ids of [`crate::units`] are rows of these tables, in file order.
#[derive(Clone, Debug)]
pub struct Config {
    /// Files that its tables stand in besides the one that says so, as written there.
    pub include: Vec<String>,
    /// Workers, cores, driver, drain.
    pub gateway: Gateway,
    /// The admin listener; always there, on loopback unless the file says otherwise.
    pub admin: Admin,
    /// Who is asked for names, and how often.
    pub resolver: Resolver,
    /// `None`: no access log.
    pub access_log: Option<AccessLog>,
    /// At least one.
    pub listeners: Vec<Listener>,
    /// In file order, which is the last tie-break of precedence; behind them the guards, in theirs.
    pub routes: Arc<[Route]>,
    /// In file order.
    pub clusters: Vec<Arc<Cluster>>,
    /// Limits that routes and listeners name, in file order.
    pub limits: Vec<Limit>,
    /// What counts those of them that several gateways share.
    pub redis: Option<Arc<Redis>>,
    /// Who can be recognised.
    pub consumers: Arc<Consumers>,
    /// How, in file order.
    pub auth: Arc<[Auth]>,
}

/// `[gateway]`
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Worker `i` is pinned to `cores[i]`; one entry a worker. `None`: not pinned (more workers than cores were asked for).
    pub cores: Vec<Option<usize>>,
    /// Which event loop.
    pub driver: Driver,
    /// How long a drain goes on to take connections before it begins in earnest, while `/readyz` says 503.
    pub drain_delay: Duration,
    /// How long a drain waits for requests in flight.
    pub drain_timeout: Duration,
    /// Where quotas are kept over a restart.
    pub quota_file: Option<PathBuf>,
    /// Whether a file that has changed is read anew without being told.
    pub watch: bool,
}

/// `gateway.driver`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring where the kernel allows it, else epoll.
    Auto,
    /// io_uring or nothing.
    IoUring,
    /// An event loop of our own on io_uring, or nothing.
    Multishot,
    /// monoio's with `SINGLE_ISSUER | DEFER_TASKRUN`, or nothing.
    DeferTaskrun,
    /// monoio's with `SINGLE_ISSUER | COOP_TASKRUN`, or nothing.
    CoopTaskrun,
    /// monoio's without flags, or nothing.
    Plain,
    /// epoll, everywhere.
    Epoll,
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::IoUring => "io_uring",
            Self::Multishot => "io_uring-multishot",
            Self::DeferTaskrun => "io_uring-defer-taskrun",
            Self::CoopTaskrun => "io_uring-coop-taskrun",
            Self::Plain => "io_uring-plain",
            Self::Epoll => "epoll",
        })
    }
}

/// `[admin]`
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where the admin API listens.
    pub listen: Bind,
    /// Names that it answers to besides its own address and local ones; exact or wildcard.
    pub hosts: Vec<HostMatch>,
}

/// A place to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Bind {
    /// IPv4 or IPv6 (which is then IPv6 only, so that `0.0.0.0` and `[::]` can stand beside each other). Port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// A unix stream socket.
    Unix(PathBuf),
}

/// `[access_log]`
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// Where lines go.
    pub path: LogPath,
    /// How a line looks.
    pub format: LogFormat,
    /// Header and query names (lower case) whose values are never written.
    pub redact: Vec<String>,
    /// What else a line says, in this order; at most [`crate::limits::LOG_CHOSEN_MAX`].
    pub fields: Vec<LogField>,
}

/// `access_log.path`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPath {
    /// Standard output.
    Stdout,
    /// A file, reopened on SIGUSR1.
    File(PathBuf),
}

impl fmt::Display for LogPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// `access_log.format`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// NCSA combined, with the gateway's own fields behind it.
    Combined,
}

/// `[[listener]]`
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name in metrics and logs.
    pub name: String,
    /// Where it listens.
    pub bind: Bind,
    /// From a request's first byte to the end of its head; also from accept to the first byte.
    pub header_timeout: Duration,
    /// Between requests of one connection.
    pub idle_timeout: Duration,
    /// Without a byte of the request's or the response's body, and without the client taking a byte of the response.
    pub body_timeout: Duration,
    /// Of an upgraded connection: without a byte in either direction.
    pub tunnel_timeout: Duration,
    /// Request line and headers, in bytes.
    pub head_bytes_max: usize,
    /// Number of headers.
    pub headers_max: usize,
    /// Request body, in bytes, where the route does not say.
    pub body_bytes_max: u64,
    /// Connections over all cores.
    pub connections_max: usize,
    /// Connections of one client (an IPv6 /64) over all cores; `None`: no limit of its own.
    pub client_connections_max: Option<u32>,
    /// Requests of one connection, the last of which is answered with `Connection: close`; `None`: no limit.
    pub connection_requests_max: Option<u64>,
    /// A connection older than this is closed with its next response.
    pub connection_age_max: Duration,
    /// Bytes of a request's body per second of waiting for it, once that has taken `body_timeout`; 0: none.
    pub body_rate_min: u64,
    /// Networks whose X-Forwarded-* are believed, and whose PROXY headers are taken.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Whether the X-Forwarded-* of a unix socket's peers are believed.
    pub unix_trusted: bool,
    /// Permissions of a unix socket.
    pub unix_mode: u32,
    /// Every connection begins with a PROXY header and comes from one of `trusted_proxies`, or over a unix socket.
    pub proxy_protocol: bool,
    /// Headers with an underscore in their names.
    pub header_underscores: Underscores,
    /// `%2F` and `%5C` in a path.
    pub encoded_separators: Separators,
    /// What endpoints get in `X-Forwarded-For`.
    pub forwarded_for: ForwardedFor,
    /// Whether empty segments of a path are dropped.
    pub merge_slashes: bool,
    /// `Server` of responses.
    pub server: ServerField,
    /// What the gateway's own errors look like; the first that is for a status. Others are small JSON.
    pub errors: Vec<ErrorPage>,
    /// Ways to be recognised on routes that do not say.
    pub auth: Vec<AuthId>,
    /// Limits of all its requests together with those of others that name them, besides the routes'.
    pub limits: Vec<Limit>,
    /// Who may send requests to it.
    pub access: Access,
    /// What TLS is spoken with; `None`: plain HTTP.
    pub tls: Option<ServerSide>,
    /// It has `[listener.defaults]`, which stand in its routes.
    pub has_defaults: bool,
    /// What of HTTP/2 is spoken; `None`: nothing.
    pub http2: Option<Http2>,
}

/// `[listener.http2]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2 {
    /// With clients that ask for it in their handshake.
    pub over_tls: bool,
    /// With clients that begin with it, where there is no TLS.
    pub in_clear: bool,
    /// Requests of a connection at once.
    pub streams_max: u32,
}

impl Listener {
    /// Whether a connection without TLS may begin with HTTP/2.
    #[must_use]
    pub fn speaks_http2_in_clear(&self) -> bool {
        self.tls.is_none() && self.http2.is_some_and(|http2| http2.in_clear)
    }
}

/// `[[route]]`, or `[[guard]]`, of which most of it says nothing.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name in metrics and logs; unique.
    pub name: String,
    /// Which requests it takes.
    pub matcher: Match,
    /// Its keys that defaults have said, or a part of them.
    pub defaulted: Defaulted,
    /// It stands as `[[guard]]` in the file: it is asked before all that do not, whatever they match.
    pub is_guard: bool,
    /// What is done with them.
    pub target: Target,
    /// Ways to be recognised, one of which must; `None`: the listener's.
    pub auth: Option<Vec<AuthId>>,
    /// Who may send requests to it.
    pub access: Access,
    /// Which pages of other origins may call it; `None`: it is not for the gateway to say.
    pub cors: Option<Cors>,
    /// How the path changes on its way up.
    pub rewrite: Rewrite,
    /// How the query does.
    pub query: QueryRules,
    /// What its paths find for rewrites, redirects and headers; `None`: they have no captures, or some have and others not.
    pub captures: Option<Captures>,
    /// Its paths as they are written, where a limit counts by them.
    pub templates: Option<Templates>,
    /// Headers of the request.
    pub request_headers: HeaderRules,
    /// Headers of the response.
    pub response_headers: HeaderRules,
    /// T_max of the whole request.
    pub timeout: Timeout,
    /// Rate limits, all of which must admit.
    pub limits: Vec<Limit>,
    /// Requests at once over all cores.
    pub concurrent_max: Option<u32>,
    /// Request body in bytes; `None`: the listener's.
    pub body_bytes_max: Option<u64>,
    /// As of a listener, for bodies of its requests and responses; `None`: the listener's.
    pub body_timeout: Option<Duration>,
    /// Of its upgraded connections; `None`: the listener's.
    pub tunnel_timeout: Option<Duration>,
    /// Of its requests' bodies; `None`: the listener's.
    pub body_rate_min: Option<u64>,
    /// Calls of gRPC-Web are made calls of gRPC.
    pub grpc_web: bool,
    /// What else is done with its requests on their way to an upstream.
    pub traffic: Traffic,
    /// None of the rules that few routes have, as [`Route::has_no_extras`] finds: what asks for this once need not ask for each of them.
    pub is_plain: bool,
    /// Retries.
    pub retry: Retry,
}

impl Route {
    /// Whether nothing of [`Traffic`] but times and sizes, no CORS and no variables are in its responses' way.
    fn has_no_extras(&self) -> bool {
        let Traffic {
            split_by: _,
            split_fallback: _,
            fault,
            mirror,
            timeout_from_end: _,
            buffered_bytes_max: _,
            compression,
            relocation,
            bandwidth,
        } = &self.traffic;
        let has_traffic =
            fault.is_some() || mirror.is_some() || compression.is_some() || relocation.is_some() || bandwidth.is_some();
        !has_traffic && self.cors.is_none() && self.response_headers.templates.is_empty()
    }
}

/// What a route does.
#[derive(Clone, Debug)]
pub enum Target {
    /// Forward, to one cluster or split by weight: at least one entry, the weights' sum is positive.
    Upstream(Vec<(ClusterId, Weight)>),
    /// Answer directly.
    Respond {
        /// Status, 200 to 599.
        status: StatusCode,
        /// Body, sent as it is.
        body: String,
        /// `Content-Type`.
        content_type: HeaderValue,
    },
    /// Refuse: 403 `guarded`. Of guards only.
    Deny,
    /// Redirect.
    Redirect {
        /// `Location`; `{path}` stands for path and query of the request.
        to: String,
        /// 301, 302, 303, 307 or 308.
        status: StatusCode,
    },
}

/// `request_headers`, `response_headers`: removed first, then set (replacing).
#[derive(Clone, Debug, Default)]
pub struct HeaderRules {
    /// Set, in file order.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Set to what is made anew for each request, or removed where a part of that is not there.
    pub templates: Vec<(HeaderName, Template)>,
    /// Removed.
    pub remove: Vec<HeaderName>,
    /// Removed because only the gateway says it, or because it is a credential. Not in the file, but what follows from `auth` and `cors`.
    pub strip: Arc<[HeaderName]>,
    /// Of responses: they count for the gateway's own errors, too.
    pub always: bool,
}

/// `timeout`: T_max = T_now + k × t.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Timeout {
    /// T_max is this.
    Fixed(Duration),
    /// k times the route's observed latency, within bounds.
    Adaptive {
        /// Factor, 1 to 100.
        k: f64,
        /// Lower bound.
        min: Duration,
        /// Upper bound, used until enough requests were seen.
        max: Duration,
    },
}

impl Timeout {
    /// The longest that T_max can be.
    #[must_use]
    pub fn longest(&self) -> Duration {
        match self {
            Self::Fixed(longest) | Self::Adaptive { max: longest, .. } => *longest,
        }
    }
}

/// One of `limit = […]`
#[derive(Clone, Debug)]
pub struct Limit {
    /// Of a `[limit.NAME]`: all routes and listeners that name it count together.
    pub name: Option<Arc<str>>,
    /// How much.
    pub measure: Measure,
    /// Of what.
    pub per: LimitKey,
    /// Count and report, but never reject.
    pub dry_run: bool,
    /// What holds instead for consumers of a group, the first that fits.
    pub tiers: Arc<[Tier]>,
    /// Tokens that each request takes where this stands; at least 1.
    pub cost: u32,
    /// The response's header that says what the request has cost in all.
    pub cost_header: Option<HeaderName>,
    /// Whether all gateways that ask the same `[redis]` count together.
    pub is_shared: bool,
}

/// One of `[limit.NAME.tiers]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// A consumer's group.
    pub group: String,
    /// In place of [`Limit::measure`], of the same kind.
    pub measure: Measure,
}

/// `limit.per`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitKey {
    /// All requests together: of the route, or of all routes and listeners that name the limit.
    Route,
    /// The client's address; IPv6 by /64.
    ClientIp,
    /// The client's network: so many leading bits of its address.
    ClientNetwork {
        /// Of IPv4, 1 to 32.
        v4: u8,
        /// Of IPv6, 1 to 128.
        v6: u8,
    },
    /// Who was recognised; requests of others count together.
    Consumer,
    /// The group of who was recognised, the first that the configuration names; requests of others count together.
    Group,
    /// A text that a token claims; requests without it count together.
    Claim(String),
    /// The value of a cookie; requests without it count together.
    Cookie(String),
    /// The value of a header; requests without it count together.
    Header(HeaderName),
    /// The public key of the client's certificate; requests without one count together.
    ClientCertificate,
    /// Which of the route's paths the request has met, as it is written.
    Template,
    /// What the route's path has found; requests of routes that find no such thing count together.
    Capture(String),
    /// Each combination of these, which are none of this kind and not [`LimitKey::Route`].
    Several(Box<[LimitKey]>),
}

impl fmt::Display for LimitKey {
    /// As the file writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route => f.write_str("route"),
            Self::ClientIp => f.write_str("client_ip"),
            Self::ClientNetwork { v4, v6 } => write!(f, "client_ip/{v4}/{v6}"),
            Self::Consumer => f.write_str("consumer"),
            Self::Group => f.write_str("group"),
            Self::Claim(name) => write!(f, "claim:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::ClientCertificate => f.write_str("client_cert"),
            Self::Template => f.write_str("template"),
            Self::Capture(name) => write!(f, "capture:{name}"),
            Self::Several(keys) => {
                for (row, key) in keys.iter().enumerate() {
                    write!(f, "{}{key}", if row == 0 { "" } else { " + " })?;
                }
                Ok(())
            }
        }
    }
}

/// `[route.retry]`
#[derive(Clone, Debug)]
pub struct Retry {
    /// Retries beyond the first try, 0 to `ATTEMPTS_MAX` − 1.
    pub attempts: u32,
    /// Failure classes and statuses that are retried.
    pub on: RetryOn,
    /// Retry methods that are not idempotent too.
    pub non_idempotent: bool,
    /// `None`: it follows the route, and is at most what is left of T_max, divided fairly among the attempts left.
    pub per_try_timeout: Option<Duration>,
    /// Longest wait before a retry.
    pub backoff_max: Duration,
    /// Smallest share of T_max that must be left.
    pub min_remaining: Ratio,
}

/// `retry.on`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryOn {
    /// No connection.
    pub connect: bool,
    /// Connection broken before a response head.
    pub reset: bool,
    /// No response head in the attempt's time.
    pub timeout: bool,
    /// Statuses of the upstream, 400 to 599, sorted.
    pub statuses: Vec<StatusCode>,
    /// Codes of gRPC, with which services refuse calls.
    pub codes: Vec<u8>,
}

/// The codes of gRPC that `retry.on` may name, by their names there (Envoy's): those that may be another service's luck.
pub const RETRIED_CODES: [(&str, u8); 5] =
    [("cancelled", 1), ("deadline-exceeded", 4), ("resource-exhausted", 8), ("internal", 13), ("unavailable", 14)];

/// `[upstream.NAME]`
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its name in routes, metrics and logs; unique.
    pub name: String,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// What is spoken with the endpoints.
    pub protocol: Protocol,
    /// Streams of one connection of HTTP/2, at most.
    pub streams_max: u32,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long a pooled connection may wait for its next request.
    pub idle_timeout: Duration,
    /// Pooled connections per worker, over the cluster's endpoints.
    pub idle_max: usize,
    /// The PROXY header that each connection begins with. Other than `Off`, connections carry one request each.
    pub proxy_protocol: ProxyVersion,
    /// In flight per endpoint, over all cores; `None`: no limit.
    pub requests_max: Option<u32>,
    /// Retries that the cluster's traffic pays for.
    pub retry_budget: RetryBudget,
    /// Those that are there now: addresses of the file, and what is known of its names.
    pub endpoints: Vec<Endpoint>,
    /// Names whose addresses are endpoints.
    pub names: Vec<Named>,
    /// Active probes.
    pub health_check: Option<HealthCheck>,
    /// Passive ejection.
    pub outlier: Option<Outlier>,
    /// Longest pause that an endpoint gets which asks for one (503 with Retry-After); zero: none.
    pub retry_after_max: Duration,
    /// When a lower tier is used.
    pub spill: Spill,
    /// Sessions that stay with an endpoint; `None`: there are none.
    pub sticky: Option<Sticky>,
    /// Ramp after a return; zero: none.
    pub slow_start: Duration,
    /// What TLS is spoken with; `None`: plain HTTP.
    pub tls: Option<ClientSide>,
}

/// `upstream.protocol`, as it is with what else the upstream says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2, and nothing else.
    Http2,
    /// Whatever the endpoint chooses of the two, over TLS.
    Negotiated,
}

/// `upstream.balance`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Balance {
    /// In proportion to availability.
    Random,
    /// In turn.
    RoundRobin,
    /// Smooth weighted round robin.
    Weighted,
    /// Two random choices, fewer in flight wins.
    LeastRequest,
    /// Two random choices, smaller rtt × (in flight + 1) wins.
    PeakEwma,
    /// Ketama.
    RingHash(HashKey),
    /// Maglev.
    Maglev(HashKey),
}

/// `upstream.hash`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    ClientIp,
    /// A header's value.
    Header(HeaderName),
    /// A cookie's value.
    Cookie(String),
    /// The path.
    Path,
    /// What the route's path has found.
    Capture(String),
}

/// `upstream.retry_budget`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudget {
    /// Retries per request, over ten seconds.
    pub ratio: Ratio,
    /// Retries that are always granted.
    pub min_per_second: u32,
}

/// `upstream.endpoints[]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The name that has told its address, as the file writes it; `None`: the address stands in the file.
    pub name: Option<Arc<str>>,
    /// Where it is.
    pub address: Address,
    /// Its share where the strategy has shares; 0 drains it under every strategy.
    pub weight: Weight,
    /// Its tier, 0 first.
    pub priority: u8,
}

/// An endpoint's address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// IPv4 or IPv6.
    Tcp(SocketAddr),
    /// A unix stream socket.
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl std::fmt::Display for Bind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `upstream.health_check`
#[derive(Clone, Debug)]
pub struct HealthCheck {
    /// What a probe does.
    pub probe: Probe,
    /// Between probes of one endpoint, give or take 10 %.
    pub interval: Duration,
    /// For one probe.
    pub timeout: Duration,
    /// Successes in a row until an unhealthy endpoint is healthy.
    pub rise: u32,
    /// Failures in a row until a healthy endpoint is unhealthy.
    pub fall: u32,
}

/// `upstream.outlier`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlier {
    /// Failures in a row.
    pub consecutive: u32,
    /// Smallest share of successes over the window …
    pub min_success: Ratio,
    /// … once this many requests were seen in it.
    pub min_requests: u32,
    /// The window.
    pub window: Duration,
    /// An ejection up to its first probe; for one that relapses it doubles …
    pub eject: Duration,
    /// … up to this.
    pub eject_max: Duration,
}
