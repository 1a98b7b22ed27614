//! Numbers with units as the file writes them: durations, sizes, rates, shares, counts, and the words of closed lists.
//!
//! Each type carries its range, so that a value outside it does not exist. A size or a duration without a unit is refused: `16` for
//! `"16MiB"` is a mistake that nobody sees until the first large body. `KiB`, `MiB`, `GiB` are powers of 1,024 (IEC 80000-13);
//! `KB` and `MB`, which half of the world reads as powers of 1,000, are refused with a hint.

use super::foreign;
use super::problem::{Refusal, did_you_mean, listed};
use super::read::Scalar;
use super::tables::scalar_schema;
use crate::units::{Rate, Ratio};
use serde_json::json;
use std::time::Duration;
use toml::de::DeValue;

/// Milliseconds of a second, minute, hour and day, for the ranges of [`Time`].
pub const SECOND: u64 = 1_000;
/// As [`SECOND`].
pub const MINUTE: u64 = 60 * SECOND;
/// As [`SECOND`].
pub const HOUR: u64 = 60 * MINUTE;
/// As [`SECOND`].
pub const DAY: u64 = 24 * HOUR;
const _: () = assert!(crate::limits::TIMEOUT_MAX.as_millis() as u64 == DAY);

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Int<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> Scalar for Int<MIN, MAX> {
    fn allowed() -> String {
        format!("a whole number from {MIN} to {MAX}")
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        match value {
            DeValue::Integer(_) => {}
            DeValue::String(text) if text.parse::<u64>().is_ok() => {
                return Err(Refusal::plain().help(format!("without quotes: {text}")));
            }
            _ => return Err(Refusal::plain()),
        }
        integer(value).filter(|n| (MIN..=MAX).contains(n)).map(Self).ok_or_else(Refusal::plain)
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

/// A non-negative integer in any of TOML's notations.
#[must_use]
pub fn integer(value: &DeValue<'_>) -> Option<u64> {
    let DeValue::Integer(integer) = value else { return None };
    u64::from_str_radix(integer.as_str().trim_start_matches('+'), integer.radix()).ok()
}

/// A number, whole or not.
#[must_use]
pub fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse().ok(),
        DeValue::Float(number) => number.as_str().parse().ok(),
        _ => None,
    }
}

/// `true` or `false`.
impl Scalar for bool {
    fn allowed() -> String {
        "true or false".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        match value {
            DeValue::Boolean(value) => Ok(*value),
            DeValue::String(text) if matches!(text.as_ref(), "true" | "false") => {
                Err(Refusal::plain().help(format!("without quotes: {text}")))
            }
            _ => Err(Refusal::plain()),
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "boolean" })
    }
}

/// A duration from `MIN` to `MAX` milliseconds, such as `"250ms"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time<const MIN: u64, const MAX: u64>(pub Duration);

/// Units of durations in milliseconds.
const TIME_UNITS: &[(&str, u64)] = &[("ms", 1), ("s", SECOND), ("m", MINUTE), ("h", HOUR), ("d", DAY)];
/// Units that people write, and what they mean here.
const TIME_UNITS_MEANT: &[(&str, &str)] = &[
    ("sec", "s"),
    ("secs", "s"),
    ("second", "s"),
    ("seconds", "s"),
    ("min", "m"),
    ("mins", "m"),
    ("minute", "m"),
    ("minutes", "m"),
    ("hour", "h"),
    ("hours", "h"),
    ("hr", "h"),
    ("day", "d"),
    ("days", "d"),
    ("msec", "ms"),
];

impl<const MIN: u64, const MAX: u64> Scalar for Time<MIN, MAX> {
    fn allowed() -> String {
        format!(
            "a duration from {} to {}, such as \"250ms\" or \"2s\" (units: ms, s, m, h, d)",
            millis(MIN),
            millis(MAX)
        )
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let text = match value {
            DeValue::String(text) => text.as_ref(),
            DeValue::Integer(number) => {
                return Err(Refusal {
                    why: Some("a duration has a unit".to_owned()),
                    help: meant::<Self>(format!("{number}s")),
                });
            }
            _ => return Err(Refusal::plain()),
        };
        let millis = measure(text, TIME_UNITS, TIME_UNITS_MEANT)?;
        let fits = (MIN..=MAX).contains(&millis);
        if fits { Ok(Self(Duration::from_millis(millis))) } else { Err(Refusal::plain()) }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?(ms|s|m|h|d)$" })
    }
}

/// Suggests a text, if it would be accepted.
fn meant<T: Scalar>(text: String) -> Option<String> {
    let help = format!("did you mean {text:?}?");
    T::parse(&DeValue::String(text.into())).is_ok().then_some(help)
}

/// A duration of the file as the file writes it, in its largest whole unit.
pub(super) fn duration(duration: Duration) -> String {
    millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn millis(value: u64) -> String {
    let unit = TIME_UNITS.iter().rev().find(|(_, size)| value > 0 && value.is_multiple_of(*size));
    unit.map_or_else(|| "0s".to_owned(), |(unit, size)| format!("{}{unit}", value / size))
}

/// Bytes from `MIN` to `MAX`, such as `"16KiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size<const MIN: u64, const MAX: u64>(pub u64);

/// Units of sizes in bytes.
const SIZE_UNITS: &[(&str, u64)] = &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
/// Units that people write, and what they probably mean.
const SIZE_UNITS_MEANT: &[(&str, &str)] = &[
    ("k", "KiB"),
    ("K", "KiB"),
    ("kb", "KiB"),
    ("kB", "KiB"),
    ("KB", "KiB"),
    ("kib", "KiB"),
    ("m", "MiB"),
    ("M", "MiB"),
    ("mb", "MiB"),
    ("MB", "MiB"),
    ("mib", "MiB"),
    ("g", "GiB"),
    ("G", "GiB"),
    ("gb", "GiB"),
    ("GB", "GiB"),
    ("gib", "GiB"),
    ("b", "B"),
];

impl<const MIN: u64, const MAX: u64> Scalar for Size<MIN, MAX> {
    fn allowed() -> String {
        format!("a size from {} to {}, such as \"16KiB\" (units: B, KiB, MiB, GiB, TiB)", bytes(MIN), bytes(MAX))
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let text = match value {
            DeValue::String(text) => text.as_ref(),
            DeValue::Integer(number) => {
                return Err(Refusal {
                    why: Some("a size has a unit".to_owned()),
                    help: meant::<Self>(format!("{number}B")),
                });
            }
            _ => return Err(Refusal::plain()),
        };
        let bytes = measure(text, SIZE_UNITS, SIZE_UNITS_MEANT)?;
        if (MIN..=MAX).contains(&bytes) { Ok(Self(bytes)) } else { Err(Refusal::plain()) }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?(B|KiB|MiB|GiB|TiB)$" })
    }
}

/// A size as the file writes it, in its largest whole unit.
#[must_use]
pub fn bytes(value: u64) -> String {
    let unit = SIZE_UNITS.iter().rev().find(|(_, size)| value > 0 && value.is_multiple_of(*size));
    unit.map_or_else(|| "0B".to_owned(), |(unit, size)| format!("{}{unit}", value / size))
}

/// `"1.5s"` in the smallest unit, which is the first; a fraction must come out whole. `meant` has units that people write, and what they
/// probably mean.
///
/// # Errors
/// It is no such text, or beyond 64 bits.
pub fn measure(text: &str, units: &[(&str, u64)], meant: &[(&str, &str)]) -> Result<u64, Refusal> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim());
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(fraction) || (number.contains('.') && fraction.is_empty()) || fraction.len() > 9 {
        return Err(Refusal::plain());
    }
    let Some((_, size)) = units.iter().find(|(name, _)| *name == &text[end..]) else {
        let spaced = units.iter().map(|(name, _)| *name).find(|name| *name == unit);
        let near = spaced.or_else(|| meant.iter().find(|(wrong, _)| *wrong == unit).map(|(_, right)| *right));
        let why = if unit.is_empty() { "the unit is missing".to_owned() } else { format!("unknown unit {unit:?}") };
        let refusal = Refusal::why(why);
        return Err(match near {
            Some(right) => refusal.help(format!("did you mean \"{number}{right}\"?")),
            None => refusal,
        });
    };
    let scaled = |digits: &str| digits.parse::<u128>().ok().and_then(|n| n.checked_mul(u128::from(*size)));
    let whole = scaled(whole).ok_or_else(Refusal::plain)?;
    let part = if fraction.is_empty() { 0 } else { scaled(fraction).ok_or_else(Refusal::plain)? };
    let scale = 10u128.pow(u32::try_from(fraction.len()).expect("at most nine digits"));
    if part % scale != 0 {
        return Err(Refusal::why(format!("not a whole number of {}", units[0].0)));
    }
    u64::try_from(whole.saturating_add(part / scale)).map_err(|_| Refusal::plain())
}

/// r = n / t, such as `"100/s"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerTime(pub Rate);

/// What a rate may be per, in seconds.
const RATE_UNITS: &[(&str, u64)] = &[("s", 1), ("min", 60), ("h", 3_600), ("d", 86_400)];
/// Largest n of a rate: far beyond what one machine serves, and n × t in nanoseconds stays far from overflow.
const RATE_COUNT_MAX: u64 = 1_000_000_000;

impl Scalar for PerTime {
    fn allowed() -> String {
        "a rate such as \"100/s\", \"6000/min\" or \"10/h\" (1 to 1000000000 per s, min, h or d)".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let text = match value {
            DeValue::String(text) => text.as_ref(),
            DeValue::Integer(number) => {
                return Err(Refusal {
                    why: Some("a rate has a time".to_owned()),
                    help: meant::<Self>(format!("{number}/s")),
                });
            }
            _ => return Err(Refusal::plain()),
        };
        let (count, unit) = text.split_once('/').ok_or_else(Refusal::plain)?;
        let (count, unit) = (count.trim(), unit.trim());
        let Some((_, seconds)) = RATE_UNITS.iter().find(|(name, _)| *name == unit) else {
            let near = match unit {
                "m" | "minute" => Some("min"),
                "sec" | "second" => Some("s"),
                "hour" | "hr" => Some("h"),
                "day" => Some("d"),
                _ => None,
            };
            let refusal = Refusal::why(format!("unknown unit {unit:?}"));
            return Err(match near {
                Some(near) => refusal.help(format!("did you mean \"{count}/{near}\"?")),
                None => refusal,
            });
        };
        let count = count.parse().ok().filter(|count| *count <= RATE_COUNT_MAX).ok_or_else(Refusal::plain)?;
        Rate::try_new(count, Duration::from_secs(*seconds)).map(Self).ok_or_else(Refusal::plain)
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^[0-9]+/(s|min|h|d)$" })
    }
}

/// A share, `"10%"` or `0.1`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(pub Ratio);

impl Scalar for Share {
    fn allowed() -> String {
        "a share from 0 to 1, such as 0.1 or \"10%\"".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        if let DeValue::String(text) = value {
            let percent = text.strip_suffix('%').and_then(|digits| digits.trim_end().parse::<f64>().ok());
            return percent.and_then(|p| Ratio::try_new(p / 100.0)).map(Self).ok_or_else(Refusal::plain);
        }
        let share = number(value).ok_or_else(Refusal::plain)?;
        Ratio::try_new(share).map(Self).ok_or_else(|| {
            let percent = (2.0..=100.0).contains(&share);
            if percent { Refusal::plain().help(format!("did you mean \"{share}%\"?")) } else { Refusal::plain() }
        })
    }

    fn schema() -> serde_json::Value {
        json!({ "anyOf": [
            { "type": "number", "minimum": 0, "maximum": 1 },
            { "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?%$" },
        ] })
    }
}

/// The k of an adaptive timeout, 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factor(pub f64);

impl Scalar for Factor {
    fn allowed() -> String {
        "a number from 1 to 100, such as 3.0".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        number(value).filter(|k| (1.0..=100.0).contains(k)).map(Self).ok_or_else(Refusal::plain)
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "number", "minimum": 1, "maximum": 100 })
    }
}

scalar_schema!(Int<MIN, MAX>, Time<MIN, MAX>, Size<MIN, MAX>, PerTime, Share, Factor);

/// The text of a string value.
///
/// # Errors
/// It is none.
pub fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, Refusal> {
    value.as_str().ok_or_else(Refusal::plain)
}

/// The word among `words`; otherwise the one that was probably meant.
///
/// # Errors
/// It is none of them, or no text.
pub fn word<T: Copy>(value: &DeValue<'_>, words: &[(&str, T)]) -> Result<T, Refusal> {
    let written = text(value)?;
    let found = words.iter().find(|(name, _)| *name == written);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let known = || words.iter().map(|(name, _)| *name);
        let ours = foreign::word(written, known()).map(|ours| format!("that is {ours:?} here"));
        Refusal { why: None, help: ours.or_else(|| did_you_mean(written, known())) }
    })
}

/// `one of a, b, c` for a closed list.
#[must_use]
pub fn one_of<T>(words: &[(&str, T)]) -> String {
    format!("one of {}", listed(&words.iter().map(|(name, _)| *name).collect::<Vec<_>>()))
}

/// Declares an enum whose variants are words of the file.
#[macro_export]
#[doc(hidden)] // documented as `config::reading::words`
macro_rules! words {
    ($(#[doc = $doc:literal])* $name:ident { $($(#[doc = $word_doc:literal])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[doc = $word_doc])* $variant),* }

        impl $name {
            const WORDS: &[(&str, Self)] = &[$(($word, Self::$variant)),*];
        }

        impl $crate::config::reading::Scalar for $name {
            fn allowed() -> String {
                $crate::config::reading::one_of(Self::WORDS)
            }

            fn parse(
                value: &$crate::config::reading::DeValue<'_>,
            ) -> Result<Self, $crate::config::reading::Refusal> {
                $crate::config::reading::word(value, Self::WORDS)
            }

            fn schema() -> serde_json::Value {
                $crate::config::reading::json!({ "type": "string", "enum": [$($word),*] })
            }
        }

        $crate::scalar_schema!($name);
    };
}

pub use words;

words! {
    /// `gateway.driver`
    DriverWord {
        /// io_uring where it can be had.
        Auto = "auto",
        /// io_uring or nothing.
        IoUring = "io_uring",
        /// This step or nothing.
        Multishot = "io_uring-multishot",
        /// This step or nothing.
        DeferTaskrun = "io_uring-defer-taskrun",
        /// This step or nothing.
        CoopTaskrun = "io_uring-coop-taskrun",
        /// This step or nothing.
        Plain = "io_uring-plain",
        /// epoll.
        Epoll = "epoll",
    }
}

words! {
    /// `access_log.format`
    FormatWord {
        /// One object a line.
        Json = "json",
        /// NCSA combined.
        Combined = "combined",
    }
}

words! {
    /// `upstream.protocol`
    ProtocolWord {
        /// HTTP/1.1.
        Http1 = "http1",
        /// HTTP/2.
        Http2 = "h2",
        /// By ALPN.
        Auto = "auto",
    }
}

words! {
    /// `upstream.balance`
    BalanceWord {
        /// By availability.
        Random = "random",
        /// In turn.
        RoundRobin = "round_robin",
        /// Smooth weighted.
        Weighted = "weighted",
        /// Two choices by load.
        LeastRequest = "least_request",
        /// Two choices by latency × load.
        PeakEwma = "peak_ewma",
        /// Ketama.
        RingHash = "ring_hash",
        /// Maglev.
        Maglev = "maglev",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// All these strings are read.
    pub(crate) fn accepts<T: Scalar>(texts: &[&str]) {
        for text in texts {
            let read = T::parse(&DeValue::String((*text).into()));
            assert!(read.is_ok(), "{text:?} is refused: {:?}", read.err());
        }
    }

    /// None of these strings is read.
    pub(crate) fn refuses<T: Scalar>(texts: &[&str]) {
        for text in texts {
            assert!(T::parse(&DeValue::String((*text).into())).is_err(), "{text:?} is read");
        }
    }

    /// All these TOML values are read.
    pub(crate) fn accepts_values<T: Scalar>(values: &[&str]) {
        for text in values {
            let read = T::parse(DeValue::parse(text).unwrap().get_ref());
            assert!(read.is_ok(), "{text} is refused: {:?}", read.err());
        }
    }

    /// None of these TOML values is read.
    pub(crate) fn refuses_values<T: Scalar>(values: &[&str]) {
        for text in values {
            assert!(T::parse(DeValue::parse(text).unwrap().get_ref()).is_err(), "{text} is read");
        }
    }

    #[test]
    fn integers_keep_their_range_in_every_notation() {
        accepts_values::<Int<1, 100>>(&["1", "100", "+7", "0x10", "0b11", "1_0"]);
        refuses_values::<Int<1, 100>>(&["0", "101", "-1", "\"7\"", "7.0", "true", "99999999999999999999"]);
    }

    #[test]
    fn durations_have_units_and_come_out_in_whole_milliseconds() {
        let read = |text: &str| Time::<1, DAY>::parse(&DeValue::String(text.into())).unwrap().0;
        assert_eq!(read("250ms"), Duration::from_millis(250));
        assert_eq!(read("1.5s"), Duration::from_millis(1_500));
        assert_eq!([read("2m"), read("1h"), read("1d")], [120, 3_600, 86_400].map(Duration::from_secs));
        refuses::<Time<1, DAY>>(&[
            "", "s", "1", "1 s", "0s", "-1s", "1.s", ".5s", "0.5ms", "1s500ms", "1S", "1e3s", "25h", "1us",
        ]);
        refuses::<Time<1, DAY>>(&["99999999999999999999999999999999999999999s", "1.0000000001s"]);
        refuses_values::<Time<1, DAY>>(&["1", "1.5", "true", "[]"]);
        accepts::<Time<0, DAY>>(&["0s", "0ms"]);
    }

    #[test]
    fn sizes_have_binary_units() {
        let read = |text: &str| Size::<0, { 1 << 40 }>::parse(&DeValue::String(text.into())).unwrap().0;
        assert_eq!([read("0B"), read("512B"), read("16KiB"), read("1.5MiB")], [0, 512, 16 << 10, 3 << 19]);
        assert_eq!(read("1TiB"), 1 << 40);
        refuses::<Size<0, { 1 << 40 }>>(&["", "1", "1KB", "1kb", "1K", "1.1B", "2TiB", "-1B", "1 KiB"]);
    }

    #[test]
    fn rates_are_positive_and_per_a_known_time() {
        let read = |text: &str| PerTime::parse(&DeValue::String(text.into())).unwrap().0;
        assert_eq!((read("100/s").count(), read("100/s").per()), (100, Duration::from_secs(1)));
        assert_eq!(
            [read("1/min").per(), read("1/h").per(), read("1/d").per()],
            [60, 3_600, 86_400].map(Duration::from_secs)
        );
        refuses::<PerTime>(&["", "100", "0/s", "100/", "/s", "100/m", "1.5/s", "-1/s", "1000000001/s", "100/s/s"]);
    }

    #[test]
    fn shares_are_percentages_or_numbers() {
        let read = |text: &str| Share::parse(DeValue::parse(text).unwrap().get_ref()).unwrap().0.get();
        assert_eq!([read("0.1"), read("\"10%\""), read("1"), read("0"), read("\"0.5%\"")], [0.1, 0.1, 1.0, 0.0, 0.005]);
        refuses_values::<Share>(&["1.1", "-0.1", "nan", "inf", "\"10\"", "\"101%\"", "\"%\"", "10"]);
        accepts_values::<Factor>(&["1", "3.0", "100"]);
        refuses_values::<Factor>(&["0.9", "100.1", "nan", "\"3\""]);
    }

    #[test]
    fn ranges_are_told_in_the_largest_whole_unit() {
        assert_eq!(
            [millis(0), millis(250), millis(SECOND), millis(90_000), millis(DAY)],
            ["0s", "250ms", "1s", "90s", "1d"]
        );
        assert_eq!([bytes(0), bytes(1_000), bytes(16 << 10), bytes(1 << 40)], ["0B", "1000B", "16KiB", "1TiB"]);
    }

    #[test]
    fn a_word_of_a_list_is_suggested() {
        for (written, help) in [
            ("least_conn", Some("that is \"least_request\" here")),
            ("round-robin", Some("that is \"round_robin\" here")),
            ("maglef", Some("did you mean \"maglev\"?")),
            ("fastest", None),
        ] {
            let refusal = BalanceWord::parse(&DeValue::String(written.into())).unwrap_err();
            assert_eq!(refusal.help.as_deref(), help);
        }
    }
}
