//! Peak EWMA: an endpoint's smoothed round trip, quick to believe the worst.
//!
//! A sample above the estimate replaces it, one below pulls it down with time constant τ = 10 s: 1 − Δt/τ of the old value stays.
//! So a slow endpoint is seen at its first slow answer and earns its way back. From Finagle's peak EWMA (M. Jankowski 2015), which lets
//! the estimate fade with the same constant between samples: then a failure that counts as five seconds keeps an endpoint away from
//! rivals of a millisecond for 85. Here it fades in a line, to unknown after τ, so that one bad moment costs ten seconds whatever it
//! was. The estimate counts as unknown until the first sample too; what unknown is worth is the caller's to say.

use crate::limits::AVAILABILITY_DECAY;
use crate::units::{Instant, nanos};
use std::time::Duration;

/// The estimate of one endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Rtt {
    /// Nanoseconds; negative: unknown.
    estimate: f32,
    at: Instant,
}

impl Rtt {
    /// Never measured.
    pub const UNKNOWN: Self = Self { estimate: -1.0, at: Instant::from_nanos(0) };

    /// The time to a response head was `rtt`.
    pub fn on_sample(&mut self, rtt: Duration, now: Instant) {
        let sample = nanos(rtt) as f32;
        if self.estimate < 0.0 {
            self.estimate = sample;
        } else {
            let kept = self.kept(now);
            self.estimate = sample.max(self.estimate * kept + sample * (1.0 - kept));
        }
        self.at = self.at.max(now);
    }

    /// An attempt was given up after `elapsed`: the round trip is at least that.
    pub fn on_given_up(&mut self, elapsed: Duration, now: Instant) {
        if self.estimate >= 0.0 && nanos(elapsed) as f32 > self.estimate * self.kept(now) {
            self.on_sample(elapsed, now);
        }
    }

    /// Nanoseconds at `now`; `None` when not measured for as long as an estimate lasts.
    #[must_use]
    pub fn get(&self, now: Instant) -> Option<f32> {
        let kept = self.kept(now);
        (self.estimate >= 0.0 && kept > 0.0).then_some(self.estimate * kept)
    }

    fn kept(&self, now: Instant) -> f32 {
        (1.0 - now.since(self.at).as_secs_f32() / AVAILABILITY_DECAY.as_secs_f32()).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(0) + Duration::from_secs(seconds)
    }

    fn millis(rtt: &Rtt, now: Instant) -> f32 {
        rtt.get(now).expect("measured") / 1e6
    }

    #[test]
    fn a_peak_is_believed_at_once_and_forgotten_slowly() {
        let mut rtt = Rtt::UNKNOWN;
        assert_eq!(rtt.get(at(1)), None);
        rtt.on_sample(Duration::from_millis(10), at(1));
        rtt.on_sample(Duration::from_millis(100), at(1));
        assert!((millis(&rtt, at(1)) - 100.0).abs() < 0.01);
        rtt.on_sample(Duration::from_millis(10), at(1));
        assert!((millis(&rtt, at(1)) - 100.0).abs() < 0.01, "no time has passed");
        rtt.on_sample(Duration::from_millis(10), at(6));
        assert!((millis(&rtt, at(6)) - 55.0).abs() < 0.1, "{}", millis(&rtt, at(6)));
        rtt.on_sample(Duration::from_millis(10), at(16));
        assert!((millis(&rtt, at(16)) - 10.0).abs() < 0.1, "{}", millis(&rtt, at(16)));
    }

    #[test]
    fn an_endpoint_that_nobody_asks_fades() {
        let mut rtt = Rtt::UNKNOWN;
        rtt.on_sample(Duration::from_secs(5), at(0));
        assert!((millis(&rtt, at(5)) - 2_500.0).abs() < 1.0);
        assert_eq!(rtt.get(at(10)), None, "a single failure does not last longer than a ramp");
    }

    #[test]
    fn a_request_that_was_given_up_can_only_raise_the_estimate() {
        let mut rtt = Rtt::UNKNOWN;
        rtt.on_given_up(Duration::from_secs(1), at(0));
        assert_eq!(rtt.get(at(0)), None);
        rtt.on_sample(Duration::from_millis(50), at(0));
        rtt.on_given_up(Duration::from_millis(1), at(0));
        assert!((millis(&rtt, at(0)) - 50.0).abs() < 0.01);
        rtt.on_given_up(Duration::from_millis(80), at(0));
        assert!((millis(&rtt, at(0)) - 80.0).abs() < 0.01);
    }
}
