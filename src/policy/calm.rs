//! How many requests at once an endpoint is given that has asked for calm (ENHANCE_YOUR_CALM, RFC 9113 §7).
//!
//! Half of what it had then, and twice as many again with every [`STEP`] in which it does not ask once more: what TCP does with a path that loses
//! packets, for the same reason. It is one worker's grant to one endpoint, over all connections, because to share the same load out among more of
//! them would be no calm.
//!
//! Some servers say it of a single request that they do not like (Node.js, of one with too many fields), so a client can bring it about. That must
//! not take an endpoint away from everybody else: there is a floor, and what is said in one burst counts once.

use crate::units::Instant;
use std::time::Duration;

/// How long a grant holds before it is doubled.
const STEP: Duration = Duration::from_secs(10);
/// Streams of one burst are told one after the other.
const BURST: Duration = Duration::from_secs(1);
/// The part of an endpoint's `max_streams` that it is given whatever it says.
const FLOOR: usize = 8;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calm {
    granted: usize,
    since: Instant,
}

impl Calm {
    /// An endpoint asks for calm at `now`, with so many requests in flight. `before`: what it was granted, if it has asked before; `streams_max`:
    /// of one connection. `None`: that was the same burst as before.
    #[must_use]
    pub fn asked(before: Option<Self>, in_flight: usize, streams_max: usize, now: Instant) -> Option<Self> {
        if before.is_some_and(|before| now < before.since + BURST) {
            return None;
        }
        let had = before.map_or(in_flight, |before| before.limit(now).min(in_flight));
        Some(Self { granted: (had / 2).max(streams_max / FLOOR).max(1), since: now })
    }

    /// Requests that may be in flight at `now`; at least 1.
    #[must_use]
    pub fn limit(&self, now: Instant) -> usize {
        let steps = now.since(self.since).as_nanos() / STEP.as_nanos();
        let factor = u32::try_from(steps).ok().and_then(|steps| 1_usize.checked_shl(steps)).unwrap_or(usize::MAX);
        self.granted.saturating_mul(factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(3);

    fn after(seconds: u64) -> Instant {
        START + Duration::from_secs(seconds)
    }

    #[test]
    fn half_of_what_it_had_and_back_step_by_step() {
        let calm = Calm::asked(None, 100, 100, START).unwrap();
        let limits = [0, 9, 10, 19, 20, 30, 600, 1 << 40].map(|seconds| calm.limit(after(seconds)));
        assert_eq!(limits[..6], [50, 50, 100, 100, 200, 400]);
        assert!(limits[6] > 1 << 60 && limits[7] == usize::MAX, "{limits:?}");
    }

    #[test]
    fn one_burst_is_one_word() {
        let calm = Calm::asked(None, 64, 100, START);
        assert_eq!(Calm::asked(calm, 63, 100, START + BURST / 2), None);
        assert_eq!(Calm::asked(calm, 32, 100, after(1)).unwrap().limit(after(1)), 16);
    }

    #[test]
    fn less_only_of_what_it_has_and_never_below_the_floor() {
        let mut calm = Calm::asked(None, 1_000, 100, START);
        for second in 1..20 {
            calm = Calm::asked(calm, 1_000, 100, after(second));
        }
        assert_eq!(calm.unwrap().limit(after(20)), 100 / FLOOR);
        assert_eq!(Calm::asked(None, 40, 100, START).unwrap().limit(START), 20, "of what was in flight");
        assert_eq!(Calm::asked(None, 1, 100, START).unwrap().limit(START), 12, "one request that it does not like");
        assert_eq!(Calm::asked(None, 1, 1, START).unwrap().limit(START), 1);
        assert_eq!(Calm::asked(None, 0, 0, START).unwrap().limit(START), 1);
    }
}
