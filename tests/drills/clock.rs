//! The time of the drills: one clock that every process of a drill reads.
//!
//! Services write down when they were asked, the load when a request was due, and scripts when they killed something. To be compared
//! they must be on one clock, so a moment is the time since the Unix epoch, as the kernel tells it to every process. Latencies are
//! differences of such moments; nobody sets the clock while drills run.

use std::time::{Duration, SystemTime};

/// Time since the Unix epoch.
pub(crate) type Moment = Duration;

/// The time.
pub(crate) fn now() -> Moment {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Returns at `moment`, or at once if that has passed. A script has a timetable: it waits for a moment, not for a condition.
pub(crate) fn wait_until(moment: Moment) {
    std::thread::sleep(moment.saturating_sub(now()));
}

/// Returns after `duration`.
pub(crate) fn wait(duration: Duration) {
    std::thread::sleep(duration);
}
