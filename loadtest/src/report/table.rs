//! A table for a page and for a terminal: the same cells, so that both say the same.

use super::markup::{Markup, harmless};

/// What a cell means, besides its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    /// Nothing.
    #[default]
    Plain,
    /// It is as it should be.
    Good,
    /// It is not.
    Bad,
    /// Less important.
    Faint,
}

impl Tone {
    fn class(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Faint => "faint",
        }
    }
}

/// A cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Cell {
    text: String,
    /// A second line, less important.
    note: String,
    tone: Tone,
    /// Rows that it covers; 0: one above covers it.
    rows: usize,
}

impl Cell {
    /// A cell of this text.
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), note: String::new(), tone: Tone::Plain, rows: 1 }
    }

    /// The same with a meaning.
    pub(super) fn tone(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }

    /// Bad when this is so.
    pub(super) fn bad_if(self, bad: bool) -> Self {
        if bad { self.tone(Tone::Bad) } else { self }
    }

    /// The same with a second line.
    pub(super) fn note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    /// The same over several rows; 0 where one above covers it.
    pub(super) fn rows(self, rows: usize) -> Self {
        Self { rows, ..self }
    }

    /// Whether a threshold or a gate was met: a mark and a word, so that colour is not all that tells.
    pub(super) fn met(met: bool, (yes, no): (&str, &str)) -> Self {
        if met {
            Self::new(format!("✓ {yes}")).tone(Tone::Good)
        } else {
            Self::new(format!("✗ {no}")).tone(Tone::Bad)
        }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

/// Characters of a note that stays on one line.
const SHORT_NOTE: usize = 14;

/// A table. Every row has as many cells as there are columns.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    columns: Vec<String>,
    /// Of the columns, which hold numbers: they stand at the right.
    numbers: Vec<bool>,
    rows: Vec<Vec<Cell>>,
    /// As wide as its cells and not as the page, for few short columns.
    is_compact: bool,
    /// In smaller type, for many columns.
    is_dense: bool,
    /// On a narrow screen each row becomes a block with the columns' names, for tables of sentences.
    stacks: bool,
}

impl Table {
    /// A table with these columns; a name that begins with `#` is one of numbers.
    pub(super) fn new(columns: &[&str]) -> Self {
        Self {
            columns: columns.iter().map(|name| name.trim_start_matches('#').to_owned()).collect(),
            numbers: columns.iter().map(|name| name.starts_with('#')).collect(),
            ..Self::default()
        }
    }

    /// The same, as blocks on a narrow screen.
    pub(super) fn stacked(self) -> Self {
        Self { stacks: true, ..self }
    }

    /// The same, no wider than its cells.
    pub(super) fn compact(self) -> Self {
        Self { is_compact: true, ..self }
    }

    /// The same, in smaller type.
    pub(super) fn dense(self) -> Self {
        Self { is_dense: true, ..self }
    }

    /// Appends a row.
    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "a cell a column");
        self.rows.push(cells);
    }

    /// Whether it has no rows.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The same without columns in which no row says anything: what was not measured takes no room.
    pub(super) fn without_silent_columns(mut self) -> Self {
        let says = |cell: &Cell| !matches!(cell.text.as_str(), "" | super::words::NOTHING) || !cell.note.is_empty();
        let keep: Vec<bool> =
            (0..self.columns.len()).map(|column| self.rows.iter().any(|row| says(&row[column]))).collect();
        let mut kept = keep.iter().copied().cycle();
        let mut next = || kept.next().unwrap_or(true);
        self.columns.retain(|_| next());
        self.numbers.retain(|_| next());
        for row in &mut self.rows {
            row.retain(|_| next());
        }
        self
    }

    /// Writes it into a page.
    pub(super) fn draw(&self, page: &mut Markup) {
        let class = match () {
            () if self.stacks => "scroll stack",
            () if self.is_compact => "scroll compact",
            () if self.is_dense => "scroll dense",
            () => "scroll",
        };
        page.element("div", &[("class", class), ("tabindex", "0")], |page| {
            page.element("table", &[], |page| {
                page.element("thead", &[], |page| {
                    page.element("tr", &[], |page| {
                        for (name, is_number) in self.columns.iter().zip(&self.numbers) {
                            page.leaf("th", &[("scope", "col"), ("class", number_class(*is_number))], name);
                        }
                    });
                });
                page.element("tbody", &[], |page| {
                    self.rows.iter().for_each(|row| self.draw_row(row, page));
                });
            });
        });
        page.line();
    }

    fn draw_row(&self, row: &[Cell], page: &mut Markup) {
        // a row whose first cell is its own begins a group
        let class = if row.first().is_some_and(|cell| cell.rows > 1) { "group" } else { "" };
        page.element("tr", &[("class", class)], |page| {
            for ((cell, name), is_number) in row.iter().zip(&self.columns).zip(&self.numbers) {
                if cell.rows == 0 {
                    continue;
                }
                let class = [number_class(*is_number), cell.tone.class()].join(" ");
                let rows = cell.rows.to_string();
                let attributes = [("class", class.trim()), ("data-label", name.as_str()), ("rowspan", rows.as_str())];
                page.element("td", &attributes, |page| {
                    page.leaf("span", &[("class", "value")], &cell.text);
                    if !cell.note.is_empty() {
                        let class = if cell.note.chars().count() > SHORT_NOTE { "note long" } else { "note" };
                        page.leaf("span", &[("class", class)], &cell.note);
                    }
                });
            }
        });
    }

    /// As lines for a terminal, columns aligned; notes stand in brackets after their cell.
    pub(super) fn lines(&self) -> String {
        let mut cells = vec![self.columns.clone()];
        cells.extend(self.rows.iter().map(|row| row.iter().map(plain).collect::<Vec<_>>()));
        let wide = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(wide).collect();
        let mut text = String::new();
        for row in &cells {
            let mut line = String::from(" ");
            for ((cell, width), is_number) in row.iter().zip(&widths).zip(&self.numbers) {
                let gap = " ".repeat(width - cell.chars().count());
                let (before, after) = if *is_number { (gap.as_str(), "") } else { ("", gap.as_str()) };
                line.extend([" ", before, cell, after, " "]);
            }
            text.extend([line.trim_end(), "\n"]);
        }
        text
    }
}

fn number_class(is_number: bool) -> &'static str {
    if is_number { "number" } else { "" }
}

fn plain(cell: &Cell) -> String {
    if cell.rows == 0 {
        return String::new();
    }
    let note = if cell.note.is_empty() { String::new() } else { format!(" ({})", cell.note) };
    one_line(&format!("{}{note}", cell.text))
}

/// Text from outside for a terminal: one line, without anything that would move its cursor.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|symbol| if matches!(symbol, '\n' | '\t') { ' ' } else { harmless(symbol) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_aligned_and_hold_no_controls() {
        let mut table = Table::new(&["name", "#value"]);
        table.row(vec!["a\u{1b}[2J".into(), "1".into()]);
        table.row(vec![Cell::new("longer").note("why"), "1,234".into()]);
        assert_eq!(table.lines(), "  name          value\n  a\u{fffd}[2J             1\n  longer (why)  1,234\n");
    }

    #[test]
    fn silent_columns_go() {
        let mut table = Table::new(&["a", "#b", "#c"]);
        table.row(vec!["x".into(), "–".into(), "1".into()]);
        assert_eq!(table.without_silent_columns().lines(), "  a  c\n  x  1\n");
    }
}
