//! The lazy hashed wheel: rows with deadlines, and slots that will look at them. All of the logic of [`super::timer`], none of the waiting.

use super::timer::TICK;
use crate::units::Instant;
use slab::Slab;
use std::net::Shutdown;
use std::os::fd::RawFd;
use std::task::Waker;
use std::time::Duration;

const TICK_NANOS: u64 = TICK.as_nanos() as u64;
/// Slots of the wheel: five seconds; what is further away comes round again.
const SLOTS: u64 = 512;

/// What a socket under watch is doing, for [`super::timer::Timers::hurry_idle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Nothing,
    /// Until then; this of it is shut down.
    Waiting(Shutdown),
    Idling,
    Tunnelling,
}

impl Doing {
    /// What of the socket is shut down when the time is over; `None`: nothing is under watch.
    pub(super) fn end(self) -> Option<Shutdown> {
        match self {
            Self::Nothing => None,
            Self::Waiting(how) => Some(how),
            // only this direction: a request that has arrived meanwhile is still read and answered
            Self::Idling => Some(Shutdown::Read),
            Self::Tunnelling => Some(Shutdown::Both),
        }
    }
}

/// One for each connection and each wait of its requests: a cache line.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) deadline: Instant,
    pub(super) waker: Option<Waker>,
    /// When the peer was last known to take something.
    pub(super) since: Instant,
    /// How long it may take nothing of what is being sent, in milliseconds; zero: nothing is being sent.
    patience: u32,
    /// What it had not taken with the last look; negative: there was none.
    pub(super) queued: libc::c_int,
    pub(super) fd: RawFd,
    /// The row of the client for whom the socket is being waited for, or [`NOBODY`].
    pub(super) client: u32,
    generation: u32,
    /// The tick of the slot that will look at this row, modulo 2^32: it is never further from the present one than the wheel is long, or the
    /// loop was away. Says something when `is_scheduled`.
    scheduled: u32,
    is_scheduled: bool,
    pub(super) expired: bool,
    /// How often its deadline has passed while the loop was away.
    pub(super) late: u8,
    pub(super) doing: Doing,
    /// Waits that go on on behalf of its client.
    pub(super) awaited: u8,
    /// How often in a row its client was found to have ended its direction, or [`CLIENT_GONE`].
    pub(super) client_ended: u8,
    /// Which of several kinds of idle connections it is, for [`super::timer::Timers::hurry_idle_of`].
    pub(super) tag: u16,
}

const _: () = assert!(size_of::<Row>() == 64);

/// See [`Row::client_ended`].
pub(super) const CLIENT_GONE: u8 = u8::MAX;
/// See [`Row::client`].
pub(super) const NOBODY: u32 = u32::MAX;
/// Rows that are kept for the next wait (64 KiB): a row that is used again stays where it is in the wheel, so that a wait costs no entry there.
const SPARES_MAX: usize = 1_024;

impl Row {
    /// Without a deadline, and without a client.
    fn new(generation: u32) -> Self {
        Self {
            deadline: Instant::NEVER,
            waker: None,
            since: Instant::default(),
            patience: 0,
            queued: -1,
            fd: -1,
            client: NOBODY,
            generation,
            scheduled: 0,
            is_scheduled: false,
            expired: false,
            late: 0,
            doing: Doing::Nothing,
            awaited: 0,
            client_ended: 0,
            tag: 0,
        }
    }

    /// Whether its client has left.
    pub(super) fn has_left(&self) -> bool {
        self.client_ended == CLIENT_GONE
    }

    /// How long the peer may take nothing of what is being sent; zero: nothing is being sent.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_millis(self.patience.into())
    }

    /// Rounded up to milliseconds, 49 days at most.
    pub(super) fn set_patience(&mut self, patience: Duration) {
        self.patience = u32::try_from(patience.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX);
    }

    /// The tick of the slot that will look at this row, as seen at `tick`; `None`: none will.
    fn scheduled(&self, tick: u64) -> Option<u64> {
        let distance = self.scheduled.wrapping_sub(tick as u32).cast_signed();
        self.is_scheduled.then(|| tick.saturating_add_signed(distance.into()))
    }
}

/// Rows and slots: all of the logic, none of the waiting.
#[derive(Debug)]
pub(super) struct Wheel {
    pub(super) rows: Slab<Row>,
    slots: Vec<Vec<(u32, u32)>>,
    in_use: [u64; (SLOTS / 64) as usize],
    /// The last tick whose slot has been looked at.
    tick: u64,
    generation: u32,
    spares: Vec<u32>,
}

impl Wheel {
    pub(super) fn new(now: Instant) -> Self {
        // some room from the start (16 KiB in all): otherwise each slot would allocate at its first use, which comes at any time
        let slots = (0..SLOTS).map(|_| Vec::with_capacity(4)).collect();
        Self {
            rows: Slab::new(),
            slots,
            in_use: [0; (SLOTS / 64) as usize],
            tick: now.as_nanos() / TICK_NANOS,
            generation: 0,
            spares: Vec::with_capacity(SPARES_MAX),
        }
    }

    /// A row without a deadline: one that was used last, if one is left.
    pub(super) fn add(&mut self) -> usize {
        if let Some(spare) = self.spares.pop() {
            return spare as usize;
        }
        self.generation = self.generation.wrapping_add(1);
        self.rows.insert(Row::new(self.generation))
    }

    /// Gives a row back. Its waker may own a task, and is to be dropped when the wheel can be reached again.
    pub(super) fn remove(&mut self, index: usize) -> Option<Waker> {
        if self.spares.len() == SPARES_MAX {
            return self.rows.remove(index).waker;
        }
        let row = &mut self.rows[index];
        debug_assert_eq!((row.awaited, row.client), (0, NOBODY), "somebody still waits");
        let (scheduled, is_scheduled) = (row.scheduled, row.is_scheduled);
        let used = std::mem::replace(row, Row { scheduled, is_scheduled, ..Row::new(row.generation) });
        self.spares.push(u32::try_from(index).expect("fewer rows than descriptors"));
        used.waker
    }

    /// Sets a row's deadline; true when the wheel has an earlier slot in use than before.
    pub(super) fn set(&mut self, index: usize, deadline: Instant) -> bool {
        self.set_with(index, deadline, |_| {})
    }

    /// The same, with what else there is to be changed about the row.
    pub(super) fn set_with(&mut self, index: usize, deadline: Instant, change: impl FnOnce(&mut Row)) -> bool {
        let row = &mut self.rows[index];
        row.deadline = deadline;
        row.expired = false;
        row.late = 0;
        change(row);
        deadline != Instant::NEVER && self.schedule(index)
    }

    fn schedule(&mut self, index: usize) -> bool {
        let row = &mut self.rows[index];
        let scheduled = row.scheduled(self.tick).filter(|scheduled| *scheduled > self.tick);
        // nearly always there is a slot that will look at the row before the deadline
        if scheduled.is_some_and(|scheduled| row.deadline.as_nanos() >= scheduled.saturating_mul(TICK_NANOS)) {
            return false;
        }
        let wanted = row.deadline.as_nanos().div_ceil(TICK_NANOS).clamp(self.tick + 1, self.tick + SLOTS - 1);
        if scheduled.is_some_and(|scheduled| scheduled <= wanted) {
            return false;
        }
        (row.scheduled, row.is_scheduled) = (wanted as u32, true);
        let slot = (wanted % SLOTS) as usize;
        self.slots[slot].push((u32::try_from(index).expect("fewer rows than descriptors"), row.generation));
        self.in_use[slot / 64] |= 1 << (slot % 64);
        true
    }

    /// Looks at every slot up to `now`; `fire` gets each row whose deadline has passed, and may give it another one.
    pub(super) fn advance(&mut self, now: Instant, mut fire: impl FnMut(&mut Row) -> Option<Instant>) {
        let to = now.as_nanos() / TICK_NANOS;
        // after a stall longer than the wheel, one round sees every slot
        let mut tick = self.tick.max(to.saturating_sub(SLOTS));
        while tick < to {
            tick += 1;
            self.tick = tick;
            let slot = (tick % SLOTS) as usize;
            if self.in_use[slot / 64] & (1 << (slot % 64)) == 0 {
                continue;
            }
            self.in_use[slot / 64] &= !(1 << (slot % 64));
            let mut entries = std::mem::take(&mut self.slots[slot]);
            for (index, generation) in entries.drain(..) {
                self.look_at(index as usize, generation, now, &mut fire);
            }
            // `look_at` may have put something into this very slot, one round later
            entries.append(&mut self.slots[slot]);
            self.slots[slot] = entries;
        }
    }

    fn look_at(
        &mut self,
        index: usize,
        generation: u32,
        now: Instant,
        fire: &mut impl FnMut(&mut Row) -> Option<Instant>,
    ) {
        let Some(row) = self.rows.get_mut(index) else { return };
        // a removed row's place may be another's by now, and a row that was moved earlier has been seen already
        if row.generation != generation || row.scheduled(self.tick).is_none_or(|scheduled| scheduled > self.tick) {
            return;
        }
        row.is_scheduled = false;
        if row.deadline <= now {
            if let Some(later) = fire(row) {
                row.deadline = later;
                self.schedule(index);
            } else {
                row.deadline = Instant::NEVER;
                row.expired = true;
            }
        } else if row.deadline != Instant::NEVER {
            self.schedule(index);
        }
    }

    /// Whether a client has left that a row names.
    pub(super) fn has_left(&self, client: u32) -> bool {
        client != NOBODY && self.rows[client as usize].has_left()
    }

    /// The time of the next slot in use.
    pub(super) fn next(&self) -> Option<Instant> {
        (self.tick + 1..self.tick + SLOTS)
            .find(|tick| self.in_use[(tick % SLOTS) as usize / 64] & (1 << (tick % SLOTS % 64)) != 0)
            .map(|tick| Instant::from_nanos(tick * TICK_NANOS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn fired(wheel: &mut Wheel, now: Instant) -> usize {
        let mut count = 0;
        wheel.advance(now, |_| {
            count += 1;
            None
        });
        count
    }

    #[test]
    fn a_deadline_fires_once_and_never_early() {
        let mut wheel = Wheel::new(at(1_003));
        let row = wheel.add();
        assert!(wheel.set(row, at(1_042)));
        assert_eq!(wheel.next(), Some(at(1_050)));
        assert_eq!(fired(&mut wheel, at(1_041)), 0);
        assert_eq!(fired(&mut wheel, at(1_050)), 1);
        assert!(wheel.rows[row].expired);
        assert_eq!(fired(&mut wheel, at(9_000)), 0);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn moving_later_is_lazy_and_moving_earlier_is_not() {
        let mut wheel = Wheel::new(at(0));
        let row = wheel.add();
        wheel.set(row, at(100));
        assert!(!wheel.set(row, at(60_000)), "later: the wheel is not touched");
        assert_eq!(fired(&mut wheel, at(200)), 0);
        assert!(wheel.set(row, at(250)), "earlier than its slot");
        assert_eq!(fired(&mut wheel, at(250)), 1);
    }

    #[test]
    fn deadlines_beyond_the_wheel_come_round() {
        let mut wheel = Wheel::new(at(0));
        let row = wheel.add();
        wheel.set(row, at(33_333));
        for now in (0..33_333).step_by(10) {
            assert_eq!(fired(&mut wheel, at(now)), 0);
            assert!(wheel.next().is_some());
        }
        assert_eq!(fired(&mut wheel, at(33_340)), 1);
    }

    #[test]
    fn deadlines_are_kept_where_the_number_of_a_tick_begins_anew() {
        // 497 days after the machine was started
        let around = (1_u64 << 32) * 10;
        for begin in (around - 12_000..around + 200).step_by(97) {
            let mut wheel = Wheel::new(at(begin));
            let rows: Vec<_> = (0..40).map(|_| wheel.add()).collect();
            for (number, row) in rows.iter().enumerate() {
                wheel.set(*row, at(begin + 300 * number as u64));
                // later, and earlier again
                wheel.set(*row, at(begin + 15_000));
                wheel.set(*row, at(begin + 10 + 300 * number as u64));
            }
            let mut seen = 0;
            for now in (begin..begin + 12_000).step_by(10) {
                seen += fired(&mut wheel, at(now));
                let due = (0..40).filter(|number| begin + 10 + 300 * number <= now).count();
                assert!(seen <= due && seen + 1 >= due, "{seen} of {due} at {now}, begun at {begin}");
            }
            assert_eq!(seen, 40);
        }
    }

    #[test]
    fn a_stall_longer_than_the_wheel_loses_nothing() {
        let mut wheel = Wheel::new(at(0));
        let rows: Vec<_> = (0..1_000).map(|_| wheel.add()).collect();
        for (i, row) in rows.iter().enumerate() {
            wheel.set(*row, at(10 + i as u64 * 7));
        }
        assert_eq!(fired(&mut wheel, at(1_000_000)), 1_000);
    }

    #[test]
    fn a_removed_row_does_not_fire_for_its_successor() {
        let mut wheel = Wheel::new(at(0));
        let old = wheel.add();
        wheel.set(old, at(50));
        wheel.rows.remove(old);
        let new = wheel.add();
        assert_eq!(old, new, "the slab reuses the place");
        wheel.set(new, at(5_000));
        assert_eq!(fired(&mut wheel, at(100)), 0);
        assert_eq!(fired(&mut wheel, at(5_000)), 1);
    }

    #[test]
    fn a_row_that_is_used_again_stays_where_it_is_in_the_wheel() {
        let mut wheel = Wheel::new(at(0));
        let row = wheel.add();
        assert!(wheel.set(row, at(50)));
        wheel.rows[row].tag = 3;
        assert!(wheel.remove(row).is_none());
        assert_eq!((wheel.add(), wheel.rows[row].tag), (row, 0));
        assert!(!wheel.set(row, at(5_000)), "its slot comes before that");
        assert_eq!((fired(&mut wheel, at(100)), fired(&mut wheel, at(5_000))), (0, 1));
        let other = wheel.add();
        assert_ne!(other, row, "one at a time");
    }

    #[test]
    fn rows_that_nobody_uses_are_kept_up_to_a_bound() {
        let mut wheel = Wheel::new(at(0));
        let rows: Vec<_> = (0..SPARES_MAX + 100).map(|_| wheel.add()).collect();
        rows.into_iter().for_each(|row| drop(wheel.remove(row)));
        assert_eq!((wheel.rows.len(), wheel.spares.len()), (SPARES_MAX, SPARES_MAX));
    }

    #[test]
    fn a_disarmed_row_stays_quiet_and_can_be_armed_again() {
        let mut wheel = Wheel::new(at(0));
        let row = wheel.add();
        wheel.set(row, at(50));
        wheel.set(row, Instant::NEVER);
        assert_eq!(fired(&mut wheel, at(100)), 0);
        wheel.set(row, at(150));
        assert_eq!(fired(&mut wheel, at(150)), 1);
    }
}
