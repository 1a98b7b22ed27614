//! The monotonic clock as the tool's own processes read it, and waiting for something with a deadline.
//!
//! What decides is told the time; who starts processes, waits for them or answers at a due time asks here.

use rustix::thread::{NanosleepRelativeResult, nanosleep};
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::time::Duration;

use crate::units::Moment;

/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(2);

/// The present.
pub(crate) fn now() -> Moment {
    let time = clock_gettime(ClockId::Monotonic);
    // neither is ever negative on this clock
    Moment(time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned())
}

/// Blocks this thread for `time`.
pub(crate) fn wait(time: Duration) {
    let mut left = timespec(time);
    while let NanosleepRelativeResult::Interrupted(rest) = nanosleep(&left) {
        left = rest;
    }
}

/// Looks every two milliseconds whether `condition` has a value; `None` when it has none after `patience`. It is asked once at least.
pub(crate) fn wait_for<T>(patience: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = now() + patience;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if now() >= deadline {
            return None;
        }
        wait(LOOK);
    }
}

/// As system calls take it; at most 292 years.
pub(crate) fn timespec(time: Duration) -> Timespec {
    Timespec::try_from(time).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_waited_for_until_its_deadline() {
        let mut looks = 0;
        let third = wait_for(Duration::from_secs(10), || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(third, Some(3));
        let before = now();
        assert_eq!(wait_for(Duration::from_millis(5), || None::<()>), None);
        assert!(now().since(before) >= 5_000_000);
    }
}
