//! The end of a drain's time: what is still in flight is told so, logged, and over.
//!
//! Nobody is interrupted: every wait just ends as if its own time had passed, which each of them knows how to take. Only what comes of
//! that is another: no further attempt begins, a request without an answer gets 503 `draining`, and that is what is logged.

use super::state::Worker;
use crate::net::clock;
use crate::net::timer::TICK;
use std::rc::Rc;

/// Ends every wait, and again those that come of it, until nothing is left.
pub(super) async fn cut(worker: Rc<Worker>) {
    worker.cutting.set(true);
    let watch = worker.timers.watch();
    while worker.connections.get() > 0 {
        worker.timers.hurry_all(clock::now());
        watch.sleep_until(clock::now() + TICK).await;
    }
}

impl Worker {
    /// True once the drain's time is over.
    pub(super) fn is_cutting(&self) -> bool {
        self.cutting.get()
    }
}
