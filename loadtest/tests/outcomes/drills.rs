//! Drills: of a gateway that loses nothing, and of one that needs its timeouts to notice.

use super::{NGINX, RINGGATE, Server, drawn, outcome, run, spectrum, verdict};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use ringgate_load::result::{DescribedTarget, Drill, Outcome, Phase, PhaseCount, PlanText, Run, TargetCount};
use std::collections::BTreeMap;

/// Name, fault, start and length in seconds.
const PHASES: [(&str, &str, f64, f64); 5] = [
    ("baseline", "", 0.0, 20.0),
    ("one dies", "upstream api 1: kill", 20.0, 20.0),
    ("black hole", "upstream api 2: blackhole", 40.0, 20.0),
    ("slow", "upstream api 3: slow 200ms", 60.0, 15.0),
    ("all well again", "upstream api 1: start", 75.0, 25.0),
];

/// A drill of one gateway: one that loses nothing, or one that needs its timeouts to notice.
pub(crate) fn drill(server: Server, loses: bool) -> Outcome {
    let mut made = outcome("drill", "Upstreams die, hang and slow down under 4,000 requests/s", Vec::new());
    made.plan = Some(PlanText { name: "upstream-death.toml".to_owned(), text: PLAN.to_owned() });
    made.load.targets = ["/api/orders", "/api/search", "/static/logo.svg"]
        .iter()
        .zip([0.6, 0.3, 0.1])
        .map(|(path, share)| DescribedTarget {
            name: (*path).to_owned(),
            request: format!("GET {path}"),
            share,
            body_bytes: 0,
        })
        .collect();
    let (run, drilled) = drilled(server, loses, made.load.targets.as_slice());
    made.runs.push(run);
    made.drills.push(drilled);
    made
}

/// Two gateways in one result.
pub(crate) fn drill_of_two() -> Outcome {
    let (mut made, other) = (drill(RINGGATE, false), drill(NGINX, true));
    made.runs.extend(other.runs);
    made.drills.extend(other.drills.into_iter().map(|drill| Drill { run: 1, ..drill }));
    made
}

fn drilled(server: Server, loses: bool, targets: &[DescribedTarget]) -> (Run, Drill) {
    let rng = &mut StdRng::seed_from_u64(11);
    let mut run = run("drill", server, 4_000.0, 100.0, rng);
    let (mut phases, mut all) = (Vec::new(), Vec::new());
    for (row, (name, fault, at, length)) in PHASES.into_iter().enumerate() {
        // seconds in which it shows, and the share of requests that is lost then
        let (shows, lost) = match (row, loses) {
            (1, true) => (3.0, 0.012),
            (2, true) => (12.0, 0.06),
            (3, true) => (15.0, 0.0),
            (1..=3, false) => (1.0, 0.0),
            _ => (0.0, 0.0),
        };
        let worst = if loses { [0.0, 0.02, 2.0, 0.21, 0.0][row] } else { [0.0, 0.004, 0.06, 0.21, 0.0][row] };
        let mut failed = 0;
        for slice in run.series.iter_mut().filter(|slice| slice.at >= at && slice.at < at + shows) {
            let missing = (slice.due as f64 * lost) as u64;
            (slice.good, failed) = (slice.good - missing, failed + missing);
            slice.good_p99 = Some(worst * 0.98);
            slice.p99 = (lost < 0.01).then_some(worst);
            slice.in_flight += slice.due as f64 * worst * 0.05;
        }
        let (phase, values) = phase(name, fault, (at, length), failed, worst, loses, rng);
        phases.push(phase);
        all.extend(values);
    }
    let lost: u64 = phases.iter().map(|phase: &Phase| phase.count.due - phase.count.good).sum();
    run.good = run.due - lost;
    run.latency = spectrum(&all, run.due / all.len() as u64, lost);
    if lost > 0 {
        run.failures =
            BTreeMap::from([("timeout".to_owned(), lost * 9 / 10), ("status".to_owned(), lost - lost * 9 / 10)]);
        run.statuses.insert(502, lost - lost * 9 / 10);
    }
    run.targets = targets.iter().map(|target| shared(target, &phases)).collect();
    let metrics = if server.name == "ringgate" { metrics() } else { BTreeMap::new() };
    (run, Drill { gateway: server.name.to_owned(), run: 0, phases, metrics })
}

/// A target's share of each phase.
fn shared(target: &DescribedTarget, phases: &[Phase]) -> TargetCount {
    let part = |number: u64| (number as f64 * target.share) as u64;
    let count = |phase: &Phase| {
        let due = part(phase.count.due);
        if !target.name.starts_with("/api") {
            return PhaseCount { due, good: due, failures: BTreeMap::new(), ..phases[0].count.clone() };
        }
        let lost = phase.count.due - phase.count.good;
        PhaseCount { due, good: due - part(lost), ..phase.count.clone() }
    };
    TargetCount { name: target.name.clone(), phases: phases.iter().map(count).collect() }
}

fn phase(
    name: &str,
    fault: &str,
    (at, length): (f64, f64),
    failed: u64,
    worst: f64,
    loses: bool,
    rng: &mut StdRng,
) -> (Phase, Vec<f64>) {
    let due = (4_000.0 * length) as u64;
    let times = due / 2_000;
    let slow = if worst > 0.0 { 30 } else { 0 };
    let values: Vec<f64> = (0..2_000)
        .map(|row| if row < slow { worst * rng.random_range(0.9..1.0) } else { drawn(RINGGATE, 4_000.0, rng) })
        .collect();
    let is_fault = !fault.is_empty() && !fault.ends_with(": start");
    let (lost, took) =
        (verdict("failed requests", failed == 0, &failed.to_string(), "0"), if loses { 12.4 } else { 0.9 });
    let phase = Phase {
        name: name.to_owned(),
        faults: if !fault.is_empty() { vec![fault.to_owned()] } else { Vec::new() },
        at,
        length,
        count: PhaseCount {
            due,
            good: due - failed,
            failures: if failed > 0 { BTreeMap::from([("timeout".to_owned(), failed)]) } else { BTreeMap::new() },
            latency: spectrum(&values, times, failed),
        },
        detection: is_fault.then_some(took * 0.4),
        recovery: (is_fault && !(loses && name == "slow")).then_some(took),
        amplification: Some(if is_fault { 1.018 } else { 1.0 }),
        in_flight_max: if worst > 1.0 { 1_024 } else { 38 },
        bystanders_failed: Some(0),
        verdicts: vec![lost, verdict("recovery", took < 5.0 || !is_fault, &format!("{took} s"), "within 5 s")],
    };
    (phase, values)
}

fn metrics() -> BTreeMap<String, f64> {
    let names = [
        "requests_total{route=\"api\",status=\"200\"}",
        "retries_total{cluster=\"api\"}",
        "endpoint_ejections_total{endpoint=\"127.0.0.1:9001\"}",
    ];
    names.iter().map(|name| format!("ringgate_{name}")).zip([399_812.0, 188.0, 1.0]).collect()
}

const PLAN: &str = r#"[load]
rate = 4000
for = "100s"

[[phase]]
name = "one dies"
at = "20s"
faults = ["upstream 1: kill"]

[phase.expect]
failed = 0 # <- none may be lost
recovery = "5s"
"#;
