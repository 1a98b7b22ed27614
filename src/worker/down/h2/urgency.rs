//! What is sent first on a connection whose client has said what is urgent (RFC 9218 §10).
//!
//! One send takes of the most urgent lanes that have something for which there is room, and of no others: while it is under way those whose
//! service goes on have more again. Of lanes that are alike, those that are of no use in parts are sent one after the other as they were asked
//! for, and those that are (*incremental*) take turns with them and with each other, a frame each.
//!
//! Nobody waits for ever: a lane whose client takes nothing of it is given up by its own deadline (`body_timeout`), and it must not be our order
//! that keeps the client from it. So now and then there is a frame of each lane, whatever its urgency.

use super::mux::Mux;
use super::writing::{OUT_BYTES_MAX, Written};
use crate::net::block::Block;
use crate::net::clock;
use crate::units::Instant;
use crate::worker::state::Worker;
use std::time::Duration;

/// How long some may be kept waiting by others before there is a frame of each.
const KEPT_WAITING_MAX: Duration = Duration::from_secs(5);

/// Whose turn it is among lanes that are alike.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turn {
    /// Of those that are incremental, the stream from whose id on the next one is looked for.
    from: u32,
    /// The last one was of those that are not.
    was_whole: bool,
    /// The same as `from`, of the frames that there are of each.
    each_from: u32,
    /// Since when some wait for more urgent ones.
    waits_since: Option<Instant>,
}

impl Turn {
    /// Whether it is time for a frame of each.
    fn is_of_each(self, now: Instant) -> bool {
        self.waits_since.is_some_and(|since| since + KEPT_WAITING_MAX <= now)
    }

    /// Something was sent, and others wait for that or not.
    fn on_sent(&mut self, others_wait: bool, now: Instant) {
        self.waits_since = others_wait.then(|| self.waits_since.unwrap_or(now));
    }
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
        let now = clock::now();
        if turn.is_of_each(now) {
            self.write_each(worker, out);
            self.turn.waits_since = None;
        }
        let before = out.unread().len();
        let mut at = 0;
        while at < self.writing.len() && out.unread().len() == before {
            at = self.write_alike(at, worker, out);
        }
        if out.unread().len() > before {
            self.turn.on_sent(!self.writing.is_empty(), now);
        }
    }

    /// Writes a frame of each lane, as far as there is room: the next time those come first that had none.
    fn write_each(&mut self, worker: &Worker, out: &mut Block) {
        let mut from = self.turn.each_from;
        for _ in 0..self.writing.len() {
            let id_of = |place: u32| self.codec.stream(place as usize).id();
            let next = (0..self.writing.len()).min_by_key(|&at| id_of(self.writing[at]).wrapping_sub(from));
            let Some(at) = next.filter(|_| out.unread().len() < OUT_BYTES_MAX) else { return };
            let (place, before) = (self.writing[at] as usize, out.unread().len());
            from = id_of(self.writing[at]).wrapping_add(1);
            if self.write(place, worker, out) == Written::All {
                self.writing.remove(at);
                self.stop_writing(place, worker);
            }
            if out.unread().len() > before {
                self.turn.each_from = from;
            }
        }
    }

    /// Writes of the lanes that are as urgent as the one that stands there, and returns where others begin.
    fn write_alike(&mut self, from: usize, worker: &Worker, out: &mut Block) -> usize {
        let urgency = self.urgency_at(from);
        // one of no use in parts has sent all that is here of it, and there will be more
        let mut goes_on = false;
        loop {
            let (mut at, mut is_stuck, mut has_had_turn) = (from, true, false);
            while at < self.writing.len() && self.urgency_at(at) == urgency && out.unread().len() < OUT_BYTES_MAX {
                let place = self.writing[at] as usize;
                let (stream, before) = (self.codec.stream(place), out.unread().len());
                let (id, is_incremental) = (stream.id(), stream.priority().is_incremental);
                if !is_incremental && (has_had_turn || goes_on) {
                    at += 1;
                    continue;
                }
                match self.write(place, worker, out) {
                    Written::Some => (is_stuck, at) = (false, at + 1),
                    Written::Blocked => at += 1,
                    Written::All => {
                        is_stuck = false;
                        let has_more = !self.codec.stream(place).is_answered();
                        goes_on |= !is_incremental && has_more && out.unread().len() > before;
                        self.writing.remove(at);
                        self.stop_writing(place, worker);
                    }
                }
                if out.unread().len() > before {
                    has_had_turn |= !is_incremental;
                    let from = if is_incremental { id.wrapping_add(1) } else { self.turn.from };
                    self.turn = Turn { from, was_whole: !is_incremental, ..self.turn };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_others_is_not_kept_waiting_for_ever() {
        let (mut turn, begin) = (Turn::default(), Instant::from_nanos(7));
        turn.on_sent(true, begin);
        turn.on_sent(true, begin + KEPT_WAITING_MAX / 2);
        assert!(!turn.is_of_each(begin + KEPT_WAITING_MAX / 2));
        assert!(turn.is_of_each(begin + KEPT_WAITING_MAX), "it counts from the first time on");
        turn.on_sent(false, begin + KEPT_WAITING_MAX);
        assert!(!turn.is_of_each(begin + 2 * KEPT_WAITING_MAX), "nobody waits");
        turn.on_sent(true, begin + 2 * KEPT_WAITING_MAX);
        assert!(!turn.is_of_each(begin + 2 * KEPT_WAITING_MAX));
    }
}
