//! What people see of a result: a page, lines for a terminal, and the difference between two results.
//!
//! The page is one file without a script, a font or anything that would have to be fetched; its policy forbids it to. It says first what was
//! found, then shows it, then why it may be believed, then every detail. One page may hold several results: the same drill on two gateways
//! shares its tables and plots. Sections appear when there is data for them, and only then.
//!
//! Everything here is pure: results come in, text goes out. What is not done here: judging. Gates and verdicts come from who measured; this
//! only says them.
//!
//! | file | what |
//! |---|---|
//! | `verdict` | the sentence that comes first |
//! | `curve`, `spectra`, `series`, `drills`, `peers`, `trials`, `setting` | the sections of the page |
//! | `plot` | axes, lines, bars as SVG |
//! | `markup`, `table`, `words` | HTML that cannot be broken by a name, tables for page and terminal, numbers in words |
//! | `distribution`, `measures`, `compare` | histograms read back; what of a result can be compared, and how far apart two are |
//! | `text` | for a terminal |

mod compare;
mod curve;
mod distribution;
mod drills;
mod groups;
mod handshakes;
mod markup;
mod measures;
mod peers;
mod plot;
mod series;
mod setting;
mod spectra;
mod table;
mod text;
mod trials;
mod verdict;
mod words;

pub use compare::{Comparison, Difference, Finding, compare};
pub use measures::Quantity;
pub use text::text;

use crate::result::Outcome;
use markup::Markup;
use verdict::Standing;

/// The page's style: light, dark and paper.
const STYLE: &str = include_str!("style.css");
/// Nothing is fetched, whatever the page says.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// A result on a page.
struct Subject<'a> {
    outcome: &'a Outcome,
    /// What tells it from the others; empty when it is the only one.
    name: String,
}

impl Subject<'_> {
    /// The text, and whose it is, unless it says so itself.
    fn said(&self, text: &str) -> String {
        if self.name.is_empty() || self.name == text { text.to_owned() } else { format!("{}: {text}", self.name) }
    }
}

/// One self-contained HTML page of one or several results, in their order.
#[must_use]
pub fn html(outcomes: &[Outcome]) -> String {
    let subjects = named(outcomes);
    let title = match outcomes {
        [] => "No results".to_owned(),
        [one] => one.title.clone(),
        [first, ..] if outcomes.iter().all(|other| other.title == first.title) => first.title.clone(),
        [first, ..] => format!("{} results of {}", outcomes.len(), first.command),
    };
    page(&title, |page| {
        header(page, &title, &subjects);
        page.element("main", &[], |page| {
            subjects.iter().for_each(|subject| verdict_card(page, subject));
            peers::sizing(page, &subjects);
            peers::draw(page, &subjects);
            curve::draw(page, &subjects);
            drills::draw(page, &subjects);
            series::draw(page, &subjects);
            drills::targets(page, &subjects);
            spectra::draw(page, &subjects);
            if let [a, b] = outcomes {
                compare(a, b).draw(page);
            }
            trials::thresholds(page, &subjects);
            trials::gates(page, &subjects);
            trials::runs(page, &subjects);
            handshakes::draw(page, &subjects);
            setting::draw(page, &subjects);
        });
        footer(page, outcomes);
    })
}

/// A page around what `inside` writes.
fn page(title: &str, inside: impl FnOnce(&mut Markup)) -> String {
    let mut page = Markup::default();
    page.element("html", &[("lang", "en")], |page| {
        page.element("head", &[], |page| {
            page.empty("meta", &[("charset", "utf-8")]);
            page.empty("meta", &[("http-equiv", "Content-Security-Policy"), ("content", POLICY)]);
            page.empty("meta", &[("name", "viewport"), ("content", "width=device-width, initial-scale=1")]);
            page.empty("meta", &[("name", "color-scheme"), ("content", "light dark")]);
            page.leaf("title", &[], title);
            page.style(STYLE);
        });
        page.line();
        page.element("body", &[], inside);
    });
    page.into_page()
}

/// What tells results from each other: their gateway where that differs, else their title, numbered where they still are the same.
fn named(outcomes: &[Outcome]) -> Vec<Subject<'_>> {
    if let [outcome] = outcomes {
        return vec![Subject { outcome, name: String::new() }];
    }
    let mut subjects: Vec<Subject> = Vec::new();
    for outcome in outcomes {
        let gateways: Vec<&str> = outcome.drills.iter().map(|drill| drill.gateway.as_str()).collect();
        let measured = outcome.runs.iter().find(|run| !matches!(run.label.as_str(), "warm-up" | "direct"));
        let name = match measured {
            _ if !gateways.is_empty() => gateways.join(" and "),
            Some(run) if outcome.peers.is_none() => run.server.clone(),
            _ => outcome.title.clone(),
        };
        let same = subjects
            .iter()
            .filter(|subject| subject.name == name || subject.name.starts_with(&format!("{name} (")))
            .count();
        let name = if same == 0 { name } else { format!("{name} ({})", same + 1) };
        subjects.push(Subject { outcome, name });
    }
    subjects
}

fn header(page: &mut Markup, title: &str, subjects: &[Subject]) {
    page.element("header", &[], |page| {
        let commands: Vec<&str> = subjects.iter().map(|subject| subject.outcome.command.as_str()).collect();
        let mut command = commands.clone();
        command.dedup();
        page.leaf("p", &[("class", "eyebrow")], &format!("ringgate-load {}", command.join(", ")));
        page.leaf("h1", &[], title);
        if let Some(first) = subjects.first() {
            let outcome = first.outcome;
            let mut said = vec![words::date(outcome.started)];
            if outcome.finished > outcome.started && subjects.len() == 1 {
                said.push(format!("took {}", words::length(outcome.finished - outcome.started)));
            }
            let machine = &outcome.environment;
            said.extend([machine.host.clone(), machine.cpu.clone()].into_iter().filter(|text| !text.is_empty()));
            page.leaf("p", &[("class", "meta")], &said.join(" · "));
        }
    });
    page.line();
}

fn verdict_card(page: &mut Markup, subject: &Subject) {
    let outcome = subject.outcome;
    let standing = Standing::of(outcome);
    page.element("section", &[("class", &format!("verdict {}", standing.class()))], |page| {
        if !subject.name.is_empty() {
            page.leaf("p", &[("class", "whose")], &subject.name);
        }
        page.leaf("p", &[("class", "headline")], &verdict::headline(outcome));
        if standing == Standing::Invalid {
            let found = format!("Not to be relied on: {}.", verdict::finding(outcome));
            page.leaf("p", &[("class", "found")], &found);
        }
        let partial = verdict::of_partial(outcome);
        if !partial.is_empty() {
            page.leaf("p", &[("class", "found")], &format!("{partial}."));
        }
        page.element("div", &[("class", "facts")], |page| {
            for fact in verdict::facts(outcome) {
                page.element("div", &[("class", "fact")], |page| {
                    page.leaf("span", &[("class", "fact-name")], &fact.name);
                    page.leaf("span", &[("class", "fact-value")], &fact.value);
                    page.leaf("span", &[("class", "fact-note")], &fact.note);
                });
            }
        });
        for gate in outcome.gates.iter().filter(|gate| !gate.holds) {
            page.element("p", &[("class", "advice")], |page| {
                page.leaf("strong", &[], &gate.name);
                page.text(&format!(": {}", gate.advice));
            });
        }
        page.leaf("p", &[("class", "closing")], &closing(outcome));
    });
    page.line();
}

/// How many gates hold and thresholds were met.
fn closing(outcome: &Outcome) -> String {
    let gates = outcome.gates.len() as u64;
    let held = outcome.gates.iter().filter(|gate| gate.holds).count() as u64;
    let verdicts: Vec<bool> = outcome.all_verdicts().map(|verdict| verdict.passed).collect();
    let met = verdicts.iter().filter(|passed| **passed).count() as u64;
    let mut said = Vec::new();
    if !verdicts.is_empty() {
        said.push(format!("{} of {} met", words::count(met), words::several(verdicts.len() as u64, "threshold")));
    }
    match gates {
        0 => said.push("no validity gate was looked at".to_owned()),
        _ if held == gates => said.push(format!("all {} hold", words::several(gates, "validity gate"))),
        _ => said.push(format!("{} of {} hold", words::count(held), words::several(gates, "validity gate"))),
    }
    verdict::uppercase(&said.join(" · "))
}

/// A part of the page with its heading.
fn section(page: &mut Markup, id: &str, heading: &str, inside: impl FnOnce(&mut Markup)) {
    page.element("section", &[("id", id)], |page| {
        page.leaf("h2", &[], heading);
        inside(page);
    });
    page.line();
}

/// Something that is there for who wants it.
fn fold(page: &mut Markup, name: &str, inside: impl FnOnce(&mut Markup)) {
    page.element("details", &[], |page| {
        page.leaf("summary", &[], name);
        inside(page);
    });
    page.line();
}

fn footer(page: &mut Markup, outcomes: &[Outcome]) {
    page.element("footer", &[], |page| {
        let mut tools: Vec<String> =
            outcomes.iter().map(|one| format!("ringgate-load {} (schema {})", one.tool, one.schema)).collect();
        tools.dedup();
        page.leaf(
            "p",
            &[],
            &format!("{}. Times count from when a request was due; what failed counts as ∞.", tools.join(", ")),
        );
    });
}
