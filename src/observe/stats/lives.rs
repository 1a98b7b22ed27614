//! The memory of one worker: that of each of its lives which may go on at once.
//!
//! A worker that is replaced finishes what it has while its successor works, and both count. Memory with two writers loses counts, so each
//! life has memory of its own, sums are over all of them, and what a life leaves goes to a later one once nobody writes it any more:
//! counters go on, gauges begin at zero.
//!
//! What this does not do: grow. When all of it is in use, the oldest life falls silent; that is somebody who has stalled more than once.

use super::WorkerStats;
use crate::config::Config;
use crate::limits::WORKER_LIVES_MAX;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock};

/// One worker's memory.
#[derive(Debug)]
pub(crate) struct WorkerMemory {
    parts: [OnceLock<Arc<WorkerStats>>; WORKER_LIVES_MAX],
    /// Lives that have begun so far.
    begun: AtomicU64,
    /// The part of the life that has begun last.
    current: AtomicUsize,
}

/// A life's right to write its part of the memory. The part is given back when one copy of this is dropped: the first.
#[derive(Debug)]
pub struct Tenure {
    memory: Arc<WorkerStats>,
    life: u64,
}

impl WorkerMemory {
    pub(super) fn new(config: &Config) -> Self {
        let memory = Self {
            parts: [const { OnceLock::new() }; WORKER_LIVES_MAX],
            begun: AtomicU64::new(0),
            current: AtomicUsize::new(0),
        };
        memory.part(0, config);
        memory
    }

    fn part(&self, index: usize, config: &Config) -> &Arc<WorkerStats> {
        self.parts[index].get_or_init(|| Arc::new(WorkerStats::new(config)))
    }

    /// A part for one more life.
    pub(super) fn begin(&self, config: &Config) -> Tenure {
        let life = self.begun.fetch_add(1, Relaxed) + 1;
        let is_free = |index: &usize| {
            let writer = &self.part(*index, config).writer;
            // what the one before has counted is seen by the next
            writer.compare_exchange(0, life, Acquire, Relaxed).is_ok()
        };
        let index = (0..WORKER_LIVES_MAX).find(is_free).unwrap_or_else(|| {
            let writer = |index: usize| &self.part(index, config).writer;
            let oldest = (0..WORKER_LIVES_MAX).min_by_key(|index| writer(*index).load(Relaxed)).unwrap_or_default();
            writer(oldest).store(life, Relaxed);
            oldest
        });
        let memory = Arc::clone(self.part(index, config));
        memory.reset_gauges();
        self.current.store(index, Relaxed);
        Tenure { memory, life }
    }

    /// That of the life that has begun last.
    pub(super) fn current(&self) -> &WorkerStats {
        self.parts[self.current.load(Relaxed)]
            .get()
            .expect("a life begins with its part, and the first part is always there")
    }

    /// All lives.
    pub(super) fn lives(&self) -> impl Iterator<Item = &WorkerStats> {
        self.parts.iter().filter_map(|part| part.get().map(Arc::as_ref))
    }
}

impl Tenure {
    /// The memory; `None` when it is another's by now.
    #[inline]
    pub(crate) fn memory(&self) -> Option<&WorkerStats> {
        // Relaxed: whoever stalled long enough to be replaced several times sees it by now
        (self.memory.writer.load(Relaxed) == self.life).then_some(&self.memory)
    }

    /// The same right once more, for somebody who outlives the worker.
    #[must_use]
    pub(crate) fn copy(&self) -> Self {
        Self { memory: Arc::clone(&self.memory), life: self.life }
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        if let Some(memory) = self.memory() {
            memory.reset_gauges();
            let _ = memory.writer.compare_exchange(self.life, 0, Release, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::fixture;

    #[test]
    fn lives_that_go_on_at_once_have_memory_of_their_own_and_leave_it_to_later_ones() {
        let config = fixture::config();
        let worker = WorkerMemory::new(&config);
        let count = |tenure: &Tenure| tenure.memory().unwrap().requests_other.add(1);
        let sum = || worker.lives().map(|life| life.requests_other.get()).sum::<u64>();
        let first = worker.begin(&config);
        count(&first);
        let second = worker.begin(&config);
        count(&first);
        count(&second);
        assert_eq!((worker.lives().count(), worker.current().requests_other.get(), sum()), (2, 1, 3));
        drop(first.copy());
        assert!(first.memory().is_none(), "one copy is enough");
        let third = worker.begin(&config);
        drop(first);
        count(&third);
        assert_eq!((worker.lives().count(), worker.current().requests_other.get(), sum()), (2, 3, 4));
    }

    #[test]
    fn gauges_end_with_a_life_and_counters_do_not() {
        let config = fixture::config();
        let worker = WorkerMemory::new(&config);
        let tenure = worker.begin(&config);
        let listener = &tenure.memory().unwrap().listeners[0];
        listener.accepted.add(1);
        listener.connections.add(1);
        drop(tenure);
        let listener = &worker.current().listeners[0];
        assert_eq!((listener.accepted.get(), listener.connections.get()), (1, 0));
    }

    #[test]
    fn the_oldest_life_falls_silent_when_there_are_too_many() {
        let config = fixture::config();
        let worker = WorkerMemory::new(&config);
        let lives: Vec<_> = (0..=WORKER_LIVES_MAX).map(|_| worker.begin(&config)).collect();
        assert_eq!(worker.lives().count(), WORKER_LIVES_MAX);
        let is_heard: Vec<_> = lives.iter().map(|life| life.memory().is_some()).collect();
        assert!(!is_heard[0] && is_heard[1..].iter().all(|heard| *heard), "{is_heard:?}");
    }
}
