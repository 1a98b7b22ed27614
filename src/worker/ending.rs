//! A worker's end: it retires for a successor, drains, or cannot go on.

use super::notice::Reason;
use super::state::Worker;
use std::future::poll_fn;
use std::task::Poll;

impl Worker {
    /// True from the drain command on, or when a successor has taken over or will.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.get() || self.notice.is_given()
    }

    /// Retires if it was given notice and has not done so.
    pub(super) fn obey_notice(&self) {
        if let Some(reason) = self.notice.reason()
            && !self.draining.get()
        {
            self.retire(reason);
        }
    }

    /// Makes room for a successor: no more connections, and the end once those that are here have ended.
    pub(super) fn retire(&self, reason: Reason) {
        self.notice.give(reason);
        self.notice.hear();
        self.draining.set(true);
        self.timers.hurry_idle();
        self.look_for_end();
    }

    /// One of the worker's own tasks is over, without which it cannot go on as it did.
    pub(super) fn on_task_over(&self, reason: Reason) {
        if !reason.may_finish() {
            self.is_broken.set(true);
        } else if self.is_draining() {
            return; // as it should
        }
        self.retire(reason);
    }

    /// Whether nothing is left to do, or nothing can be done any more.
    fn is_over(&self) -> bool {
        self.is_broken.get() || (self.draining.get() && self.connections.get() == 0)
    }

    /// Waits until the worker has drained, or cannot go on.
    pub(super) async fn ended(&self) {
        poll_fn(|cx| {
            if self.is_over() {
                return Poll::Ready(());
            }
            *self.waiting_for_end.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Wakes who waits for the end, if this is it.
    pub(super) fn look_for_end(&self) {
        if self.is_over()
            && let Some(waker) = self.waiting_for_end.borrow_mut().take()
        {
            waker.wake();
        }
    }
}
