//! `request_buffering`: a request waits for all of its body before an endpoint is taken for it.
//!
//! So a slow client holds no endpoint's worker, and what is here can be sent again to another one. It is kept where a body is kept in any case, only
//! more of it. Where the body is larger than the route buffers, or the worker holds as much for others as it may, it goes on as it comes.

use super::{BodyState, Upload};
use crate::http::{Version, reply};
use crate::limits::{REPLAY_BYTES_MAX, REQUEST_BUFFERS_BYTES_MAX};
use crate::net::clock;
use crate::worker::failure::Failure;
use std::cell::Cell;

/// Bytes that one request holds of those that a worker may, given back when this is dropped.
pub(super) struct Held<'w> {
    all: &'w Cell<usize>,
    own: Cell<usize>,
}

impl<'w> Held<'w> {
    pub(super) fn nothing(all: &'w Cell<usize>) -> Self {
        Self { all, own: Cell::new(0) }
    }

    pub(super) fn own(&self) -> usize {
        self.own.get()
    }

    /// Whether so many may be held now.
    fn grow_to(&self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.own.get());
        let fits = self.all.get() + more <= REQUEST_BUFFERS_BYTES_MAX;
        if fits {
            self.all.set(self.all.get() + more);
            self.own.set(self.own.get() + more);
        }
        fits
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.all.set(self.all.get() - self.own.get());
    }
}

impl Upload<'_> {
    /// Receives the body until it is whole, or as long as it may be held: up to `bytes_max`, and until T_max. The head is there already. Whether all of it
    /// is here.
    pub(in crate::worker) async fn hold(&self, bytes_max: usize, version: Version) -> Result<bool, Failure> {
        self.waits_until.set(self.attempts.deadline());
        self.take_in()?;
        if self.body_state() == BodyState::Withheld {
            let mut block = self.inbound.worker.blocks.borrow_mut().small();
            reply::go_on(block.vec_mut(), version);
            self.inbound.send(block, self.patience).await.map_err(Failure::Downstream)?;
            self.let_go();
        }
        while !self.is_complete() {
            // what its client has announced, and else what is here with as much again
            let here = usize::try_from(self.body_bytes()).unwrap_or(usize::MAX);
            let expected = match self.left() {
                Some(left) => here.saturating_add(usize::try_from(left).unwrap_or(usize::MAX)),
                None => here.saturating_mul(2),
            };
            // chunk lines count when they are most of it: a body in chunks of a byte each must not be held either
            let encoded = self.outbound.borrow().all().len() - self.head_bytes.get();
            let is_larger = here > bytes_max
                || (self.left().is_some() && expected > bytes_max)
                || encoded > 2 * bytes_max.max(REPLAY_BYTES_MAX);
            if is_larger || !self.held.grow_to(expected.min(bytes_max)) {
                // no more of it is kept than of any other
                self.kept_bytes_max.set(REPLAY_BYTES_MAX);
                return Ok(false);
            }
            self.receive().await?;
            self.take_in()?;
        }
        self.attempts.begin_deadline(clock::now());
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_requests_hold_together_is_bounded_and_given_back() {
        let all = Cell::new(0);
        let (one, two) = (Held::nothing(&all), Held::nothing(&all));
        assert!(one.grow_to(100) && one.grow_to(50) && one.grow_to(150));
        assert_eq!(all.get(), 150);
        assert!(!two.grow_to(REQUEST_BUFFERS_BYTES_MAX - 149) && two.grow_to(REQUEST_BUFFERS_BYTES_MAX - 150));
        drop(one);
        assert!(two.grow_to(REQUEST_BUFFERS_BYTES_MAX));
        drop(two);
        assert_eq!(all.get(), 0);
    }
}
