//! What more workers bring, by the universal scalability law (Gunther, "Guerrilla Capacity Planning", 2007): pure, from a seed.
//!
//! X(N) = λN / (1 + σ(N − 1) + κN(N − 1)): λ is what one worker carries, σ the part of the work that only one can do at a time (contention), κ
//! what each pair of workers costs by keeping each other informed (coherence). With κ above 0 there is a number of workers from which on
//! more of them carry less.
//!
//! N / X is linear in 1/λ, σ/λ and κ/λ, so the best fit with none of them below 0 is one of four linear ones. Weights make its residuals
//! those of X itself. Intervals are of 95 %, from a bootstrap of residuals, whose points stay where they were measured.
//!
//! Three parameters through three points always fit and say nothing, so fewer than [`DISTINCT_MIN`] numbers of workers are refused; and the
//! law is a curve, not a prophecy, so nothing is said beyond [`REACH`] times what was measured.

use crate::result::Interval;
use crate::units::digits;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeSet;

/// Different numbers of workers that a fit needs: one more than it has parameters.
pub const DISTINCT_MIN: usize = 4;
/// How far beyond the most workers that were measured something is said.
pub const REACH: u32 = 2;
/// Fits of the bootstrap.
const RESAMPLES: usize = 1_000;
/// Turns of reweighting; it settles after a few.
const TURNS: usize = 6;

/// What was measured with so many workers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// At least 1.
    pub workers: u32,
    /// Requests a second that they carried; above 0.
    pub rate: f64,
    /// CPU microseconds for each good request, where it is known.
    pub cpu_micros: Option<f64>,
}

/// Why nothing is said.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Too few different numbers of workers.
    #[error("not identifiable: {distinct} different numbers of workers were measured, and the law needs {DISTINCT_MIN}{}", instead(*.cpu_micros))]
    TooFew {
        /// Numbers of workers.
        distinct: usize,
        /// What can be said instead: CPU microseconds for each good request.
        cpu_micros: Option<f64>,
    },
    /// A point without workers, or without a rate.
    #[error("a point has {workers} workers and {rate} requests a second, which is none")]
    NoPoint {
        /// As it was given.
        workers: u32,
        /// As it was given.
        rate: f64,
    },
    /// More workers than can be said anything about.
    #[error("nothing is said about {workers} workers: {measured} were measured at most, and the law is not followed beyond {}", measured * REACH)]
    TooFar {
        /// As it was asked.
        workers: u32,
        /// At most.
        measured: u32,
    },
}

fn instead(cpu_micros: Option<f64>) -> String {
    let told = |micros: f64| {
        format!(
            "; a good request takes {} µs of CPU time, so that one core carries {}/s at most",
            digits(micros),
            digits(1e6 / micros)
        )
    };
    cpu_micros.filter(|micros| *micros > 0.0).map(told).unwrap_or_default()
}

/// The law with numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Law {
    lambda: f64,
    sigma: f64,
    kappa: f64,
}

impl Law {
    fn at(self, workers: f64) -> f64 {
        let slowed = 1.0 + self.sigma * (workers - 1.0) + self.kappa * workers * (workers - 1.0);
        self.lambda * workers / slowed
    }

    /// The number of workers from which on more carry less; `None`: there is none.
    fn peak(self) -> Option<f64> {
        (self.kappa > 0.0).then(|| ((1.0 - self.sigma).max(0.0) / self.kappa).sqrt().max(1.0))
    }
}

/// What fits best, and how sure that is.
#[derive(Clone, Debug)]
pub struct Fit {
    /// What one worker carries, requests a second.
    pub lambda: Interval,
    /// Contention, 0 or more.
    pub sigma: Interval,
    /// Coherence, 0 or more.
    pub kappa: Interval,
    /// Workers that were measured at most.
    pub measured: u32,
    best: Law,
    resampled: Vec<Law>,
}

/// Fits the law.
///
/// # Errors
/// Fewer than [`DISTINCT_MIN`] different numbers of workers, or a point that is none.
pub fn fit(points: &[Point], seed: u64) -> Result<Fit, Refusal> {
    let is_point = |point: &Point| point.workers > 0 && point.rate.is_finite() && point.rate > 0.0;
    if let Some(wrong) = points.iter().find(|point| !is_point(point)) {
        return Err(Refusal::NoPoint { workers: wrong.workers, rate: wrong.rate });
    }
    let distinct: BTreeSet<u32> = points.iter().map(|point| point.workers).collect();
    if distinct.len() < DISTINCT_MIN {
        let known: Vec<f64> = points.iter().filter_map(|point| point.cpu_micros).collect();
        let mean = known.iter().sum::<f64>() / known.len() as f64;
        return Err(Refusal::TooFew {
            distinct: distinct.len(),
            cpu_micros: Some(mean).filter(|mean| mean.is_finite()),
        });
    }
    let measured: Vec<(f64, f64)> = points.iter().map(|point| (f64::from(point.workers), point.rate)).collect();
    let best = law(&measured);
    let resampled = resampled(&measured, best, seed);
    let interval = |value: f64, of: fn(&Law) -> f64| interval(value, resampled.iter().map(of));
    Ok(Fit {
        lambda: interval(best.lambda, |law| law.lambda),
        sigma: interval(best.sigma, |law| law.sigma),
        kappa: interval(best.kappa, |law| law.kappa),
        measured: distinct.last().copied().unwrap_or(1),
        best,
        resampled,
    })
}

impl Fit {
    /// Requests a second that so many workers carry.
    ///
    /// # Errors
    /// None, or more than [`REACH`] times as many as were measured.
    pub fn at(&self, workers: u32) -> Result<Interval, Refusal> {
        if workers == 0 || workers > self.measured.saturating_mul(REACH) {
            return Err(Refusal::TooFar { workers, measured: self.measured });
        }
        let workers = f64::from(workers);
        Ok(interval(self.best.at(workers), self.resampled.iter().map(|law| law.at(workers))))
    }

    /// The number of workers from which on more carry less, where that is within reach.
    #[must_use]
    pub fn peak(&self) -> Option<u32> {
        let peak = self.best.peak()?.round();
        (peak <= f64::from(self.measured.saturating_mul(REACH))).then_some(peak as u32)
    }
}

/// In words, for a report.
impl std::fmt::Display for Fit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = |of: &Interval| {
            format!("{} % ({} to {})", digits(of.value * 100.0), digits(of.low * 100.0), digits(of.high * 100.0))
        };
        write!(
            f,
            "one worker carries {}/s ({} to {})",
            digits(self.lambda.value),
            digits(self.lambda.low),
            digits(self.lambda.high)
        )?;
        write!(f, ", contention {}, coherence {}", percent(&self.sigma), percent(&self.kappa))?;
        match self.peak() {
            Some(peak) => write!(f, "; from {peak} workers on, more carry less"),
            None => write!(f, "; no number of workers up to {} is too many", self.measured.saturating_mul(REACH)),
        }
    }
}

/// The fit in words, or why there is none.
#[must_use]
pub fn in_words(points: &[Point], seed: u64) -> String {
    fit(points, seed).map_or_else(|refusal| refusal.to_string(), |fit| fit.to_string())
}

fn interval(value: f64, resampled: impl Iterator<Item = f64>) -> Interval {
    let mut values: Vec<f64> = resampled.collect();
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values.get((share * (values.len().saturating_sub(1)) as f64).round() as usize).copied();
    let (low, high) = (at(0.025).unwrap_or(value), at(0.975).unwrap_or(value));
    Interval { value, low: low.min(value), high: high.max(value) }
}

/// Fits to what might have been measured as well: the best fit, with residuals that it had elsewhere.
fn resampled(measured: &[(f64, f64)], best: Law, seed: u64) -> Vec<Law> {
    let mut rng = StdRng::seed_from_u64(seed);
    let count = measured.len();
    let residuals: Vec<f64> = measured.iter().map(|(workers, rate)| rate / best.at(*workers)).collect();
    let mean = residuals.iter().sum::<f64>() / count as f64;
    // a fit takes some of the spread away: three parameters' worth
    let spread = (count as f64 / count.saturating_sub(3).max(1) as f64).sqrt();
    let mut once = || {
        let again = measured.iter().map(|(workers, _)| {
            let residual = 1.0 + (residuals[rng.random_range(0..count)] - mean) * spread;
            (*workers, best.at(*workers) * residual.max(0.01))
        });
        law(&again.collect::<Vec<_>>())
    };
    (0..RESAMPLES).map(|_| once()).collect()
}

/// The best fit with nothing below 0.
fn law(measured: &[(f64, f64)]) -> Law {
    let mut rates: Vec<f64> = measured.iter().map(|(_, rate)| *rate).collect();
    let mut best = Law { lambda: measured[0].1 / measured[0].0, sigma: 0.0, kappa: 0.0 };
    for _ in 0..TURNS {
        best = linear(measured, &rates).unwrap_or(best);
        rates = measured.iter().map(|(workers, _)| best.at(*workers)).collect();
    }
    best
}

/// The best of the four fits of N / X in which σ and κ are each free or 0. With weights X·X̂ / N, where X̂ is what the last one said, the
/// residual of N / X is that of X.
fn linear(measured: &[(f64, f64)], rates: &[f64]) -> Option<Law> {
    let rows: Vec<([f64; 3], f64)> = measured
        .iter()
        .zip(rates)
        .map(|((n, x), fitted)| {
            let weight = x * fitted / n;
            ([weight, weight * (n - 1.0), weight * n * (n - 1.0)], weight * n / x)
        })
        .collect();
    let squares = |solution: &[f64; 3]| -> f64 {
        let residual =
            |(row, target): &([f64; 3], f64)| target - row.iter().zip(solution).map(|(a, b)| a * b).sum::<f64>();
        rows.iter().map(residual).map(|residual| residual * residual).sum()
    };
    let free: [&[usize]; 4] = [&[0, 1, 2], &[0, 1], &[0, 2], &[0]];
    let solutions = free.iter().filter_map(|columns| solved(&rows, columns));
    let possible = solutions.filter(|solution| solution[0] > 0.0 && solution[1] >= 0.0 && solution[2] >= 0.0);
    let best = possible.min_by(|a, b| squares(a).total_cmp(&squares(b)))?;
    Some(Law { lambda: 1.0 / best[0], sigma: best[1] / best[0], kappa: best[2] / best[0] })
}

/// Least squares over some columns, by normal equations and elimination with pivots; the others are 0. `None` when they do not determine it.
fn solved(rows: &[([f64; 3], f64)], columns: &[usize]) -> Option<[f64; 3]> {
    let count = columns.len();
    // columns differ by orders of magnitude: each to length 1
    let length = |column: usize| rows.iter().map(|(row, _)| row[column] * row[column]).sum::<f64>().sqrt();
    let lengths: Vec<f64> = columns.iter().map(|column| length(*column)).collect();
    if lengths.iter().any(|length| *length <= 0.0 || !length.is_finite()) {
        return None;
    }
    let mut system = [[0.0; 4]; 3];
    for (row, target) in rows {
        for i in 0..count {
            let left = row[columns[i]] / lengths[i];
            for j in 0..count {
                system[i][j] += left * row[columns[j]] / lengths[j];
            }
            system[i][3] += left * target;
        }
    }
    for pivot in 0..count {
        let row = (pivot..count).max_by(|a, b| system[*a][pivot].abs().total_cmp(&system[*b][pivot].abs()))?;
        system.swap(pivot, row);
        if system[pivot][pivot].abs() < 1e-12 {
            return None;
        }
        for below in pivot + 1..count {
            let factor = system[below][pivot] / system[pivot][pivot];
            for column in (pivot..count).chain([3]) {
                system[below][column] -= factor * system[pivot][column];
            }
        }
    }
    let mut solution = [0.0; 3];
    let mut scaled = [0.0; 3];
    for row in (0..count).rev() {
        let known: f64 = (row + 1..count).map(|column| system[row][column] * scaled[column]).sum();
        scaled[row] = (system[row][3] - known) / system[row][row];
        solution[columns[row]] = scaled[row] / lengths[row];
    }
    Some(solution)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAW: Law = Law { lambda: 10_000.0, sigma: 0.03, kappa: 0.000_5 };

    fn points(law: Law, workers: &[u32], noise: f64, seed: u64) -> Vec<Point> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut point = |workers: u32| {
            let factor = 1.0 + noise * (rng.random::<f64>() * 2.0 - 1.0);
            Point { workers, rate: law.at(f64::from(workers)) * factor, cpu_micros: Some(100.0) }
        };
        workers.iter().map(|workers| point(*workers)).collect()
    }

    #[test]
    fn a_known_curve_is_found_again() {
        let fit = fit(&points(LAW, &[1, 2, 4, 8, 16, 32], 0.0, 1), 1).expect("it is one");
        assert!((fit.lambda.value / LAW.lambda - 1.0).abs() < 1e-6, "{fit:?}");
        assert!((fit.sigma.value - LAW.sigma).abs() < 1e-6 && (fit.kappa.value - LAW.kappa).abs() < 1e-7, "{fit:?}");
        // sqrt(0.97 / 0.0005) = 44
        assert_eq!(fit.peak(), Some(44));
        let at = fit.at(64).expect("it is within reach");
        assert!((at.value / LAW.at(64.0) - 1.0).abs() < 1e-6);
        assert!(fit.to_string().contains("from 44 workers on, more carry less"), "{fit}");
    }

    #[test]
    fn intervals_hold_the_truth_about_as_often_as_they_say() {
        let workers = [1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 32, 32];
        let (mut held, seeds) = (0, 30);
        for seed in 0..seeds {
            let fit = fit(&points(LAW, &workers, 0.03, seed), seed).expect("it is one");
            let at = fit.at(32).expect("measured");
            held += u32::from((at.low..=at.high).contains(&LAW.at(32.0)));
            assert!(fit.sigma.low >= 0.0 && fit.kappa.low >= 0.0 && fit.lambda.low > 0.0);
        }
        assert!(held >= 25, "{held} of {seeds}");
    }

    #[test]
    fn nothing_is_below_zero() {
        // better than linear, as with caches that fit from some size on
        let rates = [(1, 1_000.0), (2, 2_100.0), (4, 4_400.0), (8, 9_000.0)];
        let points = rates.map(|(workers, rate)| Point { workers, rate, cpu_micros: None });
        let fit = fit(&points, 1).expect("it is one");
        assert_eq!((fit.sigma.value, fit.kappa.value, fit.peak()), (0.0, 0.0, None));
        assert!((1_000.0..1_150.0).contains(&fit.lambda.value), "{fit:?}");
        // contention alone
        let amdahl = Law { kappa: 0.0, ..LAW };
        let fit = super::fit(&super::tests::points(amdahl, &[1, 2, 4, 8, 16], 0.0, 1), 1).expect("it is one");
        assert!(fit.kappa.value < 1e-9 && (fit.sigma.value - 0.03).abs() < 1e-6, "{fit:?}");
    }

    #[test]
    fn what_cannot_be_known_is_not_said() {
        let few = points(LAW, &[1, 1, 2, 2, 2, 3], 0.0, 1);
        let said = fit(&few, 1).map(|fit| fit.measured).unwrap_err().to_string();
        assert_eq!(
            said,
            "not identifiable: 3 different numbers of workers were measured, and the law needs 4; a good request takes 100 µs of CPU time, \
             so that one core carries 10,000/s at most"
        );
        assert_eq!(in_words(&few, 1), said);
        assert!(in_words(&[], 1).starts_with("not identifiable: 0"));
        let fit = fit(&points(LAW, &[1, 2, 3, 4], 0.0, 1), 1).expect("it is one");
        assert!(fit.at(8).is_ok());
        let said = fit.at(9).unwrap_err().to_string();
        assert_eq!(
            said,
            "nothing is said about 9 workers: 4 were measured at most, and the law is not followed beyond 8"
        );
        assert!(fit.at(0).is_err());
        for wrong in
            [Point { workers: 0, rate: 1.0, cpu_micros: None }, Point { workers: 1, rate: f64::NAN, cpu_micros: None }]
        {
            assert!(matches!(super::fit(&[wrong], 1), Err(Refusal::NoPoint { .. })));
        }
    }

    #[test]
    fn the_same_seed_says_the_same() {
        let noisy = points(LAW, &[1, 2, 4, 8, 16], 0.05, 3);
        let said = |seed| fit(&noisy, seed).expect("it is one").to_string();
        assert_eq!(said(1), said(1));
        assert_ne!(said(1), said(2));
    }
}
