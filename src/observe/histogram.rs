//! Latency histograms: fixed buckets whose bounds are round numbers of seconds.
//!
//! A decade (10 ms to 100 ms, say) is cut into 21 buckets at round places: 1.0, 1.1, 1.2, 1.35 … 9. A bucket is at most 17 % wide,
//! so a quantile read from it is off by at most 8 %; and because every bound of the Prometheus ladder ([`LE`]) is also a bound of a
//! bucket, the `le` counts are exact. Seven decades, 10 µs to 100 s, are 149 numbers (1.2 KiB).
//!
//! Finding the bucket takes no search: the position of the highest bit and the three below it name a narrow span of values, a
//! table holds the first bucket of that span, and at most two comparisons finish.
//!
//! What this does not do: decay. Rates and windows are the reader's business (`rate()` in Prometheus).
//!
//! The idea of linear steps in logarithmic decades is HdrHistogram's and circllhist's ("Circllhist", Hartmann and Schlossnagle 2020).

use super::counter::{Counter, counters};
use std::time::Duration;

/// Bounds within one decade, in hundredths.
const STEPS: [u64; 21] =
    [100, 110, 120, 135, 150, 165, 180, 200, 225, 250, 275, 300, 350, 400, 450, 500, 550, 600, 700, 800, 900];
/// The first decade begins at 10 µs: less is not a request over a network.
const FIRST_NANOS: u64 = 10_000;
/// 10 µs to 100 s.
const DECADES: usize = 7;
/// Upper bounds; the last one is 100 s.
const BOUNDS_LEN: usize = DECADES * STEPS.len() + 1;
/// Buckets: one below each bound, and one for what is longer than 100 s.
const BUCKETS: usize = BOUNDS_LEN + 1;

/// Inclusive upper bounds of the buckets in nanoseconds, rising.
const BOUNDS: [u64; BOUNDS_LEN] = bounds();

const fn bounds() -> [u64; BOUNDS_LEN] {
    let mut bounds = [0; BOUNDS_LEN];
    let (mut at, mut decade) = (0, FIRST_NANOS);
    while at < BOUNDS_LEN {
        bounds[at] = decade / 100 * STEPS[at % STEPS.len()];
        at += 1;
        if at % STEPS.len() == 0 {
            decade *= 10;
        }
    }
    bounds
}

/// Values below 2^13 ns all lie in the first bucket, values from 2^37 ns (137 s) on in the last.
const OCTAVE_FIRST: u32 = 13;
const OCTAVE_END: u32 = 37;
/// An octave is looked up in eighths.
const EIGHTHS: usize = 8;
const STARTS_LEN: usize = (OCTAVE_END - OCTAVE_FIRST) as usize * EIGHTHS;

/// For every eighth of an octave: the bucket of its smallest value.
const STARTS: [u8; STARTS_LEN] = starts();

const fn starts() -> [u8; STARTS_LEN] {
    let mut starts = [0; STARTS_LEN];
    let (mut cell, mut bucket) = (0, 0);
    while cell < STARTS_LEN {
        let octave = 1u64 << (OCTAVE_FIRST as usize + cell / EIGHTHS);
        let lowest = octave + octave / EIGHTHS as u64 * (cell % EIGHTHS) as u64;
        while bucket < BOUNDS_LEN && BOUNDS[bucket] < lowest {
            bucket += 1;
        }
        starts[cell] = bucket as u8;
        cell += 1;
    }
    starts
}

const _: () = assert!(BUCKETS <= u8::MAX as usize && BOUNDS[BOUNDS_LEN - 1] == 100_000_000_000);
const _: () = assert!(1 << OCTAVE_FIRST < FIRST_NANOS && 1 << OCTAVE_END > BOUNDS[BOUNDS_LEN - 1]);

/// The ladder of `le` bounds in a scrape: the text that is written, and the bound in nanoseconds. `+Inf` follows.
pub const LE: &[(&str, u64)] = &[
    ("0.0001", 100_000),
    ("0.00025", 250_000),
    ("0.0005", 500_000),
    ("0.001", 1_000_000),
    ("0.0025", 2_500_000),
    ("0.005", 5_000_000),
    ("0.01", 10_000_000),
    ("0.025", 25_000_000),
    ("0.05", 50_000_000),
    ("0.1", 100_000_000),
    ("0.25", 250_000_000),
    ("0.5", 500_000_000),
    ("1", 1_000_000_000),
    ("2.5", 2_500_000_000),
    ("5", 5_000_000_000),
    ("10", 10_000_000_000),
    ("30", 30_000_000_000),
    ("60", 60_000_000_000),
];

/// The bucket that holds `nanos`.
#[inline]
fn bucket_of(nanos: u64) -> usize {
    if nanos < 1 << OCTAVE_FIRST {
        return 0;
    }
    let octave = nanos.ilog2();
    if octave >= OCTAVE_END {
        return BUCKETS - 1;
    }
    let eighth = (nanos >> (octave - 3)) as usize & (EIGHTHS - 1);
    let mut bucket = usize::from(STARTS[(octave - OCTAVE_FIRST) as usize * EIGHTHS + eighth]);
    while bucket < BOUNDS_LEN && nanos > BOUNDS[bucket] {
        bucket += 1;
    }
    bucket
}

/// One histogram with one writer.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: [Counter; BUCKETS],
    sum_nanos: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// Nothing observed.
    pub(crate) fn new() -> Self {
        Self { buckets: counters(), sum_nanos: Counter::default() }
    }

    /// Counts one duration in nanoseconds.
    #[inline]
    pub(crate) fn observe(&self, nanos: u64) {
        self.buckets[bucket_of(nanos)].add(1);
        self.sum_nanos.add(nanos);
    }
}

/// Histograms of several workers added up, at one moment.
#[derive(Clone, Debug)]
pub struct HistogramSum {
    buckets: [u64; BUCKETS],
    sum_nanos: u64,
}

impl Default for HistogramSum {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], sum_nanos: 0 }
    }
}

impl HistogramSum {
    /// Adds one worker's histogram.
    pub(crate) fn add(&mut self, histogram: &Histogram) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += bucket.get();
        }
        self.sum_nanos = self.sum_nanos.wrapping_add(histogram.sum_nanos.get());
    }

    /// Durations observed.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// All of them added up, in nanoseconds.
    #[must_use]
    pub fn sum_nanos(&self) -> u64 {
        self.sum_nanos
    }

    /// Calls `each` with every bound of [`LE`] and the number of durations up to it: exact, not interpolated.
    pub fn for_each_le(&self, mut each: impl FnMut(&'static str, u64)) {
        let (mut bucket, mut below) = (0, 0);
        for &(text, bound) in LE {
            while BOUNDS.get(bucket).is_some_and(|upper| *upper <= bound) {
                below += self.buckets[bucket];
                bucket += 1;
            }
            each(text, below);
        }
    }

    /// The `q`-quantile (0 to 1), at most 8 % off; `None` when nothing was observed. 100 s stands for anything longer.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let count = self.count();
        // The rank is at least 1 and at most the count, whatever the rounding of a large count gives.
        let rank = ((q * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut below = 0;
        for (bucket, n) in self.buckets.iter().enumerate() {
            below += n;
            if below >= rank {
                let upper = BOUNDS[bucket.min(BOUNDS_LEN - 1)];
                let lower = if bucket == 0 { upper / 2 } else { BOUNDS[bucket - 1] };
                return Some(Duration::from_nanos(lower.midpoint(upper)));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_falls_into_the_bucket_whose_bounds_enclose_it() {
        let linear = |nanos: u64| BOUNDS.iter().position(|bound| nanos <= *bound).unwrap_or(BUCKETS - 1);
        for bound in BOUNDS {
            for nanos in [bound - 1, bound, bound + 1] {
                assert_eq!(bucket_of(nanos), linear(nanos), "{nanos} ns");
            }
        }
        for octave in 0..64 {
            for nanos in [1u64 << octave, (1u64 << octave) + (1u64 << octave) / 3, (1u64 << octave).wrapping_sub(1)] {
                assert_eq!(bucket_of(nanos), linear(nanos), "{nanos} ns");
            }
        }
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_bucket_is_at_most_seventeen_percent_wide() {
        assert!(BOUNDS.windows(2).all(|pair| pair[1] * 100 <= pair[0] * 117 && pair[0] < pair[1]));
    }

    #[test]
    fn every_le_bound_is_a_bucket_bound_and_its_text_says_the_same() {
        for (text, nanos) in LE {
            assert!(BOUNDS.contains(nanos), "{text}");
            let seconds: f64 = text.parse().unwrap();
            assert_eq!((seconds * 1e9).round() as u64, *nanos);
        }
        assert!(LE.windows(2).all(|pair| pair[0].1 < pair[1].1));
    }

    #[test]
    fn le_counts_are_exact_and_include_their_bound() {
        let histogram = Histogram::new();
        for nanos in [1, 100_000, 100_001, 250_000, 5_000_000, 60_000_000_000, 60_000_000_001, 900_000_000_000] {
            histogram.observe(nanos);
        }
        let mut sum = HistogramSum::default();
        sum.add(&histogram);
        let mut counts = Vec::new();
        sum.for_each_le(|text, n| counts.push((text, n)));
        assert_eq!(counts[0], ("0.0001", 2));
        assert_eq!(counts[1], ("0.00025", 4));
        assert_eq!(counts[5], ("0.005", 5));
        assert_eq!(counts[17], ("60", 6));
        assert_eq!(sum.count(), 8);
        assert_eq!(sum.sum_nanos(), 1 + 100_000 + 100_001 + 250_000 + 5_000_000 + 120_000_000_001 + 900_000_000_000);
    }

    #[test]
    fn a_quantile_is_within_eight_percent_of_the_true_one() {
        let histogram = Histogram::new();
        (1..=10_000u64).for_each(|n| histogram.observe(n * 37_000));
        let mut sum = HistogramSum::default();
        assert_eq!(sum.quantile(0.5), None);
        sum.add(&histogram);
        for q in [0.01, 0.1, 0.5, 0.9, 0.99, 0.999] {
            let true_nanos = q * 10_000.0 * 37_000.0;
            let got = sum.quantile(q).unwrap().as_nanos() as f64;
            assert!((got / true_nanos - 1.0).abs() <= 0.08, "q {q}: {got} for {true_nanos}");
        }
    }
}
