//! The gateway's one reader of clocks.

use crate::units::Instant;
use std::time::Duration;

/// `CLOCK_MONOTONIC`, through the vDSO: some 20 ns.
#[must_use]
pub fn now() -> Instant {
    Instant::from_nanos(read(libc::CLOCK_MONOTONIC))
}

/// Time since 1970-01-01T00:00:00Z, for logs and `Date`.
#[must_use]
pub fn wall() -> Duration {
    Duration::from_nanos(read(libc::CLOCK_REALTIME))
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` outlives the call, which cannot fail for these two clocks.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_forward_and_the_year_is_plausible() {
        let first = now();
        assert!(now() >= first && first > Instant::default());
        assert!(wall() > Duration::from_secs(1_700_000_000));
    }
}
