//! What a handful of measurements says: medians, with intervals by resampling (Efron 1979).

use crate::result::Interval;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Samples that are drawn.
const DRAWN: usize = 4_000;
/// Of the interval.
const CONFIDENCE: f64 = 0.95;

/// The median; 0 of nothing.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// The median with its 95 % interval. Resampling few values understates what is not known: with fewer than six the interval is all of them
/// (which covers the median of what they come from with a chance of 1 − 2^(1 − n): 94 % for five).
#[must_use]
pub fn interval(values: &[f64], seed: u64) -> Interval {
    let value = median(values);
    let (low, high) =
        values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)));
    match values.len() {
        0 => return Interval::default(),
        1..6 => return Interval { value, low, high },
        _ => {}
    }
    let mut rng = StdRng::seed_from_u64(seed);
    let mut medians: Vec<f64> = (0..DRAWN)
        .map(|_| median(&(0..values.len()).map(|_| values[rng.random_range(0..values.len())]).collect::<Vec<_>>()))
        .collect();
    medians.sort_by(f64::total_cmp);
    let at = |share: f64| medians[((share * DRAWN as f64) as usize).min(DRAWN - 1)];
    Interval { value, low: at((1.0 - CONFIDENCE) / 2.0), high: at((1.0 + CONFIDENCE) / 2.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_covers_what_the_values_come_from() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(interval(&[3.0, 1.0, 2.0], 1), Interval { value: 2.0, low: 1.0, high: 3.0 });
        let mut rng = StdRng::seed_from_u64(9);
        let covered = (0..200)
            .filter(|seed| {
                let values: Vec<f64> = (0..9).map(|_| (0..12).map(|_| rng.random::<f64>()).sum()).collect();
                let interval = interval(&values, *seed);
                (interval.low..=interval.high).contains(&6.0)
            })
            .count();
        assert!(covered >= 180, "{covered} of 200");
    }
}
