//! What one drill found out about one gateway: figures, some of them with a limit.

use std::collections::HashMap;
use std::fmt::Display;
use std::time::Duration;

use crate::fleet::Fleet;
use crate::traffic::Traffic;

/// A load that was further behind than this has its figures remarked on: the machine was busy with something else.
const LATENESS_MAX: Duration = Duration::from_millis(25);

/// One figure.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub(crate) what: &'static str,
    pub(crate) measured: String,
    /// What it has to be; nothing where it is only told.
    pub(crate) wanted: String,
    pub(crate) held: bool,
}

/// All figures of one drill and one gateway.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) checks: Vec<Check>,
    pub(crate) remarks: Vec<String>,
    /// The one line for the README.
    pub(crate) summary: String,
}

impl Report {
    /// A report on this traffic, whose own figures are believable.
    ///
    /// Fails where the tool itself must be wrong: no traffic, or an answer 200 to a request that no service knows of.
    pub(crate) fn of(traffic: &Traffic, fleet: &Fleet) -> anyhow::Result<(Self, HashMap<u64, u32>)> {
        let times = fleet.times_acted_on()?;
        let unseen = traffic.unseen_but_fine(&times);
        anyhow::ensure!(traffic.count() > 0, "there was no traffic");
        anyhow::ensure!(unseen == 0, "{unseen} requests were answered 2xx and no service has seen them");
        let mut report = Self::default();
        let failures = traffic.failures();
        if !failures.is_empty() {
            report.remarks.push(format!("of {} requests {failures}", traffic.count()));
        }
        let lateness = traffic.lateness();
        if lateness > LATENESS_MAX {
            report.remarks.push(format!("the load was {} late (p99.9): a busy machine", milliseconds(lateness)));
        }
        Ok((report, times))
    }

    /// The same with its line for the README.
    pub(crate) fn summed_up(mut self, summary: String) -> Self {
        self.summary = summary;
        self
    }

    /// Whether everything is as wanted.
    pub(crate) fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.held)
    }

    /// A number that is told and not judged.
    pub(crate) fn tell(&mut self, what: &'static str, measured: impl Display) {
        self.add(what, measured.to_string(), String::new(), true);
    }

    /// None of them may be.
    pub(crate) fn none(&mut self, what: &'static str, count: usize) {
        self.add(what, count.to_string(), "0".to_owned(), count == 0);
    }

    /// A number that must be there and be at most `most`.
    pub(crate) fn at_most(&mut self, what: &'static str, measured: Option<f64>, most: f64, unit: &str) {
        let text = measured.map_or_else(|| "unknown".to_owned(), |measured| format!("{measured:.2}{unit}"));
        self.add(what, text, format!("<= {most}{unit}"), measured.is_some_and(|measured| measured <= most));
    }

    /// A time that must be there and be at most `most`.
    pub(crate) fn within(&mut self, what: &'static str, measured: Option<Duration>, most: Duration) {
        let text = measured.map_or_else(|| "never".to_owned(), milliseconds);
        let held = measured.is_some_and(|measured| measured <= most);
        self.add(what, text, format!("<= {}", milliseconds(most)), held);
    }

    fn add(&mut self, what: &'static str, measured: String, wanted: String, held: bool) {
        self.checks.push(Check { what, measured, wanted, held });
    }
}

/// "12.3 ms" or "1.50 s".
pub(crate) fn milliseconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 1.0 { format!("{:.1} ms", seconds * 1e3) } else { format!("{seconds:.2} s") }
}

/// `count` as a part of `whole`; nothing of nothing.
pub(crate) fn share(count: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| count as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_check_that_did_not_hold_is_a_failure() {
        let mut report = Report::default();
        report.tell("requests", 5);
        report.none("failed", 0);
        report.at_most("attempts a request", Some(1.3), 1.3, "");
        report.within("slowest", Some(Duration::from_secs(1)), Duration::from_secs(1));
        assert!(report.passed());
        for spoil in [
            (|report| report.none("failed", 1)) as fn(&mut Report),
            |report| report.at_most("attempts a request", Some(1.31), 1.3, ""),
            |report| report.at_most("attempts a request", None, 1.3, ""),
            |report| report.within("slowest", Some(Duration::from_millis(1001)), Duration::from_secs(1)),
            |report| report.within("slowest", None, Duration::from_secs(1)),
        ] {
            let mut spoilt = report.clone();
            spoil(&mut spoilt);
            assert!(!spoilt.passed());
        }
    }

    #[test]
    fn figures_have_their_units() {
        assert_eq!(milliseconds(Duration::from_micros(12_340)), "12.3 ms");
        assert_eq!(milliseconds(Duration::from_millis(1_500)), "1.50 s");
        assert_eq!(share(1, 4), Some(0.25));
        assert_eq!(share(0, 0), None);
    }
}
