//! What has to hold of the whole: thresholds as values, which of them a command can judge, and how results keep them.
//!
//! A threshold that nobody judges is a check that cannot fail, so commands say which they judge (see `commands::session::thresholds`).

use super::Allowed;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What has to hold of the whole; `None`: it is not asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Thresholds {
    /// Median; in results seconds, as all times.
    #[serde(with = "seconds")]
    pub max_p50: Option<Duration>,
    /// 99th percentile.
    #[serde(with = "seconds")]
    pub max_p99: Option<Duration>,
    /// 99.9th percentile.
    #[serde(with = "seconds")]
    pub max_p999: Option<Duration>,
    /// Of all requests.
    pub max_failed: Option<Allowed>,
    /// Good of due, 0 to 1.
    pub min_goodput: Option<f64>,
    /// Requests a second that are shown to hold.
    pub min_capacity: Option<f64>,
    /// CPU time for each good request.
    #[serde(with = "seconds")]
    pub max_cpu: Option<Duration>,
    /// Resident bytes at the end.
    pub max_memory: Option<u64>,
    /// Of `size`.
    pub max_hosts: Option<u64>,
}

/// What a threshold is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// One load on one server.
    Run,
    /// A bracket of capacity.
    Capacity,
    /// A number of hosts.
    Hosts,
}

impl Thresholds {
    /// Keys of those that are asked for: such as are about one of `judged`, and the others.
    #[must_use]
    pub fn keys(&self, judged: &[About]) -> (Vec<&'static str>, Vec<&'static str>) {
        let all = [
            ("max_p50", self.max_p50.is_some(), About::Run),
            ("max_p99", self.max_p99.is_some(), About::Run),
            ("max_p999", self.max_p999.is_some(), About::Run),
            ("max_failed", self.max_failed.is_some(), About::Run),
            ("min_goodput", self.min_goodput.is_some(), About::Run),
            ("min_capacity", self.min_capacity.is_some(), About::Capacity),
            ("max_cpu", self.max_cpu.is_some(), About::Run),
            ("max_memory", self.max_memory.is_some(), About::Run),
            ("max_hosts", self.max_hosts.is_some(), About::Hosts),
        ];
        let asked = all.into_iter().filter(|(_, is_asked, _)| *is_asked);
        let (of_those, others): (Vec<_>, Vec<_>) = asked.partition(|(.., about)| judged.contains(about));
        let names = |rows: Vec<(&'static str, bool, About)>| rows.into_iter().map(|(name, ..)| name).collect();
        (names(of_those), names(others))
    }
}

/// Times as seconds.
mod seconds {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
    use std::time::Duration;

    #[expect(clippy::ref_option, reason = "as serde calls it")]
    pub(super) fn serialize<S: Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        time.map(|time| time.as_secs_f64()).serialize(to)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Option<Duration>, D::Error> {
        let time = |seconds: f64| Duration::try_from_secs_f64(seconds).map_err(D::Error::custom);
        Option::<f64>::deserialize(from)?.map(time).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_thresholds_as_they_were() {
        let thresholds = Thresholds {
            max_p99: Some(Duration::from_millis(20)),
            max_cpu: Some(Duration::from_micros(80)),
            max_failed: Some(Allowed::Share(0.000_1)),
            max_hosts: Some(7),
            ..Thresholds::default()
        };
        let text = serde_json::to_string(&thresholds).unwrap();
        assert!(text.contains("\"max_p99\":0.02"), "{text}");
        assert_eq!(serde_json::from_str::<Thresholds>(&text).unwrap(), thresholds);
        assert_eq!(serde_json::from_str::<Thresholds>("{}").unwrap(), Thresholds::default());
        assert!(serde_json::from_str::<Thresholds>("{\"max_p99\":-1}").is_err());
        let both = (vec!["max_p99", "max_failed", "max_cpu"], vec!["max_hosts"]);
        assert_eq!(thresholds.keys(&[About::Run]), both);
        assert_eq!(thresholds.keys(&[About::Hosts]).0, ["max_hosts"]);
    }
}
