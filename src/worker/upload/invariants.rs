//! What is true of a request that is being sent, whatever has happened; looked at in debug builds.

use super::{Delivery, Replay, Upload};
use crate::limits::BLOCK_BULK;

impl Upload<'_> {
    /// Asserts what is true whenever nothing is being sent.
    ///
    /// # Panics
    /// It is not, by a defect of this module.
    pub(in crate::worker) fn check_invariants(&self, delivery: &Delivery) {
        let (outbound, body) = (self.outbound.borrow(), self.body.borrow());
        assert!(!self.severed.get() || !body.is_done(), "a body that is whole is not malformed");
        assert!(
            !self.withheld.get() || self.body_bytes() == 0,
            "nothing is taken from a client that waits to be told to send"
        );
        assert!(!self.waits.get(), "what was waited for is here");
        match self.replay.get() {
            Replay::Kept => {
                assert!(self.head_bytes.get() <= outbound.all().len(), "the head is where it can be sent again");
                assert!(delivery.sent.get() <= outbound.all().len(), "what was sent is kept");
                assert!(
                    self.body_bytes() <= (self.kept_bytes_max().max(self.held_bytes()) + BLOCK_BULK) as u64,
                    "what is kept is bounded"
                );
            }
            Replay::Lost => assert_eq!(delivery.sent.get(), 0, "who forgets what was sent cannot count it"),
        }
    }
}
