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
    if let Some(other) = others.iter().find(|other| other.load.url != first.load.url) {
        return Err(format!("different servers: {} and {}", first.load.url, other.load.url));
    }
    let mut all = first.clone();
    for other in others {
        let run = sum(&all.runs[0], &other.runs[0])?;
        all.runs = vec![run];
        all.load.connections += other.load.connections;
        all.load.connections_max += other.load.connections_max;
        all.is_partial |= other.is_partial;
        all.finished = all.finished.max(other.finished);
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
    all.gates.push(clocks(outcomes, all.runs[0].length));
    Ok(all)
}

fn clocks(outcomes: &[Outcome], length: f64) -> Gate {
    let starts = outcomes.iter().map(|outcome| outcome.started);
    let (low, high) = starts.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), at| (low.min(at), high.max(at)));
    Gate {
        name: "generators' clocks".to_owned(),
        holds: high - low <= length * APART_MAX,
        measured: format!("they began {} apart", shown(high - low)),
        wanted: format!("at most {}, a twentieth of the run", shown(length * APART_MAX)),
        advice: "start them at the same time, and let NTP or PTP keep their clocks".to_owned(),
    }
}

fn add<K: Ord + Clone>(one: &BTreeMap<K, u64>, other: &BTreeMap<K, u64>) -> BTreeMap<K, u64> {
    let mut sum = one.clone();
    other.iter().for_each(|(key, count)| *sum.entry(key.clone()).or_default() += count);
    sum
}

fn sum(one: &Run, other: &Run) -> Result<Run, String> {
    let spectra = |of: fn(&Run) -> &Spectrum| merged([of(one), of(other)]);
    let rate = one.rate.zip(other.rate).map(|(one, other)| one + other);
    if (one.length - other.length).abs() > one.length * APART_MAX {
        return Err(format!("runs of different lengths: {} and {}", shown(one.length), shown(other.length)));
    }
    Ok(Run {
        rate,
        due: one.due + other.due,
        good: one.good + other.good,
        failures: add(&one.failures, &other.failures),
        statuses: add(&one.statuses, &other.statuses),
        latency: spectra(|run| &run.latency)?,
        uncorrected: spectra(|run| &run.uncorrected)?,
        lag: spectra(|run| &run.lag)?,
        series: one.series.iter().zip(&other.series).map(|(one, other)| slice(one, other)).collect(),
        targets: targets(&one.targets, &other.targets)?,
        waited: one.waited + other.waited,
        connections_opened: one.connections_opened + other.connections_opened,
        handshakes: match (&one.handshakes, &other.handshakes) {
            (Some(one), Some(other)) => Some(Handshakes {
                all: one.all + other.all,
                resumed: one.resumed + other.resumed,
                times: merged([&one.times, &other.times])?,
            }),
            (one, other) => one.clone().or_else(|| other.clone()),
        },
        sent_bytes: one.sent_bytes + other.sent_bytes,
        received_bytes: one.received_bytes + other.received_bytes,
        generator_busy: one.generator_busy.max(other.generator_busy),
        generator_cpu: one.generator_cpu + other.generator_cpu,
        stood_still: one.stood_still.into_iter().chain(other.stood_still).reduce(f64::max),
        generator_realtime: one.generator_realtime && other.generator_realtime,
        steal: one.steal.max(other.steal),
        in_flight: one.in_flight + other.in_flight,
        in_flight_max: one.in_flight_max + other.in_flight_max,
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
    let good = one.good + other.good;
    let present = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).reduce(f64::max);
    Slice {
        due: one.due + other.due,
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
            due: one.due + other.due,
            good: one.good + other.good,
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
    use crate::stats::{no_times, spectrum};

    fn outcome(times: impl Iterator<Item = u64>, failed: u64) -> Outcome {
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
        Outcome { command: "run".to_owned(), started: 1_000.0, runs: vec![run], ..Outcome::default() }
    }

    #[test]
    fn the_sum_is_what_one_generator_would_have_seen() {
        let (fast, slow) = (outcome(1_000..2_000, 0), outcome((1..=1_000).map(|row| row * 1_000_000), 20));
        let all = outcome((1_000..2_000).chain((1..=1_000).map(|row| row * 1_000_000)), 20);
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
        let one = outcome(1_000..2_000, 0);
        let late = Outcome { started: 1_003.0, ..one.clone() };
        assert!(!merge(&[one.clone(), late]).unwrap().is_valid(), "three seconds apart");
        let mut elsewhere = one.clone();
        elsewhere.load.url = "http://127.0.0.2/".to_owned();
        assert!(merge(&[one.clone(), elsewhere]).unwrap_err().contains("different servers"));
        let search = Outcome { command: "capacity".to_owned(), ..one.clone() };
        assert!(merge(&[one.clone(), search]).unwrap_err().contains("`capacity`"));
        let mut bad = one.clone();
        bad.gates.push(Gate { name: "CPU steal".to_owned(), ..Gate::default() });
        assert!(!merge(&[one, bad]).unwrap().is_valid(), "one that is invalid makes all so");
    }
}
