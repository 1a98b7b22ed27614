//! Where things stand in a file, as messages name it: `route[2].retry.on`.

use std::fmt::{self, Write as _};

/// The way from the document's root to a node; lives on the stack while the document is walked.
#[derive(Clone, Copy)]
pub(crate) enum Path<'a> {
    /// The document.
    Root,
    /// A key of a table.
    Key(&'a Path<'a>, &'a str),
    /// An entry of a list, from 0.
    Index(&'a Path<'a>, usize),
}

impl Path<'_> {
    /// The keys alone, as a table's header has them: `route.limit` for `route[2].limit`.
    pub(super) fn without_rows(&self) -> String {
        match self {
            Self::Root => String::new(),
            Self::Key(Self::Root, _) => self.to_string(),
            Self::Key(parent, key) => format!("{}.{}", parent.without_rows(), Path::Key(&Path::Root, key)),
            Self::Index(parent, _) => parent.without_rows(),
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Self::Root, key) => write_key(f, key),
            Self::Key(parent, key) => {
                parent.fmt(f)?;
                f.write_char('.')?;
                write_key(f, key)
            }
            Self::Index(parent, index) => {
                parent.fmt(f)?;
                write!(f, "[{index}]")
            }
        }
    }
}

fn write_key(f: &mut fmt::Formatter<'_>, key: &str) -> fmt::Result {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { f.write_str(key) } else { write!(f, "{key:?}") }
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
    pub(crate) fn key<'a>(&'a self, key: &'a str) -> KeyOf<'a> {
        KeyOf { place: self, key }
    }
}

/// The path of a table's key, not written out before somebody wants to read it: in a file of ten thousand routes nobody does.
#[derive(Clone, Copy)]
pub(crate) struct KeyOf<'a> {
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
