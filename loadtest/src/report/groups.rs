//! Runs of a result that belong together: trials of one rate, rows of a list.

use crate::result::{Outcome, Run};

/// How far apart two rates may be and still count as the same, as a share: rates are decided beforehand and differ by rounding only.
const SAME_RATE: f64 = 0.001;

/// Runs with the same purpose, server and rate.
#[derive(Clone, Debug)]
pub(super) struct Group<'a> {
    /// Of [`Run::label`].
    pub(super) label: &'a str,
    /// Of [`Run::server`].
    pub(super) server: &'a str,
    /// Requests a second; `None`: closed loop.
    pub(super) rate: Option<f64>,
    /// In the order in which they were made; at least one.
    pub(super) runs: Vec<&'a Run>,
}

/// Whether two rates count as the same.
pub(super) fn is_same_rate(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() <= SAME_RATE * a.abs().max(b.abs()),
        (None, None) => true,
        _ => false,
    }
}

/// All runs but those that only warm up, grouped, in the order of their first ones.
pub(super) fn all(outcome: &Outcome) -> Vec<Group<'_>> {
    let mut groups: Vec<Group> = Vec::new();
    for run in outcome.runs.iter().filter(|run| run.label != "warm-up") {
        let (label, server) = (run.label.as_str(), run.server.as_str());
        let same =
            |group: &&mut Group| group.label == label && group.server == server && is_same_rate(group.rate, run.rate);
        match groups.iter_mut().find(same) {
            Some(group) => group.runs.push(run),
            None => groups.push(Group { label, server, rate: run.rate, runs: vec![run] }),
        }
    }
    groups
}

/// Full trials of a search at this rate.
pub(super) fn full_trials(outcome: &Outcome, rate: f64) -> Vec<&Run> {
    let full = |run: &&Run| run.label == "full" && is_same_rate(run.rate, Some(rate));
    outcome.runs.iter().filter(full).collect()
}

/// The runs of these rows; a row that is none is left out.
pub(super) fn rows<'a>(outcome: &'a Outcome, rows: &[usize]) -> Vec<&'a Run> {
    rows.iter().filter_map(|row| outcome.runs.get(*row)).collect()
}

/// The middle one, the lower of two; `None` of nothing.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.into_iter().filter(|value| !value.is_nan()).collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}
