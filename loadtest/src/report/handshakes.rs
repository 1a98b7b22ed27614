//! TLS handshakes of every run that made some.

use super::markup::Markup;
use super::table::{Cell, Table};
use super::words;
use super::{Subject, section};
use crate::result::Outcome;

/// One row a run; empty where no TLS was spoken.
pub(super) fn table(outcome: &Outcome) -> Table {
    let mut table = Table::new(&["TLS of", "#rate", "#handshakes", "#full", "#resumed", "#p50", "#p99", "#max"]);
    for run in &outcome.runs {
        let Some(seen) = &run.handshakes else { continue };
        table.row(vec![
            Cell::new(run.label.as_str()).note(run.server.as_str()),
            run.rate.map_or_else(String::new, words::rate).into(),
            words::count(seen.all).into(),
            words::count(seen.all - seen.resumed.min(seen.all)).into(),
            words::count(seen.resumed).into(),
            words::time(seen.times.p50).into(),
            words::time(seen.times.p99).into(),
            words::time(seen.times.max).into(),
        ]);
    }
    table
}

/// Writes them.
pub(super) fn draw(page: &mut Markup, subjects: &[Subject]) {
    let tables: Vec<_> = subjects.iter().map(|subject| (subject, table(subject.outcome))).collect();
    if tables.iter().all(|(_, table)| table.is_empty()) {
        return;
    }
    section(page, "handshakes", "TLS handshakes", |page| {
        for (subject, table) in tables.iter().filter(|(_, table)| !table.is_empty()) {
            if !subject.name.is_empty() {
                page.leaf("h3", &[], &subject.name);
            }
            table.draw(page);
        }
        let text = "From the first byte of TLS until requests may go; of all connections, those of the start included, \
                    which shake hands many at once.";
        page.leaf("p", &[("class", "remark")], text);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Handshakes, Run, Spectrum};

    #[test]
    fn handshakes_are_shown_where_there_were_some() {
        let times = Spectrum { count: 5, p50: Some(0.001), p99: Some(0.002), max: Some(0.003), ..Spectrum::default() };
        let seen = Handshakes { all: 5, resumed: 3, times };
        let run = Run { label: "full".to_owned(), handshakes: Some(seen), ..Run::default() };
        let outcome = Outcome { runs: vec![Run::default(), run], ..Outcome::default() };
        let lines = table(&outcome).lines();
        assert!(lines.contains("full") && lines.contains('2') && lines.contains("1.00 ms"), "{lines}");
        assert!(crate::report::text(&outcome).contains("TLS of"));
        assert!(crate::report::html(std::slice::from_ref(&outcome)).contains("TLS handshakes"));
        assert!(!crate::report::html(&[Outcome::default()]).contains("TLS handshakes"));
    }
}
