//! What a field of a header block is: a pseudo-field, a field that the gateway knows, one of the many others, or one that may not be there.
//!
//! It is found out once, when a field is first seen, and kept with it in the tables of HPACK, so that a field that is only an index costs
//! no comparison.
//!
//! Sources: RFC 9113 §8.2 (names, values, fields about the connection), §8.3 (pseudo-fields).

use crate::config::Underscores;
use crate::http::fields::{self, classify};
use crate::http::lines::value_end;
use crate::http::text::is_token_byte;

/// What a field is, by its name and, where its value alone can be wrong, by that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// What HTTP/1.1 knows it as.
    Field(fields::Kind),
    /// The same of a name with an underscore.
    Underscored(fields::Kind),
    /// `cookie`, which may come in crumbs (§8.2.3).
    Cookie,
    /// `content-length`.
    Length,
    /// `priority` (RFC 9218 §5).
    Priority,
    /// `:method`
    Method,
    /// `:scheme`
    Scheme,
    /// `:authority`
    Authority,
    /// `:path`
    Path,
    /// `:status`
    Status,
    /// `:protocol` (RFC 8441 §4)
    Protocol,
    /// It makes its message malformed: an unknown pseudo-field, a name or value that none may be, a field about the connection.
    Bad,
}

/// Bytes of a name in a header block: tokens without upper case (§8.2.1).
const NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = is_token_byte(byte as u8) && !(byte as u8).is_ascii_uppercase();
        byte += 1;
    }
    table
};

impl What {
    /// What a field is.
    pub(super) fn of(name: &[u8], value: &[u8]) -> Self {
        match Self::of_name(name) {
            // §8.2.2: TE may ask for trailers and nothing else
            Self::Field(fields::Kind::Te) if !value.eq_ignore_ascii_case(b"trailers") => Self::Bad,
            what => what.with(value),
        }
    }

    /// The same of one whose name is known and fine, by its value.
    pub(super) fn with(self, value: &[u8]) -> Self {
        if is_value(value) { self } else { Self::Bad }
    }

    fn of_name(name: &[u8]) -> Self {
        if let Some(pseudo) = name.strip_prefix(b":") {
            return match pseudo {
                b"method" => Self::Method,
                b"scheme" => Self::Scheme,
                b"authority" => Self::Authority,
                b"path" => Self::Path,
                b"status" => Self::Status,
                b"protocol" => Self::Protocol,
                _ => Self::Bad,
            };
        }
        if name.is_empty() || !name.iter().all(|&byte| NAME[usize::from(byte)]) {
            return Self::Bad;
        }
        match classify(name, Underscores::Keep) {
            // §8.2.2
            fields::Kind::Connection
            | fields::Kind::KeepAlive
            | fields::Kind::TransferEncoding
            | fields::Kind::Upgrade => Self::Bad,
            fields::Kind::Dropped if name == b"proxy-connection" => Self::Bad,
            fields::Kind::ContentLength => Self::Length,
            fields::Kind::EndToEnd if name == b"cookie" => Self::Cookie,
            fields::Kind::Other if name == b"priority" => Self::Priority,
            kind if memchr::memchr(b'_', name).is_some() => Self::Underscored(kind),
            kind => Self::Field(kind),
        }
    }
}

/// Whether a value may stand in a field (§8.2.1): what HTTP/1.1 allows, without blanks around it.
fn is_value(value: &[u8]) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    !is_blank(value.first()) && !is_blank(value.last()) && value_end(value, 0) == value.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_about_the_connection_and_wrong_names_are_bad() {
        for (name, value) in [
            ("connection", "close"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "gzip"),
            ("te", "trailers, gzip"),
            ("te", ""),
            ("", "x"),
            ("Host", "a"),
            ("x-Y", "a"),
            ("x y", "a"),
            ("x:y", "a"),
            ("x\0", "a"),
            ("\u{e9}", "a"),
            (":", "a"),
            (":Path", "/"),
            (":host", "a"),
            ("a", " b"),
            ("a", "b "),
            ("a", "\tb"),
            ("a", "b\t"),
            ("a", " "),
            ("a", "b\r\nc: d"),
            ("a", "b\rc"),
            ("a", "b\nc"),
            ("a", "b\0"),
            ("a", "\u{7f}"),
            (":path", "/ "),
        ] {
            assert_eq!(What::of(name.as_bytes(), value.as_bytes()), What::Bad, "{name}: {value:?}");
        }
    }

    #[test]
    fn others_are_what_they_are() {
        for (name, value, what) in [
            ("te", "trailers", What::Field(fields::Kind::Te)),
            ("te", "Trailers", What::Field(fields::Kind::Te)),
            ("host", "a", What::Field(fields::Kind::Host)),
            ("cookie", "a=b", What::Cookie),
            ("priority", "u=1", What::Priority),
            ("content-length", "5", What::Length),
            ("x", "", What::Field(fields::Kind::Other)),
            ("x", "a b\tc\u{e9}", What::Field(fields::Kind::Other)),
            ("x_y", "a", What::Underscored(fields::Kind::Other)),
            ("x-forwarded-a_b", "a", What::Underscored(fields::Kind::ForwardedOther)),
            ("proxy-authorization", "a", What::Field(fields::Kind::Dropped)),
            (":status", "200", What::Status),
            (":authority", "", What::Authority),
        ] {
            assert_eq!(What::of(name.as_bytes(), value.as_bytes()), what, "{name}: {value:?}");
        }
    }
}
