//! The retry budget of a cluster: retries that its traffic has paid for.
//!
//! Each request deposits `ratio` of a retry, each retry withdraws one; both count for ten seconds (ten buckets of one). Beside
//! that, `min_per_second` is always there, so that quiet clusters may retry at all. A service that fails altogether thus gets
//! 20 % more requests, not three times as many. Unlike a limit on retries in flight, retries that wait in
//! a backoff are counted too. The model is Finagle's RetryBudget (deposits and withdrawals over a window); the figures are
//! those of the Gateway API's GEP-3388. Integers only: a thousandth of a retry is the unit.

use crate::config::RetryBudget;
use crate::units::Instant;
use std::time::Duration;

const BUCKETS: usize = 10;
const BUCKET: Duration = Duration::from_secs(1);
/// One retry.
const RETRY: i64 = 1_000;

/// The account of one cluster on one worker.
#[derive(Clone, Debug)]
pub struct Budget {
    deposit: i64,
    reserve: i64,
    /// Deposits less withdrawals of each second.
    buckets: [i64; BUCKETS],
    sum: i64,
    tick: u64,
}

impl Budget {
    /// This worker's part of a cluster's budget: the floor is divided among `workers` (rounded up to a whole retry per window), deposits
    /// come with the requests.
    #[must_use]
    pub fn new(config: &RetryBudget, workers: usize) -> Self {
        let window_secs = BUCKETS as u64 * BUCKET.as_secs();
        let reserve = (u64::from(config.min_per_second) * window_secs).div_ceil(workers.max(1) as u64);
        Self {
            deposit: (config.ratio.get() * RETRY as f64).round() as i64,
            reserve: reserve as i64 * RETRY,
            buckets: [0; BUCKETS],
            sum: 0,
            tick: 0,
        }
    }

    /// A request came (not its retries).
    pub fn deposit(&mut self, now: Instant) {
        self.add(self.deposit, now);
    }

    /// Whether [`Budget::withdraw`] would grant a retry now.
    #[must_use]
    pub fn covers_retry(&mut self, now: Instant) -> bool {
        self.turn(now);
        self.sum + self.reserve >= RETRY
    }

    /// Pays for a retry; false, and nothing is paid, when the balance does not cover it.
    #[must_use]
    pub fn withdraw(&mut self, now: Instant) -> bool {
        let covered = self.covers_retry(now);
        if covered {
            self.add(-RETRY, now);
        }
        covered
    }

    /// Returns what was withdrawn for a retry that is not made after all.
    pub fn refund(&mut self, now: Instant) {
        self.add(RETRY, now);
    }

    /// Whole retries that would be granted now.
    #[must_use]
    pub fn balance(&mut self, now: Instant) -> u64 {
        self.turn(now);
        ((self.sum + self.reserve) / RETRY).max(0) as u64
    }

    fn add(&mut self, amount: i64, now: Instant) {
        self.turn(now);
        self.buckets[(self.tick % BUCKETS as u64) as usize] += amount;
        self.sum += amount;
    }

    /// Forgets what is older than the window.
    fn turn(&mut self, now: Instant) {
        let tick = now.as_nanos() / BUCKET.as_nanos() as u64;
        let passed = tick.saturating_sub(self.tick).min(BUCKETS as u64);
        for back in 0..passed {
            let bucket = &mut self.buckets[((tick - back) % BUCKETS as u64) as usize];
            self.sum -= *bucket;
            *bucket = 0;
        }
        self.tick = self.tick.max(tick);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Ratio;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(0) + Duration::from_millis(millis)
    }

    fn budget(ratio: f64, min_per_second: u32, workers: usize) -> Budget {
        Budget::new(&RetryBudget { ratio: Ratio::try_new(ratio).unwrap(), min_per_second }, workers)
    }

    fn granted(budget: &mut Budget, now: Instant) -> usize {
        (0..1_000_000).take_while(|_| budget.withdraw(now)).count()
    }

    #[test]
    fn a_fifth_of_the_requests_may_be_retried() {
        let mut b = budget(0.2, 0, 1);
        assert_eq!(granted(&mut b, at(0)), 0);
        (0..1_000).for_each(|i| b.deposit(at(i)));
        assert_eq!(b.balance(at(1_000)), 200);
        assert_eq!(granted(&mut b, at(1_000)), 200);
        assert_eq!(granted(&mut b, at(1_000)), 0);
    }

    #[test]
    fn the_floor_is_there_without_traffic_and_refills_with_the_window() {
        let mut b = budget(0.2, 3, 1);
        assert_eq!(granted(&mut b, at(500)), 30);
        assert_eq!(granted(&mut b, at(9_999)), 0);
        assert_eq!(granted(&mut b, at(10_000)), 30);
    }

    #[test]
    fn workers_share_the_floor_and_none_is_left_without() {
        assert_eq!(granted(&mut budget(0.2, 3, 2), at(0)), 15);
        assert_eq!(granted(&mut budget(0.2, 3, 64), at(0)), 1);
        assert_eq!(granted(&mut budget(0.2, 0, 64), at(0)), 0);
    }

    #[test]
    fn deposits_expire_after_ten_seconds() {
        let mut b = budget(1.0, 0, 1);
        b.deposit(at(0));
        assert!(b.covers_retry(at(9_999)));
        assert!(!b.covers_retry(at(10_000)));
        b.deposit(at(1_000_000));
        assert_eq!(granted(&mut b, at(1_000_001)), 1);
    }

    #[test]
    fn a_clock_that_stands_still_or_turns_back_changes_nothing() {
        let mut b = budget(1.0, 0, 1);
        b.deposit(at(5_000));
        b.deposit(at(3_000));
        assert_eq!(granted(&mut b, at(4_000)), 2);
    }
}
