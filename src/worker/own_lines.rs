//! Lines of a response that follow from its request: what pages of other origins may do (CORS), and headers that rules make of the request.
//!
//! The request's head is gone when the response comes, so they are written before that and go along. Most routes have none, and then nothing
//! is written and nothing kept.

use super::pacing::{Pace, Paces};

/// Whole lines, each with its end. A pointer, because it goes where a request does, and what that holds counts.
#[derive(Debug, Default)]
pub(super) struct OwnLines(Option<Box<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    /// So many bytes of them are also for errors of the gateway's own.
    of_errors: usize,
    /// What the request is called, where errors say so; behind the lines.
    id: usize,
    /// What its client calls us, where an endpoint's `Location` is made ours; behind that.
    authority: usize,
    /// Whose bytes it and its request are, where they are counted.
    paces: Paces,
}

/// Room beyond which a buffer is not kept for reuse.
const ROOM_KEPT_BYTES: usize = 4 << 10;

impl OwnLines {
    /// Empties it, and fills it: with what any response gets first, and with what errors do not get then.
    pub(super) fn fill(&mut self, of_errors: impl FnOnce(&mut Vec<u8>), others: impl FnOnce(&mut Vec<u8>)) {
        let lines = self.0.get_or_insert_default();
        lines.bytes.clear();
        of_errors(&mut lines.bytes);
        lines.of_errors = lines.bytes.len();
        others(&mut lines.bytes);
        lines.id = lines.bytes.len();
        lines.authority = lines.id;
        lines.paces = Paces::default();
    }

    /// Takes down whose bytes it and its request are.
    pub(super) fn pace(&mut self, paces: Paces) {
        self.0.get_or_insert_default().paces = paces;
    }

    /// Whose bytes the response is, where they are counted.
    pub(super) fn paced(&self) -> Option<&Pace> {
        self.0.as_ref()?.paces.down.as_ref()
    }

    /// Of both.
    pub(super) fn paces(&self) -> Paces {
        self.0.as_ref().map(|lines| lines.paces).unwrap_or_default()
    }

    /// Whose bytes the request is, where they are counted.
    pub(super) fn paced_up(&self) -> Option<&Pace> {
        self.0.as_ref()?.paces.up.as_ref()
    }

    /// Takes down what the request is called, behind the lines that there are.
    pub(super) fn name(&mut self, id: &[u8]) {
        let lines = self.0.get_or_insert_default();
        lines.bytes.truncate(lines.id);
        lines.bytes.extend_from_slice(id);
        lines.authority = lines.bytes.len();
    }

    /// Takes down what its client calls us, behind that.
    pub(super) fn call(&mut self, authority: &[u8]) {
        let lines = self.0.get_or_insert_default();
        lines.bytes.truncate(lines.authority);
        lines.bytes.extend_from_slice(authority);
    }

    /// What its client calls us, if that was taken down and is known.
    pub(super) fn authority(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |lines| &lines.bytes[lines.authority..])
    }

    /// What the request is called, if that was taken down.
    pub(super) fn id(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |lines| &lines.bytes[lines.id..lines.authority])
    }

    /// All of them.
    pub(super) fn all(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |lines| &lines.bytes[..lines.id])
    }

    /// Those for errors.
    pub(super) fn of_errors(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |lines| &lines.bytes[..lines.of_errors])
    }

    /// Whether there is a buffer worth keeping.
    pub(super) fn has_room(&self) -> bool {
        self.0.as_ref().is_some_and(|lines| (1..=ROOM_KEPT_BYTES).contains(&lines.bytes.capacity()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_get_the_first_part_and_a_buffer_is_used_again() {
        let mut lines = OwnLines::default();
        assert!(!lines.has_room() && lines.all().is_empty());
        lines.fill(|out| out.extend_from_slice(b"a: 1\r\n"), |out| out.extend_from_slice(b"b: 2\r\n"));
        assert_eq!((lines.all(), lines.of_errors()), (&b"a: 1\r\nb: 2\r\n"[..], &b"a: 1\r\n"[..]));
        lines.fill(|_| (), |out| out.extend_from_slice(b"c: 3\r\n"));
        assert_eq!((lines.all(), lines.of_errors()), (&b"c: 3\r\n"[..], &b""[..]));
        assert!(lines.has_room());
        lines.name(b"7");
        lines.call(b"a.example");
        assert_eq!((lines.all(), lines.id(), lines.authority()), (&b"c: 3\r\n"[..], &b"7"[..], &b"a.example"[..]));
        lines.name(b"8");
        assert_eq!((lines.id(), lines.authority()), (&b"8"[..], &b""[..]));
    }
}
