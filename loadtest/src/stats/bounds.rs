//! What a sample says of what it was taken from: quantiles with failures as ∞, their upper bounds, and trends.

use super::Tally;
use hdrhistogram::{Counter, Histogram};

/// Of the standard normal distribution, one-sided 95 %.
const Z95: f64 = 1.645;

/// The value that a share of `quantile` of all does not exceed, where `infinite` more than the histogram has are ∞; `None`: ∞, or
/// there are none.
#[must_use]
pub fn quantile<C: Counter>(times: &Histogram<C>, infinite: u64, quantile: f64) -> Option<u64> {
    let all = times.len() + infinite;
    value_at(times, ((quantile * all as f64).ceil() as u64).clamp(1, all.max(1)))
}

/// The `rank`-th smallest, from 1.
fn value_at<C: Counter>(times: &Histogram<C>, rank: u64) -> Option<u64> {
    let mut seen = 0;
    times.iter_recorded().find_map(|step| {
        seen += step.count_since_last_iteration();
        (seen >= rank).then(|| step.value_iterated_to())
    })
}

/// Upper end of the one-sided 95 % interval of a quantile over all that was due; `None`: ∞, also when there are too few to say.
///
/// For independent requests the number above the quantile is binomial, and an order statistic bounds it. Requests that queue behind the same
/// stall are not independent, so the variance is taken from how the share above the estimate differs among slices of the run (the design
/// effect of survey sampling, Kish 1965), never less than the binomial one.
#[must_use]
pub fn upper_bound<C: Counter>(times: &Histogram<C>, slices: &[Tally], q: f64) -> Option<u64> {
    let all: u64 = slices.iter().map(|slice| slice.due).sum();
    let estimate = quantile(times, all.saturating_sub(times.len()), q)?;
    let n = all as f64;
    let deviation = (n * q * (1.0 - q) * design_effect(slices, estimate)).sqrt();
    let rank = (n * q + Z95 * deviation + 0.5).ceil();
    if rank > n { None } else { value_at(times, rank as u64) }
}

/// How many times larger than for independent requests the variance of the share above `value` is; at least 1.
fn design_effect(slices: &[Tally], value: u64) -> f64 {
    let over = |slice: &Tally| (slice.due - slice.times.count_between(0, value).min(slice.due)) as f64;
    let counts: Vec<_> =
        slices.iter().filter(|slice| slice.due > 0).map(|slice| (slice.due as f64, over(slice))).collect();
    let (all, above) = counts.iter().fold((0.0, 0.0), |(all, above), (due, over)| (all + due, above + over));
    let share = above / all;
    if counts.len() < 2 || !(share > 0.0 && share < 1.0) {
        return 1.0;
    }
    // of a ratio estimator over slices (Cochran, "Sampling Techniques", 6.3)
    let squares: f64 = counts.iter().map(|(due, over)| (over - share * due).powi(2)).sum();
    let slices = counts.len() as f64;
    let variance = squares * slices / (slices - 1.0) / (all * all);
    (variance / (share * (1.0 - share) / all)).max(1.0)
}

/// Where a series goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    /// Change from the beginning to the end, as a share of the mean.
    pub growth: f64,
    /// Chance of a rise at least as monotonic in a series that only scatters.
    pub chance: f64,
}

impl Trend {
    /// It rises, by more than chance and by more than a little: requests pile up.
    #[must_use]
    pub fn rises(&self) -> bool {
        self.growth > 0.5 && self.chance < 0.005
    }
}

/// Mann's test against trend with Theil and Sen's slope (Mann 1945, Sen 1968); `None` for fewer than eight values.
#[must_use]
pub fn trend(series: &[f64]) -> Option<Trend> {
    let n = series.len();
    if n < 8 {
        return None;
    }
    let (mut sign, mut slopes) = (0.0, Vec::with_capacity(n * n / 2));
    for (i, one) in series.iter().enumerate() {
        for (distance, other) in series[i + 1..].iter().enumerate() {
            sign += if other > one {
                1.0
            } else if other < one {
                -1.0
            } else {
                0.0
            };
            slopes.push((other - one) / (distance + 1) as f64);
        }
    }
    slopes.sort_by(f64::total_cmp);
    let mean = series.iter().sum::<f64>() / n as f64;
    let growth = if mean > 0.0 { slopes[slopes.len() / 2] * (n - 1) as f64 / mean } else { 0.0 };
    let n = n as f64;
    let deviation = (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
    let z = if sign > 0.0 { (sign - 1.0) / deviation } else { 0.0 };
    Some(Trend { growth, chance: upper_tail(z) })
}

/// P(Z > z) of the standard normal distribution, z ≥ 0, within 1e-7 (Abramowitz and Stegun, 26.2.17).
fn upper_tail(z: f64) -> f64 {
    const B: [f64; 5] = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let polynomial = B.iter().rev().fold(0.0, |sum, b| (sum + b) * t);
    (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt() * polynomial
}

#[cfg(test)]
mod tests {
    use super::super::{Tallies, no_times};
    use super::*;
    use crate::load::load_for_tests;
    use crate::wire::Failure;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn failures_are_infinite() {
        let mut times = no_times();
        (1..=98).for_each(|row| times.saturating_record(row * 1_000));
        assert_eq!(quantile(&times, 2, 0.99), None, "two of a hundred have failed");
        assert!(quantile(&times, 2, 0.98).is_some_and(|value| value.abs_diff(98_000) < 100));
        assert!(quantile(&times, 0, 0.5).is_some_and(|value| value.abs_diff(49_000) < 100));
        assert_eq!(quantile(&no_times(), 0, 0.5), None);
    }

    /// `count` exponential times of mean 1 ms, in clusters of `cluster` equal ones, over ten slices.
    fn sample(count: u64, cluster: u64, seed: u64) -> Tallies {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut tallies = Tallies::new(&load_for_tests());
        let mut time = 0;
        for row in 0..count {
            if row % cluster == 0 {
                time = (-(1.0 - rng.random::<f64>()).ln() * 1e6) as u64;
            }
            let due = row * 10_000_000_000 / count;
            tallies.record(0, due, due + time, Ok((time, time)));
        }
        tallies
    }

    #[test]
    fn an_upper_bound_covers_the_truth_also_when_requests_cluster() {
        let truth = (100f64.ln() * 1e6) as u64; // the 99th percentile
        for cluster in [1, 20] {
            let covers = |seed: &u64| {
                let sample = sample(20_000, cluster, *seed);
                upper_bound(&sample.latency, &sample.slices, 0.99).is_none_or(|bound| bound >= truth)
            };
            let covered = (0..200).filter(covers).count();
            // 190 are promised; ten slices make a rough variance, and chance has its part
            assert!(covered >= 174, "clusters of {cluster}: {covered} of 200");
        }
        let independent = sample(20_000, 1, 1);
        let bound = upper_bound(&independent.latency, &independent.slices, 0.99).unwrap();
        assert!(bound < truth * 12 / 10, "and is not far from it: {bound}");
    }

    #[test]
    fn an_upper_bound_of_failures_is_infinite() {
        let mut tallies = sample(10_000, 1, 3);
        (0..150).for_each(|row| tallies.record(0, row * 60_000_000, row * 60_000_000, Err(Failure::Status)));
        assert_eq!(upper_bound(&tallies.latency, &tallies.slices, 0.99), None);
        assert!(upper_bound(&tallies.latency, &tallies.slices, 0.9).is_some());
        let few = sample(50, 1, 4);
        assert_eq!(upper_bound(&few.latency, &few.slices, 0.99), None, "too few to say");
    }

    #[test]
    fn a_rise_is_told_from_scatter() {
        let rising: Vec<f64> = (0..20).map(|row| 10.0 + f64::from(row) * 2.0 + f64::from(row % 3)).collect();
        assert!(trend(&rising).unwrap().rises());
        let falling: Vec<f64> = rising.iter().rev().copied().collect();
        assert!(!trend(&falling).unwrap().rises());
        let mut rng = StdRng::seed_from_u64(5);
        let mut scatter = || (0..20).map(|_| 1.0 + rng.random::<f64>() * 20.0).collect::<Vec<_>>();
        let wrong = (0..1_000).filter(|_| trend(&scatter()).unwrap().rises()).count();
        assert!(wrong <= 12, "{wrong} of 1,000 series that only scatter");
        assert_eq!(trend(&[1.0; 7]), None);
        assert!((upper_tail(1.644_853_6) - 0.05).abs() < 1e-6);
    }
}
