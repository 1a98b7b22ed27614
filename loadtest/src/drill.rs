//! What a fault drill shows, phase by phase: pure.
//!
//! The first phase is what is usual. A later moment is *well* when nothing that was due then has failed and its median is near the usual one.

use crate::result::Slice;

/// A median above this many usual ones, and …
const SLOW_FACTOR: f64 = 2.0;
/// … so many seconds, is not what is usual.
const SLOW_EXTRA: f64 = 0.001;

/// The median of a phase that nothing happens in, in seconds.
#[must_use]
pub fn usual(first: &[Slice]) -> f64 {
    let medians: Vec<f64> = first.iter().filter_map(|slice| slice.p50).collect();
    crate::bootstrap::median(&medians)
}

fn is_well(slice: &Slice, usual: f64) -> bool {
    slice.good == slice.due && slice.p50.is_none_or(|p50| p50 <= usual * SLOW_FACTOR + SLOW_EXTRA)
}

/// Slices of a phase.
#[must_use]
pub fn within(series: &[Slice], at: f64, length: f64) -> &[Slice] {
    let begin = series.partition_point(|slice| slice.at < at - 1e-9);
    let end = series.partition_point(|slice| slice.at < at + length - 1e-9);
    &series[begin..end]
}

/// From the start of the phase to the end of the last slice with a failure, after which all was well; 0 when nothing that was due in the phase has
/// failed, `None` when it went on to the end.
#[must_use]
pub fn detection(slices: &[Slice], at: f64) -> Option<f64> {
    match slices.iter().rposition(|slice| slice.good < slice.due) {
        None => Some(0.0),
        Some(last) => (last + 1 < slices.len()).then(|| slices[last].at + slices[last].length - at),
    }
}

/// From the start of the phase to the end of the last slice that was not well; 0 when all were, `None` when the last one was not.
#[must_use]
pub fn recovery(slices: &[Slice], at: f64, usual: f64) -> Option<f64> {
    match slices.iter().rposition(|slice| !is_well(slice, usual)) {
        None => Some(0.0),
        Some(last) if last + 1 < slices.len() => Some(slices[last].at + slices[last].length - at),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slices of 100 ms: due 10, so many good, median in milliseconds.
    fn series(of: &[(u64, f64)]) -> Vec<Slice> {
        let slice = |(row, (good, p50)): (usize, &(u64, f64))| Slice {
            at: row as f64 / 10.0,
            length: 0.1,
            due: 10,
            good: *good,
            p50: (*good > 5).then_some(p50 / 1e3),
            ..Slice::default()
        };
        of.iter().enumerate().map(slice).collect()
    }

    #[test]
    fn a_phase_is_detected_and_recovers_when_it_is_well_to_its_end() {
        let all = series(&[(10, 1.0), (10, 1.2), (10, 0.9), (7, 1.0), (9, 1.0), (10, 8.0), (10, 1.1), (10, 1.0)]);
        let usual = usual(&all[..3]);
        assert!((usual - 0.001).abs() < 1e-9);
        let phase = within(&all, 0.3, 0.5);
        assert_eq!(phase.len(), 5);
        assert!((detection(phase, 0.3).unwrap() - 0.2).abs() < 1e-9);
        assert!((recovery(phase, 0.3, usual).unwrap() - 0.3).abs() < 1e-9);
        assert_eq!((detection(&all[..3], 0.0), recovery(&all[..3], 0.0, usual)), (Some(0.0), Some(0.0)));
    }

    #[test]
    fn what_is_not_well_at_the_end_never_was() {
        let all = series(&[(10, 1.0), (4, 1.0), (10, 1.0), (10, 1.0), (9, 1.0)]);
        assert_eq!(detection(&all[1..], 0.1), None);
        assert_eq!(recovery(&all[1..], 0.1, 0.001), None);
    }
}
