//! `listener.errors`: what the gateway's own errors look like, by status.
//!
//! A page is read with the configuration and taken apart once. Only the few names below stand for something in it; any other brace is the page's own,
//! since style sheets and JSON are full of them. What comes from a client is an id alone, of which nothing but letters, digits and `._~-` is shown, so
//! that it means nothing in HTML or JSON.

use super::names::{FilePath, HeaderText};
use super::paths::Body;
use super::problem::Sink;
use super::read::{List, Written};
use super::tables::table;
use super::texts::read_file;
use super::values::Int;
use crate::limits::{ENTRIES_MAX, RESPOND_BODY_BYTES_MAX};
use http::{HeaderValue, StatusCode};
use std::path::{Path, PathBuf};

table! {
    /// What errors of the gateway's own look like.
    ErrorTable {
        /// For these statuses, 400 to 599; all where it is empty.
        default status: List<Int<400, 599>, 0, ENTRIES_MAX> = [];
        /// The body, at most 64 KiB: {status}, {reason}, {error}, {message} and {request_id} stand for those. Exactly one of body and file is given.
        optional body: Body;
        /// An absolute path of a file with the body, which is read with this one.
        optional file: FilePath;
        /// The body's media type.
        default content_type: HeaderText = "text/html; charset=utf-8";
    }
}

/// What some of a listener's errors look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPage {
    /// For these; empty: all.
    pub statuses: Vec<u16>,
    /// `Content-Type`.
    pub content_type: HeaderValue,
    /// The body.
    pub pieces: Vec<ErrorPiece>,
    /// Where that stands; `None`: in the configuration.
    pub file: Option<PathBuf>,
}

/// A piece of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorPiece {
    /// As it is.
    Text(String),
    /// `503`
    Status,
    /// `Service Unavailable`
    Reason,
    /// The token that stands in the log: `no_healthy_endpoint`.
    Error,
    /// A sentence about it.
    Message,
    /// What the request is called.
    RequestId,
}

const NAMES: [(&str, ErrorPiece); 5] = [
    ("{status}", ErrorPiece::Status),
    ("{reason}", ErrorPiece::Reason),
    ("{error}", ErrorPiece::Error),
    ("{message}", ErrorPiece::Message),
    ("{request_id}", ErrorPiece::RequestId),
];

impl ErrorPage {
    /// The one for a status.
    #[must_use]
    pub fn of(pages: &[Self], status: StatusCode) -> Option<&Self> {
        pages.iter().find(|page| page.statuses.is_empty() || page.statuses.contains(&status.as_u16()))
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> String {
        let name = |piece: &ErrorPiece| NAMES.iter().find(|(_, named)| named == piece).map_or("", |(name, _)| *name);
        let piece = |piece: &ErrorPiece| match piece {
            ErrorPiece::Text(text) => text.clone(),
            named => name(named).to_owned(),
        };
        self.pieces.iter().map(piece).collect()
    }
}

/// The pages of a listener, in file order.
pub(super) fn pages<const MIN: usize, const MAX: usize>(
    list: &Written<List<ErrorTable, MIN, MAX>>,
    sink: &mut Sink<'_>,
) -> Option<Vec<ErrorPage>> {
    let pages: Vec<_> = list.value.0.iter().filter_map(|table| page(&table.value, sink)).collect();
    (pages.len() == list.value.0.len()).then_some(pages)
}

fn page(table: &ErrorTable, sink: &mut Sink<'_>) -> Option<ErrorPage> {
    let body = match (&table.body, &table.file) {
        (Some(body), None) => body.value.0.clone(),
        (None, Some(file)) => match body_of(&file.value.0, sink) {
            Ok(body) => body,
            Err(why) => {
                sink.value(table.at.key("file"), file.span.clone(), why, None);
                return None;
            }
        },
        (Some(_), Some(file)) => {
            let message = "body stands there too; must be exactly one of body, file".to_owned();
            sink.value(table.at.key("file"), file.span.clone(), message, None);
            return None;
        }
        (None, None) => {
            let is_told = ["body", "file"].iter().any(|key| sink.reported(table.at.key(key)));
            if !is_told {
                sink.place(
                    table.at.key("body"),
                    table.at.offset,
                    "missing: exactly one of body, file".to_owned(),
                    None,
                );
            }
            return None;
        }
    };
    let statuses = table.status.as_ref()?.value.0.iter().filter_map(|status| u16::try_from(status.value.0).ok());
    Some(ErrorPage {
        statuses: statuses.collect(),
        content_type: table.content_type.as_ref()?.value.0.clone(),
        pieces: taken_apart(&body),
        file: table.file.as_ref().map(|file| file.value.0.clone()),
    })
}

fn body_of(path: &Path, sink: &Sink<'_>) -> Result<String, String> {
    let read = read_file(path, RESPOND_BODY_BYTES_MAX as u64);
    sink.follow(path, read.as_ref().ok().map(|(_, stamp)| *stamp));
    let (bytes, _) = read.map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() > RESPOND_BODY_BYTES_MAX {
        return Err(format!("the file has more than {RESPOND_BODY_BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "the file is not UTF-8".to_owned())
}

fn taken_apart(body: &str) -> Vec<ErrorPiece> {
    let (mut pieces, mut rest, mut from) = (Vec::new(), body, 0);
    while let Some(at) = rest[from..].find('{').map(|at| from + at) {
        let named = NAMES.iter().find(|(name, _)| rest[at..].starts_with(name));
        let Some((name, piece)) = named else {
            from = at + 1;
            continue;
        };
        pieces.extend((at > 0).then(|| ErrorPiece::Text(rest[..at].to_owned())));
        pieces.push(piece.clone());
        (rest, from) = (&rest[at + name.len()..], 0);
    }
    pieces.extend((!rest.is_empty()).then(|| ErrorPiece::Text(rest.to_owned())));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check::parse_for;

    #[test]
    fn only_known_names_are_taken_out_of_a_body() {
        let text = |text: &str| ErrorPiece::Text(text.to_owned());
        let body = "a { color: red } {status}{error}{x}{{reason}}";
        let pieces = [
            text("a { color: red } "),
            ErrorPiece::Status,
            ErrorPiece::Error,
            text("{x}{"),
            ErrorPiece::Reason,
            text("}"),
        ];
        assert_eq!(taken_apart(body), pieces);
        assert_eq!(taken_apart("{}"), [text("{}")]);
        assert!(taken_apart("").is_empty());
    }

    #[test]
    fn a_page_is_a_text_or_a_file_and_never_neither() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("503.html");
        std::fs::write(&file, "<p>{error}</p>").unwrap();
        let config = |errors: &str| {
            let text =
                format!("[[listener]]\nlisten = \"127.0.0.1:0\"\nerrors = {errors}\n[[route]]\nrespond = {{}}\n");
            parse_for(&text, "f", &[0])
        };
        let of_file =
            format!("[{{ status = [503], file = {file:?} }}, {{ body = \"b\", content_type = \"text/plain\" }}]");
        let pages = config(&of_file).unwrap().listeners.remove(0).errors;
        let of = |status| ErrorPage::of(&pages, StatusCode::from_u16(status).unwrap()).map(ErrorPage::text);
        assert_eq!((of(503).as_deref(), of(404).as_deref()), (Some("<p>{error}</p>"), Some("b")));
        for (wrong, why) in [
            ("[{}]".to_owned(), "missing: exactly one of body, file"),
            (format!("[{{ body = \"a\", file = {file:?} }}]"), "must be exactly one"),
            ("[{ file = \"/nonexistent/x\" }]".to_owned(), "cannot be read"),
            ("[{ body = \"a\", status = [200] }]".to_owned(), "400"),
        ] {
            let told = config(&wrong).unwrap_err().to_string();
            assert!(told.contains(why), "{wrong}: {told}");
        }
    }
}
