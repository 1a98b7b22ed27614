//! Faults that the gateway makes itself: who waits and who is refused.
//!
//! Each of the two is drawn for itself, so of 10 % that wait and 10 % that are refused, 1 % of the requests do both.

use crate::config;
use crate::policy::chance::unit;
use crate::units::Rng;
use http::StatusCode;
use std::time::Duration;

/// What happens to one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Injected {
    /// It waits so long before anything else.
    pub delay: Option<Duration>,
    /// Then it is refused with this.
    pub abort: Option<StatusCode>,
}

impl Injected {
    /// The word for it in the access log; `None`: nothing happens.
    #[must_use]
    pub fn word(&self) -> Option<&'static str> {
        match (self.delay.is_some(), self.abort.is_some()) {
            (false, false) => None,
            (true, false) => Some("delay"),
            (false, true) => Some("abort"),
            (true, true) => Some("delay+abort"),
        }
    }
}

/// Draws.
#[must_use]
pub fn inject(fault: &config::Fault, rng: &mut Rng) -> Injected {
    Injected {
        delay: fault.delay.filter(|(share, _)| unit(rng) < share.get()).map(|(_, time)| time),
        abort: fault.abort.filter(|(share, _)| unit(rng) < share.get()).map(|(_, status)| status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::ratio;
    use rand::SeedableRng as _;

    #[test]
    fn shares_are_what_they_say_and_do_not_know_each_other() {
        let seed = 9;
        println!("seed {seed}");
        let mut rng = Rng::seed_from_u64(seed);
        let (time, status) = (Duration::from_secs(1), StatusCode::BAD_GATEWAY);
        let fault = |delay, abort| config::Fault {
            delay: Some((ratio(delay), time)),
            abort: Some((ratio(abort), status)),
            header: None,
        };
        let mut counts = [0_u32; 3];
        for _ in 0..100_000 {
            let Injected { delay, abort } = inject(&fault(0.1, 0.2), &mut rng);
            counts[0] += u32::from(delay.is_some());
            counts[1] += u32::from(abort.is_some());
            counts[2] += u32::from(delay.is_some() && abort.is_some());
        }
        // sigmas are 95, 126 and 44; five of them
        assert!(counts[0].abs_diff(10_000) < 475 && counts[1].abs_diff(20_000) < 630, "{counts:?}");
        assert!(counts[2].abs_diff(2_000) < 220, "{counts:?}");
        for _ in 0..1_000 {
            let all = inject(&fault(1.0, 1.0), &mut rng);
            assert_eq!((all.delay, all.abort, all.word()), (Some(time), Some(status), Some("delay+abort")));
            assert_eq!(inject(&fault(0.0, 0.0), &mut rng).word(), None);
        }
    }
}
