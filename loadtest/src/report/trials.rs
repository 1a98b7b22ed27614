//! Every trial and run in a table, thresholds, and the gates that a number has to pass.

use super::markup::Markup;
use super::table::{Cell, Table, Tone};
use super::words::{self, NOTHING};
use super::{Subject, groups, section};
use crate::result::{Gate, Outcome, Run, Verdict};

/// Rows of a table of trials at most; a longer search is in the result's file.
const TRIALS_MAX: usize = 500;

/// Writes the gates: what, measured, wanted, and advice where it does not hold.
pub(super) fn gates(page: &mut Markup, subjects: &[Subject]) {
    if subjects.iter().all(|subject| subject.outcome.gates.is_empty()) {
        return;
    }
    section(page, "validity", "May these numbers be believed?", |page| {
        for subject in subjects.iter().filter(|subject| !subject.outcome.gates.is_empty()) {
            heading(page, subject);
            of_gates(&subject.outcome.gates).draw(page);
        }
    });
}

fn heading(page: &mut Markup, subject: &Subject) {
    if !subject.name.is_empty() {
        page.leaf("h3", &[], &subject.name);
    }
}

fn of_gates(gates: &[Gate]) -> Table {
    let mut table = Table::new(&["gate", "", "measured", "wanted"]).stacked();
    for gate in gates {
        let advice = if gate.holds { "" } else { &gate.advice };
        table.row(vec![
            Cell::new(gate.name.as_str()).note(advice),
            Cell::met(gate.holds, ("holds", "does not hold")),
            gate.measured.as_str().into(),
            Cell::new(gate.wanted.as_str()).tone(Tone::Faint),
        ]);
    }
    table
}

/// Writes the thresholds of results and their phases.
pub(super) fn thresholds(page: &mut Markup, subjects: &[Subject]) {
    if subjects.iter().all(|subject| subject.outcome.all_verdicts().next().is_none()) {
        return;
    }
    section(page, "thresholds", "Thresholds", |page| {
        for subject in subjects {
            let table = of_verdicts(subject.outcome);
            if !table.is_empty() {
                heading(page, subject);
                table.draw(page);
            }
        }
    });
}

fn of_verdicts(outcome: &Outcome) -> Table {
    let mut table = Table::new(&["threshold", "", "measured", "wanted"]).stacked();
    let mut add = |verdict: &Verdict, whose: String| {
        table.row(vec![
            Cell::new(verdict.name.as_str()).note(whose),
            Cell::met(verdict.passed, ("met", "missed")),
            verdict.measured.as_str().into(),
            Cell::new(verdict.wanted.as_str()).tone(Tone::Faint),
        ]);
    };
    outcome.verdicts.iter().for_each(|verdict| add(verdict, String::new()));
    for drill in &outcome.drills {
        for phase in &drill.phases {
            let whose = format!("{}, {}", drill.gateway, phase.name);
            phase.verdicts.iter().for_each(|verdict| add(verdict, whose.clone()));
        }
    }
    table
}

/// Writes every run.
pub(super) fn runs(page: &mut Markup, subjects: &[Subject]) {
    if subjects.iter().all(|subject| subject.outcome.runs.is_empty()) {
        return;
    }
    section(page, "trials", "Every run", |page| {
        for subject in subjects.iter().filter(|subject| !subject.outcome.runs.is_empty()) {
            heading(page, subject);
            of_runs(&subject.outcome.runs).without_silent_columns().draw(page);
            if subject.outcome.runs.len() > TRIALS_MAX {
                page.leaf("p", &[("class", "remark")], "More are in the result's file.");
            }
        }
        let text = "Sent: p99 uncorrected, from when a request was really sent. Lag: how late the generator began requests, \
                    p99.9. Busy: of the busiest generator thread; steal: CPU that the hypervisor gave to others.";
        page.leaf("p", &[("class", "remark")], text);
    });
}

fn of_runs(runs: &[Run]) -> Table {
    let mut table = Table::new(&[
        "#",
        "run",
        "#rate",
        "#due",
        "#failed",
        "#p50",
        "#p99",
        "#p99.9",
        "#in flight",
        "#lag",
        "#busy",
        "#CPU a request",
        "passed",
    ])
    .dense();
    for (row, run) in runs.iter().take(TRIALS_MAX).enumerate() {
        let is_open = run.rate.is_some();
        // a closed loop has no due times, and so no latency that could be told
        let shown = |text: String| if is_open { text } else { NOTHING.to_owned() };
        let latency = |value: Option<f64>| Cell::from(shown(words::percentile(&run.latency, value)));
        table.row(vec![
            Cell::new((row + 1).to_string()).tone(Tone::Faint),
            Cell::new(run.label.as_str()).note(run.server.as_str()),
            run.rate.map_or_else(|| "closed".to_owned(), words::rate).into(),
            Cell::new(words::count(run.due)).note(format!("in {}", words::length(run.length))),
            failed(run),
            latency(run.latency.p50),
            latency(run.latency.p99).note(if is_open { sent(run) } else { String::new() }),
            latency(run.latency.p999),
            Cell::new(crate::units::digits(run.in_flight)).note(format!("max {}", words::count(run.in_flight_max))),
            shown(words::percentile(&run.lag, run.lag.p999)).into(),
            Cell::new(words::percent(run.generator_busy)).note(format!("steal {}", words::percent(run.steal))),
            words::cpu_each(run).map_or_else(|| NOTHING.to_owned(), words::micros).into(),
            passed(run),
        ]);
    }
    table
}

/// The uncorrected 99th percentile.
fn sent(run: &Run) -> String {
    format!("sent {}", words::percentile(&run.uncorrected, run.uncorrected.p99))
}

fn failed(run: &Run) -> Cell {
    let lost = words::failed(run.due, run.good);
    Cell::new(words::count(lost)).note(words::kinds(&run.failures)).bad_if(lost > 0)
}

fn passed(run: &Run) -> Cell {
    match &run.refused {
        Some(why) => Cell::met(false, ("", "no")).note(why.as_str()),
        None if matches!(run.label.as_str(), "probe" | "short" | "full") => Cell::met(true, ("yes", "")),
        None => NOTHING.into(),
    }
}

/// Runs with the same purpose and rate together: what a terminal has room for.
pub(super) fn grouped(outcome: &Outcome) -> Table {
    let mut table =
        Table::new(&["run", "server", "#rate", "#runs", "#failed", "#p50", "#p99", "#p99.9", "#CPU a request"]);
    for group in groups::all(outcome) {
        let sum = |part: fn(&Run) -> u64| group.runs.iter().map(|run| part(run)).sum::<u64>();
        let middle = |value: fn(&Run) -> Option<f64>| {
            let missing = |run: &Run| if run.latency.infinite > 0 { f64::INFINITY } else { f64::NAN };
            groups::median(group.runs.iter().map(|run| value(run).unwrap_or(missing(run))))
                .filter(|_| group.rate.is_some())
        };
        let trials = group.runs.iter().filter(|run| run.refused.is_some()).count();
        let runs = group.runs.len();
        table.row(vec![
            group.label.into(),
            group.server.into(),
            group.rate.map_or_else(|| "closed".to_owned(), words::rate).into(),
            if trials > 0 { format!("{runs}, {trials} not passed").into() } else { runs.to_string().into() },
            words::count(words::failed(sum(|run| run.due), sum(|run| run.good))).into(),
            words::time(middle(|run| run.latency.p50)).into(),
            words::time(middle(|run| run.latency.p99)).into(),
            words::time(middle(|run| run.latency.p999)).into(),
            groups::median(group.runs.iter().filter_map(|run| words::cpu_each(run)))
                .map_or_else(|| NOTHING.to_owned(), words::micros)
                .into(),
        ]);
    }
    table
}
