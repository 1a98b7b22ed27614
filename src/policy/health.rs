//! Active checks: when a streak of probe results turns an endpoint healthy or unhealthy.
//!
//! `fall` failures in a row make a healthy endpoint unhealthy, `rise` successes in a row make it healthy again (HAProxy's rise and
//! fall). An endpoint starts healthy: a gateway that has just started must not refuse its first requests for want of a probe.
//! The control thread owns one [`Streak`] per endpoint and tells every worker of a change; probing itself happens elsewhere.

use crate::config::HealthCheck;

/// The results of one endpoint's probes.
#[derive(Clone, Copy, Debug)]
pub struct Streak {
    healthy: bool,
    against: u32,
}

impl Streak {
    /// Healthy, nothing probed.
    #[must_use]
    pub fn new() -> Self {
        Self { healthy: true, against: 0 }
    }

    /// What the probes say now.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.healthy
    }

    /// One probe ended; `Some` with the new state when it changed.
    pub fn on_result(&mut self, passed: bool, check: &HealthCheck) -> Option<bool> {
        if passed == self.healthy {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.against < if passed { check.rise } else { check.fall } {
            return None;
        }
        *self = Self { healthy: passed, against: 0 };
        Some(passed)
    }
}

impl Default for Streak {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Probe;
    use std::time::Duration;

    #[test]
    fn changes_only_after_a_whole_streak_and_a_contrary_result_breaks_it() {
        let second = Duration::from_secs(1);
        let check = HealthCheck { probe: Probe::Tcp, interval: second, timeout: second, rise: 2, fall: 3 };
        let mut streak = Streak::new();
        let mut run =
            |results: &[bool]| results.iter().filter_map(|r| streak.on_result(*r, &check)).collect::<Vec<_>>();
        assert_eq!(run(&[true, false, false, true, false, false]), Vec::<bool>::new());
        assert_eq!(run(&[false]), [false]);
        assert_eq!(run(&[false, true, false, true]), Vec::<bool>::new());
        assert_eq!(run(&[true]), [true]);
        assert!(streak.is_healthy());
    }
}
