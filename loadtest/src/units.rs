//! Moments of a run, and numbers with units as people read them.

use std::time::Duration;

/// A moment of this machine's monotonic clock, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// Nanoseconds since `earlier`; 0 when that is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(nanos(time)))
    }
}

/// Nanoseconds of a duration; some 584 years at most.
#[must_use]
pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A time as people read it, three digits and a unit: `"1.23 ms"`; `"∞"` for what never came.
#[must_use]
pub fn shown(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s.is_infinite() => return "∞".to_owned(),
        s if s >= 1.0 || s == 0.0 => (s, "s"),
        s if s >= 1e-3 => (s * 1e3, "ms"),
        s => (s * 1e6, "µs"),
    };
    format!("{} {unit}", digits(value))
}

/// Three significant digits, and none after a point beyond a thousand; thousands apart.
#[must_use]
pub fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 1_000.0 => grouped(value.round() as i64),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        0.0 => "0".to_owned(),
        v if v >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// A whole number with its thousands apart: `"1,234,567"`.
#[must_use]
pub fn grouped(value: i64) -> String {
    let (sign, digits) = (if value < 0 { "-" } else { "" }, value.unsigned_abs().to_string());
    let mut text = String::from(sign);
    for (row, digit) in digits.chars().enumerate() {
        if row > 0 && (digits.len() - row).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_numbers_read_well() {
        for (seconds, text) in [
            (0.0, "0 s"),
            (1.5, "1.50 s"),
            (0.012_34, "12.3 ms"),
            (0.000_123, "123 µs"),
            (f64::INFINITY, "∞"),
            (1_234.5, "1,235 s"),
        ] {
            assert_eq!(shown(seconds), text);
        }
        assert_eq!([grouped(0), grouped(-1_000), grouped(1_234_567)], ["0", "-1,000", "1,234,567"]);
    }
}
