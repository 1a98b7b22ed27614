//! What is wrong with a configuration, told to the person who has to mend it.
//!
//! Every [`Problem`] stands for one place of the file: `file:line:column` first, so that editors and `grep` find it, then the key
//! and the value as written; below it what is allowed, and a suggestion when one is near. [`Sink`] collects them, so that one look
//! shows all of them. It never decides what is allowed: the types of [`super::values`] and [`super::names`] and the checks of
//! [`super::check`] do.

use super::followed::{Pattern, Stamp};
use super::texts::Texts;
use std::cell::OnceCell;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::Path;

/// The longest value that a message repeats, in characters.
const WRITTEN_CHARS_MAX: usize = 60;
/// The longest list of allowed words that a message repeats; beyond it the documentation serves better.
const LISTED_WORDS_MAX: usize = 24;
/// Problems that are shown; the rest is counted. Who has more mends one and looks again.
const SHOWN_MAX: usize = 100;
/// Names that a word may be compared with in search of what was meant, over all errors of a file; then no more suggestions are made. Some
/// tenths of a second, and enough for every word of ordinary files.
const COMPARISONS_MAX: usize = 100_000;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file's name, as it was given.
    pub file: String,
    /// Line, from 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// Column in characters, from 1; 0 when the file as a whole is meant.
    pub column: usize,
    /// The key's path, such as `route[2].retry.attempts`; tables of a list count from 0. Empty for an error of syntax.
    pub path: String,
    /// The value as it stands in the file, shortened; `None` when there is none.
    pub written: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What is allowed, where `message` does not say it: "must be …".
    pub allowed: Option<String>,
    /// What was probably meant, or what to do.
    pub help: Option<String>,
}

/// Whether a terminal would do something else with it than show it: control characters, and those that change the direction of what
/// follows or cannot be seen ("Trojan Source", CVE-2021-42574).
pub(crate) fn is_unprintable(c: char) -> bool {
    let is_format = matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    c.is_control() || is_format
}

/// A text that may hold anything, for a terminal: what is not printable is escaped, but for the ends of lines.
#[must_use]
pub fn printable(text: &str) -> std::borrow::Cow<'_, str> {
    let is_odd = |c: char| c != '\n' && is_unprintable(c);
    if !text.contains(is_odd) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_odd(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown.into()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.file))?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        f.write_str(":")?;
        if !self.path.is_empty() {
            write!(f, " {}", printable(&self.path))?;
        }
        if let Some(written) = &self.written {
            write!(f, "{}{}", if self.path.is_empty() { " " } else { " = " }, printable(written))?;
        }
        for line in std::iter::once(&self.message).chain(&self.allowed).chain(&self.help) {
            write!(f, "\n    {}", printable(line))?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a configuration, in the order of the file; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(Vec<Problem>);

impl Errors {
    /// One problem with the file as a whole.
    pub(crate) fn of_file(file: &str, message: String, help: Option<String>) -> Self {
        let file = file.to_owned();
        Self(vec![Problem {
            file,
            line: 0,
            column: 0,
            path: String::new(),
            written: None,
            message,
            allowed: None,
            help,
        }])
    }

    /// The problems, at least one, in the order of the file.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in self.0.iter().take(SHOWN_MAX) {
            writeln!(f, "{problem}")?;
        }
        if self.0.len() > SHOWN_MAX {
            writeln!(f, "… and {} more", self.0.len() - SHOWN_MAX)?;
        }
        let plural = if self.0.len() == 1 { "error" } else { "errors" };
        let files: HashSet<&str> = self.0.iter().map(|problem| problem.file.as_str()).collect();
        match files.len() {
            1 => write!(f, "{} {plural} in {}", self.0.len(), printable(&self.0[0].file)),
            count => write!(f, "{} {plural} in {count} files", self.0.len()),
        }
    }
}

impl std::error::Error for Errors {}

/// Why a value is not accepted, before it is known where it stands.
#[derive(Clone, Debug, Default)]
pub struct Refusal {
    /// What is wrong, when "must be …" alone does not say it.
    pub why: Option<String>,
    /// What was probably meant, or what to do.
    pub help: Option<String>,
}

impl Refusal {
    /// Not what is allowed, and that says enough.
    #[must_use]
    pub fn plain() -> Self {
        Self::default()
    }

    /// Refused for this reason.
    #[must_use]
    pub fn why(why: impl Into<String>) -> Self {
        Self { why: Some(why.into()), help: None }
    }

    /// With advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Whether what stands here may be a password or a key of somebody's, also in the wrong form: that is not repeated.
pub(super) fn is_credential(path: &str) -> bool {
    if path.starts_with("redis.nodes") || matches!(path, "redis.url" | "redis.sentinel_password") {
        return true;
    }
    let mut parts = path.strip_prefix("consumer.").into_iter().flat_map(|rest| rest.split(['.', '[']));
    parts.any(|part| matches!(part, "basic" | "keys"))
}

/// Collects problems and knows the text they stand in.
pub struct Sink<'t> {
    file: &'t str,
    text: &'t str,
    /// `None`: the text is one file's.
    texts: Option<&'t Texts<'t>>,
    /// Byte offset of each line's first character; counted when something is wrong.
    lines: OnceCell<Vec<usize>>,
    found: Vec<(usize, Problem)>,
    /// Paths of what was found, so that a wrong value is not reported as a missing one too.
    paths: HashSet<String>,
    /// Of [`COMPARISONS_MAX`], what is left.
    comparisons: usize,
}

impl<'t> Sink<'t> {
    pub(crate) fn new(file: &'t str, text: &'t str) -> Self {
        Self {
            file,
            text,
            texts: None,
            lines: OnceCell::new(),
            found: Vec::new(),
            paths: HashSet::new(),
            comparisons: COMPARISONS_MAX,
        }
    }

    /// For a text of several files.
    pub(super) fn of(texts: &'t Texts<'t>) -> Self {
        Self { texts: Some(texts), ..Self::new(&texts.pieces[0].name, &texts.text) }
    }

    /// What the files are called.
    pub(super) fn files(&self) -> impl Iterator<Item = &'t str> + use<'_, 't> {
        let included = self.texts.iter().flat_map(|texts| &texts.pieces[1..]);
        std::iter::once(self.file).chain(included.map(|piece| piece.name.as_str()))
    }

    /// A file that has been read because the text names it, in this state; `None`: it could not be.
    pub(super) fn follow(&self, path: &Path, stamp: Option<Stamp>) {
        if let Some(texts) = self.texts {
            texts.followed.borrow_mut().add(path, stamp);
        }
    }

    /// The same of files of a folder, each of which is told of by [`Sink::follow_found`].
    pub(super) fn follow_pattern(&self, pattern: Pattern) {
        if let Some(texts) = self.texts {
            texts.followed.borrow_mut().add_pattern(pattern);
        }
    }

    /// One of those was read in this state.
    pub(super) fn follow_found(&self, path: &Path, stamp: Option<Stamp>) {
        if let Some(texts) = self.texts {
            texts.followed.borrow_mut().add_found(path, stamp);
        }
    }

    /// The name of the file that a byte stands in, and that file's first byte.
    fn piece(&self, offset: usize) -> (&'t str, usize) {
        let Some(texts) = self.texts else { return (self.file, 0) };
        let row = texts.pieces.partition_point(|piece| piece.start <= offset).max(1) - 1;
        (&texts.pieces[row].name, texts.pieces[row].start)
    }

    /// What the file is called that a byte stands in.
    pub(super) fn file_of(&self, offset: usize) -> &'t str {
        self.piece(offset).0
    }

    /// Whether nothing was wrong so far.
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Where the file begins that a byte stands in.
    pub(super) fn start_of_file(&self, offset: usize) -> usize {
        self.piece(offset).1
    }

    /// `line 12`, and of which file if there are several: for messages that speak of another place.
    #[must_use]
    pub fn place_of(&self, offset: usize) -> String {
        let line = self.line(offset);
        match self.texts.is_some_and(|texts| texts.pieces.len() > 1) {
            true => format!("line {line} of {}", self.piece(offset).0),
            false => format!("line {line}"),
        }
    }

    /// What is looked at.
    pub(crate) fn text(&self) -> &'t str {
        self.text
    }

    /// Something is wrong with the value at `span`.
    pub fn value(&mut self, path: impl fmt::Display, span: Range<usize>, message: String, help: Option<String>) {
        let path = path.to_string();
        let written = if is_credential(&path) { None } else { self.written(span.clone()) };
        self.push(span.start, Problem { path, written, message, help, ..self.blank() });
    }

    /// Something is wrong at `offset`, where there is no value to repeat.
    pub fn place(&mut self, path: impl fmt::Display, offset: usize, message: String, help: Option<String>) {
        self.push(offset, Problem { path: path.to_string(), message, help, ..self.blank() });
    }

    /// The value at `span` is not what it `must be`; a span of `None` is a key, which the path shows.
    pub fn refuse(
        &mut self,
        path: impl fmt::Display,
        at: usize,
        span: Option<Range<usize>>,
        must_be: String,
        refusal: Refusal,
    ) {
        let must_be = format!("must be {must_be}");
        let (message, allowed) = match refusal.why {
            Some(why) => (why, Some(must_be)),
            None => (must_be, None),
        };
        let path = path.to_string();
        let written = span.filter(|_| !is_credential(&path)).and_then(|span| self.written(span));
        self.push(at, Problem { path, written, message, allowed, help: refusal.help, ..self.blank() });
    }

    /// The text is not TOML.
    pub(crate) fn syntax(&mut self, offset: usize, message: String) {
        let line = self.line_of_text(offset);
        let end = self.lines().get(line).copied().unwrap_or(self.text.len());
        let written = self.written(self.lines()[line - 1]..end);
        self.push(offset, Problem { written, message, ..self.blank() });
    }

    /// Whether something was wrong with the value at this path.
    #[must_use]
    pub fn reported(&self, path: impl fmt::Display) -> bool {
        !self.paths.is_empty() && self.paths.contains(&path.to_string())
    }

    /// Whether the table that begins at `offset` stands in braces, and not under a header.
    pub(crate) fn is_inline(&self, offset: usize) -> bool {
        self.text.as_bytes().get(offset) == Some(&b'{')
    }

    /// The line of a byte offset, for messages that speak of another place.
    #[must_use]
    pub fn line(&self, offset: usize) -> usize {
        self.position(offset).0
    }

    /// As [`did_you_mean`] for one of many names, as long as that takes no time worth speaking of.
    pub fn did_you_mean(&mut self, word: &str, known: &[&str]) -> Option<String> {
        self.comparisons = self.comparisons.checked_sub(known.len())?;
        did_you_mean(word, known.iter().copied())
    }

    /// `Ok` when nothing was wrong.
    pub(crate) fn finish(mut self) -> Result<(), Errors> {
        self.found.sort_by_key(|(offset, _)| *offset);
        let problems: Vec<_> = self.found.into_iter().map(|(_, problem)| problem).collect();
        if problems.is_empty() { Ok(()) } else { Err(Errors(problems)) }
    }

    fn blank(&self) -> Problem {
        Problem {
            file: self.file.to_owned(),
            line: 0,
            column: 0,
            path: String::new(),
            written: None,
            message: String::new(),
            allowed: None,
            help: None,
        }
    }

    fn push(&mut self, offset: usize, problem: Problem) {
        let (line, column) = self.position(offset);
        self.paths.insert(problem.path.clone());
        let file = self.piece(offset).0.to_owned();
        self.found.push((offset, Problem { file, line, column, ..problem }));
    }

    fn lines(&self) -> &[usize] {
        let starts = || std::iter::once(0).chain(memchr::memchr_iter(b'\n', self.text.as_bytes()).map(|at| at + 1));
        self.lines.get_or_init(|| starts().collect())
    }

    /// Line and column of a byte offset in its file, both from 1.
    pub(crate) fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.line_of_text(offset);
        let start = self.lines()[line - 1];
        let before = self.text.get(start..offset.min(self.text.len())).unwrap_or_default();
        let earlier = self.lines().partition_point(|start| *start < self.piece(offset).1);
        (line - earlier, before.chars().count() + 1)
    }

    /// The same line in the whole text.
    fn line_of_text(&self, offset: usize) -> usize {
        self.lines().partition_point(|start| *start <= offset)
    }

    fn written(&self, span: Range<usize>) -> Option<String> {
        let text = self.text.get(span)?;
        if text.is_empty() {
            return None;
        }
        let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some((end, _)) = line.char_indices().nth(WRITTEN_CHARS_MAX) {
            line.truncate(end);
            line.push('…');
        }
        Some(line)
    }
}

/// The word of `known` that was probably meant.
pub(crate) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let word = word.to_lowercase();
    let tolerated = (word.chars().count() / 3).clamp(1, 4);
    let length = word.chars().count();
    known
        .into_iter()
        .filter(|candidate| candidate.chars().count().abs_diff(length) <= tolerated)
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= tolerated)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `did you mean "…"?` for the nearest of `known`.
pub fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    nearest(word, known).map(|candidate| format!("did you mean {candidate:?}?"))
}

/// `a, b, c` in the order given; says how many are left out of a long list.
#[must_use]
pub fn listed(words: &[&str]) -> String {
    let mut list = words[..words.len().min(LISTED_WORDS_MAX)].join(", ");
    if words.len() > LISTED_WORDS_MAX {
        list.push_str(&format!(" and {} more", words.len() - LISTED_WORDS_MAX));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_and_not_bytes() {
        let sink = Sink::new("f", "a = \"é\" # x\nb = 1\n");
        assert_eq!(sink.position(0), (1, 1));
        assert_eq!(sink.position("a = \"é\"".len()), (1, 8));
        assert_eq!(sink.position("a = \"é\" # x\n".len()), (2, 1));
        assert_eq!(sink.position(1_000), (3, 1));
    }

    #[test]
    fn a_suggestion_is_near_or_not_made() {
        let known = ["timeout", "upstream", "match"];
        assert_eq!(nearest("timout", known), Some("timeout"));
        assert_eq!(nearest("Upstraem", known), Some("upstream"));
        assert_eq!(nearest("hedge", known), None);
        assert_eq!(nearest("m", known), None);
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        let text = "a = \"\u{1b}]0;x\u{7}\u{202e}\u{9b}31m\u{200b}é\u{e0041}\"\n";
        let mut sink = Sink::new("f\u{1b}[2J", text);
        sink.value("a.\u{2066}", 4..text.len() - 1, "no \u{7f}".to_owned(), Some("\u{85}".to_owned()));
        sink.syntax(0, "\u{8}".to_owned());
        let shown = sink.finish().unwrap_err().to_string();
        assert!(!shown.contains(|c: char| c != '\n' && is_unprintable(c)), "{shown:?}");
        assert!(shown.contains("\\u{1b}]0;x\\u{7}\\u{202e}\\u{9b}31m\\u{200b}é\\u{e0041}"), "{shown}");
        assert_eq!(printable("plain é\n"), "plain é\n");
    }

    #[test]
    fn many_problems_are_counted_and_a_hundred_are_shown() {
        let text = "x\n".repeat(150);
        let mut sink = Sink::new("f", &text);
        (0..150).for_each(|line| sink.place("x", 2 * line, format!("wrong {line}"), None));
        let errors = sink.finish().unwrap_err();
        let shown = errors.to_string();
        assert_eq!((errors.problems().len(), shown.matches("wrong").count()), (150, 100));
        assert!(shown.ends_with("wrong 99\n… and 50 more\n150 errors in f"), "{shown}");
    }

    #[test]
    fn long_values_are_shortened_to_one_line() {
        let text = format!("[\n{}]", "  1,\n".repeat(100));
        let written = Sink::new("f", &text).written(0..text.len()).unwrap();
        assert_eq!(written.chars().count(), WRITTEN_CHARS_MAX + 1);
        assert!(written.starts_with("[ 1, 1,") && written.ends_with('…'));
    }
}
