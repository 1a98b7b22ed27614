//! Peak EWMA: an endpoint's smoothed round trip, quick to believe the worst.
//!
//! A sample above the estimate replaces it, one below pulls it down with time constant τ = 10 s: e^(−Δt/τ) of the old value stays.
//! So a slow endpoint is seen at its first slow answer and earns its way back. Between samples the estimate fades too, so an
//! endpoint that nobody asks any more (it was slow once) comes to be asked again. From Finagle's peak EWMA (M. Jankowski 2015); the
//! estimate counts as unknown until the first sample; what unknown is worth is the caller's to say.

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

    /// Nanoseconds at `now`; `None` when never measured.
    #[must_use]
    pub fn get(&self, now: Instant) -> Option<f32> {
        (self.estimate >= 0.0).then(|| self.estimate * self.kept(now))
    }

    fn kept(&self, now: Instant) -> f32 {
        (-now.since(self.at).as_secs_f32() / AVAILABILITY_DECAY.as_secs_f32()).exp()
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
        rtt.on_sample(Duration::from_millis(10), at(11));
        assert!((millis(&rtt, at(11)) - 43.1).abs() < 0.1, "{}", millis(&rtt, at(11)));
    }

    #[test]
    fn an_endpoint_that_nobody_asks_fades() {
        let mut rtt = Rtt::UNKNOWN;
        rtt.on_sample(Duration::from_secs(5), at(0));
        assert!(millis(&rtt, at(70)) < 5.0);
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
