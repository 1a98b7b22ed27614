//! A chart: one pair of axes with what is drawn between them, and figures of one or several charts above each other.

use super::scale::Scale;
use super::strokes::{NAME_PITCH, Strokes};
use super::{Hue, Paper, swatch};
use crate::report::markup::{Markup, px};

/// A chart. Points are (x, y) in the units of the axes; a y of ∞ is drawn in its lane, one that is no number breaks a line.
#[derive(Clone, Debug)]
pub(in crate::report) struct Chart {
    /// What the vertical axis shows, with its unit where ticks have none.
    pub(in crate::report) name: String,
    /// What the horizontal axis shows; empty: a chart below has the same axis.
    pub(in crate::report) x_name: String,
    /// Horizontal.
    pub(in crate::report) x: Scale,
    /// Vertical.
    pub(in crate::report) y: Scale,
    /// Pixels between the ends of the vertical axis.
    pub(in crate::report) height: f64,
    /// Drawn below the lines.
    pub(in crate::report) bands: Vec<Band>,
    /// Drawn in this order.
    pub(in crate::report) lines: Vec<Line>,
    /// Drawn over the lines.
    pub(in crate::report) dots: Vec<Dots>,
    /// Shaded from top to bottom, below everything.
    pub(in crate::report) spans: Vec<Span>,
    /// Whether spans are named above the chart.
    pub(in crate::report) names_spans: bool,
    /// Bounds.
    pub(in crate::report) rules: Vec<Rule>,
}

impl Chart {
    /// A chart with nothing on it.
    pub(in crate::report) fn new(name: &str, x_name: &str, x: Scale, y: Scale, height: f64) -> Self {
        Self {
            name: name.to_owned(),
            x_name: x_name.to_owned(),
            x,
            y,
            height,
            bands: Vec::new(),
            lines: Vec::new(),
            dots: Vec::new(),
            spans: Vec::new(),
            names_spans: false,
            rules: Vec::new(),
        }
    }

    /// Whether anything never came.
    pub(super) fn has_infinity(&self) -> bool {
        let lines = self.lines.iter().map(|line| &line.points);
        lines.chain(self.dots.iter().map(|dots| &dots.points)).flatten().any(|point| point.1.is_infinite())
    }
}

/// A line through points of ascending x.
#[derive(Clone, Debug)]
pub(in crate::report) struct Line {
    /// For the legend; empty: not in it.
    pub(in crate::report) name: String,
    /// Its colour.
    pub(in crate::report) hue: Hue,
    /// Instead of a solid one.
    pub(in crate::report) is_dashed: bool,
    /// Whether the legend has it; a tooltip does in any case.
    pub(in crate::report) is_listed: bool,
    /// The area below is tinted.
    pub(in crate::report) is_filled: bool,
    /// Where it runs.
    pub(in crate::report) points: Vec<(f64, f64)>,
}

impl Line {
    /// A solid line.
    pub(in crate::report) fn new(name: impl Into<String>, hue: Hue, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), hue, is_dashed: false, is_listed: true, is_filled: false, points }
    }

    /// The same, dashed.
    pub(in crate::report) fn dashed(self) -> Self {
        Self { is_dashed: true, ..self }
    }

    /// The same, explained elsewhere than in the legend.
    pub(in crate::report) fn unlisted(self) -> Self {
        Self { is_listed: false, ..self }
    }

    /// The same, with the area below it.
    pub(in crate::report) fn filled(self) -> Self {
        Self { is_filled: true, ..self }
    }

    pub(super) fn class(&self) -> String {
        format!("line {}{}", self.hue.class(), if self.is_dashed { " dashed" } else { "" })
    }
}

/// What lies between two lines: the range of several trials.
#[derive(Clone, Debug)]
pub(in crate::report) struct Band {
    /// Its colour.
    pub(in crate::report) hue: Hue,
    /// x, lower and upper y.
    pub(in crate::report) points: Vec<(f64, f64, f64)>,
}

/// Points that stand alone.
#[derive(Clone, Debug)]
pub(in crate::report) struct Dots {
    /// For the legend; empty: not in it.
    pub(in crate::report) name: String,
    /// Their colour.
    pub(in crate::report) hue: Hue,
    /// Rings rather than discs.
    pub(in crate::report) is_hollow: bool,
    /// Where they are.
    pub(in crate::report) points: Vec<(f64, f64)>,
}

impl Dots {
    pub(super) fn class(&self) -> String {
        format!("dot {}{}", self.hue.class(), if self.is_hollow { " hollow" } else { "" })
    }
}

/// A part of the horizontal axis.
#[derive(Clone, Debug)]
pub(in crate::report) struct Span {
    /// Its start.
    pub(in crate::report) from: f64,
    /// Its end.
    pub(in crate::report) to: f64,
    /// Stands above it where there is room.
    pub(in crate::report) name: String,
    /// Stands there where there is less; empty: the name is moved beside the span.
    pub(in crate::report) short: String,
    /// Its colour; `None`: it is not shaded.
    pub(in crate::report) hue: Option<Hue>,
}

/// A horizontal bound.
#[derive(Clone, Debug)]
pub(in crate::report) struct Rule {
    /// Where.
    pub(in crate::report) at: f64,
    /// Stands on it.
    pub(in crate::report) name: String,
}

/// Writes charts above each other as one figure, with a heading, legends and a sentence below.
pub(in crate::report) fn figure(page: &mut Markup, heading: &str, charts: &[Chart], sentence: &str) {
    page.element("figure", &[], |page| {
        if !heading.is_empty() {
            page.leaf("h3", &[], heading);
        }
        for chart in charts {
            legend(page, chart);
            for paper in Paper::BOTH {
                draw(page, chart, paper, heading);
            }
            page.line();
        }
        if !sentence.is_empty() {
            page.leaf("figcaption", &[], sentence);
        }
    });
    page.line();
}

fn legend(page: &mut Markup, chart: &Chart) {
    page.element("div", &[("class", "legend")], |page| {
        page.leaf("strong", &[], &chart.name);
        page.element("ul", &[], |page| {
            for line in chart.lines.iter().filter(|line| line.is_listed && !line.name.is_empty()) {
                swatch(page, &line.class(), &line.name);
            }
            for dots in chart.dots.iter().filter(|dots| !dots.name.is_empty()) {
                swatch(page, &dots.class(), &dots.name);
            }
        });
    });
}

/// Room above the axis for names of spans, and for what is ∞.
const NAMES: f64 = 22.0;
const LANE: f64 = 26.0;

fn draw(page: &mut Markup, chart: &Chart, paper: Paper, heading: &str) {
    // names beside their spans have a row each
    let beside = chart.spans.iter().filter(|span| span.short.is_empty()).count().max(1) - 1;
    let names = if chart.names_spans { NAMES + beside as f64 * NAME_PITCH } else { 6.0 };
    let lane = if chart.has_infinity() { LANE } else { 0.0 };
    let top = names + lane;
    let bottom = top + chart.height;
    let below = if chart.x_name.is_empty() { 10.0 } else { paper.font * 2.0 + 20.0 };
    let strokes = Strokes { chart, paper, top, bottom, lane };
    let view = format!("0 0 {} {}", px(paper.width), px(bottom + below));
    let (size, name) = (px(paper.font), format!("{heading}: {}", chart.name));
    let attributes = [
        ("class", paper.class),
        ("viewBox", view.as_str()),
        ("role", "img"),
        ("aria-label", name.trim_start_matches(": ")),
        ("font-size", size.as_str()),
    ];
    page.element("svg", &attributes, |page| {
        strokes.spans(page);
        strokes.axes(page);
        chart.bands.iter().for_each(|band| strokes.band(page, band));
        chart.lines.iter().for_each(|line| strokes.line(page, line));
        chart.dots.iter().for_each(|dots| strokes.dots(page, dots));
        chart.rules.iter().for_each(|rule| strokes.rule(page, rule));
        strokes.hovers(page);
    });
}
