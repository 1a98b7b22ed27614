//! What was seen of a load, as results keep it.

use crate::clock;
use crate::engine::Measured;
use crate::load::{Load, Pace};
use crate::machine::Ticks;
use crate::result::{Described, DescribedTarget, Handshakes, PhaseCount, Run, Slice, Spectrum, TargetCount};
use crate::stats::{Tallies, Tally, quantile, spectrum, trend, upper_bound};
use crate::units::{digits, shown};
use crate::wire::Failure;
use std::collections::BTreeMap;

/// Failures by name; those that did not happen are left out.
fn by_name(counts: &[u64; Failure::ALL.len()]) -> BTreeMap<String, u64> {
    let named = Failure::ALL.into_iter().map(|kind| (kind.name().to_owned(), counts[kind.row()]));
    named.filter(|(_, count)| *count > 0).collect()
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// A load in words and numbers.
#[must_use]
pub fn described(load: &Load, url: &str) -> Described {
    let all: f64 = load.targets.iter().map(|target| target.weight).sum();
    let target = |target: &crate::load::Target| {
        let text = String::from_utf8_lossy(&target.bytes[..target.body_at]);
        let mut words = text.split(' ');
        let request = format!("{} {}", words.next().unwrap_or_default(), words.next().unwrap_or_default());
        DescribedTarget {
            name: target.name.clone(),
            request,
            share: target.weight / all,
            body_bytes: target.body().len(),
        }
    };
    let pace = match load.pace {
        Pace::Poisson(_) => "poisson",
        Pace::Even(_) => "even",
        Pace::Recorded(_) => "recorded",
        Pace::Closed => "closed",
    };
    Described {
        url: url.to_owned(),
        pace: pace.to_owned(),
        connections: load.connections,
        connections_max: load.connections_max,
        reconnects: load.reconnects,
        protocol: load.protocol(),
        timeout: load.timeout.as_secs_f64(),
        targets: load.targets.iter().map(target).collect(),
    }
}

/// A run, without what only the server's process can tell.
#[must_use]
pub fn run(load: &Load, measured: &Measured, label: &str, server: &str, before: Ticks) -> Run {
    let tallies = &measured.tallies;
    let due = tallies.due();
    let good = tallies.latency.len();
    let statuses = tallies.statuses.iter().enumerate().filter(|(_, count)| **count > 0);
    // of a run that was stopped, what was not reached is no slice
    let took = measured.took.min(load.length);
    let length = if measured.is_partial { took } else { load.length }.as_secs_f64();
    Run {
        label: label.to_owned(),
        server: server.to_owned(),
        rate: load.pace.rate(),
        length,
        began: clock::wall() - clock::now().since(measured.begun) as f64 / 1e9,
        due,
        good,
        unfinished: measured.unfinished,
        failures: by_name(&tallies.failures()),
        statuses: statuses.map(|(status, count)| (status as u16, *count)).collect(),
        latency: spectrum(&tallies.latency, due - good),
        uncorrected: spectrum(&tallies.uncorrected, due - good),
        lag: spectrum(&tallies.lag, 0),
        series: series(load, measured, length),
        targets: targets(load, measured),
        waited: tallies.waited,
        connections_unopened: measured.unopened,
        connections_opened: measured.connections_opened,
        handshakes: load.tls.as_ref().map(|_| handshakes(tallies)),
        sent_bytes: measured.sent,
        received_bytes: measured.received,
        generator_busy: measured.busy,
        generator_cpu: measured.cpu.as_secs_f64(),
        generator_realtime: measured.is_realtime,
        steal: Ticks::now().steal_since(before),
        in_flight: measured.in_flight(load),
        in_flight_max: tallies.in_flight_max.iter().copied().max().unwrap_or(0),
        ..Run::default()
    }
}

fn handshakes(tallies: &Tallies) -> Handshakes {
    let seen = &tallies.handshakes;
    Handshakes { all: seen.times.len(), resumed: seen.resumed, times: spectrum(&seen.times, 0) }
}

fn series(load: &Load, measured: &Measured, length: f64) -> Vec<Slice> {
    let step = load.slice.as_secs_f64();
    let slice = |(row, tally): (usize, &Tally)| {
        let at = row as f64 * step;
        let length = step.min(load.length.as_secs_f64() - at).max(0.0);
        let of = |q| quantile(&tally.times, tally.failed(), q).map(seconds);
        let has_good = !tally.times.is_empty();
        Slice {
            at,
            length,
            due: tally.due,
            good: tally.good(),
            p50: of(0.5),
            p99: of(0.99),
            max: has_good.then(|| seconds(tally.times.max())),
            mean: has_good.then(|| tally.times.mean() / 1e9),
            good_p99: quantile(&tally.times, 0, 0.99).map(seconds),
            in_flight: measured.tallies.in_flight[row] as f64 / 1e9 / length.max(1e-9),
        }
    };
    measured.tallies.slices.iter().enumerate().map(slice).filter(|slice| slice.at < length).collect()
}

/// What became of the requests of a part.
#[must_use]
pub fn phase_count(tally: &Tally) -> PhaseCount {
    PhaseCount {
        due: tally.due,
        good: tally.good(),
        failures: by_name(&tally.failures),
        latency: spectrum(&tally.times, tally.failed()),
    }
}

fn targets(load: &Load, measured: &Measured) -> Vec<TargetCount> {
    let parts = measured.tallies.parts.chunks(measured.tallies.phases());
    let count = |(target, parts): (&crate::load::Target, &[Tally])| TargetCount {
        name: target.name.clone(),
        phases: parts.iter().map(phase_count).collect(),
    };
    load.targets.iter().zip(parts).map(count).collect()
}

/// What a trial has to show.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// Of the percentile: 0.99.
    pub quantile: f64,
    /// Seconds that it must not exceed.
    pub time: f64,
    /// Failures among all requests that are allowed.
    pub failures: f64,
}

/// Why a trial does not pass; `None`: it does. A full trial has to pass with the upper end of the percentile's interval.
#[must_use]
pub fn refusal(bound: &Bound, measured: &Measured, is_full: bool) -> Option<String> {
    let tallies = &measured.tallies;
    let due = tallies.due();
    let failed = due - tallies.latency.len();
    let share = failed as f64 / due.max(1) as f64;
    if due == 0 {
        return Some("nothing was due".to_owned());
    }
    if share > bound.failures {
        let kinds: Vec<_> = by_name(&tallies.failures()).into_iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        return Some(format!("{} % of requests failed ({})", digits(share * 100.0), kinds.join(", ")));
    }
    let name = format!("p{}", digits_of_quantile(bound.quantile));
    let estimate = quantile(&tallies.latency, failed, bound.quantile).map_or(f64::INFINITY, seconds);
    if estimate > bound.time {
        return Some(format!("{name} is {}", shown(estimate)));
    }
    if is_full {
        let upper = upper_bound(&tallies.latency, &tallies.slices, bound.quantile).map_or(f64::INFINITY, seconds);
        if upper > bound.time {
            return Some(format!("{name} is {}, and may be {}", shown(estimate), shown(upper)));
        }
        let means: Vec<f64> =
            tallies.slices.iter().filter(|slice| slice.good() > 0).map(|slice| slice.times.mean()).collect();
        let in_flight: Vec<f64> = tallies.in_flight.iter().map(|part| *part as f64).collect();
        for (what, series) in [("latency", means), ("requests in flight", in_flight)] {
            if let Some(trend) = trend(&series).filter(|trend| trend.rises()) {
                return Some(format!("{what} rose by {:.0} % during the trial", trend.growth * 100.0));
            }
        }
    }
    None
}

/// `99`, `99.9`, `50`.
#[must_use]
pub fn digits_of_quantile(quantile: f64) -> String {
    let text = format!("{:.3}", quantile * 100.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A spectrum's percentile, as a number that can be compared: ∞ where it has none.
#[must_use]
pub fn at(spectrum: &Spectrum, quantile: f64) -> f64 {
    let value = match quantile {
        q if (q - 0.5).abs() < 1e-9 => spectrum.p50,
        q if (q - 0.9).abs() < 1e-9 => spectrum.p90,
        q if (q - 0.99).abs() < 1e-9 => spectrum.p99,
        q if (q - 0.999).abs() < 1e-9 => spectrum.p999,
        q => crate::stats::decoded(spectrum).ok().and_then(|times| self::quantile_of(&times, spectrum.infinite, q)),
    };
    value.unwrap_or(f64::INFINITY)
}

fn quantile_of(times: &crate::stats::Times, infinite: u64, q: f64) -> Option<f64> {
    quantile(times, infinite, q).map(seconds)
}
