//! Latency against rate: through the gateway, and directly at the upstream beneath, with the bound and the bracket.

use super::distribution::quantile;
use super::groups::{is_same_rate, median, rows};
use super::markup::Markup;
use super::plot::{Band, Chart, Dots, Hue, Line, Rule, Scale, Span, Unit, figure};
use super::words;
use super::{Subject, section};
use crate::result::{Capacity, Outcome, Run};

/// The curve of one result.
struct Seen<'a> {
    through: Vec<&'a Run>,
    direct: Vec<&'a Run>,
    /// Trials of a search: each is drawn, passed or not.
    is_search: bool,
}

impl<'a> Seen<'a> {
    fn of(outcome: &'a Outcome) -> Option<Self> {
        let seen = match (&outcome.curve, &outcome.capacity) {
            (Some(curve), _) => {
                Self { through: rows(outcome, &curve.through), direct: rows(outcome, &curve.direct), is_search: false }
            }
            (None, Some(_)) => {
                let trials = |labels: &'static [&str]| {
                    let rated = outcome.runs.iter().filter(|run| run.rate.is_some());
                    rated.filter(|run| labels.contains(&run.label.as_str())).collect::<Vec<_>>()
                };
                Self { through: trials(&["probe", "short", "full"]), direct: trials(&["direct"]), is_search: true }
            }
            (None, None) => return None,
        };
        (!seen.through.is_empty()).then_some(seen)
    }
}

/// Writes the section, when a result has such runs.
pub(super) fn draw(page: &mut Markup, subjects: &[Subject]) {
    let seen: Vec<(&Subject, Seen)> =
        subjects.iter().filter_map(|subject| Seen::of(subject.outcome).map(|seen| (subject, seen))).collect();
    if seen.is_empty() {
        return;
    }
    section(page, "curve", "Latency against rate", |page| {
        let capacities = || subjects.iter().filter_map(|subject| subject.outcome.capacity.as_ref());
        let q = capacities().next().map_or(0.99, |capacity| capacity.quantile);
        figure(page, "", &[chart(&seen, q)], sentence(&seen));
        for subject in subjects {
            if let Some(fit) = subject.outcome.curve.as_ref().and_then(|curve| curve.scalability.as_deref()) {
                page.leaf("p", &[("class", "remark")], &subject.said(&format!("Scalability over workers: {fit}")));
            }
        }
    });
}

fn sentence(seen: &[(&Subject, Seen)]) -> &'static str {
    let has_direct = seen.iter().any(|seen| !seen.1.direct.is_empty());
    match (seen.iter().any(|seen| seen.1.is_search), has_direct) {
        (true, true) => {
            "Each dot is a trial; lines join the medians of each rate. Latency counts from the time a request was due, failures as ∞. \
             Grey: the same load at the upstream itself, without the gateway."
        }
        (true, false) => {
            "Each dot is a trial; lines join the medians of each rate. Latency counts from the time a request was due, failures as ∞."
        }
        (false, true) => {
            "Latency counts from the time a request was due, failures as ∞. Grey: the same load at the upstream itself, without the gateway."
        }
        (false, false) => "Latency counts from the time a request was due, failures as ∞.",
    }
}

fn chart(seen: &[(&Subject, Seen)], q: f64) -> Chart {
    let runs = || seen.iter().flat_map(|(_, seen)| seen.through.iter().chain(&seen.direct));
    let bounds = || seen.iter().filter_map(|(subject, _)| subject.outcome.capacity.as_ref());
    let fastest = runs().filter_map(|run| run.rate).fold(0.0, f64::max);
    let values = runs().flat_map(|run| [quantile(&run.latency, q), run.latency.p50]).flatten();
    let y = Scale::log(Unit::Latency, values.chain(bounds().map(|capacity| capacity.bound)));
    let name = format!("{} latency", words::quantile(q));
    let mut chart = Chart::new(&name, "offered rate, requests/s", Scale::linear(Unit::Rate, 0.0, fastest), y, 300.0);
    chart.names_spans = bounds().next().is_some();
    for (row, (subject, seen)) in seen.iter().enumerate() {
        add(&mut chart, subject, seen, q, row);
    }
    chart
}

fn add(chart: &mut Chart, subject: &Subject, seen: &Seen, q: f64, row: usize) {
    let hue = Hue::Series(row);
    let server = seen.through.first().map_or("", |run| run.server.as_str());
    let name = if subject.name.is_empty() { server } else { &subject.name };
    let at = |part: &str| format!("{name}, {part}");
    let half = medians(&seen.through, |run| quantile(&run.latency, 0.5));
    chart.lines.push(Line::new(at("p50"), hue, half).dashed());
    if seen.is_search {
        chart.bands.push(Band { hue, points: ranges(&seen.through, q) });
    }
    let line = medians(&seen.through, |run| quantile(&run.latency, q));
    chart.lines.push(Line::new(at(&words::quantile(q)), hue, line));
    if !seen.direct.is_empty() {
        let direct = medians(&seen.direct, |run| quantile(&run.latency, q));
        let name = if subject.name.is_empty() { "upstream itself".to_owned() } else { at("upstream itself") };
        chart.lines.push(Line::new(format!("{name}, {}", words::quantile(q)), Hue::Neutral, direct).dashed());
    }
    let placed = |keep: fn(&Run) -> bool| -> Vec<(f64, f64)> {
        let kept = seen.through.iter().filter(|run| keep(run));
        kept.filter_map(|run| Some((run.rate?, quantile(&run.latency, q)?))).collect()
    };
    let trial = |part: &str| if subject.name.is_empty() { format!("trial {part}") } else { at(part) };
    if seen.is_search {
        let (passed, refused) = (placed(|run| run.refused.is_none()), placed(|run| run.refused.is_some()));
        chart.dots.push(Dots { name: trial("passed"), hue, is_hollow: false, points: passed });
        chart.dots.push(Dots { name: trial("not passed"), hue: Hue::Bad, is_hollow: true, points: refused });
        chart.dots.retain(|dots| !dots.points.is_empty());
    } else {
        chart.dots.push(Dots { name: String::new(), hue, is_hollow: false, points: placed(|_| true) });
    }
    if let Some(capacity) = &subject.outcome.capacity {
        bracket(chart, subject, capacity, hue);
    }
}

fn bracket(chart: &mut Chart, subject: &Subject, capacity: &Capacity, hue: Hue) {
    let name = format!("{} < {}", words::quantile(capacity.quantile), words::bound(capacity.bound));
    if chart.rules.iter().all(|rule| rule.name != name) {
        chart.rules.push(Rule { at: capacity.bound, name });
    }
    if let (Some(from), Some(to)) = (capacity.holds, capacity.breaks) {
        let name = subject.said(&format!("bracket {}–{}", words::rate(from), words::rate(to)));
        chart.spans.push(Span { from, to, name, short: String::new(), hue: Some(hue) });
    }
}

/// Distinct rates, ascending, each with its runs' values; what has none is left out.
fn by_rate(runs: &[&Run], value: impl Fn(&Run) -> Option<f64>) -> Vec<(f64, Vec<f64>)> {
    let mut points: Vec<(f64, f64)> = runs.iter().filter_map(|run| Some((run.rate?, value(run)?))).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut rates: Vec<(f64, Vec<f64>)> = Vec::new();
    for (rate, value) in points {
        match rates.last_mut() {
            Some(last) if is_same_rate(Some(last.0), Some(rate)) => last.1.push(value),
            _ => rates.push((rate, vec![value])),
        }
    }
    rates
}

fn medians(runs: &[&Run], value: impl Fn(&Run) -> Option<f64>) -> Vec<(f64, f64)> {
    by_rate(runs, value).into_iter().filter_map(|(rate, values)| Some((rate, median(values)?))).collect()
}

/// Least and largest of each rate.
fn ranges(runs: &[&Run], q: f64) -> Vec<(f64, f64, f64)> {
    let ends = |(rate, values): (f64, Vec<f64>)| {
        let (low, high) = values.iter().fold((f64::INFINITY, 0.0_f64), |ends, v| (ends.0.min(*v), ends.1.max(*v)));
        (rate, low, high)
    };
    by_rate(runs, |run| quantile(&run.latency, q)).into_iter().map(ends).collect()
}
