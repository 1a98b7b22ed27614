//! The event loops of our own, of which a thread has at most one, and what they have in common: the tasks, their turns, the alarm.

use super::epoll::Epoll;
use super::ring::Ring;
use super::tasks::Tasks;
use std::cell::Cell;

thread_local! {
    static CURRENT: Cell<Option<Engine>> = const { Cell::new(None) };
}

/// The event loop of this thread, if it is one of ours.
pub(super) fn current() -> Option<Engine> {
    CURRENT.get()
}

/// From now on this thread has this one.
pub(super) fn set_current(engine: Option<Engine>) {
    CURRENT.set(engine);
}

/// One of our event loops. What a thread has of it lives as long as its owner says, and is asked for no longer.
#[derive(Clone, Copy)]
pub(super) enum Engine {
    /// The kernel is told what to do, and tells what has come of it.
    Ring(&'static Ring),
    /// The kernel tells what can be done, and it is done at once.
    Epoll(&'static Epoll),
}

impl Engine {
    pub(super) fn tasks(self) -> &'static Tasks {
        match self {
            Self::Ring(ring) => ring.tasks(),
            Self::Epoll(epoll) => epoll.tasks(),
        }
    }

    /// A turn of the loop; with `wait` until something has happened.
    ///
    /// # Panics
    /// The kernel refuses it for good.
    pub(super) fn turn_or_panic(self, wait: bool) {
        match self {
            Self::Ring(ring) => ring.turn_or_panic(wait),
            Self::Epoll(epoll) => epoll.turn_or_panic(wait),
        }
    }

    /// Has descriptors closed as they are dropped, where they wait for the end of the turn.
    pub(super) fn close_at_once(self) {
        if let Self::Ring(ring) = self {
            ring.close_at_once();
        }
    }

    /// Makes every further turn fail as a kernel would that refuses it.
    #[cfg(test)]
    pub(super) fn break_it(self) {
        match self {
            Self::Ring(ring) => ring.break_it(),
            Self::Epoll(epoll) => epoll.break_it(),
        }
    }
}
