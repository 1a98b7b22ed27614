//! Memory that a burst has left behind goes back to the system.
//!
//! Connections come and go in thousands, each with a few allocations of its own size, and the C library keeps what was freed between
//! those that stay. It gives whole pages back only when asked, which is this file's work: seldom, and only after the process has grown.

use crate::units::Instant;
use std::time::Duration;

/// Growth that is not worth a look.
const GROWTH: u64 = 16 << 20;
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(5);

/// Asks for memory to be given back when the process has grown since the last time.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// What was resident after the last time, or less if there has been less since.
    settled: u64,
    next: Instant,
}

impl Memory {
    /// Looks, now and then. `resident` tells how large the process is, `give_back` makes it smaller if that is possible.
    pub(super) fn look(&mut self, now: Instant, resident: impl Fn() -> u64, give_back: impl FnOnce()) {
        if now < self.next {
            return;
        }
        self.next = now + PAUSE;
        let size = resident();
        if size > self.settled + GROWTH {
            give_back();
            self.settled = resident();
        } else {
            self.settled = self.settled.min(size);
        }
    }
}

/// Resident bytes of this process (`/proc/self/statm`); 0 when nobody says.
pub(super) fn resident_bytes() -> u64 {
    const PAGE: u64 = 4_096;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default() * PAGE
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn memory_is_asked_for_after_growth_and_not_again_and_again() {
        let (size, asked) = (Cell::new(GROWTH), Cell::new(0));
        let mut memory = Memory::default();
        let mut now = Instant::from_nanos(1);
        let mut look = |megabytes: u64, left: u64| {
            size.set(megabytes << 20);
            now += PAUSE;
            memory.look(
                now,
                || size.get(),
                || {
                    asked.set(asked.get() + 1);
                    size.set(left << 20);
                },
            );
            asked.get()
        };
        assert_eq!(look(16, 16), 0, "not worth it");
        assert_eq!(look(200, 150), 1);
        assert_eq!(look(166, 166), 1, "what is in use is not asked for again");
        assert_eq!(look(30, 30), 1, "it has shrunk by itself");
        assert_eq!(look(60, 20), 2, "and grown again");
        memory.look(now, || 1 << 30, || unreachable!("too soon"));
    }

    #[test]
    fn this_process_has_a_size() {
        assert!(resident_bytes() > 0);
    }
}
