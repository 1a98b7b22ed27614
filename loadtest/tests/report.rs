//! The page's structure, the terminal's lines, and the comparison of two results.

mod outcomes;

use outcomes::{NGINX, RINGGATE};
use ringgate_load::report::{self, Finding};
use ringgate_load::result::{Gate, Outcome, Run};
use roxmltree::{Document, ParsingOptions};
use serde_json::Value;
use std::collections::HashSet;

const HOSTILE: &str = "</script></style><img src=x onerror=alert(1)>\"'&\u{1b}[2J\u{202e}";
/// What it is in a page's source: escaped, and without what would move a cursor or turn the text.
const SHOWN_AS_MARKUP: &str =
    "&lt;/script&gt;&lt;/style&gt;&lt;img src=x onerror=alert(1)&gt;&quot;&#39;&amp;\u{fffd}[2J\u{fffd}";

/// The elements that a page may have.
const ELEMENTS: &[&str] = &[
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "header",
    "main",
    "section",
    "footer",
    "h1",
    "h2",
    "h3",
    "h4",
    "p",
    "strong",
    "span",
    "div",
    "ul",
    "li",
    "dl",
    "dt",
    "dd",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "figure",
    "figcaption",
    "details",
    "summary",
    "pre",
    "svg",
    "path",
    "rect",
    "circle",
    "text",
    "g",
];

fn parsed(page: &str) -> Document<'_> {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    Document::parse_with_options(page, options).expect("a page is well-formed XML as well")
}

/// Asserts what holds for every page, and returns the sections' ids in their order.
fn checked(page: &str) -> Vec<String> {
    let document = parsed(page);
    let mut ids = Vec::new();
    for node in document.descendants().filter(roxmltree::Node::is_element) {
        let name = node.tag_name().name();
        assert!(ELEMENTS.contains(&name), "<{name}>");
        for attribute in node.attributes() {
            let (key, value) = (attribute.name(), attribute.value());
            assert!(!key.starts_with("on") && !matches!(key, "src" | "href" | "style"), "{key}={value}");
            if key == "id" {
                ids.push(value.to_owned());
            }
        }
    }
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "ids are unique");
    let style = document.descendants().find(|node| node.has_tag_name("style")).and_then(|node| node.text());
    assert!(style.is_some_and(|css| !css.contains("url(") && !css.contains("@import")), "nothing is fetched");
    for node in document.descendants().filter(|node| node.has_tag_name("svg") && node.attribute("role").is_some()) {
        assert!(node.attribute("aria-label").is_some_and(|label| !label.is_empty()), "a plot says what it is");
    }
    assert!(!page.contains("NaN") && !page.contains("inf "), "no number of a drawing is none");
    ids
}

fn headline(page: &str) -> String {
    let document = parsed(page);
    let found = document.descendants().find(|node| node.attribute("class") == Some("headline"));
    found.and_then(|node| node.text()).unwrap_or_default().to_owned()
}

#[test]
fn sections_appear_exactly_when_their_data_is_there() {
    for (outcomes, sections) in [
        (vec![outcomes::capacity(RINGGATE)], "curve time percentiles validity trials setting"),
        (vec![outcomes::size()], "hosts curve time percentiles thresholds validity trials setting"),
        (vec![outcomes::curve()], "curve percentiles validity trials setting"),
        (vec![outcomes::single()], "time percentiles thresholds validity trials setting"),
        (vec![outcomes::drill_of_two()], "phases time targets percentiles thresholds validity trials setting"),
        (
            vec![outcomes::drill(RINGGATE, false), outcomes::drill(NGINX, true)],
            "phases time targets percentiles compare thresholds validity trials setting",
        ),
        (vec![outcomes::peers()], "peers percentiles validity trials setting"),
        (vec![Outcome::default()], "setting"),
        (vec![], "setting"),
    ] {
        assert_eq!(checked(&report::html(&outcomes)).join(" "), sections);
    }
}

#[test]
fn the_verdict_comes_first() {
    for (outcome, sentence) in [
        (outcomes::capacity(RINGGATE), "Holds 23,400 requests/s at p99 < 5 ms (bracket 23,400–24,500)"),
        (
            outcomes::invalid(),
            "INVALID: schedule lag is p99.9 of 2.31 ms, wanted at most 500 µs, a tenth of the bound; also CPU steal",
        ),
        (outcomes::size(), "12 hosts for 200,000 requests/s, even with 1 host gone"),
        (outcomes::drill(RINGGATE, false), "Passed: 5 of 5 phases, 0 failed requests"),
        (
            outcomes::peers(),
            "At 8,000 requests/s: ringgate 0.81 × the CPU of nginx, ringgate 0.35 × the CPU of envoy; no difference shown between ringgate and haproxy",
        ),
        (outcomes::single(), "Failed: p99 of ∞ at 10,000 requests/s, 12,000 of 600,000 requests failed"),
        (
            Outcome { is_partial: true, ..outcomes::capacity(RINGGATE) },
            "PARTIAL: holds 23,400 requests/s at p99 < 5 ms (bracket 23,400–24,500)",
        ),
        (Outcome::default(), "Nothing was measured"),
        (
            Outcome { runs: outcomes::capacity(RINGGATE).runs[..5].to_vec(), ..Outcome::default() },
            "Nothing was measured",
        ),
    ] {
        assert_eq!(report::text(&outcome).lines().next(), Some(sentence));
        assert_eq!(headline(&report::html(&[outcome])), sentence);
    }
}

#[test]
fn a_capacity_without_an_end_is_said_as_it_is() {
    let mut outcome = outcomes::capacity(RINGGATE);
    let set = |outcome: &mut Outcome, holds, breaks| {
        let capacity = outcome.capacity.as_mut().expect("a capacity");
        (capacity.holds, capacity.breaks) = (holds, breaks);
    };
    for (holds, breaks, words) in [
        (Some(100.0), None, "Holds at least 100"),
        (None, Some(100.0), "at no rate that was tried"),
        (None, None, "No capacity was found"),
    ] {
        set(&mut outcome, holds, breaks);
        let page = report::html(std::slice::from_ref(&outcome));
        checked(&page);
        assert!(headline(&page).contains(words), "{}", headline(&page));
    }
}

/// The result with every text of it hostile; histograms stay.
fn hostile(outcome: &Outcome, labels_too: bool) -> Outcome {
    fn spoil(value: &mut Value, key: &str, labels_too: bool) {
        match value {
            Value::String(text) if key != "histogram" && (labels_too || key != "label") => text.push_str(HOSTILE),
            Value::Array(all) => all.iter_mut().for_each(|one| spoil(one, key, labels_too)),
            Value::Object(fields) if matches!(key, "failures" | "metrics") => {
                *fields = std::mem::take(fields).into_iter().map(|(name, number)| (name + HOSTILE, number)).collect();
            }
            Value::Object(fields) => fields.iter_mut().for_each(|(name, field)| spoil(field, name, labels_too)),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(outcome).expect("JSON");
    spoil(&mut value, "", labels_too);
    serde_json::from_value(value).expect("a result")
}

#[test]
fn hostile_names_are_text_and_nothing_else() {
    let all = [
        outcomes::capacity(RINGGATE),
        outcomes::size(),
        outcomes::curve(),
        outcomes::single(),
        outcomes::drill_of_two(),
        outcomes::peers(),
        outcomes::invalid(),
    ];
    for outcome in &all {
        for labels_too in [false, true] {
            let spoiled = hostile(outcome, labels_too);
            let page = report::html(std::slice::from_ref(&spoiled));
            let sections = checked(&page);
            if !labels_too {
                assert_eq!(sections, checked(&report::html(std::slice::from_ref(outcome))), "the same sections");
            }
            assert!(page.contains(&format!("{SHOWN_AS_MARKUP}</h1>")), "the title is there");
            for bad in ["<img", "<script", "\u{1b}", "\u{202e}"] {
                assert!(!page.contains(bad), "{bad:?}");
                let is_control = bad.len() < 4;
                assert!(!is_control || !report::text(&spoiled).contains(bad), "{bad:?} in a terminal");
            }
            let compared = report::compare(outcome, &spoiled);
            assert!(!compared.to_string().contains('\u{1b}'));
            parsed(&compared.section());
        }
    }
}

#[test]
fn numbers_beside_a_curve_say_whose_they_are() {
    let page = report::html(&[outcomes::curve()]);
    let document = parsed(&page);
    let facts = document.descendants().filter(|node| node.attribute("class") == Some("fact"));
    let said: Vec<String> = facts
        .map(|fact| {
            fact.descendants().filter_map(|node| node.text().filter(|_| node.is_text())).collect::<Vec<_>>().join(" | ")
        })
        .collect();
    assert_eq!(said.len(), 4, "{said:?}");
    assert!(said[1].starts_with("p99 at the highest rate | ") && said[1].ends_with(" | at 25,000/s"), "{said:?}");
    assert!(said[2].starts_with("p99 of the upstream itself"), "{said:?}");
}

#[test]
fn what_never_came_is_infinite_and_what_is_not_known_is_missing() {
    let page = report::html(&[outcomes::single()]);
    let document = parsed(&page);
    let lanes = document.descendants().filter(|node| node.attribute("class") == Some("lane")).count();
    assert_eq!(lanes, 4, "time and spectrum, each at two sizes");
    assert!(page.contains(">∞<"));
    let closed = Run { label: "run".to_owned(), due: 10, good: 10, length: 1.0, ..Run::default() };
    let text = report::text(&Outcome { runs: vec![closed], ..Outcome::default() });
    assert!(text.starts_with("Saturated at 10.0 requests/s") && !text.contains('∞'), "{text}");
    assert!(!text.contains("p99"), "a closed loop has no latency: {text}");
}

#[test]
fn a_result_without_histograms_has_no_spectrum_and_says_everything_else() {
    let mut outcome = outcomes::capacity(RINGGATE);
    for run in &mut outcome.runs {
        for spectrum in [&mut run.latency, &mut run.uncorrected, &mut run.lag] {
            spectrum.histogram = "not base64!".to_owned();
        }
    }
    let sections = checked(&report::html(&[outcome]));
    assert!(!sections.contains(&"percentiles".to_owned()) && sections.contains(&"curve".to_owned()));
}

#[test]
fn the_last_line_is_for_scripts() {
    for (outcome, line) in [
        (outcomes::drill(NGINX, true), "5 passed, 5 failed"),
        (outcomes::size(), "2 passed, 0 failed"),
        (outcomes::invalid(), "INVALID: 0 passed, 0 failed"),
        (Outcome { is_partial: true, ..outcomes::drill(NGINX, true) }, "PARTIAL: 5 passed, 5 failed"),
    ] {
        assert_eq!(report::text(&outcome).lines().last(), Some(line));
    }
    let text = report::text(&outcomes::invalid());
    assert!(text.contains("✗ schedule lag") && text.contains("→ Give the generator cores of its own"), "{text}");
    let mut ended = Outcome { is_partial: true, ..outcomes::capacity(RINGGATE) };
    ended.runs[0].unfinished = 180;
    for said in [report::text(&ended), report::html(&[ended])] {
        assert!(said.contains("180 requests under way when it was ended"), "{said}");
    }
    let single = report::text(&outcomes::single());
    assert!(single.contains("status (another status than a good one; seen: 200"), "{single}");
    let unruly = Gate { advice: "a\nb".to_owned(), ..Gate::default() };
    assert!(report::text(&Outcome { gates: vec![unruly], ..Outcome::default() }).contains("→ a b"));
}

#[test]
fn a_result_does_not_differ_from_itself() {
    for outcome in [
        outcomes::capacity(RINGGATE),
        outcomes::drill_of_two(),
        outcomes::peers(),
        outcomes::curve(),
        outcomes::single(),
    ] {
        let compared = report::compare(&outcome, &outcome);
        assert!(!compared.differences.is_empty());
        assert_eq!(compared.moved(), (0, 0), "{compared}");
    }
}

#[test]
fn a_worse_gateway_is_worse_beyond_noise() {
    let compared = report::compare(&outcomes::capacity(RINGGATE), &outcomes::capacity(NGINX));
    let holds =
        compared.differences.iter().find(|difference| difference.what == "holds").expect("both have a capacity");
    assert_eq!(holds.finding, Finding::Worse);
    assert!(holds.change().is_some_and(|change| (-0.25..-0.2).contains(&change)), "{:?}", holds.change());
    let back = report::compare(&outcomes::capacity(NGINX), &outcomes::capacity(RINGGATE));
    assert!(
        back.differences.iter().any(|difference| difference.what == "holds" && difference.finding == Finding::Better)
    );

    let compared = report::compare(&outcomes::drill(RINGGATE, false), &outcomes::drill(NGINX, true));
    let black_hole = |what: &str| {
        let found = compared
            .differences
            .iter()
            .find(|difference| difference.of.contains("black hole") && difference.what == what);
        found.unwrap_or_else(|| panic!("{what}: {compared}"))
    };
    assert_eq!((black_hole("p99").finding, black_hole("p99").b.value), (Finding::Worse, f64::INFINITY));
    assert_eq!((black_hole("failed").finding, black_hole("p99").change()), (Finding::Worse, None));
    checked(&compared.html());
    assert!(parsed(&compared.section()).root_element().has_tag_name("section"));
}

#[test]
fn different_machines_and_loads_are_warned_of() {
    let a = outcomes::single();
    let mut b = a.clone();
    assert!(report::compare(&a, &b).warnings.iter().all(|warning| warning.contains("PARTIAL")));
    b.environment.cpu = "another".to_owned();
    b.load.connections = 7;
    b.runs[0].rate = Some(12_000.0);
    let compared = report::compare(&a, &b);
    for part in ["Processor differs", "Connections differs: 64; 7", "Nothing in the two results"] {
        assert!(compared.warnings.iter().any(|warning| warning.contains(part)), "{part}: {compared}");
    }
    assert!(compared.to_string().lines().any(|line| line.starts_with("  !  Processor")), "{compared}");
}

#[test]
fn a_long_run_stays_a_small_page() {
    let mut outcome = outcomes::single();
    let slice = outcome.runs[0].series[0].clone();
    outcome.runs[0].length = 86_400.0;
    outcome.runs[0].series =
        (0..86_400).map(|second| ringgate_load::result::Slice { at: f64::from(second), ..slice.clone() }).collect();
    let page = report::html(&[outcome]);
    checked(&page);
    assert!(page.len() < 1_500_000, "{} bytes", page.len());
}
