//! Times, shares and rates as people write them: `200ms`, `20%`, `2000/s`.
//!
//! What cannot be read gets an error that says what would do.

use std::time::Duration;

/// Longest time that can be asked for: an hour. What is longer is a slip of the pen.
const TIME_MAX: Duration = Duration::from_secs(3_600);
/// Units of time and their nanoseconds; longer names first where one ends like another.
const UNITS: [(&str, f64); 6] = [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("min", 60e9), ("s", 1e9)];

/// A text that means nothing here, and what would.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Misread(pub(crate) String);

impl Misread {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// `200ms`, `1.4s`, `50us`, `0`: 0 to an hour.
///
/// # Errors
/// It has no unit, or an unknown one, or is no number, or is negative or too long.
pub(super) fn time(text: &str) -> Result<Duration, Misread> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (digits, unit) = text.split_at(text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len()));
    let number = number(digits).ok_or_else(|| Misread(format!("{text:?} is no time, such as 200ms or 1.4s")))?;
    if unit.is_empty() {
        return Err(Misread(format!("a time has a unit: {digits}ms?")));
    }
    let known = UNITS.iter().find(|(name, _)| *name == unit);
    let (_, nanoseconds) = known
        .ok_or_else(|| Misread(format!("{unit:?} is no unit of time: {digits}ms? There are ns, us, ms, s and min")))?;
    let time = Duration::try_from_secs_f64(number * nanoseconds / 1e9).unwrap_or(Duration::MAX);
    if time > TIME_MAX {
        return Err(Misread(format!("{text} is longer than an hour")));
    }
    Ok(time)
}

/// The same, and not 0.
///
/// # Errors
/// As [`time`], and when it is 0.
pub(super) fn time_above_zero(text: &str) -> Result<Duration, Misread> {
    match time(text)? {
        Duration::ZERO => Err(Misread::new("0 is no time here: 1ms?")),
        time => Ok(time),
    }
}

/// `20%` as 0.2: more than 0 %, at most 100 %.
///
/// # Errors
/// It has no percent sign, or is no number of that range.
pub(super) fn share(text: &str) -> Result<f64, Misread> {
    let Some(digits) = text.strip_suffix('%') else {
        return Err(match number(text) {
            Some(share) if share <= 1.0 => Misread(format!("a share has a percent sign: {}%?", share * 100.0)),
            Some(share) => Misread(format!("a share has a percent sign: {share}%?")),
            None => Misread(format!("{text:?} is no share, such as 20%")),
        });
    };
    match number(digits) {
        Some(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent / 100.0),
        _ => Err(Misread(format!("{text:?} is no share: more than 0% and at most 100%"))),
    }
}

/// `2000/s`: more than 0, at most a thousand million.
///
/// # Errors
/// It does not end with `/s`, or is no number of that range.
pub(super) fn rate(text: &str) -> Result<f64, Misread> {
    let Some(digits) = text.strip_suffix("/s") else {
        let rate = number(text).map_or_else(|| "2000/s".to_owned(), |rate| format!("{rate}/s"));
        return Err(Misread(format!("a rate is so many a second: {rate}?")));
    };
    match number(digits) {
        Some(rate) if rate > 0.0 && rate <= 1e9 => Ok(rate),
        _ => Err(Misread(format!("{text:?} is no rate: more than 0/s and at most 1000000000/s"))),
    }
}

/// Digits with one point at most; no sign, no exponent.
fn number(text: &str) -> Option<f64> {
    let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    is_plain.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, micros) in
            [("0", 0), ("200ms", 200_000), ("1.4s", 1_400_000), ("50us", 50), ("50µs", 50), ("2min", 120_000_000)]
        {
            assert_eq!(time(text), Ok(Duration::from_micros(micros)), "{text}");
        }
        assert_eq!(time("250ns"), Ok(Duration::from_nanos(250)));
    }

    #[test]
    fn what_is_wrong_with_a_time_is_said() {
        for (text, error) in [
            ("200", "a time has a unit: 200ms?"),
            ("200m", "\"m\" is no unit of time: 200ms? There are ns, us, ms, s and min"),
            ("soon", "\"soon\" is no time, such as 200ms or 1.4s"),
            ("", "\"\" is no time, such as 200ms or 1.4s"),
            ("-1s", "\"-1s\" is no time, such as 200ms or 1.4s"),
            ("1e9s", "\"e9s\" is no unit of time: 1ms? There are ns, us, ms, s and min"),
            ("61min", "61min is longer than an hour"),
        ] {
            assert_eq!(time(text).map_err(|e| e.to_string()), Err(error.to_owned()), "{text}");
        }
        assert_eq!(time_above_zero("0ms").map_err(|e| e.to_string()), Err("0 is no time here: 1ms?".to_owned()));
    }

    #[test]
    fn shares_and_rates_are_read_or_explained() {
        assert_eq!((share("20%"), share("0.5%"), rate("2000/s")), (Ok(0.2), Ok(0.005), Ok(2000.0)));
        for (error, text) in [
            (share("0.2"), "a share has a percent sign: 20%?"),
            (share("20"), "a share has a percent sign: 20%?"),
            (share("0%"), "\"0%\" is no share: more than 0% and at most 100%"),
            (share("101%"), "\"101%\" is no share: more than 0% and at most 100%"),
            (share("some"), "\"some\" is no share, such as 20%"),
            (rate("2000"), "a rate is so many a second: 2000/s?"),
            (rate("0/s"), "\"0/s\" is no rate: more than 0/s and at most 1000000000/s"),
        ] {
            assert_eq!(error.map_err(|e| e.to_string()), Err(text.to_owned()));
        }
    }
}
