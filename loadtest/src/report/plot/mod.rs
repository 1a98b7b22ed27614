//! Plots as inline SVG: lines, dots, bands, shaded spans, bounds, and bars with intervals.
//!
//! Every plot is drawn twice, for a wide screen (and paper) and for a narrow one, and the style sheet shows one of them: text keeps its size on a
//! phone instead of shrinking with the drawing. Colours are classes, so that light, dark and paper differ in the style sheet alone. Values are
//! shown on hovering by `<title>`, without a script. What is ∞ has a lane of its own above the axis: it is neither left out nor drawn as large.

mod bars;
mod chart;
mod scale;
mod strokes;

pub(super) use bars::{Bar, bars};
pub(super) use chart::{Band, Chart, Dots, Line, Rule, Span, figure};
pub(super) use scale::{Scale, Unit};

use super::markup::Markup;

/// Colour of something drawn; what each is, the style sheet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hue {
    /// One of a series, by its row; they repeat after six.
    Series(usize),
    /// What things are compared with.
    Neutral,
    /// A bound.
    Bound,
    /// Failures.
    Bad,
}

impl Hue {
    fn class(self) -> &'static str {
        const SERIES: [&str; 6] = ["s1", "s2", "s3", "s4", "s5", "s6"];
        match self {
            Self::Series(row) => SERIES[row % SERIES.len()],
            Self::Neutral => "s0",
            Self::Bound => "bound",
            Self::Bad => "lost",
        }
    }
}

/// A size to draw at, in pixels.
#[derive(Clone, Copy, Debug)]
struct Paper {
    /// Which one the style sheet shows.
    class: &'static str,
    width: f64,
    /// For the ticks of the vertical axis.
    left: f64,
    right: f64,
    /// Text.
    font: f64,
    /// Ticks of the horizontal axis at most.
    ticks: usize,
}

impl Paper {
    const BOTH: [Self; 2] = [
        Self { class: "wide", width: 1000.0, left: 62.0, right: 16.0, font: 12.5, ticks: 10 },
        Self { class: "narrow", width: 358.0, left: 56.0, right: 10.0, font: 11.5, ticks: 5 },
    ];

    /// Width of text, somewhat more than it is in the widest of usual fonts.
    fn text_width(&self, text: &str) -> f64 {
        text.chars().count() as f64 * self.font * 0.62
    }
}

/// An entry of a legend: how it is drawn, and its name.
fn swatch(page: &mut Markup, class: &str, name: &str) {
    page.element("li", &[], |page| {
        page.element("svg", &[("class", "swatch"), ("viewBox", "0 0 22 10"), ("aria-hidden", "true")], |page| {
            if class.contains("dot") {
                page.empty("circle", &[("class", class), ("cx", "11"), ("cy", "5"), ("r", "3.5")]);
            } else if class.contains("area") {
                page.empty("rect", &[("class", class), ("width", "22"), ("height", "10")]);
            } else {
                page.empty("path", &[("class", class), ("d", "M0 5H22")]);
            }
        });
        page.text(name);
    });
}
