//! Numbers of a result in words: one place, so that the page, the terminal and the comparison say the same.

use crate::result::{PhaseCount, Run, Spectrum};
use crate::units::{digits, grouped, shown};
use std::collections::BTreeMap;

/// What stands where there is no value.
pub(super) const NOTHING: &str = "–";

/// Requests a second, without the unit: `"23,400"`.
pub(super) fn rate(value: f64) -> String {
    digits(value)
}

/// A whole number, thousands apart.
pub(super) fn count(value: u64) -> String {
    grouped(i64::try_from(value).unwrap_or(i64::MAX))
}

/// `"1 host"`, `"2 hosts"`.
pub(super) fn several(number: u64, one: &str) -> String {
    format!("{} {one}{}", count(number), if number == 1 { "" } else { "s" })
}

/// A time that may not be there.
pub(super) fn time(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| NOTHING.to_owned(), shown)
}

/// A percentile of a spectrum: ∞ where failures hold it, a dash where nothing was measured.
pub(super) fn percentile(of: &Spectrum, value: Option<f64>) -> String {
    match value {
        Some(seconds) => shown(seconds),
        None if of.infinite > 0 => shown(f64::INFINITY),
        None => NOTHING.to_owned(),
    }
}

/// A bound as it was asked for: `"5 ms"` and not `"5.00 ms"`.
pub(super) fn bound(seconds: f64) -> String {
    let text = shown(seconds);
    match text.split_once(' ') {
        Some((number, unit)) => format!("{} {unit}", without_zeros(number)),
        None => text,
    }
}

/// `"p99"` for 0.99, `"p99.9"` for 0.999.
pub(super) fn quantile(share: f64) -> String {
    format!("p{}", without_zeros(&format!("{:.5}", share * 100.0)))
}

/// A share in percent; what is there is never shown as 0.
pub(super) fn percent(share: f64) -> String {
    match share * 100.0 {
        0.0 => "0 %".to_owned(),
        p if p.abs() >= 99.95 => format!("{p:.0} %"),
        p if p.abs() >= 10.0 => format!("{p:.1} %"),
        p if p.abs() >= 0.1 => format!("{p:.2} %"),
        p if p.abs() >= 0.001 => format!("{p:.4} %"),
        p => format!("{p:.1e} %"),
    }
}

/// `a` of `b` as a share; 0 of nothing.
pub(super) fn part(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

/// Bytes with a unit of 1,024.
pub(super) fn bytes(value: u64) -> String {
    let mut rest = value as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if rest < 1024.0 {
            return format!("{} {unit}", digits(rest));
        }
        rest /= 1024.0;
    }
    format!("{} TiB", digits(rest))
}

/// Microseconds of CPU: `"41.2 µs"`.
pub(super) fn micros(value: f64) -> String {
    format!("{} µs", digits(value))
}

/// CPU microseconds of the server for each good request of a run, where its process was known.
pub(super) fn cpu_each(run: &Run) -> Option<f64> {
    let cpu = run.server_cpu?;
    (run.good > 0).then(|| cpu * 1e6 / run.good as f64)
}

/// Requests that were not answered well.
pub(super) fn failed(due: u64, good: u64) -> u64 {
    due.saturating_sub(good)
}

/// Failed requests of a phase.
pub(super) fn failed_in(phase: &PhaseCount) -> u64 {
    failed(phase.due, phase.good)
}

/// Failures by kind: `"reset 2, timeout 10"`; empty when there are none.
pub(super) fn kinds(failures: &BTreeMap<String, u64>) -> String {
    let there = failures.iter().filter(|kind| *kind.1 > 0);
    there.map(|(name, number)| format!("{name} {}", count(*number))).collect::<Vec<_>>().join(", ")
}

/// Cores as ranges: `"0–3, 6"`.
pub(super) fn cores(cores: &[usize]) -> String {
    let mut sorted = cores.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for core in sorted {
        match ranges.last_mut() {
            Some(last) if last.1 + 1 == core => last.1 = core,
            _ => ranges.push((core, core)),
        }
    }
    let shown: Vec<_> = ranges
        .into_iter()
        .map(|(from, to)| if from == to { from.to_string() } else { format!("{from}–{to}") })
        .collect();
    if shown.is_empty() { "not pinned".to_owned() } else { shown.join(", ") }
}

/// Date and time of seconds since 1970, UTC: `"29 Nov 2026 11:48:32 UTC"`.
pub(super) fn date(seconds: f64) -> String {
    let date = ringgate::http::date::format(seconds.max(0.0) as u64);
    let text = String::from_utf8_lossy(&date);
    text.get(5..25).map_or_else(String::new, |text| format!("{text} UTC"))
}

/// A length of time for a heading: `"42 s"`, `"3 min 20 s"`.
pub(super) fn length(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match (whole / 60, whole % 60) {
        (0, _) if seconds < 10.0 => bound(seconds),
        (0, s) => format!("{s} s"),
        (m, 0) => format!("{m} min"),
        (m, s) => format!("{m} min {s} s"),
    }
}

/// A number without the zeros after its point.
pub(super) fn without_zeros(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([bound(0.005), bound(0.000_25), bound(1.5)], ["5 ms", "250 µs", "1.5 s"]);
        assert_eq!([quantile(0.5), quantile(0.99), quantile(0.999)], ["p50", "p99", "p99.9"]);
        assert_eq!(
            [percent(0.0), percent(1e-6), percent(0.5), percent(0.012)],
            ["0 %", "1.0e-4 %", "50.0 %", "1.20 %"]
        );
        assert_eq!([cores(&[0, 1, 2, 5]), cores(&[])], ["0–2, 5", "not pinned"]);
        assert_eq!([length(42.0), length(200.0), length(60.0), length(0.5)], ["42 s", "3 min 20 s", "1 min", "500 ms"]);
        assert_eq!([bytes(512), bytes(16 << 30)], ["512 B", "16.0 GiB"]);
        assert_eq!(date(0.0), "01 Jan 1970 00:00:00 UTC");
    }

    #[test]
    fn a_percentile_among_failures_is_infinite_and_one_of_nothing_is_missing() {
        let failed = Spectrum { count: 10, infinite: 10, ..Spectrum::default() };
        assert_eq!([percentile(&failed, None), percentile(&Spectrum::default(), None)], ["∞", "–"]);
    }

    #[test]
    fn failures_name_their_kinds() {
        let some = BTreeMap::from([("reset".to_owned(), 2), ("timeout".to_owned(), 10), ("refused".to_owned(), 0)]);
        assert_eq!([kinds(&some), kinds(&BTreeMap::new())], ["reset 2, timeout 10", ""]);
    }
}
