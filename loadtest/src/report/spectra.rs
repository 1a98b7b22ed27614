//! The percentile spectrum: latency against how rare it is, as it was due and as it was sent.

use super::distribution::Distribution;
use super::groups::{self, Group, rows};
use super::markup::Markup;
use super::plot::{Chart, Hue, Line, Rule, Scale, Unit, figure};
use super::words;
use super::{Subject, section};
use crate::result::{Outcome, Run, Spectrum};

/// Spectra in one plot at most: more cannot be told apart.
const SPECTRA_MAX: usize = 6;

/// Runs whose requests are one spectrum.
struct Seen<'a> {
    name: String,
    runs: Vec<&'a Run>,
}

/// Writes the section, when there is a histogram to draw.
pub(super) fn draw(page: &mut Markup, subjects: &[Subject]) {
    let mut lines = Vec::new();
    let mut left_out = 0;
    for subject in subjects {
        for seen in chosen(subject) {
            if lines.len() < 2 * SPECTRA_MAX {
                lines.extend(drawn(&seen, Hue::Series(lines.len() / 2)));
            } else {
                left_out += 1;
            }
        }
    }
    if lines.is_empty() {
        return;
    }
    let points = || lines.iter().flat_map(|line| &line.points);
    let x = Scale::log(Unit::Nines, points().map(|point| point.0).chain([1.0, 1_000.0]));
    let capacity = subjects.iter().find_map(|subject| subject.outcome.capacity.as_ref());
    let y = Scale::log(Unit::Latency, points().map(|point| point.1).chain(capacity.map(|capacity| capacity.bound)));
    let mut chart = Chart::new("Latency (dashed: uncorrected)", "percentile", x, y, 280.0);
    if let Some(capacity) = capacity {
        chart.rules.push(Rule { at: capacity.bound, name: format!("bound {}", words::bound(capacity.bound)) });
    }
    chart.lines = lines;
    let mut sentence = String::from(
        "Solid: from the time a request was due, which is what a user waits. Dashed: from the time it was really sent, which is what a \
         closed-loop tool would have said; the gap is what such a tool leaves out.",
    );
    if left_out > 0 {
        sentence.push_str(&format!(" {} more are in the trials below.", words::count(left_out)));
    }
    section(page, "percentiles", "Percentile spectrum", |page| figure(page, "", &[chart], &sentence));
}

/// The runs that a result is about: where capacity holds and breaks, the ends and the middle of a curve, gateways of drills and peers.
fn chosen<'a>(subject: &Subject<'a>) -> Vec<Seen<'a>> {
    let outcome = subject.outcome;
    let seen = if let Some(capacity) = &outcome.capacity {
        let rates = [("holds", capacity.holds), ("breaks", capacity.breaks)];
        let each = rates.into_iter().filter_map(|(word, rate)| {
            let runs = groups::full_trials(outcome, rate?);
            Some(Seen { name: format!("{word}, {}/s", words::rate(rate?)), runs })
        });
        each.collect()
    } else if !outcome.drills.is_empty() {
        let each = outcome.drills.iter();
        each.map(|drill| Seen { name: drill.gateway.clone(), runs: rows(outcome, &[drill.run]) }).collect()
    } else if let Some(peers) = &outcome.peers {
        peers.peers.iter().map(|peer| Seen { name: peer.name.clone(), runs: rows(outcome, &peer.runs) }).collect()
    } else if let Some(curve) = &outcome.curve {
        let through = rows(outcome, &curve.through);
        let mut picked: Vec<usize> = vec![0, through.len() / 2, through.len().saturating_sub(1)];
        picked.dedup();
        picked.into_iter().filter_map(|row| through.get(row)).map(|run| alone(run)).collect()
    } else {
        of_groups(outcome)
    };
    let mut seen: Vec<Seen> = seen;
    seen.retain(|seen| !seen.runs.is_empty());
    for seen in &mut seen {
        if !subject.name.is_empty() && seen.name != subject.name {
            seen.name = subject.said(&seen.name);
        }
    }
    seen
}

fn of_groups(outcome: &Outcome) -> Vec<Seen<'_>> {
    let open = groups::all(outcome).into_iter().filter(|group: &Group| group.rate.is_some());
    open.map(|group| Seen { name: named(group.server, group.rate), runs: group.runs }).collect()
}

fn alone(run: &Run) -> Seen<'_> {
    Seen { name: named(&run.server, run.rate), runs: vec![run] }
}

fn named(server: &str, rate: Option<f64>) -> String {
    rate.map_or_else(|| server.to_owned(), |rate| format!("{server}, {}/s", words::rate(rate)))
}

/// Its two lines: from the due time, and from when it was sent.
fn drawn(seen: &Seen, hue: Hue) -> Vec<Line> {
    let points = |spectrum: fn(&Run) -> &Spectrum| {
        let all = Distribution::of(seen.runs.iter().map(|run| spectrum(run)));
        all.map(|all| all.spectrum())
    };
    let Some(due) = points(|run| &run.latency) else { return Vec::new() };
    let sent = points(|run| &run.uncorrected).unwrap_or_default();
    vec![
        Line::new(seen.name.clone(), hue, due),
        Line::new(format!("{}, uncorrected", seen.name), hue, sent).dashed().unlisted(),
    ]
}
