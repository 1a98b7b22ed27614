//! When each request is due, and which of the mix it is: decided before anything is sent, from a seed.
//!
//! A Poisson schedule is made for a given *number* of arrivals: given their number, the arrivals of a Poisson process are independent and
//! uniform over the time (e.g. Ross, "Stochastic Processes", 2.3). So what is offered is the rate that was asked for, exactly, and gaps are
//! as they are when users do not know of each other. The next of `k` points that are left is a minimum of `k` uniform ones, which
//! needs one random number, so that nothing has to be stored.

use crate::load::{Load, Pace, Target};
use crate::units::nanos;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use std::time::Duration;

/// A request that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Nanoseconds from the start of the warm-up.
    pub due: u64,
    /// Row of the load's targets.
    pub target: u32,
}

/// A part of the schedule with one rate.
#[derive(Clone, Copy, Debug)]
struct Segment {
    /// Nanoseconds from the start.
    begin: f64,
    end: f64,
    /// Arrivals in it.
    count: u64,
}

/// The arrivals of one generator thread, ascending.
#[derive(Debug)]
pub struct Arrivals {
    source: Source,
    mix: Mix,
    rng: StdRng,
}

#[derive(Debug)]
enum Source {
    Drawn { segments: std::vec::IntoIter<Segment>, now: Segment, is_even: bool, at: f64 },
    Recorded { times: Arc<[(Duration, u32)]>, row: usize, step: usize, end: u64 },
}

impl Arrivals {
    /// Those of thread `thread` of `threads`; `None` when nothing is scheduled ([`Pace::Closed`]).
    #[must_use]
    pub fn new(load: &Load, thread: usize, threads: usize) -> Option<Self> {
        let end = nanos(load.warm_up + load.length);
        let source = match &load.pace {
            Pace::Closed => return None,
            Pace::Recorded(times) => Source::Recorded { times: Arc::clone(times), row: thread, step: threads, end },
            Pace::Poisson(rate) | Pace::Even(rate) => {
                let segments = segments(load, *rate, thread, threads).into_iter();
                let none = Segment { begin: 0.0, end: 0.0, count: 0 };
                Source::Drawn { segments, now: none, is_even: matches!(load.pace, Pace::Even(_)), at: 0.0 }
            }
        };
        Some(Self { source, mix: Mix::new(&load.targets), rng: rng(load, thread) })
    }
}

impl Iterator for Arrivals {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        match &mut self.source {
            Source::Recorded { times, row, step, end } => {
                let (at, target) = *times.get(*row)?;
                *row += *step;
                let due = nanos(at);
                (due < *end).then_some(Arrival { due, target })
            }
            Source::Drawn { segments, now, is_even, at } => {
                while now.count == 0 {
                    *now = segments.next()?;
                    *at = now.begin;
                }
                if *is_even {
                    *at += (now.end - *at) / (now.count as f64 + 1.0);
                } else {
                    let left: f64 = 1.0 - self.rng.random::<f64>();
                    *at += (now.end - *at) * (1.0 - left.powf(1.0 / now.count as f64));
                }
                now.count -= 1;
                Some(Arrival { due: *at as u64, target: self.mix.draw(&mut self.rng) })
            }
        }
    }
}

/// Warm-up and phases, each with its number of arrivals; what does not divide evenly among threads goes to the first ones.
fn segments(load: &Load, rate: f64, thread: usize, threads: usize) -> Vec<Segment> {
    let mut parts = vec![(Duration::ZERO, load.warm_up, load.factors.first().copied().unwrap_or(1.0))];
    let mut begin = load.warm_up;
    let ends = load.phases.iter().copied().filter(|end| *end < load.length).chain([load.length]);
    for (row, end) in ends.enumerate() {
        parts.push((begin, load.warm_up + end, load.factors.get(row).copied().unwrap_or(1.0)));
        begin = load.warm_up + end;
    }
    let segment = |(begin, end, factor): (Duration, Duration, f64)| {
        let all = (rate * factor * end.saturating_sub(begin).as_secs_f64()).round() as u64;
        let (share, rest) = (all / threads as u64, all % threads as u64);
        let count = share + u64::from((thread as u64) < rest);
        Segment { begin: nanos(begin) as f64, end: nanos(end) as f64, count }
    };
    parts.into_iter().map(segment).collect()
}

/// The random numbers of one thread: threads must not draw the same ones.
#[must_use]
pub fn rng(load: &Load, thread: usize) -> StdRng {
    StdRng::seed_from_u64(load.seed.wrapping_add((thread as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// Draws rows of the mix in proportion to their weights.
#[derive(Debug)]
pub struct Mix {
    /// Sums of weights up to each row, the last one 1; empty for one row.
    sums: Vec<f64>,
}

impl Mix {
    /// Of these, at least one.
    #[must_use]
    pub fn new(targets: &[Target]) -> Self {
        if targets.len() < 2 {
            return Self { sums: Vec::new() };
        }
        let all: f64 = targets.iter().map(|target| target.weight).sum();
        let sums = targets.iter().scan(0.0, |sum, target| {
            *sum += target.weight / all;
            Some(*sum)
        });
        Self { sums: sums.collect() }
    }

    /// A row.
    pub fn draw(&self, rng: &mut StdRng) -> u32 {
        if self.sums.is_empty() {
            return 0;
        }
        let at: f64 = rng.random();
        self.sums.partition_point(|sum| *sum <= at).min(self.sums.len() - 1) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::load_for_tests;

    fn all(load: &Load, threads: usize) -> Vec<Arrival> {
        let mut all: Vec<_> =
            (0..threads).flat_map(|thread| Arrivals::new(load, thread, threads).expect("scheduled")).collect();
        all.sort_by_key(|arrival| arrival.due);
        all
    }

    #[test]
    fn as_many_are_due_as_were_asked_for_by_any_number_of_threads() {
        for threads in [1, 2, 3, 8] {
            for pace in [Pace::Poisson(1_003.0), Pace::Even(1_003.0)] {
                let load = Load { pace, ..load_for_tests() };
                let due = all(&load, threads);
                let (warm_up, judged) = (nanos(load.warm_up), nanos(load.length));
                assert_eq!(due.iter().filter(|arrival| arrival.due < warm_up).count(), 1_003, "a second of warm-up");
                assert_eq!(due.iter().filter(|arrival| arrival.due >= warm_up).count(), 10_030, "ten that are judged");
                assert!(due.iter().all(|arrival| arrival.due < warm_up + judged));
            }
        }
    }

    #[test]
    fn gaps_are_exponential() {
        let load = Load { pace: Pace::Poisson(10_000.0), ..load_for_tests() };
        for threads in [1, 4] {
            let due = all(&load, threads);
            let gaps: Vec<f64> = due.windows(2).map(|pair| (pair[1].due - pair[0].due) as f64 / 1e5).collect();
            // P(gap > t) = exp(-t), in units of the mean gap; 110,000 gaps: three standard errors are below 0.005
            for t in [0.1, 0.5, 1.0, 2.0, 3.0] {
                let share = gaps.iter().filter(|gap| **gap > t).count() as f64 / gaps.len() as f64;
                assert!((share - (-t).exp()).abs() < 0.005, "{threads} threads: P(gap > {t}) = {share}");
            }
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_schedule_and_another_makes_another() {
        let load = Load { pace: Pace::Poisson(500.0), ..load_for_tests() };
        assert_eq!(all(&load, 2), all(&load, 2));
        assert_ne!(all(&load, 2), all(&Load { seed: load.seed + 1, ..load.clone() }, 2));
    }

    #[test]
    fn phases_have_rates_of_their_own() {
        let phases = vec![Duration::from_secs(2), Duration::from_secs(6), Duration::from_secs(10)];
        let load = Load { pace: Pace::Poisson(100.0), phases, factors: vec![1.0, 3.0, 0.0], ..load_for_tests() };
        let due = all(&load, 1);
        let within = |from: u64, to: u64| {
            due.iter().filter(|arrival| (from * 1_000_000_000..to * 1_000_000_000).contains(&arrival.due)).count()
        };
        assert_eq!([within(0, 1), within(1, 3), within(3, 7), within(7, 11)], [100, 200, 1_200, 0]);
    }

    #[test]
    fn a_mix_is_drawn_by_weight_and_a_record_is_kept() {
        let mut load = load_for_tests();
        let target = |weight| Target { weight, ..load.targets[0].clone() };
        load.targets = [target(3.0), target(1.0)].into();
        load.pace = Pace::Poisson(10_000.0);
        let due = all(&load, 2);
        let share = due.iter().filter(|arrival| arrival.target == 0).count() as f64 / due.len() as f64;
        assert!((share - 0.75).abs() < 0.01, "{share}");

        let times: Vec<_> = (0..100).map(|row| (Duration::from_millis(row * 7), (row % 2) as u32)).collect();
        load.pace = Pace::Recorded(times.clone().into());
        let replayed = all(&load, 3);
        assert_eq!(replayed.len(), 100);
        assert!(replayed.iter().zip(&times).all(|(one, (at, target))| one.due == nanos(*at) && one.target == *target));
    }
}
