//! Rates that several hosts share: this one's copy of buckets that a store beside them keeps.
//!
//! Intuition: a bucket is one instant (the TAT of [`super::token_bucket`]), and the store has the true one. This host admits from a *lease*:
//! a small bucket of the same rate, which is [filled anew](FarTable::answer) from the true one whenever the store answers. What was taken is
//! [reported](FarTable::report) to the store all the time, some hundred times a second, and charged there whether it was there or not, so that
//! what one host has taken too much is paid back by all. No request waits for that.
//!
//! # How far a limit may be exceeded
//! Between two answers a host admits at most its lease L and what the rate brings in the time T from one answer to the next. So G hosts together
//! are over the limit by at most G × (L + r × T), once: it is charged, and later answers show that much less. L is a 64th of the burst or what
//! comes in 20 ms, whichever is more ([`lease_tokens`]).
//!
//! When the store is away each host goes on [alone](Mode::Alone), with its share of rate and burst. What was taken meanwhile is not charged
//! when the store is back.
//!
//! The table is bounded, and a key that finds no room in it counts [alone](FarTable::alone). A key that was idle for a while gives its place back. A worker that stands
//! still just then may charge one token to the wrong key; none is made by that.

use super::key_table::KeyHash;
use super::token_bucket::{Decision, Gcra, Quota};
use crate::config::lease_tokens;
use crate::units::{Instant, nanos};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use zerocopy::FromZeros as _;

/// Places after the first that a key may have.
const PROBES: usize = 8;
/// Words of a key: see [`Place`].
const WORDS: usize = 8;
/// In place of a key: it is just put there.
const BUSY: u64 = u64::MAX;
/// How long a key keeps its place after its bucket is full.
const IDLE: Duration = Duration::from_secs(2);

/// How limits are counted that are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The store answers.
    Shared,
    /// It does not: each of so many hosts has its share. At least 1, and below 2^32 - 8.
    Alone(u32),
    /// It does not, and everything passes.
    Open,
    /// It does not, and nothing passes.
    Closed,
}

impl Mode {
    const NAMED: [Self; 3] = [Self::Shared, Self::Open, Self::Closed];

    fn word(self) -> u64 {
        match self {
            Self::Alone(hosts) => u64::from(hosts.max(1)) + Self::NAMED.len() as u64 - 1,
            other => Self::NAMED.iter().position(|named| *named == other).unwrap_or_default() as u64,
        }
    }

    fn of(word: u64) -> Self {
        let named = usize::try_from(word).ok().and_then(|row| Self::NAMED.get(row));
        named
            .copied()
            .unwrap_or_else(|| Self::Alone(u32::try_from(word - Self::NAMED.len() as u64 + 1).unwrap_or(u32::MAX)))
    }
}

/// What was taken of one key since the last report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    place: usize,
    key: u64,
    /// What the key is called in every process: a hash of what it stands for.
    pub name: [u64; 2],
    /// Nanoseconds between two tokens.
    pub interval_nanos: u64,
    /// Tokens of a full bucket.
    pub burst: u64,
    /// Tokens.
    pub used: u64,
}

/// The table. `Send + Sync`, used by `&self`.
#[derive(Debug)]
pub struct FarTable {
    /// [`WORDS`] of each place: key, name (two), interval, burst, TAT, tokens to report; the last one is room.
    words: Box<[AtomicU64]>,
    /// One bit of each place that has something to report.
    dirty: Box<[AtomicU64]>,
    mode: AtomicU64,
}

impl FarTable {
    /// An empty one of so many places, a power of two of at least 64, of whose store nothing is known yet.
    ///
    /// # Panics
    /// When `places` is none, or there is no memory for the table.
    #[must_use]
    pub fn new(places: usize) -> Self {
        assert!(places.is_power_of_two() && places >= 64, "a power of two of places");
        let zeroed =
            |count| <[AtomicU64]>::new_box_zeroed_with_elems(count).expect("memory for limits that are shared");
        let mode = AtomicU64::new(Mode::Alone(1).word());
        Self { words: zeroed(places * WORDS), dirty: zeroed(places / 64), mode }
    }

    /// How it is counted.
    #[must_use]
    pub fn mode(&self) -> Mode {
        Mode::of(self.mode.load(Ordering::Relaxed))
    }

    /// It is counted so from now on.
    pub fn set_mode(&self, mode: Mode) {
        self.mode.store(mode.word(), Ordering::Relaxed);
    }

    /// Has a place for a key of a limit, whose `name` is asked for when it is new. A key always comes with the same `gcra`.
    pub fn ensure(&self, key: KeyHash, gcra: Gcra, name: impl FnOnce() -> [u64; 2]) {
        if self.find(key).is_some() {
            return;
        }
        let free = self.places(key).find(|place| {
            let word = self.place(*place).key;
            word.compare_exchange(0, BUSY, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        });
        let Some(place) = free.map(|place| self.place(place)) else { return };
        let [first, second] = name();
        let values = [first, second, gcra.interval_nanos(), gcra.burst(), 0, 0];
        for (word, value) in place.others.iter().zip(values) {
            word.store(value, Ordering::Relaxed);
        }
        // two workers may both have put it somewhere: the one that is found first counts, the other one is idle
        place.key.store(key.get(), Ordering::Release);
    }

    /// Takes `cost` tokens of a key, or none; `None`: it has no place, and counts [alone](FarTable::alone).
    pub fn take(&self, key: KeyHash, gcra: Gcra, cost: u64, now: Instant) -> Option<Decision> {
        let here = match self.here(gcra) {
            Ok(here) => here,
            Err(decision) => return Some(decision),
        };
        let row = self.find(key)?;
        let place = self.place(row);
        let mut tat = place.tat().load(Ordering::Relaxed);
        loop {
            let Some(next) = here.take(tat, cost, now) else {
                return Some(Decision::Reject(here.quota_for(tat, cost, now)));
            };
            match place.tat().compare_exchange_weak(tat, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => break,
                Err(seen) => tat = seen,
            }
        }
        self.note(row, cost);
        Some(Decision::Admit)
    }

    /// What [`FarTable::take`] would say, without taking.
    #[must_use]
    pub fn peek(&self, key: KeyHash, gcra: Gcra, cost: u64, now: Instant) -> Option<Decision> {
        match self.here(gcra) {
            Err(decision) => Some(decision),
            Ok(here) => Some(here.decide(self.place(self.find(key)?).tat().load(Ordering::Relaxed), cost, now)),
        }
    }

    /// The bucket of a key that has no place: as large as a lease, and nobody else hears of it.
    #[must_use]
    pub fn alone(gcra: Gcra) -> Gcra {
        lease(gcra)
    }

    /// Takes `cost` tokens of a key, whether they are there or not.
    pub fn charge(&self, key: KeyHash, gcra: Gcra, cost: u64, now: Instant) {
        if let Some(row) = self.find(key) {
            let next = |tat| Some(gcra.charge(tat, cost, now));
            let _ = self.place(row).tat().fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
            self.note(row, cost);
        }
    }

    /// The bucket that counts here now; `Err`: none does.
    fn here(&self, gcra: Gcra) -> Result<Gcra, Decision> {
        match self.mode() {
            Mode::Shared => Ok(lease(gcra)),
            Mode::Alone(hosts) => Ok(gcra.share(hosts.into())),
            Mode::Open => Err(Decision::Admit),
            Mode::Closed => Err(Decision::Reject(Quota { remaining: 0, reset: Duration::from_secs(1) })),
        }
    }

    fn note(&self, row: usize, cost: u64) {
        self.place(row).used().fetch_add(cost, Ordering::Relaxed);
        let (word, bit) = (&self.dirty[row / 64], 1 << (row % 64));
        if word.load(Ordering::Relaxed) & bit == 0 {
            // Release: who sees the bit sees what was taken
            word.fetch_or(bit, Ordering::Release);
        }
    }

    /// Calls with what was taken of each key since the last time. By one thread at a time.
    pub fn report(&self, mut each: impl FnMut(Report)) {
        for (index, word) in self.dirty.iter().enumerate() {
            let mut bits = match word.load(Ordering::Relaxed) {
                0 => continue,
                _ => word.swap(0, Ordering::Acquire),
            };
            while bits != 0 {
                let row = index * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let place = self.place(row);
                let [first, second, interval, burst, ..] = place.others;
                let read = |word: &AtomicU64| word.load(Ordering::Relaxed);
                let used = place.used().swap(0, Ordering::Relaxed);
                let key = place.key.load(Ordering::Acquire);
                if key != 0 && key != BUSY && used > 0 {
                    let name = [read(first), read(second)];
                    each(Report { place: row, key, name, interval_nanos: read(interval), burst: read(burst), used });
                }
            }
        }
    }

    /// The store has taken down a report, and says how far the bucket is from full: no more than a lease of what is left is to be had here.
    pub fn answer(&self, report: &Report, debt: Duration, now: Instant) {
        let place = self.place(report.place);
        if place.key.load(Ordering::Acquire) != report.key {
            return;
        }
        let gcra = Gcra::every(report.interval_nanos, report.burst);
        let kept = (gcra.burst() - lease(gcra).burst()).saturating_mul(report.interval_nanos);
        let shown = nanos(debt).saturating_sub(kept);
        let next = |_| {
            // what was taken since then is not in the answer
            let since = place.used().load(Ordering::Relaxed).saturating_mul(report.interval_nanos);
            Some(now.as_nanos().saturating_add(shown).saturating_add(since).min(u64::MAX - 1))
        };
        let _ = place.tat().fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// The store is there again: nothing that was taken without it counts, and every key has a lease. By who reports.
    pub fn begin(&self, now: Instant) {
        self.report(|_| ());
        for row in 0..self.words.len() / WORDS {
            let place = self.place(row);
            // a page that nobody has touched stays so
            if place.key.load(Ordering::Relaxed) != 0 {
                place.used().store(0, Ordering::Relaxed);
                place.tat().store(now.as_nanos(), Ordering::Relaxed);
            }
        }
        self.set_mode(Mode::Shared);
    }

    /// Gives back the places of keys whose buckets are full for a while.
    pub fn sweep(&self, now: Instant) {
        for row in 0..self.words.len() / WORDS {
            let place = self.place(row);
            let key = place.key.load(Ordering::Relaxed);
            let is_idle = place.used().load(Ordering::Relaxed) == 0
                && now.since(Instant::from_nanos(place.tat().load(Ordering::Relaxed))) > IDLE;
            if key != 0 && key != BUSY && is_idle {
                let _ = place.key.compare_exchange(key, 0, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
    }

    fn places(&self, key: KeyHash) -> impl Iterator<Item = usize> + use<> {
        let mask = self.words.len() / WORDS - 1;
        let first = key.get() as usize & mask;
        (0..PROBES).map(move |step| (first + step) & mask)
    }

    fn find(&self, key: KeyHash) -> Option<usize> {
        self.places(key).find(|row| self.place(*row).key.load(Ordering::Acquire) == key.get())
    }

    fn place(&self, row: usize) -> Place<'_> {
        let [key, others @ ..] = self.words[row * WORDS..].first_chunk::<WORDS>().expect("a whole place").each_ref();
        Place { key, others }
    }
}

/// The words of a key.
struct Place<'t> {
    key: &'t AtomicU64,
    others: [&'t AtomicU64; WORDS - 1],
}

impl<'t> Place<'t> {
    fn tat(&self) -> &'t AtomicU64 {
        self.others[4]
    }

    fn used(&self) -> &'t AtomicU64 {
        self.others[5]
    }
}

/// What a host may take between two answers.
fn lease(gcra: Gcra) -> Gcra {
    Gcra::every(gcra.interval_nanos(), lease_tokens(gcra.interval_nanos(), gcra.burst()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::key_table::{KeyTable, LimiterId};
    use crate::units::Rate;

    const MILLI: u64 = 1_000_000;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos((1 << 40) + millis * MILLI)
    }

    fn key(number: u64) -> KeyHash {
        KeyTable::new(1, [1, 2]).header(LimiterId(number), None)
    }

    fn gcra(count: u64, burst: u64) -> Gcra {
        Gcra::new(Rate::try_new(count, Duration::from_secs(1)).unwrap(), burst)
    }

    fn passes(table: &FarTable, number: u64, gcra: Gcra, now: u64) -> bool {
        table.take(key(number), gcra, 1, at(now)) == Some(Decision::Admit)
    }

    /// The store, as the script in it counts.
    #[derive(Default)]
    struct Store {
        tat: u64,
    }

    impl Store {
        fn round(&mut self, table: &FarTable, now: Instant) {
            let mut reports = Vec::new();
            table.report(|report| reports.push(report));
            for report in reports {
                self.tat = self.tat.max(now.as_nanos()) + report.used * report.interval_nanos;
                table.answer(&report, Duration::from_nanos(self.tat - now.as_nanos()), now);
            }
        }
    }

    #[test]
    fn modes_survive_a_word() {
        for mode in [Mode::Shared, Mode::Open, Mode::Closed, Mode::Alone(1), Mode::Alone(7)] {
            assert_eq!(Mode::of(mode.word()), mode);
        }
    }

    #[test]
    fn a_host_alone_has_its_share_and_with_others_no_more_than_a_lease_at_once() {
        let (table, gcra) = (FarTable::new(64), gcra(1_000, 400));
        table.ensure(key(1), gcra, || [1, 2]);
        let burst = |now: u64| (0..999).take_while(|_| passes(&table, 1, gcra, now)).count();
        table.set_mode(Mode::Alone(4));
        assert_eq!((burst(0), burst(4)), (100, 1), "a quarter of both");
        table.set_mode(Mode::Shared);
        assert_eq!(burst(10_000), 20);
        table.set_mode(Mode::Open);
        assert_eq!(burst(10_000), 999);
        table.set_mode(Mode::Closed);
        assert_eq!(burst(20_000), 0);
        assert!(table.peek(key(1), gcra, 1, at(20_000)) != Some(Decision::Admit));
    }

    #[test]
    fn what_was_taken_alone_holds_nobody_up_when_the_store_is_back() {
        let (table, gcra) = (FarTable::new(64), gcra(1, 1_000));
        table.ensure(key(1), gcra, || [1, 2]);
        assert_eq!((0..2_000).filter(|_| passes(&table, 1, gcra, 0)).count(), 1_000, "all of the burst");
        table.begin(at(5));
        let mut reported = 0;
        table.report(|report| reported += report.used);
        assert_eq!((reported, (0..2_000).filter(|_| passes(&table, 1, gcra, 5)).count()), (0, 15), "a lease");
    }

    #[test]
    fn hosts_that_share_a_limit_are_over_it_by_no_more_than_is_said() {
        let (rate, burst, hosts) = (1_000, 100, 4);
        let gcra = gcra(rate, burst);
        for round_ms in [1, 10, 50] {
            let tables: Vec<_> = (0..hosts).map(|_| FarTable::new(64)).collect();
            let mut store = Store::default();
            for table in &tables {
                table.set_mode(Mode::Shared);
                table.ensure(key(1), gcra, || [1, 2]);
            }
            let mut admitted = 0;
            for milli in 0..10_000_u64 {
                for (row, table) in tables.iter().enumerate() {
                    admitted += (0..20).filter(|_| passes(table, 1, gcra, milli)).count() as u64;
                    if (milli + row as u64).is_multiple_of(round_ms) {
                        store.round(table, at(milli));
                    }
                }
                let over = hosts as u64 * (lease(gcra).burst() + rate * round_ms / 1_000 + 1);
                assert!(
                    admitted <= burst + rate * milli / 1_000 + over,
                    "{admitted} in {milli} ms, every {round_ms} ms"
                );
            }
            assert!(admitted >= 9_900, "{admitted} of 10000, every {round_ms} ms");
        }
    }

    #[test]
    fn a_table_that_is_full_does_not_know_everybody_and_has_room_again() {
        let (table, gcra) = (FarTable::new(64), gcra(10, 10));
        table.set_mode(Mode::Shared);
        let passes = |number: u64, now: u64| {
            table.ensure(key(number), gcra, || [number, 0]);
            table.take(key(number), gcra, 1, at(now)).is_some()
        };
        let passed = (0..1_000).filter(|number| passes(*number, 0)).count();
        assert!((32..=64).contains(&passed), "{passed}");
        table.report(|_| ());
        table.sweep(at(1));
        assert!(!(0..1_000).all(|number| passes(number, 1)), "they are not idle");
        table.report(|_| ());
        table.sweep(at(10_000));
        assert!(passes(5_000, 10_000) && passes(5_001, 10_000));
    }

    #[test]
    fn threads_lose_nothing_of_what_they_have_taken() {
        let (table, gcra) = (FarTable::new(64), gcra(1_000_000_000, 1_000_000_000));
        table.set_mode(Mode::Shared);
        let mut reported = 0;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for turn in 0..20_000 {
                        table.ensure(key(turn % 3), gcra, || [turn % 3, 0]);
                        assert_eq!(table.take(key(turn % 3), gcra, 2, at(0)), Some(Decision::Admit));
                    }
                });
            }
            for _ in 0..1_000 {
                table.report(|report| reported += report.used);
            }
        });
        table.report(|report| reported += report.used);
        assert_eq!(reported, 4 * 20_000 * 2);
    }
}
