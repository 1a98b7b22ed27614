//! Gateways side by side at one rate, and how many hosts a peak needs.

use super::markup::Markup;
use super::plot::{Bar, Hue, Unit, bars};
use super::table::{Cell, Table, Tone};
use super::words::{self, NOTHING};
use super::{Subject, section};
use crate::result::{Peers, Ratio, Sizing};
use crate::units::digits;

/// Writes the section of gateways side by side.
pub(super) fn draw(page: &mut Markup, subjects: &[Subject]) {
    let compared = || subjects.iter().filter_map(|subject| Some((subject, subject.outcome.peers.as_ref()?)));
    if compared().next().is_none() {
        return;
    }
    section(page, "peers", "Gateways side by side", |page| {
        for (subject, peers) in compared() {
            figure(page, subject, peers);
            table(peers).without_silent_columns().draw(page);
            if !peers.ratios.is_empty() {
                page.leaf("h3", &[], "CPU for each good request, in pairs");
                ratios(peers).draw(page);
                let text = "Pairs of runs that follow each other, in alternating order; the interval is that of the median of the pairs' ratios.";
                page.leaf("p", &[("class", "remark")], text);
            }
        }
    });
}

fn figure(page: &mut Markup, subject: &Subject, peers: &Peers) {
    let drawn: Vec<Bar> = peers
        .peers
        .iter()
        .enumerate()
        .map(|(row, peer)| Bar {
            name: peer.name.clone(),
            interval: peer.cpu,
            hue: if row == 0 { Hue::Series(0) } else { Hue::Neutral },
        })
        .collect();
    let heading = subject.said(&format!("CPU time for each good request at {} requests/s", words::rate(peers.rate)));
    bars(page, &heading, Unit::Micros, &drawn, "Bars: median; whiskers: interval of 95 %. Shorter is better.");
}

/// One row a gateway.
pub(super) fn table(peers: &Peers) -> Table {
    let mut table =
        Table::new(&["gateway", "version", "#CPU a request", "#95 % between", "#p99", "#failed", "#memory", "#runs"]);
    for peer in &peers.peers {
        table.row(vec![
            peer.name.as_str().into(),
            Cell::new(peer.version.as_str()).tone(Tone::Faint),
            words::micros(peer.cpu.value).into(),
            format!("{}–{} µs", digits(peer.cpu.low), digits(peer.cpu.high)).into(),
            words::time(peer.p99.or(Some(f64::INFINITY)).filter(|_| !peer.runs.is_empty() || peer.p99.is_some()))
                .into(),
            Cell::new(words::percent(peer.failures)).bad_if(peer.failures > 0.0),
            peer.resident.map_or_else(|| NOTHING.to_owned(), words::bytes).into(),
            words::count(peer.runs.len() as u64).into(),
        ]);
    }
    table
}

/// One row a pair.
pub(super) fn ratios(peers: &Peers) -> Table {
    let mut table = Table::new(&["pair", "#ratio", "#95 % between", "verdict"]).compact();
    for ratio in &peers.ratios {
        table.row(vec![
            format!("{} / {}", ratio.of, ratio.to).into(),
            format!("{:.3}", ratio.cpu.value).into(),
            format!("{:.3}–{:.3}", ratio.cpu.low, ratio.cpu.high).into(),
            Cell::new(said(ratio)),
        ]);
    }
    table
}

/// Whose verdict it is: `"nginx is worse"`.
fn said(ratio: &Ratio) -> String {
    match ratio.verdict.as_str() {
        word @ ("better" | "worse") => format!("{} is {word}", ratio.of),
        other => other.to_owned(),
    }
}

/// Writes the section of hosts.
pub(super) fn sizing(page: &mut Markup, subjects: &[Subject]) {
    let sized = || subjects.iter().filter_map(|subject| Some((subject, subject.outcome.sizing.as_ref()?)));
    if sized().next().is_none() {
        return;
    }
    section(page, "hosts", "How many hosts", |page| {
        for (subject, sizing) in sized() {
            page.leaf("p", &[], &subject.said(&sentence(sizing)));
            hosts(sizing).draw(page);
            let confirmed = sizing.confirmed.and_then(|row| subject.outcome.runs.get(row));
            let text = match confirmed {
                Some(run) => format!(
                    "Confirmed by a run at {} requests/s: p99 {}, {} of {} requests failed.",
                    words::rate(run.rate.unwrap_or_default()),
                    words::percentile(&run.latency, run.latency.p99),
                    words::count(words::failed(run.due, run.good)),
                    words::count(run.due)
                ),
                None => "Not confirmed: no run was made at what each host has to take after failures.".to_owned(),
            };
            page.leaf("p", &[("class", "remark")], &text);
        }
    });
}

fn sentence(sizing: &Sizing) -> String {
    format!(
        "A host is planned with {} requests/s ({}). With {} each takes {} requests/s while all are well, and {} after {}.",
        words::rate(sizing.planned),
        sizing.planned_by,
        words::several(sizing.hosts, "host"),
        words::rate(sizing.each),
        words::rate(sizing.each_after_failures),
        words::several(u64::from(sizing.survive), "failure"),
    )
}

/// One row for each number of failures; that which was asked for is marked.
pub(super) fn hosts(sizing: &Sizing) -> Table {
    let mut table = Table::new(&["#hosts that may fail", "#hosts", "#each after failures", ""]).compact();
    let asked = (sizing.survive, sizing.hosts, sizing.each_after_failures);
    let mut rows = sizing.table.clone();
    if !rows.iter().any(|row| row.0 == asked.0) {
        rows.push(asked);
    }
    rows.sort_by_key(|row| row.0);
    for (failures, hosts, each) in rows {
        let asked_for = if failures == sizing.survive { Cell::new("← as asked").tone(Tone::Good) } else { "".into() };
        table.row(vec![
            words::count(u64::from(failures)).into(),
            words::count(hosts).into(),
            format!("{}/s", words::rate(each)).into(),
            asked_for,
        ]);
    }
    table
}
