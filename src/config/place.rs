//! Where things stand in a file, as messages name it: `route[2].retry.on`.

use super::problem::Sink;
use crate::limits::{CONFIG_BYTES_MAX, ROUTES_MAX};
use std::fmt::{self, Write as _};
use std::ops::Range;

/// Room for most paths: `route[12345].response_headers`.
const TEXT_BYTES: usize = 32;

/// The way from the document's root to a node; lives on the stack while the document is walked.
#[derive(Clone, Copy)]
pub enum Path<'a> {
    /// The document.
    Root,
    /// A key of a table.
    Key(&'a Path<'a>, &'a str),
    /// An entry of a list, from 0.
    Index(&'a Path<'a>, usize),
    /// A path and its text, which many others begin with.
    Text(&'a Path<'a>, &'a str),
}

impl Path<'_> {
    /// As messages have it. Every table keeps this, messages or not, so it is put together without a formatter.
    pub(super) fn text(&self) -> String {
        let mut text = String::with_capacity(TEXT_BYTES);
        self.push_to(&mut text);
        text
    }

    fn push_to(&self, text: &mut String) {
        match self {
            Self::Root => {}
            Self::Key(parent, key) => {
                parent.push_to(text);
                if !text.is_empty() {
                    text.push('.');
                }
                push_key(text, key);
            }
            Self::Index(parent, index) => {
                parent.push_to(text);
                text.push('[');
                push_number(text, *index);
                text.push(']');
            }
            Self::Text(_, written) => text.push_str(written),
        }
    }

    /// The keys alone, as a table's header has them: `route.limit` for `route[2].limit`.
    pub(super) fn without_rows(&self) -> String {
        match self {
            Self::Root => String::new(),
            Self::Key(Self::Root, _) => self.to_string(),
            Self::Key(parent, key) => format!("{}.{}", parent.without_rows(), Path::Key(&Path::Root, key)),
            Self::Index(path, _) | Self::Text(path, _) => path.without_rows(),
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

fn push_number(text: &mut String, number: usize) {
    if number >= 10 {
        push_number(text, number / 10);
    }
    text.push(char::from(b'0' + (number % 10) as u8));
}

fn push_key(text: &mut String, key: &str) {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare {
        text.push_str(key);
    } else {
        let _ = write!(text, "{key:?}");
    }
}

/// Where a text that was parsed by itself stands in the file: the first byte of each of its runs, here and there.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a>(pub(crate) &'a [(usize, usize)]);

impl Origin<'_> {
    /// The text is the file.
    pub(crate) const FILE: Origin<'static> = Origin(&[(0, 0)]);

    /// Bytes of the file for bytes of the text. Nothing that has a span reaches from one run into the next.
    pub(crate) fn span(self, span: Range<usize>) -> Range<usize> {
        let run = self.0.partition_point(|(here, _)| *here <= span.start);
        let (here, there) = self.0[run - 1];
        span.start - here + there..span.end - here + there
    }
}

/// Where a table stands.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its path, such as `route[2].retry`; empty for the document.
    pub path: String,
    /// Its first byte in the file.
    pub offset: usize,
}

impl Place {
    /// The path of one of its keys.
    #[must_use]
    pub fn key<'a>(&'a self, key: &'a str) -> KeyOf<'a> {
        KeyOf { place: self, key }
    }
}

/// The path of a table's key, not written out before somebody wants to read it: in a file of ten thousand routes nobody does.
#[derive(Clone, Copy)]
pub struct KeyOf<'a> {
    place: &'a Place,
    key: &'a str,
}

impl fmt::Display for KeyOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.path.is_empty() {
            write!(f, "{}.", self.place.path)?;
        }
        f.write_str(self.key)
    }
}

/// Where something stood first that routes have for themselves, in few bytes: there is one for every route.
#[derive(Clone, Copy)]
pub(super) struct FirstRoute {
    pub(super) row: u32,
    offset: u32,
}

const _: () = assert!(ROUTES_MAX <= u32::MAX as usize && CONFIG_BYTES_MAX <= u32::MAX as u64);

impl FirstRoute {
    pub(super) fn new(row: usize, offset: usize) -> Self {
        Self { row: row as u32, offset: offset as u32 }
    }

    /// `route[3] (line 12)`
    pub(super) fn named(self, kind: &str, sink: &Sink<'_>) -> String {
        format!("{kind}[{}] ({})", self.row, sink.place_of(self.offset as usize))
    }
}
