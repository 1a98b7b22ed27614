//! A result in lines for a terminal: the verdict first, one table, what needs attention, and a last line that a script can read.

use super::table::{Table, one_line};
use super::{drills, handshakes, peers, trials, verdict, words};
use crate::result::{Outcome, SPOILED};
use crate::wire::Failure;
use std::collections::{BTreeMap, BTreeSet};

/// What a terminal shows at the end of a command. The last line is `N passed, N failed`, counting thresholds; when a gate does not hold it
/// begins with `INVALID: `, when it was ended early with `PARTIAL: `. No control characters from outside pass through.
#[must_use]
pub fn text(outcome: &Outcome) -> String {
    let mut text = one_line(&verdict::headline(outcome));
    text.push('\n');
    if !outcome.is_valid() {
        text.push_str(&format!("Not to be relied on: {}\n", one_line(&verdict::finding(outcome))));
    }
    let partial = verdict::of_partial(outcome);
    if !partial.is_empty() {
        text.push_str(&format!("{partial}\n"));
    }
    for table in tables(outcome).into_iter().filter(|table| !table.is_empty()) {
        text.push('\n');
        text.push_str(&table.without_silent_columns().lines());
    }
    attention(outcome, &mut text);
    if !outcome.runs.is_empty() {
        text.push_str(&format!("\nSeed {}\n", outcome.seed));
    }
    let (mut passed, mut failed) = (0_u64, 0_u64);
    outcome.all_verdicts().for_each(|verdict| if verdict.passed { passed += 1 } else { failed += 1 });
    let prefix = match () {
        () if !outcome.is_valid() => "INVALID: ",
        () if outcome.is_partial => "PARTIAL: ",
        () => "",
    };
    text.push_str(&format!("\n{prefix}{passed} passed, {failed} failed\n"));
    text
}

fn tables(outcome: &Outcome) -> Vec<Table> {
    let mut tables = Vec::new();
    if let Some(sizing) = &outcome.sizing {
        tables.push(peers::hosts(sizing));
    }
    if let Some(side_by_side) = &outcome.peers {
        tables.extend([peers::table(side_by_side), peers::ratios(side_by_side)]);
    } else if !outcome.drills.is_empty() {
        let drills: Vec<_> = outcome.drills.iter().map(|drill| (drill.gateway.clone(), drill)).collect();
        tables.push(drills::phases_of(&drills));
    } else {
        tables.push(trials::grouped(outcome));
    }
    tables.push(handshakes::table(outcome));
    tables
}

/// Kinds of failures in a list, at most: results may come from anywhere.
const KINDS_MAX: usize = 40;

/// How many requests of each server have failed, and how; of all runs that count.
fn failures(outcome: &Outcome) -> Vec<String> {
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for run in outcome.runs.iter().filter(|run| run.label != SPOILED) {
        for (kind, count) in run.failures.iter().filter(|(_, count)| **count > 0) {
            let sum = counts.entry((&run.server, kind)).or_default();
            *sum = sum.saturating_add(*count);
        }
    }
    let meaning = |name: &str| Failure::ALL.into_iter().find(|kind| kind.name() == name).map_or("", Failure::meaning);
    let statuses = |server: &str| {
        let of = outcome.runs.iter().filter(|run| run.server == server && run.label != SPOILED);
        let all: BTreeSet<u16> = of.flat_map(|run| run.statuses.keys().copied()).collect();
        all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let said = counts.iter().take(KINDS_MAX).map(|((server, kind), count)| {
        let which =
            if *kind == Failure::Status.name() { format!("; seen: {}", statuses(server)) } else { String::new() };
        format!("{server}: {} {kind} ({}{which})", words::count(*count), meaning(kind))
    });
    said.collect()
}

/// Gates and thresholds that were not met, and remarks.
fn attention(outcome: &Outcome, text: &mut String) {
    let mut part = |heading: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            text.push_str(&format!("\n{heading}\n"));
            lines.iter().for_each(|line| text.push_str(&format!("  {}\n", one_line(line))));
        }
    };
    part("Failed requests", failures(outcome));
    let gates = outcome.gates.iter().filter(|gate| !gate.holds);
    let said = gates.flat_map(|gate| {
        [format!("✗ {}: {}, wanted {}", gate.name, gate.measured, gate.wanted), format!("  → {}", gate.advice)]
    });
    part("Gates that do not hold", said.collect());
    let missed = |of: &str, verdict: &crate::result::Verdict| {
        (!verdict.passed).then(|| format!("✗ {of}{}: {}, wanted {}", verdict.name, verdict.measured, verdict.wanted))
    };
    let mut thresholds: Vec<String> = outcome.verdicts.iter().filter_map(|verdict| missed("", verdict)).collect();
    for drill in &outcome.drills {
        for phase in &drill.phases {
            let of = format!("{}, {}: ", drill.gateway, phase.name);
            thresholds.extend(phase.verdicts.iter().filter_map(|verdict| missed(&of, verdict)));
        }
    }
    part("Thresholds that were missed", thresholds);
    part("Remarks", outcome.remarks.clone());
}
