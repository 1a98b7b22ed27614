//! Results as commands make them: latencies drawn from a queue that fills as the rate nears capacity, with faults where a drill has them.
//!
//! Everything follows from a seed. Names, sizes and counts are those of real results, so that what fits here fits there.

mod drills;

pub(crate) use drills::{drill, drill_of_two};

use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2DeflateSerializer};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use ringgate_load::result::{
    Capacity, Curve, Described, DescribedTarget, Environment, Gate, Interval, Outcome, Peer, Peers, Ratio, Run, SCHEMA,
    Sizing, Slice, Spectrum, Verdict,
};
use std::collections::BTreeMap;

/// Samples of one histogram; each stands for as many requests as there were.
const SAMPLES: u64 = 2_000;

/// A server as its latency shows: seconds of its fastest answer, requests/s at which its queue has no end, CPU microseconds a request.
#[derive(Clone, Copy)]
pub(crate) struct Server {
    name: &'static str,
    fastest: f64,
    capacity: f64,
    cpu: f64,
}

pub(crate) const RINGGATE: Server = Server { name: "ringgate", fastest: 310e-6, capacity: 27_150.0, cpu: 31.0 };
pub(crate) const NGINX: Server = Server { name: "nginx", fastest: 340e-6, capacity: 21_000.0, cpu: 38.5 };
const HAPROXY: Server = Server { name: "haproxy", fastest: 330e-6, capacity: 23_800.0, cpu: 32.1 };
const ENVOY: Server = Server { name: "envoy", fastest: 520e-6, capacity: 9_900.0, cpu: 88.0 };
const UPSTREAM: Server = Server { name: "upstream", fastest: 180e-6, capacity: 70_000.0, cpu: 9.0 };

/// One latency in seconds.
fn drawn(server: Server, rate: f64, rng: &mut StdRng) -> f64 {
    let busy = (rate / server.capacity).min(0.995);
    let service = -server.fastest * 0.35 * rng.random_range(1e-9..1.0_f64).ln();
    let queue = -server.fastest * busy * busy / (1.0 - busy) * 0.55 * rng.random_range(1e-9..1.0_f64).ln();
    let hiccup = if rng.random_range(0.0..1.0) < 0.001 { rng.random_range(0.001..0.012) } else { 0.0 };
    server.fastest + service + if rng.random_range(0.0..1.0) < busy { queue } else { 0.0 } + hiccup
}

/// The spectrum of these seconds, each `times` requests, with failures.
pub(crate) fn spectrum(values: &[f64], times: u64, infinite: u64) -> Spectrum {
    let mut all = Histogram::<u64>::new(3).expect("three digits");
    values.iter().for_each(|seconds| all.record_n((seconds * 1e9) as u64, times).expect("it grows"));
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(&all, &mut bytes).expect("memory");
    let count = all.len() + infinite;
    let at = |q: f64| {
        let rank = (q * count as f64).ceil();
        let share = rank / all.len().max(1) as f64;
        (share <= 1.0).then(|| all.value_at_quantile(share) as f64 / 1e9)
    };
    Spectrum {
        count,
        infinite,
        mean: (!all.is_empty()).then(|| all.mean() / 1e9),
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max: (infinite == 0 && !all.is_empty()).then(|| all.max() as f64 / 1e9),
        histogram: base64::engine::general_purpose::STANDARD.encode(bytes),
    }
}

/// A run of so many seconds without faults.
pub(crate) fn run(label: &str, server: Server, rate: f64, length: f64, rng: &mut StdRng) -> Run {
    let due = (rate * length) as u64;
    let times = (due / SAMPLES).max(1);
    let values: Vec<f64> = (0..due / times).map(|_| drawn(server, rate, rng)).collect();
    let due = values.len() as u64 * times;
    let sent: Vec<f64> = values.iter().map(|value| value.min(server.fastest * 4.0) + server.fastest * 0.1).collect();
    let lag: Vec<f64> = values.iter().map(|_| 2e-6 - 6e-6 * rng.random_range(1e-9..1.0_f64).ln()).collect();
    let latency = spectrum(&values, times, 0);
    let in_flight = rate * latency.mean.unwrap_or_default();
    Run {
        label: label.to_owned(),
        server: server.name.to_owned(),
        rate: Some(rate),
        length,
        due,
        good: due,
        statuses: BTreeMap::from([(200, due)]),
        series: (0..length as usize).map(|second| slice(server, rate, second as f64, rng)).collect(),
        targets: Vec::new(),
        uncorrected: spectrum(&sent, times, 0),
        lag: spectrum(&lag, times, 0),
        latency,
        connections_opened: 64,
        sent_bytes: due * 92,
        received_bytes: due * 310,
        generator_busy: 0.18 + rate / 90_000.0,
        generator_cpu: length * (0.18 + rate / 90_000.0),
        steal: 0.001,
        in_flight,
        in_flight_max: (in_flight * 6.0) as u64 + 9,
        server_cpu: Some(due as f64 * server.cpu * rng.random_range(0.98..1.02) / 1e6),
        server_resident: Some(38 << 20),
        ..Run::default()
    }
}

fn slice(server: Server, rate: f64, at: f64, rng: &mut StdRng) -> Slice {
    let mut values: Vec<f64> = (0..400).map(|_| drawn(server, rate, rng)).collect();
    values.sort_by(f64::total_cmp);
    let due = (rate * rng.random_range(0.985..1.015)) as u64;
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    Slice {
        at,
        length: 1.0,
        due,
        good: due,
        p50: Some(values[200]),
        p99: Some(values[396]),
        max: values.last().copied(),
        mean: Some(mean),
        good_p99: Some(values[396]),
        in_flight: rate * mean,
    }
}

/// What all results have.
fn outcome(command: &str, title: &str, runs: Vec<Run>) -> Outcome {
    Outcome {
        schema: SCHEMA,
        tool: "0.1.0".to_owned(),
        command: command.to_owned(),
        title: title.to_owned(),
        started: 1_795_953_600.0,
        finished: 1_795_953_842.0,
        seed: 0x5eed_0017,
        environment: Environment {
            host: "edge-07".to_owned(),
            kernel: "6.12.9-amd64".to_owned(),
            cpu: "AMD EPYC 9354P 32-Core Processor".to_owned(),
            cores: (0..8).collect(),
            memory_bytes: 32 << 30,
            generator_cores: vec![4, 5],
            gateway_cores: vec![0, 1, 2, 3],
            upstream_cores: vec![6, 7],
            clock_offset: 0.0,
        },
        load: Described {
            protocol: "HTTP/1.1".to_owned(),
            url: "http://127.0.0.1:8080/".to_owned(),
            pace: "poisson".to_owned(),
            connections: 64,
            connections_max: 1_024,
            reconnects: false,
            timeout: 2.0,
            targets: vec![DescribedTarget {
                name: "/".to_owned(),
                request: "GET /".to_owned(),
                share: 1.0,
                body_bytes: 0,
            }],
        },
        runs,
        gates: gates(true),
        ..Outcome::default()
    }
}

/// All gates; that of the schedule holds or not.
fn gates(lag_holds: bool) -> Vec<Gate> {
    let gate = |name: &str, holds, measured: &str, wanted: &str, advice: &str| Gate {
        name: name.to_owned(),
        holds,
        measured: measured.to_owned(),
        wanted: wanted.to_owned(),
        advice: advice.to_owned(),
    };
    let lag = if lag_holds { "p99.9 of 38 µs" } else { "p99.9 of 2.31 ms" };
    vec![
        gate(
            "schedule lag",
            lag_holds,
            lag,
            "at most 500 µs, a tenth of the bound",
            "Give the generator cores of its own (--cores), or offer less.",
        ),
        gate("generator busy", true, "44 % of the busiest core", "below 80 %", "Add generator cores."),
        gate(
            "Little’s law",
            true,
            "in flight 12.4, rate × mean latency 12.3: 0.8 % apart",
            "within 5 %",
            "Repeat on a quiet machine.",
        ),
        gate(
            "CPU steal",
            lag_holds,
            if lag_holds { "0.1 %" } else { "6.4 %" },
            "below 2 %",
            "Another guest takes this machine’s cores: repeat later, or elsewhere.",
        ),
        gate(
            "upstream headroom",
            true,
            "p99 of 412 µs at 35,100 requests/s",
            "at most 2.5 ms at 1.5 × the rate",
            "Start more upstreams.",
        ),
    ]
}

fn verdict(name: &str, passed: bool, measured: &str, wanted: &str) -> Verdict {
    Verdict { name: name.to_owned(), passed, measured: measured.to_owned(), wanted: wanted.to_owned() }
}

/// A search for capacity that succeeded.
pub(crate) fn capacity(server: Server) -> Outcome {
    let rng = &mut StdRng::seed_from_u64(1);
    let top = server.capacity * 0.862;
    let (holds, breaks) = ((top / 100.0).round() * 100.0, (top * 1.047 / 100.0).round() * 100.0);
    let mut runs = Vec::new();
    for share in [0.1, 0.25, 0.4, 0.6, 0.8] {
        runs.push(run("direct", UPSTREAM, (share * breaks * 1.25).round(), 5.0, rng));
    }
    for (label, share) in [
        ("probe", 0.08),
        ("short", 0.3),
        ("short", 0.45),
        ("short", 0.675),
        ("short", 0.95),
        ("short", 0.80),
        ("short", 0.84),
    ] {
        runs.push(run(label, server, (share * server.capacity).round(), 5.0, rng));
    }
    for _ in 0..5 {
        runs.push(run("full", server, holds, 30.0, rng));
        runs.push(run("full", server, breaks, 30.0, rng));
    }
    for run in runs.iter_mut().filter(|run| run.label != "direct" && run.rate.is_some_and(|rate| rate >= breaks)) {
        run.refused = Some(format!(
            "p99 {} > 5 ms",
            ringgate_load::units::shown(run.latency.p99.unwrap_or(f64::INFINITY) * 1.03)
        ));
    }
    let mut made = outcome("capacity", "Capacity of http://127.0.0.1:8080/ at p99 < 5 ms", runs);
    made.capacity = Some(Capacity {
        quantile: 0.99,
        bound: 0.005,
        failures: 1e-4,
        holds: Some(holds),
        breaks: Some(breaks),
        width: 0.05,
        passed_at_holds: (5, 5),
        passed_at_breaks: (0, 5),
        because: Some("p99 of 8.9 ms".to_owned()),
    });
    made
}

/// How many hosts, from a capacity.
pub(crate) fn size() -> Outcome {
    let mut made = capacity(RINGGATE);
    let confirmed = run("confirm", RINGGATE, 20_000.0, 30.0, &mut StdRng::seed_from_u64(3));
    made.runs.push(confirmed);
    made.command = "size".to_owned();
    made.title = "Hosts for 200,000 requests/s at p99 < 5 ms, one of which may fail".to_owned();
    made.sizing = Some(Sizing {
        peak: 200_000.0,
        survive: 1,
        planned: 17_550.0,
        planned_by: "three quarters of capacity".to_owned(),
        hosts: 12,
        each: 16_667.0,
        each_after_failures: 18_182.0,
        table: vec![(0, 12, 16_667.0), (1, 12, 18_182.0), (2, 12, 20_000.0), (3, 12, 22_222.0)],
        confirmed: Some(made.runs.len() - 1),
    });
    made.verdicts = vec![
        verdict("hosts", true, "12", "at most 14"),
        verdict("p99 after one failure", true, "2.1 ms", "below 5 ms"),
    ];
    made
}

/// A capacity that may not be believed.
pub(crate) fn invalid() -> Outcome {
    Outcome { gates: gates(false), ..capacity(RINGGATE) }
}

/// Latency against rate.
pub(crate) fn curve() -> Outcome {
    let rng = &mut StdRng::seed_from_u64(5);
    let rates = [2_000.0, 5_000.0, 8_000.0, 11_000.0, 14_000.0, 17_000.0, 20_000.0, 22_000.0, 24_000.0, 25_000.0];
    let mut runs: Vec<Run> = rates.iter().map(|rate| run("curve", RINGGATE, *rate, 10.0, rng)).collect();
    runs.extend(rates.iter().map(|rate| run("direct", UPSTREAM, *rate, 10.0, rng)));
    let mut made = outcome("curve", "Latency of http://127.0.0.1:8080/ against rate", runs);
    let scalability =
        Some("not identifiable on two cores: a fit needs four numbers of workers; 31.0 µs of CPU a request".to_owned());
    made.curve = Some(Curve { through: (0..10).collect(), direct: (10..20).collect(), scalability });
    made
}

/// One rate, of which two per cent were answered with 502.
pub(crate) fn single() -> Outcome {
    let mut of_one = run("run", NGINX, 10_000.0, 60.0, &mut StdRng::seed_from_u64(6));
    let lost = of_one.due / 50;
    of_one.good -= lost;
    of_one.failures = BTreeMap::from([("status".to_owned(), lost)]);
    of_one.statuses = BTreeMap::from([(200, of_one.good), (502, lost)]);
    of_one.latency =
        Spectrum { p99: None, p999: None, max: None, infinite: lost, count: of_one.due + lost, ..of_one.latency };
    for slice in &mut of_one.series {
        slice.good -= slice.due / 50;
        slice.p99 = None;
    }
    let mut made = outcome("run", "10,000 requests/s at http://127.0.0.1:8081/", vec![of_one]);
    made.verdicts =
        vec![verdict("p99", false, "∞", "below 5 ms"), verdict("rate", true, "10,003 requests/s", "at least 9,950")];
    made.is_partial = true;
    made.remarks = vec!["Ended by Ctrl-C after 60 of 300 seconds.".to_owned()];
    made
}

/// Four gateways side by side.
pub(crate) fn peers() -> Outcome {
    let rng = &mut StdRng::seed_from_u64(13);
    let servers =
        [(RINGGATE, "ringgate 0.1.0"), (NGINX, "nginx/1.22.1"), (HAPROXY, "HAProxy 2.6.12"), (ENVOY, "envoy 1.31.2")];
    let mut runs = Vec::new();
    for pair in 0..6 {
        runs.extend(servers.iter().map(|(server, _)| run(&format!("pair {pair}"), *server, 8_000.0, 10.0, rng)));
    }
    let interval = |value: f64, by: f64| Interval { value, low: value * (1.0 - by), high: value * (1.0 + by) };
    let peers = servers.iter().enumerate().map(|(row, (server, version))| Peer {
        name: server.name.to_owned(),
        version: (*version).to_owned(),
        runs: (0..6).map(|pair| pair * 4 + row).collect(),
        cpu: interval(server.cpu, 0.03),
        p99: runs[row].latency.p99,
        failures: if row == 3 { 2.1e-5 } else { 0.0 },
        resident: Some((38 + row as u64 * 21) << 20),
    });
    let ratio = |server: Server, by: f64, verdict: &str| Ratio {
        of: "ringgate".to_owned(),
        to: server.name.to_owned(),
        cpu: interval(RINGGATE.cpu / server.cpu, by),
        verdict: verdict.to_owned(),
    };
    let ratios =
        vec![ratio(NGINX, 0.02, "better"), ratio(HAPROXY, 0.05, "no difference shown"), ratio(ENVOY, 0.02, "better")];
    let side_by_side = Peers { rate: 8_000.0, peers: peers.collect(), ratios };
    let mut made = outcome("peers", "Gateways side by side at 8,000 requests/s", runs);
    made.peers = Some(side_by_side);
    made
}
