//! `admit`, and what comes of it: a place, and what is still to be paid.
//!
//! What a request costs may be known by the service only, which says so in its response. By then the request's head is gone, so whose
//! tokens it takes is found out before ([`Charges`]). Most routes have no such limit, and then nothing is kept.

use super::generation::{Generation, Slot, SlotOf};
use super::line::Line;
use crate::config::LimitKey;
use crate::http::response::ResponseHead;
use crate::limits::{COST_MAX, ROUTE_LIMITS_MAX};
use crate::net::clock;
use crate::policy::admission::{Admitted, Met};
use crate::policy::limiter::{Caller, Marks, Moment};
use crate::units::{Instant, ListenerId, RouteId};
use std::cell::Cell;
use std::rc::Rc;

/// What a request that was admitted holds.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// If its route has `max_concurrent`, or a limit of requests at once.
    pub(super) slot: Option<Slot>,
    pub(super) charges: Charges,
}

/// Limits that a response says the cost of. A pointer, because it goes where a request does, and what that holds counts.
#[derive(Debug, Default)]
pub(super) struct Charges(Option<Box<Told>>);

#[derive(Debug, Default)]
struct Told {
    marks: [Marks; ROUTE_LIMITS_MAX],
    /// The most that an answer has said so far: another one may take its place.
    paid: [Cell<u64>; ROUTE_LIMITS_MAX],
}

impl Charges {
    /// Whether there is anything worth keeping.
    pub(super) fn has_room(&self) -> bool {
        self.0.is_some()
    }
}

/// Places in limits of requests at once.
#[derive(Debug, Default)]
pub(super) struct Places(Vec<usize>);

impl Places {
    /// The same room, with these in it.
    fn with(mut self, taken: &[usize]) -> Self {
        self.0.extend_from_slice(taken);
        self
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is anything worth keeping.
    pub(super) fn has_room(&self) -> bool {
        self.0.capacity() > 0
    }
}

impl Generation {
    /// Gives back what a request has held.
    pub(super) fn leave_limits(&self, mut places: Places) {
        places.0.drain(..).for_each(|place| self.shared.limits.leave(place));
        self.put_places(places);
    }

    /// Admits a request to its listener and its route, or says what is wanting.
    pub(super) fn admit<'h>(
        self: &Rc<Self>,
        asked: (RouteId, ListenerId, Met),
        caller: Caller<'_>,
        value: &dyn Fn(&LimitKey) -> Option<&'h [u8]>,
        now: Instant,
    ) -> (Admitted, Held) {
        let (route, _, met) = asked;
        let at = |now: Instant| Moment { now, unix: self.wall(now).as_secs() };
        let mut admission = self.admission.borrow_mut();
        let mut admitted = admission.admit(asked, caller, value, at(now));
        if matches!(admitted, Admitted::RateLimited { .. }) {
            // another core may have moved the bucket ahead of this one's time, which is that of the turn: a full bucket looks empty then
            let later = clock::read_now();
            if admitted.is_outdated(now, later) {
                admitted = admission.admit(asked, caller, value, at(later));
            }
        }
        let places = match admission.taken() {
            [] => Places::default(),
            taken => self.room_for_places().with(taken),
        };
        drop(admission);
        let Admitted::Pass { dry_run } = admitted else { return (admitted, Held::default()) };
        let limits = &self.shared.limits;
        if dry_run != 0 {
            self.recorder.rate_limited_dry_run(route);
            limits.in_dry_run(asked, dry_run, |limit| self.recorder.limited(limit, true));
        }
        if met == Met::Anybody {
            return (admitted, Held::default());
        }
        let mut charges = Charges::default();
        if limits.told(route).len() > 0 {
            charges = self.room_for_charges();
            let told = charges.0.get_or_insert_default();
            told.paid.iter().for_each(|paid| paid.set(0));
            limits.marks(route, caller, value, at(now), &mut told.marks);
        }
        let limited = self.shared.config.routes[route.index()].concurrent_max.is_some();
        let of = if limited { SlotOf::Route(route) } else { SlotOf::Limits };
        let slot = (limited || !places.is_empty()).then(|| self.slot(of, places));
        (admitted, Held { slot, charges })
    }
}

impl Line<'_> {
    /// Takes what an answer that is passed on says the request has cost.
    pub(super) fn charge(&self, head: &ResponseHead<'_>) {
        let Some(told) = &self.forward.charges.0 else { return };
        let (limits, route) = (&self.inbound.worker.shared.limits, self.forward.route);
        let fields = head.fields();
        let at = Moment { now: self.now, unix: self.inbound.worker.wall(self.now).as_secs() };
        for (index, header) in limits.told(route).enumerate() {
            let cost = fields.get(header.as_str()).and_then(cost).unwrap_or_default();
            let paid = told.paid[index].get();
            if cost > paid {
                limits.charge((route, index), told.marks[index], (paid, cost), at);
                told.paid[index].set(cost);
            }
        }
    }
}

/// A whole number of tokens; more than [`COST_MAX`] are as many as that.
fn cost(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    is_number
        .then(|| std::str::from_utf8(text).ok()?.parse().ok())
        .map(|cost| cost.map_or(COST_MAX, |cost: u64| cost.min(COST_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_a_whole_number_with_a_bound() {
        let costs = ["0", "17", "1000001", "99999999999999999999999", "", "-1", "1.5", "7 "];
        let read = costs.map(|text| cost(text.as_bytes()));
        assert_eq!(read, [Some(0), Some(17), Some(COST_MAX), Some(COST_MAX), None, None, None, None]);
    }
}
