//! An endpoint's availability aᵢ: the share of its recent attempts and probes that succeeded, in [0, 1].
//!
//! Both sums decay exponentially, and one imagined success is always among them: an endpoint that was never tried has 1, one that
//! only failed comes near 0 but never reaches it, and with time (nothing new, old failures fading) it returns to 1. Without
//! that success an endpoint drawn in proportion to aᵢ would stay at 0 for ever, because nobody would try it again.
//! Ejection is not known here: the cluster counts an ejected endpoint as 0 by not offering it.

use crate::limits::AVAILABILITY_DECAY;
use crate::units::Instant;

/// Decayed sums of one endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Availability {
    succeeded: f32,
    all: f32,
    at: Instant,
}

impl Availability {
    /// Never tried: 1.
    #[must_use]
    pub fn new() -> Self {
        Self { succeeded: 0.0, all: 0.0, at: Instant::default() }
    }

    /// One attempt or probe ended.
    pub fn on_outcome(&mut self, succeeded: bool, now: Instant) {
        let kept = self.kept(now);
        self.succeeded = self.succeeded * kept + f32::from(u8::from(succeeded));
        self.all = self.all * kept + 1.0;
        self.at = self.at.max(now);
    }

    /// aᵢ at `now`, in (0, 1].
    #[must_use]
    pub fn get(&self, now: Instant) -> f32 {
        if self.succeeded == self.all {
            return 1.0; // also the usual case, and it spares the exponential
        }
        let kept = self.kept(now);
        (self.succeeded * kept + 1.0) / (self.all * kept + 1.0)
    }

    fn kept(&self, now: Instant) -> f32 {
        (-now.since(self.at).as_secs_f32() / AVAILABILITY_DECAY.as_secs_f32()).exp()
    }
}

impl Default for Availability {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(0) + Duration::from_secs(seconds)
    }

    #[test]
    fn an_endpoint_never_tried_or_never_failed_counts_one() {
        let mut a = Availability::new();
        assert_eq!(a.get(at(5)), 1.0);
        a.on_outcome(true, at(5));
        assert_eq!(a.get(at(6)), 1.0);
    }

    #[test]
    fn half_of_many_attempts_failing_gives_one_half() {
        let mut a = Availability::new();
        (0..10_000).for_each(|i| a.on_outcome(i % 2 == 0, at(1)));
        assert!((a.get(at(1)) - 0.5).abs() < 0.001, "{}", a.get(at(1)));
    }

    #[test]
    fn failures_lower_it_and_time_forgives_them() {
        let mut a = Availability::new();
        (0..9).for_each(|_| a.on_outcome(false, at(1)));
        assert!((a.get(at(1)) - 0.1).abs() < 1e-6);
        let later: Vec<f32> = [1, 10, 30, 60, 300].map(|s| a.get(at(s))).to_vec();
        assert!(later.is_sorted(), "{later:?}");
        assert!(a.get(at(300)) > 0.999);
    }
}
