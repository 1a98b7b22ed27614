//! What is sent first on a connection whose client has said what is urgent (RFC 9218 §10).
//!
//! One send takes of the most urgent lanes that have something for which there is room, and of no others: while it is under way those whose
//! service goes on have more again. Of lanes that are alike, those that are of no use in parts are sent one after the other as they were asked
//! for, and those that are (*incremental*) take turns with them and with each other, a frame each.

use super::mux::Mux;
use super::writing::{OUT_BYTES_MAX, Written};
use crate::net::block::Block;
use crate::worker::state::Worker;

/// Whose turn it is among lanes that are alike.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turn {
    /// Of those that are incremental, the stream from whose id on the next one is looked for.
    from: u32,
    /// The last one was of those that are not.
    was_whole: bool,
}

impl Mux {
    /// Writes what is to be sent next of the lanes that have something.
    #[inline(never)]
    pub(super) fn write_by_urgency(&mut self, worker: &Worker, out: &mut Block) {
        let (codec, turn) = (&self.codec, self.turn);
        self.writing.sort_unstable_by_key(|&place| {
            let stream = codec.stream(place as usize);
            let priority = stream.priority();
            let order = if priority.is_incremental { stream.id().wrapping_sub(turn.from) } else { stream.id() };
            (priority.urgency, priority.is_incremental != turn.was_whole, order)
        });
        let before = out.unread().len();
        let mut at = 0;
        while at < self.writing.len() && out.unread().len() == before {
            at = self.write_alike(at, worker, out);
        }
    }

    /// Writes of the lanes that are as urgent as the one that stands there, and returns where others begin.
    fn write_alike(&mut self, from: usize, worker: &Worker, out: &mut Block) -> usize {
        let urgency = self.urgency_at(from);
        loop {
            let (mut at, mut is_stuck, mut has_had_turn) = (from, true, false);
            while at < self.writing.len() && self.urgency_at(at) == urgency && out.unread().len() < OUT_BYTES_MAX {
                let place = self.writing[at] as usize;
                let (stream, before) = (self.codec.stream(place), out.unread().len());
                let (id, is_incremental) = (stream.id(), stream.priority().is_incremental);
                if !is_incremental && has_had_turn {
                    at += 1;
                    continue;
                }
                match self.write(place, worker, out) {
                    Written::Some => (is_stuck, at) = (false, at + 1),
                    Written::Blocked => at += 1,
                    Written::All => {
                        is_stuck = false;
                        self.writing.remove(at);
                        self.stop_writing(place, worker);
                    }
                }
                if out.unread().len() > before {
                    has_had_turn |= !is_incremental;
                    let from = if is_incremental { id.wrapping_add(1) } else { self.turn.from };
                    self.turn = Turn { from, was_whole: !is_incremental };
                }
            }
            if is_stuck || out.unread().len() >= OUT_BYTES_MAX {
                return at;
            }
        }
    }

    fn urgency_at(&self, at: usize) -> u8 {
        self.codec.stream(self.writing[at] as usize).priority().urgency
    }
}
