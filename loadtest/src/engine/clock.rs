//! The one place that reads clocks.

use crate::units::Moment;
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::time::Duration;

/// Now.
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

/// A time as the kernel takes it.
pub(super) fn timespec(nanoseconds: u64) -> Timespec {
    Timespec {
        tv_sec: (nanoseconds / 1_000_000_000).cast_signed(),
        tv_nsec: (nanoseconds % 1_000_000_000).cast_signed(),
    }
}

fn nanoseconds(time: Timespec) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Waits; who can be told to stop looks in between.
pub fn wait(time: Duration) {
    std::thread::sleep(time);
}
