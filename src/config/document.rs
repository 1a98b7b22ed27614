//! The document under the checks: parsed as a whole, or its `[[route]]` sections one by one.
//!
//! A tree of TOML is some thirty times its text, and a large file is large by its routes. So the text is cut before every `[[route]]`
//! header, and a section is parsed when its turn comes and forgotten before the next: what a route costs while it is read stays in
//! the same few kilobytes. Everything else, put together without the routes, is one small document.
//!
//! The cut knows nothing of TOML but what a line with a header looks like. It is right when each part alone is free of errors, because
//! then no value spans a cut, and when no other part speaks of routes, because then every section is an entry of one list. Whenever
//! that does not hold the file is parsed as a whole, which is the authority on what is wrong with it.

use super::file::Route;
use super::place::{Origin, Path};
use super::problem::Sink;
use super::read::{Later, Node, Read, Written, each};
use std::borrow::Cow;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

/// The key of the sections.
const KEY: &str = "route";
/// Routes that are parsed together: enough to share what the parser needs for a document, and few enough to stay in the cache.
const SECTION_ROUTES: usize = 16;

/// A text cut into its sections.
#[derive(Debug)]
pub(super) struct Sections<'t> {
    text: &'t str,
    /// Those of routes, in file order.
    routes: Vec<Section>,
    /// Everything else.
    rest: String,
    /// Where the runs of `rest` stand in the text; at least one.
    runs: Vec<(usize, usize)>,
}

/// A few routes that stand one after the other: from `[[route]]` to before a header that is not of a route.
#[derive(Debug)]
struct Section {
    span: Range<usize>,
    routes: usize,
}

impl<'t> Sections<'t> {
    /// `None` when the text has no sections.
    pub(super) fn cut(text: &'t str) -> Option<Self> {
        let mut sections = Self { text, routes: Vec::new(), rest: String::new(), runs: Vec::new() };
        let (mut begin, mut is_route) = (0, false);
        for at in headers(text).chain([text.len()]) {
            let header = text[at..].trim_start_matches([' ', '\t']);
            let begins_route = header.starts_with("[[route]]");
            let goes_on = match is_route {
                true => header.starts_with("[route.") || header.starts_with("[[route."),
                false => !begins_route && at < text.len(),
            };
            if !goes_on {
                sections.add(begin..at, is_route);
                (begin, is_route) = (at, begins_route);
            }
        }
        if sections.runs.is_empty() {
            sections.runs.push((0, 0));
        }
        (!sections.routes.is_empty()).then_some(sections)
    }

    fn add(&mut self, part: Range<usize>, is_route: bool) {
        if is_route {
            match self.routes.last_mut() {
                Some(last) if last.routes < SECTION_ROUTES && last.span.end == part.start => {
                    (last.span.end, last.routes) = (part.end, last.routes + 1);
                }
                _ => self.routes.push(Section { span: part, routes: 1 }),
            }
        } else if !part.is_empty() {
            self.runs.push((self.rest.len(), part.start));
            self.rest.push_str(&self.text[part]);
        }
    }

    /// Everything but the routes, and where its runs stand in the text.
    pub(super) fn rest(&self) -> (&str, &[(usize, usize)]) {
        (&self.rest, &self.runs)
    }

    fn count(&self) -> usize {
        self.routes.iter().map(|section| section.routes).sum()
    }

    /// No value begins in one run of `rest` and ends in the next.
    fn runs_are_whole(&self) -> bool {
        let ends = self.runs.iter().skip(1).map(|(here, _)| *here).chain([self.rest.len()]);
        let mut runs = self.runs.iter().zip(ends).map(|((here, _), end)| &self.rest[*here..end]);
        self.runs.len() == 1 || runs.all(|run| DeTable::parse_recoverable(run).1.is_empty())
    }
}

/// Where lines begin that look like a header.
fn headers(text: &str) -> impl Iterator<Item = usize> {
    let lines = std::iter::once(0).chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1));
    lines.filter(|at| {
        let first = text.as_bytes()[*at..].iter().find(|byte| !matches!(byte, b' ' | b'\t'));
        first == Some(&b'[')
    })
}

/// Sections that do not stand for themselves.
#[derive(Debug)]
pub(super) struct Entangled;

/// A document without errors of syntax, so far.
#[derive(Debug)]
pub(super) struct Document<'t> {
    /// Parsed; with `sections`, without its routes.
    root: DeValue<'t>,
    sections: Option<&'t Sections<'t>>,
}

impl<'t> Document<'t> {
    /// The text as a whole.
    ///
    /// # Errors
    /// It is not TOML.
    pub(super) fn whole(text: &'t str) -> Result<Self, Vec<Error>> {
        let (table, errors) = DeTable::parse_recoverable(text);
        let root = DeValue::Table(table.into_inner());
        if errors.is_empty() { Ok(Self { root, sections: None }) } else { Err(errors) }
    }

    /// All but the routes, which are parsed when they are read.
    ///
    /// # Errors
    /// It is not TOML, or it speaks of routes elsewhere.
    pub(super) fn in_sections(sections: &'t Sections<'t>) -> Result<Self, Entangled> {
        let (table, errors) = DeTable::parse_recoverable(&sections.rest);
        let mut table = table.into_inner();
        if !errors.is_empty() || table.contains_key(KEY) || !sections.runs_are_whole() {
            return Err(Entangled);
        }
        // the key is there, and nobody looks at its value before it is time
        table.insert(Spanned::new(0..0, Cow::Borrowed(KEY)), Spanned::new(0..0, DeValue::Boolean(true)));
        Ok(Self { root: DeValue::Table(table), sections: Some(sections) })
    }

    /// The document's table.
    pub(super) fn root(&self) -> Node<'_> {
        let origin = self.sections.map_or(Origin::FILE, |sections| Origin(&sections.runs));
        Node { value: &self.root, start: 0, end: 0, path: Path::Root, origin }
    }

    /// How many routes there will be, or 0 when that shows only as they are read.
    pub(super) fn routes_expected(&self) -> usize {
        self.sections.map_or(0, Sections::count)
    }

    /// Reads the routes and hands on those that could be read, in file order; says how many there are if that is as many as there may
    /// be.
    ///
    /// # Errors
    /// The sections do not stand for themselves. What has been handed on until then means nothing.
    pub(super) fn routes<const MIN: usize, const MAX: usize>(
        &self,
        _: &Later<Route, MIN, MAX>,
        sink: &mut Sink<'_>,
        mut visit: impl FnMut(usize, Route, &mut Sink<'_>),
    ) -> Result<Option<usize>, Entangled> {
        let path = Path::Key(&Path::Root, KEY);
        let Some(sections) = self.sections else {
            let list = self.root.as_table().and_then(|root| root.get(KEY)).ok_or(Entangled)?;
            let visit = |index, written: Written<Route>, sink: &mut Sink<'_>| visit(index, written.value, sink);
            return Ok(each(Node::new(list, path, Origin::FILE), MIN..=MAX, sink, visit));
        };
        if !(MIN..=MAX).contains(&sections.count()) {
            return Err(Entangled);
        }
        let mut row = 0;
        for section in &sections.routes {
            let (table, errors) = DeTable::parse_recoverable(&sections.text[section.span.clone()]);
            let list = match table.get_ref().get(KEY).map(Spanned::get_ref) {
                Some(DeValue::Array(list)) if errors.is_empty() && list.len() == section.routes => list,
                _ => return Err(Entangled),
            };
            let runs = [(0, section.span.start)];
            for entry in list.iter() {
                let path = Path::Index(&path, row);
                let text = path.text();
                let node = Node::new(entry, Path::Text(&path, &text), Origin(&runs));
                if let Some(route) = Route::read(node, sink) {
                    visit(row, route, sink);
                }
                row += 1;
            }
        }
        Ok(Some(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check::{parse_for, parse_whole};
    use proptest::prelude::*;

    const FILE: &str = "\
[[listener]]
listen = \"127.0.0.1:0\"
[[route]]
match = { path = \"/a/*\" }
upstream = \"app\"
  [route.retry]
  attempts = 1
[upstream.app]
endpoints = [{ address = \"127.0.0.1:1\" }]
  [[route]] # b
  match = { path = \"/b\" }
  respond = {}
";

    /// What stands in `files` of a folder, with the damage that is tested there.
    fn files(folder: &str) -> Vec<String> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let toml = paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
        toml.map(|path| std::fs::read_to_string(path).unwrap()).collect()
    }

    /// Whether routes are read one by one.
    fn is_apart(text: &str) -> bool {
        Sections::cut(text).is_some_and(|sections| Document::in_sections(&sections).is_ok())
    }

    #[track_caller]
    fn agrees(text: &str) {
        let (apart, whole) = (parse_for(text, "f", &[0]), parse_whole(text, "f", &[0]));
        assert_eq!(format!("{apart:#?}"), format!("{whole:#?}"), "{text}");
    }

    #[test]
    fn a_text_is_cut_around_its_routes() {
        let sections = Sections::cut(FILE).unwrap();
        let routes: Vec<_> = sections.routes.iter().map(|section| &FILE[section.span.clone()]).collect();
        assert!(routes[0].starts_with("[[route]]\nmatch") && routes[0].ends_with("attempts = 1\n"), "{routes:?}");
        assert!(routes[1].starts_with("  [[route]] # b\n") && routes[1].ends_with("respond = {}\n"), "{routes:?}");
        assert_eq!((routes.len(), sections.count(), sections.runs.len()), (2, 2, 2));
        assert!(sections.rest.starts_with("[[listener]]\nlisten") && sections.rest.ends_with(":1\" }]\n"));
        assert!(is_apart(FILE) && parse_for(FILE, "f", &[0]).is_ok());
        let many = "[[route]]\n".repeat(2 * SECTION_ROUTES + 1);
        let sizes: Vec<_> = Sections::cut(&many).unwrap().routes.iter().map(|section| section.routes).collect();
        assert_eq!(sizes, [SECTION_ROUTES, SECTION_ROUTES, 1]);
        assert!(Sections::cut("").is_none() && Sections::cut("[gateway]\n# [[route]]\n").is_none());
    }

    #[test]
    fn apart_and_whole_say_the_same_of_every_file() {
        let mut apart = 0;
        for text in [files("config"), files("config/examples"), files("src/config/golden")].concat() {
            agrees(&text);
            apart += usize::from(is_apart(&text));
        }
        assert!(apart > 6, "only {apart} files were taken apart");
    }

    #[test]
    fn routes_keep_their_rows_over_sections() {
        let route = |n: usize| format!("[[route]]\nmatch = {{ path = \"/{n}\" }}\nrespond = {{}}\n");
        let routes: String = (0..50).map(route).collect();
        let text = format!("{FILE}{routes}[[route]]\nmatch = {{ path = \"/33\" }}\nrespond = {{ status = 1 }}\n");
        agrees(&text);
        let errors = parse_for(&text, "f", &[0]).unwrap_err();
        let places: Vec<_> = errors.problems().iter().map(|problem| (problem.path.as_str(), problem.line)).collect();
        let last = 12 + 50 * 3;
        assert_eq!(
            places,
            [("route[52].name", last + 1), ("route[52].match", last + 2), ("route[52].respond.status", last + 3)]
        );
        assert!(errors.problems()[1].message.contains("route[35] (line 112) matches"), "{errors}");
    }

    #[test]
    fn what_only_looks_like_a_section_is_left_whole() {
        for text in [
            // a cut within a text, whose pieces would do by themselves
            "[gateway]\nx = \"\"\"\n[[route]]\nrespond = {}\n[admin]\n\"\"\"\n",
            "[gateway]\nx = '''\n[[route]]\nrespond = {}\n[admin]\n'''\n",
            // and within a list
            "[gateway]\ncores = [\n[[route]]\nrespond = {}\n[\"y\"]\n]\n",
            "[[route]]\nlimit = [\n[[route]]\n]\n",
            // routes that are told of elsewhere
            "route = []\n[[route]]\nrespond = {}\n",
            "[[route]]\nrespond = {}\n[admin]\n[route.retry]\nattempts = 1\n",
            "[[ route ]]\nrespond = {}\n[[route]]\nrespond = {}\n",
            "[[route]]\nrespond = {}\n[[\"route\"]]\nrespond = {}\n",
            "[route]\n[[route]]\nrespond = {}\n",
            "\u{feff}[[route]]\nrespond = {}\n[[route]]\nrespond = { status = 1 }\n",
            // what two runs of the rest have in common
            "[admin]\n[[route]]\nrespond = {}\n[admin]\nlisten = 1\n",
            "[[route]]\r\nrespond = {}\r\n[route.x]\r\n[[route]]\r\n",
            "[[route]] x = 1\n",
            "[[route]",
            "[[route]]",
        ] {
            agrees(text);
            agrees(&format!("{FILE}{text}"));
            agrees(&format!("{text}{FILE}"));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, rng_seed: proptest::test_runner::RngSeed::Fixed(0x726f_7574), ..ProptestConfig::default() })]

        /// Lines in any order, most of which fit together only now and then.
        #[test]
        fn apart_and_whole_say_the_same_of_any_lines(lines in proptest::collection::vec(0..LINES.len(), 0..24)) {
            let lines: Vec<_> = lines.into_iter().map(|line| LINES[line]).collect();
            agrees(&lines.join("\n"));
            agrees(&format!("{FILE}{}", lines.join("\n")));
        }
    }

    const LINES: &[&str] = &[
        "[[route]]",
        "[[route]]",
        "[[route]]",
        "\t[[route]]",
        "[[ route ]]",
        "[route]",
        "[route.retry]",
        "[route.match]",
        "[[route.limit]]",
        "[upstream.app]",
        "[upstream.b]",
        "[[listener]]",
        "[gateway]",
        "respond = {}",
        "respond = { status = 1 }",
        "upstream = \"app\"",
        "match = { path = \"/c\" }",
        "match.path = \"/d\"",
        "rate = \"1/s\"",
        "attempts = 3",
        "attempts = 99",
        "wrong = 1",
        "listen = \"127.0.0.1:0\"",
        "endpoints = [{ address = \"127.0.0.1:1\" }]",
        "route = 1",
        "x = \"\"\"",
        "\"\"\"",
        "x = '''",
        "'''",
        "x = [",
        "[\"y\"]",
        "],",
        "]",
        "x = {",
        "}",
        "# [[route]]",
        "",
        "é = 1",
    ];
}
