//! Passive ejection: when an endpoint's failures put it aside, and for how long.
//!
//! Two signs, either suffices: `consecutive` failures in a row, or a success ratio below `min_success` (or at it, with twice as many
//! requests) over a sliding window of ten buckets once it holds `min_requests`. Both work with two endpoints and a request now and
//! then, which statistics over many endpoints (Envoy's success rate) do not. What an endpoint did before its fault must not hide the
//! fault until the window has moved on: where the latest buckets alone hold [`TELLING`] times as many requests, they suffice.
//!
//! Evidence is of two kinds. *Hard*: the connection was refused, the endpoint unreachable, or no connection stood in time; there is
//! nothing to believe, and it may take out any number of endpoints. *Soft*: it answered badly, late or not at all; such evidence can be
//! a request's fault or the network's, so [`crate::policy::cluster`] caps what it may take out.
//!
//! All workers write one [`Track`] per endpoint, so the same number of failures in all suffices whatever the number of workers. It costs
//! what it says: a line that is written on a failure and on the first success after it. Successes are counted by each worker for
//! itself ([`Successes`]) and join the shared window with that worker's next failure, the only moment at which the ratio is asked for.
//!
//! An ejection lasts `eject`, less up to a tenth of jitter, and is followed by a probe. A failing probe is the same fault going on: it
//! costs another `eject`, no more. What doubles the time, up to `eject_max`, is a relapse: an ejection soon after a readmission. Each
//! stretch of good behaviour forgives one doubling. Within the doubled time an endpoint can still prove itself: it is probed every
//! `eject`, and [`PROOFS`] successes in a row bring it back, which one that fails half of its requests hardly ever has.

use crate::config::Outlier;
use crate::limits::PROOFS;
use crate::policy::chance;
use crate::policy::standings::coarse;
use crate::units::{self, Instant, Rng};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

const BUCKETS: usize = 10;
/// So many times `min_requests` in the latest buckets are judged without the older ones. With the default of ten an endpoint that fails
/// three of ten requests, and is not to be ejected, has half of a hundred fail once in fifty thousand buckets.
const TELLING: u64 = 10;

/// How good a failure is as evidence against its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// No connection could be made.
    Hard,
    /// The endpoint answered badly, too late, or broke off.
    Soft,
}

impl Evidence {
    /// The word for it in logs.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::Hard => "hard",
            Self::Soft => "soft",
        }
    }
}

/// Why an endpoint was ejected or shunned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Failures in a row.
    Consecutive,
    /// Too small a share of successes over the window.
    SuccessRatio,
    /// The probe after an ejection failed.
    Probe,
    /// It asked for a pause (Retry-After) that the cap does not allow.
    RetryAfter,
}

/// Beyond this many, a doubling is longer than any bound.
const SEVERITY_MAX: u32 = 31;

/// What an ejection costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sentence {
    /// When the first probe is due.
    pub due: Instant,
    /// From when on one probe suffices; before it, [`PROOFS`] in a row do.
    pub whole: Instant,
    /// Ejections that the next one will count.
    severity: u32,
}

/// The failures of one endpoint, as all workers know them together.
#[derive(Debug, Default)]
pub struct Track {
    /// Failures in a row.
    consecutive: AtomicU32,
    /// Ejections not yet forgiven.
    severity: AtomicU32,
    /// Successes in a row while it is put aside or shunned.
    proofs: AtomicU32,
    window: [AtomicU64; BUCKETS],
}

impl Track {
    /// A request succeeded: writes only after failures.
    pub fn on_success(&self) {
        if self.consecutive.load(Ordering::Relaxed) != 0 {
            self.consecutive.store(0, Ordering::Relaxed);
        }
    }

    /// A request failed; `Some` when the endpoint should be put aside. `own` are the successes that only this worker knows of.
    pub fn on_failure(&self, own: &mut Successes, now: Instant, rules: &Outlier) -> Option<Reason> {
        let in_a_row = self.consecutive.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        own.drain(now, rules.window, |tick, count| self.add(tick, (count, 0)));
        self.add(tick_of(now, rules.window), (0, 1));
        if in_a_row >= rules.consecutive {
            return Some(Reason::Consecutive);
        }
        self.is_poor(tick_of(now, rules.window), rules).then_some(Reason::SuccessRatio)
    }

    /// Whether the window, or the latest part of it, holds too few successes.
    fn is_poor(&self, tick: u64, rules: &Outlier) -> bool {
        let wanted = u64::from(rules.min_requests.max(1));
        let (mut succeeded, mut all) = (0, 0);
        for bucket in self.latest_first(tick) {
            succeeded += u64::from(bucket.succeeded);
            all += u64::from(bucket.succeeded) + u64::from(bucket.failed);
            if all >= TELLING * wanted && is_short(succeeded, all, rules, true) {
                return true;
            }
        }
        // a service that fails every second request stays at a half for ever; twice as many requests tell that from chance
        all >= wanted && is_short(succeeded, all, rules, all >= 2 * wanted)
    }

    /// A success of an endpoint that was put aside, or that is shunned; how many there were in a row.
    pub fn on_proof(&self) -> u32 {
        self.proofs.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// A failure of one: its proofs are void.
    pub fn on_disproof(&self) {
        self.proofs.store(0, Ordering::Relaxed);
    }

    /// What an ejection now costs an endpoint that has served since `readmitted` (zero: since the start); [`Track::serve`] makes it count.
    pub fn sentence(&self, readmitted: Instant, now: Instant, rules: &Outlier, rng: &mut Rng) -> Sentence {
        // a stretch as long as the longer of the window and the base time, without ejection, forgives one doubling
        let stretch = rules.window.max(rules.eject).max(Duration::from_millis(1));
        let forgiven = u32::try_from(now.since(readmitted).as_nanos() / stretch.as_nanos()).unwrap_or(u32::MAX);
        let severity = self.severity.load(Ordering::Relaxed).saturating_sub(forgiven);
        let doubled = rules.eject.saturating_mul(1u32.checked_shl(severity).unwrap_or(u32::MAX));
        let jitter = 1.0 - chance::unit(rng) / 10.0;
        Sentence {
            due: coarse(now + rules.eject.mul_f64(jitter)),
            whole: coarse(now + doubled.min(rules.eject_max.max(rules.eject)).mul_f64(jitter)),
            severity: (severity + 1).min(SEVERITY_MAX),
        }
    }

    /// The endpoint was ejected.
    pub fn serve(&self, sentence: Sentence) {
        self.severity.store(sentence.severity, Ordering::Relaxed);
        self.on_disproof();
    }

    /// Whether `proofs` in a row bring an endpoint back whose ejection is over at `whole`.
    #[must_use]
    pub fn suffices(proofs: u32, whole: Instant, now: Instant) -> bool {
        proofs >= PROOFS || now >= whole
    }

    /// A clean slate; earlier ejections are not forgotten at once.
    pub fn clear(&self) {
        self.consecutive.store(0, Ordering::Relaxed);
        self.proofs.store(0, Ordering::Relaxed);
        self.window.iter().for_each(|bucket| bucket.store(0, Ordering::Relaxed));
    }

    /// Takes over what `old` knows.
    pub fn inherit(&self, old: &Self) {
        let copy = |to: &AtomicU32, from: &AtomicU32| to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        copy(&self.consecutive, &old.consecutive);
        copy(&self.severity, &old.severity);
        copy(&self.proofs, &old.proofs);
        for (to, from) in self.window.iter().zip(&old.window) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// Failures in a row, and ejections that are not forgiven yet.
    #[must_use]
    pub fn summary(&self) -> (u32, u32) {
        (self.consecutive.load(Ordering::Relaxed), self.severity.load(Ordering::Relaxed))
    }

    /// Goes on with what [`Track::summary`] has told.
    pub fn resume(&self, consecutive: u32, severity: u32) {
        self.consecutive.store(consecutive, Ordering::Relaxed);
        self.severity.store(severity.min(SEVERITY_MAX), Ordering::Relaxed);
    }

    fn add(&self, tick: u64, (succeeded, failed): (u32, u32)) {
        let bucket = &self.window[(tick % BUCKETS as u64) as usize];
        let add = |word: u64| {
            let old = Counts::of(word);
            let base = if old.tick == tick & Counts::TICK_MASK { old } else { Counts { tick, ..Counts::default() } };
            let succeeded = base.succeeded.saturating_add(succeeded);
            Some(Counts { tick, succeeded, failed: base.failed.saturating_add(failed) }.word())
        };
        // the closure always returns a value
        let _ = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// The buckets of the window that ends with `tick`, the latest first.
    fn latest_first(&self, tick: u64) -> impl Iterator<Item = Counts> {
        (0..BUCKETS as u64).filter_map(move |age| {
            let tick = tick.wrapping_sub(age);
            let counts = Counts::of(self.window[(tick % BUCKETS as u64) as usize].load(Ordering::Relaxed));
            (counts.tick == tick & Counts::TICK_MASK).then_some(counts)
        })
    }
}

/// Whether so many successes are fewer than `min_success` of `all`, or just as many where that suffices (`at_the_limit`).
fn is_short(succeeded: u64, all: u64, rules: &Outlier, at_the_limit: bool) -> bool {
    let least = rules.min_success.get() * all as f64;
    (succeeded as f64) < least || (at_the_limit && least > 0.0 && succeeded as f64 <= least)
}

/// One bucket: the low bits of its tick, and two counts that stop at their largest value.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    tick: u64,
    succeeded: u32,
    failed: u32,
}

impl Counts {
    const TICK_MASK: u64 = (1 << 24) - 1;
    const COUNT_MAX: u32 = (1 << 20) - 1;

    fn of(word: u64) -> Self {
        let count = |shift: u32| (word >> shift) as u32 & Self::COUNT_MAX;
        Self { tick: word >> 40, succeeded: count(20), failed: count(0) }
    }

    fn word(self) -> u64 {
        let count = |count: u32| u64::from(count.min(Self::COUNT_MAX));
        (self.tick & Self::TICK_MASK) << 40 | count(self.succeeded) << 20 | count(self.failed)
    }
}

/// One worker's successes at one endpoint that the shared window does not hold yet, by tenths of the window.
#[derive(Clone, Debug, Default)]
pub struct Successes {
    buckets: [u32; BUCKETS],
    /// The tenth that was written last, counted from the clock's zero.
    tick: u64,
}

impl Successes {
    /// One more.
    pub fn add(&mut self, now: Instant, window: Duration) {
        self.turn(tick_of(now, window));
        let count = &mut self.buckets[(self.tick % BUCKETS as u64) as usize];
        *count = count.saturating_add(1);
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.buckets = [0; BUCKETS];
    }

    fn drain(&mut self, now: Instant, window: Duration, mut take: impl FnMut(u64, u32)) {
        self.turn(tick_of(now, window));
        for back in 0..BUCKETS as u64 {
            let Some(tick) = self.tick.checked_sub(back) else { break };
            let count = std::mem::take(&mut self.buckets[(tick % BUCKETS as u64) as usize]);
            if count > 0 {
                take(tick, count);
            }
        }
    }

    fn turn(&mut self, tick: u64) {
        let passed = tick.saturating_sub(self.tick).min(BUCKETS as u64);
        (0..passed).for_each(|back| self.buckets[((tick - back) % BUCKETS as u64) as usize] = 0);
        self.tick = self.tick.max(tick);
    }
}

/// The tenth of the window that `now` is in, counted from the clock's zero.
fn tick_of(now: Instant, window: Duration) -> u64 {
    now.as_nanos() / (units::nanos(window) / BUCKETS as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{at, outlier};
    use rand::SeedableRng;

    fn fail(track: &Track, times: u32, now: Instant) -> Option<Reason> {
        (0..times).filter_map(|_| track.on_failure(&mut Successes::default(), now, &outlier())).last()
    }

    fn seconds(track: &Track, readmitted: Instant, now: Instant, rng: &mut Rng) -> (f64, f64) {
        let sentence @ Sentence { due, whole, .. } = track.sentence(readmitted, now, &outlier(), rng);
        track.serve(sentence);
        (due.since(now).as_secs_f64(), whole.since(now).as_secs_f64())
    }

    #[test]
    fn five_failures_in_a_row_eject_whoever_sees_them_and_a_success_between_them_does_not() {
        let track = Track::default();
        assert_eq!(fail(&track, 4, at(0)), None);
        track.on_success();
        assert_eq!(fail(&track, 4, at(2)), None);
        assert_eq!(fail(&track, 1, at(3)), Some(Reason::Consecutive), "each with a worker of its own");
    }

    #[test]
    fn a_poor_ratio_ejects_once_the_window_holds_enough() {
        let (track, mut own) = (Track::default(), Successes::default());
        let mut first = None;
        for i in 0..20u64 {
            let now = at(i * 100);
            if i % 3 == 0 {
                track.on_success();
                own.add(now, outlier().window);
            } else if let Some(reason) = track.on_failure(&mut own, now, &outlier()) {
                first = first.or(Some((i, reason)));
            }
        }
        let expected = Some((10, Reason::SuccessRatio));
        assert_eq!(first, expected, "the tenth request succeeded, the eleventh shows the ratio");
    }

    #[test]
    fn workers_add_up_to_the_ratio_that_one_alone_would_see() {
        let track = Track::default();
        let mut own: Vec<Successes> = (0..16).map(|_| Successes::default()).collect();
        let mut reasons = Vec::new();
        for i in 0..160usize {
            let now = at(i as u64 * 10);
            own[i % 16].add(now, outlier().window);
            track.on_success();
            // three in ten fail
            if i % 10 < 3 {
                reasons.extend(track.on_failure(&mut own[i % 16], now, &outlier()));
            }
        }
        assert_eq!(reasons, [], "77 % is more than half");
    }

    #[test]
    fn a_ratio_at_the_limit_ejects_and_one_above_it_or_failures_too_far_apart_do_not() {
        let (even, good, rare) = (Track::default(), Track::default(), Track::default());
        let (mut own, mut none) = (Successes::default(), Successes::default());
        let mut first = None;
        for i in 0..20u64 {
            even.on_success();
            own.add(at(i), outlier().window);
            first = first.or(even.on_failure(&mut own, at(i), &outlier()).map(|reason| (i, reason)));
        }
        assert_eq!(first, Some((9, Reason::SuccessRatio)), "with the twentieth request");
        let off = Outlier { min_success: crate::policy::testing::ratio(0.0), ..outlier() };
        assert!((0..4).all(|i| even.on_failure(&mut none, at(i), &off) != Some(Reason::SuccessRatio)));
        own.clear();
        for i in 0..100u64 {
            let now = at(i * 100);
            good.on_success();
            (0..2).for_each(|_| own.add(now, outlier().window));
            assert_eq!(good.on_failure(&mut own, now, &outlier()), None);
            let now = at(i * 2_000);
            assert_eq!(rare.on_failure(&mut none, now, &outlier()).filter(|r| *r == Reason::SuccessRatio), None);
        }
    }

    #[test]
    fn good_seconds_before_a_fault_do_not_hide_it_and_a_smaller_fault_is_none() {
        let judged_after = |fails_one_in: u64| {
            let (track, mut own) = (Track::default(), Successes::default());
            (0..2_000).for_each(|i| own.add(at(i * 5), outlier().window));
            let fault = 10_000..15_000u64;
            fault.step_by(5).position(|ms| {
                if ms / 5 % fails_one_in == 0 {
                    return track.on_failure(&mut own, at(ms), &outlier()).is_some();
                }
                track.on_success();
                own.add(at(ms), outlier().window);
                false
            })
        };
        let found = judged_after(2);
        assert!(found.is_some_and(|requests| requests <= 100), "half a second at 200/s: {found:?}");
        assert_eq!(judged_after(3), None, "67 % is more than half");
    }

    #[test]
    fn relapses_double_the_whole_time_up_to_the_cap_but_not_the_time_to_the_first_probe() {
        let mut rng = Rng::seed_from_u64(71);
        let track = Track::default();
        for expected in [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0] {
            let (due, whole) = seconds(&track, at(0), at(0), &mut rng);
            assert!((9.0..=10.0).contains(&due), "{due}");
            assert!((expected * 0.9..=expected).contains(&whole), "{whole} of {expected}");
        }
    }

    #[test]
    fn good_behaviour_forgives_one_doubling_per_stretch() {
        let mut rng = Rng::seed_from_u64(72);
        let track = Track::default();
        let total: f64 = (0..4).map(|_| seconds(&track, at(0), at(0), &mut rng).1).sum();
        assert!((135.0..=150.0).contains(&total), "10 + 20 + 40 + 80, got {total}");
        let (_, whole) = seconds(&track, at(0), at(20_000), &mut rng);
        assert!((36.0..=40.0).contains(&whole), "two stretches of ten seconds: 160 s became 40 s, got {whole}");
        let (_, whole) = seconds(&track, at(0), at(1_000_000), &mut rng);
        assert!((9.0..=10.0).contains(&whole), "a second fault minutes later is no relapse: {whole}");
    }

    #[test]
    fn before_the_whole_time_is_over_only_a_row_of_proofs_suffices() {
        assert!(Track::suffices(1, at(10), at(10)));
        assert!(!Track::suffices(PROOFS - 1, at(10), at(9)));
        assert!(Track::suffices(PROOFS, at(10), at(9)));
        let track = Track::default();
        assert_eq!((0..PROOFS).map(|_| track.on_proof()).last(), Some(PROOFS));
        track.on_disproof();
        assert_eq!(track.on_proof(), 1);
    }

    #[test]
    fn a_bucket_stops_at_its_largest_count_and_forgets_an_older_tick() {
        let track = Track::default();
        let held = |tick| {
            let counts = track.latest_first(tick).map(|c| (c.succeeded, c.failed));
            counts.filter(|c| *c != (0, 0)).collect::<Vec<_>>()
        };
        track.add(3, (u32::MAX, u32::MAX));
        assert_eq!(held(3), [(Counts::COUNT_MAX, Counts::COUNT_MAX)]);
        track.add(13, (1, 0));
        track.add(12, (2, 0));
        assert_eq!(held(13), [(1, 0), (2, 0)]);
        assert_eq!(held(23), []);
    }
}
