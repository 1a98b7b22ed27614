//! What a result says, in one sentence, and the few numbers that belong beside it.

use super::words::{self, several};
use super::{distribution, groups};
use crate::result::{Capacity, Drill, Outcome, Peers, Phase, Ratio, Run, SPOILED};
use crate::units::digits;

/// How a result stands; the first that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// A gate does not hold: no number of it may be used.
    Invalid,
    /// A threshold was missed.
    Failed,
    /// It was ended early.
    Partial,
    /// Every threshold was met.
    Passed,
    /// There was no threshold.
    Measured,
}

impl Standing {
    /// Of a result.
    pub(super) fn of(outcome: &Outcome) -> Self {
        let mut verdicts = outcome.all_verdicts().peekable();
        match () {
            () if !outcome.is_valid() => Self::Invalid,
            () if outcome.all_verdicts().any(|verdict| !verdict.passed) => Self::Failed,
            () if outcome.is_partial => Self::Partial,
            () if verdicts.peek().is_some() => Self::Passed,
            () => Self::Measured,
        }
    }

    /// For the style sheet.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Failed => "failed",
            Self::Partial => "partial",
            Self::Passed => "passed",
            Self::Measured => "measured",
        }
    }
}

/// The sentence that comes first: `"Holds 23,400 requests/s at p99 < 5 ms (bracket 23,400–24,500)"`.
pub(super) fn headline(outcome: &Outcome) -> String {
    let finding = finding(outcome);
    match Standing::of(outcome) {
        Standing::Invalid => format!("INVALID: {}", failed_gates(outcome)),
        Standing::Failed => format!("Failed: {finding}"),
        Standing::Partial => format!("PARTIAL: {finding}"),
        Standing::Passed if !outcome.drills.is_empty() => format!("Passed: {finding}"),
        Standing::Passed | Standing::Measured => uppercase(&finding),
    }
}

/// What was found, whether or not it may be believed.
pub(super) fn finding(outcome: &Outcome) -> String {
    if let Some(sizing) = &outcome.sizing {
        let spare = match sizing.survive {
            0 => "with none to spare".to_owned(),
            gone => format!("even with {} gone", several(u64::from(gone), "host")),
        };
        return format!("{} for {} requests/s, {spare}", several(sizing.hosts, "host"), words::rate(sizing.peak));
    }
    match outcome {
        Outcome { capacity: Some(capacity), .. } => of_capacity(capacity),
        Outcome { peers: Some(peers), .. } => of_peers(peers),
        Outcome { drills, .. } if !drills.is_empty() => of_drills(drills),
        Outcome { curve: Some(_), .. } => of_curve(outcome),
        _ => of_runs(outcome),
    }
}

/// What is to be known of a result that was ended early; empty: it was not.
pub(super) fn of_partial(outcome: &Outcome) -> String {
    if !outcome.is_partial {
        return String::new();
    }
    let unfinished = outcome.runs.iter().map(|run| run.unfinished).fold(0, u64::saturating_add);
    let unknown = match unfinished {
        0 => String::new(),
        _ => format!("; {} under way when it was ended, and not counted", words::several(unfinished, "request")),
    };
    format!("PARTIAL: ended early; what is here is true, and not all that was asked for{unknown}")
}

/// Gates that do not hold, in a sentence.
fn failed_gates(outcome: &Outcome) -> String {
    let failed: Vec<_> = outcome.gates.iter().filter(|gate| !gate.holds).collect();
    match failed.as_slice() {
        [gate] => format!("{} is {}, wanted {}", gate.name, gate.measured, gate.wanted),
        [gate, others @ ..] => {
            let names: Vec<_> = others.iter().map(|gate| gate.name.as_str()).collect();
            format!("{} is {}, wanted {}; also {}", gate.name, gate.measured, gate.wanted, names.join(", "))
        }
        [] => String::new(),
    }
}

fn of_capacity(capacity: &Capacity) -> String {
    let bound = format!("{} < {}", words::quantile(capacity.quantile), words::bound(capacity.bound));
    match (capacity.holds, capacity.breaks) {
        (Some(holds), Some(breaks)) => {
            let (low, high) = (words::rate(holds), words::rate(breaks));
            format!("holds {low} requests/s at {bound} (bracket {low}–{high})")
        }
        (Some(holds), None) => {
            format!("holds at least {} requests/s at {bound} (the search ended at its upper limit)", words::rate(holds))
        }
        (None, Some(breaks)) => {
            format!("holds {bound} at no rate that was tried, the lowest {} requests/s", words::rate(breaks))
        }
        (None, None) => format!("no capacity was found at {bound}"),
    }
}

fn of_peers(peers: &Peers) -> String {
    let rate = words::rate(peers.rate);
    if peers.ratios.is_empty() {
        return format!("{} at {rate} requests/s", several(peers.peers.len() as u64, "gateway"));
    }
    let is_shown = |ratio: &&Ratio| ratio.verdict != "no difference shown";
    let (differ, same): (Vec<_>, Vec<_>) = peers.ratios.iter().partition(is_shown);
    let mut said = Vec::new();
    if !differ.is_empty() {
        let each = differ.iter().map(|it| format!("{} {:.2} × the CPU of {}", it.of, it.cpu.value, it.to));
        said.push(each.collect::<Vec<_>>().join(", "));
    }
    said.extend(same.iter().map(|it| format!("no difference shown between {} and {}", it.of, it.to)));
    format!("at {rate} requests/s: {}", said.join("; "))
}

/// Whether every threshold of a phase was met.
pub(super) fn is_passed(phase: &Phase) -> bool {
    phase.verdicts.iter().all(|verdict| verdict.passed)
}

fn of_drill(drill: &Drill) -> String {
    let (all, lost) =
        (drill.phases.len() as u64, drill.phases.iter().map(|phase| words::failed_in(&phase.count)).sum());
    let requests = several(lost, "failed request");
    if drill.phases.is_empty() {
        return "no phase was gone through".to_owned();
    }
    if drill.phases.iter().all(|phase| phase.verdicts.is_empty()) {
        return format!("{}, {requests}", several(all, "phase"));
    }
    let passed = drill.phases.iter().filter(|phase| is_passed(phase)).count();
    format!("{passed} of {}, {requests}", several(all, "phase"))
}

fn of_drills(drills: &[Drill]) -> String {
    match drills {
        [drill] => of_drill(drill),
        _ => {
            let each: Vec<_> = drills.iter().map(|drill| format!("{} {}", drill.gateway, of_drill(drill))).collect();
            each.join("; ")
        }
    }
}

fn of_curve(outcome: &Outcome) -> String {
    let through: Vec<&Run> = groups::rows(outcome, outcome.curve.as_ref().map_or(&[], |curve| &curve.through));
    let said = |run: &Run| {
        let rate = run.rate.map_or_else(|| "saturation".to_owned(), |rate| format!("{} requests/s", words::rate(rate)));
        format!("{} at {rate}", words::percentile(&run.latency, run.latency.p99))
    };
    match through.as_slice() {
        [] => "no rate was measured".to_owned(),
        [only] => format!("p99 of {}", said(only)),
        [first, .., last] => format!("p99 from {} to {}", said(first), said(last)),
    }
}

fn of_runs(outcome: &Outcome) -> String {
    let Some(run) = last_run(outcome) else {
        return "nothing was measured".to_owned();
    };
    let lost = words::failed(run.due, run.good);
    let failures = format!("{} of {} requests failed", words::count(lost), words::count(run.due));
    match run.rate {
        None => {
            let rate = words::rate(run.good as f64 / run.length.max(1e-9));
            format!("saturated at {rate} requests/s, {failures} (closed loop: no latency can be told)")
        }
        Some(rate) => {
            let p99 = words::percentile(&run.latency, run.latency.p99);
            format!("p99 of {p99} at {} requests/s, {failures}", words::rate(rate))
        }
    }
}

/// A number that belongs beside the verdict.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fact {
    /// What.
    pub(super) name: String,
    /// How much, with its unit.
    pub(super) value: String,
    /// Where it comes from.
    pub(super) note: String,
}

fn fact(name: impl Into<String>, value: impl Into<String>, note: impl Into<String>) -> Fact {
    Fact { name: name.into(), value: value.into(), note: note.into() }
}

/// The few numbers of a result.
pub(super) fn facts(outcome: &Outcome) -> Vec<Fact> {
    let mut facts = Vec::new();
    if let Some(sizing) = &outcome.sizing {
        facts.push(fact(
            "Hosts",
            words::count(sizing.hosts),
            format!("for {} requests/s at the peak", words::rate(sizing.peak)),
        ));
        facts.push(fact(
            "Each, all well",
            format!("{}/s", words::rate(sizing.each)),
            format!("planned with {}/s", words::rate(sizing.planned)),
        ));
        let gone = format!("after {}", several(u64::from(sizing.survive), "failure"));
        facts.push(fact("Each after failures", format!("{}/s", words::rate(sizing.each_after_failures)), gone));
    }
    if let Some(capacity) = &outcome.capacity {
        let all = facts_of_capacity(outcome, capacity);
        // beside hosts only what they follow from
        let is_one_of_few =
            |fact: &Fact| outcome.sizing.is_none() || matches!(fact.name.as_str(), "Holds" | "CPU a request");
        facts.extend(all.into_iter().filter(is_one_of_few));
    }
    let is_alone = outcome.drills.len() == 1;
    facts.extend(outcome.drills.iter().flat_map(|drill| facts_of_drill(drill, is_alone)));
    if let Some(peers) = &outcome.peers {
        for peer in &peers.peers {
            let between = format!("95 %: {}–{} µs", digits(peer.cpu.low), digits(peer.cpu.high));
            facts.push(fact(format!("CPU a request, {}", peer.name), words::micros(peer.cpu.value), between));
        }
    }
    if let Some(curve) = &outcome.curve {
        facts.extend(facts_of_curve(&groups::rows(outcome, &curve.through), &groups::rows(outcome, &curve.direct)));
    }
    if facts.is_empty() {
        facts.extend(facts_of_run(outcome));
    }
    facts
}

fn facts_of_curve(through: &[&Run], direct: &[&Run]) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut add = |name: &str, run: &Run| {
        let rate = run.rate.map_or_else(|| "closed loop".to_owned(), |rate| format!("at {}/s", words::rate(rate)));
        facts.push(fact(name, words::percentile(&run.latency, run.latency.p99), rate));
    };
    if let [first, .., last] = through {
        add("p99 at the lowest rate", first);
        add("p99 at the highest rate", last);
    }
    direct.last().iter().for_each(|run| add("p99 of the upstream itself", run));
    if let Some(cpu) = groups::median(through.iter().filter_map(|run| words::cpu_each(run))) {
        facts.push(fact("CPU a request", words::micros(cpu), "of the gateway, median of all rates"));
    }
    facts
}

/// The last run that is more than preparation, and was not spoiled.
fn last_run(outcome: &Outcome) -> Option<&Run> {
    outcome.runs.iter().rev().find(|run| !matches!(run.label.as_str(), "warm-up" | "direct" | SPOILED))
}

fn facts_of_capacity(outcome: &Outcome, capacity: &Capacity) -> Vec<Fact> {
    let trials = |(passed, all): (u32, u32)| format!("{passed} of {all} trials passed");
    let mut facts = Vec::new();
    if let Some(holds) = capacity.holds {
        facts.push(fact("Holds", format!("{}/s", words::rate(holds)), trials(capacity.passed_at_holds)));
    }
    if let Some(breaks) = capacity.breaks {
        let because = capacity.because.clone().unwrap_or_else(|| trials(capacity.passed_at_breaks));
        facts.push(fact("Breaks at", format!("{}/s", words::rate(breaks)), because));
    }
    let held = capacity.holds.map(|holds| groups::full_trials(outcome, holds)).unwrap_or_default();
    if let Some(p) =
        groups::median(held.iter().filter_map(|run| distribution::quantile(&run.latency, capacity.quantile)))
    {
        let name = format!("{} where it holds", words::quantile(capacity.quantile));
        facts.push(fact(name, words::time(Some(p)), format!("bound {}", words::bound(capacity.bound))));
    }
    if let Some(cpu) = groups::median(held.iter().filter_map(|run| words::cpu_each(run))) {
        facts.push(fact("CPU a request", words::micros(cpu), "of the gateway, where it holds"));
    }
    facts
}

/// Of several drills each names its gateway.
fn facts_of_drill(drill: &Drill, is_alone: bool) -> Vec<Fact> {
    let sum = |part: fn(&Phase) -> u64| drill.phases.iter().map(part).sum::<u64>();
    let (due, lost) = (sum(|phase| phase.count.due), sum(|phase| words::failed_in(&phase.count)));
    let share = format!("{} of {} requests", words::percent(words::part(lost, due)), words::count(due));
    let named = |what: &str| if is_alone { what.to_owned() } else { format!("{what}, {}", drill.gateway) };
    let mut facts = vec![fact(named("Failed requests"), words::count(lost), share)];
    // the first of the largest
    let most = |value: fn(&Phase) -> Option<f64>| {
        let each = drill.phases.iter().rev().filter_map(|phase| Some((value(phase)?, phase)));
        each.max_by(|a, b| a.0.total_cmp(&b.0))
    };
    if let Some((time, phase)) = most(|phase| phase.recovery) {
        facts.push(fact(named("Slowest recovery"), words::time(Some(time)), &phase.name));
    }
    if let Some((times, phase)) = most(|phase| phase.amplification).filter(|_| is_alone) {
        facts.push(fact("Retry amplification", format!("{times:.3} ×"), &phase.name));
    }
    if let Some((number, phase)) = most(|phase| Some(phase.in_flight_max as f64)).filter(|_| is_alone) {
        facts.push(fact("In flight at most", words::count(number as u64), &phase.name));
    }
    facts
}

fn facts_of_run(outcome: &Outcome) -> Vec<Fact> {
    let Some(run) = last_run(outcome) else { return Vec::new() };
    let mut facts = Vec::new();
    let offered =
        run.rate.map_or_else(|| "closed loop".to_owned(), |rate| format!("{}/s were offered", words::rate(rate)));
    facts.push(fact("Good answers", format!("{}/s", words::rate(run.good as f64 / run.length.max(1e-9))), offered));
    if run.rate.is_some() {
        for (name, value) in [("p50", run.latency.p50), ("p99", run.latency.p99), ("p99.9", run.latency.p999)] {
            facts.push(fact(name, words::percentile(&run.latency, value), "from the due time"));
        }
    }
    let lost = words::failed(run.due, run.good);
    facts.push(fact("Failed", words::count(lost), words::percent(words::part(lost, run.due))));
    facts.extend(words::cpu_each(run).map(|cpu| fact("CPU a request", words::micros(cpu), "of the server")));
    facts
}

/// As a sentence begins; the name of a percentile stays as it is.
pub(super) fn uppercase(text: &str) -> String {
    let mut rest = text.chars();
    match rest.next() {
        Some(first) if !rest.as_str().starts_with(|second: char| second.is_ascii_digit()) => {
            first.to_uppercase().chain(rest).collect()
        }
        _ => text.to_owned(),
    }
}
