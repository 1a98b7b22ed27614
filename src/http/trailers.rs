//! The trailer section of a chunked body: bounded, checked like a header section, and cut down to what may go on.
//!
//! A trailer arrives after decisions were made on the head, so one that frames, routes, authenticates or describes the content must
//! not be merged or passed on (RFC 9110 §6.5.1); hop-by-hop fields, those that the head's `Connection` nominates and names with an
//! underscore end here as in heads. What the route sets or removes does not come by this way either: some services merge trailers into
//! the head. The rest (`grpc-status`, `Server-Timing`, checksums …) goes on.

use super::body::BodyError;
use super::fields::{Kind, classify};
use super::headers::overrides;
use super::text::{is_token, is_value_byte, trim};
use crate::config::{HeaderRules, Underscores};
use crate::limits;

/// Room for what most sections have, a status of gRPC and its message, so that it is allocated once.
const ROOM: usize = 256;

/// Takes a trailer section a byte at a time and keeps what may be forwarded; for one body.
///
/// Small and without an allocation as long as there is nothing to take or to know, which is nearly always.
#[derive(Debug, Default)]
pub struct Trailers {
    section: Option<Box<Section>>,
    section_bytes: u32,
    after_cr: bool,
}

#[derive(Debug, Default)]
struct Section {
    /// `name: value CRLF` of what goes on, and behind that the line that is being read.
    text: Vec<u8>,
    /// Bytes of what goes on.
    kept: usize,
    /// Names that end here.
    nominated: Vec<Box<[u8]>>,
}

const _: () = assert!(limits::TRAILER_BYTES_MAX < u32::MAX as usize);

impl Trailers {
    /// For a body whose head nominates these names in `Connection`: no trailer of such a name goes on (RFC 9110 §7.6.1).
    pub(super) fn without(nominated: Vec<Box<[u8]>>) -> Self {
        Self { section: Some(Box::new(Section { nominated, ..Section::default() })), ..Self::default() }
    }

    /// The lines of a body that is `done`, without those that the route's rules set or remove.
    pub fn end(&mut self, done: bool, rules: &HeaderRules) -> Option<&[u8]> {
        if !done {
            return None;
        }
        if let Some(section) = &mut self.section {
            section.apply(rules);
        }
        Some(self.lines())
    }

    /// The trailers that go on, as `name: value CRLF` lines; empty if there are none.
    #[must_use]
    pub fn lines(&self) -> &[u8] {
        self.section.as_ref().map_or(&[], |section| &section.text[..section.kept])
    }

    /// Takes the next byte of the section; true when it was the last one.
    pub(super) fn take(&mut self, byte: u8) -> Result<bool, BodyError> {
        self.section_bytes += 1;
        if self.section_bytes as usize > limits::TRAILER_BYTES_MAX {
            return Err(BodyError::Malformed);
        }
        match (self.after_cr, byte) {
            (false, b'\r') => self.after_cr = true,
            (false, _) if is_value_byte(byte) => self.section.get_or_insert_default().push(byte),
            (true, b'\n') => {
                self.after_cr = false;
                match &mut self.section {
                    Some(section) if section.text.len() > section.kept => section.end_line()?,
                    _ => return Ok(true),
                }
            }
            _ => return Err(BodyError::Malformed), // RFC 9112 §2.2: bare CR or LF; RFC 9110 §5.5: control bytes
        }
        Ok(false)
    }
}

impl Section {
    fn push(&mut self, byte: u8) {
        if self.text.capacity() == 0 {
            self.text.reserve(ROOM);
        }
        self.text.push(byte);
    }

    fn end_line(&mut self) -> Result<(), BodyError> {
        let (start, end) = (self.kept, self.text.len());
        let line = &self.text[start..];
        let colon = memchr::memchr(b':', line).ok_or(BodyError::Malformed)?;
        let name = &line[..colon];
        if !is_token(name) {
            return Err(BodyError::Malformed); // RFC 9112 §5.1, §5.2: a space before the colon, a folded line
        }
        if !may_go_on(name) || self.nominated.iter().any(|option| option.eq_ignore_ascii_case(name)) {
            self.text.truncate(start);
            return Ok(());
        }
        // what may stand around the value is left out (RFC 9112 §5)
        let blanks = line[colon + 1..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let from = start + colon + 1 + blanks;
        let value = from..from + trim(&self.text[from..]).len();
        self.text.extend_from_within(start..start + colon);
        self.text.extend_from_slice(b": ");
        self.text.extend_from_within(value);
        self.text.extend_from_slice(b"\r\n");
        self.text.drain(start..end);
        self.kept = self.text.len();
        Ok(())
    }

    fn apply(&mut self, rules: &HeaderRules) {
        let name = |line: &[u8]| memchr::memchr(b':', line).unwrap_or(line.len());
        let mut at = 0;
        while at < self.kept {
            let line = &self.text[at..self.kept];
            let len = memchr::memchr(b'\n', line).map_or(line.len(), |end| end + 1);
            if overrides(rules, &line[..name(line)]) {
                self.text.drain(at..at + len);
                self.kept -= len;
            } else {
                at += len;
            }
        }
    }
}

fn may_go_on(name: &[u8]) -> bool {
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    let known = classify(name, Underscores::Drop);
    known == Kind::Other
        && !["age", "expires", "pragma", "range", "vary", "warning", "max-forwards"].iter().any(|name| is(name))
        && !name.get(..8).is_some_and(|front| front.eq_ignore_ascii_case(b"content-"))
        && !name.get(..3).is_some_and(|front| front.eq_ignore_ascii_case(b"if-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(text: &str) -> Result<Trailers, BodyError> {
        let mut trailers = Trailers::default();
        for (at, byte) in text.bytes().enumerate() {
            if trailers.take(byte)? {
                assert_eq!(at + 1, text.len(), "the section ends with its text");
                return Ok(trailers);
            }
        }
        panic!("the section has an end")
    }

    #[test]
    fn what_goes_on_is_written_in_one_way() {
        for (text, lines) in [
            ("\r\n", ""),
            ("a: b\r\n\r\n", "a: b\r\n"),
            ("A:b\r\nc: \t d e \t\r\nf:\r\n\r\n", "A: b\r\nc: d e\r\nf: \r\n"),
            ("host: x\r\na: b\r\ncontent-length: 7\r\n\r\n", "a: b\r\n"),
            ("a: b\r\nhost: x\r\n\r\n", "a: b\r\n"),
        ] {
            assert_eq!(taken(text).map(|trailers| trailers.lines().to_vec()), Ok(lines.into()), "{text:?}");
        }
        for text in ["a\r\n\r\n", "a : b\r\n\r\n", " a: b\r\n\r\n", "a: b\nc: d\r\n\r\n"] {
            assert!(taken(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn those_of_a_call_take_one_allocation_of_text() {
        let text = format!("grpc-status: 13\r\ngrpc-message: {}\r\n\r\n", "x".repeat(100));
        let trailers = taken(&text).unwrap();
        assert_eq!(trailers.section.map(|section| section.text.capacity()), Some(ROOM));
    }
}
