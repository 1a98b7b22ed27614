//! Passive ejection: when an endpoint's failures put it aside, for how long, and how it comes back.
//!
//! Two signs, either suffices: `consecutive` failures in a row, or a success ratio below `min_success` over a sliding window of ten
//! buckets once it holds `min_requests`. Both work with two endpoints and a request now and then, which statistics over many
//! endpoints (Envoy's success rate) do not. An ejection lasts `eject`, doubled with each one that follows and capped, less up to a tenth of
//! jitter; each stretch of good behaviour forgives one doubling. When it is over, exactly one request probes the
//! endpoint (Nygard 2007, "circuit breaker", half open): success readmits, failure ejects for longer. The slot of a probe
//! is a lease, so a request that vanishes cannot keep it.
//!
//! How many endpoints of a tier may be away is the cluster's question; a detector knows one endpoint.

use crate::config::Outlier;
use crate::policy::chance;
use crate::units::{Instant, Rng};
use std::time::Duration;

const BUCKETS: usize = 10;

/// Why an endpoint was ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Failures in a row.
    Consecutive,
    /// Too small a share of successes over the window.
    SuccessRatio,
    /// The probe after an ejection failed.
    Probe,
}

impl Reason {
    /// The word for it in metrics and logs.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::Consecutive => "consecutive_failures",
            Self::SuccessRatio => "success_ratio",
            Self::Probe => "probe",
        }
    }
}

/// Where an endpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It takes requests.
    Serving,
    /// It takes none.
    Ejected {
        /// Until then.
        until: Instant,
    },
    /// The ejection is over; the next suitable request probes it.
    Ready {
        /// Since then.
        since: Instant,
    },
    /// One request probes it.
    Probing {
        /// When the slot frees itself.
        lease: Instant,
    },
}

/// The failures of one endpoint and what follows from them.
#[derive(Clone, Debug)]
pub struct Detector {
    standing: Standing,
    consecutive: u32,
    /// Ejections not yet forgiven.
    severity: u32,
    readmitted: Instant,
    window: Window,
}

impl Detector {
    /// Serving, nothing seen.
    #[must_use]
    pub fn new() -> Self {
        let window = Window { buckets: [(0, 0); BUCKETS], tick: 0 };
        Self { standing: Standing::Serving, consecutive: 0, severity: 0, readmitted: Instant::default(), window }
    }

    /// Where it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// An attempt that began at `began` succeeded. One from before the readmission tells nothing about the endpoint of now.
    pub fn on_success(&mut self, began: Instant, now: Instant, rules: &Outlier) {
        if self.judges(began) {
            self.consecutive = 0;
            self.window.add(true, now, rules.window);
        }
    }

    /// An attempt that began at `began` failed; `Some` when the endpoint should be ejected.
    pub fn on_failure(&mut self, began: Instant, now: Instant, rules: &Outlier) -> Option<Reason> {
        if !self.judges(began) {
            return None;
        }
        self.consecutive = self.consecutive.saturating_add(1);
        self.window.add(false, now, rules.window);
        if self.consecutive >= rules.consecutive {
            return Some(Reason::Consecutive);
        }
        let (succeeded, failed) = self.window.sums();
        let all = succeeded + failed;
        let poor =
            all >= u64::from(rules.min_requests.max(1)) && (succeeded as f64) < rules.min_success.get() * all as f64;
        poor.then_some(Reason::SuccessRatio)
    }

    /// Puts the endpoint aside; returns until when.
    pub fn eject(&mut self, now: Instant, rules: &Outlier, rng: &mut Rng) -> Instant {
        if self.standing == Standing::Serving {
            // a stretch as long as the longer of the window and the base time, without ejection, forgives one doubling
            let stretch = rules.window.max(rules.eject).max(Duration::from_millis(1));
            let stretches = now.since(self.readmitted).as_nanos() / stretch.as_nanos();
            self.severity = self.severity.saturating_sub(u32::try_from(stretches).unwrap_or(u32::MAX));
        }
        let doubled = rules.eject.saturating_mul(1u32.checked_shl(self.severity).unwrap_or(u32::MAX));
        let time = doubled.min(rules.eject_max.max(rules.eject)).mul_f64(1.0 - chance::unit(rng) / 10.0);
        self.severity = (self.severity + 1).min(31);
        self.standing = Standing::Ejected { until: now + time };
        now + time
    }

    /// Lets it serve again, with a clean slate; earlier ejections are not forgotten at once.
    pub fn readmit(&mut self, now: Instant) {
        self.standing = Standing::Serving;
        self.consecutive = 0;
        self.readmitted = now;
        self.window = Window { buckets: [(0, 0); BUCKETS], tick: 0 };
    }

    /// Time passed: ends an ejection or a lease that is over. Returns when time alone changes the standing next.
    pub fn on_time(&mut self, now: Instant) -> Instant {
        match self.standing {
            Standing::Ejected { until } if until <= now => self.standing = Standing::Ready { since: until },
            Standing::Probing { lease } if lease <= now => self.standing = Standing::Ready { since: now },
            _ => {}
        }
        match self.standing {
            Standing::Ejected { until: at } | Standing::Probing { lease: at } => at,
            Standing::Serving | Standing::Ready { .. } => Instant::NEVER,
        }
    }

    /// Takes the probe's slot until `lease`.
    pub fn begin_probe(&mut self, lease: Instant) {
        debug_assert!(matches!(self.standing, Standing::Ready { .. }));
        self.standing = Standing::Probing { lease };
    }

    /// Frees the slot: the probing request ended without telling anything.
    pub fn cancel_probe(&mut self, now: Instant) {
        if let Standing::Probing { .. } = self.standing {
            self.standing = Standing::Ready { since: now };
        }
    }

    /// Whether an attempt from `began` bears on the endpoint as it is now.
    fn judges(&self, began: Instant) -> bool {
        self.standing == Standing::Serving && began >= self.readmitted
    }
}

impl Default for Detector {
    fn default() -> Self {
        Self::new()
    }
}

/// Successes and failures of the last ten tenths of a window; an idle one expires by itself.
#[derive(Clone, Debug)]
struct Window {
    buckets: [(u32, u32); BUCKETS],
    /// The tenth that was written last, counted from the clock's zero.
    tick: u64,
}

impl Window {
    fn add(&mut self, success: bool, now: Instant, length: Duration) {
        let tenth = (crate::units::nanos(length) / BUCKETS as u64).max(1);
        let tick = now.as_nanos() / tenth;
        let passed = tick.saturating_sub(self.tick).min(BUCKETS as u64);
        (0..passed).for_each(|back| self.buckets[((tick - back) % BUCKETS as u64) as usize] = (0, 0));
        self.tick = self.tick.max(tick);
        let (succeeded, failed) = &mut self.buckets[(self.tick % BUCKETS as u64) as usize];
        let count = if success { succeeded } else { failed };
        *count = count.saturating_add(1);
    }

    fn sums(&self) -> (u64, u64) {
        self.buckets.iter().fold((0, 0), |(s, f), b| (s + u64::from(b.0), f + u64::from(b.1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{at, outlier};
    use rand::SeedableRng;

    fn fail(detector: &mut Detector, times: u32, now: Instant) -> Option<Reason> {
        (0..times).filter_map(|_| detector.on_failure(now, now, &outlier())).last()
    }

    fn seconds_away(detector: &mut Detector, now: Instant, rng: &mut Rng) -> f64 {
        detector.eject(now, &outlier(), rng).since(now).as_secs_f64()
    }

    #[test]
    fn five_failures_in_a_row_eject_and_a_success_between_them_does_not() {
        let mut detector = Detector::new();
        assert_eq!(fail(&mut detector, 4, at(0)), None);
        detector.on_success(at(1), at(1), &outlier());
        assert_eq!(fail(&mut detector, 4, at(2)), None);
        assert_eq!(fail(&mut detector, 1, at(3)), Some(Reason::Consecutive));
    }

    #[test]
    fn a_poor_ratio_ejects_once_the_window_holds_enough() {
        let mut detector = Detector::new();
        let mut first = None;
        for i in 0..20u64 {
            let now = at(i * 100);
            if i % 3 == 0 {
                detector.on_success(now, now, &outlier());
            } else if let Some(reason) = detector.on_failure(now, now, &outlier()) {
                first = first.or(Some((i, reason)));
            }
        }
        assert_eq!(
            first,
            Some((10, Reason::SuccessRatio)),
            "the tenth request succeeded, the eleventh shows the ratio"
        );
    }

    #[test]
    fn a_ratio_at_the_limit_or_failures_too_far_apart_do_not_eject() {
        let (mut even, mut rare) = (Detector::new(), Detector::new());
        for i in 0..100u64 {
            let now = at(i * 100);
            even.on_success(now, now, &outlier());
            assert_eq!(even.on_failure(now, now, &outlier()), None);
            let now = at(i * 2_000);
            assert_eq!(rare.on_failure(now, now, &outlier()).filter(|r| *r == Reason::SuccessRatio), None);
        }
    }

    #[test]
    fn ejections_double_up_to_the_cap_and_jitter_only_shortens_them() {
        let mut rng = Rng::seed_from_u64(71);
        let mut detector = Detector::new();
        for expected in [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0] {
            let away = seconds_away(&mut detector, at(0), &mut rng);
            assert!((expected * 0.9..=expected).contains(&away), "{away} of {expected}");
        }
    }

    #[test]
    fn good_behaviour_forgives_one_doubling_per_stretch() {
        let mut rng = Rng::seed_from_u64(72);
        let mut detector = Detector::new();
        let total: f64 = (0..4).map(|_| seconds_away(&mut detector, at(0), &mut rng)).sum();
        assert!((135.0..=150.0).contains(&total), "10 + 20 + 40 + 80, got {total}");
        detector.readmit(at(0));
        let away = seconds_away(&mut detector, at(20_000), &mut rng);
        assert!((36.0..=40.0).contains(&away), "two stretches of ten seconds: 160 s became 40 s, got {away}");
        detector.readmit(at(0));
        let away = seconds_away(&mut detector, at(1_000_000), &mut rng);
        assert!((9.0..=10.0).contains(&away), "{away}");
    }

    #[test]
    fn an_ejection_that_is_over_waits_for_one_probe() {
        let mut rng = Rng::seed_from_u64(73);
        let mut detector = Detector::new();
        let until = detector.eject(at(0), &outlier(), &mut rng);
        assert_eq!(detector.on_time(at(1)), until);
        assert_eq!(detector.standing(), Standing::Ejected { until });
        assert_eq!(detector.on_time(until), Instant::NEVER);
        assert_eq!(detector.standing(), Standing::Ready { since: until });
        detector.begin_probe(at(20_000));
        assert_eq!(detector.on_time(at(19_999)), at(20_000));
        detector.on_time(at(20_000));
        assert_eq!(detector.standing(), Standing::Ready { since: at(20_000) }, "the lease ended");
        detector.begin_probe(at(30_000));
        detector.cancel_probe(at(21_000));
        assert_eq!(detector.standing(), Standing::Ready { since: at(21_000) });
    }

    #[test]
    fn attempts_from_before_the_readmission_say_nothing() {
        let mut detector = Detector::new();
        detector.readmit(at(100));
        assert_eq!((0..50).find_map(|_| detector.on_failure(at(99), at(200), &outlier())), None);
        assert_eq!(fail(&mut detector, 5, at(200)), Some(Reason::Consecutive));
    }
}
