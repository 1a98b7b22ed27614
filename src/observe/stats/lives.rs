//! The memory of one worker: that of each of its lives which may go on at once.
//!
//! A worker that is replaced finishes what it has while its successor works, and both count. Memory with two writers loses counts, so each
//! life has memory of its own, sums are over all of them, and what a life leaves goes to a later one once nobody writes it any more:
//! counters go on, gauges begin at zero. A life's memory is its number among all of all workers, its *part*: of each route, endpoint and so
//! on it writes that part ([`super::keys`]).
//!
//! What this does not do: grow. When all of it is in use, the oldest life falls silent; that is somebody who has stalled more than once.

use super::Hub;
use super::cells::{ConsumerStats, LoopStats};
use crate::limits::{self, WORKER_LIVES_MAX};
use crate::observe::counter::{Arena, Counter};
use crate::observe::usage::UsageTable;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock};

/// Consumers whose counters are allocated at a time.
const CONSUMERS_CHUNK: usize = 64;

/// What one life of a worker counts that is about itself, whatever the configuration; no cache line of it is shared with another's.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct LifeStats {
    /// The life that may write; 0: none.
    writer: AtomicU64,
    /// Requests whose counter found no room at their route.
    pub(crate) requests_other: Counter,
    pub(crate) usage: UsageTable,
    /// Those that have labels of their own, and all others together.
    pub(crate) consumers: Arena<ConsumerStats, CONSUMERS_CHUNK>,
    pub(crate) consumers_other: ConsumerStats,
    pub(crate) event_loop: LoopStats,
}

impl LifeStats {
    fn new() -> Self {
        Self {
            writer: AtomicU64::new(0),
            requests_other: Counter::default(),
            usage: UsageTable::new(limits::USAGE_CLIENTS),
            consumers: Arena::new(limits::CONSUMER_LABELS_MAX),
            consumers_other: ConsumerStats::default(),
            event_loop: LoopStats::default(),
        }
    }
}

/// One worker's memory.
#[derive(Debug)]
pub(crate) struct WorkerMemory {
    lives: [OnceLock<Arc<LifeStats>>; WORKER_LIVES_MAX],
    /// Lives that have begun so far.
    begun: AtomicU64,
    /// The one of them that has begun last.
    current: AtomicUsize,
}

/// A life's right to write its part of the memory. The part is given back when one copy of this is dropped: the first.
#[derive(Debug)]
pub struct Tenure {
    hub: Arc<Hub>,
    memory: Arc<LifeStats>,
    /// Among those of all workers.
    pub(super) part: usize,
    life: u64,
}

impl WorkerMemory {
    pub(super) fn new() -> Self {
        let memory = Self {
            lives: [const { OnceLock::new() }; WORKER_LIVES_MAX],
            begun: AtomicU64::new(0),
            current: AtomicUsize::new(0),
        };
        memory.life(0);
        memory
    }

    fn life(&self, index: usize) -> &Arc<LifeStats> {
        self.lives[index].get_or_init(|| Arc::new(LifeStats::new()))
    }

    /// Memory for one more life: which of this worker's, and the number of the life.
    fn begin(&self) -> (usize, u64) {
        let life = self.begun.fetch_add(1, Relaxed) + 1;
        // what the one before has counted is seen by the next
        let is_free = |index: &usize| self.life(*index).writer.compare_exchange(0, life, Acquire, Relaxed).is_ok();
        let index = (0..WORKER_LIVES_MAX).find(is_free).unwrap_or_else(|| {
            let writer = |index: usize| &self.life(index).writer;
            let oldest = (0..WORKER_LIVES_MAX).min_by_key(|index| writer(*index).load(Relaxed)).unwrap_or_default();
            writer(oldest).store(life, Relaxed);
            oldest
        });
        self.current.store(index, Relaxed);
        (index, life)
    }

    /// Which one has begun last.
    pub(super) fn current_index(&self) -> usize {
        self.current.load(Relaxed)
    }

    /// That one.
    pub(super) fn current(&self) -> &LifeStats {
        self.life(self.current_index())
    }

    /// All lives.
    pub(super) fn lives(&self) -> impl Iterator<Item = &LifeStats> {
        self.lives.iter().filter_map(|life| life.get().map(Arc::as_ref))
    }
}

impl Tenure {
    /// Begins a life of `worker`.
    pub(super) fn begin(hub: &Arc<Hub>, worker: usize) -> Self {
        let memory = &hub.workers[worker];
        let (index, life) = memory.begin();
        let (memory, part) = (Arc::clone(memory.life(index)), worker * WORKER_LIVES_MAX + index);
        let tenure = Self { hub: Arc::clone(hub), memory, part, life };
        tenure.reset_gauges();
        tenure
    }

    /// The memory; `None` when it is another's by now.
    #[inline]
    pub(crate) fn memory(&self) -> Option<&LifeStats> {
        // Relaxed: whoever stalled long enough to be replaced several times sees it by now
        (self.memory.writer.load(Relaxed) == self.life).then_some(&self.memory)
    }

    /// The number of the part that it may write of everything else; `None` when that is another's by now.
    #[inline]
    pub(crate) fn part(&self) -> Option<usize> {
        self.memory().map(|_| self.part)
    }

    /// The same right once more, for somebody who outlives the worker.
    #[must_use]
    pub(crate) fn copy(&self) -> Self {
        Self { hub: Arc::clone(&self.hub), memory: Arc::clone(&self.memory), part: self.part, life: self.life }
    }

    fn reset_gauges(&self) {
        self.memory.event_loop.buffers_in_use_bytes.set(0);
        self.memory.event_loop.buffers_kept_bytes.set(0);
        self.hub.keys().reset_gauges(self.part);
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        if self.memory().is_some() {
            self.reset_gauges();
            let _ = self.memory.writer.compare_exchange(self.life, 0, Release, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(hub: &Arc<Hub>) -> Tenure {
        Tenure::begin(hub, 0)
    }

    #[test]
    fn lives_that_go_on_at_once_have_memory_of_their_own_and_leave_it_to_later_ones() {
        let hub = Hub::new(1);
        let worker = &hub.workers[0];
        let count = |tenure: &Tenure| tenure.memory().unwrap().requests_other.add(1);
        let sum = || worker.lives().map(|life| life.requests_other.get()).sum::<u64>();
        let first = begin(&hub);
        count(&first);
        let second = begin(&hub);
        count(&first);
        count(&second);
        assert_eq!((worker.lives().count(), worker.current().requests_other.get(), sum()), (2, 1, 3));
        drop(first.copy());
        assert!(first.memory().is_none(), "one copy is enough");
        let third = begin(&hub);
        drop(first);
        count(&third);
        assert_eq!((worker.lives().count(), worker.current().requests_other.get(), sum()), (2, 3, 4));
    }

    #[test]
    fn the_oldest_life_falls_silent_when_there_are_too_many() {
        let hub = Hub::new(1);
        let lives: Vec<_> = (0..=WORKER_LIVES_MAX).map(|_| begin(&hub)).collect();
        assert_eq!(hub.workers[0].lives().count(), WORKER_LIVES_MAX);
        let is_heard: Vec<_> = lives.iter().map(|life| life.memory().is_some()).collect();
        assert!(!is_heard[0] && is_heard[1..].iter().all(|heard| *heard), "{is_heard:?}");
    }
}
