//! Recent latencies and their p99.
//!
//! Latencies fall into logarithmic buckets (eight per octave, so a quantile is at most 12.5 % too high); every ten seconds all counts are
//! halved, so an observation weighs half as much ten seconds later. Recording is O(1); the quantile is computed at most every 64 samples
//! or 100 ms.

use crate::units::Instant;
use std::time::Duration;

/// Which quantile it tells.
const QUANTILE_PERCENT: u64 = 99;
const REFRESH_SAMPLES: u32 = 64;
const REFRESH: Duration = Duration::from_millis(100);
const HALVE: Duration = Duration::from_secs(10);

/// Buckets per octave, as a power of two.
const SUB_BITS: u32 = 3;
/// The unit of the histogram is 2¹⁴ ns, about 16 µs: finer than any timeout that makes sense.
const UNIT_BITS: u32 = 14;
/// Up to 2⁴⁸ ns, about 78 hours; more than `limits::TIMEOUT_MAX`.
const BUCKETS: usize = (48 - UNIT_BITS as usize - SUB_BITS as usize + 1) << SUB_BITS;

/// A decaying histogram and its cached quantile.
#[derive(Clone, Debug)]
pub struct Latencies {
    samples_min: u32,
    counts: [u32; BUCKETS],
    total: u32,
    halved: Instant,
    /// `None`: too few samples when it was computed.
    cached: Option<Duration>,
    computed: Instant,
    since_computed: u32,
}

impl Latencies {
    /// Nothing seen; a quantile wants `samples_min` samples.
    #[must_use]
    pub fn new(samples_min: u32) -> Self {
        let zero = Instant::default();
        Self {
            samples_min,
            counts: [0; BUCKETS],
            total: 0,
            halved: zero,
            cached: None,
            computed: zero,
            since_computed: 0,
        }
    }

    /// One more.
    pub fn record(&mut self, latency: Duration, now: Instant) {
        self.age(now);
        let count = &mut self.counts[bucket_of(crate::units::nanos(latency))];
        *count = count.saturating_add(1);
        self.total = self.total.saturating_add(1);
        self.since_computed = self.since_computed.saturating_add(1);
    }

    /// The p99; `None` while there are too few samples.
    pub fn quantile(&mut self, now: Instant) -> Option<Duration> {
        let stale = self.since_computed >= REFRESH_SAMPLES || now.since(self.computed) >= REFRESH;
        if stale || (self.cached.is_none() && self.total >= self.samples_min) {
            self.age(now);
            self.cached = self.compute();
            (self.computed, self.since_computed) = (now, 0);
        }
        self.cached
    }

    fn compute(&self) -> Option<Duration> {
        if self.total < self.samples_min {
            return None;
        }
        let rank = (u64::from(self.total) * QUANTILE_PERCENT).div_ceil(100);
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= rank
        });
        bucket.map(|bucket| Duration::from_nanos(upper_bound(bucket)))
    }

    fn age(&mut self, now: Instant) {
        let halvings = now.since(self.halved).as_nanos() / HALVE.as_nanos();
        if halvings > 0 {
            let shift = u32::try_from(halvings).unwrap_or(u32::MAX);
            self.counts.iter_mut().for_each(|count| *count = count.checked_shr(shift).unwrap_or(0));
            self.total = self.counts.iter().sum();
            self.halved = now;
        }
    }
}

fn bucket_of(nanos: u64) -> usize {
    let units = nanos >> UNIT_BITS;
    let octave = units.checked_ilog2().unwrap_or(0).saturating_sub(SUB_BITS);
    let bucket = ((octave as usize) << SUB_BITS) + (units >> octave) as usize;
    bucket.min(BUCKETS - 1)
}

/// The least number of nanoseconds above everything that falls into `bucket`.
fn upper_bound(bucket: usize) -> u64 {
    let sub = 1 << SUB_BITS;
    let octave = (bucket / sub).saturating_sub(1);
    (((bucket - octave * sub) as u64 + 1) << octave) << UNIT_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bucket_lies_between_the_bound_of_the_last_and_its_own() {
        let nanos = (0..47).flat_map(|bits| [1u64 << bits, (1 << bits) + 1, (1 << bits) * 3 / 2, (2 << bits) - 1]);
        for nanos in nanos {
            let bucket = bucket_of(nanos);
            assert!(nanos < upper_bound(bucket), "{nanos}");
            assert!(bucket == 0 || nanos >= upper_bound(bucket - 1), "{nanos}");
            assert!(upper_bound(bucket) as f64 <= nanos as f64 * 1.126 + 20_000.0, "{nanos}: {}", upper_bound(bucket));
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert_eq!(upper_bound(BUCKETS - 1), 1 << 48);
    }
}
