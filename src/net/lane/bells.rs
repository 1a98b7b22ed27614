//! What the lanes of one connection tell its task: for which of them there is something to be done, and how much waits in all of them.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, Waker};

/// What a connection's task is woken with: the places of its lanes for which there is something to be done.
#[derive(Debug, Default)]
pub struct Bells {
    due: RefCell<Vec<u32>>,
    waker: RefCell<Option<Waker>>,
    held: Cell<usize>,
    is_prioritized: Cell<bool>,
}

impl Bells {
    /// Takes the next place; whoever finds none is woken with the next one.
    pub fn poll_next(&self, cx: &Context<'_>) -> Poll<usize> {
        if let Some(place) = self.due.borrow_mut().pop() {
            return Poll::Ready(place as usize);
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|set| set.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Wakes the connection's task for something else than a lane.
    pub fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Gives back what only lanes need, if none has rung.
    pub fn shrink(&self) {
        self.due.borrow_mut().shrink_to_fit();
    }

    /// Its peer has said how urgent something is, so it is of use to know what others say of that.
    pub fn prioritize(&self) {
        self.is_prioritized.set(true);
    }

    pub(super) fn is_prioritized(&self) -> bool {
        self.is_prioritized.get()
    }

    /// Bytes of the blocks in which its lanes keep what has come and nobody has taken.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.get()
    }

    pub(super) fn hold(&self, more: isize) {
        self.held.set(self.held.get().saturating_add_signed(more));
    }

    pub(super) fn ring(&self, place: u32) {
        self.due.borrow_mut().push(place);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}
