//! Fault drills: phases with their verdicts, gateways side by side; targets by phase; the gateways' own numbers.

use super::markup::Markup;
use super::table::{Cell, Table, Tone};
use super::words::{self, NOTHING};
use super::{Subject, fold, section, verdict};
use crate::result::{Drill, Phase, PhaseCount, Run, TargetCount};

/// Numbers of a gateway that are shown at most.
const METRICS_MAX: usize = 2_000;

/// A gateway's drill, and what to call it on this page.
struct Seen<'a> {
    name: String,
    drill: &'a Drill,
    run: Option<&'a Run>,
}

fn all<'a>(subjects: &[Subject<'a>]) -> Vec<Seen<'a>> {
    let mut seen: Vec<Seen> = Vec::new();
    for subject in subjects {
        for drill in &subject.outcome.drills {
            let is_taken = seen.iter().any(|seen| seen.name == drill.gateway);
            let name = if is_taken { format!("{} ({})", drill.gateway, seen.len() + 1) } else { drill.gateway.clone() };
            seen.push(Seen { name, drill, run: subject.outcome.runs.get(drill.run) });
        }
    }
    seen
}

/// Writes the section of phases.
pub(super) fn draw(page: &mut Markup, subjects: &[Subject]) {
    let seen = all(subjects);
    if seen.is_empty() {
        return;
    }
    section(page, "phases", "Phase by phase", |page| {
        phases(&seen).without_silent_columns().draw(page);
        page.leaf(
            "p",
            &[("class", "remark")],
            "Detection: from the start of the phase to its last failed or late request. Recovery: until latency and success are as in the first \
             phase; a dash where nothing was lost or it never was. Amplification: requests that upstreams saw for each that clients made.",
        );
    });
}

/// All phases of all drills, phases of one name together, in the order of the first drill that has them.
pub(super) fn phases_of<'a>(drills: &[(String, &'a Drill)]) -> Table {
    let seen: Vec<Seen<'a>> =
        drills.iter().map(|(name, drill)| Seen { name: name.clone(), drill, run: None }).collect();
    phases(&seen)
}

fn phases(seen: &[Seen]) -> Table {
    let mut table = Table::new(&[
        "phase",
        "gateway",
        "verdict",
        "#failed",
        "#p99",
        "#detection",
        "#recovery",
        "#amplification",
        "#in flight, max",
        "#bystanders failed",
    ]);
    for (row, key) in keys(seen).iter().enumerate() {
        let with: Vec<(&Seen, &Phase)> =
            seen.iter().filter_map(|seen| Some((seen, keyed(seen.drill).find(|keyed| keyed.0 == *key)?.1))).collect();
        for (number, (seen, phase)) in with.iter().enumerate() {
            let rows = if number == 0 { with.len() } else { 0 };
            let heading = Cell::new(format!("{} {}", row + 1, phase.name)).note(what(phase)).rows(rows);
            table.row([vec![heading, seen.name.as_str().into()], cells(phase)].concat());
        }
    }
    table
}

/// A phase's name, and how many of its drill had the same name before it.
type Key<'a> = (&'a str, usize);

fn keyed(drill: &Drill) -> impl Iterator<Item = (Key<'_>, &Phase)> {
    drill.phases.iter().enumerate().map(|(row, phase)| {
        let before = drill.phases[..row].iter().filter(|earlier| earlier.name == phase.name).count();
        ((phase.name.as_str(), before), phase)
    })
}

/// The phases of all drills, each once.
fn keys<'a>(seen: &[Seen<'a>]) -> Vec<Key<'a>> {
    let mut keys: Vec<Key> = Vec::new();
    for (key, _) in seen.iter().flat_map(|seen| keyed(seen.drill)) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

fn what(phase: &Phase) -> String {
    let seconds = |value: f64| words::without_zeros(&format!("{value:.1}")).to_owned();
    let when = format!("{}–{} s", seconds(phase.at), seconds(phase.at + phase.length));
    if phase.faults.is_empty() { when } else { format!("{when}: {}", phase.faults.join(", ")) }
}

fn cells(phase: &Phase) -> Vec<Cell> {
    let count = &phase.count;
    let lost = words::failed_in(count);
    let verdict = match phase.verdicts.iter().find(|verdict| !verdict.passed) {
        Some(missed) => Cell::met(false, ("", "failed")).note(format!("{}: {}", missed.name, missed.measured)),
        None if phase.verdicts.is_empty() => NOTHING.into(),
        None => Cell::met(verdict::is_passed(phase), ("passed", "failed")),
    };
    let share = if lost > 0 { words::percent(words::part(lost, count.due)) } else { String::new() };
    let failures =
        [share, words::kinds(&count.failures)].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>();
    let p99 = words::percentile(&count.latency, count.latency.p99);
    let some = |value: Option<u64>| value.map_or_else(|| NOTHING.to_owned(), words::count);
    vec![
        verdict,
        Cell::new(words::count(lost)).note(failures.join(": ")).bad_if(lost > 0),
        Cell::new(p99).bad_if(count.latency.p99.is_none() && count.latency.infinite > 0),
        words::time(phase.detection).into(),
        words::time(phase.recovery).into(),
        phase.amplification.map_or_else(|| NOTHING.to_owned(), |value| format!("{value:.3}")).into(),
        words::count(phase.in_flight_max).into(),
        Cell::new(some(phase.bystanders_failed)).bad_if(phase.bystanders_failed.is_some_and(|lost| lost > 0)),
    ]
}

/// Writes the section of targets, when a mix has several of them or a run has phases.
pub(super) fn targets(page: &mut Markup, subjects: &[Subject]) {
    let drilled = all(subjects);
    let of_drills: Vec<(String, &Run, &[Phase])> = drilled
        .iter()
        .filter_map(|seen| Some((seen.name.clone(), seen.run?, &seen.drill.phases[..])))
        .filter(|(_, run, _)| !run.targets.is_empty())
        .collect();
    let of_runs = subjects.iter().flat_map(|subject| {
        let runs = subject.outcome.runs.iter().filter(|run| run.label == "run" && run.targets.len() > 1);
        runs.map(|run| (subject.said(&run.server), run, &[][..]))
    });
    let shown: Vec<_> = of_drills.into_iter().chain(of_runs).collect();
    if shown.is_empty() {
        return;
    }
    section(page, "targets", "Targets", |page| {
        for (name, run, phases) in &shown {
            if shown.len() > 1 {
                page.leaf("h3", &[], name);
            }
            by_target(run, phases).draw(page);
        }
        let text = "Of each target and phase: requests that failed, and the 99th percentile with failures as ∞.";
        page.leaf("p", &[("class", "remark")], text);
    });
}

fn by_target(run: &Run, phases: &[Phase]) -> Table {
    // of one that was ended early, what was not reached is no column
    let last = |target: &TargetCount| target.phases.iter().rposition(|phase| phase.due > 0).map_or(0, |row| row + 1);
    let most =
        run.targets.iter().map(last).max().unwrap_or(0).max(phases.len()).max(usize::from(!run.targets.is_empty()));
    let mut names = vec!["target".to_owned(), "#requests".to_owned()];
    names.extend((0..most).map(|row| match phases.get(row) {
        Some(phase) => format!("#{} {}", row + 1, phase.name),
        None if most == 1 => "#failed".to_owned(),
        None => format!("#phase {}", row + 1),
    }));
    let mut table = Table::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for target in &run.targets {
        let due = target.phases.iter().map(|phase| phase.due).sum();
        let mut row = vec![Cell::new(target.name.as_str()), words::count(due).into()];
        row.extend((0..most).map(|phase| target.phases.get(phase).map_or_else(|| NOTHING.into(), of_target)));
        table.row(row);
    }
    table
}

fn of_target(count: &PhaseCount) -> Cell {
    let lost = words::failed_in(count);
    let p99 = format!("p99 {}", words::percentile(&count.latency, count.latency.p99));
    match lost {
        0 => Cell::new("0 failed").note(p99),
        lost => Cell::new(format!("{} failed", words::count(lost))).tone(Tone::Bad).note(p99),
    }
}

/// Writes the gateways' own numbers, folded.
pub(super) fn metrics(page: &mut Markup, subjects: &[Subject]) {
    for seen in all(subjects).iter().filter(|seen| !seen.drill.metrics.is_empty()) {
        let numbers = &seen.drill.metrics;
        let name = format!("{}’s own numbers at the end ({})", seen.name, words::count(numbers.len() as u64));
        fold(page, &name, |page| {
            let mut table = Table::new(&["name", "#value"]);
            for (name, value) in numbers.iter().take(METRICS_MAX) {
                table.row(vec![name.as_str().into(), crate::units::digits(*value).into()]);
            }
            table.draw(page);
            if numbers.len() > METRICS_MAX {
                page.leaf("p", &[("class", "remark")], "More are in the result's file.");
            }
        });
    }
}
