//! The numbers in Prometheus' text format, in pieces.
//!
//! A scrape walks one table of metric families (`families`, `own_families`) and, for each, the rows it has (routes, clusters, workers …); [`Scrape`] is an
//! iterator of pieces of about 16 KiB, so ten thousand routes need no more memory than ten. Routes without a request are left out.
//! Numbers that can occur for every cluster are there from the start, at zero, so that `rate()` sees the first event.
//!
//! What this does not do: compress, negotiate OpenMetrics, or keep a consistent snapshot over families; each number is read when
//! its line is written.
//!
//! Source: Prometheus "Exposition formats", text format 0.0.4.

mod families;
mod grpc_families;
mod http2_families;
mod key_families;
mod own_families;
mod rows;
mod tls_families;
mod traffic_families;

use super::histogram::HistogramSum;
use super::stats::{ClusterStats, NameView, RequestKey, Stats};
use crate::config::Cluster;
use crate::units::{ClusterId, Instant};
use families::FAMILIES;
use grpc_families::GRPC_FAMILIES;
use http2_families::HTTP2_FAMILIES;
use key_families::KEY_FAMILIES;
use own_families::OWN_FAMILIES;
use std::fmt::{Display, Write};
use std::sync::Arc;
use tls_families::TLS_FAMILIES;
use traffic_families::TRAFFIC_FAMILIES;

/// `Content-Type` of a scrape.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A piece is handed out once it is this long.
const PIECE_BYTES: usize = 16 << 10;

/// What the system says about a process, under the names that all exporters use ("Writing client libraries", Prometheus).
#[derive(Clone, Copy, Debug)]
pub struct ProcessNumbers {
    /// User and system, since it began.
    pub cpu_seconds: f64,
    /// Open descriptors.
    pub open_descriptors: u64,
    /// How many may be open.
    pub descriptors_max: u64,
    /// Address space.
    pub virtual_bytes: u64,
    /// Memory.
    pub resident_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Since 1970-01-01T00:00:00Z.
    pub start_seconds: f64,
}

/// One scrape in progress: an iterator of pieces of text.
pub struct Scrape {
    stats: Arc<Stats>,
    process: Option<ProcessNumbers>,
    now: Instant,
    /// Where the walk stands: family, and row within it.
    family: usize,
    row: usize,
    /// Counters of requests over all workers by their packed keys, rising.
    requests: Vec<(u64, u64)>,
    names: Vec<NameView>,
}

impl Scrape {
    /// A scrape of `stats` at `now` (which ages are measured from), with what the system says about the process.
    #[must_use]
    pub fn new(stats: Arc<Stats>, process: Option<ProcessNumbers>, now: Instant) -> Self {
        let requests = sum_requests(&stats);
        let names = stats.names();
        Self { stats, process, now, family: 0, row: 0, requests, names }
    }

    fn clusters(&self, row: usize) -> impl Iterator<Item = &ClusterStats> {
        self.stats.cluster_parts(ClusterId::from_index(row)).touched()
    }

    fn cluster_sum(&self, row: usize, number: impl Fn(&ClusterStats) -> u64) -> u64 {
        self.clusters(row).map(number).sum()
    }

    fn cluster(&self, row: usize) -> &Cluster {
        &self.stats.config.clusters[row]
    }
}

/// In the order of a scrape.
const ALL: [&[Family]; 7] =
    [FAMILIES, TLS_FAMILIES, HTTP2_FAMILIES, GRPC_FAMILIES, KEY_FAMILIES, TRAFFIC_FAMILIES, OWN_FAMILIES];

impl Iterator for Scrape {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let mut piece = String::new();
        while let Some(family) = ALL.iter().copied().flatten().nth(self.family) {
            if piece.len() >= PIECE_BYTES {
                return Some(piece);
            }
            if self.row == 0 {
                let Family { name, help, kind, .. } = family;
                let _ = writeln!(piece, "# HELP {name} {help}\n# TYPE {name} {kind}");
            }
            // At least one row follows the head lines in the same piece, so that row 0 is never begun twice.
            let rows = (family.rows)(self);
            while self.row < rows {
                (family.render)(self, self.row, &mut Samples { out: &mut piece, name: family.name });
                self.row += 1;
                if piece.len() >= PIECE_BYTES {
                    break;
                }
            }
            if self.row < rows {
                return Some(piece);
            }
            (self.family, self.row) = (self.family + 1, 0);
        }
        (!piece.is_empty()).then_some(piece)
    }
}

/// All request counters, summed over the workers and sorted, so that a route's lines stand together.
fn sum_requests(stats: &Stats) -> Vec<(u64, u64)> {
    let mut sums: Vec<(u64, u64)> = Vec::new();
    for row in 0..=stats.config.routes.len() {
        // rows are bounded by ROUTES_MAX, which is less than 2^32
        let of_row = RequestKey { route: row as u32, method: 0, status: 0 }.pack();
        let slots = stats.route_parts(row).touched().flat_map(|route| route.requests.iter());
        sums.extend(slots.map(|slot| (of_row | slot.key.get(), slot.count.get())));
    }
    sums.sort_unstable_by_key(|(key, _)| *key);
    sums.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        kept.1 += if same { next.1 } else { 0 };
        same
    });
    sums
}

/// One metric: its head lines, how many rows it has, and how a row becomes lines.
struct Family {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
    rows: fn(&Scrape) -> usize,
    render: fn(&Scrape, usize, &mut Samples<'_>),
}

/// Writes the lines of one family.
struct Samples<'a> {
    out: &'a mut String,
    name: &'static str,
}

impl Samples<'_> {
    /// One line: the family's name, labels, value.
    fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.line("", labels, value);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        self.out.push_str(self.name);
        self.out.push_str(suffix);
        let mut separator = '{';
        for (name, text) in labels {
            self.out.push(separator);
            self.out.push_str(name);
            self.out.push_str("=\"");
            escape_label(self.out, text);
            self.out.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.out.push('}');
        }
        // Writing into a String cannot fail.
        let _ = writeln!(self.out, " {value}");
    }

    fn histogram(&mut self, label: (&str, &str), sum: &HistogramSum) {
        sum.for_each_le(|le, count| self.line("_bucket", &[label, ("le", le)], count));
        let count = sum.count();
        self.line("_bucket", &[label, ("le", "+Inf")], count);
        self.line("_sum", &[label], Seconds(sum.sum_nanos()));
        self.line("_count", &[label], count);
    }
}

/// A label's value: backslash, quote and line feed are escaped, as the format asks; all else is UTF-8 already.
fn escape_label(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

/// Nanoseconds, written as seconds without loss.
struct Seconds(u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Target};
    use crate::error::ProxyError;
    use crate::observe::fixture;
    use crate::observe::labels::{AttemptOutcome, DriverRung, MethodLabel, ProbeState};
    use crate::observe::recorder::Finished;
    use crate::observe::stats::Failure;
    use crate::units::{ClusterId, EndpointId, ListenerId, RouteId, WorkerId};
    use http::StatusCode;
    use std::collections::{HashMap, HashSet};
    use std::time::Duration;

    const PROCESS: ProcessNumbers = ProcessNumbers {
        cpu_seconds: 1.25,
        open_descriptors: 30,
        descriptors_max: 1_024,
        virtual_bytes: 1 << 30,
        resident_bytes: 1 << 25,
        threads: 5,
        start_seconds: 1.75e9,
    };

    fn finished(route: Option<u32>) -> Finished {
        Finished {
            consumer: None,
            route: route.map(RouteId),
            method: MethodLabel::Get,
            status: StatusCode::OK,
            error: None,
            duration: Duration::from_micros(1500),
            request_bytes: 100,
            response_bytes: 900,
            client: None,
        }
    }

    fn scrape(stats: &Arc<Stats>) -> String {
        Scrape::new(Arc::clone(stats), Some(PROCESS), Instant::from_nanos(10_000_000_000)).collect()
    }

    /// A sample line of the grammar: name, labels, value.
    type Sample = (String, Vec<(String, String)>, f64);

    /// Reads one sample line strictly by the format's grammar.
    fn parse_sample(line: &str) -> Sample {
        let is_name = |name: &str| {
            let mut bytes = name.bytes();
            bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
                && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        let end = line.find(['{', ' ']).expect("a name ends");
        let name = line[..end].to_owned();
        assert!(is_name(&name), "{line}");
        let mut rest = &line[end..];
        let mut labels = Vec::new();
        if let Some(mut inner) = rest.strip_prefix('{') {
            loop {
                let (label, after) = inner.split_once("=\"").expect("label=\"");
                assert!(is_name(label), "{line}");
                let (mut value, mut chars) = (String::new(), after.char_indices());
                let close = loop {
                    match chars.next().expect("the quote is closed") {
                        (_, '\\') => value.push(match chars.next().expect("an escape is whole").1 {
                            'n' => '\n',
                            c @ ('"' | '\\') => c,
                            other => panic!("escape {other} in {line}"),
                        }),
                        (at, '"') => break at,
                        (_, c) => value.push(c),
                    }
                };
                labels.push((label.to_owned(), value));
                inner = &after[close + 1..];
                match inner.strip_prefix(',') {
                    Some(next) => inner = next,
                    None => break,
                }
            }
            rest = inner.strip_prefix('}').expect("labels are closed");
        }
        let value = rest.strip_prefix(' ').expect("one space before the value");
        (name, labels, value.parse().unwrap_or_else(|_| panic!("{line}")))
    }

    /// Checks the whole text: every sample belongs to the family announced above it, no family and no series comes twice.
    fn parse(text: &str) -> Vec<Sample> {
        let (mut samples, mut families, mut series) = (Vec::new(), HashSet::new(), HashSet::new());
        let (mut family, mut kind) = (String::new(), "");
        let mut lines = text.lines();
        assert!(text.ends_with('\n'));
        while let Some(line) = lines.next() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split(' ').next().unwrap().to_owned();
                assert!(families.insert(family.clone()), "{family} comes twice");
                let announced = lines.next().unwrap().strip_prefix("# TYPE ").unwrap();
                kind = announced.strip_prefix(&family).unwrap().trim();
                assert!(["counter", "gauge", "histogram"].contains(&kind));
                assert!(kind != "counter" || family.ends_with("_total"), "{family}");
                continue;
            }
            let sample = parse_sample(line);
            match sample.0.strip_prefix(&family) {
                Some("") => assert_ne!(kind, "histogram"),
                Some("_bucket" | "_sum" | "_count") => assert_eq!(kind, "histogram"),
                _ => panic!("{line} under {family}"),
            }
            assert!(series.insert((sample.0.clone(), sample.1.clone())), "{line} comes twice");
            samples.push(sample);
        }
        samples
    }

    fn value(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: Vec<_> = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        samples.iter().find(|(n, l, _)| n == name && *l == wanted).map(|(_, _, value)| *value)
    }

    #[test]
    fn a_scrape_follows_the_grammar_and_tells_what_was_counted() {
        let stats = Stats::new(&fixture::config(), 2);
        let recorders: Vec<_> = stats.worker_ids().map(|worker| stats.recorder(worker)).collect();
        for recorder in &recorders {
            recorder.finished(&finished(Some(0)));
            recorder.finished(&Finished { error: Some(ProxyError::NoRoute), ..finished(None) });
            recorder.rate_limited_dry_run(RouteId(0));
            recorder.attempt(ClusterId(1), EndpointId(0), AttemptOutcome::Reset, Duration::from_millis(2));
            recorder.attempt(ClusterId(1), EndpointId(0), AttemptOutcome::Stale, Duration::from_millis(2));
            recorder.stale_connection(ClusterId(1));
            recorder.connection_opened(ListenerId(0));
            recorder.driver(DriverRung::Epoll);
            recorder.turn(Instant::from_nanos(8_000_000_000));
        }
        let down = Failure::of_status(StatusCode::SERVICE_UNAVAILABLE);
        let times = [6_500_000_000, 7_500_000_000].map(Instant::from_nanos);
        stats.record_probe(ClusterId(0), EndpointId(0), Err(down), ProbeState::Healthy, times[0]);
        stats.record_probe(ClusterId(0), EndpointId(0), Ok(()), ProbeState::Healthy, times[1]);
        stats.record_probe_exhausted(ClusterId(0), EndpointId(0));
        let samples = parse(&scrape(&stats));
        let is = |name: &str, labels: &[(&str, &str)], expected: f64| {
            assert_eq!(value(&samples, name, labels), Some(expected), "{name} {labels:?}");
        };
        is("ringgate_requests_total", &[("route", "orders"), ("method", "GET"), ("code", "200")], 2.0);
        is("ringgate_requests_total", &[("route", "-"), ("method", "GET"), ("code", "200")], 2.0);
        is("ringgate_request_duration_seconds_bucket", &[("route", "orders"), ("le", "0.001")], 0.0);
        is("ringgate_request_duration_seconds_bucket", &[("route", "orders"), ("le", "0.0025")], 2.0);
        is("ringgate_request_duration_seconds_bucket", &[("route", "orders"), ("le", "+Inf")], 2.0);
        is("ringgate_request_duration_seconds_sum", &[("route", "orders")], 0.003);
        is("ringgate_request_duration_seconds_count", &[("route", "orders")], 2.0);
        is("ringgate_request_bytes_total", &[("route", "orders")], 2000.0);
        is("ringgate_rejected_total", &[("route", "-"), ("reason", "no_route")], 2.0);
        is("ringgate_rejected_total", &[("route", "orders"), ("reason", "rate_limited_dry_run")], 2.0);
        let odd = "unix:/run/\"odd\".sock";
        let attempts = [("upstream", "local"), ("endpoint", odd), ("outcome", "reset")];
        is("ringgate_upstream_attempts_total", &attempts, 2.0);
        let stale = [("upstream", "local"), ("endpoint", odd), ("outcome", "stale")];
        is("ringgate_upstream_attempts_total", &stale, 2.0);
        is("ringgate_upstream_duration_seconds_count", &[("upstream", "local")], 2.0);
        is("ringgate_stale_connections_total", &[("upstream", "local")], 2.0);
        is("ringgate_stale_connections_total", &[("upstream", "orders")], 0.0);
        is("ringgate_retries_total", &[("upstream", "orders"), ("reason", "timeout")], 0.0);
        is("ringgate_retry_budget_exhausted_total", &[("upstream", "orders")], 0.0);
        is("ringgate_endpoint_available", &[("upstream", "local"), ("endpoint", odd)], 1.0);
        let ejections = [("upstream", "local"), ("endpoint", odd), ("reason", "success_ratio")];
        is("ringgate_endpoint_ejections_total", &ejections, 0.0);
        is("ringgate_upstream_connections", &[("upstream", "orders"), ("state", "idle")], 0.0);
        is("ringgate_connections", &[("listener", "edge")], 2.0);
        let first = [("upstream", "orders"), ("endpoint", "10.0.0.1:8080")];
        is("ringgate_health_check_healthy", &first, 1.0);
        is("ringgate_health_check_age_seconds", &first, 2.5);
        let [upstream, endpoint] = first;
        for result in ["passed", "failed", "exhausted"] {
            is("ringgate_health_checks_total", &[upstream, endpoint, ("result", result)], 1.0);
        }
        is("ringgate_health_check_failures_total", &[upstream, endpoint, ("reason", "status")], 1.0);
        is("ringgate_health_check_failures_total", &[upstream, endpoint, ("reason", "timeout")], 0.0);
        is("ringgate_worker_driver_info", &[("worker", "1"), ("driver", "epoll")], 1.0);
        is("ringgate_worker_last_turn_age_seconds", &[("worker", "0")], 2.0);
        is("ringgate_worker_running", &[("worker", "0")], 0.0);
    }

    #[test]
    fn routes_without_a_request_are_left_out() {
        let stats = Stats::new(&fixture::config(), 1);
        assert!(!scrape(&stats).contains("route=\"orders\""));
        stats.recorder(WorkerId(0)).finished(&finished(Some(0)));
        let text = scrape(&stats);
        assert!(text.contains("route=\"orders\"") && !text.contains("route=\"plain\""));
    }

    #[test]
    fn buckets_are_cumulative_and_end_at_the_count() {
        let stats = Stats::new(&fixture::config(), 1);
        let recorder = stats.recorder(WorkerId(0));
        for n in 0..40 {
            recorder.finished(&Finished { duration: Duration::from_micros(10 << (n / 2)), ..finished(Some(0)) });
        }
        let samples = parse(&scrape(&stats));
        let buckets: Vec<f64> = samples
            .iter()
            .filter(|(name, labels, _)| name == "ringgate_request_duration_seconds_bucket" && labels[0].1 == "orders")
            .map(|(_, _, value)| *value)
            .collect();
        assert!(buckets.len() > 10 && buckets.is_sorted());
        assert_eq!(buckets.last(), Some(&40.0));
    }

    #[test]
    fn pieces_may_end_anywhere_without_repeating_or_losing_a_line() {
        // A longer name moves every border between pieces.
        let base = fixture::config();
        let mut lines = HashSet::new();
        for len in 1..400 {
            let mut config = (*base).clone();
            Arc::make_mut(&mut config.clusters[0]).name = "x".repeat(len);
            let stats = Stats::new(&Arc::new(config), 2);
            stats.worker_ids().for_each(|worker| stats.recorder(worker).finished(&finished(Some(0))));
            lines.insert(parse(&scrape(&stats)).len());
        }
        assert_eq!(lines.len(), 1, "the same lines whatever the name: {lines:?}");
    }

    #[test]
    fn label_values_are_escaped() {
        let mut out = String::new();
        escape_label(&mut out, "a\\b\"c\nd\u{e9}");
        assert_eq!(out, "a\\\\b\\\"c\\nd\u{e9}");
    }

    #[test]
    fn ten_thousand_routes_come_in_small_pieces() {
        let base = fixture::config();
        let respond = Target::Redirect { to: "/".into(), status: StatusCode::FOUND };
        let routes = (0..10_000).map(|n| fixture::route(&format!("r{n}"), "/x", respond.clone())).collect();
        let stats = Stats::new(&Arc::new(Config { routes, ..(*base).clone() }), 1);
        let recorder = stats.recorder(WorkerId(0));
        (0..10_000).for_each(|n| recorder.finished(&finished(Some(n))));
        let mut lines = HashMap::new();
        for piece in Scrape::new(Arc::clone(&stats), None, Instant::from_nanos(0)) {
            assert!(piece.len() < 2 * PIECE_BYTES && piece.ends_with('\n'), "{}", piece.len());
            for line in piece.lines() {
                *lines.entry(line.split('{').next().unwrap().to_owned()).or_insert(0) += 1;
            }
        }
        assert_eq!(lines["ringgate_requests_total"], 10_000);
        assert_eq!(
            lines["ringgate_request_duration_seconds_bucket"],
            10_000 * (crate::observe::histogram::LE.len() + 1)
        );
    }

    /// Alerts and dashboards that name what is not there never fire, and nobody notices.
    #[test]
    fn what_operators_are_given_names_metrics_that_are_there() {
        let known: HashSet<&str> = ALL.iter().copied().flatten().map(|family| family.name).collect();
        for (file, text) in [
            ("config/monitoring/alerts.yml", include_str!("../../config/monitoring/alerts.yml")),
            ("config/monitoring/alerts_test.yml", include_str!("../../config/monitoring/alerts_test.yml")),
            (
                "config/monitoring/grafana-dashboard.json",
                include_str!("../../config/monitoring/grafana-dashboard.json"),
            ),
            ("docs/operations.md", include_str!("../../docs/operations.md")),
            ("README.md", include_str!("../../README.md")),
        ] {
            let names = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| {
                // not a package's file name, nor "ringgate_…" for several
                word.strip_prefix("ringgate_").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
            });
            for name in names.filter(|name| !name.ends_with('_')) {
                let family =
                    ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
                assert!(known.contains(name) || known.contains(family), "{file} names {name}, which there is not");
            }
        }
    }
}
