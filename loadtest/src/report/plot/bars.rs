//! Horizontal bars with whiskers: a value each, and the interval it may be in.

use super::scale::{Scale, Unit};
use super::{Hue, Paper};
use crate::report::markup::{Markup, px};
use crate::result::Interval;

/// A bar.
#[derive(Clone, Debug)]
pub(in crate::report) struct Bar {
    /// Stands before it.
    pub(in crate::report) name: String,
    /// Its length, and the whisker's ends.
    pub(in crate::report) interval: Interval,
    /// Its colour.
    pub(in crate::report) hue: Hue,
}

/// Pixels from one bar to the next, and of a bar.
const PITCH: f64 = 44.0;
const THICK: f64 = 20.0;

/// Writes bars from 0 as a figure.
pub(in crate::report) fn bars(page: &mut Markup, heading: &str, unit: Unit, bars: &[Bar], sentence: &str) {
    let most = bars.iter().map(|bar| bar.interval.high.max(bar.interval.value)).fold(0.0, f64::max);
    page.element("figure", &[], |page| {
        page.leaf("h3", &[], heading);
        for paper in Paper::BOTH {
            draw(page, &Scale::linear(unit, 0.0, most), bars, paper, heading);
        }
        page.leaf("figcaption", &[], sentence);
    });
    page.line();
}

fn draw(page: &mut Markup, scale: &Scale, bars: &[Bar], paper: Paper, heading: &str) {
    // on narrow paper names stand above their bars
    let is_narrow = paper.class == "narrow";
    let widest = bars.iter().map(|bar| paper.text_width(&bar.name)).fold(0.0, f64::max).min(paper.width / 4.0);
    let left = if is_narrow { 4.0 } else { widest + 16.0 };
    let room = paper.text_width(&scale.unit().exact(888.8)) + 12.0;
    let (right, pitch) = (paper.width - room, if is_narrow { PITCH + 12.0 } else { PITCH });
    let bottom = bars.len() as f64 * pitch + 8.0;
    let x = |value: f64| left + scale.place(value) * (right - left);
    let view = format!("0 0 {} {}", px(paper.width), px(bottom + paper.font + 14.0));
    let size = px(paper.font);
    let attributes =
        [("class", paper.class), ("viewBox", &*view), ("role", "img"), ("aria-label", heading), ("font-size", &*size)];
    page.element("svg", &attributes, |page| {
        for (value, label) in scale.ticks(if is_narrow { 4 } else { 8 }) {
            let at = px(x(value));
            page.empty("path", &[("class", "grid"), ("d", &format!("M{at} 4V{}", px(bottom)))]);
            let (y, half) = (px(bottom + paper.font + 5.0), paper.text_width(&label) / 2.0);
            let at = px(x(value).max(half));
            page.leaf("text", &[("class", "tick"), ("x", &at), ("y", &y), ("text-anchor", "middle")], &label);
        }
        for (row, bar) in bars.iter().enumerate() {
            let middle = 8.0 + row as f64 * pitch + pitch / 2.0 + if is_narrow { 6.0 } else { -4.0 };
            draw_bar(page, bar, &x, (left, middle), scale.unit(), &paper);
        }
    });
}

fn draw_bar(
    page: &mut Markup,
    bar: &Bar,
    x: &impl Fn(f64) -> f64,
    (left, middle): (f64, f64),
    unit: Unit,
    paper: &Paper,
) {
    let Interval { value, low, high } = bar.interval;
    let base = px(middle + paper.font * 0.35);
    let (at, y, anchor) = if paper.class == "narrow" {
        (px(left), px(middle - THICK / 2.0 - 6.0), "start")
    } else {
        (px(left - 12.0), base.clone(), "end")
    };
    page.leaf("text", &[("class", "name"), ("x", &at), ("y", &y), ("text-anchor", anchor)], &bar.name);
    page.element("g", &[], |page| {
        let class = format!("bar {}", bar.hue.class());
        let place = [px(left), px(middle - THICK / 2.0), px(x(value) - left), px(THICK)];
        let attributes = [
            ("class", &*class),
            ("x", &place[0]),
            ("y", &place[1]),
            ("width", &place[2]),
            ("height", &place[3]),
            ("rx", "2"),
        ];
        page.empty("rect", &attributes);
        let (from, to, up) = (px(x(low)), px(x(high)), px(middle - 6.0));
        let path = format!("M{from} {up}v12M{from} {}H{to}M{to} {up}v12", px(middle));
        page.empty("path", &[("class", "whisker"), ("d", &path)]);
        let at = px(x(high.max(value)) + 9.0);
        page.leaf("text", &[("class", "value"), ("x", &at), ("y", &base)], &unit.exact(value));
        let text =
            format!("{}: {}, 95 % between {} and {}", bar.name, unit.exact(value), unit.exact(low), unit.exact(high));
        page.leaf("title", &[], &text);
    });
}
