//! T_max: how long a request may take, fixed or following the service.
//!
//! Adaptive: T_max = T_now + k × t, where t is the p99 of the route's latency as this worker saw it. Latencies fall into logarithmic
//! buckets (eight per octave, so a quantile is at most 12.5 % too high); every ten seconds all counts are halved, so an
//! observation weighs half as much ten seconds later. Recording is O(1); the quantile is computed at most every 64 samples or 100 ms.
//! Until 30 samples are there, and again when fewer than that have survived the halving, `max` holds. Requests that ran into their
//! deadline are recorded too, with the time they took: k times that is the next deadline, so a service that
//! slows down raises its own limit (up to `max`) instead of failing for ever.
//!
//! A deadline that the client brings (grpc-timeout, a header) can only shorten T_max.

use crate::config::Timeout;
use crate::units::Instant;
use std::time::Duration;

/// Which quantile t is.
const QUANTILE_PERCENT: u64 = 99;
const SAMPLES_MIN: u32 = 30;
const REFRESH_SAMPLES: u32 = 64;
const REFRESH: Duration = Duration::from_millis(100);
const HALVE: Duration = Duration::from_secs(10);

/// Buckets per octave, as a power of two.
const SUB_BITS: u32 = 3;
/// The unit of the histogram is 2¹⁴ ns, about 16 µs: finer than any timeout that makes sense.
const UNIT_BITS: u32 = 14;
/// Up to 2⁴⁸ ns, about 78 hours; more than `limits::TIMEOUT_MAX`.
const BUCKETS: usize = (48 - UNIT_BITS as usize - SUB_BITS as usize + 1) << SUB_BITS;

/// T_max of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// T_max as a point in time.
    pub at: Instant,
    /// T_max as a duration from the request's start; what R is a share of.
    pub total: Duration,
    /// The client asked for less than the route allows: then a timeout is not held against an endpoint.
    pub shortened: bool,
}

/// The deadline of one route on one worker.
#[derive(Clone, Debug)]
pub struct RouteDeadline {
    timeout: Timeout,
    /// Only when adaptive.
    latencies: Option<Box<Latencies>>,
}

impl RouteDeadline {
    /// As configured; allocates a kilobyte when adaptive.
    #[must_use]
    pub fn new(timeout: Timeout) -> Self {
        let latencies = matches!(timeout, Timeout::Adaptive { .. }).then(|| Box::new(Latencies::new()));
        Self { timeout, latencies }
    }

    /// T_max of a request that begins at `now`; `incoming` is the time that the client gives it.
    pub fn start(&mut self, incoming: Option<Duration>, now: Instant) -> Deadline {
        let own = self.timeout(now);
        let total = incoming.map_or(own, |time| time.min(own));
        Deadline { at: now + total, total, shortened: total < own }
    }

    /// A request of the route had its response head, or ran into its deadline, after `latency`. Not for clients that went away and
    /// not for replies that the gateway made without an attempt.
    pub fn on_latency(&mut self, latency: Duration, now: Instant) {
        if let Some(latencies) = &mut self.latencies {
            latencies.record(latency, now);
        }
    }

    /// The route's T_max now.
    pub fn timeout(&mut self, now: Instant) -> Duration {
        match (self.timeout, &mut self.latencies) {
            (Timeout::Adaptive { k, min, max }, Some(latencies)) => {
                let Some(quantile) = latencies.quantile(now) else { return max };
                Duration::try_from_secs_f64(quantile.as_secs_f64() * k).unwrap_or(max).min(max).max(min)
            }
            (Timeout::Adaptive { max: time, .. } | Timeout::Fixed(time), _) => time,
        }
    }
}

/// A decaying histogram and its cached quantile.
#[derive(Clone, Debug)]
struct Latencies {
    counts: [u32; BUCKETS],
    total: u32,
    halved: Instant,
    /// `None`: too few samples when it was computed.
    cached: Option<Duration>,
    computed: Instant,
    since_computed: u32,
}

impl Latencies {
    fn new() -> Self {
        let zero = Instant::default();
        Self { counts: [0; BUCKETS], total: 0, halved: zero, cached: None, computed: zero, since_computed: 0 }
    }

    fn record(&mut self, latency: Duration, now: Instant) {
        self.age(now);
        let count = &mut self.counts[bucket_of(crate::units::nanos(latency))];
        *count = count.saturating_add(1);
        self.total = self.total.saturating_add(1);
        self.since_computed = self.since_computed.saturating_add(1);
    }

    fn quantile(&mut self, now: Instant) -> Option<Duration> {
        let stale = self.since_computed >= REFRESH_SAMPLES || now.since(self.computed) >= REFRESH;
        if stale || (self.cached.is_none() && self.total >= SAMPLES_MIN) {
            self.age(now);
            self.cached = self.compute();
            (self.computed, self.since_computed) = (now, 0);
        }
        self.cached
    }

    fn compute(&self) -> Option<Duration> {
        if self.total < SAMPLES_MIN {
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
    use crate::policy::testing::at;

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn adaptive() -> RouteDeadline {
        RouteDeadline::new(Timeout::Adaptive { k: 3.0, min: millis(50), max: millis(5_000) })
    }

    #[test]
    fn a_fixed_deadline_is_just_that_and_a_client_can_only_shorten_it() {
        let mut route = RouteDeadline::new(Timeout::Fixed(millis(2_000)));
        let own = Deadline { at: at(2_100), total: millis(2_000), shortened: false };
        assert_eq!(route.start(None, at(100)), own);
        assert_eq!(route.start(Some(millis(9_000)), at(100)), own);
        let shorter = Deadline { at: at(400), total: millis(300), shortened: true };
        assert_eq!(route.start(Some(millis(300)), at(100)), shorter);
        route.on_latency(millis(1), at(100));
        assert_eq!(route.start(None, at(100)), own);
    }

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

    #[test]
    fn the_maximum_holds_until_thirty_samples_were_seen() {
        let mut route = adaptive();
        (0..29).for_each(|i| route.on_latency(millis(20), at(i)));
        assert_eq!(route.timeout(at(30)), millis(5_000));
        route.on_latency(millis(20), at(31));
        let timeout = route.timeout(at(31));
        assert!((60.0..=67.5).contains(&(timeout.as_secs_f64() * 1e3)), "{timeout:?}");
    }

    #[test]
    fn t_is_the_99th_percentile_and_the_result_stays_within_its_bounds() {
        let mut route = adaptive();
        (0..990).for_each(|_| route.on_latency(millis(20), at(0)));
        (0..5).for_each(|_| route.on_latency(millis(400), at(0)));
        assert!(route.timeout(at(0)) < millis(70), "0.5 % are slow");
        (0..15).for_each(|_| route.on_latency(millis(400), at(0)));
        let timeout = route.timeout(at(200));
        assert!((millis(1_200)..millis(1_351)).contains(&timeout), "2 % are slow: {timeout:?}");
        let (mut quick, mut slow) = (adaptive(), adaptive());
        (0..30).for_each(|_| quick.on_latency(millis(1), at(0)));
        (0..30).for_each(|_| slow.on_latency(millis(3_000), at(0)));
        assert_eq!((quick.timeout(at(0)), slow.timeout(at(0))), (millis(50), millis(5_000)));
    }

    #[test]
    fn the_quantile_is_computed_once_in_64_samples_or_100_milliseconds() {
        let mut route = adaptive();
        (0..30).for_each(|_| route.on_latency(millis(20), at(1_000)));
        let before = route.timeout(at(1_000));
        (0..63).for_each(|_| route.on_latency(millis(200), at(1_001)));
        assert_eq!(route.timeout(at(1_002)), before);
        assert!(route.timeout(at(1_100)) > before);
        let mut busy = adaptive();
        (0..30).for_each(|_| busy.on_latency(millis(20), at(1_000)));
        let before = busy.timeout(at(1_000));
        (0..64).for_each(|_| busy.on_latency(millis(200), at(1_001)));
        assert!(busy.timeout(at(1_001)) > before);
    }

    #[test]
    fn a_service_that_slows_down_raises_its_deadline_and_one_that_recovers_lowers_it() {
        let mut route = adaptive();
        let mut now = at(0);
        let mut serve = |latency: Duration, requests: u32| {
            for _ in 0..requests {
                let timeout = route.timeout(now);
                route.on_latency(latency.min(timeout), now);
                now += millis(10);
            }
            route.timeout(now)
        };
        assert!(serve(millis(20), 1_000) < millis(70));
        assert!(serve(millis(1_000), 2_000) >= millis(3_000), "requests that run into their deadline raise it");
        assert!(serve(millis(20), 10_000) < millis(70));
    }

    #[test]
    fn a_quiet_route_goes_back_to_its_maximum() {
        let mut route = adaptive();
        (0..100).for_each(|_| route.on_latency(millis(20), at(0)));
        assert!(route.timeout(at(0)) < millis(70));
        assert_eq!(route.timeout(at(60_000)), millis(5_000));
    }
}
