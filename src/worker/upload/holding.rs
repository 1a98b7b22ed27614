//! `request_buffering`: a request waits for all of its body before an endpoint is taken for it.
//!
//! So a slow client holds no endpoint's worker, and what is here can be sent again to another one. It is kept where a body is kept in any case, only
//! more of it. Where the body is larger than the route buffers, or the worker holds as much for others as it may, it goes on as it comes.

use super::{BodyState, Upload};
use crate::http::{Version, reply};
use crate::limits::{REPLAY_BYTES_MAX, REQUEST_BUFFERS_BYTES_MAX};
use crate::net::clock;
use crate::policy::signature::digest::{ContentDigest, Running};
use crate::units::Instant;
use crate::worker::compression::Coder;
use crate::worker::failure::Failure;
use crate::worker::pacing::Pace;
use crate::worker::state::Worker;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Bytes that one request holds of those that a worker may, given back when this is dropped.
pub(super) struct Held {
    worker: Rc<Worker>,
    own: Cell<usize>,
    /// So much of the body is kept, to be sent again.
    kept_bytes_max: Cell<usize>,
    /// No longer is the client waited for.
    until: Cell<Instant>,
    /// Whether it is what its client has signed.
    digest: RefCell<Option<Running>>,
    /// Whose bytes it is, where they are counted, and how many of them were.
    pub(super) pace: Cell<Option<Pace>>,
    pub(super) paid_bytes: Cell<u64>,
}

/// What has become of a body that was awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Hold {
    /// All of it is here.
    Whole,
    /// All of it is here, and it is not what its digest says.
    Wrong,
    /// It is larger than what may be held of it.
    TooLarge,
    /// The worker holds as much for others as it may.
    NoRoom,
}

impl Held {
    fn nothing(worker: &Rc<Worker>) -> Self {
        let (kept_bytes_max, until) = (Cell::new(REPLAY_BYTES_MAX), Cell::new(Instant::NEVER));
        let (pace, paid_bytes) = (Cell::default(), Cell::new(0));
        let worker = Rc::clone(worker);
        Self { worker, own: Cell::new(0), kept_bytes_max, until, digest: RefCell::default(), pace, paid_bytes }
    }

    /// More of the body has come.
    pub(super) fn note(&self, piece: &[u8]) {
        if let Some(digest) = &mut *self.digest.borrow_mut() {
            digest.update(piece);
        }
    }

    /// Whether so many may be held now.
    fn grow_to(&self, bytes: usize) -> bool {
        grow(&self.worker.held, &self.own, bytes)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let all = &self.worker.held;
        all.set(all.get() - self.own.get());
    }
}

impl Upload<'_> {
    pub(super) fn holding(&self) -> &Held {
        self.held.get_or_init(|| Box::new(Held::nothing(self.inbound.worker.worker())))
    }

    /// So much of the body is kept, to be sent again.
    pub(super) fn kept_bytes_max(&self) -> usize {
        self.held.get().map_or(REPLAY_BYTES_MAX, |held| held.kept_bytes_max.get())
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held.get().map_or(0, |held| held.own.get())
    }

    /// How long the client's next bytes are waited for, from now on.
    pub(super) fn end_of_wait(&self, now: Instant) -> Instant {
        let until = self.held.get().map_or(Instant::NEVER, |held| held.until.get());
        (now + self.patience).min(until)
    }

    /// Puts aside what compresses the answer.
    pub(in crate::worker) fn put_coder(&self, coder: Option<Box<Coder>>) {
        self.coder.set(coder);
    }

    /// Whether anything compresses the answer.
    pub(in crate::worker) fn has_coder(&self) -> bool {
        self.with_coder(|coder| coder.is_some())
    }

    /// With what compresses the answer.
    pub(in crate::worker) fn with_coder<T>(&self, what: impl FnOnce(Option<&mut Coder>) -> T) -> T {
        let mut coder = self.coder.take();
        let done = what(coder.as_deref_mut());
        self.coder.set(coder);
        done
    }

    /// Receives the body until it is whole, or as long as it may be held: up to `bytes_max`, and until T_max; and looks whether it is as `digest` says. The
    /// head is there already, and nothing of the body.
    pub(in crate::worker) async fn hold(
        &self,
        bytes_max: usize,
        version: Version,
        digest: Option<&ContentDigest>,
    ) -> Result<Hold, Failure> {
        let held = self.holding();
        held.digest.replace(digest.map(ContentDigest::begin));
        held.until.set(self.attempts.deadline());
        held.kept_bytes_max.set(bytes_max.max(REPLAY_BYTES_MAX));
        self.take_in()?;
        self.pay().await?;
        if self.body_state() == BodyState::Withheld {
            let mut block = self.inbound.worker.blocks.borrow_mut().small();
            reply::go_on(block.vec_mut(), version);
            self.inbound.send(block, self.patience).await.map_err(Failure::Downstream)?;
            self.let_go();
        }
        while !self.is_complete() {
            let here = usize::try_from(self.body_bytes()).unwrap_or(usize::MAX);
            let announced = self.left().map(|left| here.saturating_add(usize::try_from(left).unwrap_or(usize::MAX)));
            // what is here with as much again, and not what its client has announced: words would take the room of bodies
            let expected = here.saturating_mul(2).min(announced.unwrap_or(usize::MAX));
            // chunk lines count when they are most of it: a body in chunks of a byte each must not be held either
            let encoded = self.outbound.borrow().all().len() - self.head_bytes.get();
            let is_larger = here > bytes_max
                || announced.is_some_and(|bytes| bytes > bytes_max)
                || encoded > 2 * bytes_max.max(REPLAY_BYTES_MAX);
            if is_larger || !held.grow_to(expected.min(bytes_max)) {
                // no more of it is kept than of any other
                held.kept_bytes_max.set(REPLAY_BYTES_MAX);
                return Ok(if is_larger { Hold::TooLarge } else { Hold::NoRoom });
            }
            self.receive().await?;
            self.take_in()?;
            self.pay().await?;
        }
        let is_right = held.digest.take().is_none_or(Running::is_right);
        // a client may end its body with the bytes that make it too large
        if digest.is_some() && self.body_bytes() > bytes_max as u64 {
            return Ok(Hold::TooLarge);
        }
        self.attempts.begin_deadline(clock::now());
        Ok(if is_right { Hold::Whole } else { Hold::Wrong })
    }
}

/// Has `own` be so many, and `all` as many more; whether there is room for that.
fn grow(all: &Cell<usize>, own: &Cell<usize>, bytes: usize) -> bool {
    let more = bytes.saturating_sub(own.get());
    let fits = all.get() + more <= REQUEST_BUFFERS_BYTES_MAX;
    if fits {
        all.set(all.get() + more);
        own.set(own.get() + more);
    }
    fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_requests_hold_together_is_bounded() {
        let (all, one, two) = (Cell::new(0), Cell::new(0), Cell::new(0));
        assert!([100, 50, 150].into_iter().all(|bytes| grow(&all, &one, bytes)));
        assert_eq!((all.get(), one.get()), (150, 150));
        assert!(
            !grow(&all, &two, REQUEST_BUFFERS_BYTES_MAX - 149) && grow(&all, &two, REQUEST_BUFFERS_BYTES_MAX - 150)
        );
        assert_eq!((all.get(), two.get()), (REQUEST_BUFFERS_BYTES_MAX, REQUEST_BUFFERS_BYTES_MAX - 150));
    }
}
