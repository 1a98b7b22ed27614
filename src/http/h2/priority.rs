//! How urgent a response is (RFC 9218): what a `priority` field says, and what holds for a stream.
//!
//! A client says it with its request, or later by a frame (PRIORITY_UPDATE, §7.1), which may come before the request does; a service may know
//! better and say so with its response (§8). What nobody has said anything about is of urgency 3 and not incremental (§4).
//!
//! The field is a dictionary (RFC 9651 §3.2) of which two members are known here. Its syntax is looked at as far as those need it: between
//! commas that are in no string and no list, and a member that is no `u` or `i` as it should be says nothing.

/// How urgent, and how, a response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priority {
    /// 0, the most, to 7.
    pub urgency: u8,
    /// It is of use before all of it is there, so it may share the way with others.
    pub is_incremental: bool,
}

impl Default for Priority {
    /// RFC 9218 §4.1, §4.2
    fn default() -> Self {
        Self { urgency: 3, is_incremental: false }
    }
}

impl Priority {
    /// The same where `signal` says nothing else (RFC 9218 §8).
    #[must_use]
    pub fn with(self, signal: Signal) -> Self {
        Self {
            urgency: signal.urgency.unwrap_or(self.urgency),
            is_incremental: signal.is_incremental.unwrap_or(self.is_incremental),
        }
    }
}

/// What a field says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signal {
    /// `u`, 0 to 7.
    pub urgency: Option<u8>,
    /// `i`
    pub is_incremental: Option<bool>,
}

impl Signal {
    /// Reads a field's value, of any length.
    #[must_use]
    pub fn parse(value: &[u8]) -> Self {
        let mut signal = Self::default();
        let mut rest = value;
        while !rest.is_empty() {
            let (member, behind) = rest.split_at(member_end(rest));
            signal.take(member.trim_ascii());
            rest = behind.get(1..).unwrap_or_default();
        }
        signal
    }

    /// The same where a later line of the field says nothing else.
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        Self { urgency: later.urgency.or(self.urgency), is_incremental: later.is_incremental.or(self.is_incremental) }
    }

    /// A member, whose parameters say nothing.
    fn take(&mut self, member: &[u8]) {
        let member = member.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii_end();
        match member {
            b"i" | b"i=?1" => self.is_incremental = Some(true),
            b"i=?0" => self.is_incremental = Some(false),
            [b'u', b'=', urgency @ b'0'..=b'7'] => self.urgency = Some(urgency - b'0'),
            _ => {}
        }
    }
}

/// Where the first member ends.
fn member_end(bytes: &[u8]) -> usize {
    let (mut is_quoted, mut is_escaped, mut depth) = (false, false, 0_usize);
    let is_end = |&byte: &u8| {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            _ if is_quoted => {}
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b',' => return depth == 0,
            _ => {}
        }
        false
    };
    bytes.iter().position(is_end).unwrap_or(bytes.len())
}

/// Streams that have not begun of which a connection knows something.
const EARLY_KEPT: usize = 16;

/// What was said of streams before they have begun; the latest of it.
#[derive(Debug, Default)]
pub(super) struct Early {
    said: [(u32, Priority); EARLY_KEPT],
    next: usize,
}

impl Early {
    /// Notes what a stream will be; what was said longest ago gives way.
    pub(super) fn note(&mut self, id: u32, priority: Priority) {
        let known = self.said.iter().position(|&(other, _)| other == id);
        let place = known.unwrap_or(self.next);
        self.said[place] = (id, priority);
        if known.is_none() {
            self.next = (self.next + 1) % EARLY_KEPT;
        }
    }

    /// Whether nothing is known of streams that have not begun.
    pub(super) fn is_empty(&self) -> bool {
        self.said.iter().all(|&(id, _)| id == 0)
    }

    /// Forgets what was said of a stream, and tells it.
    pub(super) fn take(&mut self, id: u32) -> Option<Priority> {
        let place = self.said.iter().position(|&(other, _)| other == id)?;
        Some(std::mem::take(&mut self.said[place]).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_say_what_stands_in_them() {
        for (value, urgency, is_incremental) in [
            ("", None, None),
            ("u=0", Some(0), None),
            ("u=7, i", Some(7), Some(true)),
            ("i,u=1", Some(1), Some(true)),
            ("i=?0 , \tu=5", Some(5), Some(false)),
            ("i=?1", None, Some(true)),
            ("u=2;q=9, i;x=\"a,u=6\"", Some(2), Some(true)),
            ("u=1, u=6", Some(6), None),
            ("u=8", None, None),
            ("u=-1", None, None),
            ("u=1.0", None, None),
            ("u=10", None, None),
            ("u", None, None),
            ("U=1", None, None),
            ("i=1", None, None),
            ("i=true", None, None),
            ("ui=1, iu=2", None, None),
            ("a=\"u=1, i\"", None, None),
            ("a=\"\\\", u=1\", u=4", Some(4), None),
            ("a=(u=1, i), u=2", Some(2), None),
            ("a=(1, u=3", None, None),
            (",,,", None, None),
            ("u=3,", Some(3), None),
            ("\u{ff},u=4", Some(4), None),
        ] {
            assert_eq!(Signal::parse(value.as_bytes()), Signal { urgency, is_incremental }, "{value}");
        }
    }

    #[test]
    fn what_a_service_says_counts_as_far_as_it_says_it() {
        let client = Priority::default().with(Signal::parse(b"u=5, i"));
        assert_eq!(client, Priority { urgency: 5, is_incremental: true });
        assert_eq!(client.with(Signal::parse(b"u=1")), Priority { urgency: 1, is_incremental: true });
        assert_eq!(client.with(Signal::parse(b"i=?0")), Priority { urgency: 5, is_incremental: false });
        assert_eq!(Signal::parse(b"u=1").and(Signal::parse(b"i")), Signal::parse(b"u=1, i"));
    }

    #[test]
    fn what_is_said_early_is_kept_for_a_few_streams_and_told_once() {
        let mut early = Early::default();
        let urgent = |urgency| Priority { urgency, is_incremental: false };
        for id in 1..=EARLY_KEPT as u32 + 1 {
            early.note(id, urgent(1));
        }
        early.note(5, urgent(2));
        assert_eq!((early.take(1), early.take(2), early.take(5)), (None, Some(urgent(1)), Some(urgent(2))));
        assert_eq!(early.take(5), None);
    }
}
