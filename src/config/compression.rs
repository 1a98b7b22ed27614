//! `compression` of a route: which responses the gateway compresses, and how.
//!
//! Off unless a route says so: it takes CPU from requests, and where a response has a secret and something that a stranger chooses in it, its length
//! tells about the secret (BREACH, CVE-2013-3587).

use super::HeaderRules;
use super::check::value;
use super::problem::{Refusal, Sink};
use super::read::{List, Scalar};
use super::tables::{scalar_schema, table};
use super::values::{Size, text, words};
use crate::limits::{ENTRIES_MAX, NAME_BYTES_MAX};
use http::HeaderName;
use serde_json::json;
use std::fmt;
use toml::de::DeValue;

table! {
    /// Responses that the gateway compresses for clients that take it.
    CompressionTable {
        /// Codings, of those that a client likes the same the first.
        default codings: List<ContentCoding, 1, 3> = ["zstd", "br", "gzip"];
        /// Media types: "application/json", or "text/*". Never text/event-stream.
        default types: List<MediaType, 1, ENTRIES_MAX> = ["text/*", "application/json", "application/javascript", "application/xml", "application/problem+json", "application/ld+json", "application/manifest+json", "application/rss+xml", "application/atom+xml", "application/xhtml+xml", "image/svg+xml"];
        /// Smaller bodies, 0B to 1GiB, stay as they are, where their length is known.
        default min_size: Size<0, { 1 << 30 }> = "1KiB";
        /// Larger ones, 0B to 1GiB, too.
        default max_size: Size<0, { 1 << 30 }> = "16MiB";
    }
}

words! {
    /// `compression.codings[]`
    ContentCoding {
        /// RFC 8878.
        Zstd = "zstd",
        /// RFC 7932.
        Brotli = "br",
        /// RFC 1952.
        Gzip = "gzip",
    }
}

impl ContentCoding {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    /// As `Content-Encoding` says it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }
}

/// `compression.types[]`: a media type in lower case; `None` for its second half: any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaType(pub String, pub Option<String>);

impl Scalar for MediaType {
    fn allowed() -> String {
        "a media type such as \"application/json\", or \"text/*\"".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        if written.contains(';') {
            return Err(Refusal::why("parameters of a type make no difference here"));
        }
        let is_word = |word: &str| HeaderName::from_bytes(word.as_bytes()).is_ok() && !word.contains('*');
        let (kind, rest) = written.split_once('/').ok_or_else(Refusal::plain)?;
        if !is_word(kind) || !(rest == "*" || is_word(rest)) || written.len() > NAME_BYTES_MAX {
            return Err(Refusal::plain());
        }
        Ok(Self(kind.to_ascii_lowercase(), (rest != "*").then(|| rest.to_ascii_lowercase())))
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^[^/*;]+/([^/*;]+|\\*)$", "maxLength": NAME_BYTES_MAX })
    }
}

scalar_schema!(MediaType);

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, self.1.as_deref().unwrap_or("*"))
    }
}

/// `compression` of a route.
#[derive(Clone, Debug)]
pub struct Compression {
    /// Of those that a client likes the same the first.
    pub codings: Vec<ContentCoding>,
    /// Types of bodies.
    pub types: Vec<MediaType>,
    /// Smallest body, where its length is known.
    pub bytes_min: u64,
    /// Largest.
    pub bytes_max: u64,
    /// The route's rules for responses, with what must not be said of other bytes removed.
    pub rules: HeaderRules,
}

impl Compression {
    /// Whether a body with this `Content-Type` is one of them. An event stream is none, since its events must not wait for each other.
    #[must_use]
    pub fn has_type(&self, content_type: &[u8]) -> bool {
        let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let Some(at) = essence.iter().position(|byte| *byte == b'/') else { return false };
        let (kind, rest) = (&essence[..at], &essence[at + 1..]);
        let is = |MediaType(own_kind, own_rest): &MediaType| {
            kind.eq_ignore_ascii_case(own_kind.as_bytes())
                && own_rest.as_ref().is_none_or(|own| rest.eq_ignore_ascii_case(own.as_bytes()))
        };
        !essence.eq_ignore_ascii_case(b"text/event-stream") && self.types.iter().any(is)
    }
}

/// What the table says for a route with these rules for responses.
pub(super) fn compression(table: &CompressionTable, rules: &HeaderRules, sink: &mut Sink<'_>) -> Option<Compression> {
    let codings: Vec<_> = table.codings.as_ref()?.value.0.iter().map(|coding| coding.value).collect();
    if let Some(row) = (1..codings.len()).find(|row| codings[..*row].contains(&codings[*row])) {
        let message = format!("{} stands there twice", codings[row].as_str());
        sink.value(table.at.key("codings"), table.codings.as_ref()?.span.clone(), message, None);
    }
    let (min, max) = (value(&table.min_size)?.0, value(&table.max_size)?.0);
    if min > max {
        let (key, span) = match table.max_size.as_ref()? {
            written if written.given => ("max_size", &written.span),
            _ => ("min_size", &table.min_size.as_ref()?.span),
        };
        sink.value(table.at.key(key), span.clone(), "min_size is larger than max_size".to_owned(), None);
    }
    let strip = ["etag", "accept-ranges"].map(HeaderName::from_static);
    Some(Compression {
        codings,
        types: table.types.as_ref()?.value.0.iter().map(|kind| kind.value.clone()).collect(),
        bytes_min: min,
        bytes_max: max,
        rules: HeaderRules { strip: rules.strip.iter().cloned().chain(strip).collect(), ..rules.clone() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::tests::{accepts, refuses};

    fn compression(keys: &str) -> Result<Compression, String> {
        let text = format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"a\"\ncompression = {{ {keys} }}\n\
             [upstream.a]\nendpoints = [{{ address = \"127.0.0.1:1\" }}]\n"
        );
        let config = crate::config::parse(&text, "f").map_err(|errors| errors.to_string())?;
        Ok(config.routes[0].traffic.compression.clone().expect("a table"))
    }

    #[test]
    fn types_are_whole_or_all_of_a_kind() {
        accepts::<MediaType>(&["text/html", "Text/*", "application/vnd.api+json"]);
        refuses::<MediaType>(&[
            "",
            "text",
            "text/",
            "/html",
            "*/*",
            "*",
            "text/html; charset=utf-8",
            "te xt/a",
            "text/a*",
        ]);
        let rules = compression("types = [\"text/*\", \"application/JSON\"]").unwrap();
        for (written, expected) in [
            ("text/html", true),
            ("TEXT/Plain; charset=utf-8", true),
            ("application/json;charset=x", true),
            ("text/event-stream", false),
            ("text/event-stream; x", false),
            ("application/json2", false),
            ("image/png", false),
            ("textual", false),
            ("", false),
        ] {
            assert_eq!(rules.has_type(written.as_bytes()), expected, "{written}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_an_error() {
        assert_eq!(compression("").unwrap().codings, ContentCoding::ALL);
        assert!(compression("codings = [\"gzip\", \"gzip\"]").unwrap_err().contains("gzip stands there twice"));
        assert!(compression("codings = []").is_err() && compression("codings = [\"deflate\"]").is_err());
        assert!(compression("min_size = \"2KiB\", max_size = \"1KiB\"").unwrap_err().contains("larger than max_size"));
        assert!(compression("min_size = \"32MiB\"").unwrap_err().contains("min_size"));
    }
}
