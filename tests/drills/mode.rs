//! How a service answers, and the line of text that tells it so.

use std::fmt;
use std::str::FromStr;

/// What a service does with the requests that it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// 200.
    Fine,
    /// 500 to every second request, else 200.
    HalfErrors,
    /// 503.
    Unavailable,
    /// 429 with `Retry-After` to that many requests, then 200.
    TooMany { answers: u32, retry_after_s: u32 },
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fine => f.write_str("fine"),
            Self::HalfErrors => f.write_str("half"),
            Self::Unavailable => f.write_str("unavailable"),
            Self::TooMany { answers, retry_after_s } => write!(f, "too-many {answers} {retry_after_s}"),
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let words: Vec<_> = line.split_whitespace().collect();
        let number = |word: &str| word.parse().map_err(|error| format!("{line}: {error}"));
        match words[..] {
            ["fine"] => Ok(Self::Fine),
            ["half"] => Ok(Self::HalfErrors),
            ["unavailable"] => Ok(Self::Unavailable),
            ["too-many", answers, seconds] => {
                Ok(Self::TooMany { answers: number(answers)?, retry_after_s: number(seconds)? })
            }
            _ => Err(format!("{line}: no such mode")),
        }
    }
}
