//! Header blocks, one behind the other over one table: what can be decoded is bounded and clean, and the table is what its blocks say.

use crate::{Knobs, is_field_value};
use ringgate::http::h2::decoder::Decoder;
use ringgate::http::h2::section::{Bounds, Fault, Role, Section};

/// Knobs: 0 and 1 the role; 2 narrow bounds. Blocks are separated by 0xff 0xff, which begins no block that is short.
pub fn check(input: &[u8]) {
    let Some((knobs, bytes)) = Knobs::split(input) else { return };
    let role = [Role::Request, Role::Response, Role::Trailers, Role::Request][knobs.number(0, 2)];
    let bounds = match knobs.bit(2) {
        true => Bounds { bytes_max: 200, fields_max: 3 },
        false => Bounds { bytes_max: 16 << 10, fields_max: 100 },
    };
    // the same blocks with other bounds and another role leave the same table
    let (mut decoder, mut other) = (Decoder::default(), Decoder::default());
    let (mut section, mut probe) = (Section::default(), Section::default());
    let wide = Bounds { bytes_max: 1 << 20, fields_max: 256 };
    for block in split(bytes) {
        section.clear(role);
        let decoded = decoder.decode(block, &bounds, &mut section);
        probe.clear(Role::Trailers);
        assert_eq!(decoded, other.decode(block, &wide, &mut probe));
        if decoded.is_err() {
            return;
        }
        assert!(decoder.memory() < 10 << 10, "{} bytes", decoder.memory());
        if section.fault() != Some(Fault::Malformed) {
            check_lines(&section, &bounds);
        }
        for index in 62..=127 {
            section.clear(Role::Trailers);
            probe.clear(Role::Trailers);
            let there = decoder.decode(&[0x80 | index], &wide, &mut section);
            assert_eq!(there, other.decode(&[0x80 | index], &wide, &mut probe));
            assert_eq!(section.lines(), probe.lines(), "row {index} of the two tables");
            if there.is_err() {
                break;
            }
        }
    }
}

fn split(bytes: &[u8]) -> Vec<&[u8]> {
    let mut blocks = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(2).position(|pair| pair == b"\xff\xff") {
        blocks.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    blocks.push(rest);
    blocks
}

/// What was stored is lines, of names and values that may be, within the bounds.
fn check_lines(section: &Section, bounds: &Bounds) {
    let lines = section.lines();
    assert!(lines.is_empty() || lines.ends_with(b"\r\n"));
    assert!(lines.len() <= 2 * bounds.bytes_max + 64, "{} bytes", lines.len());
    for line in lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let line = line.strip_suffix(b"\r").expect("CRLF");
        let colon = line[1.min(line.len())..].windows(2).position(|pair| pair == b": ").expect("a colon") + 1;
        let (name, value) = (&line[..colon], &line[colon + 2..]);
        let regular = name.strip_prefix(b":").unwrap_or(name);
        assert!(crate::is_token(regular) && !regular.iter().any(u8::is_ascii_uppercase), "{}", name.escape_ascii());
        assert!(is_field_value(value), "{}", value.escape_ascii());
    }
}
