//! A plan as it is written: one type per table, one line per key, with its unit, range and default.
//!
//! This is the list of what a user may type; the JSON schema ([`schema`]) is made from it. What concerns more than one key is the business of
//! `check`, `targets` and `phases`.

use super::values::{
    Allowed, Amplification, BODY_BYTES_MAX, BODY_HAS_BYTES_MAX, FileName, KindWord, Latency, PEAK_MAX, PaceWord,
    PhaseRate, ProtocolWord, RATE_MAX, RequestPath, Requests, Span, Speed, Text, UrlText,
};
use super::words::{ActText, GatewayActText, INSTANCES_MAX, Prefix, ServiceText, Which};
use crate::load::{STREAMS_MAX, TARGETS_MAX};
use ringgate::config::reading::{
    Cores, DAY, Expect, HOUR, Header, HeaderText, Int, List, MINUTE, Map, MethodText, Name, ProbeHost, SECOND, Share,
    Size, Time, Workers, schema_of, table,
};

/// Phases of one plan.
pub(super) const PHASES_MAX: usize = 256;
/// Faults of one phase.
pub(super) const FAULTS_MAX: usize = 256;
/// Upstreams of one plan.
pub(super) const UPSTREAMS_MAX: usize = 32;
/// Headers of one request.
const HEADERS_MAX: usize = 64;
/// Connections at once: more than the ports of one address.
const CONNECTIONS_MAX: u64 = 1_000_000;

table! {
    /// A plan of ringgate-load: what is offered to which server, what happens meanwhile, and what has to come of it.
    File {
        /// Its name in reports; the file's name where it is not given.
        optional name: Name;
        /// What is offered, and how.
        table load: Load;
        /// What is asked, by weight; GET of the URL's path where there is none. At most 64.
        default target: List<Target, 0, TARGETS_MAX> = [];
        /// Gateways that are started for it; exactly one of this and load.url is given.
        optional gateway: Gateway;
        /// Services that are started behind the gateway, by name. At most 32.
        default upstream: Map<Name, Upstream, UPSTREAMS_MAX> = {};
        /// Parts of the load, one after the other, with faults and what must hold meanwhile. At most 256.
        default phase: List<Phase, 0, PHASES_MAX> = [];
        /// What capacity means, for `capacity` and `size`.
        optional capacity: Capacity;
        /// How many hosts, for `size`.
        optional size: Sizing;
        /// What has to hold of the whole, for CI.
        table thresholds: Thresholds;
    }
}

table! {
    /// What is offered, and how.
    Load {
        /// The server, when it is there already: "http://HOST:PORT/PATH" or "https://HOST:PORT/PATH". The path counts when there is no [[target]].
        optional url: UrlText;
        /// How TLS is spoken with an https:// URL.
        table tls: Tls;
        /// What is spoken: http1, or h2 (HTTP/2), which is agreed on with https:// (ALPN) and known beforehand with http:// (h2c).
        default protocol: ProtocolWord = "http1";
        /// With h2: requests under way on a connection, 1 to 1000, or as many as the server allows. A request that finds no room waits, and its
        /// wait counts.
        default streams: Int<1, { STREAMS_MAX as u64 }> = 100;
        /// Requests a second, "1/s" to "10000000/s": of `run`, `drill` and `peers`; `capacity` and `curve` choose theirs.
        default rate: Requests<RATE_MAX> = "1000/s";
        /// When requests are due: poisson (independent of each other, as many users are), even (evenly spaced), or closed (as fast as answers
        /// come over `connections`: saturation, which has no latency to speak of).
        default pace: PaceWord = "poisson";
        /// How long requests are judged, 1s to 1d. With phases: the sum of theirs. With from_log: as long as the log, where it is not given.
        default length: Time<SECOND, DAY> = "30s";
        /// Before that, as long as this, requests are made and not judged, while caches and pools fill; 0s to 1h. With from_log it is the
        /// beginning of the log, and 0s where it is not given.
        default warm_up: Time<0, HOUR> = "5s";
        /// Connections that are opened at the start, 1 to 1000000.
        default connections: Int<1, CONNECTIONS_MAX> = 64;
        /// Connections there may be when all are busy, 1 to 1000000, at least `connections`; with h2 as many as `connections` where it is not
        /// given. A request that finds none waits, and its wait counts.
        default connections_max: Int<1, CONNECTIONS_MAX> = 4096;
        /// true: each connection serves one request and is closed. false: connections are kept.
        default reconnect: bool = false;
        /// From when a request is due; later answers are failures. 1ms to 1h; where it is not given, no longer than the shortest phase.
        default timeout: Span = "5s";
        /// Of arrivals and of the mix: the same seed offers the same. 0 to 9007199254740991.
        default seed: Int<0, 9_007_199_254_740_991> = 1;
        /// Cores of the generator, one thread each: "auto" divides the machine (see docs/capacity.md), or a list such as [3].
        default cores: Cores = "auto";
        /// Resolution of series in time, 100ms to 1m.
        default slice: Time<100, MINUTE> = "1s";
        /// Instead of [[target]], rate and pace: an access log of ringgate (JSON), from the plan's folder, whose requests are made again at the
        /// times at which they came. Methods, hosts and paths are the log's; bodies are of the logged size and mean nothing.
        optional from_log: FileName;
        /// How much faster than they came, 0.01 to 1000.
        default speed: Speed = 1.0;
    }
}

table! {
    /// How TLS is spoken.
    Tls {
        /// Whose word is taken for who the server is, in PEM, from the plan's folder; the authorities that the system believes where it is not given.
        optional ca: FileName;
        /// What the server's certificate must name, which is also asked for (SNI); the host of the URL where it is not given.
        optional name: Text<1, 253>;
        /// true: any certificate is taken for good.
        default insecure_skip_verify: bool = false;
        /// false: every handshake is a full one. true: later connections go on with the session of earlier ones.
        default resumption: bool = true;
    }
}

table! {
    /// One kind of request.
    Target {
        /// Its name in results, unique; method and path where it is not given.
        optional name: Name;
        /// Such as GET.
        default method: MethodText = "GET";
        /// The Host header; the server's address where it is not given.
        optional host: ProbeHost;
        /// Path and query as they are sent, at most 8192 bytes.
        required path: RequestPath;
        /// More headers, by name. At most 64.
        default headers: Map<Header, HeaderText, HEADERS_MAX> = {};
        /// The body, at most 1 MiB; Content-Length is added.
        optional body: Text<0, { BODY_BYTES_MAX as u64 }>;
        /// The body is what is in this file, at most 16 MiB, from the plan's folder.
        optional body_file: FileName;
        /// Its part of all requests is this to the sum of all, 1 to 65535.
        default weight: Int<1, 65_535> = 1;
        /// Statuses that are good: "200" or "200-299".
        default status: Expect = "200-299";
        /// What a good answer's body contains, 1 to 8192 bytes; anything where it is not given.
        optional body_has: Text<1, { BODY_HAS_BYTES_MAX as u64 }>;
    }
}

table! {
    /// Gateways that are started: all get the same load, one after the other.
    Gateway {
        /// Which: ringgate, nginx, haproxy, envoy. The first is judged; the others stand beside it, where they are installed.
        default kinds: List<KindWord, 1, 4> = ["ringgate"];
        /// true: clients speak TLS with it, by a certificate that is made for it and lies in @folder@ as chain.pem and key.pem (both.pem: the two).
        default tls: bool = false;
        /// Event loops of each: "auto" is one per core of `cores`, or 1 to 512.
        default workers: Workers = "auto";
        /// Cores that they run on: "auto" divides the machine (see docs/capacity.md), or a list such as [0, 1].
        default cores: Cores = "auto";
        /// Configurations of your own by kind, from the plan's folder, instead of the one that is written for it. In them @listen@ stands for the
        /// address to listen on, @admin@ for that of its own figures, and @NAME.1@ for the first instance of an upstream.
        default config: Map<KindWord, FileName, 4> = {};
    }
}

table! {
    /// A service behind the gateway, with a route to it.
    Upstream {
        /// How many there are, 1 to 64.
        default instances: Int<1, INSTANCES_MAX> = 1;
        /// How long an answer takes: "5ms" (always), "lognormal 2ms 8ms" (median, p99) or "mm1 2000/s" (one server with a queue).
        default service: ServiceText = "1ms";
        /// Of an answer, 0B to 64MiB.
        default body: Size<0, { 64 << 20 }> = "1KiB";
        /// Which paths are routed to it: "/*" or a prefix such as "/orders/*". The longest prefix wins.
        default path: Prefix = "/*";
        /// So many of the last instances are used only when the others fail, 0 to 63.
        default backup: Int<0, { INSTANCES_MAX - 1 }> = 0;
        /// Instances (from 1) that are not there at first: connections to them are refused until a fault says start.
        default absent: List<Int<1, INSTANCES_MAX>, 0, { INSTANCES_MAX as usize }> = [];
        /// Cores of its instances: "auto" divides the machine (see docs/capacity.md), or a list such as [1].
        default cores: Cores = "auto";
    }
}

table! {
    /// A part of the load.
    Phase {
        /// Its name in results, unique.
        required name: Name;
        /// 100ms to 1d.
        required length: Time<100, DAY>;
        /// Instead of the load's rate: a factor of it from 0 to 100, or "3000/s".
        default rate: PhaseRate = 1.0;
        /// What is done. It stays done in later phases, until it is undone. At most 256.
        default faults: List<Fault, 0, FAULTS_MAX> = [];
        /// Failed requests (due in this phase), a number or a share: 0, "0.1%".
        optional max_failed: Allowed;
        /// The same of single targets, by name.
        default max_failed_of: Map<Name, Allowed, TARGETS_MAX> = {};
        /// The same of all targets together whose upstream is well while others are not.
        optional max_bystanders_failed: Allowed;
        /// Half of all requests may take longer, failures counting as for ever; 1us to 10m.
        optional max_p50: Latency;
        /// 1 % may take longer; the same.
        optional max_p99: Latency;
        /// 0.1 % may take longer; the same.
        optional max_p999: Latency;
        /// The slowest request that came, 1us to 10m.
        optional max_slowest: Latency;
        /// Good requests of all that were due, 0 to 1 or a percentage.
        optional min_goodput: Share;
        /// Requests that upstreams see for each of a client, 1 to 100.
        optional max_amplification: Amplification;
        /// From the start of the phase until nothing was lost or late any more, 1ms to 1h.
        optional max_detection: Span;
        /// From the start of the phase until latency and success are as in the first phase, 1ms to 1h.
        optional max_recovery: Span;
    }
}

table! {
    /// Something that is done: to instances of an upstream, or to the gateway.
    Fault {
        /// How long after the start of the phase, 0s to 1d.
        default after: Time<0, DAY> = "0s";
        /// The upstream; exactly one of this and `gateway` is given.
        optional upstream: Name;
        /// Which of its instances, from 1, or "all".
        default instance: Which = "all";
        /// What is done to it: kill, start, fine, slow 200ms, drip 10ms, error 20%, blackhole, reset, freeze 1.4s, flap 500ms.
        optional r#do: ActText;
        /// What is done to the gateway: reload, freeze 1s.
        optional gateway: GatewayActText;
    }
}

table! {
    /// What capacity means: the highest rate at which one of p50, p99 and p999 keeps this bound.
    Capacity {
        /// Bound of the median, 1us to 10m.
        optional p50: Latency;
        /// Bound of the 99th percentile, 1us to 10m.
        optional p99: Latency;
        /// Bound of the 99.9th percentile, 1us to 10m.
        optional p999: Latency;
        /// Failed requests of all that are allowed, 0 to 1 or a percentage.
        default failures: Share = "0.01%";
        /// Of the bracket, "0.5%" to "50%"; "5%" on up to four cores and "2.5%" on more where it is not given.
        optional width: Share;
        /// Length of a full trial, 1s to 10m; probes are shorter.
        default trial: Time<SECOND, { 10 * MINUTE }> = "10s";
        /// The search goes no further, "1/s" to "10000000/s".
        default max_rate: Requests<RATE_MAX> = "1000000/s";
        /// The upstream itself, when url is a gateway that is there already: it is measured too, so that its limit is not taken for the
        /// gateway's.
        optional direct: UrlText;
    }
}

table! {
    /// How many hosts.
    Sizing {
        /// Requests a second of all hosts together at the peak, "1/s" to "1000000000/s".
        required peak: Requests<PEAK_MAX>;
        /// Hosts that may fail at once, 0 to 100.
        default survive: Int<0, 100> = 1;
    }
}

table! {
    /// What has to hold of the whole; what is not given is not asked for.
    Thresholds {
        /// Bound of the median, failures counting as for ever, 1us to 10m.
        optional max_p50: Latency;
        /// Bound of the 99th percentile, 1us to 10m.
        optional max_p99: Latency;
        /// Bound of the 99.9th percentile, 1us to 10m.
        optional max_p999: Latency;
        /// Failed requests, a number or a share: 0, "0.1%".
        optional max_failed: Allowed;
        /// Good requests of all that were due, 0 to 1 or a percentage.
        optional min_goodput: Share;
        /// Of capacity: the lower end of its bracket, "1/s" to "10000000/s".
        optional min_capacity: Requests<RATE_MAX>;
        /// CPU time of the gateway for each good request, 1us to 10m, where it was started by the plan.
        optional max_cpu: Latency;
        /// Resident memory of the gateway at the end, 1MiB to 1TiB, where it was started by the plan.
        optional max_memory: Size<{ 1 << 20 }, { 1 << 40 }>;
        /// Hosts, of `size`, 1 to 1000000.
        optional max_hosts: Int<1, 1_000_000>;
    }
}

/// The JSON schema of a plan (draft 2020-12), as text that ends with a newline.
#[must_use]
pub fn schema() -> String {
    schema_of::<File>("ringgate-load plan")
}
