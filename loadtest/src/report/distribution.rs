//! A spectrum read back from its histogram: any quantile, with the interval that its order statistics give it.
//!
//! The interval of a quantile needs no shape of the distribution: how many of n values lie below the true quantile q is binomial (n, q), so
//! the ranks that hold it with 95 % follow, and with them two recorded values (David and Nagaraja, "Order Statistics", §7.1). It takes values as
//! independent of each other. Latencies of one run are not quite, so that what it says is the least that has to be allowed for.

use crate::result::Spectrum;
use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use std::io::Read as _;

/// Bytes of one inflated histogram: three digits over 64 bits are some 460 kB, five are 25 MB that nobody keeps.
const INFLATED_BYTES_MAX: u64 = 4 << 20;
/// First bytes of HdrHistogram's V2 encoding with deflate, and without.
const COOKIES: [u32; 2] = [0x1c84_9314, 0x1c84_9313];
/// Significant digits of merged histograms.
const DIGITS: u8 = 3;

/// Times that came, and how many never did.
#[derive(Clone, Debug)]
pub(super) struct Distribution {
    /// Nanoseconds.
    came: Histogram<u64>,
    /// How many are ∞.
    infinite: u64,
}

impl Distribution {
    /// Of spectra that belong together; `None` when none of them has a histogram that can be read.
    pub(super) fn of<'a>(spectra: impl IntoIterator<Item = &'a Spectrum>) -> Option<Self> {
        let mut sum: Option<Self> = None;
        for spectrum in spectra {
            let came = if spectrum.histogram.is_empty() && spectrum.infinite > 0 && spectrum.count == spectrum.infinite
            {
                Histogram::new(DIGITS).ok()?
            } else {
                decoded(&spectrum.histogram)?
            };
            match &mut sum {
                None => sum = Some(Self { came, infinite: spectrum.infinite }),
                Some(sum) => {
                    sum.came.auto(true);
                    sum.came.add(&came).ok()?;
                    sum.infinite += spectrum.infinite;
                }
            }
        }
        sum.filter(|sum| sum.count() > 0)
    }

    /// Values, those that never came included.
    pub(super) fn count(&self) -> u64 {
        self.came.len() + self.infinite
    }

    /// Seconds that the share `q` of all is not above; ∞ among what never came.
    pub(super) fn quantile(&self, q: f64) -> f64 {
        let rank = (q * self.count() as f64).ceil() as u64;
        self.ranked(rank)
    }

    /// The 95 % interval of a quantile, in seconds: its lower and upper end.
    pub(super) fn interval(&self, q: f64) -> (f64, f64) {
        let (low, high) = ranks(self.count(), q);
        (if low == 0 { 0.0 } else { self.ranked(low) }, self.ranked(high))
    }

    /// Points for a plot over 1 / (1 − q): that number, and seconds; the first of those that never came is (…, ∞).
    pub(super) fn spectrum(&self) -> Vec<(f64, f64)> {
        let all = self.count() as f64;
        let mut points: Vec<(f64, f64)> = vec![(1.0, self.ranked(1))];
        let mut below = 0;
        for step in self.came.iter_recorded() {
            let share = below as f64 / all;
            let at = 1.0 / (1.0 - share);
            below += step.count_at_value();
            // one point for each two per cent along a logarithmic axis is more than a screen shows
            if points.last().is_none_or(|last| at > last.0 * 1.02) {
                points.push((at, seconds(step.value_iterated_to())));
            }
        }
        let last = if self.infinite > 0 { all / self.infinite as f64 } else { all };
        let end = if self.infinite > 0 { f64::INFINITY } else { self.ranked(self.count()) };
        points.push((last.max(1.0), self.ranked(self.came.len().max(1))));
        if self.infinite > 0 {
            points.extend([(last, end), (all.max(last), end)]);
        }
        points
    }

    /// The value of this rank, from 1.
    fn ranked(&self, rank: u64) -> f64 {
        let rank = rank.max(1);
        if rank > self.came.len() {
            return f64::INFINITY;
        }
        // half a rank less, so that rounding never reaches the next one
        seconds(self.came.value_at_quantile((rank as f64 - 0.5) / self.came.len() as f64))
    }
}

/// A quantile of a spectrum, from its own fields where it is one of them: seconds, ∞ among failures, `None` when nothing is known.
pub(super) fn quantile(of: &Spectrum, q: f64) -> Option<f64> {
    let kept = [(0.5, of.p50), (0.9, of.p90), (0.99, of.p99), (0.999, of.p999)];
    if of.count == 0 {
        return None;
    }
    match kept.iter().find(|known| (known.0 - q).abs() < 1e-9) {
        Some((_, Some(value))) => Some(*value),
        Some((_, None)) if of.infinite > 0 => Some(f64::INFINITY),
        _ => Distribution::of([of]).map(|all| all.quantile(q)),
    }
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// The histogram in this text; `None` when it is none, or one that is larger than any of ours.
fn decoded(text: &str) -> Option<Histogram<u64>> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text.trim()).ok()?;
    let word = |bytes: &[u8], at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let plain = if word(&bytes, 0)? == COOKIES[0] {
        let mut plain = Vec::new();
        let mut inflated = flate2::read::ZlibDecoder::new(&bytes[8.min(bytes.len())..]).take(INFLATED_BYTES_MAX);
        inflated.read_to_end(&mut plain).ok()?;
        plain
    } else {
        bytes
    };
    // the length it claims is allocated before it is read
    let claimed = u64::from(word(&plain, 4)?);
    if word(&plain, 0)? != COOKIES[1] || claimed > plain.len() as u64 {
        return None;
    }
    Deserializer::new().deserialize(&mut plain.as_slice()).ok()
}

/// Ranks (from 1) between which the quantile `q` of `n` values lies with 95 %: 0 when there is no lower one, `n` + 1 when there is no upper one.
fn ranks(n: u64, q: f64) -> (u64, u64) {
    let tail = 0.025;
    let mode = (((n + 1) as f64 * q) as u64).min(n);
    let odds = q / (1.0 - q);
    // probabilities relative to the mode's, outwards until they no longer count
    let mut up = vec![1.0_f64];
    while mode + (up.len() as u64) <= n && up[up.len() - 1] > 1e-14 {
        let k = mode + up.len() as u64 - 1;
        up.push(up[up.len() - 1] * ((n - k) as f64 / (k + 1) as f64) * odds);
    }
    let mut down = vec![1.0_f64];
    while (down.len() as u64) <= mode && down[down.len() - 1] > 1e-14 {
        let k = mode + 1 - down.len() as u64;
        down.push(down[down.len() - 1] * (k as f64 / (n - k + 1) as f64) / odds);
    }
    let all: f64 = up.iter().sum::<f64>() + down[1..].iter().sum::<f64>();
    // low: the largest l with P(fewer than l below) ≤ tail; high: the smallest h with P(at least h below) ≤ tail
    let low = mode.saturating_sub(reach(&down, tail * all));
    let high = mode + 1 + reach(&up, tail * all);
    (low, high.min(n + 1))
}

/// How many steps from the mode are needed until what lies beyond is within `tail`.
fn reach(side: &[f64], tail: f64) -> u64 {
    let mut beyond = 0.0;
    for (steps, probability) in side.iter().enumerate().rev() {
        beyond += probability;
        if beyond > tail {
            return steps as u64;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::{Serializer as _, V2DeflateSerializer};

    fn spectrum(values: impl IntoIterator<Item = u64>, infinite: u64) -> Spectrum {
        let mut all = Histogram::<u64>::new(3).expect("three digits");
        values.into_iter().for_each(|value| all.record(value).expect("it grows"));
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&all, &mut bytes).expect("memory");
        let histogram = base64::engine::general_purpose::STANDARD.encode(bytes);
        Spectrum { count: all.len() + infinite, infinite, histogram, ..Spectrum::default() }
    }

    #[test]
    fn ranks_are_those_of_the_tables() {
        // the median of 10 lies between the 2nd and the 9th with 97.9 %, of 100 between the 40th and the 61st
        assert_eq!(ranks(10, 0.5), (2, 9));
        assert_eq!(ranks(100, 0.5), (40, 61));
        // 99 % of 100 values: nothing bounds it from above
        assert_eq!(ranks(100, 0.99).1, 101);
        assert_eq!(ranks(5, 0.5), (0, 6));
        let (low, high) = ranks(1_000_000, 0.99);
        assert!((989_804..989_806 + 2).contains(&low) && (990_194..990_198).contains(&high), "{low} {high}");
    }

    #[test]
    fn an_interval_holds_the_quantile_as_often_as_it_says() {
        use rand::{RngExt as _, SeedableRng as _};
        let mut rng = rand::rngs::StdRng::seed_from_u64(7);
        let (mut held, draws) = (0, 400);
        for _ in 0..draws {
            // uniform up to 1 ms: its 90 % quantile is known
            let seen = spectrum((0..500).map(|_| rng.random_range(0..1_000_000)), 0);
            let (low, high) = Distribution::of([&seen]).expect("values").interval(0.9);
            held += u32::from(low <= 900e-6 && 900e-6 <= high);
        }
        assert!(held * 100 >= draws * 92, "{held} of {draws}");
    }

    #[test]
    fn failures_are_the_largest_values() {
        let seen = spectrum((1..=98).map(|ms| ms * 1_000_000), 2);
        let all = Distribution::of([&seen]).expect("values");
        assert!((all.quantile(0.98) - 0.098).abs() < 1e-4);
        assert_eq!(all.quantile(0.99), f64::INFINITY);
        assert_eq!(all.spectrum().last().map(|last| last.1), Some(f64::INFINITY));
        let twice = Distribution::of([&seen, &seen]).expect("values");
        assert_eq!((twice.count(), twice.infinite), (200, 4));
    }

    #[test]
    fn nothing_but_failures_is_a_distribution_and_nothing_at_all_is_none() {
        let lost = Spectrum { count: 5, infinite: 5, ..Spectrum::default() };
        assert_eq!(Distribution::of([&lost]).expect("five").quantile(0.5), f64::INFINITY);
        assert!(Distribution::of([&Spectrum::default()]).is_none());
    }

    #[test]
    fn what_is_no_histogram_is_none() {
        let liar = [COOKIES[1].to_be_bytes(), u32::MAX.to_be_bytes()].concat();
        for text in ["", "!", "AAAA", &base64::engine::general_purpose::STANDARD.encode(liar)] {
            let spectrum = Spectrum { count: 1, histogram: text.to_owned(), ..Spectrum::default() };
            assert!(Distribution::of([&spectrum]).is_none(), "{text}");
        }
    }
}
