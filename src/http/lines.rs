//! The lines of a response's head, read in one pass.
//!
//! A request's head, which anybody may send, is left to httparse, and [`super::fields`] makes a table of what that found. A response is
//! the larger head of the two and comes from an endpoint that was chosen: here the table is made while its lines are read, which takes a
//! third of the instructions. It takes nothing that httparse refuses but minor versions above 1, and reads it the same (`tests/http/properties.rs` compares them).
//!
//! Stricter than RFC 9112 asks for: lines end in CRLF (§2.2 lets recipients take a bare LF), and no line is folded (§5.2).

use super::Version;
use super::fields::{Field, Malformed, Seen, classify, offset};
use super::text::{is_token_byte, is_value_byte, trim};
use crate::config::Underscores;

/// What could be read.
#[derive(Debug)]
pub(super) enum Lines<T> {
    /// All of it, and where it ends.
    Whole(T, usize),
    /// What has arrived is fine, and not all.
    Cut,
}

/// What a status line says (RFC 9112 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StatusLine<'b> {
    pub(super) version: Version,
    /// Three digits.
    pub(super) code: u16,
    /// Empty if there is none, or one that is not ASCII.
    pub(super) reason: &'b str,
}

/// Reads the status line that `buf` begins with.
///
/// # Errors
/// It is none, or its major version is not 1. Minor versions above 1 are read as 1.1 (RFC 9110 §2.5).
pub(super) fn status_line(buf: &[u8]) -> Result<Lines<StatusLine<'_>>, Malformed> {
    const START: &[u8] = b"HTTP/1.";
    let known = buf.len().min(START.len());
    if buf[..known] != START[..known] {
        return Err(Malformed);
    }
    let [minor, b' ', a @ b'0'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', behind @ ..] = &buf[known..] else {
        return is_cut_code(&buf[known..]).then_some(Lines::Cut).ok_or(Malformed);
    };
    let version = match minor {
        b'0' => Version::Http10,
        b'1'..=b'9' => Version::Http11,
        _ => return Err(Malformed),
    };
    let code = [a, b, c].into_iter().fold(0, |code, digit| 10 * code + u16::from(digit - b'0'));
    let start = buf.len() - behind.len();
    let start = match behind.first() {
        Some(b' ') => start + 1,
        // RFC 9112 §4 wants a blank even before an empty reason, and servers forget it
        Some(b'\r') => start,
        Some(_) => return Err(Malformed),
        None => return Ok(Lines::Cut),
    };
    let end = value_end(buf, start);
    let reason = str::from_utf8(&buf[start..end]).ok().filter(|reason| reason.is_ascii()).unwrap_or_default();
    match buf[end..] {
        [b'\r', b'\n', ..] => Ok(Lines::Whole(StatusLine { version, code, reason }, end + 2)),
        [] | [b'\r'] => Ok(Lines::Cut),
        _ => Err(Malformed),
    }
}

/// Whether a version's last digit, a blank and a code could begin so.
fn is_cut_code(bytes: &[u8]) -> bool {
    let fits = |(at, &byte): (usize, &u8)| match at {
        0 => byte.is_ascii_digit(),
        1 => byte == b' ',
        _ => byte.is_ascii_digit(),
    };
    bytes.len() < 5 && bytes.iter().enumerate().all(fits)
}

/// Why field lines cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    Malformed,
    TooMany,
}

impl From<Malformed> for Unreadable {
    fn from(Malformed: Malformed) -> Self {
        Self::Malformed
    }
}

/// Reads the field lines from `at` on, and the empty line behind them, into `table`, which holds at most `fields_max`, and notes what they
/// say.
///
/// # Errors
/// Anything but `name: value CRLF` (RFC 9112 §5), more of them, or what [`Seen`] finds wrong.
pub(super) fn field_lines<'b>(
    buf: &'b [u8],
    mut at: usize,
    fields_max: usize,
    table: &mut Vec<Field>,
) -> Result<Lines<Seen<'b>>, Unreadable> {
    table.clear();
    let mut seen = Seen::default();
    loop {
        match buf[at..] {
            [b'\r', b'\n', ..] => break,
            [] | [b'\r'] => return Ok(Lines::Cut),
            _ if table.len() == fields_max => return Err(Unreadable::TooMany),
            _ => {}
        }
        let colon = token_end(buf, at);
        let name_len = colon - at;
        match buf.get(colon) {
            Some(b':') if name_len > 0 => {}
            None => return Ok(Lines::Cut),
            Some(_) => return Err(Unreadable::Malformed),
        }
        let line_end = value_end(buf, colon + 1);
        match buf[line_end..] {
            [b'\r', b'\n', ..] => {}
            [] | [b'\r'] => return Ok(Lines::Cut),
            _ => return Err(Unreadable::Malformed),
        }
        // nearly every value stands between one blank and the line's end
        let is_bare =
            matches!(buf[colon + 1..line_end], [b' ', first, .., last] if is_visible(first) && is_visible(last));
        let value = if is_bare { &buf[colon + 2..line_end] } else { trim(&buf[colon + 1..line_end]) };
        let value_start = offset(buf, value);
        let kind = classify(&buf[at..colon], Underscores::Keep);
        if !kind.says_nothing() {
            seen.note(kind, value)?;
        }
        table.push(Field {
            name_start: at as u32,
            value_start: value_start as u32,
            value_len: value.len() as u32,
            name_len: u16::try_from(name_len).map_err(|_| Malformed)?,
            kind,
            canonical: is_bare
                || (value_start == colon + 2 && buf[colon + 1] == b' ' && value_start + value.len() == line_end),
        });
        at = line_end + 2;
    }
    seen.settle(buf, table)?;
    Ok(Lines::Whole(seen, at + 2))
}

fn is_visible(byte: u8) -> bool {
    !matches!(byte, b' ' | b'\t')
}

/// A one in every byte.
const ONES: u64 = u64::MAX / 0xff;
/// The highest bit of every byte, where the answers about it stand.
const HIGHS: u64 = ONES << 7;

/// The first byte from `at` on that no token may hold (RFC 9110 §5.6.2), or the end of `buf`.
fn token_end(buf: &[u8], mut at: usize) -> usize {
    while let Some(eight) = buf[at..].first_chunk::<8>() {
        let bytes = u64::from_le_bytes(*eight);
        // names are of letters and `-`; sums of seven bits and less than a byte reach no other byte
        let lower = (bytes | (ONES * 0x20)) & !HIGHS;
        let letters = (lower + ONES * (0x80 - b'a' as u64)) & !(lower + ONES * (0x7f - b'z' as u64)) & !bytes;
        let minus = bytes ^ (ONES * b'-' as u64);
        let minuses = !(((minus & !HIGHS) + !HIGHS) | minus);
        let others = !(letters | minuses) & HIGHS;
        if others == 0 {
            at += 8;
            continue;
        }
        at += others.trailing_zeros() as usize / 8;
        if !is_token_byte(buf[at]) {
            return at;
        }
        at += 1;
    }
    at + buf[at..].iter().take_while(|&&byte| is_token_byte(byte)).count()
}

/// The first byte from `at` on that no value may hold (RFC 9110 §5.5: HTAB, SP, VCHAR and obs-text may stand there), or the end of `buf`.
#[inline]
pub(super) fn value_end(buf: &[u8], mut at: usize) -> usize {
    while let Some(eight) = buf[at..].first_chunk::<8>() {
        let bytes = u64::from_le_bytes(*eight);
        // a byte's high bit: it is below 0x20, or 0x7f. Borrows reach only bytes behind the first such one (Mycroft 1987)
        let controls = bytes.wrapping_sub(ONES * 0x20) & !bytes;
        let deletes = (bytes ^ (ONES * 0x7f)).wrapping_sub(ONES) & !(bytes ^ (ONES * 0x7f));
        let found = (controls | deletes) & HIGHS;
        if found == 0 {
            at += 8;
            continue;
        }
        at += found.trailing_zeros() as usize / 8;
        if buf[at] != b'\t' {
            return at;
        }
        at += 1;
    }
    at + buf[at..].iter().take_while(|&&byte| is_value_byte(byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every byte at every place of a word, behind others of all kinds.
    #[test]
    fn a_name_ends_where_the_first_byte_stands_that_is_of_no_token() {
        for byte in 0..=u8::MAX {
            for at in 0..20 {
                for fill in [b'a', b'-', b'Z', b'_', b'9', 0x80] {
                    let mut bytes = [fill; 24];
                    bytes[at] = byte;
                    let wanted = bytes.iter().position(|&b| !is_token_byte(b)).unwrap_or(bytes.len());
                    assert_eq!(token_end(&bytes, 0), wanted, "{byte:#x} at {at} among {fill:#x}");
                }
            }
        }
    }

    #[test]
    fn a_value_ends_where_the_first_byte_stands_that_it_may_not_hold() {
        for byte in 0..=u8::MAX {
            for at in 0..20 {
                for fill in [b'a', b'\t', 0x80, 0xff, b' ', b'~'] {
                    let mut bytes = [fill; 24];
                    bytes[at] = byte;
                    let wanted = bytes.iter().position(|&b| !is_value_byte(b)).unwrap_or(bytes.len());
                    assert_eq!(value_end(&bytes, 0), wanted, "{byte:#x} at {at} among {fill:#x}");
                }
            }
        }
        proptest!(|(bytes in proptest::collection::vec(any::<u8>(), 0..40), from in 0_usize..40)| {
            let from = from.min(bytes.len());
            let wanted = bytes[from..].iter().position(|&b| !is_value_byte(b)).map_or(bytes.len(), |at| from + at);
            prop_assert_eq!(value_end(&bytes, from), wanted);
        });
    }

    #[test]
    fn a_status_line_that_is_cut_is_told_from_one_that_is_wrong() {
        let line = b"HTTP/1.1 204 No Content\r\n";
        for cut in 0..line.len() {
            assert!(matches!(status_line(&line[..cut]), Ok(Lines::Cut)), "{cut}");
        }
        let Ok(Lines::Whole(StatusLine { version, code, reason }, end)) = status_line(line) else {
            panic!("a whole one")
        };
        assert_eq!((version, code, reason, end), (Version::Http11, 204, "No Content", line.len()));
        for (line, reason) in
            [("HTTP/1.0 200\r\n", ""), ("HTTP/1.0 200 \r\n", ""), ("HTTP/1.0 200 \u{e9}t\u{e9}\r\n", "")]
        {
            let Ok(Lines::Whole(read, _)) = status_line(line.as_bytes()) else { panic!("{line}") };
            assert_eq!((read.version, read.code, read.reason), (Version::Http10, 200, reason));
        }
        for wrong in [
            "HTTP/2",
            "HTTP/1.x ",
            "HTTP/1.10 ",
            "HTTP/1.1  ",
            "HTTP/1.1 2x",
            "HTTP/1.1 2000",
            "HTTP/1.1 200\n",
            "HTTP/1.1 200 a\x7f",
            "h",
            "HTTP/1.1 200 a\rb",
        ] {
            assert!(status_line(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }
}
