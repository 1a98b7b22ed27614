//! What can be wrong with a service, as one line of text.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::words::{self, Misread};

/// How a service fails. It concerns requests that arrive while it is on; what was asked before is answered as it would have been.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Fault {
    /// Nothing is wrong. Ends a [`Fault::Freeze`] too.
    #[default]
    Fine,
    /// `slow 200ms`: each answer takes this much longer. It does not keep a server of M/M/1 busy.
    Slow(Duration),
    /// `drip 10ms`: the answer's head comes when it is due, then one byte of its body after each such time.
    Drip(Duration),
    /// `error 20%`: this share of all answers, 0 to 1, is a 503, after the same time.
    Error(f64),
    /// `blackhole`: connections are accepted, requests are read and never answered, also not when all is well again.
    Blackhole,
    /// `reset`: the connection of each request is reset (RST) as soon as the request is whole.
    Reset,
    /// `freeze 1.4s`: what becomes due from now on is answered at the end of this time, then all is as it was.
    Freeze(Duration),
}

/// What a line may begin with, and how it looks.
const FORMS: &str = "fine, slow 200ms, drip 10ms, error 20%, blackhole, reset or freeze 1.4s";

impl FromStr for Fault {
    type Err = Misread;

    fn from_str(text: &str) -> Result<Self, Misread> {
        let mut words = text.split_ascii_whitespace();
        let name = words.next().ok_or_else(|| Misread(format!("a fault is missing: {FORMS}")))?;
        let (argument, rest) = (words.next(), words.next());
        if let Some(rest) = rest {
            return Err(Misread(format!("{rest:?} is too much: {FORMS}")));
        }
        let wanted = |example: &str| argument.ok_or_else(|| Misread(format!("{name} of what? {name} {example}")));
        let fault = match name {
            "slow" => return Ok(Self::Slow(words::time_above_zero(wanted("200ms")?)?)),
            "drip" => return Ok(Self::Drip(words::time_above_zero(wanted("10ms")?)?)),
            "error" => return Ok(Self::Error(words::share(wanted("20%")?)?)),
            "freeze" => return Ok(Self::Freeze(words::time_above_zero(wanted("1.4s")?)?)),
            "fine" => Self::Fine,
            "blackhole" => Self::Blackhole,
            "reset" => Self::Reset,
            _ => return Err(Misread(format!("{name:?} is no fault: {FORMS}"))),
        };
        match argument {
            None => Ok(fault),
            Some(argument) => Err(Misread(format!("{name} takes nothing, and there is {argument:?}"))),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fine => f.write_str("fine"),
            Self::Slow(time) => write!(f, "slow {time:?}"),
            Self::Drip(time) => write!(f, "drip {time:?}"),
            Self::Error(share) => write!(f, "error {}%", percent(*share)),
            Self::Blackhole => f.write_str("blackhole"),
            Self::Reset => f.write_str("reset"),
            Self::Freeze(time) => write!(f, "freeze {time:?}"),
        }
    }
}

/// Without what binary fractions add: six digits after the point at most.
fn percent(share: f64) -> f64 {
    (share * 1e8).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_reads_as_it_is_written() {
        for text in ["fine", "slow 200ms", "drip 10ms", "error 20%", "error 0.1%", "blackhole", "reset", "freeze 1.4s"]
        {
            assert_eq!(text.parse::<Fault>().map(|fault| fault.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(" slow  50us ".parse(), Ok(Fault::Slow(Duration::from_micros(50))));
        assert_eq!(Fault::Slow(Duration::from_micros(1_500)).to_string().parse(), "slow 1.5ms".parse::<Fault>());
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, error) in [
            ("slow 200", "a time has a unit: 200ms?".to_owned()),
            ("slow", "slow of what? slow 200ms".to_owned()),
            ("error 20", "a share has a percent sign: 20%?".to_owned()),
            ("reset now", "reset takes nothing, and there is \"now\"".to_owned()),
            ("slow 1s 2s", format!("\"2s\" is too much: {FORMS}")),
            ("flap", format!("\"flap\" is no fault: {FORMS}")),
            ("", format!("a fault is missing: {FORMS}")),
        ] {
            assert_eq!(text.parse::<Fault>().map_err(|e| e.to_string()), Err(error));
        }
    }
}
