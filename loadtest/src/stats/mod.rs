//! What is counted while requests are made, and what can be said of it afterwards.
//!
//! Only good answers have a time; every other request that was due is a failure, and a failure's time is ∞. So a percentile over all
//! that was due is honest: with 2 % of failures the 99th percentile has no value. Histograms are HdrHistograms in nanoseconds, merged and
//! never averaged.

mod bounds;
mod spectrum;

pub use bounds::{Trend, quantile, trend, upper_bound};
pub use spectrum::{decoded, merged, spectrum};

use crate::load::Load;
use crate::units::nanos;
use crate::wire::Failure;
use hdrhistogram::{Counter, Histogram};

/// Shortest and longest time that a histogram tells apart, in nanoseconds: 0.1 µs and an hour.
const SHORTEST: u64 = 100;
const LONGEST: u64 = 3_600_000_000_000;
/// Significant digits: of a run as a whole, and of its slices and targets.
const DIGITS: u8 = 3;
const DIGITS_OF_PARTS: u8 = 2;
/// Statuses are below this.
const STATUSES: usize = 1_000;

/// A time is kept with so many digits that it is within a thousandth.
pub type Times = Histogram<u64>;
/// The same within a hundredth, in a sixteenth of the memory.
pub type RoughTimes = Histogram<u32>;

fn times<C: Counter>(digits: u8) -> Histogram<C> {
    Histogram::new_with_bounds(SHORTEST, LONGEST, digits).expect("bounds that it takes")
}

/// An empty histogram of a whole run.
#[must_use]
pub fn no_times() -> Times {
    times(DIGITS)
}

/// What became of requests that were due in some part of a run.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Requests due.
    pub due: u64,
    /// The failures, by [`Failure::row`].
    pub failures: [u64; Failure::ALL.len()],
    /// From due time to last byte, of the good ones.
    pub times: RoughTimes,
}

impl Tally {
    fn new() -> Self {
        Self { due: 0, failures: [0; Failure::ALL.len()], times: times(DIGITS_OF_PARTS) }
    }

    /// Good ones.
    #[must_use]
    pub fn good(&self) -> u64 {
        self.times.len()
    }

    /// All others.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.due - self.good()
    }

    /// All of them as one.
    #[must_use]
    pub fn sum(parts: &[&Self]) -> Self {
        parts.iter().fold(Self::new(), |mut sum, part| {
            sum.add(part);
            sum
        })
    }

    fn record(&mut self, outcome: Result<u64, Failure>) {
        self.due += 1;
        match outcome {
            Ok(time) => self.times.saturating_record(time),
            Err(failure) => self.failures[failure.row()] += 1,
        }
    }

    fn add(&mut self, other: &Self) {
        self.due += other.due;
        add_counts(&mut self.failures, &other.failures);
        self.times.add(&other.times).expect("the same bounds");
    }
}

fn add_counts(sums: &mut [u64], counts: &[u64]) {
    sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
}

/// TLS that was agreed on.
#[derive(Clone, Debug)]
pub struct Handshakes {
    /// From the first byte of TLS until requests may go.
    pub times: Times,
    /// Of those, such as went on with an earlier session.
    pub resumed: u64,
}

impl Handshakes {
    /// One that took so many nanoseconds.
    pub fn record(&mut self, took: u64, is_resumed: bool) {
        self.times.saturating_record(took);
        self.resumed += u64::from(is_resumed);
    }
}

/// Everything that one generator thread counts of judged requests, and the sum of all.
#[derive(Clone, Debug)]
pub struct Tallies {
    /// From due time to last byte, of the good ones.
    pub latency: Times,
    /// From when it was sent, of the good ones.
    pub uncorrected: Times,
    /// From due time to when it was begun, of all that were begun.
    pub lag: Times,
    /// By status, good or not.
    pub statuses: Vec<u64>,
    /// By slice of the time at which they were due.
    pub slices: Vec<Tally>,
    /// By target and then phase: `target × phases + phase`.
    pub parts: Vec<Tally>,
    /// Requests in flight, added up over time, by slice: request × nanoseconds.
    pub in_flight: Vec<u64>,
    /// Most at once, by slice.
    pub in_flight_max: Vec<u64>,
    /// Requests that found every connection busy.
    pub waited: u64,
    /// Of all connections, those of the start and of the warm-up included.
    pub handshakes: Handshakes,
    /// Nanoseconds.
    slice: u64,
    /// Ends, in nanoseconds from the first judged moment.
    phases: Vec<u64>,
    /// As [`Load::harms`].
    harms: Vec<bool>,
}

impl Tallies {
    /// Nothing counted, with room for all of `load`.
    #[must_use]
    pub fn new(load: &Load) -> Self {
        let (slice, length) = (nanos(load.slice).max(1), nanos(load.length));
        let slices = usize::try_from(length.div_ceil(slice)).unwrap_or(1).max(1);
        let ends = load.phases.iter().map(|end| nanos(*end)).filter(|end| *end < length);
        let phases: Vec<u64> = ends.chain([u64::MAX]).collect();
        Self {
            latency: times(DIGITS),
            uncorrected: times(DIGITS),
            lag: times(DIGITS),
            statuses: vec![0; STATUSES],
            slices: vec![Tally::new(); slices],
            parts: vec![Tally::new(); load.targets.len() * phases.len()],
            in_flight: vec![0; slices],
            in_flight_max: vec![0; slices],
            waited: 0,
            handshakes: Handshakes { times: times(DIGITS), resumed: 0 },
            slice,
            phases,
            harms: load.harms.clone(),
        }
    }

    /// Requests due.
    #[must_use]
    pub fn due(&self) -> u64 {
        self.slices.iter().map(|slice| slice.due).sum()
    }

    /// Phases there are, at least one.
    #[must_use]
    pub fn phases(&self) -> usize {
        self.phases.len()
    }

    /// Failures of all, by [`Failure::row`].
    #[must_use]
    pub fn failures(&self) -> [u64; Failure::ALL.len()] {
        let mut sums = [0; Failure::ALL.len()];
        self.slices.iter().for_each(|slice| add_counts(&mut sums, &slice.failures));
        sums
    }

    /// A request of `target` that was due at `due` (nanoseconds from the first judged moment) has ended at `ended`: well, after these times from
    /// when it was due and from when it was sent, or not.
    ///
    /// It counts in the phase in which it was due. If it has failed and has seen a later phase begin with harm, it counts there: what is asked a
    /// moment before a service is killed, and lost with it, is no failure of the time in which all was well.
    pub fn record(&mut self, target: usize, due: u64, ended: u64, outcome: Result<(u64, u64), Failure>) {
        let (slice, time) = (self.slice_of(due), outcome.map(|(time, _)| time));
        self.slices[slice].record(time);
        let phase_of = |at: u64| self.phases.partition_point(|end| *end <= at);
        let mut phase = phase_of(due);
        if outcome.is_err() {
            let seen = phase + 1..=phase_of(ended).min(self.phases.len() - 1);
            phase = seen.rev().find(|later| self.harms.get(*later) == Some(&true)).unwrap_or(phase);
        }
        self.parts[target * self.phases.len() + phase].record(time);
        if let Ok((time, uncorrected)) = outcome {
            self.latency.saturating_record(time);
            self.uncorrected.saturating_record(uncorrected);
        }
    }

    /// So many were in flight from `since` to `until`, both from the first judged moment.
    pub fn flew(&mut self, count: u64, since: u64, until: u64) {
        let (mut since, end) = (since, until.min(self.slices.len() as u64 * self.slice));
        while since < end {
            let slice = self.slice_of(since);
            let until = end.min((slice as u64 + 1) * self.slice);
            self.in_flight[slice] += count * (until - since);
            self.in_flight_max[slice] = self.in_flight_max[slice].max(count);
            since = until;
        }
    }

    fn slice_of(&self, at: u64) -> usize {
        ((at / self.slice) as usize).min(self.slices.len() - 1)
    }

    /// Adds what another thread has counted of the same load.
    pub fn add(&mut self, other: &Self) {
        let same = "the same bounds";
        self.latency.add(&other.latency).expect(same);
        self.uncorrected.add(&other.uncorrected).expect(same);
        self.lag.add(&other.lag).expect(same);
        add_counts(&mut self.statuses, &other.statuses);
        self.slices.iter_mut().zip(&other.slices).for_each(|(sum, slice)| sum.add(slice));
        self.parts.iter_mut().zip(&other.parts).for_each(|(sum, part)| sum.add(part));
        add_counts(&mut self.in_flight, &other.in_flight);
        // threads reach their peaks at different moments: the sum is not less than the peak of all
        add_counts(&mut self.in_flight_max, &other.in_flight_max);
        self.waited += other.waited;
        self.handshakes.times.add(&other.handshakes.times).expect(same);
        self.handshakes.resumed += other.handshakes.resumed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::load_for_tests;
    use std::time::Duration;

    #[test]
    fn what_fails_after_harm_was_done_counts_there() {
        let phases = [2, 4, 6, 8].map(Duration::from_secs).to_vec();
        let harms = vec![false, true, false, true, false];
        let mut tallies = Tallies::new(&Load { phases, harms, ..load_for_tests() });
        let second = 1_000_000_000;
        let lost = Err(Failure::Reset);
        let failed = |tallies: &Tallies| tallies.parts.iter().map(Tally::failed).collect::<Vec<_>>();
        tallies.record(0, 2 * second - 9, 2 * second - 1, lost); // before it
        assert_eq!(failed(&tallies), [1, 0, 0, 0, 0]);
        tallies.record(0, 2 * second - 9, 2 * second, lost); // with it
        assert_eq!(failed(&tallies), [1, 1, 0, 0, 0]);
        tallies.record(0, 2 * second - 9, 5 * second, lost); // it was healed before it was noticed
        assert_eq!(failed(&tallies), [1, 2, 0, 0, 0]);
        tallies.record(0, 3 * second, 5 * second, lost); // what heals is not to blame
        assert_eq!(failed(&tallies), [1, 3, 0, 0, 0]);
        tallies.record(0, second, 90 * second, lost); // the last harm it has seen
        assert_eq!(failed(&tallies), [1, 3, 0, 1, 0]);
        tallies.record(0, second, 90 * second, Ok((1, 1)));
        assert_eq!((tallies.parts[0].good(), tallies.due()), (1, 6));
        assert_eq!(tallies.slices[1].failed(), 4, "a series shows when they were due");
    }

    #[test]
    fn requests_count_where_they_were_due() {
        let phases = vec![Duration::from_secs(4), Duration::from_secs(10)];
        let mut tallies = Tallies::new(&Load { phases, ..load_for_tests() });
        tallies.record(0, 3_999_999_999, 8_999_999_999, Ok((5_000_000_000, 1_000)));
        tallies.record(0, 4_000_000_000, 9_000_000_000, Err(Failure::Timeout));
        assert_eq!((tallies.slices.len(), tallies.phases(), tallies.due()), (10, 2, 2));
        assert_eq!((tallies.slices[3].good(), tallies.slices[4].failed()), (1, 1));
        assert_eq!((tallies.parts[0].good(), tallies.parts[1].failures[Failure::Timeout.row()]), (1, 1));

        tallies.flew(3, 1_500_000_000, 3_250_000_000);
        assert_eq!(tallies.in_flight[..4], [0, 1_500_000_000, 3_000_000_000, 750_000_000]);
        tallies.flew(1, 9_000_000_000, 90_000_000_000);
        assert_eq!(tallies.in_flight[9], 1_000_000_000, "what is beyond the end does not count");
        let mut both = tallies.clone();
        both.add(&tallies);
        assert_eq!((both.due(), both.latency.len(), both.in_flight_max[2]), (4, 2, 6));
    }
}
