//! Thresholds against what was seen: each that a plan has becomes a verdict, in words that stand by themselves.
//!
//! Failures count as for ever, so a percentile that falls among them is ∞ and misses every bound. What could not be measured misses its
//! threshold too: a check that passes because nothing was seen would be worse than none.

use super::{Allowed, Capacity, Phase, PhaseThresholds, Thresholds};
use crate::result::{self, PhaseCount, Run, Spectrum, Verdict};
use crate::units::{digits, grouped, shown};
use std::time::Duration;

/// How many were due, and how many of those failed.
#[derive(Clone, Copy)]
struct Tally {
    due: u64,
    failed: u64,
}

impl Tally {
    fn of(count: &PhaseCount) -> Self {
        Self { due: count.due, failed: count.due.saturating_sub(count.good) }
    }
}

/// A number as a verdict shows it.
fn count(number: u64) -> String {
    grouped(i64::try_from(number).unwrap_or(i64::MAX))
}

/// A time that is `None` when it never came.
fn time(what: &str, bound: Option<Duration>, measured: Option<f64>) -> Option<Verdict> {
    let bound = bound?.as_secs_f64();
    let measured = measured.unwrap_or(f64::INFINITY);
    Some(Verdict {
        name: what.to_owned(),
        passed: measured <= bound,
        measured: shown(measured),
        wanted: format!("at most {}", shown(bound)),
    })
}

fn failed(what: &str, allowed: Option<Allowed>, tally: Tally) -> Option<Verdict> {
    let allowed = allowed?;
    Some(Verdict {
        name: what.to_owned(),
        passed: allowed.permits(tally.failed, tally.due) && tally.due > 0,
        measured: format!("{} of {}", count(tally.failed), count(tally.due)),
        wanted: if allowed == Allowed::Count(0) { "none".to_owned() } else { format!("at most {allowed}") },
    })
}

fn goodput(least: Option<f64>, tally: Tally) -> Option<Verdict> {
    let least = least?;
    let share = (tally.due - tally.failed) as f64 / tally.due.max(1) as f64;
    Some(Verdict {
        name: "good requests of those due".to_owned(),
        passed: share >= least,
        measured: format!("{} %", digits(share * 100.0)),
        wanted: format!("at least {} %", digits(least * 100.0)),
    })
}

fn at_most(what: &str, most: Option<f64>, measured: Option<f64>, show: impl Fn(f64) -> String) -> Option<Verdict> {
    let most = most?;
    Some(Verdict {
        name: what.to_owned(),
        passed: measured.is_some_and(|measured| measured <= most),
        measured: measured.map_or_else(|| "not measured".to_owned(), &show),
        wanted: format!("at most {}", show(most)),
    })
}

fn percentiles(bounds: [Option<Duration>; 3], latency: &Spectrum) -> impl Iterator<Item = Verdict> {
    let [p50, p99, p999] = bounds;
    let verdicts = [time("p50", p50, latency.p50), time("p99", p99, latency.p99), time("p99.9", p999, latency.p999)];
    verdicts.into_iter().flatten()
}

impl Phase {
    /// The verdicts on what was seen of this phase. `of` are counts of single targets in it, by row of the plan's requests.
    #[must_use]
    pub fn verdicts(&self, seen: &result::Phase, of: &[(&str, &PhaseCount)]) -> Vec<Verdict> {
        let PhaseThresholds { max_failed, max_failed_of, max_bystanders_failed, .. } = &self.thresholds;
        let bounds = &self.thresholds;
        let sum = |rows: &[usize]| {
            let tallies = rows.iter().filter_map(|row| of.get(*row)).map(|(_, count)| Tally::of(count));
            tallies.fold(Tally { due: 0, failed: 0 }, |sum, tally| Tally {
                due: sum.due + tally.due,
                failed: sum.failed + tally.failed,
            })
        };
        let tally = Tally::of(&seen.count);
        let mut verdicts: Vec<Verdict> = failed("failed requests", *max_failed, tally).into_iter().collect();
        for (row, allowed) in max_failed_of {
            let name = of.get(*row).map_or("?", |(name, _)| name);
            verdicts.extend(failed(&format!("failed requests of {name}"), Some(*allowed), sum(&[*row])));
        }
        verdicts.extend(failed("failed requests of bystanders", *max_bystanders_failed, sum(&self.bystanders)));
        verdicts.extend(percentiles([bounds.max_p50, bounds.max_p99, bounds.max_p999], &seen.count.latency));
        verdicts.extend(time("slowest answer", bounds.max_slowest, seen.count.latency.max));
        verdicts.extend(goodput(bounds.min_goodput, tally));
        let factor = |factor: f64| digits(factor);
        verdicts.extend(at_most("upstream requests per request", bounds.max_amplification, seen.amplification, factor));
        verdicts.extend(time("detection", bounds.max_detection, seen.detection));
        verdicts.extend(time("recovery", bounds.max_recovery, seen.recovery));
        verdicts
    }
}

impl Thresholds {
    /// The verdicts on one run; of a gateway where its process is known.
    #[must_use]
    pub fn verdicts(&self, run: &Run) -> Vec<Verdict> {
        let tally = Tally { due: run.due, failed: run.due.saturating_sub(run.good) };
        let mut verdicts: Vec<Verdict> = failed("failed requests", self.max_failed, tally).into_iter().collect();
        verdicts.extend(percentiles([self.max_p50, self.max_p99, self.max_p999], &run.latency));
        verdicts.extend(goodput(self.min_goodput, tally));
        let cpu = run.server_cpu.filter(|_| run.good > 0).map(|cpu| cpu / run.good as f64);
        let max_cpu = self.max_cpu.map(|time| time.as_secs_f64());
        verdicts.extend(at_most("CPU time per good request", max_cpu, cpu, shown));
        let mebibytes = |bytes: f64| format!("{} MiB", digits(bytes / f64::from(1 << 20)));
        let resident = run.server_resident.map(|bytes| bytes as f64);
        verdicts.extend(at_most("resident memory", self.max_memory.map(|bytes| bytes as f64), resident, mebibytes));
        verdicts
    }

    /// The verdict on capacity, where one is asked for.
    #[must_use]
    pub fn verdict_on_capacity(&self, capacity: &result::Capacity) -> Option<Verdict> {
        let least = self.min_capacity?;
        Some(Verdict {
            name: "capacity".to_owned(),
            passed: capacity.holds.is_some_and(|holds| holds >= least),
            measured: capacity
                .holds
                .map_or_else(|| "none was shown to hold".to_owned(), |holds| format!("{}/s", digits(holds))),
            wanted: format!("at least {}/s", digits(least)),
        })
    }

    /// The verdict on the number of hosts, where one is asked for; on none, where no rate holds.
    #[must_use]
    pub fn verdict_on_hosts(&self, sizing: Option<&result::Sizing>) -> Option<Verdict> {
        let most = self.max_hosts?;
        let hosts = sizing.map(|sizing| sizing.hosts);
        Some(Verdict {
            name: "hosts".to_owned(),
            passed: hosts.is_some_and(|hosts| hosts <= most),
            measured: hosts.map_or_else(|| "no number of them is enough".to_owned(), count),
            wanted: format!("at most {}", count(most)),
        })
    }

    /// These, with what `others` say instead where they say something: a file of thresholds over a plan's own.
    #[must_use]
    pub fn overlaid(self, others: &Self) -> Self {
        Self {
            max_p50: others.max_p50.or(self.max_p50),
            max_p99: others.max_p99.or(self.max_p99),
            max_p999: others.max_p999.or(self.max_p999),
            max_failed: others.max_failed.or(self.max_failed),
            min_goodput: others.min_goodput.or(self.min_goodput),
            min_capacity: others.min_capacity.or(self.min_capacity),
            max_cpu: others.max_cpu.or(self.max_cpu),
            max_memory: others.max_memory.or(self.max_memory),
            max_hosts: others.max_hosts.or(self.max_hosts),
        }
    }
}

impl Capacity {
    /// `p99 < 5.00 ms`, for headings.
    #[must_use]
    pub fn bound_in_words(&self) -> String {
        let percentile = (self.quantile * 1e4).round() / 1e2;
        format!("p{percentile} < {}", shown(self.bound.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spectrum(p99: Option<f64>) -> Spectrum {
        Spectrum { p50: Some(0.001), p99, p999: None, max: Some(0.5), ..Spectrum::default() }
    }

    fn seen(due: u64, good: u64, p99: Option<f64>) -> result::Phase {
        let count = PhaseCount { due, good, latency: spectrum(p99), ..PhaseCount::default() };
        result::Phase { count, amplification: Some(1.5), recovery: None, ..result::Phase::default() }
    }

    fn phase(thresholds: PhaseThresholds) -> Phase {
        Phase {
            name: "x".to_owned(),
            length: Duration::from_secs(1),
            factor: 1.0,
            faults: Vec::new(),
            bystanders: vec![1],
            thresholds,
        }
    }

    fn words(verdicts: &[Verdict]) -> Vec<String> {
        let word =
            |v: &Verdict| format!("{} {}: {}, {}", if v.passed { "ok" } else { "no" }, v.name, v.measured, v.wanted);
        verdicts.iter().map(word).collect()
    }

    #[test]
    fn every_threshold_of_a_phase_is_judged() {
        let thresholds = PhaseThresholds {
            max_failed: Some(Allowed::Share(0.01)),
            max_failed_of: vec![(0, Allowed::Count(0))],
            max_bystanders_failed: Some(Allowed::Count(0)),
            max_p50: Some(Duration::from_millis(2)),
            max_p99: Some(Duration::from_millis(5)),
            max_p999: Some(Duration::from_millis(9)),
            max_slowest: Some(Duration::from_millis(500)),
            min_goodput: Some(0.99),
            max_amplification: Some(1.3),
            max_detection: Some(Duration::from_millis(300)),
            max_recovery: Some(Duration::from_secs(2)),
        };
        let counts = [seen(900, 895, None).count, seen(100, 100, None).count];
        let of = [("GET /a", &counts[0]), ("GET /b", &counts[1])];
        let verdicts = phase(thresholds).verdicts(&seen(1_000, 995, Some(0.004)), &of);
        assert_eq!(
            words(&verdicts),
            [
                "ok failed requests: 5 of 1,000, at most 1 %",
                "no failed requests of GET /a: 5 of 900, none",
                "ok failed requests of bystanders: 0 of 100, none",
                "ok p50: 1.00 ms, at most 2.00 ms",
                "ok p99: 4.00 ms, at most 5.00 ms",
                "no p99.9: ∞, at most 9.00 ms",
                "ok slowest answer: 500 ms, at most 500 ms",
                "ok good requests of those due: 99.5 %, at least 99.0 %",
                "no upstream requests per request: 1.50, at most 1.30",
                "no detection: ∞, at most 300 ms",
                "no recovery: ∞, at most 2.00 s",
            ]
        );
        let nothing = phase(PhaseThresholds::default()).verdicts(&seen(1, 0, None), &[]);
        assert!(nothing.is_empty());
    }

    #[test]
    fn what_was_not_seen_does_not_pass() {
        let thresholds = PhaseThresholds {
            max_failed: Some(Allowed::Share(0.5)),
            max_p99: Some(Duration::from_secs(1)),
            max_amplification: Some(2.0),
            ..PhaseThresholds::default()
        };
        let verdicts = phase(thresholds).verdicts(&result::Phase::default(), &[]);
        assert!(verdicts.len() == 3 && verdicts.iter().all(|verdict| !verdict.passed), "{:?}", words(&verdicts));
        let detected = PhaseThresholds { max_detection: Some(Duration::from_millis(1)), ..PhaseThresholds::default() };
        let nothing_lost = result::Phase { detection: Some(0.0), ..seen(10, 10, None) };
        assert!(phase(detected).verdicts(&nothing_lost, &[])[0].passed, "nothing was lost");
    }

    #[test]
    fn the_whole_is_judged_where_it_is_known() {
        let all = Thresholds {
            max_p99: Some(Duration::from_millis(5)),
            max_failed: Some(Allowed::Count(0)),
            max_cpu: Some(Duration::from_micros(80)),
            max_memory: Some(64 << 20),
            min_capacity: Some(4_000.0),
            max_hosts: Some(8),
            ..Thresholds::default()
        };
        let run = Run {
            due: 100,
            good: 100,
            latency: spectrum(Some(0.004)),
            server_cpu: Some(0.01),
            server_resident: None,
            ..Run::default()
        };
        assert_eq!(
            words(&all.verdicts(&run)),
            [
                "ok failed requests: 0 of 100, none",
                "ok p99: 4.00 ms, at most 5.00 ms",
                "no CPU time per good request: 100 µs, at most 80.0 µs",
                "no resident memory: not measured, at most 64.0 MiB",
            ]
        );
        let capacity = result::Capacity { holds: Some(4_200.0), ..result::Capacity::default() };
        assert!(all.verdict_on_capacity(&capacity).is_some_and(|verdict| verdict.passed));
        assert!(all.verdict_on_capacity(&result::Capacity::default()).is_some_and(|verdict| !verdict.passed));
        let sizing = result::Sizing { hosts: 9, ..result::Sizing::default() };
        assert!(all.verdict_on_hosts(Some(&sizing)).is_some_and(|verdict| !verdict.passed));
        assert!(
            all.verdict_on_hosts(None).is_some_and(|verdict| !verdict.passed),
            "where no rate holds, no number is enough"
        );
        let stricter = Thresholds { max_p99: Some(Duration::from_millis(1)), ..Thresholds::default() };
        let both = all.clone().overlaid(&stricter);
        assert_eq!((both.max_p99, both.max_hosts), (stricter.max_p99, all.max_hosts));
    }
}
