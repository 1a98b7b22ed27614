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
