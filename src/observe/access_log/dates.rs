//! When a request was over, as lines of the log write it: UTC, from milliseconds since 1970.

use std::fmt::Display;

/// `2026-11-22T09:15:00.123Z` (RFC 3339).
pub(super) struct Rfc3339(pub(super) u64);

impl Display for Rfc3339 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Civil { year, month, day, hour, minute, second } = Civil::of(self.0 / 1000);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", self.0 % 1000)
    }
}

/// `22/Nov/2026:09:15:00 +0000`, the common log format's date.
pub(super) struct Clf(pub(super) u64);

impl Display for Clf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let Civil { year, month, day, hour, minute, second } = Civil::of(self.0 / 1000);
        let month = MONTHS[month as usize - 1];
        write!(f, "{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000")
    }
}

/// A time of day in UTC.
#[derive(Debug, PartialEq, Eq)]
struct Civil {
    year: u64,
    /// 1 to 12.
    month: u64,
    /// 1 to 31.
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Civil {
    /// The date of a Unix time, in the Gregorian calendar. Years are counted from March, so that the leap day is the last of its
    /// year and months have a regular pattern (Hinnant, "chrono-Compatible Low-Level Date Algorithms", 2013).
    fn of(unix_seconds: u64) -> Self {
        let (days, second_of_day) = (unix_seconds / 86_400, unix_seconds % 86_400);
        // Days since 1 March 0000.
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Self {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * from_march + 2) / 5 + 1,
            hour: second_of_day / 3600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days() {
        let date = |seconds: u64| Rfc3339(seconds * 1000).to_string();
        assert_eq!(date(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(date(951_782_400), "2000-02-29T00:00:00.000Z");
        assert_eq!(date(1_709_164_799), "2024-02-28T23:59:59.000Z");
        assert_eq!(date(1_709_251_200), "2024-03-01T00:00:00.000Z");
        assert_eq!(date(1_767_225_599), "2025-12-31T23:59:59.000Z");
        assert_eq!(date(4_107_542_400), "2100-03-01T00:00:00.000Z");
    }
}
