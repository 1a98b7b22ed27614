//! Newtypes: a number that has a meaning has a type.
//!
//! Ids are indices into the tables of [`crate::config::Config`] (routes, clusters, listeners) or of one cluster (endpoints); they are
//! only made by code that also owns the table, so an id is valid for the config it came from. [`Instant`] is the gateway's one notion
//! of time: eight bytes, `CLOCK_MONOTONIC`, fit for an atomic, and any value a simulator likes.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// The generator that every decision takes as an argument: small, fast, seedable, not for secrets.
pub type Rng = rand::rngs::SmallRng;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl $name {
            /// The id of the table's row `index`.
            ///
            /// # Panics
            /// When the table is larger than the id's range; `limits` bounds every table below it.
            #[must_use]
            pub fn from_index(index: usize) -> Self {
                Self(<$inner>::try_from(index).expect("limits.rs bounds every table"))
            }

            /// The row in the table.
            #[must_use]
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

id!(
    /// One event loop on one core; row of the worker table.
    WorkerId(u16)
);
id!(
    /// Row of [`crate::config::Config::listeners`].
    ListenerId(u16)
);
id!(
    /// Row of [`crate::config::Config::routes`].
    RouteId(u32)
);
id!(
    /// Row of [`crate::config::Config::clusters`] (an `[upstream.NAME]` of the file).
    ClusterId(u32)
);
id!(
    /// Row of one cluster's endpoints; meaningless without its [`ClusterId`].
    EndpointId(u16)
);

id!(
    /// Row of [`crate::config::Consumers::all`].
    ConsumerId(u32)
);
id!(
    /// Row of [`crate::config::Consumers::groups`].
    GroupId(u32)
);
id!(
    /// Row of [`crate::config::Config::auth`] (an `[auth.NAME]` of the file).
    AuthId(u16)
);

/// Nanoseconds of `CLOCK_MONOTONIC`. Only `net::clock` reads the clock; everybody else is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// A time later than any that occurs: "no deadline".
    pub const NEVER: Self = Self(u64::MAX);

    /// `nanos` after the clock's zero (the machine's boot, or a simulator's choice).
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds after the clock's zero.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time since `earlier`; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Saturates at [`Instant::NEVER`]: a deadline too far to express is none.
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    /// Saturates at the clock's zero.
    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }
}

impl Sub for Instant {
    type Output = Duration;

    /// The same as [`Instant::since`].
    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

/// A duration as nanoseconds; 584 years and more become `u64::MAX`.
#[must_use]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// `count` events in `per`: the r = n / t of a limit. Both are positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    count: u64,
    per: Duration,
}

impl Rate {
    /// `None` unless `count` ≥ 1, `per` ≥ 1 ns and at most one event a nanosecond.
    #[must_use]
    pub fn try_new(count: u64, per: Duration) -> Option<Self> {
        (count > 0 && nanos(per) >= count).then_some(Self { count, per })
    }

    /// Events in [`Rate::per`].
    #[must_use]
    pub fn count(self) -> u64 {
        self.count
    }

    /// The time in which [`Rate::count`] events may happen.
    #[must_use]
    pub fn per(self) -> Duration {
        self.per
    }

    /// Nanoseconds between two events at this rate, rounded up so that the rate is never exceeded.
    #[must_use]
    pub fn interval_nanos(self) -> u64 {
        nanos(self.per).div_ceil(self.count)
    }
}

impl fmt::Display for Rate {
    /// As the file writes it: `100/s`, `6000/min`; other times as Rust shows them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1, "s"), (60, "min"), (3_600, "h"), (86_400, "d")];
        match units.iter().find(|(seconds, _)| self.per == Duration::from_secs(*seconds)) {
            Some((_, unit)) => write!(f, "{}/{unit}", self.count),
            None => write!(f, "{} in {:?}", self.count, self.per),
        }
    }
}

/// A time of the calendar, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// From a full hour to the next.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From the first of a month to the first of the next.
    Month,
}

impl Window {
    /// All, by their names.
    pub const ALL: [(&'static str, Self); 3] = [("hour", Self::Hour), ("day", Self::Day), ("month", Self::Month)];

    /// When the window ends in which `unix` is; both in seconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn end(self, unix: u64) -> u64 {
        let next = |seconds: u64| (unix / seconds + 1) * seconds;
        match self {
            Self::Hour => next(3_600),
            Self::Day => next(86_400),
            Self::Month => {
                let (year, month) = year_and_month(unix / 86_400);
                let (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                first_of(year, month) * 86_400
            }
        }
    }

    /// Seconds of it, where all of them have the same.
    #[must_use]
    pub fn seconds(self) -> Option<u64> {
        match self {
            Self::Hour => Some(3_600),
            Self::Day => Some(86_400),
            Self::Month => None,
        }
    }
}

impl fmt::Display for Window {
    /// As the file writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL.iter().find(|(_, window)| window == self).map_or("", |(name, _)| name))
    }
}

/// The year and the month (1 to 12) of a day since 1970-01-01. The Gregorian calendar, counted from a first of March, so that the leap day is
/// the last of its year (RFC 3339 appendix B has the idea).
fn year_and_month(day: u64) -> (u64, u64) {
    let from_march = day + 719_468; // since 0000-03-01
    let (era, of_era) = (from_march / 146_097, from_march % 146_097);
    let of_year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * of_year + of_year / 4 - of_year / 100);
    let month = (5 * day_of_year + 2) / 153; // of a year that begins in March
    let year = of_year + era * 400;
    if month < 10 { (year, month + 3) } else { (year + 1, month - 9) }
}

/// The day since 1970-01-01 that is the first of a month.
fn first_of(year: u64, month: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 - 719_468
}

/// An endpoint's share; 0 drains it. At most [`crate::limits::WEIGHT_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(pub u32);

/// A share in [0, 1].
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Ratio(f64);

impl Ratio {
    /// All of it.
    pub const ONE: Self = Self(1.0);
    /// Nothing of it.
    pub const ZERO: Self = Self(0.0);

    /// `None` outside [0, 1] or when not a number.
    #[must_use]
    pub fn try_new(value: f64) -> Option<Self> {
        (0.0..=1.0).contains(&value).then_some(Self(value))
    }

    /// The share as a number in [0, 1].
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_saturate_instead_of_wrapping() {
        let late = Instant::from_nanos(u64::MAX - 1);
        assert_eq!(late + Duration::from_secs(1), Instant::NEVER);
        assert_eq!(Instant::from_nanos(5) - Duration::from_secs(1), Instant::from_nanos(0));
        assert_eq!(Instant::from_nanos(5) - Instant::from_nanos(9), Duration::ZERO);
    }

    #[test]
    fn a_rate_is_positive_and_its_interval_never_exceeds_it() {
        assert!(Rate::try_new(0, Duration::from_secs(1)).is_none());
        assert!(Rate::try_new(1, Duration::ZERO).is_none());
        assert!(Rate::try_new(2_000_000_000, Duration::from_secs(1)).is_none());
        assert_eq!(Rate::try_new(3, Duration::from_secs(1)).unwrap().interval_nanos(), 333_333_334);
    }

    #[test]
    fn a_rate_is_shown_as_the_file_writes_it() {
        let shown = |seconds| Rate::try_new(7, Duration::from_secs(seconds)).unwrap().to_string();
        assert_eq!([1, 60, 3_600, 86_400, 2].map(shown), ["7/s", "7/min", "7/h", "7/d", "7 in 2s"]);
    }

    #[test]
    fn windows_end_where_the_calendar_says() {
        // 2024-02-29T12:34:56Z, 2023-12-31T23:59:59Z, 1970-01-01T00:00:00Z, 2100-02-28T23:59:59Z (no leap year)
        let ends = |unix: u64| Window::ALL.map(|(_, window)| window.end(unix));
        assert_eq!(ends(1_709_210_096), [1_709_211_600, 1_709_251_200, 1_709_251_200]);
        assert_eq!(ends(1_704_067_199), [1_704_067_200; 3]);
        assert_eq!(ends(0), [3_600, 86_400, 2_678_400]);
        assert_eq!(Window::Month.end(4_107_542_399), 4_107_542_400);
        // every first of a month is the end of the one before, for four centuries
        let (mut at, mut months) = (0, 0);
        while at < 12_622_780_800 {
            let next = Window::Month.end(at);
            assert!((28..=31).contains(&((next - at) / 86_400)) && Window::Month.end(next - 1) == next);
            (at, months) = (next, months + 1);
        }
        assert_eq!((at, months), (12_622_780_800, 4_800), "2370-01-01");
    }

    #[test]
    fn a_ratio_lies_between_zero_and_one() {
        assert!(Ratio::try_new(f64::NAN).is_none());
        assert!(Ratio::try_new(1.01).is_none());
        assert!(Ratio::try_new(1.0).is_some());
    }
}
