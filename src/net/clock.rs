//! The gateway's one reader of clocks.
//!
//! On an event loop of ours the time is read once a turn, when what has happened is handed out, as nginx, HAProxy and Envoy do: all that a turn
//! does happens at that time. It is late by what the turn has taken so far, a fraction of a millisecond under load, and never ahead.

use crate::units::Instant;
use std::cell::Cell;
use std::time::Duration;

thread_local! {
    /// When this thread's turn began; 0 where turns are not ours.
    static TURN: Cell<u64> = const { Cell::new(0) };
}

/// `CLOCK_MONOTONIC`, or when this turn began.
#[must_use]
pub fn now() -> Instant {
    match TURN.get() {
        0 => read_now(),
        turn => Instant::from_nanos(turn),
    }
}

/// `CLOCK_MONOTONIC`, however long the turn has taken.
#[must_use]
pub fn read_now() -> Instant {
    Instant::from_nanos(read(libc::CLOCK_MONOTONIC))
}

/// A turn of this thread's event loop begins, and its time is now.
pub(super) fn begin_turn() {
    TURN.set(read(libc::CLOCK_MONOTONIC));
}

/// This thread has no event loop of ours any more, and its time goes on by itself.
pub(super) fn end_turns() {
    TURN.set(0);
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
