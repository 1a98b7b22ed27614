//! A header section as it is decoded: lines of `name: value CRLF`, and the table of fields that heads of HTTP/1.1 have.
//!
//! So routing, limits, header rules and the encoder for endpoints read it as they read any other head, and what it holds has been checked as
//! strictly. What is checked here is what makes a message malformed (RFC 9113 §8.1.1) whoever reads it: names and values, pseudo-fields that
//! come first, once, and complete, no fields about the connection. What it means is for [`super::request`].
//!
//! Bounds are checked *while* it is decoded, with 32 bytes for each field beyond its name and value (§6.5.2) and crumbs of cookies counted
//! one by one: a block of a few hundred one-byte indices must not become a megabyte. Beyond them nothing is stored any more, but decoding goes
//! on, because the decoder's table is the connection's.

use super::dynamic_table::FIELD_OVERHEAD;
use super::name::What;
use super::priority::Signal;
use crate::http::fields::{Field, Kind};
use crate::http::framing::LengthFields;
use crate::http::websocket;
use crate::limits::HEADERS_MAX;
use http::StatusCode;
use std::ops::Range;

/// Which sections a decoder is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// The head of a request.
    #[default]
    Request,
    /// The head of a response.
    Response,
    /// What comes behind a body.
    Trailers,
}

/// Why nothing can be made of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its message is malformed (RFC 9113 §8.1.1): the stream is reset.
    Malformed,
    /// It is larger, or has more fields, than is taken (RFC 6585 §5: 431).
    TooLarge,
}

/// How much of a section is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Names and values, and 32 bytes for each field.
    pub bytes_max: usize,
    /// Fields, at most [`HEADERS_MAX`]; pseudo-fields do not count.
    pub fields_max: usize,
}

/// Where a pseudo-field's value stands, if it was there.
type Span = Option<(u32, u32)>;

/// See the module. Kept by its owner from one message to the next: nothing is allocated once it has grown to the size of the traffic.
#[derive(Debug, Default)]
pub struct Section {
    pub(super) lines: Vec<u8>,
    pub(super) table: Vec<Field>,
    /// Fields that must not be put into a table on their next hop either, by their place in `table` (RFC 7541 §7.1.3).
    never_indexed: [u64; HEADERS_MAX / 64],
    role: Role,
    method: Span,
    scheme: Span,
    authority: Span,
    path: Span,
    status: Span,
    protocol: Span,
    fault: Option<Fault>,
    bytes: usize,
    fields: usize,
    /// Where the last field stands in `table` that is a cookie, and how many are.
    cookies: (usize, usize),
    /// A field with an underscore, by its place in `table`; what becomes of them is for a listener to say.
    pub(super) underscored: bool,
    pub(super) lengths: LengthFields,
    priority: Option<Signal>,
}

impl Section {
    /// Empties it for another section.
    pub fn clear(&mut self, role: Role) {
        let Self { lines, table, .. } = std::mem::take(self);
        *self = Self { lines, table, role, ..Self::default() };
        self.lines.clear();
        self.table.clear();
    }

    /// What is wrong with it.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// The length that it announces, if it announces one.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.lengths.content_length()
    }

    /// How urgent it says that its response is, if it says so (RFC 9218 §5).
    #[must_use]
    pub fn priority(&self) -> Option<Signal> {
        self.priority
    }

    /// Whether a field, by its place among all, must not be put into any table (RFC 7541 §7.1.3).
    #[must_use]
    pub fn is_never_indexed(&self, field: usize) -> bool {
        self.never_indexed.get(field / 64).is_some_and(|word| word >> (field % 64) & 1 == 1)
    }

    /// Bytes of memory that it holds.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.lines.capacity() + self.table.capacity() * size_of::<Field>()
    }

    /// Gives back what an unusually large message has made it grow to.
    pub fn trim(&mut self, bytes: usize) {
        if self.memory() > bytes {
            self.clear(Role::Request);
            (self.lines, self.table) = (Vec::new(), Vec::new());
        }
    }

    /// Appends what the request line would be in HTTP/1.1, for the log.
    pub fn push_request_line(&self, out: &mut Vec<u8>) {
        for part in [self.method(), self.path()] {
            out.extend_from_slice(part.unwrap_or_default());
            out.push(b' ');
        }
        out.extend_from_slice(b"HTTP/2.0\r\n");
    }

    pub(in crate::http) fn swap_table(&mut self, table: &mut Vec<Field>) {
        std::mem::swap(&mut self.table, table);
    }

    pub(super) fn method(&self) -> Option<&[u8]> {
        self.span(self.method)
    }

    pub(super) fn scheme(&self) -> Option<&[u8]> {
        self.span(self.scheme)
    }

    pub(super) fn authority(&self) -> Option<&[u8]> {
        self.span(self.authority)
    }

    pub(super) fn path(&self) -> Option<&[u8]> {
        self.span(self.path)
    }

    /// What an extended CONNECT would speak on its stream (RFC 8441 §4).
    #[must_use]
    pub fn protocol(&self) -> Option<&[u8]> {
        self.span(self.protocol)
    }

    /// Adds the key that an endpoint of HTTP/1.1 is to be shown by who has come by an extended CONNECT, unless there is one (RFC 8441 §5).
    pub fn add_websocket_key(&mut self, nonce: [u8; 16]) {
        let (lines, name) = (&self.lines, websocket::KEY.as_bytes());
        if self.fault.is_some() || self.table.iter().any(|field| field.name(lines) == name) {
            return;
        }
        let start = self.lines.len();
        self.lines.extend_from_slice(name);
        self.lines.extend_from_slice(b": ");
        let from = self.lines.len();
        self.lines.extend_from_slice(&websocket::key(nonce));
        let value = from..self.lines.len();
        self.lines.extend_from_slice(b"\r\n");
        self.push(start, value, Kind::Other, false);
    }

    /// The status of a response, 100 to 599 (RFC 9113 §8.3.2).
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        StatusCode::from_bytes(self.span(self.status)?).ok().filter(|status| status.as_u16() < 600)
    }

    /// The lines, `name: value CRLF`, pseudo-fields included: for the log and for tests. What is read of them is read from a head.
    #[must_use]
    pub fn lines(&self) -> &[u8] {
        &self.lines
    }

    fn span(&self, span: Span) -> Option<&[u8]> {
        span.map(|(start, end)| &self.lines[start as usize..end as usize])
    }

    /// Takes the line at the end of `lines`, which begins at `start`, and whose value is `value`.
    pub(super) fn take(
        &mut self,
        start: usize,
        value: Range<usize>,
        (what, never_indexed): (What, bool),
        bounds: &Bounds,
    ) {
        let name_len = value.start - 2 - start;
        self.bytes += name_len + value.len() + FIELD_OVERHEAD;
        let is_pseudo =
            matches!(what, What::Method | What::Scheme | What::Authority | What::Path | What::Status | What::Protocol);
        self.fields += usize::from(!is_pseudo);
        let is_large = self.bytes > bounds.bytes_max || name_len > usize::from(u16::MAX);
        if is_large || self.fields > bounds.fields_max.min(HEADERS_MAX) {
            // what is too large is answered, what is malformed is not
            self.fault.get_or_insert(Fault::TooLarge);
        }
        if self.fault != Some(Fault::Malformed) && !self.may_stand(what, is_pseudo) {
            self.fault = Some(Fault::Malformed);
        }
        if self.fault.is_some() {
            return self.lines.truncate(start);
        }
        match what {
            What::Method => self.method = span_of(&value),
            What::Scheme => self.scheme = span_of(&value),
            What::Authority => self.authority = span_of(&value),
            What::Path => self.path = span_of(&value),
            What::Status => self.status = span_of(&value),
            What::Protocol => self.protocol = span_of(&value),
            What::Cookie if self.role == Role::Request => self.take_crumb(start, value, never_indexed),
            What::Cookie => self.push(start, value, Kind::EndToEnd, never_indexed),
            What::Length => {
                self.lengths.note_content_length(&self.lines[value.clone()]);
                self.push(start, value, Kind::ContentLength, never_indexed);
            }
            What::Priority => {
                let signal = Signal::parse(&self.lines[value.clone()]);
                self.priority = Some(self.priority.unwrap_or_default().and(signal));
                self.push(start, value, Kind::Other, never_indexed);
            }
            What::Underscored(kind) => {
                self.underscored = true;
                self.push(start, value, kind, never_indexed);
            }
            What::Field(kind) => self.push(start, value, kind, never_indexed),
            What::Bad => {}
        }
    }

    /// Whether a field may stand where it does (RFC 9113 §8.3): pseudo-fields of this kind of message, before all others, once.
    fn may_stand(&self, what: What, is_pseudo: bool) -> bool {
        let known = match (self.role, what) {
            (_, What::Bad) => return false,
            (Role::Request, What::Method) => self.method,
            (Role::Request, What::Scheme) => self.scheme,
            (Role::Request, What::Authority) => self.authority,
            (Role::Request, What::Path) => self.path,
            (Role::Request, What::Protocol) => self.protocol,
            (Role::Response, What::Status) => self.status,
            _ if is_pseudo => return false,
            _ => return true,
        };
        known.is_none() && self.fields == 0
    }

    fn push(&mut self, start: usize, value: Range<usize>, kind: Kind, never_indexed: bool) {
        if never_indexed && let Some(word) = self.never_indexed.get_mut(self.table.len() / 64) {
            *word |= 1 << (self.table.len() % 64);
        }
        self.table.push(Field {
            name_start: start as u32,
            value_start: value.start as u32,
            value_len: value.len() as u32,
            name_len: (value.start - 2 - start) as u16,
            kind,
            canonical: true,
        });
    }

    /// Cookies that come in crumbs are one field for whoever reads them (RFC 9113 §8.2.3). One that follows another is put behind it; others
    /// are put together at the end.
    fn take_crumb(&mut self, start: usize, value: Range<usize>, never_indexed: bool) {
        let (last, count) = self.cookies;
        let follows = count > 0 && last + 1 == self.table.len();
        if !follows {
            self.cookies = (self.table.len(), count + 1);
            return self.push(start, value, Kind::EndToEnd, never_indexed);
        }
        // `a=b CRLF cookie: c=d CRLF` becomes `a=b; c=d CRLF`
        let (at, added) = (start - 2, value.len());
        self.lines[at..at + 2].copy_from_slice(b"; ");
        self.lines.copy_within(value, at + 2);
        self.lines.truncate(at + 2 + added);
        self.lines.extend_from_slice(b"\r\n");
        self.table[last].value_len += 2 + added as u32;
        if never_indexed && let Some(word) = self.never_indexed.get_mut(last / 64) {
            *word |= 1 << (last % 64);
        }
    }

    /// The section is over: puts together what belongs together, and sees that nothing is missing.
    pub(super) fn finish(&mut self) {
        let is_connect = self.method() == Some(b"CONNECT");
        let is_complete = match self.role {
            // RFC 8441 §4: all that another request has, and no other method
            Role::Request if self.protocol.is_some() => {
                is_connect
                    && self.authority.is_some()
                    && self.scheme.is_some()
                    && self.path().is_some_and(|p| !p.is_empty())
            }
            // RFC 9113 §8.5
            Role::Request if is_connect => self.authority.is_some() && self.scheme.is_none() && self.path.is_none(),
            Role::Request => {
                self.method.is_some() && self.scheme.is_some() && self.path().is_some_and(|p| !p.is_empty())
            }
            Role::Response => self.status().is_some(),
            Role::Trailers => true,
        };
        if !is_complete && self.fault.is_none() {
            self.fault = Some(Fault::Malformed);
        }
        if self.fault.is_none() && self.cookies.1 > 1 {
            self.join_cookies();
        }
    }

    fn join_cookies(&mut self) {
        let start = self.lines.len();
        let mut never_indexed = false;
        self.lines.extend_from_slice(b"cookie: ");
        let value_start = self.lines.len();
        for at in 0..self.table.len() {
            let field = self.table[at];
            if field.name(&self.lines) != b"cookie" {
                continue;
            }
            never_indexed |= self.is_never_indexed(at);
            if self.lines.len() > value_start {
                self.lines.extend_from_slice(b"; ");
            }
            let from = field.value_start as usize;
            self.lines.extend_from_within(from..from + field.value_len as usize);
            self.table[at].kind = Kind::Dropped;
        }
        let value = value_start..self.lines.len();
        self.lines.extend_from_slice(b"\r\n");
        self.push(start, value, Kind::EndToEnd, never_indexed);
    }
}

fn span_of(value: &Range<usize>) -> Span {
    Some((value.start as u32, value.end as u32))
}
