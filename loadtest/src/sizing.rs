//! How many hosts a peak needs, from what one of them carries. Pure.
//!
//! A host is not planned at its limit: a queue has no room there for what is uneven (deployments, garbage collection, a noisy neighbour, a peak
//! within the peak). So a host is planned to take the lower of three quarters of its capacity C, and of the rate at which its p99 is half of
//! the bound. With f hosts gone the others may go up to C itself, for as long as that lasts:
//!
//! hosts = max(⌈peak / planned⌉, ⌈peak / C⌉ + f)

use crate::result::Sizing;

/// Of capacity, what is planned with at most.
const PLANNED_SHARE: f64 = 0.75;
/// Failures that the table goes up to; what was asked for comes behind them.
const TABLE_FAILURES: u32 = 3;

/// What one host carries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Host {
    /// C: the highest rate that was shown to hold, requests a second; above 0.
    pub capacity: f64,
    /// Where the percentile is half of its bound.
    pub half_bound: HalfBound,
}

/// The rate at which the percentile is half of its bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HalfBound {
    /// Requests a second; above 0.
    At(f64),
    /// It was below that at every rate that was measured, or nothing was measured.
    NotReached,
    /// It was above that at every rate that was measured: the bound is close to what an answer takes without any load.
    Exceeded,
}

impl Host {
    /// `None` when nothing is carried, or a number is none.
    #[must_use]
    pub fn try_new(capacity: f64, half_bound: HalfBound) -> Option<Self> {
        let is_rate = |rate: f64| rate.is_finite() && rate > 0.0;
        let fits = is_rate(capacity) && !matches!(half_bound, HalfBound::At(rate) if !is_rate(rate));
        fits.then_some(Self { capacity, half_bound })
    }

    /// As [`Host::try_new`], from a curve: pairs of rate and percentile (∞ when it fell among failures), in any order. The rate at half of
    /// the bound is where the line between the last point below it and the next one meets it.
    #[must_use]
    pub fn on_curve(capacity: f64, bound: f64, curve: &[(f64, f64)]) -> Option<Self> {
        let half = bound / 2.0;
        let mut points: Vec<_> = curve.iter().copied().filter(|(rate, _)| rate.is_finite() && *rate > 0.0).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        // the first rate that misses ends it, whatever came better by chance behind it
        let above = points.iter().position(|(_, time)| *time > half);
        let half_bound = match above {
            None => HalfBound::NotReached,
            Some(0) => HalfBound::Exceeded,
            Some(row) => {
                let ((low, fast), (high, slow)) = (points[row - 1], points[row]);
                let part = if slow.is_finite() { (half - fast) / (slow - fast) } else { 0.0 };
                HalfBound::At(low + (high - low) * part)
            }
        };
        Self::try_new(capacity, half_bound)
    }

    /// Requests a second that it is planned to take, and why so many.
    #[must_use]
    pub fn planned(self) -> (f64, &'static str) {
        let three_quarters = PLANNED_SHARE * self.capacity;
        match self.half_bound {
            HalfBound::At(rate) if rate < three_quarters => (rate, "the percentile is half of its bound there"),
            HalfBound::Exceeded => {
                (three_quarters, "three quarters of capacity; the percentile is above half of its bound at any rate")
            }
            _ => (three_quarters, "three quarters of capacity"),
        }
    }

    /// How many hosts take `peak` requests a second, so that `survive` of them may fail at once.
    #[must_use]
    pub fn sizing(self, peak: f64, survive: u32) -> Sizing {
        let (planned, planned_by) = self.planned();
        let hosts = self.hosts(peak, survive);
        let row = |failures: u32| {
            let hosts = self.hosts(peak, failures);
            (failures, hosts, each(peak, hosts, failures))
        };
        Sizing {
            peak,
            survive,
            planned,
            planned_by: planned_by.to_owned(),
            hosts,
            each: each(peak, hosts, 0),
            each_after_failures: each(peak, hosts, survive),
            table: (0..=TABLE_FAILURES).chain((survive > TABLE_FAILURES).then_some(survive)).map(row).collect(),
            confirmed: None,
        }
    }

    fn hosts(self, peak: f64, failures: u32) -> u64 {
        let planned = whole(peak / self.planned().0);
        let after = whole(peak / self.capacity) + u64::from(failures);
        planned.max(after)
    }
}

/// Rounded up, but not for what is only the rounding of a division: 3.0000000001 hosts are three.
fn whole(hosts: f64) -> u64 {
    (hosts - 1e-9 * hosts.max(1.0)).ceil().max(1.0) as u64
}

/// What each of the hosts that are left takes.
fn each(peak: f64, hosts: u64, failures: u32) -> f64 {
    peak / hosts.saturating_sub(u64::from(failures)).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(capacity: f64) -> Host {
        Host::try_new(capacity, HalfBound::NotReached).expect("it carries something")
    }

    #[test]
    fn a_peak_is_divided_with_room_for_failures() {
        let sizing = host(10_000.0).sizing(200_000.0, 1);
        // 200,000 / 7,500 = 26.7; 20 + 1
        assert_eq!((sizing.hosts, sizing.planned), (27, 7_500.0));
        assert!((sizing.each - 7_407.4).abs() < 0.1 && (sizing.each_after_failures - 7_692.3).abs() < 0.1);
        let rows: Vec<_> = sizing.table.iter().map(|(failures, hosts, _)| (*failures, *hosts)).collect();
        assert_eq!(rows, [(0, 27), (1, 27), (2, 27), (3, 27)]);
        // few hosts: failures weigh more than room
        let few = host(10_000.0).sizing(10_000.0, 2);
        let rows: Vec<_> = few.table.iter().map(|(_, hosts, each)| (*hosts, *each)).collect();
        assert_eq!(rows, [(2, 5_000.0), (2, 10_000.0), (3, 10_000.0), (4, 10_000.0)]);
        assert_eq!((few.hosts, few.each_after_failures), (3, 10_000.0));
        assert_eq!(host(1_000.0).sizing(1.0, 0).hosts, 1);
        assert_eq!(host(1_000.0).sizing(2_250.0, 0).hosts, 3, "2,250 / 750 is three and no more");
    }

    #[test]
    fn no_host_ever_gets_more_than_it_carries() {
        for capacity in [1.0, 333.3, 9_999.9, 1e6] {
            for peak in [1.0, 10.0, 777.7, 123_456.7, 1e8] {
                for survive in 0..8 {
                    let sizing = host(capacity).sizing(peak, survive);
                    assert!(sizing.each <= sizing.planned * 1.000_001, "{capacity} {peak} {survive}: {sizing:?}");
                    assert!(
                        sizing.each_after_failures <= capacity * 1.000_001,
                        "{capacity} {peak} {survive}: {sizing:?}"
                    );
                    assert!(sizing.table.is_sorted_by_key(|(_, hosts, _)| *hosts), "{sizing:?}");
                    assert!(
                        sizing.table.iter().any(|(failures, hosts, _)| (*failures, *hosts) == (survive, sizing.hosts))
                    );
                }
            }
        }
    }

    #[test]
    fn latency_may_plan_with_less_than_capacity() {
        let curve = [(1_000.0, 0.001), (8_000.0, 0.004), (2_000.0, 0.002), (4_000.0, 0.003), (9_000.0, f64::INFINITY)];
        let host = Host::on_curve(8_000.0, 0.005, &curve).expect("it carries something");
        assert_eq!(host.planned(), (3_000.0, "the percentile is half of its bound there"));
        let fast = Host::on_curve(8_000.0, 0.1, &curve).expect("it carries something");
        // all but the last are below half, and behind that one nothing is known
        assert_eq!((fast.half_bound, fast.planned().0), (HalfBound::At(8_000.0), 6_000.0));
        let below = Host::on_curve(8_000.0, 0.1, &curve[..3]).expect("it carries something");
        assert_eq!(below.half_bound, HalfBound::NotReached);
        let tight = Host::on_curve(8_000.0, 0.000_1, &curve).expect("it carries something");
        assert!(tight.half_bound == HalfBound::Exceeded && tight.planned().1.contains("at any rate"));
    }

    #[test]
    fn a_host_that_carries_nothing_is_none() {
        for capacity in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Host::try_new(capacity, HalfBound::NotReached).is_none());
        }
        assert!(Host::try_new(1.0, HalfBound::At(f64::NAN)).is_none());
    }
}
