//! The retry budget of a cluster: retries that its traffic has paid for.
//!
//! Each request deposits `ratio` of a retry, each retry withdraws one; both count for ten seconds (ten buckets of one). Beside
//! that, `min_per_second` is always there, so that quiet clusters may retry at all. A service that fails altogether thus gets
//! 20 % more requests, not three times as many. Unlike a limit on retries in flight, retries that wait in
//! a backoff are counted too. The model is Finagle's RetryBudget (deposits and withdrawals over a window); the figures are
//! those of the Gateway API's GEP-3388. Integers only: a thousandth of a retry is the unit.
//!
//! There is one [`Account`] for all workers, so a budget means the same whatever their number. What requests deposit a worker collects
//! and hands in when it is worth a retry, at most every [`LEASE`], or when it wants to withdraw; a withdrawal is one compare-and-swap,
//! made only when something has failed. What a worker has not handed in, less than a retry, counts from when it is. Two workers that cross the end of a second at the same moment may together take one retry too
//! many; nothing else is inexact.

use crate::config::RetryBudget;
use crate::limits::LEASE;
use crate::units::Instant;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const BUCKETS: usize = 10;
const BUCKET: Duration = Duration::from_secs(1);
/// One retry.
const RETRY: i64 = 1_000;

/// The account of one cluster, which all workers share.
#[derive(Debug)]
#[repr(align(128))]
pub struct Account {
    /// Deposits less withdrawals of each second, with the low bits of the second.
    buckets: [AtomicU64; BUCKETS],
    deposit: i64,
    reserve: i64,
}

/// A bucket's word: 24 bits of its second, 40 of what was put in less what was taken out.
const AMOUNT_BITS: u32 = 40;
const AMOUNT_MAX: i64 = (1 << (AMOUNT_BITS - 1)) - 1;
const TICK_MASK: u64 = (1 << (u64::BITS - AMOUNT_BITS)) - 1;

fn word(tick: u64, amount: i64) -> u64 {
    let amount = amount.clamp(-AMOUNT_MAX, AMOUNT_MAX) as u64 & ((1 << AMOUNT_BITS) - 1);
    (tick & TICK_MASK) << AMOUNT_BITS | amount
}

fn amount(word: u64) -> i64 {
    // shifted up and down again, so that the sign is kept
    (word << (u64::BITS - AMOUNT_BITS)) as i64 >> (u64::BITS - AMOUNT_BITS)
}

impl Account {
    /// Nothing deposited yet.
    #[must_use]
    pub fn new(config: &RetryBudget) -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            deposit: (config.ratio.get() * RETRY as f64).round() as i64,
            reserve: i64::from(config.min_per_second) * (BUCKETS as u64 * BUCKET.as_secs()) as i64 * RETRY,
        }
    }

    /// Whole retries that would be granted now, but for what workers have not handed in.
    #[must_use]
    pub fn balance(&self, now: Instant) -> u64 {
        (self.sum(tick_of(now)) / RETRY).max(0) as u64
    }

    fn sum(&self, tick: u64) -> i64 {
        let words = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        let recent = |word: &u64| tick.wrapping_sub(*word >> AMOUNT_BITS) & TICK_MASK < BUCKETS as u64;
        self.reserve + words.filter(recent).map(amount).sum::<i64>()
    }

    fn add(&self, more: i64, tick: u64) {
        let add = |old: u64| Some(word(tick, Self::of_tick(old, tick) + more));
        // the closure always returns a value
        let _ = self.bucket(tick).fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    fn withdraw(&self, tick: u64) -> bool {
        let bucket = self.bucket(tick);
        let take = |old: u64| (self.sum(tick) >= RETRY).then(|| word(tick, Self::of_tick(old, tick) - RETRY));
        bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn bucket(&self, tick: u64) -> &AtomicU64 {
        &self.buckets[(tick % BUCKETS as u64) as usize]
    }

    /// What a bucket holds of second `tick`.
    fn of_tick(word: u64, tick: u64) -> i64 {
        if word >> AMOUNT_BITS == tick & TICK_MASK { amount(word) } else { 0 }
    }
}

fn tick_of(now: Instant) -> u64 {
    now.as_nanos() / BUCKET.as_nanos() as u64
}

/// One worker's hand in the account.
#[derive(Clone, Debug)]
pub struct Budget {
    account: Arc<Account>,
    /// Deposits not handed in.
    collected: i64,
    handed_in: Instant,
    /// What [`Budget::covers`] found in the account last, in thousandths of a retry, and when.
    seen: (i64, Instant),
}

impl Budget {
    /// A hand that holds nothing.
    #[must_use]
    pub fn new(account: Arc<Account>) -> Self {
        let zero = Instant::default();
        Self { account, collected: 0, handed_in: zero, seen: (0, zero) }
    }

    /// A request came (not its retries).
    pub fn deposit(&mut self, now: Instant) {
        self.collected += self.account.deposit;
        if self.collected >= RETRY && now.since(self.handed_in) >= LEASE {
            self.hand_in(now);
        }
    }

    /// Whether [`Budget::withdraw`] would grant so many retries, as of a few milliseconds ago: for those who plan, not for those who pay.
    #[must_use]
    pub fn covers(&mut self, retries: usize, now: Instant) -> bool {
        let (_, at) = self.seen;
        if at == Instant::default() || now < at || now.since(at) >= LEASE {
            self.seen = (self.account.sum(tick_of(now)), now);
        }
        let wanted = i64::try_from(retries).unwrap_or(i64::MAX).saturating_mul(RETRY);
        self.seen.0 + self.collected >= wanted
    }

    /// Pays for a retry; false, and nothing is paid, when the balance does not cover it.
    #[must_use]
    pub fn withdraw(&mut self, now: Instant) -> bool {
        self.hand_in(now);
        let granted = self.account.withdraw(tick_of(now));
        self.seen = (self.account.sum(tick_of(now)), now);
        granted
    }

    /// Takes a retry on credit, for an attempt that was cut short while the budget seemed to cover it. Nothing more is covered
    /// until deposits, or time, have paid for it.
    pub fn owe(&mut self, now: Instant) {
        self.account.add(-RETRY, tick_of(now));
        self.seen = (self.account.sum(tick_of(now)), now);
    }

    /// Returns what was withdrawn for a retry that is not made after all.
    pub fn refund(&mut self, now: Instant) {
        self.account.add(RETRY, tick_of(now));
        self.seen.0 += RETRY;
    }

    fn hand_in(&mut self, now: Instant) {
        if self.collected > 0 {
            let collected = std::mem::take(&mut self.collected);
            self.account.add(collected, tick_of(now));
            self.seen.0 += collected;
            self.handed_in = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::at;
    use crate::units::Ratio;

    fn budget(ratio: f64, min_per_second: u32) -> Budget {
        let config = RetryBudget { ratio: Ratio::try_new(ratio).unwrap(), min_per_second };
        Budget::new(Arc::new(Account::new(&config)))
    }

    fn granted(budget: &mut Budget, now: Instant) -> usize {
        (0..1_000_000).take_while(|_| budget.withdraw(now)).count()
    }

    #[test]
    fn a_fifth_of_the_requests_may_be_retried() {
        let mut b = budget(0.2, 0);
        assert_eq!(granted(&mut b, at(0)), 0);
        (0..1_000).for_each(|i| b.deposit(at(i)));
        assert!(b.covers(1, at(1_000)));
        assert_eq!(granted(&mut b, at(1_000)), 200);
        assert!(!b.covers(1, at(1_000)));
    }

    #[test]
    fn the_floor_is_there_without_traffic_and_refills_with_the_window() {
        let mut b = budget(0.2, 3);
        assert_eq!(granted(&mut b, at(500)), 30);
        assert_eq!(granted(&mut b, at(9_999)), 0);
        assert_eq!(granted(&mut b, at(10_000)), 30);
    }

    #[test]
    fn it_means_the_same_whatever_the_number_of_workers() {
        for workers in [1, 2, 16, 512] {
            let first = budget(0.2, 3);
            let mut hands = vec![first; workers];
            (0..1_000).for_each(|i| hands[i % workers].deposit(at(i as u64)));
            hands.iter_mut().for_each(|hand| hand.hand_in(at(1_000)));
            let granted: usize = hands.iter_mut().map(|hand| granted(hand, at(1_000))).sum();
            assert_eq!(granted, 230, "{workers} workers");
        }
    }

    #[test]
    fn what_a_worker_has_collected_is_worth_something_to_others_within_a_lease() {
        let mut first = budget(0.2, 0);
        let mut second = first.clone();
        (0..5).for_each(|_| first.deposit(at(10_000)));
        assert!(second.withdraw(at(10_000)), "the first retry is handed in at once");
        (0..5).for_each(|_| first.deposit(at(10_001)));
        assert!(!second.withdraw(at(10_001)), "the next waits for its time …");
        first.deposit(at(10_000) + LEASE);
        assert!(second.withdraw(at(10_000) + LEASE), "… which has come");
    }

    #[test]
    fn several_threads_never_get_more_than_there_is() {
        let account =
            Arc::new(Account::new(&RetryBudget { ratio: Ratio::try_new(0.0).unwrap(), min_per_second: 1_000 }));
        let granted: usize = std::thread::scope(|scope| {
            let hands: Vec<_> = (0..4)
                .map(|_| {
                    let mut hand = Budget::new(Arc::clone(&account));
                    scope.spawn(move || granted(&mut hand, at(7)))
                })
                .collect();
            hands.into_iter().map(|hand| hand.join().unwrap()).sum()
        });
        assert_eq!((granted, account.balance(at(7))), (10_000, 0));
    }

    #[test]
    fn deposits_expire_after_ten_seconds() {
        let mut b = budget(1.0, 0);
        b.deposit(at(1_000));
        assert!(b.covers(1, at(1_000)));
        b.hand_in(at(1_000));
        assert_eq!(b.account.balance(at(10_999)), 1);
        assert!(!b.covers(1, at(11_000)));
        b.deposit(at(1_000_000));
        assert_eq!(granted(&mut b, at(1_000_001)), 1);
    }

    #[test]
    fn a_refund_can_be_spent_again() {
        let mut b = budget(0.0, 1);
        assert_eq!(granted(&mut b, at(5)), 10);
        b.refund(at(6));
        assert!(b.covers(1, at(6)));
        assert_eq!(granted(&mut b, at(6)), 1);
    }

    #[test]
    fn a_word_keeps_its_sign_and_stops_at_its_bounds() {
        for value in [0, 1, -1, AMOUNT_MAX, -AMOUNT_MAX] {
            assert_eq!(amount(word(TICK_MASK + 5, value)), value);
        }
        assert_eq!(amount(word(1, i64::MAX)), AMOUNT_MAX);
    }
}
