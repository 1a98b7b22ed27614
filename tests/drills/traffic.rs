//! What clients saw: one sample a request, and the figures that are drawn from samples.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::time::Duration;

use crate::clock::Moment;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// With a whole response.
    Answer { status: u16, has_retry_after: bool },
    /// The connection broke, or ended before its response was whole.
    Lost,
    /// The gateway did not take the connection.
    NotConnected,
    /// No answer within the client's patience.
    TimedOut,
    /// Every connection that the load may have was waiting for an answer.
    NotSent,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) id: u64,
    pub(crate) is_post: bool,
    /// When it was due.
    pub(crate) due: Moment,
    /// How long after that it was begun: how far behind the load itself was.
    pub(crate) late: Duration,
    /// From when it was due to its end.
    pub(crate) latency: Duration,
    pub(crate) end: End,
}

/// All requests of one load, in the order in which they were due.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic(pub(crate) Vec<Sample>);

impl Sample {
    /// Whether the client got what it asked for.
    pub(crate) fn is_fine(&self) -> bool {
        matches!(self.end, End::Answer { status: 200..=299, .. })
    }

    /// The answer's status, if there was one.
    pub(crate) fn status(&self) -> Option<u16> {
        match self.end {
            End::Answer { status, .. } => Some(status),
            _ => None,
        }
    }

    /// A 503 that says when to come back.
    pub(crate) fn is_orderly_refusal(&self) -> bool {
        self.end == End::Answer { status: 503, has_retry_after: true }
    }
}

impl Traffic {
    /// Those for which `holds`.
    pub(crate) fn only(&self, holds: impl Fn(&Sample) -> bool) -> Self {
        Self(self.0.iter().copied().filter(|sample| holds(sample)).collect())
    }

    /// Those that were due from `begin` until before `end`.
    pub(crate) fn due(&self, begin: Moment, end: Moment) -> Self {
        self.only(|sample| (begin..end).contains(&sample.due))
    }

    /// GETs.
    pub(crate) fn gets(&self) -> Self {
        self.only(|sample| !sample.is_post)
    }

    /// POSTs.
    pub(crate) fn posts(&self) -> Self {
        self.only(|sample| sample.is_post)
    }

    /// Those that did not end with a 2xx.
    pub(crate) fn failed(&self) -> Self {
        self.only(|sample| !sample.is_fine())
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The latency that the share `q` of them stays within; nothing of nothing.
    pub(crate) fn latency(&self, q: f64) -> Option<Duration> {
        quantile(self.0.iter().map(|sample| sample.latency).collect(), q)
    }

    /// How far behind the load was at worst, but for one request in a thousand.
    pub(crate) fn lateness(&self) -> Duration {
        quantile(self.0.iter().map(|sample| sample.late).collect(), 0.999).unwrap_or_default()
    }

    /// "3 x 502, 1 x lost" of those that failed; empty if none did.
    pub(crate) fn failures(&self) -> String {
        let mut ends = BTreeMap::<String, usize>::new();
        for sample in &self.failed().0 {
            let name = match sample.end {
                End::Answer { status, .. } => status.to_string(),
                End::Lost => "lost".to_owned(),
                End::NotConnected => "not connected".to_owned(),
                End::TimedOut => "timed out".to_owned(),
                End::NotSent => "not sent".to_owned(),
            };
            *ends.entry(name).or_default() += 1;
        }
        let mut text = String::new();
        for (name, count) in ends {
            let comma = if text.is_empty() { "" } else { ", " };
            let _ = write!(text, "{comma}{count} x {name}");
        }
        text
    }

    /// Requests that were answered 2xx though no service acted on them, or that more services than one acted on.
    pub(crate) fn unseen_but_fine(&self, times: &HashMap<u64, u32>) -> usize {
        self.only(|sample| sample.is_fine() && !times.contains_key(&sample.id)).count()
    }

    /// Those that services acted on more than once.
    pub(crate) fn acted_on_twice(&self, times: &HashMap<u64, u32>) -> Self {
        self.only(|sample| times.get(&sample.id).is_some_and(|times| *times > 1))
    }
}

fn quantile(mut values: Vec<Duration>, q: f64) -> Option<Duration> {
    values.sort_unstable();
    let last = values.len().checked_sub(1)?;
    let rank = ((values.len() as f64 * q).ceil() as usize).saturating_sub(1);
    Some(values[rank.min(last)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(id: u64, is_post: bool, end: End) -> Sample {
        let due = Duration::from_secs(id);
        Sample { id, is_post, due, late: Duration::ZERO, latency: Duration::from_millis(id), end }
    }

    fn traffic() -> Traffic {
        let answer = |status| End::Answer { status, has_retry_after: status == 503 };
        Traffic(vec![
            sample(1, false, answer(200)),
            sample(2, true, answer(503)),
            sample(3, false, End::Lost),
            sample(4, true, answer(204)),
        ])
    }

    #[test]
    fn everything_but_2xx_is_a_failure() {
        let failed = traffic().failed();
        assert_eq!(failed.0.iter().map(|sample| sample.id).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(traffic().failures(), "1 x 503, 1 x lost");
        assert_eq!((failed.gets().count(), failed.posts().count()), (1, 1));
        assert!(failed.0[0].is_orderly_refusal() && !failed.0[1].is_orderly_refusal());
    }

    #[test]
    fn a_window_has_its_begin_and_not_its_end() {
        assert_eq!(traffic().due(Duration::from_secs(2), Duration::from_secs(4)).count(), 2);
    }

    #[test]
    fn quantiles_are_of_the_values_themselves() {
        assert_eq!(traffic().latency(0.5), Some(Duration::from_millis(2)));
        assert_eq!(traffic().latency(0.99), Some(Duration::from_millis(4)));
        assert_eq!(traffic().latency(0.0), Some(Duration::from_millis(1)));
        assert_eq!(Traffic::default().latency(0.99), None);
    }

    #[test]
    fn duplicates_and_answers_from_nowhere_are_found() {
        let times = HashMap::from([(1, 2), (2, 1), (3, 1)]);
        assert_eq!(traffic().acted_on_twice(&times).count(), 1);
        assert_eq!(traffic().unseen_but_fine(&times), 1, "4 was answered 204 and nobody knows of it");
    }
}
