//! What an endpoint owes, and how long it may: the end of a response that is whole but for that, and the rest of a frame.

use super::link::{Core, Link, Slot};
use crate::observe::labels::Http2Failure;
use crate::units::Instant;
use crate::worker::state::Worker;
use std::time::Duration;

/// How long an endpoint that has sent all of a response may owe us its end.
const LINGER: Duration = Duration::from_secs(2);

/// How long a frame, or a header block, may take from its first byte to its last: it holds back all others of its connection. A packet that is lost
/// two times in a row takes less (RFC 6298 has 1 s before the first repetition, Linux mostly a fifth of that).
const PART: Duration = Duration::from_secs(2);

impl Link {
    /// When the first stream has waited long enough for an end that its endpoint owes it.
    pub(super) fn lingers_until(&self) -> Option<Instant> {
        let core = self.core.borrow();
        core.slots.iter().filter_map(|(_, slot)| slot.lingers_since).min().map(|since| since + LINGER)
    }

    /// Calls off those that have waited so long; whether there were any.
    pub(super) fn end_lingering(&self, now: Instant, worker: &Worker) -> bool {
        let mut core = self.core.borrow_mut();
        let core = &mut *core;
        let is_late = |slot: &Slot| slot.lingers_since.is_some_and(|since| since + LINGER <= now);
        let late: Vec<usize> = core.slots.iter().filter(|(_, slot)| is_late(slot)).map(|(key, _)| key).collect();
        late.iter().for_each(|key| self.release(core, *key, worker));
        !late.is_empty()
    }

    pub(super) fn release_if_lingering(&self, core: &mut Core, key: usize, worker: &Worker) {
        if core.slots[key].lingers_since.is_some() && core.slots[key].is_whole {
            self.release(core, key, worker);
        }
    }

    /// When the rest of a frame, or of a header block, must be here: nothing else can come before it.
    pub(super) fn part_until(&self) -> Option<Instant> {
        self.part_since.get().map(|since| since + PART)
    }

    /// Whether that moment is over, which is noted: the connection is to be given up.
    pub(super) fn is_part_late(&self, now: Instant) -> bool {
        let is_late = self.part_until().is_some_and(|until| now >= until);
        if is_late {
            self.note(Http2Failure::PartTimeout);
        }
        is_late
    }
}
