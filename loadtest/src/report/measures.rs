//! What of a result can be compared with another: numbers, each with the interval that chance alone may move it in.

use super::distribution::Distribution;
use super::groups::{self, is_same_rate, rows};
use super::words;
use crate::result::{Interval, Outcome, PhaseCount, Run, SPOILED, Spectrum};

/// What a number is of, and which direction is the good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// Requests a second: more is better.
    Rate,
    /// Seconds: less is better.
    Time,
    /// CPU microseconds a request: less is better.
    Micros,
    /// Of all requests, 0 to 1: less is better.
    Share,
    /// Hosts: less is better.
    Hosts,
}

impl Quantity {
    /// As people read it.
    pub(super) fn shown(self, value: f64) -> String {
        match self {
            _ if value.is_infinite() => "∞".to_owned(),
            Self::Rate => format!("{}/s", words::rate(value)),
            Self::Time => words::time(Some(value)),
            Self::Micros => words::micros(value),
            Self::Share => words::percent(value),
            Self::Hosts => words::count(value as u64),
        }
    }
}

/// A number of a result.
#[derive(Clone, Debug)]
pub(super) struct Measure {
    /// A phase, a purpose of runs, a gateway.
    pub(super) of: String,
    /// The offered rate, where it has one.
    pub(super) rate: Option<f64>,
    /// `p99`, `failed` …
    pub(super) what: &'static str,
    /// Its unit.
    pub(super) quantity: Quantity,
    /// Its value, and 95 %; both ends NaN: nothing is known about how chance moves it.
    pub(super) interval: Interval,
}

impl Measure {
    /// Whether both measure the same thing.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.of == other.of && self.what == other.what && is_same_rate(self.rate, other.rate)
    }
}

/// What is known of one group of requests.
struct Requests<'a> {
    of: String,
    rate: Option<f64>,
    /// One a run.
    latencies: Vec<&'a Spectrum>,
    due: u64,
    good: u64,
    /// Of each run, CPU microseconds a good request.
    cpu: Vec<f64>,
}

/// Everything of a result that can be compared.
pub(super) fn all(outcome: &Outcome) -> Vec<Measure> {
    let mut measures = Vec::new();
    let mut add = |of: &str, what, quantity, interval| {
        measures.push(Measure { of: of.to_owned(), rate: None, what, quantity, interval });
    };
    if let Some(capacity) = &outcome.capacity
        && let Some(holds) = capacity.holds
    {
        let high = capacity.breaks.unwrap_or(f64::INFINITY);
        add("capacity", "holds", Quantity::Rate, Interval { value: holds, low: holds, high });
    }
    if let Some(sizing) = &outcome.sizing {
        add("sizing", "hosts", Quantity::Hosts, unknown(sizing.hosts as f64));
    }
    for peer in outcome.peers.iter().flat_map(|peers| &peers.peers) {
        add(&peer.name, "CPU a request", Quantity::Micros, peer.cpu);
    }
    for requests in requests(outcome) {
        measures.extend(of_requests(&requests));
    }
    measures
}

fn requests(outcome: &Outcome) -> Vec<Requests<'_>> {
    if !outcome.drills.is_empty() {
        return of_drills(outcome);
    }
    if let Some(peers) = &outcome.peers {
        let rate = Some(peers.rate);
        let of = |peer: &crate::result::Peer| Requests {
            cpu: Vec::new(),
            ..together(peer.name.clone(), rate, &rows(outcome, &peer.runs))
        };
        return peers.peers.iter().map(of).collect();
    }
    let groups = groups::all(outcome).into_iter().filter(|group| group.rate.is_some());
    // short trials of a search are for its own steering, and what the machine spoiled says nothing
    let judged = groups.filter(|group| !matches!(group.label, "probe" | "short" | SPOILED));
    judged.map(|group| together(group.label.to_owned(), group.rate, &group.runs)).collect()
}

fn together<'a>(of: String, rate: Option<f64>, runs: &[&'a Run]) -> Requests<'a> {
    Requests {
        of,
        rate,
        latencies: runs.iter().map(|run| &run.latency).collect(),
        due: runs.iter().map(|run| run.due).sum(),
        good: runs.iter().map(|run| run.good).sum(),
        cpu: runs.iter().filter_map(|run| words::cpu_each(run)).collect(),
    }
}

fn of_drills(outcome: &Outcome) -> Vec<Requests<'_>> {
    let mut requests: Vec<Requests> = Vec::new();
    for drill in &outcome.drills {
        let whose = if outcome.drills.len() > 1 { format!("{}, ", drill.gateway) } else { String::new() };
        let runs = rows(outcome, &[drill.run]);
        let rate = runs.first().and_then(|run| run.rate);
        for (row, phase) in drill.phases.iter().enumerate() {
            let PhaseCount { due, good, .. } = phase.count;
            let of = format!("{whose}{} {}", row + 1, phase.name);
            requests.push(Requests { of, rate, latencies: vec![&phase.count.latency], due, good, cpu: Vec::new() });
        }
        requests.push(Requests { latencies: Vec::new(), ..together(format!("{whose}all phases"), rate, &runs) });
    }
    requests
}

fn of_requests(requests: &Requests) -> Vec<Measure> {
    let mut measures = Vec::new();
    let mut add = |what, quantity, interval| {
        measures.push(Measure { of: requests.of.clone(), rate: requests.rate, what, quantity, interval });
    };
    for (what, q) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        if let Some(interval) = quantile(&requests.latencies, q) {
            add(what, Quantity::Time, interval);
        }
    }
    add("failed", Quantity::Share, share(words::failed(requests.due, requests.good), requests.due));
    if let Some(value) = groups::median(requests.cpu.iter().copied()) {
        let range =
            || requests.cpu.iter().fold((f64::INFINITY, 0.0_f64), |ends, cpu| (ends.0.min(*cpu), ends.1.max(*cpu)));
        let interval = match requests.cpu.len() {
            1 => unknown(value),
            _ => Interval { value, low: range().0, high: range().1 },
        };
        add("CPU a request", Quantity::Micros, interval);
    }
    measures
}

/// A quantile of all runs together: its order-statistic interval, widened to what the runs were one by one, since one run's requests share
/// its weather.
fn quantile(latencies: &[&Spectrum], q: f64) -> Option<Interval> {
    let all = Distribution::of(latencies.iter().copied())?;
    let (mut low, mut high) = all.interval(q);
    if latencies.len() > 1 {
        for one in latencies.iter().filter_map(|one| Distribution::of([*one])) {
            (low, high) = (low.min(one.quantile(q)), high.max(one.quantile(q)));
        }
    }
    Some(Interval { value: all.quantile(q), low, high })
}

/// A share with Wilson's score interval (1927), which is right at 0 as well.
fn share(some: u64, all: u64) -> Interval {
    if all == 0 {
        return unknown(0.0);
    }
    let (n, p, z) = (all as f64, words::part(some, all), 1.96_f64);
    let (middle, spread) = (p + z * z / (2.0 * n), z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt());
    let by = 1.0 + z * z / n;
    Interval { value: p, low: ((middle - spread) / by).max(0.0).min(p), high: ((middle + spread) / by).max(p) }
}

fn unknown(value: f64) -> Interval {
    Interval { value, low: f64::NAN, high: f64::NAN }
}
