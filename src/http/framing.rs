//! Where a message's body ends. The one place that decides it, for both directions (RFC 9112 §6).
//!
//! Two parsers that disagree about the end of a message are a smuggling hole, so whatever two could read in two ways is refused
//! here rather than repaired: Content-Length beside Transfer-Encoding, lengths that differ, codings other than exactly `chunked`.
//! The gateway then writes one canonical framing of its own ([`crate::http::encode`]), made from the [`Framing`] decided here.
//!
//! It does not read bodies; that is [`crate::http::body`].

use super::Version;
use super::text::{is_token, list, number, trim};
use crate::error::ProxyError;
use http::{Method, StatusCode};

/// A length that every peer can hold: many parse into a signed 64-bit integer.
const CONTENT_LENGTH_MAX: u64 = i64::MAX as u64;

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body, and no field says so: a request without length, a response that cannot have content.
    None,
    /// Exactly this many bytes follow; may be 0.
    Fixed(u64),
    /// Chunks, the last of which is empty (RFC 9112 §7.1).
    Chunked,
    /// Until the sender closes. Responses only.
    UntilClose,
    /// DATA frames, up to the end of a stream (RFC 9113 §8.1): how every body goes down to a client of HTTP/2. Only ever sent.
    Streamed,
}

impl Framing {
    /// Whether no byte of a body follows the head.
    #[must_use]
    pub fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Fixed(0))
    }

    /// Whether the head alone tells that the body is larger than `bytes_max`: 413 before a byte of it is read.
    #[must_use]
    pub fn exceeds(self, bytes_max: u64) -> bool {
        matches!(self, Self::Fixed(bytes) if bytes > bytes_max)
    }

    /// How a response body of this framing is sent on to a client of `version`. What has no length is chunked, so that a client
    /// can tell its end from a broken connection; HTTP/1.0 knows no chunks, so there the end is the connection's (RFC 9112 §6.3).
    #[must_use]
    pub fn for_downstream(self, version: Version) -> Self {
        match (self, version) {
            (Self::Chunked | Self::UntilClose | Self::Streamed, Version::Http11) => Self::Chunked,
            (Self::Chunked | Self::UntilClose | Self::Streamed, Version::Http10) => Self::UntilClose,
            (framing, Version::Http2) if !framing.is_empty() => Self::Streamed,
            (fixed, _) => fixed,
        }
    }
}

/// What the Transfer-Encoding fields of a head amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Coding {
    #[default]
    Absent,
    /// Exactly one element, exactly `chunked`.
    Chunked,
    /// `chunked` comes last, after codings that the gateway does not undo.
    Unsupported,
    /// `chunked` missing, repeated or not last; empty; not a list of tokens.
    Faulty,
}

/// What the Content-Length fields of a head amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Length {
    #[default]
    Absent,
    Bytes(u64),
    /// Not a number, or numbers that differ.
    Faulty,
}

/// Collects the fields that decide about length while a head is read, then decides.
#[derive(Clone, Copy, Debug, Default)]
pub struct LengthFields {
    coding: Coding,
    length: Length,
}

impl LengthFields {
    /// One Content-Length field. A list of the same number, or the field repeated, is that number (RFC 9110 §8.6); signs, blanks
    /// inside, empty elements, anything but digits, and more than 2⁶³ − 1 are faulty.
    pub fn note_content_length(&mut self, value: &[u8]) {
        if self.length == Length::Absent
            && let Some(bytes) = number(value, CONTENT_LENGTH_MAX)
        {
            self.length = Length::Bytes(bytes);
            return;
        }
        for element in value.split(|&b| b == b',') {
            let found = number(trim(element), CONTENT_LENGTH_MAX).map_or(Length::Faulty, Length::Bytes);
            self.length = match self.length {
                Length::Absent => found,
                known if known == found => known,
                _ => Length::Faulty,
            };
        }
    }

    /// One Transfer-Encoding field (RFC 9112 §6.1). A second one is faulty whatever it says: no honest sender splits this list.
    pub fn note_transfer_encoding(&mut self, value: &[u8]) {
        self.coding = match self.coding {
            Coding::Absent => coding(value),
            _ => Coding::Faulty,
        };
    }

    /// The Content-Length, when there is exactly one meaning of it.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        match self.length {
            Length::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// How the body of a request ends.
    ///
    /// # Errors
    /// [`ProxyError::BadRequest`] when two parsers could disagree; [`ProxyError::NotImplemented`] for a transfer coding that the
    /// gateway does not know. The connection must be closed after either.
    pub fn request(&self, version: Version) -> Result<Framing, ProxyError> {
        match (self.coding, self.length) {
            (Coding::Absent, Length::Absent) => Ok(Framing::None), // RFC 9112 §6.3 item 7
            (Coding::Absent, Length::Bytes(bytes)) => Ok(Framing::Fixed(bytes)), // item 6
            (Coding::Absent, Length::Faulty) => Err(ProxyError::BadRequest), // item 5
            (_, Length::Bytes(_) | Length::Faulty) => Err(ProxyError::BadRequest), // item 3: an attempt to smuggle
            (_, Length::Absent) if version == Version::Http10 => Err(ProxyError::BadRequest), // §6.1: faulty framing
            (Coding::Chunked, Length::Absent) => Ok(Framing::Chunked), // item 4
            (Coding::Unsupported, Length::Absent) => Err(ProxyError::NotImplemented), // §6.1
            (Coding::Faulty, Length::Absent) => Err(ProxyError::BadRequest), // item 4: length cannot be determined
        }
    }

    /// How the body of a response to `method` ends, and whether its head was honest about it: after one that announced a body
    /// which it must not have, the connection cannot be trusted to hold nothing more.
    ///
    /// # Errors
    /// [`ProxyError::UpstreamProtocol`] when two parsers could disagree.
    pub fn response(
        &self,
        version: Version,
        status: StatusCode,
        method: &Method,
    ) -> Result<(Framing, bool), ProxyError> {
        if status.is_informational() || status == StatusCode::NO_CONTENT {
            // RFC 9112 §6.3 item 1; neither field may be there (§6.1, RFC 9110 §8.6)
            let honest = self.coding == Coding::Absent && matches!(self.length, Length::Absent | Length::Bytes(0));
            return Ok((Framing::None, honest));
        }
        if self.length == Length::Faulty || (self.coding != Coding::Absent && self.length != Length::Absent) {
            return Err(ProxyError::UpstreamProtocol); // items 3 and 5
        }
        if self.coding != Coding::Absent && version == Version::Http10 {
            return Err(ProxyError::UpstreamProtocol); // §6.1: faulty framing
        }
        if method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
            return Ok((Framing::None, true)); // item 1: what they say is about another response
        }
        match (self.coding, self.length) {
            (Coding::Chunked, _) => Ok((Framing::Chunked, true)),
            (Coding::Absent, Length::Bytes(bytes)) => Ok((Framing::Fixed(bytes), true)),
            (Coding::Absent, _) => Ok((Framing::UntilClose, true)), // item 8
            _ => Err(ProxyError::UpstreamProtocol), // a coding that was not asked for (RFC 9110 §10.1.4)
        }
    }
}

fn coding(value: &[u8]) -> Coding {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Coding::Chunked;
    }
    let is_chunked = |element: &[u8]| element.eq_ignore_ascii_case(b"chunked");
    // an empty element (", chunked") is legal in a list and common in attacks: it is faulty unless other codings stand there too
    let mut others = list(value).rev().skip(1).peekable();
    let has_others = others.peek().is_some();
    let is_chunked_last = list(value).next_back().is_some_and(is_chunked);
    if is_chunked_last && has_others && others.all(|element| is_token(element) && !is_chunked(element)) {
        Coding::Unsupported
    } else {
        Coding::Faulty
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lengths: &[&str], codings: &[&str]) -> LengthFields {
        let mut fields = LengthFields::default();
        lengths.iter().for_each(|value| fields.note_content_length(value.as_bytes()));
        codings.iter().for_each(|value| fields.note_transfer_encoding(value.as_bytes()));
        fields
    }

    #[test]
    fn a_request_has_one_framing_or_none() {
        let decide = |lengths: &[&str], codings: &[&str]| fields(lengths, codings).request(Version::Http11);
        assert_eq!(decide(&[], &[]), Ok(Framing::None));
        assert_eq!(decide(&["0"], &[]), Ok(Framing::Fixed(0)));
        assert_eq!(decide(&["7", "7,7"], &[]), Ok(Framing::Fixed(7)));
        assert_eq!(decide(&[], &["chunked"]), Ok(Framing::Chunked));
        assert_eq!(decide(&[], &["gzip, br, chunked"]), Err(ProxyError::NotImplemented));
        assert_eq!(decide(&[], &["chunked, gzip, chunked"]), Err(ProxyError::BadRequest));
        assert_eq!(decide(&[], &["gzip", "chunked"]), Err(ProxyError::BadRequest));
        assert_eq!(decide(&["7"], &["chunked"]), Err(ProxyError::BadRequest));
        assert_eq!(decide(&["7"], &["gzip, chunked"]), Err(ProxyError::BadRequest));
        assert_eq!(fields(&[], &["chunked"]).request(Version::Http10), Err(ProxyError::BadRequest));
    }

    #[test]
    fn responses_without_content_have_none_whatever_they_say() {
        let none = |status: u16, method: &Method| {
            fields(&["5"], &[]).response(Version::Http11, StatusCode::from_u16(status).unwrap(), method)
        };
        assert_eq!(none(100, &Method::GET), Ok((Framing::None, false)));
        assert_eq!(none(204, &Method::GET), Ok((Framing::None, false)));
        assert_eq!(none(304, &Method::GET), Ok((Framing::None, true)));
        assert_eq!(none(200, &Method::HEAD), Ok((Framing::None, true)));
        assert_eq!(none(205, &Method::GET), Ok((Framing::Fixed(5), true)));
    }

    #[test]
    fn only_what_has_no_length_changes_on_its_way_down() {
        for version in [Version::Http10, Version::Http11] {
            for framing in [Framing::None, Framing::Fixed(0), Framing::Fixed(9)] {
                assert_eq!(framing.for_downstream(version), framing);
            }
        }
        for framing in [Framing::Chunked, Framing::UntilClose] {
            assert_eq!(framing.for_downstream(Version::Http11), Framing::Chunked);
            assert_eq!(framing.for_downstream(Version::Http10), Framing::UntilClose);
        }
    }
}
