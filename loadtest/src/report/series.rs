//! What happened over time: requests due and good, latency, requests in flight, with the phases of a drill shaded.

use super::markup::Markup;
use super::plot::{Chart, Hue, Line, Scale, Span, Unit, figure};
use super::{Subject, groups, section, words};
use crate::result::{Drill, Outcome, Phase, Run, Slice};

/// Writes the section: of each gateway in a drill, of a single run, or of the trials at both ends of a bracket.
pub(super) fn draw(page: &mut Markup, subjects: &[Subject]) {
    let mut figures: Vec<(String, Vec<Chart>, String)> = Vec::new();
    for subject in subjects {
        for (name, run, phases) in chosen(subject.outcome) {
            if run.series.len() > 1 {
                figures.push((subject.said(&name), charts(run, phases), sentence(run, phases)));
            }
        }
    }
    if figures.is_empty() {
        return;
    }
    section(page, "time", "Over time", |page| {
        for (name, charts, sentence) in &figures {
            figure(page, name, charts, sentence);
        }
    });
}

/// Runs whose course is worth a picture, each with its name and phases.
fn chosen(outcome: &Outcome) -> Vec<(String, &Run, &[Phase])> {
    if !outcome.drills.is_empty() {
        let run = |drill: &'_ Drill| outcome.runs.get(drill.run);
        let each = outcome.drills.iter();
        return each.filter_map(|drill| Some((drill.gateway.clone(), run(drill)?, &drill.phases[..]))).collect();
    }
    if let Some(capacity) = &outcome.capacity {
        let ends = [("where it holds", capacity.holds), ("where it breaks", capacity.breaks)];
        let first = |(word, rate): (&str, Option<f64>)| {
            let trials = groups::full_trials(outcome, rate?);
            // at the upper end one that shows why
            let run = trials
                .iter()
                .find(|run| run.refused.is_some())
                .filter(|_| word.ends_with("breaks"))
                .or(trials.first())?;
            Some((format!("A trial {word}, {} requests/s", words::rate(rate?)), *run, &[][..]))
        };
        return ends.into_iter().filter_map(first).collect();
    }
    let of_one = outcome.runs.iter().filter(|run| run.label == "run");
    of_one.map(|run| (run.server.clone(), run, &[][..])).collect()
}

fn sentence(run: &Run, phases: &[Phase]) -> String {
    let slice = run.series.first().map_or(1.0, |slice| slice.length);
    let mut text = format!("Requests count where they were due, in slices of {}.", words::bound(slice));
    if !phases.is_empty() {
        text.push_str(" Shaded: phases at whose start something was broken.");
    }
    if run.series.iter().any(|slice| p99(slice).is_infinite()) {
        text.push_str(" A percentile in the lane of ∞ fell among requests that failed.");
    }
    text
}

fn charts(run: &Run, phases: &[Phase]) -> Vec<Chart> {
    let end = run.series.iter().map(|slice| slice.at + slice.length).fold(run.length, f64::max);
    let x = Scale::exact(Unit::Clock, 0.0, end);
    let spans = spans(phases);
    let mut charts = vec![rates(run, x), latency(run, x), in_flight(run, x)];
    for chart in &mut charts {
        chart.spans.clone_from(&spans);
    }
    charts[0].names_spans = !spans.is_empty();
    charts
}

fn spans(phases: &[Phase]) -> Vec<Span> {
    let numbered = phases.iter().enumerate();
    let span = |(row, phase): (usize, &Phase)| Span {
        from: phase.at,
        to: phase.at + phase.length,
        name: format!("{} {}", row + 1, phase.name),
        short: (row + 1).to_string(),
        hue: phase.faults.iter().any(|fault| !heals(fault)).then_some(Hue::Bad),
    };
    numbered.map(span).collect()
}

/// Whether what was done makes well again: `"upstream api 1: start"`, `"upstream api 2: fine (after 5 s)"`.
fn heals(fault: &str) -> bool {
    let act = fault.split(" (after ").next().unwrap_or(fault);
    matches!(act.rsplit(": ").next(), Some("start" | "fine"))
}

/// Points at the middle of each slice.
fn points(run: &Run, value: impl Fn(&Slice) -> f64) -> Vec<(f64, f64)> {
    run.series.iter().map(|slice| (slice.at + slice.length / 2.0, value(slice))).collect()
}

fn rates(run: &Run, x: Scale) -> Chart {
    let a_second = |number: u64, slice: &Slice| number as f64 / slice.length.max(1e-9);
    let due = points(run, |slice| a_second(slice.due, slice));
    let good = points(run, |slice| a_second(slice.good, slice));
    let most = due.iter().chain(&good).map(|point| point.1).fold(0.0, f64::max);
    let mut chart = Chart::new("Requests/s", "", x, Scale::linear(Unit::Rate, 0.0, most * 1.05), 150.0);
    let name = if run.rate.is_some() { "due" } else { "begun" };
    chart.lines = vec![Line::new(name, Hue::Neutral, due), Line::new("good", Hue::Series(0), good).filled()];
    chart
}

/// ∞ where requests were due and the percentile has no value; no number where nothing was due.
fn percentile(slice: &Slice, value: Option<f64>) -> f64 {
    value.unwrap_or(if slice.due > 0 { f64::INFINITY } else { f64::NAN })
}

fn p99(slice: &Slice) -> f64 {
    percentile(slice, slice.p99)
}

fn latency(run: &Run, x: Scale) -> Chart {
    let half = points(run, |slice| percentile(slice, slice.p50));
    let high = points(run, p99);
    let good = points(run, |slice| slice.good_p99.unwrap_or(f64::NAN));
    let has_failures = run.series.iter().any(|slice| slice.good < slice.due);
    let y = Scale::log(Unit::Latency, half.iter().chain(&high).chain(&good).map(|point| point.1));
    let mut chart = Chart::new("Latency", "", x, y, 170.0);
    chart.lines = vec![Line::new("p50", Hue::Series(2), half), Line::new("p99", Hue::Series(1), high)];
    if has_failures && good.iter().any(|point| point.1.is_finite()) {
        chart.lines.push(Line::new("p99 of good ones", Hue::Series(1), good).dashed());
    }
    chart
}

fn in_flight(run: &Run, x: Scale) -> Chart {
    let waiting = points(run, |slice| slice.in_flight);
    let most = waiting.iter().map(|point| point.1).fold(0.0, f64::max);
    let y = Scale::linear(Unit::Count, 0.0, most);
    let mut chart = Chart::new("Requests in flight", "time from the first judged request", x, y, 100.0);
    chart.lines = vec![Line::new("", Hue::Series(3), waiting).filled()];
    chart
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_breaks_something_is_shaded() {
        for (fault, is_healing) in [
            ("upstream api 1: kill", false),
            ("upstream api 1, 2: start", true),
            ("upstream api 2: fine (after 5 s)", true),
            ("upstream start: error 20%", false),
            ("gateway: reload", false),
        ] {
            assert_eq!(heals(fault), is_healing, "{fault}");
        }
        let phase = |faults: &[&str]| Phase {
            faults: faults.iter().map(|fault| (*fault).to_owned()).collect(),
            ..Phase::default()
        };
        let hues: Vec<_> = spans(&[phase(&[]), phase(&["a: kill", "b: fine"]), phase(&["a: start"])])
            .iter()
            .map(|span| span.hue)
            .collect();
        assert_eq!(hues, [None, Some(Hue::Bad), None]);
    }
}
