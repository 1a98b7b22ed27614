//! Numbers with one writer and any reader, and tables of them that cost memory only where they are used.
//!
//! A worker counts with a relaxed load and a relaxed store, which on every machine is an ordinary increment: no locked
//! instruction, no cache line that travels between cores. A reader may see two numbers of one event apart (a request whose bytes
//! are not there yet); each number alone is always whole and, for counters, never goes back.
//!
//! What this does not do: count right with two writers. [`crate::observe::stats::Stats::recorder`] hands out one writer a worker.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, OnceLock};

/// One number: a counter that only grows, or a gauge that is set.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`; wraps after 2^64, which nothing here reaches.
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// One less, but never below zero: a gauge that was reset while something it counted was still alive stays at zero.
    #[inline]
    pub(crate) fn sub_one(&self) {
        self.0.store(self.0.load(Relaxed).saturating_sub(1), Relaxed);
    }

    /// Sets a gauge.
    #[inline]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The number now.
    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// An array of `N` fresh counters.
pub(crate) fn counters<const N: usize>() -> [Counter; N] {
    std::array::from_fn(|_| Counter::default())
}

/// The numbers of one thing (a route, an endpoint), one part for each life of a worker, made when that first touches it: ten thousand
/// routes of which ten have traffic cost the numbers of ten and pointers. A clone is the same numbers: generations share them.
#[derive(Debug)]
pub(crate) struct Rows<T>(Arc<[OnceLock<Box<T>>]>);

impl<T> Clone for Rows<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Rows<T> {
    /// `len` parts, none of them made.
    pub(crate) fn new(len: usize) -> Self {
        Self((0..len).map(|_| OnceLock::new()).collect())
    }

    /// Whether there are other copies of it.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Part `index`, made now if this is its first use (the only allocation it ever costs).
    #[inline]
    pub(crate) fn touch(&self, index: usize, make: impl FnOnce() -> T) -> &T {
        self.0[index].get_or_init(|| Box::new(make()))
    }

    /// Part `index` if it was ever touched.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        self.0[index].get().map(Box::as_ref)
    }

    /// The parts that were touched.
    pub(crate) fn touched(&self) -> impl Iterator<Item = &T> {
        self.0.iter().filter_map(|row| row.get().map(Box::as_ref))
    }
}

/// A bounded table that only grows: slots are found by number, never move and are never taken back, so a reader walks them
/// while the one writer appends. They are allocated `CHUNK` at a time.
#[derive(Debug)]
pub(crate) struct Arena<T, const CHUNK: usize> {
    chunks: Box<[OnceLock<Box<[T]>>]>,
    len: AtomicU64,
    len_max: usize,
}

impl<T: Default, const CHUNK: usize> Arena<T, CHUNK> {
    /// An empty arena for at most `len_max` slots.
    pub(crate) fn new(len_max: usize) -> Self {
        let chunks = (0..len_max.div_ceil(CHUNK)).map(|_| OnceLock::new()).collect();
        Self { chunks, len: AtomicU64::new(0), len_max }
    }

    /// Appends a slot, which `fill` completes before a reader can see it; `None` when the arena is full.
    pub(crate) fn append(&self, fill: impl FnOnce(&T)) -> Option<u32> {
        let index = self.len();
        if index == self.len_max {
            return None;
        }
        let chunk = self.chunks[index / CHUNK].get_or_init(|| (0..CHUNK).map(|_| T::default()).collect());
        fill(&chunk[index % CHUNK]);
        self.len.store(index as u64 + 1, Release);
        u32::try_from(index).ok()
    }

    /// Slots in use.
    pub(crate) fn len(&self) -> usize {
        // The length never exceeds `len_max`, which is a usize.
        self.len.load(Acquire) as usize
    }

    /// Slot `index`, which was appended.
    ///
    /// # Panics
    /// When it was not.
    #[inline]
    pub(crate) fn slot(&self, index: usize) -> &T {
        &self.chunks[index / CHUNK].get().expect("a slot's chunk exists once it was appended")[index % CHUNK]
    }

    /// All slots in use.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        (0..self.len()).map(|index| self.slot(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_grows_and_a_gauge_does_not_fall_below_zero() {
        let number = Counter::default();
        number.add(2);
        number.add(3);
        assert_eq!(number.get(), 5);
        number.set(1);
        number.sub_one();
        number.sub_one();
        assert_eq!(number.get(), 0);
    }

    #[test]
    fn rows_exist_only_once_they_were_touched() {
        let rows: Rows<Counter> = Rows::new(1000);
        rows.touch(7, Counter::default).add(4);
        rows.touch(7, || unreachable!("the row is made once")).add(1);
        assert_eq!(rows.get(7).map(Counter::get), Some(5));
        assert!(rows.get(8).is_none());
        assert_eq!(rows.touched().count(), 1);
    }

    #[test]
    fn an_arena_keeps_what_was_appended_and_refuses_more_than_its_bound() {
        const CHUNK: usize = 16;
        let arena: Arena<Counter, CHUNK> = Arena::new(CHUNK + 3);
        for n in 0..CHUNK + 3 {
            assert_eq!(arena.append(|slot| slot.set(n as u64)), Some(n as u32));
        }
        assert_eq!(arena.append(|_| unreachable!("a full arena fills nothing")), None);
        assert_eq!(arena.len(), CHUNK + 3);
        assert!(arena.iter().enumerate().all(|(n, slot)| slot.get() == n as u64));
    }
}
