//! CPU time and memory of a process with all its threads and descendants.
//!
//! Time is read per thread, in nanoseconds (`/proc/PID/task/*/schedstat`), because ticks of 10 ms are too coarse for short runs. Threads and
//! processes that have ended are remembered as they were last seen; what they did after that is known in ticks only (`/proc/PID/stat`, which
//! counts ended threads and children too), and the larger of both counts.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use super::family;

/// Length of a tick: the kernel shows times in hundredths of a second whatever its own clock is (`USER_HZ`).
const TICK_NS: u64 = 10_000_000;

/// What a process and its descendants were seen to use, at each look.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    processes: HashMap<u32, Seen>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    /// By thread, nanoseconds.
    threads: HashMap<u32, u64>,
    own_ticks: u64,
    waited_ticks: u64,
    is_there: bool,
}

impl Usage {
    /// CPU time of `root` and all that descend from it, from their start until now. It never falls from one look to the next by more than
    /// what could not be seen; a process that is no more keeps what it had.
    pub fn cpu(&mut self, root: u32) -> Duration {
        for seen in self.processes.values_mut() {
            seen.is_there = false;
        }
        for pid in family::tree(root) {
            let Some(stat) = family::stat(pid) else { continue };
            let seen = self.processes.entry(pid).or_default();
            seen.is_there = true;
            (seen.own_ticks, seen.waited_ticks) = (stat.own_ticks, stat.waited_ticks);
            for thread in family::threads(pid) {
                let Some(ns) = schedstat(pid, thread) else { continue };
                let last = seen.threads.entry(thread).or_default();
                *last = ns.max(*last);
            }
        }
        self.total()
    }

    fn total(&self) -> Duration {
        let sum = |is_there: bool, what: fn(&Seen) -> u64| -> u64 {
            self.processes.values().filter(|seen| seen.is_there == is_there).map(what).sum()
        };
        // those who have ended are among what their parents have waited for
        let ended = sum(false, Seen::own_ns).max(sum(true, |seen| seen.waited_ticks * TICK_NS));
        Duration::from_nanos(sum(true, Seen::own_ns) + ended)
    }
}

impl Seen {
    fn own_ns(&self) -> u64 {
        self.threads.values().sum::<u64>().max(self.own_ticks * TICK_NS)
    }
}

/// Nanoseconds on a CPU.
fn schedstat(pid: u32, thread: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")).ok()?;
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// Resident bytes of `root` and all that descend from it. What processes share counts for each.
#[must_use]
pub fn resident_bytes(root: u32) -> u64 {
    let kilobytes = |pid: u32| -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    family::tree(root).into_iter().filter_map(kilobytes).sum::<u64>() << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(threads: &[u64], own_ticks: u64, waited_ticks: u64, is_there: bool) -> Seen {
        Seen { threads: (0..).zip(threads.iter().copied()).collect(), own_ticks, waited_ticks, is_there }
    }

    #[test]
    fn what_has_ended_counts_once() {
        let total = |processes: Vec<Seen>| Usage { processes: (0..).zip(processes).collect() }.total().as_millis();
        // two threads, of which the ticks know the same
        assert_eq!(total(vec![seen(&[15_000_000, 9_000_000], 2, 0, true)]), 24);
        // a thread that came and went between two looks is known in ticks
        assert_eq!(total(vec![seen(&[15_000_000], 5, 0, true)]), 50);
        // a child that ended: as it was last seen, or as its parent has it, whichever is more
        assert_eq!(total(vec![seen(&[1_000_000], 0, 3, true), seen(&[20_000_000], 2, 0, false)]), 31);
        assert_eq!(total(vec![seen(&[1_000_000], 0, 1, true), seen(&[20_000_000], 2, 0, false)]), 21);
    }

    #[test]
    fn our_own_time_grows_with_work_also_of_threads_that_have_ended() {
        let mut usage = Usage::default();
        let before = usage.cpu(std::process::id());
        let work = || {
            // as long as a thread is on a CPU, and not as long as a clock runs: the machine may be busy
            let id = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
            let start = schedstat(std::process::id(), id).expect("a thread has its own time");
            while schedstat(std::process::id(), id).is_some_and(|now| now < start + 60_000_000) {}
        };
        std::thread::spawn(work).join().expect("no panic");
        let after = usage.cpu(std::process::id());
        // ticks are cut off, for user and system time each
        assert!(after - before >= Duration::from_millis(30), "{before:?} {after:?}");
        assert!(resident_bytes(std::process::id()) > 1 << 20);
    }
}
