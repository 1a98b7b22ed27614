//! Tables as plain text, one a drill, and the one in Markdown of all of them.

use std::fmt::Write;

use crate::report::Report;

/// A gateway, and what the drill found out about it or why it could not be drilled.
pub(crate) type Row = (String, anyhow::Result<Report>);

/// One drill: its name, what happens in it, and a row for each gateway.
pub(crate) struct Page {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) rows: Vec<Row>,
}

impl Page {
    /// What was wanted, what was measured, and what is remarkable.
    pub(crate) fn text(&self) -> String {
        let mut table = vec![];
        if let Some(report) = self.rows.iter().find_map(|(_, report)| report.as_ref().ok()) {
            table.push(line("", report.checks.iter().map(|check| check.what), ""));
            table.push(line("wanted", report.checks.iter().map(|check| check.wanted.as_str()), ""));
        }
        for (label, report) in &self.rows {
            table.push(match report {
                Ok(report) => line(label, report.checks.iter().map(|check| check.measured.as_str()), verdict(report)),
                Err(error) => vec![label.clone(), format!("could not be drilled: {error:#}")],
            });
        }
        let mut text = format!("({}) {}\n\n{}", self.name, self.title, aligned(&table));
        for (label, report) in &self.rows {
            for remark in report.iter().flat_map(|report| &report.remarks) {
                let _ = writeln!(text, "  {label}: {remark}");
            }
        }
        text
    }
}

/// One row a drill, one column a gateway.
pub(crate) fn markdown(pages: &[Page]) -> String {
    let Some(first) = pages.first() else { return String::new() };
    let labels: Vec<_> = first.rows.iter().map(|(label, _)| label.as_str()).collect();
    let mut text = format!("| drill | {} |\n|---|{}\n", labels.join(" | "), "---|".repeat(labels.len()));
    for page in pages {
        let _ = write!(text, "| **{}** {} |", page.name, page.title);
        for (_, report) in &page.rows {
            let _ = match report {
                Ok(report) if report.passed() => write!(text, " **passed:** {} |", report.summary),
                Ok(report) => write!(text, " missed: {} |", report.summary),
                Err(_) => write!(text, " could not be drilled |"),
            };
        }
        text.push('\n');
    }
    text
}

/// "passed" or "missed".
pub(crate) fn verdict(report: &Report) -> &'static str {
    if report.passed() { "passed" } else { "missed" }
}

fn line<'a>(label: &'a str, cells: impl Iterator<Item = &'a str>, verdict: &'a str) -> Vec<String> {
    std::iter::once(label).chain(cells).chain([verdict]).map(str::to_owned).collect()
}

/// Columns as wide as their widest cell. A row of two cells is a label and a sentence.
fn aligned(table: &[Vec<String>]) -> String {
    let columns = table.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = table.iter().filter(|row| row.len() > 2 || column == 0).filter_map(|row| row.get(column));
        cells.map(String::len).max().unwrap_or_default()
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in table {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let _ = writeln!(text, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        let report = |failed| {
            let mut report = Report::default();
            report.tell("requests", 1000);
            report.none("failed", failed);
            report.summed_up(format!("{failed} failed"))
        };
        let mut rows = vec![("ringgate".to_owned(), Ok(report(0))), ("nginx".to_owned(), Ok(report(7)))];
        rows.push(("haproxy".to_owned(), Err(anyhow::anyhow!("it does not listen"))));
        Page { name: "e", title: "a backup", rows }
    }

    #[test]
    fn columns_stand_below_their_titles() {
        let text = "(e) a backup\n\n            requests  failed\n  wanted              0\n  ringgate  1000      0       passed\n  \
                    nginx     1000      7       missed\n  haproxy   could not be drilled: it does not listen\n";
        assert_eq!(page().text(), text);
    }

    #[test]
    fn the_readme_has_a_row_a_drill() {
        let text = "| drill | ringgate | nginx | haproxy |\n|---|---|---|---|\n\
                    | **e** a backup | **passed:** 0 failed | missed: 7 failed | could not be drilled |\n";
        assert_eq!(markdown(&[page()]), text);
    }
}
