//! What one worker knows about one endpoint.
//!
//! A plain record: decisions about it are the balancer's and the cluster's. Where it stands all workers know together
//! ([`crate::policy::standings`]); what is here is this worker's copy of that, and what it has measured for itself. An endpoint is
//! *available* when nothing keeps traffic from it: its weight is positive, active checks call it healthy, it was not put aside, and
//! it is not shunned. In flight and weight stand first: they are what a choice between two endpoints reads.

use crate::limits::RAMP_MIN_PERCENT;
use crate::policy::availability::Availability;
use crate::policy::balancer::rtt::Rtt;
use crate::policy::outlier::Successes;
use crate::policy::standings::Standing;
use crate::units::Instant;
use std::time::Duration;

/// One endpoint of one cluster on one worker.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Attempts that have begun and not ended.
    pub in_flight: u32,
    /// Its share; 0: drained.
    pub weight: u32,
    /// Row of the cluster's tiers, best first.
    pub tier: u8,
    /// What active checks say.
    pub healthy: bool,
    /// Smoothed round trip.
    pub rtt: Rtt,
    /// When its ramp began; `None`: whole load.
    pub ramp_from: Option<Instant>,
    /// Where it stands, as of the version of the standings that this worker has seen.
    pub standing: Standing,
    /// Since when this worker has seen it there.
    pub stands_since: Instant,
    /// When it last began to serve; what was attempted before tells nothing about it.
    pub readmitted: Instant,
    /// Share of recent attempts that succeeded.
    pub availability: Availability,
    /// Successes that the window of its failures does not hold yet.
    pub successes: Successes,
    /// Failures in a row, as far as this worker has seen …
    pub doubts: u32,
    /// … and until when they count.
    pub doubted_until: Instant,
    /// Attempts begun since the start.
    pub started: u64,
    /// Attempts ended since the start; always `started` − `in_flight`.
    pub finished: u64,
    /// Hash of its address: its identity in hash strategies and over reloads.
    pub identity: u64,
}

impl Endpoint {
    /// Untouched: healthy, serving, no ramp.
    #[must_use]
    pub fn new(weight: u32, tier: u8, identity: u64) -> Self {
        Self {
            in_flight: 0,
            weight,
            tier,
            healthy: true,
            rtt: Rtt::UNKNOWN,
            ramp_from: None,
            standing: Standing::Serving,
            stands_since: Instant::default(),
            readmitted: Instant::default(),
            availability: Availability::new(),
            successes: Successes::default(),
            doubts: 0,
            doubted_until: Instant::default(),
            started: 0,
            finished: 0,
            identity,
        }
    }

    /// Whether nothing keeps traffic from it.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.weight > 0 && self.healthy && self.standing == Standing::Serving
    }

    /// Whether it was put aside for failures that may be over: nothing that is known now speaks against it.
    #[must_use]
    pub fn may_be_well(&self) -> bool {
        self.weight > 0 && self.healthy && !matches!(self.standing, Standing::Serving | Standing::Paused { .. })
    }

    /// Whether it takes requests, if only when nobody else is left.
    #[must_use]
    pub fn is_left(&self) -> bool {
        self.weight > 0 && self.healthy && matches!(self.standing, Standing::Serving | Standing::Shunned { .. })
    }

    /// What it has in flight, and as much more as this worker has reason to doubt it: an endpoint that fails at once has little in flight,
    /// and must not look idle for that.
    #[must_use]
    pub fn load(&self, now: Instant) -> u32 {
        let doubts = if now < self.doubted_until { self.doubts } else { 0 };
        self.in_flight.saturating_add(doubts)
    }

    /// It serves again since `at`: what was measured before is no longer true, and would keep it from being asked.
    pub fn return_at(&mut self, at: Instant, ramp_from: Option<Instant>) {
        self.readmitted = at;
        self.ramp_from = ramp_from;
        self.rtt = Rtt::UNKNOWN;
        self.doubts = 0;
        self.successes.clear();
    }

    /// Its share of its load at `now`: from 10 % to 100 % over `slow_start` after it came back, else 1.
    #[must_use]
    pub fn ramp(&self, now: Instant, slow_start: Duration) -> f64 {
        let Some(from) = self.ramp_from else { return 1.0 };
        let passed = now.since(from).as_secs_f64() / slow_start.as_secs_f64().max(f64::MIN_POSITIVE);
        passed.clamp(RAMP_MIN_PERCENT as f64 / 100.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_runs_from_a_tenth_to_the_whole_and_only_after_a_return() {
        let (second, start) = (Duration::from_secs(1), Instant::from_nanos(5));
        let mut endpoint = Endpoint::new(1, 0, 7);
        assert_eq!(endpoint.ramp(start, 10 * second), 1.0);
        endpoint.ramp_from = Some(start);
        assert_eq!(endpoint.ramp(start, 10 * second), 0.1);
        assert_eq!(endpoint.ramp(start + 5 * second, 10 * second), 0.5);
        assert_eq!(endpoint.ramp(start + 11 * second, 10 * second), 1.0);
        assert_eq!(endpoint.ramp(start + second, Duration::ZERO), 1.0);
    }
}
