//! Slots: how many requests may be in flight at once over all workers (`max_concurrent` of a route, `max_requests` of an endpoint).
//!
//! Intuition: the limit is a heap of slots. A request takes one and puts it back. At large limits a worker takes a handful at once and
//! keeps a few spare ones, so that most requests touch no memory that other workers write.
//!
//! A slot is in the shared heap, spare with one worker, or in use; they never grow in number, so the limit is never exceeded.
//! What spare slots cost: a worker may be refused while others hold spare ones. All together hold at most 1/[`SPARE_SHARE`] of the
//! limit spare, so nobody is refused below 98.4 % of it; below [`SPARE_SHARE`] × workers × 2 slots, where that would be less than two
//! a worker, nothing is held spare and the limit is exact both ways: one atomic operation each to take and to put back.
//!
//! A limit that changes ([`SharedSlots::resize`]) keeps who is there: when it falls below that, the heap owes slots, and nobody gets one until
//! as many have been put back.
//!
//! It does not queue: who finds no slot is rejected.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

/// The part of a limit that workers may hold spare, together.
pub const SPARE_SHARE: u32 = 64;

/// No limit: slots are only counted, so that a limit which comes later knows who is there. None is held spare: with a part of this, spare
/// slots alone would be more than any other limit.
pub const UNLIMITED: u32 = u32::MAX;

/// The slots that no worker holds. Shared by all workers; one cache line.
#[derive(Debug)]
#[repr(align(128))]
pub struct SharedSlots {
    /// Below zero: what a limit that was lowered owes.
    free: AtomicI64,
    limit: AtomicU32,
    /// Spare slots that one worker may hold; 0: none.
    spare_max: AtomicU32,
    workers: u32,
}

impl SharedSlots {
    /// `limit` slots for `workers` workers.
    #[must_use]
    pub fn new(limit: u32, workers: usize) -> Self {
        let workers = u32::try_from(workers.max(1)).unwrap_or(u32::MAX);
        Self {
            free: AtomicI64::new(i64::from(limit)),
            limit: AtomicU32::new(limit),
            spare_max: AtomicU32::new(spare_max(limit, workers)),
            workers,
        }
    }

    /// Changes the limit. Who holds a slot keeps it.
    pub fn resize(&self, limit: u32) {
        let before = self.limit.swap(limit, Ordering::Relaxed);
        self.spare_max.store(spare_max(limit, self.workers), Ordering::Relaxed);
        self.free.fetch_add(i64::from(limit) - i64::from(before), Ordering::Release);
    }

    /// Slots in all.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Slots in use or spare with a worker; more than [`SharedSlots::limit`] only after that was lowered.
    #[must_use]
    pub fn held(&self) -> u32 {
        let held = i64::from(self.limit()) - self.free.load(Ordering::Relaxed);
        u32::try_from(held.max(0)).unwrap_or(u32::MAX)
    }

    fn spare_max(&self) -> u32 {
        self.spare_max.load(Ordering::Relaxed)
    }

    /// Takes up to `wanted`, as many as there are.
    fn take_up_to(&self, wanted: u32) -> u32 {
        let mut free = self.free.load(Ordering::Relaxed);
        loop {
            let taken = free.min(i64::from(wanted));
            if taken <= 0 {
                return 0;
            }
            // Acquire and release: what a request did before it put its slot back is before what the slot's next one does.
            match self.free.compare_exchange_weak(free, free - taken, Ordering::Acquire, Ordering::Relaxed) {
                // at most what was wanted
                Ok(_) => return taken as u32,
                Err(seen) => free = seen,
            }
        }
    }

    fn put_back(&self, count: u32) {
        self.free.fetch_add(i64::from(count), Ordering::Release);
    }
}

/// Spare slots that one of so many workers may hold.
fn spare_max(limit: u32, workers: u32) -> u32 {
    match limit / SPARE_SHARE / workers {
        1 => 0,
        _ if limit == UNLIMITED => 0,
        spare => spare,
    }
}

/// One worker's hand in the slots. Dropping it puts back all that it holds, in use or not: with the worker its requests end too.
#[derive(Debug)]
pub struct LocalSlots {
    shared: Arc<SharedSlots>,
    spare: u32,
    in_use: u32,
    /// Nothing is taken any more, and what comes back is put back at once.
    retired: bool,
}

impl LocalSlots {
    /// A hand that holds nothing yet.
    #[must_use]
    pub fn new(shared: Arc<SharedSlots>) -> Self {
        Self { shared, spare: 0, in_use: 0, retired: false }
    }

    /// Takes a slot; `false`: there is none. Each one taken is [released](LocalSlots::release) once.
    #[must_use]
    pub fn acquire(&mut self) -> bool {
        if self.spare == 0 {
            // Half of what may be held: the next release need not put anything back.
            self.spare = self.shared.take_up_to((self.shared.spare_max() / 2).max(1));
            if self.spare == 0 {
                return false;
            }
        }
        self.spare -= 1;
        self.in_use += 1;
        true
    }

    /// Puts a slot back.
    ///
    /// # Panics
    /// When none is taken: a slot released twice would let the limit be exceeded.
    pub fn release(&mut self) {
        self.in_use = self.in_use.checked_sub(1).expect("each slot is released once");
        self.spare += 1;
        let spare_max = if self.retired { 0 } else { self.shared.spare_max() };
        if self.spare > spare_max {
            // Down to half, so that the next acquire finds one.
            let back = self.spare - spare_max / 2;
            self.spare -= back;
            self.shared.put_back(back);
        }
    }

    /// Puts the spare ones back, and from now on each as it is released: another hand takes the slots of what comes.
    pub fn retire(&mut self) {
        self.retired = true;
        let spare = std::mem::take(&mut self.spare);
        if spare > 0 {
            self.shared.put_back(spare);
        }
    }

    /// Puts back what is spare beyond what a limit that was lowered allows; to be called once that has been.
    pub fn settle(&mut self) {
        if self.spare > self.shared.spare_max() {
            self.shared.put_back(std::mem::take(&mut self.spare));
        }
    }

    /// Slots that this worker's requests hold.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        self.in_use
    }

    /// The slots of all workers.
    #[must_use]
    pub fn shared(&self) -> &Arc<SharedSlots> {
        &self.shared
    }
}

impl Drop for LocalSlots {
    fn drop(&mut self) {
        let all = self.spare + self.in_use;
        if all > 0 {
            self.shared.put_back(all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Rng;
    use rand::{RngExt as _, SeedableRng as _};
    use std::sync::atomic::AtomicI64;

    fn hands(limit: u32, workers: usize) -> Vec<LocalSlots> {
        let shared = Arc::new(SharedSlots::new(limit, workers));
        (0..workers).map(|_| LocalSlots::new(Arc::clone(&shared))).collect()
    }

    #[test]
    fn a_small_limit_is_exact_whichever_worker_asks() {
        let mut hands = hands(3, 4);
        assert!(hands[0].acquire() && hands[1].acquire() && hands[0].acquire());
        assert!(!hands[2].acquire() && !hands[0].acquire());
        hands[1].release();
        assert!(hands[3].acquire(), "a slot is back at once for every worker");
        assert!(!hands[1].acquire());
    }

    #[test]
    fn a_limit_of_zero_admits_nothing() {
        assert!(!hands(0, 2)[0].acquire());
    }

    #[test]
    fn at_large_limits_nobody_is_refused_below_the_limit_less_its_spare_share() {
        for seed in 0..64 {
            let mut rng = Rng::seed_from_u64(seed);
            let (limit, workers) = (rng.random_range(1..20_000), rng.random_range(1..9));
            let mut hands = hands(limit, workers);
            let mut in_flight = 0_u32;
            for _ in 0..40_000 {
                // Mostly arrivals in the first half, so that the limit is met.
                let hand = &mut hands[rng.random_range(0..workers)];
                if rng.random_ratio(3, 5) {
                    let admitted = hand.acquire();
                    assert!(!admitted || in_flight < limit, "seed {seed}");
                    assert!(
                        admitted || in_flight >= limit - limit / SPARE_SHARE,
                        "seed {seed}: refused at {in_flight} of {limit}"
                    );
                    in_flight += u32::from(admitted);
                } else if hand.in_use() > 0 {
                    hand.release();
                    in_flight -= 1;
                }
                assert_eq!(hands.iter().map(LocalSlots::in_use).sum::<u32>(), in_flight);
            }
            let shared = Arc::clone(&hands[0].shared);
            assert!(shared.held() >= in_flight && shared.held() - in_flight <= limit / SPARE_SHARE, "seed {seed}");
            drop(hands);
            assert_eq!(shared.held(), 0, "a worker that ends puts everything back");
        }
    }

    #[test]
    fn a_worker_with_a_steady_load_leaves_the_shared_count_alone() {
        let mut hands = hands(10_000, 2);
        assert!(hands[0].acquire());
        let held = hands[0].shared().held();
        for _ in 0..1_000 {
            assert!(hands[0].acquire());
            hands[0].release();
            assert_eq!(hands[0].shared().held(), held);
        }
    }

    #[test]
    #[should_panic(expected = "each slot is released once")]
    fn releasing_what_was_not_taken_is_a_defect() {
        hands(1, 1)[0].release();
    }

    #[test]
    fn threads_never_have_more_in_flight_than_the_limit() {
        for limit in [1, 7, 1_000] {
            let in_flight = AtomicI64::new(0);
            let hands = hands(limit, 4);
            let shared = Arc::clone(&hands[0].shared);
            std::thread::scope(|scope| {
                for (thread, mut hand) in hands.into_iter().enumerate() {
                    let in_flight = &in_flight;
                    scope.spawn(move || {
                        let mut rng = Rng::seed_from_u64(thread as u64);
                        for _ in 0..50_000 {
                            if rng.random_ratio(3, 5) && hand.acquire() {
                                let now = in_flight.fetch_add(1, Ordering::Relaxed) + 1;
                                assert!(now <= i64::from(limit), "{now} of {limit}");
                            } else if hand.in_use() > 0 {
                                in_flight.fetch_sub(1, Ordering::Relaxed);
                                hand.release();
                            }
                        }
                        in_flight.fetch_sub(i64::from(hand.in_use()), Ordering::Relaxed);
                    });
                }
            });
            assert_eq!(shared.held(), 0);
        }
    }

    #[test]
    fn a_limit_that_changes_keeps_who_is_there() {
        let shared = Arc::new(SharedSlots::new(4, 1));
        let (mut old, mut new) = (LocalSlots::new(Arc::clone(&shared)), LocalSlots::new(Arc::clone(&shared)));
        assert!((0..4).all(|_| old.acquire()) && !old.acquire());
        shared.resize(2);
        old.retire();
        assert_eq!((shared.held(), shared.limit()), (4, 2));
        for free in [false, false, true] {
            old.release();
            assert_eq!(new.acquire(), free, "two are owed first");
        }
        shared.resize(5);
        assert!((0..3).all(|_| new.acquire()) && !new.acquire(), "one is still of the old hand");
        drop((old, new));
        assert_eq!((shared.held(), shared.limit()), (0, 5), "nothing is lost");
    }

    #[test]
    fn a_limit_that_is_lowered_is_met_by_a_hand_with_spare_slots() {
        let shared = Arc::new(SharedSlots::new(12_800, 1));
        let mut hand = LocalSlots::new(Arc::clone(&shared));
        assert!(hand.acquire() && shared.held() > 50);
        shared.resize(3);
        hand.settle();
        assert_eq!((0..9).filter(|_| hand.acquire()).count(), 2, "one was in use");
    }

    #[test]
    fn a_limit_that_comes_counts_who_is_there() {
        let shared = Arc::new(SharedSlots::new(UNLIMITED, 2));
        let mut hands = [(); 2].map(|()| LocalSlots::new(Arc::clone(&shared)));
        assert!((0..5).all(|turn| hands[turn % 2].acquire()));
        assert_eq!(shared.held(), 5);
        shared.resize(6);
        hands.iter_mut().for_each(LocalSlots::settle);
        assert!(hands[0].acquire() && !hands[1].acquire());
        shared.resize(UNLIMITED);
        assert!((0..1_000).all(|_| hands[1].acquire()), "and is gone with it");
        drop(hands);
        assert_eq!(shared.held(), 0);
    }

    #[test]
    fn a_hand_that_retires_keeps_nothing_spare() {
        let shared = Arc::new(SharedSlots::new(10_000, 1));
        let mut hand = LocalSlots::new(Arc::clone(&shared));
        assert!(hand.acquire() && hand.acquire());
        assert!(shared.held() > 2, "it takes a handful");
        hand.retire();
        assert_eq!(shared.held(), 2);
        hand.release();
        assert_eq!(shared.held(), 1);
    }
}
