//! Whether to sleep until something is due, or to look at the clock until then.
//!
//! A sleep is not free: a timer is set, the core stops and starts again, and on a virtual machine each of these may be the hypervisor's work. Some
//! 30 µs of CPU time and of lateness were seen on one, and 3 µs are usual without. To sleep for less than a sleep costs wastes time twice. What it
//! costs, and how late it ends, is learned of every sleep, so it also falls where others run meanwhile: a core that never stops starts at once, and
//! they are given it.

use crate::units::Moment;

/// What may be believed of a sleep, in nanoseconds: nobody spins longer.
const BELIEVED_MAX: u64 = 50_000;
/// An estimate moves by so much, in nanoseconds, towards what was seen: so it comes to stand at the median, whatever single sleeps take.
const STEP: u64 = 500;
/// Who would always spin sleeps once in so many nanoseconds all the same, to learn what it costs now.
const LESSON: u64 = 10_000_000;
/// Of its time a real-time thread sleeps one part in so many: one that takes 95 % of a second is stopped for the rest of it (sched(7)), and some of
/// the time of a sleep is CPU time.
const SLEPT_SHARE: u64 = 5;

/// How to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nap {
    /// Look at the clock until then.
    Spin,
    /// Sleep for so many nanoseconds, which is a little less than there is time.
    Sleep(u64),
}

/// What sleeps of this thread cost.
#[derive(Clone, Debug)]
pub(super) struct Naps {
    /// Median of the CPU time of a sleep, in nanoseconds.
    cost: u64,
    /// Median of the time by which it ends too late, in nanoseconds.
    late: u64,
    is_realtime: bool,
    since: Moment,
    /// Nanoseconds, from `since` on.
    slept: u64,
    last: Moment,
}

impl Naps {
    pub(super) fn new(is_realtime: bool, now: Moment) -> Self {
        Self { cost: 0, late: 0, is_realtime, since: now, slept: 0, last: now }
    }

    /// How to wait at `now` for what is due in `left` nanoseconds.
    pub(super) fn choose(&self, now: Moment, left: u64) -> Nap {
        let is_awake = self.is_realtime && self.slept < now.since(self.since) / SLEPT_SHARE;
        if left <= self.cost && !is_awake && now.since(self.last) < LESSON {
            return Nap::Spin;
        }
        // what is left then is less than a sleep costs
        Nap::Sleep(left.saturating_sub(self.late.min(self.cost)).max(1))
    }

    /// A sleep has ended at `now` that took `took` and `cpu` nanoseconds, and has ended `late` nanoseconds after it should where nothing else ended it.
    pub(super) fn learn(&mut self, now: Moment, took: u64, cpu: u64, late: Option<u64>) {
        (self.slept, self.last) = (self.slept + took, now);
        self.cost = towards(self.cost, cpu);
        if let Some(late) = late {
            self.late = towards(self.late, late);
        }
    }
}

fn towards(estimate: u64, seen: u64) -> u64 {
    if seen > estimate { (estimate + STEP).min(BELIEVED_MAX) } else { estimate.saturating_sub(STEP) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// One that has seen sleeps of such a cost and lateness until just before `now`.
    fn taught(is_realtime: bool, cost: u64, late: u64, now: Moment) -> Naps {
        let mut naps = Naps::new(is_realtime, Moment(0));
        for _ in 0..1_000 {
            naps.learn(now, now.0 / 1_000, cost, Some(late));
        }
        naps
    }

    #[test]
    fn it_sleeps_until_it_knows_what_that_costs() {
        let naps = Naps::new(false, Moment(0));
        assert_eq!(naps.choose(Moment(5), 700), Nap::Sleep(700));
    }

    #[test]
    fn what_is_shorter_than_a_sleep_costs_is_spun_away() {
        let now = Moment(100 * MS);
        let naps = taught(false, 28_200, 31_300, now);
        assert_eq!(naps.choose(now, 27_000), Nap::Spin);
        let Nap::Sleep(time) = naps.choose(now, 90_000) else { panic!("it spins") };
        assert!((61_000..=63_000).contains(&time), "{time}: it ends too early by no more than a sleep costs");
    }

    #[test]
    fn a_few_long_sleeps_teach_nothing() {
        let now = Moment(100 * MS);
        let mut naps = taught(false, 3_200, 5_000, now);
        for row in 0..100 {
            naps.learn(now, 5_000, if row % 4 == 0 { 10 * MS } else { 3_100 }, None);
        }
        assert!(naps.cost < 4_000, "{}", naps.cost);
    }

    #[test]
    fn where_sleeps_have_become_cheap_it_sleeps_again() {
        let mut now = Moment(100 * MS);
        let mut naps = taught(false, 28_000, 30_000, now);
        let mut lessons = 0;
        for _ in 0..200_000 {
            now = Moment(now.0 + 10_000);
            if let Nap::Sleep(_) = naps.choose(now, 20_000) {
                lessons += 1;
                naps.learn(now, 20_000, 2_000, Some(9_000));
            }
        }
        assert!(naps.cost <= 2_500, "{} after {lessons} lessons", naps.cost);
    }

    #[test]
    fn a_real_time_thread_sleeps_for_a_part_of_its_time() {
        let mut now = Moment(0);
        let mut naps = taught(true, 40_000, 30_000, now);
        naps.since = now;
        let mut slept = 0;
        while now.0 < 1_000 * MS {
            let took = if matches!(naps.choose(now, 20_000), Nap::Spin) { 20_000 } else { 50_000 };
            now = Moment(now.0 + took);
            if took == 50_000 {
                slept += took;
                naps.learn(now, took, 40_000, Some(30_000));
            }
        }
        assert!((190 * MS..230 * MS).contains(&slept), "{slept} of a second");
    }
}
