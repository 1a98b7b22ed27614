//! How long this machine stood still: what the generator cannot see of the cores on which the gateway runs.
//!
//! A hypervisor may stop a core for a tenth of a second, and counts only a part of that as steal. So a thread on each core wakes every
//! millisecond, before everything else that runs there, and looks how late it is (as jHiccup does for a JVM). Where threads may not go
//! before others nothing can be told: they would measure how busy the gateway is.

use crate::clock;
use crate::engine::{Precedence, take_precedence};
use crate::units::Moment;
use rustix::thread::{CpuSet, sched_setaffinity};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(1);
/// Lateness that is none, in nanoseconds: interrupts and wake-ups.
const NOTHING: u64 = 500_000;
/// Hiccups that are kept: a machine with more of them in a run is no place to measure at all.
const KEPT: usize = 100_000;

/// A core stood still: from when on, and for how many nanoseconds.
pub type Hiccup = (Moment, u64);

/// Looks until `is_over`; hiccups of `core`, or `None` where that cannot be told.
#[must_use]
pub fn watch(core: usize, is_over: &AtomicBool) -> Option<Vec<Hiccup>> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).ok()?;
    if !take_precedence(Precedence::Watch) {
        return None;
    }
    let mut hiccups = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let due = clock::now() + PERIOD;
        clock::wait(PERIOD);
        let late = clock::now().since(due);
        if late > NOTHING && hiccups.len() < KEPT {
            hiccups.push((due, late));
        }
    }
    Some(hiccups)
}

/// The share of the time from `begun` on, for `length`, in which a core stood still.
#[must_use]
pub fn share(hiccups: &[Hiccup], begun: Moment, length: Duration) -> f64 {
    let end = begun + length;
    let inside = |(from, late): &Hiccup| {
        let (from, to) = ((*from).max(begun), (*from + Duration::from_nanos(*late)).min(end));
        to.since(from) as f64
    };
    hiccups.iter().map(inside).sum::<f64>() / (length.as_nanos() as f64).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_inside_counts() {
        let at = |ms: u64| Moment(ms * 1_000_000);
        let hiccups = [(at(90), 20_000_000), (at(150), 5_000_000), (at(195), 30_000_000), (at(300), 9_000_000)];
        let share = share(&hiccups, at(100), Duration::from_millis(100));
        assert!((share - 0.20).abs() < 1e-9, "{share}: 10, 5 and 5 ms of 100");
    }
}
