//! Which check begins next: a pure value that knows places and turns, neither sockets nor clocks.
//!
//! A check holds a place until it is over, and one that hangs holds it for its whole timeout. So that the hanging endpoints of one
//! upstream do not hold up another's checks, half of the places are divided equally among the upstreams and kept for them; the other
//! half is common and goes to whoever has more checks due. Upstreams take turns, and the checks of one upstream begin in the order in
//! which they were due.
//!
//! Intuition: kept places cannot be taken, so an upstream that answers is checked on time whatever the others do, and common ones let
//! an upstream of thousands of endpoints use what the rest leaves. With more upstreams than places nobody can keep one: then each has
//! at most one check under way, and as many of them as there are places must hang at once to make the others wait, for no longer than
//! their timeouts.
//!
//! When: the first check of a target is due at once, the second after a random part of the interval, each later one after the interval
//! give or take 10 %. So neither the endpoints of one gateway nor the gateways before one endpoint march in step, although all of them
//! may have started together.

use crate::units::{Instant, Rng};
use rand::RngExt;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

/// When which target is checked. A target is the row of one endpoint that is checked, counted over all upstreams in their order.
#[derive(Debug)]
pub(super) struct Schedule {
    targets: Vec<Target>,
    upstreams: Vec<Upstream>,
    /// When targets are due that neither wait nor are under way.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Rows of the upstreams that have targets waiting, in the order of their turns.
    turns: VecDeque<usize>,
    /// Places that nobody holds.
    free: usize,
    /// Places among them that are not kept for an upstream.
    common: usize,
}

#[derive(Debug)]
struct Target {
    upstream: usize,
    began: Instant,
    /// Whether its second check is still to come.
    in_step: bool,
}

#[derive(Debug)]
struct Upstream {
    interval: Duration,
    /// Places that are kept for it.
    kept: usize,
    under_way: usize,
    /// Targets that are due, the longest waiting first.
    waiting: VecDeque<usize>,
}

impl Schedule {
    /// For upstreams of such an interval each, by when each of their endpoints was checked last. Those that never were are due at `now`, the
    /// others in their time; `places` checks may be under way at once.
    pub(super) fn new(places: usize, upstreams: &[(Vec<Option<Instant>>, Duration)], now: Instant) -> Self {
        let share = (places / 2 / upstreams.len().max(1)).max(1);
        let checks = upstreams.iter().enumerate().flat_map(|(row, (checked, interval))| {
            checked.iter().map(move |checked| (row, checked.map(|checked| (checked, *interval))))
        });
        let (targets, due): (Vec<_>, Vec<_>) = checks
            .enumerate()
            .map(|(target, (upstream, before))| {
                let at = before.map_or(now, |(checked, interval)| checked + interval);
                (Target { upstream, began: now, in_step: before.is_none() }, Reverse((at, target)))
            })
            .unzip();
        let upstream = |(checked, interval): &(Vec<_>, Duration)| Upstream {
            interval: *interval,
            kept: share.min(checked.len()),
            under_way: 0,
            waiting: VecDeque::new(),
        };
        let upstreams: Vec<_> = upstreams.iter().map(upstream).collect();
        let kept: usize = upstreams.iter().map(|upstream| upstream.kept).sum();
        Self {
            due: due.into_iter().collect(),
            targets,
            upstreams,
            turns: VecDeque::new(),
            free: places,
            common: places.saturating_sub(kept),
        }
    }

    /// When a target is due next. Targets that are due already and wait for a place are not meant: those are asked for with
    /// [`Schedule::begin`] whenever a check has ended.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// The next target whose check begins at `now`, if one is due and has a place, which it holds until [`Schedule::end`].
    pub(super) fn begin(&mut self, now: Instant) -> Option<usize> {
        self.queue_due(now);
        if self.free == 0 {
            return None;
        }
        // who has no place keeps the turn; that is one who holds places, so no more are passed over than there are places
        let turn = self.turns.iter().position(|row| self.has_place(&self.upstreams[*row]))?;
        let row = self.turns.remove(turn)?;
        let upstream = &mut self.upstreams[row];
        let target = upstream.waiting.pop_front().expect("only upstreams with waiting targets have a turn");
        if !upstream.waiting.is_empty() {
            self.turns.push_back(row);
        }
        self.free -= 1;
        self.common -= usize::from(upstream.under_way >= upstream.kept);
        upstream.under_way += 1;
        self.targets[target].began = now;
        Some(target)
    }

    /// The check of `target` is over, and its next one is due in its time; at once, when this one took longer.
    pub(super) fn end(&mut self, target: usize, rng: &mut Rng) {
        let Target { upstream, began, ref mut in_step } = self.targets[target];
        let upstream = &mut self.upstreams[upstream];
        let factor = if std::mem::take(in_step) { rng.random_range(0.0..=1.0) } else { rng.random_range(0.9..=1.1) };
        self.due.push(Reverse((began + upstream.interval.mul_f64(factor), target)));
        upstream.under_way -= 1;
        self.common += usize::from(upstream.under_way >= upstream.kept);
        self.free += 1;
    }

    /// The check of `target` has begun under the schedule before this one, and is under way.
    pub(super) fn resume(&mut self, target: usize) {
        self.due.retain(|Reverse((_, due))| *due != target);
        let upstream = &mut self.upstreams[self.targets[target].upstream];
        self.free = self.free.saturating_sub(1);
        self.common = self.common.saturating_sub(usize::from(upstream.under_way >= upstream.kept));
        upstream.under_way += 1;
    }

    fn queue_due(&mut self, now: Instant) {
        while let Some(Reverse((at, target))) = self.due.peek().copied()
            && at <= now
        {
            self.due.pop();
            let row = self.targets[target].upstream;
            let waiting = &mut self.upstreams[row].waiting;
            if waiting.is_empty() {
                self.turns.push_back(row);
            }
            waiting.push_back(target);
        }
    }

    fn has_place(&self, upstream: &Upstream) -> bool {
        upstream.under_way < upstream.kept || self.common > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use std::collections::HashSet;

    const START: Instant = Instant::from_nanos(1_000_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    /// A schedule with its own view of what is under way.
    struct Bench {
        schedule: Schedule,
        /// Endpoints of each upstream.
        sizes: Vec<usize>,
        places: usize,
        under_way: HashSet<usize>,
        rng: Rng,
    }

    impl Bench {
        fn new(places: usize, sizes: &[usize]) -> Self {
            let rows: Vec<_> = sizes.iter().map(|endpoints| (vec![None; *endpoints], SECOND)).collect();
            let schedule = Schedule::new(places, &rows, START);
            Self { schedule, sizes: sizes.to_vec(), places, under_way: HashSet::new(), rng: Rng::seed_from_u64(7) }
        }

        fn upstream_of(&self, target: usize) -> usize {
            let mut end = 0;
            self.sizes
                .iter()
                .position(|size| {
                    end += size;
                    target < end
                })
                .expect("a target of an upstream")
        }

        /// Begins all that may begin; the upstreams of those that did, in order.
        fn begin(&mut self, now: Instant) -> Vec<usize> {
            let mut begun = Vec::new();
            while let Some(target) = self.schedule.begin(now) {
                assert!(self.under_way.insert(target), "target {target} is checked twice at once");
                assert!(self.under_way.len() <= self.places, "more checks than places");
                begun.push(self.upstream_of(target));
            }
            begun
        }

        fn end(&mut self, target: usize) {
            assert!(self.under_way.remove(&target));
            self.schedule.end(target, &mut self.rng);
        }

        /// Ends all checks of one upstream, the first ones first.
        fn end_all_of(&mut self, upstream: usize) {
            let mut ended: Vec<_> =
                self.under_way.iter().copied().filter(|t| self.upstream_of(*t) == upstream).collect();
            ended.sort_unstable();
            ended.into_iter().for_each(|target| self.end(target));
        }

        fn count(&self, upstream: usize) -> usize {
            self.under_way.iter().filter(|target| self.upstream_of(**target) == upstream).count()
        }
    }

    #[test]
    fn all_are_due_at_once_and_one_upstream_alone_has_every_place() {
        let mut bench = Bench::new(8, &[20]);
        assert_eq!(bench.schedule.next_due(), Some(START));
        assert_eq!(bench.begin(START).len(), 8);
        assert_eq!(bench.schedule.next_due(), None, "the rest waits for places, not for a time");
        bench.end_all_of(0);
        assert_eq!(bench.begin(START).len(), 8);
    }

    #[test]
    fn an_upstream_that_hangs_leaves_the_others_their_places() {
        // four places are kept, two for each; the other four are common
        let mut bench = Bench::new(8, &[1000, 2]);
        let mut now = START;
        assert_eq!(bench.begin(now).len(), 8);
        assert_eq!((bench.count(0), bench.count(1)), (6, 2));
        for _ in 0..100 {
            bench.end_all_of(1);
            now += SECOND * 2;
            assert_eq!(bench.begin(now), [1, 1], "its checks begin when they are due, not when a hanging one ends");
        }
        assert_eq!(bench.count(0), 6);
    }

    #[test]
    fn places_that_an_upstream_is_too_small_for_are_not_kept() {
        let mut bench = Bench::new(8, &[1000, 1]);
        assert_eq!(bench.begin(START).len(), 8);
        assert_eq!((bench.count(0), bench.count(1)), (7, 1));
    }

    #[test]
    fn upstreams_take_turns_and_targets_begin_in_the_order_in_which_they_were_due() {
        let mut bench = Bench::new(2, &[3, 3]);
        assert_eq!(bench.begin(START), [0, 1]);
        assert_eq!(bench.under_way, HashSet::from([0, 3]));
        for next in [(1, 4), (2, 5)] {
            bench.end_all_of(0);
            bench.end_all_of(1);
            assert_eq!(bench.begin(START), [0, 1]);
            assert_eq!(bench.under_way, HashSet::from([next.0, next.1]));
        }
    }

    #[test]
    fn with_more_upstreams_than_places_everybody_gets_a_turn() {
        let mut bench = Bench::new(4, &[2; 10]);
        // the first one hangs for ever
        let mut begun = bench.begin(START);
        let mut waited = 0;
        while begun.len() < 19 {
            (1..10).for_each(|upstream| bench.end_all_of(upstream));
            begun.extend(bench.begin(START));
            waited += 1;
            assert!(waited <= 6, "three of four places are free each time: {begun:?}");
        }
        assert_eq!(bench.count(0), 1, "nobody keeps a place, so nobody has two");
        assert!((1..10).all(|upstream| begun.iter().filter(|of| **of == upstream).count() == 2), "{begun:?}");
    }

    #[test]
    fn whoever_has_a_kept_place_free_begins_whatever_hangs() {
        for seed in 0..256 {
            let mut rng = Rng::seed_from_u64(seed);
            let places = rng.random_range(1..=32);
            let sizes: Vec<_> = (0..rng.random_range(1..=places)).map(|_| rng.random_range(1..=12)).collect();
            let mut bench = Bench::new(places, &sizes);
            let hangs: Vec<bool> = sizes.iter().map(|_| rng.random()).collect();
            let mut now = START;
            for _ in 0..200 {
                bench.begin(now);
                for (row, upstream) in bench.schedule.upstreams.iter().enumerate() {
                    let idle = upstream.waiting.is_empty() || upstream.under_way >= upstream.kept;
                    assert!(idle, "seed {seed}: upstream {row} waits with a place of its own");
                    assert_eq!(upstream.under_way, bench.count(row), "seed {seed}");
                }
                assert_eq!(bench.schedule.free, places - bench.under_way.len(), "seed {seed}");
                let mut ending: Vec<_> =
                    bench.under_way.iter().copied().filter(|t| !hangs[bench.upstream_of(*t)]).collect();
                ending.sort_unstable();
                ending.retain(|_| rng.random());
                ending.into_iter().for_each(|target| bench.end(target));
                now += SECOND.mul_f64(rng.random_range(0.0..0.5));
            }
        }
    }

    #[test]
    fn after_the_first_check_the_targets_are_spread_over_the_interval() {
        let mut bench = Bench::new(1000, &[1000]);
        assert_eq!(bench.begin(START).len(), 1000);
        bench.end_all_of(0);
        for tenth in 1..=10 {
            let begun = bench.begin(START + SECOND.mul_f64(f64::from(tenth) / 10.0)).len();
            assert!((60..=140).contains(&begun), "{begun} of 1000 begin in one tenth of the interval");
        }
        assert_eq!(bench.under_way.len(), 1000);
    }

    #[test]
    fn later_checks_follow_after_the_interval_give_or_take_a_tenth() {
        let mut bench = Bench::new(1, &[1]);
        let mut waits = Vec::new();
        let mut now = START;
        for _ in 0..1000 {
            assert_eq!(bench.begin(now), [0]);
            bench.end(0);
            let next = bench.schedule.next_due().unwrap();
            waits.push(next.since(now));
            now = next;
        }
        let (shortest, longest) = (waits[1..].iter().min().unwrap(), waits[1..].iter().max().unwrap());
        assert!(*shortest >= SECOND.mul_f64(0.9) && *shortest < SECOND.mul_f64(0.91), "{shortest:?}");
        assert!(*longest <= SECOND.mul_f64(1.1) && *longest > SECOND.mul_f64(1.09), "{longest:?}");
    }

    #[test]
    fn a_check_that_took_longer_than_the_interval_is_followed_at_once() {
        let mut bench = Bench::new(1, &[1]);
        bench.begin(START);
        bench.end(0);
        let second = bench.schedule.next_due().unwrap();
        bench.begin(second);
        bench.end(0);
        assert_eq!(bench.begin(second + SECOND * 5), [0]);
    }

    #[test]
    fn who_was_checked_before_waits_for_its_time() {
        let rows = [(vec![Some(START), None], SECOND)];
        let mut schedule = Schedule::new(8, &rows, START + SECOND / 2);
        assert_eq!(schedule.begin(START + SECOND / 2), Some(1), "it never was");
        assert_eq!(schedule.begin(START + SECOND / 2), None);
        assert_eq!(schedule.next_due(), Some(START + SECOND));
        assert_eq!(schedule.begin(START + SECOND), Some(0));
    }
}
