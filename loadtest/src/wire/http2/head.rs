//! Heads of requests in their compressed form (RFC 7541), as browsers send them: what comes again on a connection is a byte or two.
//!
//! The literal forms are made once for a load ([`Head`]); what a connection has told its server already is known there ([`Encoder`]).

use super::fields::{ENTRY_BYTES, STATIC, TABLE_BYTES};
use super::huffman;
use std::sync::Arc;

/// Fields that differ from one request to the next, which would push others out of the table.
const CHANGING: [&str; 7] =
    [":path", "content-length", "age", "etag", "if-modified-since", "if-none-match", "location"];
/// Fields that nobody on the way may keep (RFC 7541 §7.1.3).
const SECRET: [&str; 2] = ["authorization", "proxy-authorization"];
/// Fields that are about a connection of HTTP/1.1, which HTTP/2 has none of (RFC 9113 §8.2.2), or say what a pseudo-field says.
const OF_CONNECTIONS: [&str; 6] =
    ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "http2-settings"];

/// Whether a field may not be sent over HTTP/2.
#[must_use]
pub fn is_of_connections(name: &str, value: &str) -> bool {
    let is_te = name.eq_ignore_ascii_case("te") && !value.eq_ignore_ascii_case("trailers");
    is_te || OF_CONNECTIONS.iter().any(|other| other.eq_ignore_ascii_case(name))
}

/// A request's head, but for its scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    method: Field,
    others: Vec<Field>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    form: Form,
    /// As it is sent where it is not known there.
    literal: Box<[u8]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// Whole in the static table, or never to be added.
    Fixed,
    /// It is added when it is first sent, as this.
    Added(Arc<Entry>),
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    name: Box<[u8]>,
    value: Box<[u8]>,
    /// The literal that adds it.
    adding: Box<[u8]>,
}

impl Head {
    /// Of these parts; names are in lower case, and connection-specific fields are left out.
    #[must_use]
    pub fn new(method: &str, authority: &str, path: &str, fields: &[(String, String)]) -> Self {
        let mut others = vec![Field::new(":path", path), Field::new(":authority", authority)];
        let is_sent = |name: &str, value: &str| !is_of_connections(name, value) && !name.eq_ignore_ascii_case("host");
        let sent = fields.iter().filter(|(name, value)| is_sent(name, value));
        others.extend(sent.map(|(name, value)| Field::new(&name.to_ascii_lowercase(), value)));
        Self { method: Field::new(":method", method), others }
    }
}

impl Field {
    fn new(name: &str, value: &str) -> Self {
        let by_name = STATIC.iter().position(|(other, _)| *other == name).map_or(0, |row| row + 1);
        if let Some(row) = STATIC.iter().position(|(other, text)| *other == name && *text == value && !text.is_empty())
        {
            let mut literal = Vec::new();
            integer(0x80, 7, row + 1, &mut literal);
            return Self { form: Form::Fixed, literal: literal.into() };
        }
        let literal = |flags: u8, bits: u32| {
            let mut out = Vec::new();
            integer(flags, bits, by_name, &mut out);
            if by_name == 0 {
                string(name, &mut out);
            }
            string(value, &mut out);
            Box::<[u8]>::from(out)
        };
        if SECRET.contains(&name) {
            return Self { form: Form::Fixed, literal: literal(0x10, 4) };
        }
        let entry = || Entry { name: name.as_bytes().into(), value: value.as_bytes().into(), adding: literal(0x40, 6) };
        let form = if CHANGING.contains(&name) { Form::Fixed } else { Form::Added(Arc::new(entry())) };
        Self { form, literal: literal(0, 4) }
    }
}

/// What a connection has told its server.
#[derive(Debug)]
pub(super) struct Encoder {
    /// In the order in which they were added. None is ever pushed out: what has no room is not added.
    added: Vec<Arc<Entry>>,
    bytes: usize,
    bytes_max: usize,
    /// The server has to be told of another size (RFC 7541 §4.2).
    tells_size: bool,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self { added: Vec::new(), bytes: 0, bytes_max: TABLE_BYTES, tells_size: false }
    }

    /// The server keeps so many bytes at most; begins anew if that is another number than before.
    pub(super) fn resize(&mut self, bytes_max: usize) {
        let bytes_max = bytes_max.min(TABLE_BYTES);
        if bytes_max != self.bytes_max {
            (self.bytes, self.bytes_max, self.tells_size) = (0, bytes_max, true);
            self.added.clear();
        }
    }

    /// Appends a request's head.
    pub(super) fn encode(&mut self, head: &Head, is_tls: bool, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.tells_size) {
            // by way of nothing, since what was added before is forgotten here
            integer(0x20, 5, 0, out);
            integer(0x20, 5, self.bytes_max, out);
        }
        self.field(&head.method, out);
        out.push(if is_tls { 0x87 } else { 0x86 });
        for field in &head.others {
            self.field(field, out);
        }
    }

    fn field(&mut self, field: &Field, out: &mut Vec<u8>) {
        let Form::Added(entry) = &field.form else { return out.extend_from_slice(&field.literal) };
        let is_it = |other: &Arc<Entry>| Arc::ptr_eq(other, entry) || other == entry;
        if let Some(row) = self.added.iter().position(is_it) {
            return integer(0x80, 7, STATIC.len() + self.added.len() - row, out);
        }
        let bytes = entry.name.len() + entry.value.len() + ENTRY_BYTES;
        if self.bytes + bytes > self.bytes_max {
            return out.extend_from_slice(&field.literal);
        }
        self.bytes += bytes;
        self.added.push(Arc::clone(entry));
        out.extend_from_slice(&entry.adding);
    }
}

/// RFC 7541 §5.1.
fn integer(flags: u8, bits: u32, value: usize, out: &mut Vec<u8>) {
    let most = (1_usize << bits) - 1;
    if value < most {
        return out.push(flags | value as u8);
    }
    out.push(flags | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// RFC 7541 §5.2, in the shorter form.
fn string(text: &str, out: &mut Vec<u8>) {
    let coded = huffman::length(text.as_bytes());
    if coded < text.len() {
        integer(0x80, 7, coded, out);
        huffman::encode(text.as_bytes(), out);
    } else {
        integer(0, 7, text.len(), out);
        out.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&str, &str)]) -> Head {
        let fields: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Head::new("GET", "a.test", "/a/b?c", &fields)
    }

    /// What another decoder reads.
    fn read(decoder: &mut fluke_hpack::Decoder<'_>, block: &[u8]) -> Vec<String> {
        let mut fields = Vec::new();
        decoder
            .decode_with_cb(block, |name, value| {
                fields.push(format!("{}: {}", String::from_utf8_lossy(&name), String::from_utf8_lossy(&value)));
            })
            .expect("it is one");
        fields
    }

    #[test]
    fn what_comes_again_is_short_and_means_the_same() {
        let fields = [("X-Tenant", "acme"), ("Connection", "close"), ("authorization", "Bearer abc"), ("host", "b")];
        let wanted = [
            ":method: GET",
            ":scheme: https",
            ":path: /a/b?c",
            ":authority: a.test",
            "x-tenant: acme",
            "authorization: Bearer abc",
        ];
        let (mut encoder, mut decoder) = (Encoder::new(), fluke_hpack::Decoder::new());
        let mut sizes = Vec::new();
        for _ in 0..3 {
            let mut block = Vec::new();
            encoder.encode(&head(&fields), true, &mut block);
            assert_eq!(read(&mut decoder, &block), wanted);
            sizes.push(block.len());
        }
        assert!(sizes[1] + 8 < sizes[0] && sizes[1] == sizes[2], "{sizes:?}");
        let other = head(&[("x-long", &"y".repeat(500))]);
        let mut block = Vec::new();
        encoder.encode(&other, false, &mut block);
        assert_eq!(read(&mut decoder, &block)[4], format!("x-long: {}", "y".repeat(500)));
    }

    #[test]
    fn a_server_that_keeps_less_is_asked_for_no_more() {
        let (mut encoder, mut decoder) = (Encoder::new(), fluke_hpack::Decoder::new());
        for (bytes_max, added) in [(TABLE_BYTES, 2), (0, 0), (60, 1), (1 << 20, 2)] {
            encoder.resize(bytes_max);
            for _ in 0..2 {
                let mut block = Vec::new();
                encoder.encode(&head(&[("x-tenant", "acme")]), false, &mut block);
                assert_eq!(read(&mut decoder, &block).len(), 5, "{bytes_max}");
            }
            assert_eq!(encoder.added.len(), added, "{bytes_max}");
        }
    }

    #[test]
    fn fields_beyond_the_table_are_sent_all_the_same() {
        let (mut encoder, mut decoder) = (Encoder::new(), fluke_hpack::Decoder::new());
        for row in 0..200 {
            let mut block = Vec::new();
            encoder.encode(&head(&[("x-row", &row.to_string())]), false, &mut block);
            assert_eq!(read(&mut decoder, &block)[4], format!("x-row: {row}"));
        }
        assert!(encoder.bytes <= TABLE_BYTES);
    }
}
