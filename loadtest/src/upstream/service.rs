//! A service as it is described: where it listens, how long it takes, how much it says.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use super::words::{self, Misread};

/// One instance of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Where it listens; port 0 for one that is free.
    pub listen: SocketAddr,
    /// How long an answer takes.
    pub time: Time,
    /// Bytes of an answer's body, at most [`Service::BODY_BYTES_MAX`].
    pub body_bytes: usize,
    /// Of service times and of which answers are errors. Each instance should have its own.
    pub seed: u64,
}

impl Service {
    /// 1 GiB: the body is in memory, once.
    pub const BODY_BYTES_MAX: usize = 1 << 30;
}

/// How long a service takes from the last byte of a request to the first of its answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Time {
    /// `5ms`: always this long, however many ask; 0 to answer at once.
    Fixed(Duration),
    /// `lognormal 2ms 20ms`: median, and what 99 % do not exceed; independent of each other and of how many ask.
    Lognormal {
        /// Half take no longer; above 0.
        median: Duration,
        /// 99 % take no longer; at least the median.
        p99: Duration,
    },
    /// `mm1 2000/s`: one server that serves in the order of arrival and needs an exponential time, on average 1 / rate, for each; who finds
    /// it busy waits. Time passes as computed: an answer that leaves late delays no other.
    MM1 {
        /// Requests a second that it can serve; above 0.
        rate: f64,
    },
}

/// How a time looks.
const FORMS: &str = "5ms, lognormal 2ms 20ms (median, p99) or mm1 2000/s";

impl FromStr for Time {
    type Err = Misread;

    fn from_str(text: &str) -> Result<Self, Misread> {
        let words: Vec<_> = text.split_ascii_whitespace().collect();
        match words[..] {
            ["lognormal", median, p99] => {
                let (median, p99) = (words::time_above_zero(median)?, words::time_above_zero(p99)?);
                if p99 < median {
                    return Err(Misread(format!(
                        "the median {median:?} is above the p99 {p99:?}; the median comes first"
                    )));
                }
                Ok(Self::Lognormal { median, p99 })
            }
            ["mm1", rate] => Ok(Self::MM1 { rate: words::rate(rate)? }),
            [time] if time.starts_with(|c: char| c.is_ascii_digit()) => Ok(Self::Fixed(words::time(time)?)),
            _ => Err(Misread(format!("{text:?} is no service time: {FORMS}"))),
        }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(time) if time.is_zero() => f.write_str("0"),
            Self::Fixed(time) => write!(f, "{time:?}"),
            Self::Lognormal { median, p99 } => write!(f, "lognormal {median:?} {p99:?}"),
            Self::MM1 { rate } => write!(f, "mm1 {rate}/s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_time_reads_as_it_is_written() {
        for text in ["0", "5ms", "1.5ms", "lognormal 2ms 20ms", "mm1 2000/s", "mm1 0.5/s"] {
            assert_eq!(text.parse::<Time>().map(|time| time.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, error) in [
            ("5", "a time has a unit: 5ms?".to_owned()),
            ("mm1 2000", "a rate is so many a second: 2000/s?".to_owned()),
            ("lognormal 20ms 2ms", "the median 20ms is above the p99 2ms; the median comes first".to_owned()),
            ("lognormal 2ms", format!("\"lognormal 2ms\" is no service time: {FORMS}")),
            ("normal", format!("\"normal\" is no service time: {FORMS}")),
        ] {
            assert_eq!(text.parse::<Time>().map_err(|e| e.to_string()), Err(error));
        }
    }
}
