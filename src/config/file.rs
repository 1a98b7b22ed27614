//! The file as it is written: one type per table, one line per key, with its default beside it.
//!
//! This is the list of what a user may type; `config/ringgate.schema.json` is made from it. A default is written as the file would
//! write it and goes through the same reader, so it is always within its own range. What concerns more than one key is
//! [`super::check`]'s business.

use super::addresses::{At, FileMode, Host, Listen, NameServers, ServiceName, TrustedPeer};
pub use super::answer_keys::{Redirect, Respond};
use super::bandwidth::BandwidthTable;
use super::check_guard::GuardRule;
use super::compression::CompressionTable;
pub use super::conditions::Match;
use super::cors::CorsTable;
use super::defaults::Defaults;
use super::error_pages::ErrorTable;
use super::identity_keys::{Auth, Consumer, Rules};
pub use super::knobs::{Adaptive, RouteTimeout};
use super::knobs::{ByteRate, ForwardedFor, PerTry, ProxyVersion, Separators, ServerField, Spill, Underscores};
use super::limit_keys::{LimitItem, SharedLimit};
pub use super::log_fields::AccessLog;
use super::names::{Cores, EditableHeader, Expect, FilePath, Hash, IncludePath, MethodText, Name, Workers};
use super::paths::{ProbePath, RewriteTo, StripPrefix};
use super::probe::{BodyMatch, ProbeHeader, ProbeHost, ProbeService};
use super::read::{Later, List, Map};
use super::redis::Redis;
use super::retry_word::RetryWord;
use super::rewrites::QueryEdits;
use super::secret::SecretText;
use super::sticky::StickyTable;
use super::tables::table;
use super::tls_keys::{ListenerTls, UpstreamTls};
use super::traffic::{BufferingTable, FaultTable, MirrorTable, SplitBy, TimeoutFrom};
use super::values::{BalanceWord, DAY, DriverWord, HOUR, Int, MINUTE, ProtocolWord, SECOND, Share, Size, Time};
use crate::limits::{
    ATTEMPTS_MAX, AUTH_MAX, CLUSTERS_MAX, CONSUMERS_WRITTEN_MAX, ENDPOINTS_MAX, ENTRIES_MAX, GUARDS_MAX,
    HEAD_BYTES_MAX, HEAD_BYTES_MIN, HEADERS_MAX, LIMITS_MAX, LISTENERS_MAX, ROUTE_LIMITS_MAX, ROUTES_MAX, TIERS_MAX,
    WEIGHT_MAX,
};

/// A timeout of a request's parts: 1 ms to a day.
pub(crate) type Timeout = Time<1, DAY>;
/// A weight, 0 to [`WEIGHT_MAX`].
pub(crate) type WeightInt = Int<0, { WEIGHT_MAX as u64 }>;
/// A number of requests or connections at once, up to ten million: more than one host's memory holds.
pub(crate) type Concurrency = Int<1, 10_000_000>;
/// A request body: up to a tebibyte, since uploads are streamed and never held.
pub(crate) type BodySize = Size<0, { 1 << 40 }>;
/// `set` of header rules.
pub(crate) type HeaderSet = Map<EditableHeader, SecretText, ENTRIES_MAX>;

table! {
    /// The configuration of one ringgate gateway.
    File {
        /// More files, whose tables are added: paths seen from this file's folder, and patterns such as "conf.d/*.toml". An upstream stands in one
        /// file only, and so do gateway, admin and access_log.
        default include: List<IncludePath, 0, ENTRIES_MAX> = [];
        /// Workers, cores, event loop and drain.
        table gateway: Gateway;
        /// The admin listener: metrics, health and state.
        table admin: Admin;
        /// Who is asked for the names of endpoints, and how often.
        table resolver: Resolver;
        /// The access log; without this table there is none.
        optional access_log: AccessLog;
        /// Where clients connect.
        required listener: List<Listener, 1, LISTENERS_MAX>;
        /// What routes say that do not say it themselves.
        optional defaults: Defaults;
        /// Which request goes where. The most specific route wins: host exact > *.x > x.* > regex > any; path segment by segment, what is written
        /// out > a placeholder > the end of a prefix, then regex > any (`/*`); then more conditions; then the order in the file.
        required route: Later<Route, 1, ROUTES_MAX>;
        /// Rules that are asked before any route, and that no route overtakes.
        default guard: List<GuardRule, 0, GUARDS_MAX> = [];
        /// Who may call, by name.
        default consumer: Map<Name, Consumer, CONSUMERS_WRITTEN_MAX> = {};
        /// An absolute path of a file with more consumers, up to 200000, in TOML if it ends with .toml, else in JSON: { consumer = { NAME =
        /// { groups, keys } } }. It is read with this one.
        optional consumers_file: FilePath;
        /// Ways in which a request says who sends it, by name.
        default auth: Map<Name, Auth, AUTH_MAX> = {};
        /// What counts limits that several gateways share.
        optional redis: Redis;
        /// Rate limits that routes and listeners name, and share.
        default limit: Map<Name, SharedLimit, LIMITS_MAX> = {};
        /// Groups of endpoints, by name.
        default upstream: Map<Name, Upstream, CLUSTERS_MAX> = {};
    }
}

table! {
    /// Workers, cores, event loop and drain.
    Gateway {
        /// Event loops: "auto" is one per core, or a number from 1 to 512.
        default workers: Workers = "auto";
        /// Cores that workers are pinned to: "auto" are those that the process may run on, or a list such as [0, 2, 4].
        default cores: Cores = "auto";
        /// Event loop: "auto" is io_uring where the kernel allows it, else epoll. The longer names are the steps between, best first.
        default driver: DriverWord = "auto";
        /// How long a drain goes on to take connections while /readyz says 503, so that balancers notice; 0s to 1h.
        default drain_delay: Time<0, HOUR> = "0s";
        /// How long a drain waits for requests in flight, 0s to 1h.
        default drain_timeout: Time<0, HOUR> = "30s";
        /// An absolute path of a file in which quotas are kept over a restart. It is written anew each second in which something was taken, so that a
        /// process that is killed loses what was taken in its last two. Without it a restart begins them anew.
        optional quota_file: FilePath;
        /// Whether the gateway reads its file anew when that has changed; a file that is wrong changes nothing.
        default watch: bool = false;
    }
}

table! {
    /// The admin listener: metrics, health and state.
    Admin {
        /// IP:PORT or unix:/PATH. It has no authentication: keep it on loopback or a private network.
        default listen: Listen = "127.0.0.1:9180";
        /// Hosts that it answers to besides its own address and local names, against DNS rebinding: "a.example" or "*.example".
        default hosts: List<Host, 0, ENTRIES_MAX> = [];
    }
}

table! {
    /// Who is asked for the names of endpoints, and how often.
    Resolver {
        /// "system" (/etc/hosts, and the servers of /etc/resolv.conf), or a list of addresses, with port 53 where they have none.
        default servers: NameServers = "system";
        /// The shortest time for which an answer is kept, whatever its records say; 100ms to 1d.
        default min_ttl: Time<100, DAY> = "1s";
        /// The longest, 100ms to 1d.
        default max_ttl: Time<100, DAY> = "1h";
        /// For one lookup, whomever it asks; 10ms to 1m. A start and a reload wait that long for names that nobody answers for.
        default timeout: Time<10, MINUTE> = "2s";
        /// How long the last addresses of a name are kept that has none any more, 0s to 1d. They are kept for good where nobody answers.
        default max_stale: Time<0, DAY> = "1h";
    }
}

table! {
    /// A place where clients connect.
    Listener {
        /// Its name in metrics and logs, unique; the address where it is not given.
        optional name: Name;
        /// IP:PORT or unix:/PATH.
        required listen: Listen;
        /// From a request's first byte to the end of its head, 1ms to 1d.
        default header_timeout: Timeout = "10s";
        /// Between requests of one connection, 1ms to 1d.
        default idle_timeout: Timeout = "60s";
        /// Without a byte of a body moving: the client's, the response as the client takes it, the response as the endpoint sends it; 1ms to 1d.
        default body_timeout: Timeout = "30s";
        /// Of a connection that was upgraded (WebSocket): without a byte in either direction, 1ms to 1d.
        default tunnel_timeout: Timeout = "1h";
        /// Request line and headers together, 1KiB to 256KiB; beyond it 431 (414 when the request line alone is too long).
        default max_head: Size<{ HEAD_BYTES_MIN as u64 }, { HEAD_BYTES_MAX as u64 }> = "16KiB";
        /// Headers of one request, 1 to 256; beyond it 431.
        default max_headers: Int<1, { HEADERS_MAX as u64 }> = 100;
        /// Body of one request, 0B to 1TiB; beyond it 413. Routes may override.
        default max_body: BodySize = "16MiB";
        /// Connections at once over all cores, 1 to 10000000.
        default max_connections: Concurrency = 65536;
        /// Connections at once of one client (an IPv6 /64) over all cores, 0 to 10000000; 0 sets no limit. The newest is closed.
        default max_connections_per_client: Int<0, 10_000_000> = 0;
        /// Requests of one connection, 0 to 1000000000; the last one's response says Connection: close. 0 sets no limit.
        default max_requests_per_connection: Int<0, 1_000_000_000> = 1000000;
        /// Age at which a connection is closed with its next response, 1ms to 1d.
        default max_connection_age: Timeout = "1d";
        /// Slowest average at which a request's body may arrive, after a grace of body_timeout; then 408. "0" sets none.
        default min_body_rate: ByteRate = "0";
        /// Peers whose X-Forwarded-* headers (and PROXY headers) are believed: networks or addresses, and "unix" for the peers of a unix socket.
        default trusted_proxies: List<TrustedPeer, 0, ENTRIES_MAX> = [];
        /// Permissions of a unix socket, in octal; "0666" where it is not given, so that every local user may connect.
        optional mode: FileMode;
        /// true: every connection must begin with a PROXY header (v1 or v2) and come from trusted_proxies or a unix socket.
        default proxy_protocol: bool = false;
        /// Headers with an underscore in their names: drop, keep, or reject with 400.
        default header_underscores: Underscores = "drop";
        /// %2F and %5C in a path: reject with 400, or keep.
        default encoded_separators: Separators = "reject";
        /// What endpoints get in X-Forwarded-For: "append" what a trusted proxy has said, and the peer; or "replace" it with the client alone.
        default x_forwarded_for: ForwardedFor = "append";
        /// true: empty segments of a path (//) are dropped. false: they go on, and match what the path without them matches.
        default merge_slashes: bool = false;
        /// The Server header of responses: "pass" (the endpoint's), "remove", or the text that all get.
        default server: ServerField = "pass";
        /// What the gateway's own errors look like, by status: the first that is for it. Without one: {"error": …, "message": …}.
        default errors: List<ErrorTable, 0, ENTRIES_MAX> = [];
        /// Ways to be recognised on routes that name none themselves, by their names.
        default auth: List<Name, 0, AUTH_MAX> = [];
        /// Rate limits of [limit.NAME], by their names, that all its requests need besides the route's: all must admit, else 429.
        default limit: List<Name, 0, ROUTE_LIMITS_MAX> = [];
        /// Who may send requests to this listener: one of these rules must hold, and one of the route's. All may where it is not given.
        optional allow: Rules;
        /// Who may not, before anything else is asked.
        optional deny: Rules;
        /// What its routes say that do not say it themselves, before the defaults of the file: of routes that come in at no other listener.
        optional defaults: Defaults;
        /// TLS with clients; without this table the listener speaks plain HTTP.
        optional tls: ListenerTls;
        /// HTTP/2 with clients, beside HTTP/1.1; without this table the listener speaks HTTP/1.1 alone.
        optional http2: ListenerHttp2;
    }
}

table! {
    /// HTTP/2 with clients.
    ListenerHttp2 {
        /// true: over TLS, with clients that ask for it (ALPN).
        default enabled: bool = true;
        /// true: without TLS too, with clients that begin with it (prior knowledge), as meshes and gRPC do.
        default cleartext: bool = false;
        /// Requests that a connection may have open at once, 1 to 1000; a client that was reset some of them waits until they have ended.
        default max_streams: Int<1, 1_000> = 100;
    }
}

table! {
    /// Which requests are meant, and what is done with them.
    Route {
        /// Its name in metrics and logs, unique; what it matches (host and path) where it is not given.
        optional name: Name;
        /// Which requests are meant; all that is given must hold. Without it: all.
        table r#match: Match;
        /// Forward to this upstream. Exactly one of upstream, split, respond and redirect is given.
        optional upstream: Name;
        /// Forward to several upstreams, by weight.
        optional split: List<SplitPart, 1, ENTRIES_MAX>;
        /// What a request's side of the split follows from: consumer, client_ip, header:NAME or cookie:NAME; drawn where it is not given, and for requests
        /// without it. While weights stay so does the side.
        optional split_by: SplitBy;
        /// Whether another side takes a request when nobody is left on the one that was chosen.
        default split_fallback: bool = true;
        /// Answer directly.
        optional respond: Respond;
        /// Redirect.
        optional redirect: Redirect;
        /// Ways to be recognised, by their names: any of these, else 401. The listener's where it is not given; [] asks for none.
        optional auth: List<Name, 0, AUTH_MAX>;
        /// Who may send these requests: one of these rules must hold, else 403. All who were recognised may where it is not given.
        optional allow: Rules;
        /// Who may not: 403 where one of these rules holds.
        optional deny: Rules;
        /// Which pages of other origins may call it (CORS); without this table that is the endpoints' business.
        optional cors: CorsTable;
        /// Cut this from the beginning of the path before it is forwarded.
        optional strip_prefix: StripPrefix;
        /// Forward this path instead: {rest} is what a "/prefix/*" left over, {path} the whole path, {id} and {1} what match.path has found; and
        /// variables as in request_headers, percent-encoded. 400 where no proper path comes out.
        optional rewrite: RewriteTo;
        /// Whether Location and Content-Location of the endpoint's own origin are made paths of this route.
        default rewrite_location: bool = false;
        /// Changes to the query before the request is forwarded.
        table query: QueryEdits;
        /// Changes to the request's headers before it is forwarded.
        table request_headers: HeaderRules;
        /// Changes to the response's headers.
        table response_headers: ResponseRules;
        /// T_max, from the request's first byte to the response's head, with all tries; 1ms to 1d: a duration, or { adaptive = true, k, min, max }.
        default timeout: RouteTimeout = "30s";
        /// Rate limits, at most 8, written here or named: all must admit, else 429.
        default limit: List<LimitItem, 0, ROUTE_LIMITS_MAX> = [];
        /// Requests at once over all cores, 1 to 10000000; no limit where it is not given. Beyond it 503.
        optional max_concurrent: Concurrency;
        /// Request body, 0B to 1TiB; the listener's where it is not given. Beyond it 413.
        optional max_body: BodySize;
        /// Without a byte of a body moving, 1ms to 1d; the listener's where it is not given. Long for event streams, short for small requests.
        optional body_timeout: Timeout;
        /// Of an upgraded connection: without a byte in either direction, 1ms to 1d; the listener's where it is not given.
        optional tunnel_timeout: Timeout;
        /// Slowest average at which a request's body may arrive; the listener's where it is not given, "0" sets none.
        optional min_body_rate: ByteRate;
        /// Makes calls of gRPC-Web, binary and text, calls of gRPC; the upstream must speak HTTP/2 (protocol).
        default grpc_web: bool = false;
        /// Faults for tests: { delay = { percent, time }, abort = { percent, status }, header }.
        optional fault: FaultTable;
        /// Copies of requests that go to another upstream too: { upstream, percent, max_body, timeout }.
        optional mirror: MirrorTable;
        /// When the timeout begins: request_start, or request_end, so that a slow upload is no slow service.
        default timeout_from: TimeoutFrom = "request_start";
        /// Requests wait for all of their body before an endpoint is taken: { max }.
        optional request_buffering: BufferingTable;
        /// Responses that are compressed for clients that take it; none without this table.
        optional compression: CompressionTable;
        /// How fast responses go to clients, and requests come from them: { rate, upload_rate, burst, per }; as fast as they can without this table.
        optional bandwidth: BandwidthTable;
        /// Retries.
        table retry: Retry;
    }
}

table! {
    /// One part of a split.
    SplitPart {
        /// The upstream.
        required upstream: Name;
        /// Its share among the split's weights, 0 to 65535.
        required weight: WeightInt;
    }
}

table! {
    /// Changes to a request's headers: removed first, then set.
    HeaderRules {
        /// Headers with the value they get, whatever they had: a text, in which ${NAME} is a variable of the environment (and $${ is ${), or
        /// { file = "/run/secrets/x" }. {client_ip} and others (see the README) stand for what the request is; where that is not there, the
        /// header is not either. "" removes.
        default set: HeaderSet = {};
        /// Headers that are removed.
        default remove: List<EditableHeader, 0, ENTRIES_MAX> = [];
    }
}

table! {
    /// Changes to a response's headers: removed first, then set.
    ResponseRules {
        /// Headers with the value they get, as in request_headers; {client_ip} and others stand for what the request was.
        default set: HeaderSet = {};
        /// Headers that are removed.
        default remove: List<EditableHeader, 0, ENTRIES_MAX> = [];
        /// true: also of the gateway's own errors on this route, such as 429 and 503.
        default always: bool = false;
    }
}

table! {
    /// Retries.
    Retry {
        /// Retries beyond the first try, 0 to 15; 0 turns retries off.
        default attempts: Int<0, { ATTEMPTS_MAX as u64 - 1 }> = 2;
        /// What is retried: connect (nobody could be reached; what was not sent goes on to another endpoint in any case), reset, timeout and
        /// statuses from 400 to 599.
        default on: List<RetryWord, 1, ENTRIES_MAX> = ["connect", "reset", "timeout", "502", "503", "504"];
        /// Retry methods that are not idempotent too, such as POST.
        default non_idempotent: bool = false;
        /// Longest time of one try, 1ms to 1d; or auto: what the route's requests usually take, three times over, at least 250ms and at most
        /// what is left of T_max divided fairly among the tries left.
        default per_try_timeout: PerTry = "auto";
        /// Longest wait before a retry, 1ms to 1h. Where an endpoint asks for a longer one (Retry-After), its answer is passed on.
        default backoff_max: Time<1, HOUR> = "250ms";
        /// Smallest share of T_max that must be left for a retry.
        default min_remaining: Share = "10%";
    }
}

table! {
    /// A group of endpoints that serve the same.
    Upstream {
        /// How an endpoint is chosen.
        default balance: BalanceWord = "least_request";
        /// What ring_hash and maglev hash: client_ip, path, capture:NAME (what the route's path has found), header:NAME or cookie:NAME; client_ip where it
        /// is not given.
        optional hash: Hash;
        /// Sessions that stay with one endpoint, by a cookie of the gateway's own; without this table there are none.
        optional sticky: StickyTable;
        /// What is spoken with the endpoints: http1; h2 (by prior knowledge, or by ALPN with tls); auto (by ALPN with tls, else http1).
        default protocol: ProtocolWord = "http1";
        /// Requests at once on one connection of HTTP/2, 1 to 1000, and no more than its endpoint allows.
        default max_streams: Int<1, 1_000> = 100;
        /// How long a connection may take to be made, 1ms to 1d.
        default connect_timeout: Timeout = "1s";
        /// How long a pooled connection may wait for its next request, 1ms to 1d. Keep it below the endpoints' own.
        default idle_timeout: Timeout = "55s";
        /// Pooled connections per worker, 0 to 65536; 0 closes each after its request.
        default max_idle: Int<0, 65_536> = 256;
        /// The PROXY header sent first on each connection: off, v1 or v2. Other than off, no connection is used twice.
        default proxy_protocol: ProxyVersion = "off";
        /// Requests in flight per endpoint over all cores, 1 to 10000000; no limit where it is not given.
        optional max_requests: Concurrency;
        /// Retries that the upstream's traffic pays for.
        table retry_budget: RetryBudget;
        /// The endpoints, 1 to 4096; each address of a name is one. Either these or endpoints_file has to be given.
        optional endpoints: List<Endpoint, 1, ENDPOINTS_MAX>;
        /// An absolute path of a file that says more endpoints, in TOML if it ends with .toml, else in JSON: { endpoints = [{ address, weight,
        /// priority }] }. It is looked after once a second, and may be replaced at any time.
        optional endpoints_file: FilePath;
        /// Active probes; without this table there are none.
        optional health_check: HealthCheck;
        /// Ejection of endpoints that fail requests.
        table outlier: Outlier;
        /// Longest time for which an endpoint is left alone that asks for it (503 with Retry-After), 0s to 1d; 0s: never.
        default retry_after_max: Time<0, DAY> = "30s";
        /// proportional: tiers share the load by the health they have left (factor 1.4). none: a lower tier only when the one above it has
        /// nobody left.
        default spill: Spill = "proportional";
        /// How long an endpoint's share grows after it comes back, 0s to 1h; 0s gives it all at once.
        default slow_start: Time<0, HOUR> = "10s";
        /// TLS with the endpoints; without this table they are spoken to in plain HTTP.
        optional tls: UpstreamTls;
    }
}

table! {
    /// Retries that the upstream's traffic pays for.
    RetryBudget {
        /// Retries per request over ten seconds, 0 to 1 or a percentage.
        default ratio: Share = 0.2;
        /// Retries per second that are always granted, 0 to 1000000.
        default min_per_second: Int<0, 1_000_000> = 3;
    }
}

table! {
    /// One endpoint.
    Endpoint {
        /// IP:PORT, NAME:PORT (A and AAAA records) or unix:/PATH. Either address or srv is given.
        optional address: At;
        /// The name of a service: SRV records, whose priorities are tiers and whose weights are weights.
        optional srv: ServiceName;
        /// Its share where the strategy has shares, 0 to 65535; 0 drains it.
        default weight: WeightInt = 100;
        /// Its tier, 0 to 15; lower ones are used first. Of a service, that of its first priority; the others follow.
        default priority: Int<0, { TIERS_MAX as u64 - 1 }> = 0;
    }
}

table! {
    /// Active probes of every endpoint: path for HTTP, grpc for gRPC, or tcp = true.
    HealthCheck {
        /// Ask for this path and look at the status.
        optional path: ProbePath;
        /// Only connect.
        optional tcp: bool;
        /// Ask by grpc.health.v1 over HTTP/2: true for the whole server, or a service's name. It passes when it is SERVING.
        optional grpc: ProbeService;
        /// The request's method.
        default method: MethodText = "GET";
        /// The Host header, with a port or without; the endpoint's address (localhost for a unix socket) where it is not given.
        optional host: ProbeHost;
        /// More headers of the request, by name; values as in request_headers.set.
        default headers: Map<ProbeHeader, SecretText, ENTRIES_MAX> = {};
        /// Between probes of one endpoint, 100ms to 1h.
        default interval: Time<100, HOUR> = "2s";
        /// For one probe, 1ms to 1h.
        default timeout: Time<1, HOUR> = "1s";
        /// Successes in a row that make an endpoint healthy, 1 to 100.
        default rise: Int<1, 100> = 2;
        /// Failures in a row that make an endpoint unhealthy, 1 to 100.
        default fall: Int<1, 100> = 3;
        /// Statuses that pass: "200" or "200-399" (the default).
        optional expect: Expect;
        /// What the body must have in it: a text, or "~regex". Its first 64 KiB are looked at; the body is not read where this is not given.
        optional body: BodyMatch;
    }
}

table! {
    /// Ejection of endpoints that fail requests.
    Outlier {
        /// false turns ejection off.
        default enabled: bool = true;
        /// Failures in a row that eject, 1 to 1000.
        default consecutive: Int<1, 1_000> = 5;
        /// Smallest share of successes over the window, 0 to 1 or a percentage; 0 leaves only consecutive.
        default min_success: Share = 0.5;
        /// Requests in the window before its share counts, 1 to 1000000; ten times as many in its latest tenths count alone.
        default min_requests: Int<1, 1_000_000> = 10;
        /// The window, 1s to 1h.
        default window: Time<SECOND, HOUR> = "10s";
        /// How long an ejection lasts before it is probed, 100ms to 1h; for an endpoint that relapses after it came back it doubles …
        default eject: Time<100, HOUR> = "10s";
        /// … up to this, 100ms to 1d, unless eight probes in a row succeed before.
        default eject_max: Time<100, DAY> = "300s";
    }
}

/// The JSON schema of the file (draft 2020-12), as text that ends with a newline.
#[must_use]
pub fn schema() -> String {
    super::reading::schema_of::<File>("ringgate configuration")
}
