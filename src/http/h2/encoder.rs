//! HPACK, the encoder: static indices and plain literals (RFC 7541 §6).
//!
//! Nothing is ever put into the peer's dynamic table and nothing is Huffman-coded. It costs some bytes on the wire; it saves a table per
//! connection and most of the work, and a shared connection cannot tell one client by its lengths what another has sent (§7.1). So a
//! block refers to no other one, and may be written at any time and in any order.

use super::integer;
use super::static_table::index_of_name;
use http::StatusCode;
use std::ops::Range;

/// A field that no intermediary may put into a table either (§6.2.3).
const NEVER_INDEXED: u8 = 0x10;

/// Appends `:status`.
pub(super) fn push_status(out: &mut Vec<u8>, status: StatusCode) {
    let index = match status.as_u16() {
        200 => 8,
        204 => 9,
        206 => 10,
        304 => 11,
        400 => 12,
        404 => 13,
        500 => 14,
        _ => {
            out.extend_from_slice(&[8, 3]);
            return out.extend_from_slice(status.as_str().as_bytes());
        }
    };
    out.push(0x80 | index);
}

/// Appends `:method`.
pub(super) fn push_method(out: &mut Vec<u8>, method: &[u8]) {
    match method {
        b"GET" => out.push(0x82),
        b"POST" => out.push(0x83),
        _ => push_field(out, b":method", method, false),
    }
}

/// Appends `:scheme`.
pub(super) fn push_scheme(out: &mut Vec<u8>, is_secure: bool) {
    out.push(if is_secure { 0x87 } else { 0x86 });
}

/// Appends a field; its name is written in lower case (RFC 9113 §8.2).
pub(super) fn push_field(out: &mut Vec<u8>, name: &[u8], value: &[u8], never_indexed: bool) {
    let first = if never_indexed { NEVER_INDEXED } else { 0 };
    out.reserve(name.len() + value.len() + 16);
    match index_of_name(name) {
        Some(index) => integer::push(out, first, 4, usize::from(index)),
        None => {
            out.push(first);
            integer::push(out, 0, 7, name.len());
            let start = out.len();
            out.extend_from_slice(name);
            out[start..].make_ascii_lowercase();
        }
    }
    push_string(out, value);
}

/// The same of a name and a value that stand in `out` already.
pub(super) fn push_field_from_within(out: &mut Vec<u8>, name: Range<usize>, value: Range<usize>) {
    out.reserve(name.len() + value.len() + 16);
    match index_of_name(&out[name.clone()]) {
        Some(index) => integer::push(out, 0, 4, usize::from(index)),
        None => {
            out.push(0);
            integer::push(out, 0, 7, name.len());
            let start = out.len();
            out.extend_from_within(name);
            out[start..].make_ascii_lowercase();
        }
    }
    integer::push(out, 0, 7, value.len());
    out.extend_from_within(value);
}

/// Appends a string as it stands (§5.2).
#[inline]
pub(super) fn push_string(out: &mut Vec<u8>, text: &[u8]) {
    integer::push(out, 0, 7, text.len());
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h2::decoder::Decoder;
    use crate::http::h2::section::{Bounds, Role, Section};

    fn decoded(block: &[u8]) -> (String, Section) {
        let mut section = Section::default();
        section.clear(Role::Response);
        let bounds = Bounds { bytes_max: 1 << 20, fields_max: 200 };
        Decoder::default().decode(block, &bounds, &mut section).unwrap();
        assert_eq!(section.fault(), None);
        (String::from_utf8(section.lines.clone()).unwrap(), section)
    }

    #[test]
    fn what_is_written_is_read() {
        let long = "v".repeat(20_000);
        for status in 100..600 {
            let status = StatusCode::from_u16(status).unwrap();
            let mut out = Vec::new();
            push_status(&mut out, status);
            push_field(&mut out, b"Content-Type", b"text/plain", false);
            push_field(&mut out, b"X-Custom", b"", true);
            push_field(&mut out, b"x", long.as_bytes(), false);
            push_field(&mut out, b"WWW-Authenticate", b"Basic", true);
            let (lines, section) = decoded(&out);
            let wanted = format!(
                ":status: {}\r\ncontent-type: text/plain\r\nx-custom: \r\nx: {long}\r\nwww-authenticate: Basic\r\n",
                status.as_str()
            );
            assert!(lines == wanted, "{status}");
            let never: Vec<_> = (0..4).map(|at| section.is_never_indexed(at)).collect();
            assert_eq!(never, [false, true, false, true], "RFC 7541 §7.1.3");
        }
    }
}
