//! Results of several generator hosts that made one load together, as the result of one generator.
//!
//! Histograms are added, counts too; a percentile is taken of the sum and never averaged. That only says something if they loaded the same
//! server at the same time, so their clocks are compared: each result has the wall clock's reading at which its run began.

use crate::result::{Gate, Handshakes, Outcome, PhaseCount, Run, Slice, Spectrum, TargetCount};
use crate::stats::merged;
use crate::units::shown;
use std::collections::BTreeMap;

/// Runs that began further apart than this part of their length did not make one load.
const APART_MAX: f64 = 0.05;

/// The sum of results of `run`.
///
/// # Errors
/// They do not belong together; says why.
pub fn merge(outcomes: &[Outcome]) -> Result<Outcome, String> {
    let (first, others) = outcomes.split_first().ok_or("nothing to merge")?;
    if let Some(other) = outcomes.iter().find(|outcome| outcome.command != "run" || outcome.runs.len() != 1) {
        return Err(format!("only results of `run` can be merged, and one of them is of `{}`", other.command));
    }
    others.iter().try_for_each(|other| is_same_load(first, other))?;
    let mut all = first.clone();
    for other in others {
        let run = sum(&all.runs[0], &other.runs[0])?;
        all.runs = vec![run];
        all.load.connections = all.load.connections.saturating_add(other.load.connections);
        all.load.connections_max = all.load.connections_max.saturating_add(other.load.connections_max);
        all.is_partial |= other.is_partial;
        all.finished = all.finished.max(other.finished);
        all.died.extend(other.died.iter().cloned());
        for gate in other.gates.iter().filter(|gate| !gate.holds) {
            all.gates.retain(|one| one.name != gate.name);
            all.gates
                .push(Gate { measured: format!("{} on {}", gate.measured, other.environment.host), ..gate.clone() });
        }
    }
    all.title = format!("{} from {} generators", first.title, outcomes.len());
    all.environment.generator_cores.clear();
    let hosts: Vec<_> = outcomes.iter().map(|outcome| outcome.environment.host.as_str()).collect();
    all.remarks.push(format!("generators: {}", hosts.join(", ")));
    all.gates.extend([clocks(outcomes, all.runs[0].length), seeds(outcomes)]);
    // what one generator saw of its part says nothing of the whole: thresholds are judged again
    all.verdicts = all.thresholds.verdicts(&all.runs[0]);
    if others.iter().any(|other| other.thresholds != first.thresholds) {
        all.remarks.push("the results have different thresholds: those of the first one were judged".to_owned());
    }
    Ok(all)
}

/// Whether two generators made parts of one load.
fn is_same_load(one: &Outcome, other: &Outcome) -> Result<(), String> {
    if one == other {
        return Err("one result is there twice: its requests would count twice".to_owned());
    }
    if one.load.url != other.load.url {
        return Err(format!("different servers: {} and {}", one.load.url, other.load.url));
    }
    let word = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let requests = |of: &Outcome| {
        let each = of.load.targets.iter();
        each.map(|it| format!("{} ({} bytes) × {:.6}", it.request, it.body_bytes, it.share))
            .collect::<Vec<_>>()
            .join(", ")
    };
    for (what, one, other) in [
        ("pace", one.load.pace.clone(), other.load.pace.clone()),
        ("protocol", one.load.protocol.clone(), other.load.protocol.clone()),
        ("one request a connection", word(one.load.reconnects), word(other.load.reconnects)),
        ("timeout", shown(one.load.timeout), shown(other.load.timeout)),
        ("requests", requests(one), requests(other)),
    ] {
        if one != other {
            return Err(format!("different loads: {what}: {one} and {other}"));
        }
    }
    Ok(())
}

/// When the first judged request of a result was due; in results of earlier versions, when its command began.
fn began(outcome: &Outcome) -> f64 {
    outcome.runs.first().map(|run| run.began).filter(|began| *began > 0.0).unwrap_or(outcome.started)
}

fn clocks(outcomes: &[Outcome], length: f64) -> Gate {
    let starts = outcomes.iter().map(began);
    let (low, high) = starts.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), at| (low.min(at), high.max(at)));
    Gate {
        name: "generators' clocks".to_owned(),
        holds: high - low <= length * APART_MAX,
        measured: format!("they began {} apart", shown(high - low)),
        wanted: format!("at most {}, a twentieth of the run", shown(length * APART_MAX)),
        advice: "start them at the same time, and let NTP or PTP keep their clocks".to_owned(),
    }
}

/// Generators with one seed send at the same moments: in pairs, and not as independent users do.
fn seeds(outcomes: &[Outcome]) -> Gate {
    let mut seeds: Vec<u64> = outcomes.iter().map(|outcome| outcome.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    Gate {
        name: "generators' seeds".to_owned(),
        holds: seeds.len() == outcomes.len() || outcomes[0].load.pace != "poisson",
        measured: format!("{} of {} generators", seeds.len(), outcomes.len()),
        wanted: "one of its own for each, or they send at the same moments".to_owned(),
        advice: "leave --seed away, or give each another one".to_owned(),
    }
}

fn add<K: Ord + Clone>(one: &BTreeMap<K, u64>, other: &BTreeMap<K, u64>) -> BTreeMap<K, u64> {
    let mut sum = one.clone();
    for (key, count) in other {
        let sum = sum.entry(key.clone()).or_default();
        *sum = sum.saturating_add(*count);
    }
    sum
}

fn sum(one: &Run, other: &Run) -> Result<Run, String> {
    let spectra = |of: fn(&Run) -> &Spectrum| merged([of(one), of(other)]);
    let rate = one.rate.zip(other.rate).map(|(one, other)| one + other);
    if rate.is_none() && (one.rate.is_some() || other.rate.is_some()) {
        return Err("one of them is a closed loop, and one is not".to_owned());
    }
    if (one.length - other.length).abs() > one.length * APART_MAX {
        return Err(format!("runs of different lengths: {} and {}", shown(one.length), shown(other.length)));
    }
    Ok(Run {
        rate,
        due: one.due.saturating_add(other.due),
        good: one.good.saturating_add(other.good),
        failures: add(&one.failures, &other.failures),
        statuses: add(&one.statuses, &other.statuses),
        latency: spectra(|run| &run.latency)?,
        uncorrected: spectra(|run| &run.uncorrected)?,
        lag: spectra(|run| &run.lag)?,
        series: one.series.iter().zip(&other.series).map(|(one, other)| slice(one, other)).collect(),
        targets: targets(&one.targets, &other.targets)?,
        waited: one.waited.saturating_add(other.waited),
        connections_unopened: one.connections_unopened.saturating_add(other.connections_unopened),
        connections_opened: one.connections_opened.saturating_add(other.connections_opened),
        handshakes: match (&one.handshakes, &other.handshakes) {
            (Some(one), Some(other)) => Some(Handshakes {
                all: one.all.saturating_add(other.all),
                resumed: one.resumed.saturating_add(other.resumed),
                times: merged([&one.times, &other.times])?,
            }),
            (one, other) => one.clone().or_else(|| other.clone()),
        },
        sent_bytes: one.sent_bytes.saturating_add(other.sent_bytes),
        received_bytes: one.received_bytes.saturating_add(other.received_bytes),
        generator_busy: one.generator_busy.max(other.generator_busy),
        generator_cpu: one.generator_cpu + other.generator_cpu,
        stood_still: one.stood_still.into_iter().chain(other.stood_still).reduce(f64::max),
        generator_realtime: one.generator_realtime && other.generator_realtime,
        steal: one.steal.max(other.steal),
        in_flight: one.in_flight + other.in_flight,
        unfinished: one.unfinished.saturating_add(other.unfinished),
        // of who has started the server, if one of them did; the requests of all have gone into it
        server_cpu: None,
        server_resident: None,
        in_flight_max: one.in_flight_max.saturating_add(other.in_flight_max),
        ..one.clone()
    })
}

/// Slices keep no histogram, so a percentile of both is not known; the worse one is not below it.
fn slice(one: &Slice, other: &Slice) -> Slice {
    // ∞ is `None`, unless nothing was due
    let worse = |a: Option<f64>, b: Option<f64>| match (one.due, other.due) {
        (0, _) => b,
        (_, 0) => a,
        _ => a.zip(b).map(|(a, b)| a.max(b)),
    };
    let mean = |run: &Slice| run.mean.unwrap_or(0.0) * run.good as f64;
    let good = one.good.saturating_add(other.good);
    let present = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).reduce(f64::max);
    Slice {
        due: one.due.saturating_add(other.due),
        good,
        p50: worse(one.p50, other.p50),
        p99: worse(one.p99, other.p99),
        max: present(one.max, other.max),
        mean: (good > 0).then(|| (mean(one) + mean(other)) / good as f64),
        good_p99: present(one.good_p99, other.good_p99),
        in_flight: one.in_flight + other.in_flight,
        ..one.clone()
    }
}

fn targets(one: &[TargetCount], other: &[TargetCount]) -> Result<Vec<TargetCount>, String> {
    let names = |targets: &[TargetCount]| targets.iter().map(|target| target.name.clone()).collect::<Vec<_>>();
    if names(one) != names(other) {
        return Err("runs of different targets".to_owned());
    }
    let phase = |(one, other): (&PhaseCount, &PhaseCount)| -> Result<PhaseCount, String> {
        Ok(PhaseCount {
            due: one.due.saturating_add(other.due),
            good: one.good.saturating_add(other.good),
            failures: add(&one.failures, &other.failures),
            latency: merged([&one.latency, &other.latency])?,
        })
    };
    let target = |(one, other): (&TargetCount, &TargetCount)| -> Result<TargetCount, String> {
        let phases = one.phases.iter().zip(&other.phases).map(phase).collect::<Result<_, _>>()?;
        Ok(TargetCount { name: one.name.clone(), phases })
    };
    one.iter().zip(other).map(target).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Described, DescribedTarget};
    use crate::stats::{no_times, spectrum};

    fn outcome(seed: u64, times: impl Iterator<Item = u64>, failed: u64) -> Outcome {
        let mut histogram = no_times();
        times.for_each(|time| histogram.saturating_record(time));
        let latency = spectrum(&histogram, failed);
        let run = Run {
            rate: Some(100.0),
            length: 10.0,
            due: latency.count,
            good: latency.count - failed,
            lag: latency.clone(),
            uncorrected: latency.clone(),
            latency,
            failures: [("refused".to_owned(), failed)].into(),
            ..Run::default()
        };
        let load = Described { pace: "poisson".to_owned(), ..Described::default() };
        Outcome { command: "run".to_owned(), started: 1_000.0, seed, load, runs: vec![run], ..Outcome::default() }
    }

    #[test]
    fn the_sum_is_what_one_generator_would_have_seen() {
        let (fast, slow) = (outcome(1, 1_000..2_000, 0), outcome(2, (1..=1_000).map(|row| row * 1_000_000), 20));
        let all = outcome(3, (1_000..2_000).chain((1..=1_000).map(|row| row * 1_000_000)), 20);
        let merged = merge(&[fast, slow]).unwrap();
        assert_eq!(merged.runs[0].latency, all.runs[0].latency);
        assert_eq!(
            (merged.runs[0].rate, merged.runs[0].due, merged.runs[0].failures["refused"]),
            (Some(200.0), 2_020, 20)
        );
        assert!(merged.is_valid());
    }

    #[test]
    fn what_does_not_belong_together_is_refused_or_invalid() {
        let one = outcome(1, 1_000..2_000, 0);
        let other = Outcome { seed: 2, ..one.clone() };
        let late = Outcome { started: 1_003.0, ..other.clone() };
        assert!(!merge(&[one.clone(), late]).unwrap().is_valid(), "three seconds apart");
        let mut elsewhere = one.clone();
        elsewhere.load.url = "http://127.0.0.2/".to_owned();
        assert!(merge(&[one.clone(), elsewhere]).unwrap_err().contains("different servers"));
        let search = Outcome { command: "capacity".to_owned(), ..one.clone() };
        assert!(merge(&[one.clone(), search]).unwrap_err().contains("`capacity`"));
        let mut bad = other.clone();
        bad.gates.push(Gate { name: "CPU steal".to_owned(), ..Gate::default() });
        assert!(!merge(&[one.clone(), bad]).unwrap().is_valid(), "one that is invalid makes all so");
        assert!(merge(&[one.clone(), one.clone()]).unwrap_err().contains("twice"));
        let twin = Outcome { started: 1_000.1, ..one.clone() };
        let merged = merge(&[one.clone(), twin]).unwrap();
        assert!(merged.gates.iter().any(|gate| gate.name == "generators' seeds" && !gate.holds), "one seed for both");
        let mut posting = other.clone();
        posting.load.targets.push(DescribedTarget { request: "POST /".to_owned(), ..DescribedTarget::default() });
        assert!(merge(&[one.clone(), posting]).unwrap_err().contains("requests"));
        let mut closed = other.clone();
        closed.runs[0].rate = None;
        assert!(merge(&[one.clone(), closed]).unwrap_err().contains("closed"));
        let mut started = other.clone();
        (started.runs[0].began, started.started) = (1_000.2, 990.0);
        assert!(merge(&[one, started]).unwrap().is_valid(), "what counts is when requests were due");
    }

    #[test]
    fn thresholds_are_judged_on_the_sum_and_a_death_is_everybodys() {
        let max_p99 = Some(std::time::Duration::from_micros(10));
        let of = |seed, times| {
            let mut outcome = outcome(seed, times, 0);
            outcome.thresholds.max_p99 = max_p99;
            outcome.verdicts = outcome.thresholds.verdicts(&outcome.runs[0]);
            outcome
        };
        let (fast, mut slow) = (of(1, 1_000..2_000), of(2, 50_000..51_000));
        assert!(fast.verdicts[0].passed && !slow.verdicts[0].passed);
        let both = merge(&[fast.clone(), slow.clone()]).unwrap();
        assert_eq!((both.verdicts.len(), both.verdicts[0].passed, both.exit_code()), (1, false, 1));
        slow.died.push("nginx: killed".to_owned());
        slow.runs[0].due = u64::MAX;
        let both = merge(&[fast, slow]).unwrap();
        assert_eq!((both.exit_code(), both.runs[0].due), (4, u64::MAX));
    }
}
