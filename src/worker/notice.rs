//! A worker's notice: that it makes room for a successor, and why.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Why a worker is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// It did not show any more that it lives.
    Stalled = 1,
    /// One of its own tasks has panicked, or all of it.
    Panicked,
    /// It cannot accept connections any more.
    Deaf,
    /// Its timers have ended, so nothing that it waits for is bounded.
    Timeless,
    /// It cannot hear commands any more.
    Unreachable,
    /// It got no event loop.
    Loopless,
    /// It got one, and could not begin.
    Failed,
}

impl Reason {
    const ALL: [Self; 7] =
        [Self::Stalled, Self::Panicked, Self::Deaf, Self::Timeless, Self::Unreachable, Self::Loopless, Self::Failed];

    /// Whether it never worked.
    #[must_use]
    pub fn is_of_beginning(self) -> bool {
        matches!(self, Self::Loopless | Self::Failed)
    }

    /// Whether the connections that the worker has can be finished by it.
    pub(super) fn may_finish(self) -> bool {
        !matches!(self, Self::Timeless | Self::Unreachable)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stalled => "has stalled",
            Self::Panicked => "has panicked",
            Self::Deaf => "cannot accept connections any more",
            Self::Timeless => "has lost its timers",
            Self::Unreachable => "cannot hear commands any more",
            Self::Loopless => "has no event loop",
            Self::Failed => "could not begin",
        })
    }
}

/// The notice of one worker, which it or the control thread gives: the first reason stands.
#[derive(Debug, Default)]
pub struct Notice {
    /// A [`Reason`]; 0: none.
    reason: AtomicU8,
    /// The worker knows of it, so it is alive, and finishes what it has.
    heard: AtomicBool,
}

impl Notice {
    /// Gives it, if it has not been given.
    pub fn give(&self, reason: Reason) {
        // Relaxed here and below: it is looked at now and then, and nothing else is read because of it
        let _ = self.reason.compare_exchange(0, reason as u8, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Why it was given; `None` if it was not.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        let given = self.reason.load(Ordering::Relaxed);
        Reason::ALL.into_iter().find(|reason| *reason as u8 == given)
    }

    /// Whether it was given.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.reason.load(Ordering::Relaxed) != 0
    }

    /// The worker knows of it.
    pub(super) fn hear(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Whether the worker has heard of it, or gave it itself.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_stands() {
        for first in Reason::ALL {
            let notice = Notice::default();
            assert_eq!((notice.is_given(), notice.reason()), (false, None));
            notice.give(first);
            notice.give(Reason::Stalled);
            assert_eq!((notice.is_given(), notice.reason()), (true, Some(first)));
        }
    }
}
