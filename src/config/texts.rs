//! The text of a configuration: that of the file that is named, and behind it those of the files that it includes.
//!
//! All of them are one text, so that whatever reads it needs to know nothing of files: a byte's place in it says which file it stands in
//! ([`super::problem::Sink`]). That is only right if each of them stands for itself, which is looked at first: alone it is TOML, it begins with
//! a table, and no table of another file goes on in it.

use super::document::Sections;
use super::followed::{Followed, Pattern, Stamp};
use super::names::IncludePath;
use super::place::{Origin, Path as KeyPath};
use super::problem::{Errors, Sink};
use super::read::Scalar;
use crate::limits::{CONFIG_BYTES_MAX, INCLUDED_FILES_MAX};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// Tables whose entries have names of the user's choice, which are unique over all files.
const NAMED: &[&str] = &["upstream", "consumer", "auth"];
/// Lists of tables, which go on from file to file.
const LISTS: &[&str] = &["listener", "route"];

/// A file's part of the text.
#[derive(Debug)]
pub(super) struct Piece {
    /// Its first byte.
    pub(super) start: usize,
    /// What the file is called.
    pub(super) name: String,
}

/// All files of one configuration.
#[derive(Debug)]
pub(super) struct Texts<'f> {
    pub(super) text: String,
    /// At least one, the file that is named.
    pub(super) pieces: Vec<Piece>,
    /// What `include` names and cannot be had.
    absent: Vec<Absent>,
    pub(super) followed: &'f RefCell<Followed>,
}

#[derive(Debug)]
struct Absent {
    path: String,
    span: Range<usize>,
    why: String,
}

impl<'f> Texts<'f> {
    /// Reads the file at `path` and those that it includes; `missing` says what to do when there is none. What was read is noted in
    /// `followed`, however this ends.
    ///
    /// # Errors
    /// A file is not UTF-8, or the one at `path` cannot be read. What else cannot be read is told by [`Texts::sink`].
    pub(super) fn gather(path: &Path, missing: &str, followed: &'f RefCell<Followed>) -> Result<Self, Errors> {
        let name = path.display().to_string();
        let read = read_file(path, CONFIG_BYTES_MAX);
        followed.borrow_mut().add(path, read.as_ref().ok().map(|(_, stamp)| *stamp));
        let bytes = match read {
            Ok((bytes, _)) => bytes,
            Err(error) => {
                let is_missing = error.kind() == io::ErrorKind::NotFound;
                let help = is_missing.then(|| missing.to_owned());
                return Err(Errors::of_file(&name, format!("cannot be read: {error}"), help));
            }
        };
        let text = as_text(&name, bytes)?;
        let pieces = vec![Piece { start: 0, name }];
        let mut texts = Self { text, pieces, absent: Vec::new(), followed };
        for (row, written, span) in included(&texts.text) {
            texts.include(path, &written, (row, span))?;
        }
        Ok(texts)
    }

    fn include(&mut self, main: &Path, written: &str, (row, span): (usize, Range<usize>)) -> Result<(), Errors> {
        let path = main.with_file_name("").join(written);
        let absent = |why: String| Absent { path: format!("include[{row}]"), span: span.clone(), why };
        let (files, pattern) = match Pattern::try_new(&path) {
            None => (Ok(vec![path]), None),
            Some(pattern) => (pattern.files(), Some(pattern)),
        };
        let is_pattern = pattern.is_some();
        if let Some(pattern) = pattern {
            self.followed.borrow_mut().add_pattern(pattern);
        }
        let files = match files {
            Ok(files) => files,
            Err(error) => {
                self.absent.push(absent(format!("its folder cannot be read: {error}")));
                return Ok(());
            }
        };
        if self.pieces.len() + files.len() > INCLUDED_FILES_MAX + 1 {
            self.absent.push(absent(format!("more than {INCLUDED_FILES_MAX} files are included")));
            return Ok(());
        }
        for file in files {
            let read = read_file(&file, CONFIG_BYTES_MAX.saturating_sub(self.text.len() as u64));
            let stamp = read.as_ref().ok().map(|(_, stamp)| *stamp);
            match is_pattern {
                true => self.followed.borrow_mut().add_found(&file, stamp),
                false => self.followed.borrow_mut().add(&file, stamp),
            }
            let name = file.display().to_string();
            if self.pieces.iter().any(|piece| piece.name == name) {
                self.absent.push(absent(format!("{name} is included twice")));
                continue;
            }
            match read {
                Ok((bytes, _)) => self.add(name, &bytes)?,
                Err(error) => self.absent.push(absent(format!("{name} cannot be read: {error}"))),
            }
        }
        Ok(())
    }

    fn add(&mut self, name: String, bytes: &[u8]) -> Result<(), Errors> {
        let text = as_text(&name, bytes.to_vec())?;
        if !self.text.ends_with('\n') {
            self.text.push('\n');
        }
        self.pieces.push(Piece { start: self.text.len(), name });
        self.text.push_str(text.trim_start_matches('\u{feff}'));
        Ok(())
    }

    /// Where to report what is wrong with the text; what cannot be had of it has been.
    pub(super) fn sink(&self) -> Sink<'_> {
        let mut sink = Sink::of(self);
        for Absent { path, span, why } in &self.absent {
            sink.value(path, span.clone(), why.clone(), None);
        }
        sink
    }

    /// Reports what keeps a file from standing for itself. Does nothing for a file alone.
    pub(super) fn check_pieces(&self, sink: &mut Sink<'_>) {
        if self.pieces.len() == 1 {
            return;
        }
        let mut taken: HashMap<String, usize> = HashMap::new();
        let ends = self.pieces[1..].iter().map(|piece| piece.start).chain([self.text.len()]);
        for (piece, end) in self.pieces.iter().zip(ends) {
            let text = &self.text[piece.start..end];
            let (table, errors) = DeTable::parse_recoverable(text);
            let last = if end < self.text.len() { end - 1 } else { usize::MAX };
            super::check::report_syntax(&errors, (piece.start, last), sink);
            if !errors.is_empty() {
                continue;
            }
            if piece.start > 0 {
                begins_with_table(text, piece.start, sink);
            }
            let runs = [(0, piece.start)];
            for_itself(table.get_ref(), (Origin(&runs), piece.start > 0), &mut taken, sink);
        }
    }
}

/// A key that stands before the first header would be one of the last table of the file before.
fn begins_with_table(text: &str, start: usize, sink: &mut Sink<'_>) {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let code = line.trim_start();
        if !code.is_empty() && !code.starts_with('#') {
            if !code.starts_with('[') {
                let message = "a file that is included has tables only".to_owned();
                let help = "write the header of its table above it; include stands in the first file".to_owned();
                sink.place(code.split(['=', ' ']).next().unwrap_or_default(), start + at, message, Some(help));
            }
            return;
        }
        at += line.len();
    }
}

/// Reports tables of a file that go on in another one.
fn for_itself(
    table: &DeTable<'_>,
    (origin, is_included): (Origin<'_>, bool),
    taken: &mut HashMap<String, usize>,
    sink: &mut Sink<'_>,
) {
    let mut claim = |path: String, at: usize, sink: &mut Sink<'_>| {
        if let Some(first) = taken.insert(path.clone(), at) {
            let message = format!("{} has it too; it may stand in one file only", sink.place_of(first));
            sink.place(path, at, message, None);
        }
    };
    for (key, value) in table {
        let at = origin.span(key.span()).start;
        match (key.get_ref().as_ref(), value.get_ref()) {
            (list, value) if LISTS.contains(&list) => {
                if is_included && !matches!(value, DeValue::Array(_)) {
                    sink.place(list, at, "must be a list of tables".to_owned(), Some(format!("write [[{list}]]")));
                }
            }
            (map, DeValue::Table(names)) if NAMED.contains(&map) => {
                for name in names.keys() {
                    let path = KeyPath::Key(&KeyPath::Root, map);
                    let path = KeyPath::Key(&path, name.get_ref());
                    claim(path.to_string(), origin.span(name.span()).start, sink);
                }
            }
            (other, _) => claim(other.to_owned(), at, sink),
        }
    }
}

/// What a text includes, as written, with its row and where it stands. What is none is refused when the key is read.
fn included(text: &str) -> Vec<(usize, String, Range<usize>)> {
    if !text.contains("include") {
        return Vec::new();
    }
    let sections = Sections::cut(text);
    let (rest, runs) = match &sections {
        Some(sections) => sections.rest(),
        None => (text, &[(0, 0)][..]),
    };
    let (table, _) = DeTable::parse_recoverable(rest);
    let Some(DeValue::Array(list)) = table.get_ref().get("include").map(toml::Spanned::get_ref) else {
        return Vec::new();
    };
    let entries = list.iter().enumerate().filter_map(|(row, entry)| {
        let IncludePath(written) = IncludePath::parse(entry.get_ref()).ok()?;
        Some((row, written, Origin(runs).span(entry.span())))
    });
    entries.collect()
}

/// At most `bytes_max` bytes and one more of a file, and the state that it is in.
pub(super) fn read_file(path: &Path, bytes_max: u64) -> io::Result<(Vec<u8>, Stamp)> {
    let file = std::fs::File::open(path)?;
    let stamp = Stamp::of(&file.metadata()?);
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    Ok((bytes, stamp))
}

/// The text of a file called `name`.
///
/// # Errors
/// It is not UTF-8.
pub(super) fn as_text(name: &str, bytes: Vec<u8>) -> Result<String, Errors> {
    String::from_utf8(bytes).map_err(|error| {
        let end = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes());
        let mut sink = Sink::new(name, &text);
        sink.syntax(end, "not TOML: a byte that is not UTF-8".to_owned());
        sink.finish().expect_err("there is one")
    })
}

#[cfg(test)]
mod tests;
