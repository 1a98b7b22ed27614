//! Services and faults as a plan writes them: one line of text each.
//!
//! The same texts are understood by `ringgate-load upstream` and its control socket, and what is made of them here prints as such a line.

use super::values::short_time;
use crate::upstream::{Fault, Time};
use ringgate::config::reading::{DeValue, Refusal, Scalar, Share, did_you_mean, integer, json, scalar_schema, text};
use std::fmt;
use std::time::Duration;

/// Instances that one upstream may have.
pub(super) const INSTANCES_MAX: u64 = 64;
/// Highest service rate of an M/M/1, requests a second.
const SERVICE_RATE_MAX: f64 = 10_000_000.0;

/// A service time of a plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ServiceText(pub Time);

impl Scalar for ServiceText {
    fn allowed() -> String {
        "a service time: \"5ms\" (always), \"lognormal 2ms 8ms\" (median, p99) or \"mm1 2000/s\" (one server with a queue)"
            .to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        let words: Vec<_> = written.split_ascii_whitespace().collect();
        let service = match words[..] {
            ["0"] => Time::Fixed(Duration::ZERO),
            ["fixed", time] => return Err(Refusal::plain().help(format!("did you mean {time:?}?"))),
            ["lognormal", median, p99] => {
                let (median, p99) = (short_time(median, false)?, short_time(p99, false)?);
                if p99 < median {
                    let help = format!("did you mean \"lognormal {p99:?} {median:?}\"?");
                    return Err(Refusal::why("the median comes first, and is not above the p99").help(help));
                }
                Time::Lognormal { median, p99 }
            }
            ["mm1", rate] => {
                let rate = rate.strip_suffix("/s").and_then(|rate| rate.parse::<f64>().ok());
                let rate = rate.filter(|rate| *rate > 0.0 && *rate <= SERVICE_RATE_MAX);
                Time::MM1 { rate: rate.ok_or_else(|| Refusal::why("a service rate is so many a second: 2000/s"))? }
            }
            [time] if time.starts_with(|c: char| c.is_ascii_digit()) => Time::Fixed(short_time(time, true)?),
            _ => {
                return Err(Refusal {
                    why: None,
                    help: did_you_mean(words.first().unwrap_or(&""), ["lognormal", "mm1"]),
                });
            }
        };
        Ok(Self(service))
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// What is done to an instance of an upstream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Act {
    /// Its process is killed: connections are reset, new ones refused.
    Kill,
    /// It is there again, after a kill or for the first time.
    Start,
    /// Killed and started in turn, each after this time, until `fine`, `start` or the end of the phase.
    Flap(Duration),
    /// It is told to fail.
    Tell(Fault),
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill => f.write_str("kill"),
            Self::Start => f.write_str("start"),
            Self::Flap(time) => write!(f, "flap {time:?}"),
            Self::Tell(fault) => fault.fmt(f),
        }
    }
}

/// Words that an [`Act`] begins with, and an example of what follows, where something does.
const ACTS: &[(&str, Option<&str>)] = &[
    ("kill", None),
    ("start", None),
    ("fine", None),
    ("slow", Some("200ms")),
    ("drip", Some("10ms")),
    ("error", Some("20%")),
    ("blackhole", None),
    ("reset", None),
    ("freeze", Some("1.4s")),
    ("flap", Some("500ms")),
];

/// An [`Act`] of a plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ActText(pub Act);

impl Scalar for ActText {
    fn allowed() -> String {
        let form = |(word, example): &(&str, Option<&str>)| {
            [Some(*word), *example].into_iter().flatten().collect::<Vec<_>>().join(" ")
        };
        format!("one of {}", ACTS.iter().map(form).collect::<Vec<_>>().join(", "))
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let (word, argument) = word_and_argument(text(value)?, ACTS)?;
        let time = || short_time(argument, false);
        let act = match word {
            "kill" => Act::Kill,
            "start" => Act::Start,
            "fine" => Act::Tell(Fault::Fine),
            "slow" => Act::Tell(Fault::Slow(short_time(argument.trim_start_matches('+'), false)?)),
            "drip" => Act::Tell(Fault::Drip(time()?)),
            "blackhole" => Act::Tell(Fault::Blackhole),
            "reset" => Act::Tell(Fault::Reset),
            "freeze" => Act::Tell(Fault::Freeze(time()?)),
            "flap" => Act::Flap(time()?),
            _ => {
                let share = Share::parse(&DeValue::String(argument.into())).ok().map(|share| share.0.get());
                let share = share.filter(|share| *share > 0.0);
                Act::Tell(Fault::Error(share.ok_or_else(|| Refusal::why("a share is a percentage, such as 20%"))?))
            }
        };
        Ok(Self(act))
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^(kill|start|fine|blackhole|reset|(slow|drip|error|freeze|flap) .+)$" })
    }
}

/// A line of one of these words and, where the word wants one, an argument.
fn word_and_argument<'t>(
    written: &'t str,
    words: &[(&'static str, Option<&str>)],
) -> Result<(&'static str, &'t str), Refusal> {
    let written = written.trim();
    let (word, argument) = written.split_once(' ').map_or((written, ""), |(word, rest)| (word, rest.trim()));
    let Some((known, example)) = words.iter().find(|(known, _)| *known == word) else {
        return Err(Refusal { why: None, help: did_you_mean(word, words.iter().map(|(known, _)| *known)) });
    };
    match (example, argument) {
        (Some(example), "") => {
            Err(Refusal::why(format!("{word} of what?")).help(format!("write \"{word} {example}\"")))
        }
        (None, "") | (Some(_), _) => Ok((known, argument)),
        (None, argument) => Err(Refusal::why(format!("{word} takes nothing, and there is {argument:?}"))),
    }
}

/// What is done to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewayAct {
    /// It reads its configuration anew, or is replaced by a successor, as it does that.
    Reload,
    /// Its process is stopped (SIGSTOP) for this time.
    Freeze(Duration),
}

impl fmt::Display for GatewayAct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reload => f.write_str("reload"),
            Self::Freeze(time) => write!(f, "freeze {time:?}"),
        }
    }
}

/// A [`GatewayAct`] of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewayActText(pub GatewayAct);

const GATEWAY_ACTS: &[(&str, Option<&str>)] = &[("reload", None), ("freeze", Some("1s"))];

impl Scalar for GatewayActText {
    fn allowed() -> String {
        "\"reload\" or \"freeze 1s\"".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        match word_and_argument(text(value)?, GATEWAY_ACTS)? {
            ("reload", _) => Ok(Self(GatewayAct::Reload)),
            (_, time) => Ok(Self(GatewayAct::Freeze(short_time(time, false)?))),
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^(reload|freeze .+)$" })
    }
}

/// Which instances of an upstream are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Every one.
    All,
    /// This one, from 1.
    One(usize),
}

impl Scalar for Which {
    fn allowed() -> String {
        format!("the number of an instance from 1 to {INSTANCES_MAX}, or \"all\"")
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        match value {
            DeValue::String(word) if word == "all" => Ok(Self::All),
            DeValue::String(word) if word.parse::<u64>().is_ok() => {
                Err(Refusal::plain().help(format!("without quotes: {word}")))
            }
            DeValue::String(word) => Err(Refusal { why: None, help: did_you_mean(word, ["all"]) }),
            _ => {
                let number = integer(value).filter(|n| (1..=INSTANCES_MAX).contains(n));
                number.and_then(|n| usize::try_from(n).ok()).map(Self::One).ok_or_else(Refusal::plain)
            }
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "anyOf": [{ "const": "all" }, { "type": "integer", "minimum": 1, "maximum": INSTANCES_MAX }] })
    }
}

/// Paths that an upstream's route takes: whole segments, as `match.path` of the gateway's configuration has them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Prefix(pub String);

impl Scalar for Prefix {
    fn allowed() -> String {
        "\"/*\" for all paths, or a prefix of whole segments such as \"/orders/*\"".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        let is_plain = |path: &str| {
            path.len() <= 1_024
                && !path.contains("//")
                && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~".contains(&b))
        };
        let stem = written.strip_suffix("/*");
        if let Some(stem) = stem.filter(|stem| (stem.is_empty() || stem.starts_with('/')) && is_plain(stem)) {
            return Ok(Self(stem.to_owned()));
        }
        let bare = written.trim_matches(['/', '*']);
        let meant = if bare.is_empty() { "/*".to_owned() } else { format!("/{bare}/*") };
        let help = is_plain(bare).then(|| format!("did you mean {meant:?}?"));
        Err(Refusal { why: None, help })
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^/.*\\*$" })
    }
}

impl Prefix {
    /// Whether a request for this path (with its query) is meant.
    #[must_use]
    pub fn takes(&self, path: &str) -> bool {
        let path = path.split('?').next().unwrap_or(path);
        path.strip_prefix(&self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

scalar_schema!(ServiceText, ActText, GatewayActText, Which, Prefix);

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Scalar>(written: &str) -> Result<T, Refusal> {
        T::parse(&DeValue::String(written.into()))
    }

    #[test]
    fn services_and_faults_read_as_they_are_written() {
        for written in ["0", "5ms", "1.5ms", "200µs", "lognormal 2ms 8ms", "mm1 2000/s", "mm1 0.5/s"] {
            let ascii = written.replace('µ', "u");
            let service = read::<ServiceText>(&ascii).unwrap_or_else(|refusal| panic!("{written}: {refusal:?}"));
            assert_eq!(service.0.to_string(), written);
        }
        for written in [
            "kill",
            "start",
            "fine",
            "slow 200ms",
            "drip 10ms",
            "error 20%",
            "error 0.1%",
            "blackhole",
            "reset",
            "freeze 1.4s",
            "flap 500ms",
        ] {
            let act = read::<ActText>(written).unwrap_or_else(|refusal| panic!("{written}: {refusal:?}"));
            assert_eq!(act.0.to_string(), written);
        }
        assert_eq!(read::<ActText>("slow +200ms").expect("it is one").0.to_string(), "slow 200ms");
        assert_eq!(read::<GatewayActText>("freeze 1s").expect("it is one").0.to_string(), "freeze 1s");
    }

    #[test]
    fn what_is_wrong_is_said_with_what_was_meant() {
        let act = |written| read::<ActText>(written).unwrap_err();
        assert_eq!(act("kil").help.as_deref(), Some("did you mean \"kill\"?"));
        assert_eq!(act("slow").help.as_deref(), Some("write \"slow 200ms\""));
        assert!(act("slow 200").help.is_none() && act("slow 200").why.is_some());
        assert!(act("kill 3").why.expect("said").contains("takes nothing"));
        for wrong in ["", "error 0%", "error 120%", "error x", "freeze 0s", "flap 1d", "drip"] {
            assert!(read::<ActText>(wrong).is_err(), "{wrong}");
        }
        let service = |written| read::<ServiceText>(written).unwrap_err().help.unwrap_or_default();
        assert!(service("fixed 1ms").contains("\"1ms\"") && service("lognorml 1ms 2ms").contains("lognormal"));
        assert!(service("lognormal 8ms 2ms").contains("lognormal 2ms 8ms"));
        for wrong in ["", "5", "mm1 2000", "mm1 0/s", "mm1 nan/s", "mm1 inf/s", "lognormal 2ms"] {
            assert!(read::<ServiceText>(wrong).is_err(), "{wrong}");
        }
        assert!(read::<Prefix>("/orders").unwrap_err().help.unwrap().contains("\"/orders/*\""));
    }

    #[test]
    fn a_prefix_takes_whole_segments() {
        let orders = read::<Prefix>("/orders/*").expect("it is one");
        assert!(orders.takes("/orders") && orders.takes("/orders/7?x") && orders.takes("/orders?x"));
        assert!(!orders.takes("/orders7") && !orders.takes("/"));
        assert!(read::<Prefix>("/*").expect("it is one").takes("/anything"));
    }
}
