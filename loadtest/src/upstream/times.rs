//! When an answer is due: pure, from a seed and the time of arrival.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

use super::service::Time;
use crate::units::Moment;

/// The standard normal distribution's 99th percentile.
const NORMAL_P99: f64 = 2.326_347_874_040_841;

/// A service's times.
pub(super) struct Times {
    time: Time,
    rng: SmallRng,
    /// When M/M/1's server is done with all that have come.
    last_departure: Moment,
}

impl Times {
    pub(super) fn new(time: Time, seed: u64) -> Self {
        Self { time, rng: SmallRng::seed_from_u64(seed), last_departure: Moment::default() }
    }

    /// Answers are due on arrival: no clock is needed.
    pub(super) fn are_zero(&self) -> bool {
        self.time == Time::Fixed(Duration::ZERO)
    }

    /// When the answer to a request that arrives `now` is due. Arrivals come in the order of time.
    pub(super) fn due(&mut self, now: Moment) -> Moment {
        match self.time {
            Time::Fixed(time) => now + time,
            Time::Lognormal { median, p99 } => {
                let deviation = (p99.as_secs_f64() / median.as_secs_f64()).ln() / NORMAL_P99;
                now + seconds(median.as_secs_f64() * (deviation * normal(&mut self.rng)).exp())
            }
            Time::MM1 { rate } => {
                self.last_departure = self.last_departure.max(now) + seconds(-unit(&mut self.rng).ln() / rate);
                self.last_departure
            }
        }
    }
}

/// At most a day: extreme parameters draw what no `Duration` holds.
fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.min(86_400.0))
}

/// Whether something of this probability happens.
pub(super) fn happens(rng: &mut SmallRng, share: f64) -> bool {
    unit(rng) <= share
}

/// Uniform in (0, 1], with 53 bits: its logarithm is finite.
fn unit(rng: &mut SmallRng) -> f64 {
    ((rng.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64
}

/// Standard normal (Box and Muller 1958; the sine is thrown away).
fn normal(rng: &mut SmallRng) -> f64 {
    (-2.0 * unit(rng).ln()).sqrt() * (std::f64::consts::TAU * unit(rng)).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times in the system of 200,000 requests that come at `rate` a second, independent of each other, in seconds and ascending.
    fn stays(time: Time, rate: f64, seed: u64) -> Vec<f64> {
        let (mut times, mut arrivals) = (Times::new(time, seed), SmallRng::seed_from_u64(!seed));
        let mut now = Moment(1);
        let mut stays: Vec<_> = (0..200_000)
            .map(|_| {
                now = now + Duration::from_secs_f64(-unit(&mut arrivals).ln() / rate);
                times.due(now).since(now) as f64 / 1e9
            })
            .collect();
        stays.sort_unstable_by(f64::total_cmp);
        stays
    }

    fn is_near(value: f64, wanted: f64, share: f64) -> bool {
        (value / wanted - 1.0).abs() < share
    }

    #[test]
    fn an_mm1_server_is_what_queueing_theory_says() {
        // half busy: the time in the system is exponential with mean 1 / (mu - lambda) = 1 ms
        for seed in 0..4 {
            let stays = stays(Time::MM1 { rate: 2_000.0 }, 1_000.0, seed);
            let mean = stays.iter().sum::<f64>() / stays.len() as f64;
            assert!(is_near(mean, 1e-3, 0.05), "seed {seed}: {mean}");
            let p99 = stays[stays.len() * 99 / 100];
            assert!(is_near(p99, 100f64.ln() * 1e-3, 0.08), "seed {seed}: {p99}");
        }
    }

    #[test]
    fn a_lognormal_service_has_its_median_and_its_p99() {
        let time = Time::Lognormal { median: Duration::from_millis(2), p99: Duration::from_millis(20) };
        for seed in 0..4 {
            let stays = stays(time, 1_000.0, seed);
            assert!(is_near(stays[stays.len() / 2], 2e-3, 0.02), "seed {seed}");
            assert!(is_near(stays[stays.len() * 99 / 100], 20e-3, 0.05), "seed {seed}");
        }
    }

    #[test]
    fn a_fixed_time_is_fixed_and_a_seed_repeats() {
        let time = Time::Fixed(Duration::from_millis(5));
        assert!(stays(time, 1_000.0, 1).iter().all(|stay| *stay == 5e-3));
        let mm1 = Time::MM1 { rate: 2_000.0 };
        assert_eq!(stays(mm1, 1_000.0, 7), stays(mm1, 1_000.0, 7));
        assert_ne!(stays(mm1, 1_000.0, 7), stays(mm1, 1_000.0, 8));
        assert!(Times::new(Time::Fixed(Duration::ZERO), 0).are_zero());
    }

    #[test]
    fn as_many_happen_as_should() {
        let mut rng = SmallRng::seed_from_u64(3);
        let happened = (0..100_000).filter(|_| happens(&mut rng, 0.2)).count();
        assert!((19_000..21_000).contains(&happened), "{happened}");
        assert!((0..1_000).all(|_| happens(&mut rng, 1.0)));
    }
}
