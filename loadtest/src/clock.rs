//! The one place that reads clocks, and waiting for something with a deadline.
//!
//! What decides is told the time; who starts processes, waits for them or answers at a due time asks here.

use rustix::thread::{NanosleepRelativeResult, nanosleep};
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::time::Duration;

use crate::units::Moment;

/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(2);

/// The present.
#[must_use]
pub fn now() -> Moment {
    Moment(nanoseconds(clock_gettime(ClockId::Monotonic)))
}

/// CPU time of this thread, in nanoseconds.
#[must_use]
pub fn thread_cpu() -> u64 {
    nanoseconds(clock_gettime(ClockId::ThreadCPUTime))
}

/// Seconds since 1970, UTC.
#[must_use]
pub fn wall() -> f64 {
    nanoseconds(clock_gettime(ClockId::Realtime)) as f64 / 1e9
}

/// None of these clocks is ever negative.
fn nanoseconds(time: Timespec) -> u64 {
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Blocks this thread for `time`.
pub fn wait(time: Duration) {
    let mut left = timespec(time);
    while let NanosleepRelativeResult::Interrupted(rest) = nanosleep(&left) {
        left = rest;
    }
}

/// Looks every two milliseconds whether `condition` has a value; `None` when it has none after `patience`. It is asked once at least.
pub fn wait_for<T>(patience: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
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
#[must_use]
pub fn timespec(time: Duration) -> Timespec {
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
