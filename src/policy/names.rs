//! What is known of a name, and when it is asked for again.
//!
//! An answer holds for as long as its records say, within bounds, and is asked for a moment later, which differs from name to name: names that
//! were learned together are not asked for together for ever. While nobody answers the last answer stays, however old: those addresses are
//! the best that there is to try. A name that has no addresses any more, and says so, keeps its last ones for a while, since more often than
//! not that is a mistake of somebody's; then they are gone.

use crate::config::{Answer, Resolver, Told};
use crate::limits::{NAME_JITTER_MAX, NAME_RETRY_MAX};
use crate::units::{Instant, Rng};
use rand::RngExt;
use std::collections::HashSet;
use std::time::Duration;

/// How a lookup ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Learned {
    /// These are its endpoints, for so long.
    Endpoints(Vec<Told>, Duration),
    /// There is no such name, or it has no addresses.
    Nothing,
    /// Nobody knows: no answer in time, or a server that says that it failed.
    Unknown,
}

/// One name.
#[derive(Clone, Debug)]
pub struct Name {
    answer: Answer,
    /// When that was learned; `None`: never.
    learned: Option<Instant>,
    /// Lookups in a row that brought nothing.
    failures: u32,
    /// When it is asked for next.
    due: Instant,
}

impl Name {
    /// Nothing is known; it is asked for at once.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { answer: Answer::default(), learned: None, failures: 0, due: now }
    }

    /// Its endpoints.
    #[must_use]
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// How old they are; `None` when there never were any.
    #[must_use]
    pub fn age(&self, now: Instant) -> Option<Duration> {
        self.learned.map(|learned| now.since(learned))
    }

    /// Lookups in a row that brought nothing.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// When it is asked for next.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.due
    }

    /// It is to be asked for at once: others are asked now.
    pub fn hurry(&mut self, now: Instant) {
        (self.due, self.failures) = (now, 0);
    }

    /// A lookup has ended. Whether the endpoints are others now.
    pub fn on_lookup(&mut self, learned: Learned, rules: &Resolver, now: Instant, rng: &mut Rng) -> bool {
        match learned {
            Learned::Endpoints(mut told, ttl) => {
                told.sort_unstable();
                // of one that is there twice the first tier counts
                let mut seen = HashSet::new();
                told.retain(|told| seen.insert(told.address));
                (self.learned, self.failures) = (Some(now), 0);
                let ttl = ttl.clamp(rules.min_ttl, rules.max_ttl);
                self.due = now + ttl + (ttl / 10).min(NAME_JITTER_MAX).mul_f64(rng.random_range(0.0..=1.0));
                let changed = *self.answer != *told;
                if changed {
                    self.answer = told.into();
                }
                changed
            }
            Learned::Nothing => {
                self.retry(rules, now, rng);
                let gone = self.learned.map_or(now, |learned| learned + rules.max_stale);
                if now < gone {
                    self.due = self.due.min(gone);
                    return false;
                }
                !std::mem::take(&mut self.answer).is_empty()
            }
            Learned::Unknown => {
                self.retry(rules, now, rng);
                false
            }
        }
    }

    /// Each time it takes twice as long, up to a bound, and a little longer, so that names that failed together are not asked for together.
    fn retry(&mut self, rules: &Resolver, now: Instant, rng: &mut Rng) {
        let longest = NAME_RETRY_MAX.min(rules.max_ttl).max(rules.min_ttl);
        let pause = rules.min_ttl.saturating_mul(1 << self.failures.min(16)).min(longest);
        self.failures = self.failures.saturating_add(1);
        self.due = now + pause + (pause / 10).mul_f64(rng.random_range(0.0..=1.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::at;
    use rand::SeedableRng;

    const SECOND: Duration = Duration::from_secs(1);

    fn rules() -> Resolver {
        Resolver { servers: None, min_ttl: SECOND, max_ttl: 60 * SECOND, timeout: 2 * SECOND, max_stale: 100 * SECOND }
    }

    fn told(last: u8) -> Told {
        Told { rank: 0, address: ([10, 0, 0, last], 80).into(), weight: None }
    }

    fn endpoints(last: &[u8], ttl: u64) -> Learned {
        Learned::Endpoints(last.iter().map(|last| told(*last)).collect(), Duration::from_secs(ttl))
    }

    struct World {
        name: Name,
        now: Instant,
        rng: Rng,
    }

    impl World {
        fn new(seed: u64) -> Self {
            Self { name: Name::new(at(1_000)), now: at(1_000), rng: Rng::seed_from_u64(seed) }
        }

        /// Asks when it is due; whether that has changed anything, and what was waited.
        fn ask(&mut self, learned: Learned) -> (bool, Duration) {
            let waited = self.name.due().since(self.now);
            self.now = self.name.due().max(self.now);
            (self.name.on_lookup(learned, &rules(), self.now, &mut self.rng), waited)
        }

        fn due_in(&self) -> Duration {
            self.name.due().since(self.now)
        }
    }

    #[test]
    fn an_answer_holds_as_long_as_it_says_within_bounds_and_a_little_longer() {
        for seed in 0..100 {
            let mut world = World::new(seed);
            assert_eq!(world.due_in(), Duration::ZERO, "seed {seed}");
            for (ttl, least) in [(0, 1), (1, 1), (30, 30), (60, 60), (86_400, 60)] {
                world.ask(endpoints(&[1], ttl));
                let (due, least) = (world.due_in(), SECOND * least);
                assert!(due >= least && due <= least + NAME_JITTER_MAX, "seed {seed}: {ttl} {due:?}");
            }
        }
        let due = |seed| {
            let mut world = World::new(seed);
            world.ask(endpoints(&[1], 30));
            world.due_in()
        };
        assert_ne!(due(1), due(2), "they are not asked together");
    }

    #[test]
    fn the_same_addresses_in_another_order_are_the_same() {
        let mut world = World::new(1);
        assert!(world.ask(endpoints(&[3, 1, 2, 1], 1)).0);
        let addresses: Vec<_> = world.name.answer().iter().map(|told| told.address.to_string()).collect();
        assert_eq!(addresses, ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
        let twice = [Told { rank: 1, ..told(1) }, told(1), told(2), told(3)];
        assert!(!world.ask(Learned::Endpoints(twice.into(), SECOND)).0, "each once");
        assert!(!world.ask(endpoints(&[2, 3, 1], 1)).0);
        assert!(world.ask(endpoints(&[2, 1], 1)).0);
    }

    #[test]
    fn while_nobody_answers_the_last_answer_stays_and_is_asked_for_less_and_less() {
        let mut world = World::new(1);
        world.ask(endpoints(&[1], 1));
        let learned = world.now;
        world.ask(Learned::Unknown);
        let mut before = Duration::ZERO;
        for _ in 0..20 {
            let (changed, waited) = world.ask(Learned::Unknown);
            assert!(!changed && waited <= NAME_RETRY_MAX.mul_f64(1.1), "{waited:?}");
            assert!(waited >= before.mul_f64(0.9), "{before:?} {waited:?}");
            before = waited;
        }
        assert!(before >= NAME_RETRY_MAX && world.name.failures() == 21);
        assert_eq!(world.name.answer().len(), 1);
        assert_eq!(world.name.age(world.now), Some(world.now.since(learned)));
        assert!(world.now.since(learned) > rules().max_stale, "whatever max_stale says");
        assert!(!world.ask(endpoints(&[1], 1)).0, "it is what it was");
        assert_eq!((world.name.failures(), world.name.age(world.now)), (0, Some(Duration::ZERO)));
    }

    #[test]
    fn a_name_that_has_nothing_any_more_keeps_its_addresses_for_max_stale_and_no_longer() {
        let mut world = World::new(1);
        world.ask(endpoints(&[1], 1));
        let learned = world.now;
        loop {
            let (changed, _) = world.ask(Learned::Nothing);
            let age = world.now.since(learned);
            assert_eq!(changed, age >= rules().max_stale, "{age:?}");
            if changed {
                assert!(age <= rules().max_stale + SECOND, "as soon as that is over: {age:?}");
                break;
            }
            assert_eq!(world.name.answer().len(), 1);
        }
        assert!(world.name.answer().is_empty());
        assert!(!world.ask(Learned::Nothing).0);
        assert!(world.ask(endpoints(&[2], 1)).0, "and returns");
    }

    #[test]
    fn a_name_that_never_had_anything_has_no_age() {
        let mut world = World::new(1);
        for learned in [Learned::Nothing, Learned::Unknown] {
            assert!(!world.ask(learned).0);
            assert_eq!((world.name.age(world.now), world.name.answer().len()), (None, 0));
        }
    }
}
