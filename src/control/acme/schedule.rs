//! When a certificate is renewed, and when somebody who has failed may try again.
//!
//! Two thirds of its life are the rule, a bit earlier by chance. An authority that names a window (RFC 9773 §4.2) is followed instead, at a place in it
//! that is drawn once, but not beyond nine tenths of the life: a wrong window would let the certificate end. What fails is tried again later
//! each time, and no sooner than the authority has asked for; one that was issued and is due at once counts as a failure, too, or a wrong clock
//! would order without end.

use crate::units::Rng;
use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// After this share of its life a certificate is renewed; up to [`EARLIER`] of it sooner, so that those of one day do not all come at once.
const RENEW_AFTER: f64 = 2.0 / 3.0;
const EARLIER: f64 = 0.05;
/// No window reaches beyond this share of the life.
const RENEW_AT_LAST: f64 = 0.9;
/// Pauses after failures: this, twice that, and so on up to the last. Authorities count failures by the hour.
const PAUSE: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(6 * 3_600);
/// The longest that an authority is waited for because it has asked for it.
const ASKED_MAX: Duration = Duration::from_secs(86_400);
/// Between two questions after the authority's own opinion, where it says nothing of that; and the bounds of what it says (RFC 9773 §4.3).
const OPINION: Duration = Duration::from_secs(6 * 3_600);
const OPINION_MIN: Duration = Duration::from_secs(60);
const OPINION_MAX: Duration = Duration::from_secs(86_400);

/// Between which seconds since 1970 something is: a certificate valid, or a renewal wanted.
pub(super) type Span = (i64, i64);

/// When one certificate is due.
#[derive(Debug)]
pub(super) struct Schedule {
    /// A share of the life.
    earlier: f64,
    /// A place in whatever window there is, from 0 to 1.
    place: f64,
    window: Option<Span>,
    asks_at: i64,
}

impl Schedule {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self {
            earlier: rng.random_range(0.0..EARLIER),
            place: rng.random_range(0.0..1.0),
            window: None,
            asks_at: i64::MIN,
        }
    }

    /// In seconds since 1970, of a certificate with this life; long ago where there is none.
    pub(super) fn due_at(&self, life: Option<Span>) -> i64 {
        let Some((from, until)) = life else { return i64::MIN };
        let at = |span: Span, share: f64| span.0.saturating_add((span.1.saturating_sub(span.0) as f64 * share) as i64);
        match self.window {
            Some(window) => at(window, self.place).min(at((from, until), RENEW_AT_LAST)),
            None => at((from, until), RENEW_AFTER - self.earlier),
        }
    }

    /// Whether the authority is to be asked.
    pub(super) fn wants_opinion(&self, now: i64) -> bool {
        now >= self.asks_at
    }

    /// What it has said, and after which time it may be asked again. A window that ends before it begins is none.
    pub(super) fn on_opinion(&mut self, said: Option<(Span, Duration)>, now: i64) {
        self.window = said.map(|(window, _)| window).filter(|(start, end)| start < end);
        let pause = said.map_or(OPINION, |(_, again)| again.clamp(OPINION_MIN, OPINION_MAX));
        self.asks_at = now.saturating_add(seconds(pause));
    }

    /// There is another certificate, of which nothing was said.
    pub(super) fn on_replaced(&mut self) {
        (self.window, self.asks_at) = (None, i64::MIN);
    }
}

/// What became of the orders for one certificate. It lies in the cache, so that neither a restart nor another gateway begins anew.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Attempts {
    /// Of which directory.
    pub(super) directory: String,
    /// In a row.
    failures: u32,
    /// Seconds since 1970.
    not_before: i64,
}

impl Attempts {
    pub(super) fn of(directory: &str) -> Self {
        Self { directory: directory.to_owned(), ..Self::default() }
    }

    /// The one of the two that has more patience.
    pub(super) fn or_later(self, other: &Self) -> Self {
        if other.not_before > self.not_before { other.clone() } else { self }
    }

    /// Whether another one may be made. What lies further ahead than anything that is ever waited for was written by a wrong clock.
    pub(super) fn may_be_made(&self, now: i64) -> bool {
        now >= self.not_before || self.not_before > now.saturating_add(seconds(ASKED_MAX))
    }

    /// How long nobody tries again; `asked` is what the authority has asked for. Above a half by chance, so that gateways do not come back
    /// together.
    pub(super) fn on_failure(&mut self, asked: Duration, now: i64, rng: &mut Rng) -> Duration {
        let pause = PAUSE.saturating_mul(1 << self.failures.min(16)).min(PAUSE_MAX);
        let pause = pause.mul_f64(rng.random_range(0.5..1.0)).max(asked.min(ASKED_MAX));
        self.failures = self.failures.saturating_add(1);
        self.not_before = now.saturating_add(seconds(pause));
        pause
    }

    /// A certificate was issued that is not due.
    pub(super) fn on_success(&mut self) {
        (self.failures, self.not_before) = (0, 0);
    }
}

fn seconds(pause: Duration) -> i64 {
    i64::try_from(pause.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    const DAY: i64 = 86_400;

    #[test]
    fn a_certificate_is_due_at_two_thirds_of_its_life_or_a_bit_earlier() {
        let mut seen = [i64::MAX, i64::MIN];
        for seed in 0..1_000 {
            let schedule = Schedule::new(&mut Rng::seed_from_u64(seed));
            assert_eq!(schedule.due_at(None), i64::MIN, "there is none");
            let due = schedule.due_at(Some((100 * DAY, 190 * DAY)));
            seen = [seen[0].min(due), seen[1].max(due)];
        }
        // 90 days: from day 55.5 to day 60
        assert!((155 * DAY..156 * DAY).contains(&seen[0]) && (159 * DAY..=160 * DAY).contains(&seen[1]), "{seen:?}");
    }

    #[test]
    fn the_window_of_an_authority_counts_instead_at_one_place_in_it() {
        let life = Some((100 * DAY, 190 * DAY));
        let mut seen = [i64::MAX, i64::MIN];
        for seed in 0..1_000 {
            let mut schedule = Schedule::new(&mut Rng::seed_from_u64(seed));
            schedule.on_opinion(Some(((110 * DAY, 112 * DAY), Duration::from_secs(3_600))), 105 * DAY);
            let due = schedule.due_at(life);
            seen = [seen[0].min(due), seen[1].max(due)];
            // asked again, it says the same, and the place stays
            schedule.on_opinion(Some(((110 * DAY, 112 * DAY), Duration::ZERO)), 106 * DAY);
            assert_eq!(schedule.due_at(life), due);
            // later than the rule, but never so late that it ends
            schedule.on_opinion(Some(((170 * DAY, 171 * DAY), Duration::ZERO)), 107 * DAY);
            assert!((170 * DAY..171 * DAY).contains(&schedule.due_at(life)));
            schedule.on_opinion(Some(((300 * DAY, 301 * DAY), Duration::ZERO)), 107 * DAY);
            assert_eq!(schedule.due_at(life), 181 * DAY);
            // one that ends before it begins is none, and neither is what was said of the certificate before
            for forget in [|it: &mut Schedule| it.on_opinion(Some(((9, 8), Duration::ZERO)), 0), Schedule::on_replaced]
            {
                schedule.on_opinion(Some(((1, 2), Duration::ZERO)), 107 * DAY);
                assert!(schedule.due_at(life) <= 2, "at once");
                forget(&mut schedule);
                assert!(schedule.due_at(life) > 155 * DAY);
            }
        }
        assert!(seen[0] < 110 * DAY + 3_600 && seen[1] > 112 * DAY - 3_600, "{seen:?}");
    }

    #[test]
    fn an_authority_is_asked_as_often_as_it_says_within_bounds() {
        let mut schedule = Schedule::new(&mut Rng::seed_from_u64(1));
        assert!(schedule.wants_opinion(0));
        for (again, pause) in [(0, 60), (7_200, 7_200), (10_000_000, DAY)] {
            schedule.on_opinion(Some(((1, 2), Duration::from_secs(again))), 1_000);
            assert!(!schedule.wants_opinion(1_000 + pause - 1) && schedule.wants_opinion(1_000 + pause), "{again}");
        }
        schedule.on_opinion(None, 1_000);
        assert!(!schedule.wants_opinion(1_000 + 6 * 3_600 - 1) && schedule.wants_opinion(1_000 + 6 * 3_600));
        schedule.on_replaced();
        assert!(schedule.wants_opinion(1_000));
    }

    #[test]
    fn pauses_grow_and_end_and_are_no_shorter_than_asked_for() {
        let mut rng = Rng::seed_from_u64(1);
        let mut attempts = Attempts::of("https://a.example/");
        for longest in [60, 120, 240, 480, 960, 1_920, 3_840, 7_680, 15_360, 21_600, 21_600] {
            assert!(attempts.may_be_made(1_000));
            let pause = attempts.on_failure(Duration::ZERO, 1_000, &mut rng).as_secs_f64();
            let longest = f64::from(longest);
            assert!(longest / 2.0 <= pause && pause < longest, "{pause}");
            assert!(!attempts.may_be_made(1_000) && attempts.may_be_made(1_000 + pause as i64));
            attempts.not_before = 0;
        }
        attempts.on_success();
        assert!(attempts.on_failure(Duration::ZERO, 0, &mut rng) < Duration::from_secs(60), "from the beginning");
        assert_eq!(attempts.on_failure(Duration::from_secs(7_200), 0, &mut rng), Duration::from_secs(7_200));
        assert_eq!(attempts.on_failure(Duration::MAX, 0, &mut rng), ASKED_MAX);
        // it was written when the clock was a year ahead
        assert!(attempts.may_be_made(-366 * DAY) && !attempts.may_be_made(DAY - 1) && attempts.may_be_made(DAY));
    }
}
