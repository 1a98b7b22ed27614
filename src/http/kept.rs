//! A request's head that is looked at again: what a parse has found, kept without the bytes.
//!
//! A head is routed on when it arrives and encoded when an endpoint is known, and between the two there may be a wait. So what the parse has
//! found is kept as places in the bytes, which stay where they are, and a [`RequestHead`] is made of both again where one is wanted
//! ([`KeptHead::view`]). That costs no second parse: the field table is in offsets already. Of the bytes only the target and the authority are
//! copied, which are short: what was found to be text need not be checked for it again.

use super::fields::{Fields, HeadScratch, Seen};
use super::framing::Framing;
use super::h2::section::Section;
use super::head::{HeadPolicy, RequestHead};
use super::{Parsed, Version};
use crate::error::{ProxyError, Rule};
use http::Method;
use std::ops::Range;

/// A head without its bytes. Made once and filled again and again: it keeps its room.
#[derive(Debug, Default)]
pub struct KeptHead {
    scratch: HeadScratch,
    target: String,
    authority: String,
    parts: Option<Parts>,
}

/// Where a part of the bytes stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: u32,
    len: u32,
}

impl Span {
    /// Where `part` stands in `whole`, if it does.
    fn find(whole: &[u8], part: &[u8]) -> Option<Self> {
        let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
        (start + part.len() <= whole.len()).then_some(Self { start: start as u32, len: part.len() as u32 })
    }

    fn range(self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }
}

/// Where a text of a head stands that may have been rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In what it was found in: the target, or the authority.
    Sent(Span),
    /// In the room that is kept for it.
    Rewritten,
    /// Nowhere: it is `*`, or the `/` of a target without a path.
    Fixed(&'static str),
}

/// What a parse has found.
#[derive(Clone, Debug)]
struct Parts {
    method: Method,
    version: Version,
    path: Place,
    /// `None`: the same as the path.
    routed_path: Option<Place>,
    query: Option<Span>,
    has_authority: bool,
    host: Option<Place>,
    seen: Seen<'static>,
    /// The value of `Upgrade`.
    upgrade: Option<Span>,
    framing: Framing,
    len: u32,
}

impl KeptHead {
    /// Parses the head at the front of `buf`, as [`RequestHead::parse`] does; true when it is whole, and kept.
    ///
    /// # Errors
    /// Those of [`RequestHead::parse`].
    pub fn parse(&mut self, buf: &[u8], policy: &HeadPolicy) -> Result<bool, ProxyError> {
        self.parts = match RequestHead::parse(buf, policy, &mut self.scratch)? {
            Parsed::Partial => None,
            Parsed::Complete(head) => Parts::of(&head, &mut self.target, &mut self.authority),
        };
        Ok(self.parts.is_some())
    }

    /// Keeps the head that a section holds ([`RequestHead::of_section`]), whose lines the caller keeps ([`Section::lines`]).
    ///
    /// # Errors
    /// Those of [`RequestHead::of_section`].
    pub fn take(&mut self, section: &mut Section, ended: bool, policy: &HeadPolicy) -> Result<(), ProxyError> {
        self.parts = None;
        let head = RequestHead::of_section(section, ended, policy, &mut self.scratch)?;
        self.parts = Parts::of(&head, &mut self.target, &mut self.authority);
        if self.parts.is_none() {
            return Err(ProxyError::Internal);
        }
        section.swap_table(&mut self.scratch.fields);
        Ok(())
    }

    /// The head again. `buf` begins with the bytes that were parsed.
    ///
    /// # Panics
    /// There is none, or these are not its bytes.
    #[must_use]
    pub fn view<'b>(&'b self, buf: &'b [u8]) -> RequestHead<'b> {
        self.try_view(buf).expect("the bytes that were parsed")
    }

    fn try_view<'b>(&'b self, buf: &'b [u8]) -> Option<RequestHead<'b>> {
        let HeadScratch { fields, path, merged, host, .. } = &self.scratch;
        let parts = self.parts.as_ref()?;
        let buf = buf.get(..parts.len as usize)?;
        let target = self.target.as_str();
        let authority = parts.has_authority.then_some(self.authority.as_str());
        let of = |place: Place, sent: &'b str, rewritten: &'b str| match place {
            Place::Sent(span) => sent.get(span.range()),
            Place::Rewritten => Some(rewritten),
            Place::Fixed(text) => Some(text),
        };
        let path = of(parts.path, target, path)?;
        let upgrade = parts.upgrade.map(|span| &buf[span.range()]);
        Some(RequestHead {
            method: parts.method.clone(),
            version: parts.version,
            target,
            path,
            routed_path: parts.routed_path.map_or(Some(path), |place| of(place, target, merged))?,
            query: parts.query.and_then(|span| target.get(span.range())),
            host: parts.host.and_then(|place| of(place, authority?, host)),
            authority,
            fields: Fields { buf, table: fields },
            seen: Seen { upgrade, ..parts.seen },
            framing: parts.framing,
            len: buf.len(),
        })
    }

    /// Bytes of the head that is kept; 0: none is.
    #[must_use]
    pub fn head_bytes(&self) -> usize {
        self.parts.as_ref().map_or(0, |parts| parts.len as usize)
    }

    /// How the body ends of the head that is kept.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.parts.as_ref().map_or(Framing::None, |parts| parts.framing)
    }

    /// The rule that the last head has broken; see [`HeadScratch::broken_rule`].
    #[must_use]
    pub fn broken_rule(&self) -> Option<Rule> {
        self.scratch.broken_rule()
    }

    /// Bytes that its room takes.
    #[must_use]
    pub fn room_bytes(&self) -> usize {
        self.scratch.room_bytes() + self.target.capacity() + self.authority.capacity()
    }
}

impl Parts {
    /// The parts of a head that was just parsed, whose texts are copied. `None` only of a head of more than 4 GiB, which none is.
    fn of(head: &RequestHead<'_>, target: &mut String, authority: &mut String) -> Option<Self> {
        let buf = head.fields.buf;
        for (kept, text) in [(target, head.target), (authority, head.authority.unwrap_or_default())] {
            kept.clear();
            kept.push_str(text);
        }
        let place = |text: &str, whole: &str| match (text, Span::find(whole.as_bytes(), text.as_bytes())) {
            (_, Some(span)) => Place::Sent(span),
            ("*", None) => Place::Fixed("*"),
            ("/", None) => Place::Fixed("/"),
            (_, None) => Place::Rewritten,
        };
        let is_merged = head.routed_path.as_ptr() != head.path.as_ptr() || head.routed_path.len() != head.path.len();
        let in_buf = |part: &[u8]| Span::find(buf, part);
        Some(Self {
            method: head.method.clone(),
            version: head.version,
            path: place(head.path, head.target),
            routed_path: is_merged.then(|| place(head.routed_path, head.target)),
            query: head.query.and_then(|query| Span::find(head.target.as_bytes(), query.as_bytes())),
            has_authority: head.authority.is_some(),
            host: head.host.map(|host| place(host, head.authority.unwrap_or_default())),
            seen: head.seen.without_texts(),
            upgrade: head.seen.upgrade.and_then(in_buf),
            framing: head.framing,
            len: u32::try_from(head.len).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_was_kept_is_the_one_that_was_parsed() {
        for (text, policy) in [
            ("GET /a?b=c HTTP/1.1\r\nHost: a.example:80\r\nX: 1\r\n\r\n", HeadPolicy::default()),
            (
                "\r\nPOST http://A.Example/%7Ea//b/../c?q HTTP/1.1\r\nHost: A.example\r\nContent-Length: 3\r\n\r\n",
                HeadPolicy::default(),
            ),
            ("OPTIONS * HTTP/1.1\r\nHost: [2001:DB8::1]:8080\r\nMax-Forwards: 2\r\n\r\n", HeadPolicy::default()),
            (
                "GET /chat HTTP/1.1\r\nHost: a.\r\nConnection: upgrade, x\r\nX: 1\r\nUpgrade: websocket\r\n\r\n",
                HeadPolicy::default(),
            ),
            ("GET / HTTP/1.0\r\n\r\n", HeadPolicy::default()),
            ("GET http://a?b HTTP/1.1\r\nHost: a\r\n\r\n", HeadPolicy::default()),
            ("GET // HTTP/1.1\r\nHost: a\r\n\r\n", HeadPolicy::default()),
            ("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n", HeadPolicy::default()),
            (
                "GET /? HTTP/1.7\r\nHost: a\r\nTE: trailers\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n",
                HeadPolicy::default(),
            ),
            (
                "BREW //pot//x HTTP/1.1\r\nHost: a\r\n\r\n",
                HeadPolicy { empty: super::super::path::EmptySegments::Merge, ..HeadPolicy::default() },
            ),
            ("GET //pot//x HTTP/1.1\r\nHost: a\r\n\r\n", HeadPolicy::default()),
        ] {
            let mut buf = text.as_bytes().to_vec();
            buf.extend_from_slice(b"behind");
            let (mut kept, mut scratch) = (KeptHead::default(), HeadScratch::default());
            assert!(kept.parse(&buf, &policy).unwrap(), "{text}");
            assert_eq!(kept.head_bytes(), text.len());
            let Ok(Parsed::Complete(parsed)) = RequestHead::parse(&buf, &policy, &mut scratch) else {
                panic!("{text}")
            };
            // the bytes may have moved meanwhile
            let moved = buf.clone();
            let viewed = kept.view(&moved);
            let said = |head: &RequestHead<'_>| {
                let fields: Vec<_> = head.fields().iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
                let facts = (head.framing(), head.is_persistent(), head.expects_continue(), head.accepts_trailers());
                let texts = format!(
                    "{} {:?} {} {} {} {:?} {:?} {:?} {:?} {}",
                    head.method(),
                    head.version(),
                    head.target(),
                    head.path(),
                    head.routed_path(),
                    head.query(),
                    head.host(),
                    head.authority(),
                    head.upgrade(),
                    head.head_bytes(),
                );
                (fields, facts, texts)
            };
            assert_eq!(said(&viewed), said(&parsed), "{text}");
        }
    }

    #[test]
    fn what_is_not_whole_or_not_a_head_is_not_kept() {
        let (mut kept, policy) = (KeptHead::default(), HeadPolicy::default());
        assert!(kept.parse(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &policy).unwrap());
        assert!(!kept.parse(b"GET / HTTP/1.1\r\nHost: a\r\n", &policy).unwrap());
        assert_eq!(kept.head_bytes(), 0, "and not the one before either");
        assert_eq!(kept.parse(b"GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n", &policy), Err(ProxyError::BadRequest));
        assert_eq!(kept.broken_rule(), Some(Rule::LineEnd));
    }
}
