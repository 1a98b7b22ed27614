//! The difference between two results: which numbers moved, by how much, and whether beyond what chance alone does.
//!
//! A number has moved beyond noise when its two intervals of 95 % share nothing and it changed by 1 % at least. That asks for more than a test
//! of the difference would: what is called a difference here is one. Numbers are compared at equal offered rates only, since the cost of a
//! request falls by a third from low load to saturation. Results of different machines or loads can be compared; the warnings then say why it
//! means little.

use super::markup::Markup;
use super::measures::{self, Measure, Quantity};
use super::section;
use super::table::{Cell, Table, Tone, one_line};
use super::words::{self, NOTHING};
use crate::result::{Interval, Outcome};
use std::fmt;

/// Two results side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// What the first is about.
    pub a: String,
    /// What the second is about.
    pub b: String,
    /// Why the differences may mean less than they seem to.
    pub warnings: Vec<String>,
    /// Numbers that both have.
    pub differences: Vec<Difference>,
}

/// One number in both results.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// A phase, a purpose of runs with its rate, a gateway.
    pub of: String,
    /// `p99`, `failed` …
    pub what: String,
    /// Its unit.
    pub quantity: Quantity,
    /// In the first: value and interval of 95 %, ∞ where it never came; ends that are NaN are not known.
    pub a: Interval,
    /// In the second.
    pub b: Interval,
    /// What follows.
    pub finding: Finding,
}

/// Whether a number has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The second is better, beyond noise.
    Better,
    /// The second is worse, beyond noise.
    Worse,
    /// The intervals overlap, or the change is below 1 %.
    Within,
    /// There is no interval: a single run, say.
    Unknown,
}

/// The least change, as a share, that is called one: histograms resolve a thousandth, and where threads happen to land moves a median by about
/// a hundredth from run to run, which the interval of a single run does not hold.
const CHANGE_MIN: f64 = 0.01;

impl Finding {
    fn of(quantity: Quantity, a: Interval, b: Interval) -> Self {
        let more = if quantity == Quantity::Rate { Self::Better } else { Self::Worse };
        let less = if quantity == Quantity::Rate { Self::Worse } else { Self::Better };
        match () {
            () if [a.low, a.high, b.low, b.high].iter().any(|end| end.is_nan()) => Self::Unknown,
            () if (b.value - a.value).abs() < CHANGE_MIN * a.value.abs() => Self::Within,
            // brackets that only touch: what one was shown not to hold the other was shown to
            () if b.low > a.high || (quantity == Quantity::Rate && b.low >= a.high) => more,
            () if b.high < a.low || (quantity == Quantity::Rate && b.high <= a.low) => less,
            () => Self::Within,
        }
    }

    fn cell(self) -> Cell {
        match self {
            Self::Better => Cell::new("better").tone(Tone::Good),
            Self::Worse => Cell::new("worse").tone(Tone::Bad),
            Self::Within => Cell::new("within noise").tone(Tone::Faint),
            Self::Unknown => Cell::new("noise not known").tone(Tone::Faint),
        }
    }
}

impl Difference {
    /// The second by the first, less one: 0.1 is ten per cent more. `None` where either is ∞ or the first is 0.
    #[must_use]
    pub fn change(&self) -> Option<f64> {
        let change = self.b.value / self.a.value - 1.0;
        (change.is_finite() && self.b.value.is_finite() && self.a.value.is_finite()).then_some(change)
    }

    fn shown_change(&self) -> String {
        match self.change() {
            Some(change) if change >= 1.0 => format!("× {:.2}", change + 1.0),
            Some(change) => format!("{:+.1} %", change * 100.0),
            None => NOTHING.to_owned(),
        }
    }

    fn cell(&self, side: Interval) -> Cell {
        let shown = |value| self.quantity.shown(value);
        let is_known = !side.low.is_nan() && side.low != side.high;
        Cell::new(shown(side.value)).note(if is_known {
            format!("{} to {}", shown(side.low), shown(side.high))
        } else {
            String::new()
        })
    }
}

/// Which numbers of two results differ, by how much, and whether beyond noise.
#[must_use]
pub fn compare(a: &Outcome, b: &Outcome) -> Comparison {
    let (of_a, of_b) = (measures::all(a), measures::all(b));
    let pairs = of_a.iter().filter_map(|one| Some((one, of_b.iter().find(|other| one.is_like(other))?)));
    let differences: Vec<Difference> = pairs.map(|(one, other)| difference(one, other)).collect();
    let mut warnings = warnings(a, b);
    if differences.is_empty() {
        warnings.push("Nothing in the two results is of the same kind and at the same rate.".to_owned());
    }
    Comparison { a: named(a), b: named(b), warnings, differences }
}

fn difference(a: &Measure, b: &Measure) -> Difference {
    let of = match a.rate {
        Some(rate) => format!("{}, {}/s", a.of, words::rate(rate)),
        None => a.of.clone(),
    };
    let finding = Finding::of(a.quantity, a.interval, b.interval);
    Difference { of, what: a.what.to_owned(), quantity: a.quantity, a: a.interval, b: b.interval, finding }
}

/// Title and time, which tell two results of one command apart.
fn named(outcome: &Outcome) -> String {
    let mut name = outcome.title.clone();
    let gateways: Vec<&str> = outcome.drills.iter().map(|drill| drill.gateway.as_str()).collect();
    if !gateways.is_empty() {
        name.push_str(&format!(" ({})", gateways.join(", ")));
    }
    format!("{name}, {}", words::date(outcome.started))
}

fn warnings(a: &Outcome, b: &Outcome) -> Vec<String> {
    let mut warnings = Vec::new();
    for (name, outcome) in [("first", a), ("second", b)] {
        if !outcome.is_valid() {
            warnings.push(format!("The {name} result is INVALID: its numbers may not be relied on."));
        }
        if outcome.is_partial {
            warnings.push(format!("The {name} result is PARTIAL: it was ended early."));
        }
    }
    let (from, to) = (&a.environment, &b.environment);
    let (load, other) = (&a.load, &b.load);
    let number = |value: usize| value.to_string();
    let targets = |outcome: &Outcome| {
        let each = outcome.load.targets.iter();
        each.map(|target| format!("{} {}", target.request, words::percent(target.share))).collect::<Vec<_>>().join(", ")
    };
    let bound = |outcome: &Outcome| {
        let capacity = outcome.capacity.as_ref();
        capacity.map_or_else(String::new, |c| format!("{} < {}", words::quantile(c.quantile), words::bound(c.bound)))
    };
    for (what, first, second) in [
        ("Command", a.command.clone(), b.command.clone()),
        ("Version of the tool", a.tool.clone(), b.tool.clone()),
        ("Host", from.host.clone(), to.host.clone()),
        ("Processor", from.cpu.clone(), to.cpu.clone()),
        ("Kernel", from.kernel.clone(), to.kernel.clone()),
        ("Number of cores", number(from.cores.len()), number(to.cores.len())),
        ("Cores of the generator", words::cores(&from.generator_cores), words::cores(&to.generator_cores)),
        ("Cores of the gateway", words::cores(&from.gateway_cores), words::cores(&to.gateway_cores)),
        ("Cores of upstreams", words::cores(&from.upstream_cores), words::cores(&to.upstream_cores)),
        ("Arrivals", load.pace.clone(), other.pace.clone()),
        ("Connections", number(load.connections), number(other.connections)),
        ("Connections at most", number(load.connections_max), number(other.connections_max)),
        ("Protocol", load.protocol.clone(), other.protocol.clone()),
        ("One request a connection", load.reconnects.to_string(), other.reconnects.to_string()),
        ("Timeout", words::bound(load.timeout), words::bound(other.timeout)),
        ("Mix of requests", targets(a), targets(b)),
        ("Bound", bound(a), bound(b)),
    ] {
        if first != second {
            let said = |text: String| if text.is_empty() { NOTHING.to_owned() } else { text };
            warnings.push(format!("{what} differs: {}; {}.", said(first), said(second)));
        }
    }
    if a.plan.as_ref().map(|plan| &plan.text) != b.plan.as_ref().map(|plan| &plan.text) {
        warnings.push("The plans differ.".to_owned());
    }
    warnings
}

impl Comparison {
    /// A whole page of this comparison alone.
    #[must_use]
    pub fn html(&self) -> String {
        super::page("Two results compared", |page| {
            page.element("header", &[], |page| {
                page.leaf("p", &[("class", "eyebrow")], "ringgate-load compare");
                page.leaf("h1", &[], "Two results compared");
            });
            page.element("main", &[], |page| self.draw(page));
        })
    }

    /// The section alone, to be set into a page of [`super::html`]'s style.
    #[must_use]
    pub fn section(&self) -> String {
        let mut part = Markup::default();
        self.draw(&mut part);
        part.into_fragment()
    }

    /// How many numbers are better and worse, beyond noise.
    #[must_use]
    pub fn moved(&self) -> (usize, usize) {
        let number = |finding| self.differences.iter().filter(|difference| difference.finding == finding).count();
        (number(Finding::Better), number(Finding::Worse))
    }

    pub(super) fn draw(&self, page: &mut Markup) {
        section(page, "compare", "The two compared", |page| {
            page.element("dl", &[("class", "sides")], |page| {
                for (side, name) in [("A", &self.a), ("B", &self.b)] {
                    page.element("div", &[], |page| {
                        page.leaf("dt", &[], side);
                        page.leaf("dd", &[], name);
                    });
                }
            });
            page.leaf("p", &[], &self.summary());
            if !self.warnings.is_empty() {
                page.element("ul", &[("class", "warnings")], |page| {
                    self.warnings.iter().for_each(|warning| page.leaf("li", &[], warning));
                });
            }
            if !self.differences.is_empty() {
                self.table().draw(page);
                let text = "Beyond noise: the intervals of 95 % share nothing, and the change is 1 % at least. Intervals: order \
                            statistics of the histograms, widened to the range of repeated runs; brackets for capacity; Wilson’s for \
                            failures.";
                page.leaf("p", &[("class", "remark")], text);
            }
        });
    }

    fn summary(&self) -> String {
        let (better, worse) = self.moved();
        let all = words::several(self.differences.len() as u64, "number");
        format!("Of {all}, B is better than A in {better} and worse in {worse} beyond noise.")
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&["of", "what", "#A", "#B", "#change", "B is"]);
        for (row, difference) in self.differences.iter().enumerate() {
            // numbers of one thing share its name
            let is_first = row == 0 || self.differences[row - 1].of != difference.of;
            let same = self.differences[row..].iter().take_while(|other| other.of == difference.of).count();
            table.row(vec![
                Cell::new(difference.of.as_str()).rows(if is_first { same } else { 0 }),
                difference.what.as_str().into(),
                difference.cell(difference.a),
                difference.cell(difference.b),
                difference.shown_change().into(),
                difference.finding.cell(),
            ]);
        }
        table
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", one_line(&self.summary()))?;
        writeln!(f, "  A  {}\n  B  {}", one_line(&self.a), one_line(&self.b))?;
        for warning in &self.warnings {
            writeln!(f, "  !  {}", one_line(warning))?;
        }
        if self.differences.is_empty() {
            return Ok(());
        }
        write!(f, "\n{}", self.table().lines())
    }
}
