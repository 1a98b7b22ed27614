//! The strokes of a chart, at one size.

use super::chart::{Band, Chart, Dots, Line, Rule, Span};
use super::{Hue, Paper};
use crate::report::markup::{Markup, px};
use std::fmt::Write as _;

/// Pixels of which a line keeps four points at most.
const THINNED_PIXELS: f64 = 1.0;
/// Pixels of the lane of ∞ that are drawn; the rest keeps its label apart from the topmost tick.
const LANE_RECT: f64 = 16.0;
/// Pixels from one row of names to the next.
pub(super) const NAME_PITCH: f64 = 16.0;
/// Pixels between places that have a tooltip, at least.
const HOVER_PIXELS: f64 = 4.0;

/// A chart on paper: between `top` and `bottom`, with a lane for ∞ above `top`.
pub(super) struct Strokes<'a> {
    pub(super) chart: &'a Chart,
    pub(super) paper: Paper,
    pub(super) top: f64,
    pub(super) bottom: f64,
    /// Height of the lane; 0: nothing is ∞.
    pub(super) lane: f64,
}

impl Strokes<'_> {
    fn left(&self) -> f64 {
        self.paper.left
    }

    fn right(&self) -> f64 {
        self.paper.width - self.paper.right
    }

    fn x(&self, value: f64) -> f64 {
        self.left() + self.chart.x.place(value) * (self.right() - self.left())
    }

    fn y(&self, value: f64) -> f64 {
        if value.is_infinite() {
            return self.top - self.lane + LANE_RECT / 2.0;
        }
        self.bottom - self.chart.y.place(value) * (self.bottom - self.top)
    }

    /// Shaded parts, their bounds and names.
    pub(super) fn spans(&self, page: &mut Markup) {
        let spans: Vec<(&Span, f64, f64)> =
            self.chart.spans.iter().map(|span| (span, self.x(span.from), self.x(span.to))).collect();
        let top = self.top - self.lane;
        for (span, from, to) in &spans {
            if let Some(hue) = span.hue {
                let class = format!("span {}", hue.class());
                rect(page, &class, [*from, top, (to - from).max(1.0), self.bottom - top]);
            }
            if *from > self.left() + 1.0 && !span.short.is_empty() {
                page.empty(
                    "path",
                    &[("class", "edge"), ("d", &format!("M{} {}V{}", px(*from), px(top), px(self.bottom)))],
                );
            }
        }
        if self.chart.names_spans {
            let fit = spans.iter().all(|(span, from, to)| self.paper.text_width(&span.name) + 8.0 <= to - from);
            for (row, (span, from, to)) in spans.iter().enumerate() {
                let row = if span.short.is_empty() { row } else { 0 };
                self.span_name(page, span, (*from, *to), fit, row);
            }
        }
    }

    fn span_name(&self, page: &mut Markup, span: &Span, (from, to): (f64, f64), fit: bool, row: usize) {
        let y = px(self.top - self.lane - 7.0 - row as f64 * NAME_PITCH);
        let wide = self.paper.text_width(&span.name);
        let (x, anchor, name) = match () {
            () if !span.short.is_empty() => ((from + to) / 2.0, "middle", if fit { &span.name } else { &span.short }),
            // beside the span, on the side that has room
            () if (from + to) / 2.0 + wide / 2.0 <= self.right() && (from + to) / 2.0 - wide / 2.0 >= self.left() => {
                ((from + to) / 2.0, "middle", &span.name)
            }
            () if to - wide >= 0.0 => (to, "end", &span.name),
            () => (from.min(self.left()), "start", &span.name),
        };
        let class = match span.hue {
            Some(hue) if span.short.is_empty() => format!("name {}", hue.class()),
            _ => "name".to_owned(),
        };
        page.element("text", &[("class", &class), ("x", &px(x)), ("y", &y), ("text-anchor", anchor)], |page| {
            page.text(name);
            if *name != span.name {
                page.leaf("title", &[], &span.name);
            }
        });
    }

    /// Ticks, lines of the grid, the lane of ∞ and the name of the horizontal axis.
    pub(super) fn axes(&self, page: &mut Markup) {
        let (left, right) = (px(self.left()), px(self.right()));
        let beside = px(self.left() - 8.0);
        for (value, label) in self.chart.y.ticks(((self.bottom - self.top) / 26.0) as usize) {
            let y = self.y(value);
            page.empty("path", &[("class", "grid"), ("d", &format!("M{left} {}H{right}", px(y)))]);
            let y = px(y + self.paper.font * 0.35);
            page.leaf("text", &[("class", "tick"), ("x", &beside), ("y", &y), ("text-anchor", "end")], &label);
        }
        if self.lane > 0.0 {
            rect(page, "lane", [self.left(), self.top - self.lane, self.right() - self.left(), LANE_RECT]);
            let y = px(self.y(f64::INFINITY) + self.paper.font * 0.4);
            page.leaf("text", &[("class", "tick infinite"), ("x", &beside), ("y", &y), ("text-anchor", "end")], "∞");
        }
        page.empty("path", &[("class", "axis"), ("d", &format!("M{left} {}H{right}", px(self.bottom)))]);
        if !self.chart.x_name.is_empty() {
            self.x_ticks(page);
        }
    }

    fn x_ticks(&self, page: &mut Markup) {
        let y = px(self.bottom + self.paper.font + 7.0);
        for (value, label) in self.chart.x.ticks(self.paper.ticks) {
            let x = self.x(value);
            page.empty("path", &[("class", "axis"), ("d", &format!("M{} {}v4", px(x), px(self.bottom)))]);
            let half = self.paper.text_width(&label) / 2.0;
            // the outermost do not leave the paper
            let x = px(x.min(self.paper.width - half));
            page.leaf("text", &[("class", "tick"), ("x", &x), ("y", &y), ("text-anchor", "middle")], &label);
        }
        let (x, y) = (px((self.left() + self.right()) / 2.0), px(self.bottom + self.paper.font * 2.0 + 14.0));
        page.leaf("text", &[("class", "unit"), ("x", &x), ("y", &y), ("text-anchor", "middle")], &self.chart.x_name);
    }

    /// What lies between two lines.
    pub(super) fn band(&self, page: &mut Markup, band: &Band) {
        let forth = band.points.iter().map(|point| (point.0, point.1));
        let back = band.points.iter().rev().map(|point| (point.0, point.2));
        let outline: Vec<(f64, f64)> = forth.chain(back).map(|point| (self.x(point.0), self.y(point.1))).collect();
        page.empty("path", &[("class", &format!("area {}", band.hue.class())), ("d", &format!("{}Z", path(&outline)))]);
    }

    /// A line, broken where there is no number.
    pub(super) fn line(&self, page: &mut Markup, line: &Line) {
        let points: Vec<(f64, f64)> = line.points.iter().map(|point| (self.x(point.0), self.y(point.1))).collect();
        for part in thinned(&points).split(|point| point.1.is_nan()).filter(|part| !part.is_empty()) {
            let path = path(part);
            if line.is_filled {
                let (first, last, floor) = (px(part[0].0), px(part[part.len() - 1].0), px(self.bottom));
                let area = format!("{path}L{last} {floor}L{first} {floor}Z");
                page.empty("path", &[("class", &format!("area {}", line.hue.class())), ("d", &area)]);
            }
            if part.len() == 1 {
                let (x, y) = (px(part[0].0), px(part[0].1));
                page.empty(
                    "circle",
                    &[("class", &format!("dot {}", line.hue.class())), ("cx", &x), ("cy", &y), ("r", "2")],
                );
            }
            page.empty("path", &[("class", &line.class()), ("d", &path)]);
        }
    }

    /// Points that stand alone.
    pub(super) fn dots(&self, page: &mut Markup, dots: &Dots) {
        let class = dots.class();
        for point in dots.points.iter().filter(|point| !point.1.is_nan()) {
            let (x, y) = (px(self.x(point.0)), px(self.y(point.1)));
            page.empty("circle", &[("class", &class), ("cx", &x), ("cy", &y), ("r", "3.5")]);
        }
    }

    /// A bound with its name, as far as it is on the axis.
    pub(super) fn rule(&self, page: &mut Markup, rule: &Rule) {
        if !self.chart.y.holds(rule.at) {
            return;
        }
        let (left, right, y) = (px(self.left()), px(self.right()), self.y(rule.at));
        let class = format!("rule {}", Hue::Bound.class());
        page.empty("path", &[("class", &class), ("d", &format!("M{left} {}H{right}", px(y)))]);
        // above it, or below where it would stand in what is above the chart
        let has_room = y - self.paper.font >= self.top;
        let (x, y) = (px(self.left() + 8.0), px(if has_room { y - 6.0 } else { y + self.paper.font + 2.0 }));
        page.leaf("text", &[("class", "rule-name"), ("x", &x), ("y", &y)], &rule.name);
    }

    /// Columns that show what is under the pointer.
    pub(super) fn hovers(&self, page: &mut Markup) {
        let lines = self.chart.lines.iter().map(|line| (&line.name, &line.points));
        let named: Vec<_> = lines.chain(self.chart.dots.iter().map(|dots| (&dots.name, &dots.points))).collect();
        let mut places: Vec<f64> = named.iter().flat_map(|(_, points)| points.iter().map(|point| point.0)).collect();
        places.retain(|x| x.is_finite());
        places.sort_by(f64::total_cmp);
        let mut columns: Vec<f64> = Vec::new();
        for place in places {
            if columns.last().is_none_or(|last| self.x(place) - self.x(*last) >= HOVER_PIXELS) {
                columns.push(place);
            }
        }
        let top = self.top - self.lane;
        for (row, place) in columns.iter().enumerate() {
            let x = self.x(*place);
            let from = if row == 0 { self.left() } else { (self.x(columns[row - 1]) + x) / 2.0 };
            let to = columns.get(row + 1).map_or(self.right(), |next| (self.x(*next) + x) / 2.0);
            let (y, height) = (px(top), px(self.bottom - top));
            let attributes = [
                ("class", "hover"),
                ("x", &*px(from)),
                ("y", &y),
                ("width", &*px((to - from).max(0.5))),
                ("height", &height),
            ];
            page.element("rect", &attributes, |page| page.leaf("title", &[], &self.values(&named, *place, (from, to))));
        }
    }

    /// What a tooltip says: the place, and of everything named its point nearest to the place within the column.
    fn values(&self, named: &[(&String, &Vec<(f64, f64)>)], place: f64, (from, to): (f64, f64)) -> String {
        let mut text = self.chart.x.unit().exact(place);
        for (name, points) in named.iter().filter(|(name, _)| !name.is_empty()) {
            let within = points.iter().filter(|point| !point.1.is_nan() && (from..=to).contains(&self.x(point.0)));
            let away = |point: &(f64, f64)| (point.0 - place).abs();
            if let Some(point) = within.min_by(|a, b| away(a).total_cmp(&away(b))) {
                let _ = write!(text, "\n{name}: {}", self.chart.y.unit().exact(point.1));
            }
        }
        text
    }
}

/// A rectangle: x, y, width and height.
fn rect(page: &mut Markup, class: &str, place: [f64; 4]) {
    let [x, y, width, height] = place.map(px);
    page.empty("rect", &[("class", class), ("x", &x), ("y", &y), ("width", &width), ("height", &height)]);
}

/// The data of a path through these points.
fn path(points: &[(f64, f64)]) -> String {
    let mut path = String::new();
    for (row, (x, y)) in points.iter().enumerate() {
        // Writing to a string does not fail.
        let _ = write!(path, "{}{} {}", if row == 0 { 'M' } else { 'L' }, px(*x), px(*y));
    }
    path
}

/// Points on paper without those that no screen can show apart: of each pixel the first, the lowest, the highest and the last stay, in their
/// order (the "M4" of Jugel and others, VLDB 2014).
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut kept: Vec<(f64, f64)> = Vec::new();
    let mut rest = points;
    while let Some(first) = rest.first() {
        let is_here = |point: &&(f64, f64)| point.0 < first.0 + THINNED_PIXELS && !point.1.is_nan();
        let (column, after) = rest.split_at(rest.iter().take_while(is_here).count().max(1));
        let by_height = |a: &usize, b: &usize| column[*a].1.total_cmp(&column[*b].1);
        let (low, high) = ((0..column.len()).min_by(by_height), (0..column.len()).max_by(by_height));
        let mut rows = vec![0, low.unwrap_or(0), high.unwrap_or(0), column.len() - 1];
        rows.sort_unstable();
        rows.dedup();
        kept.extend(rows.into_iter().map(|row| column[row]));
        rest = after;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_peaks_and_gaps() {
        let points: Vec<(f64, f64)> = (0..10_000)
            .map(|row| (f64::from(row) / 100.0, if row == 5_005 { 0.0 } else { 50.0 + f64::from(row % 3) }))
            .collect();
        let kept = thinned(&points);
        assert!(kept.len() <= 410 && kept.contains(&points[5_005]), "{}", kept.len());
        let with_gap = thinned(&[(0.0, 1.0), (1.0, f64::NAN), (2.0, 1.0)]);
        assert!(with_gap.len() == 3 && with_gap[1].1.is_nan());
    }
}
