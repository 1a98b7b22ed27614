//! A request as it goes to an endpoint: what the line writes for HTTP/1.1, read again and made into frames.
//!
//! The line writes one form of a request, whatever the endpoint speaks, so it can send the same bytes again wherever it turns to. Here they
//! become a header block, payload, and trailers. They are this gateway's own words ([`crate::http::encode`], [`crate::http::body`]): so a line is never cut
//! in two, and what cannot be read is a defect, of which nothing is sent. Nothing of what is read is changed, because it may be read again.
//!
//! Source: RFC 9113 §8.2.2, §8.3.1; RFC 9112 §7.1.

use super::encoder::{push_field, push_method, push_scheme};
use crate::http::text::trim;
use crate::http::websocket::{self, Accept};

/// What is at the front of what was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A head, which is written as a header block.
    Head {
        /// Its bytes.
        consumed: usize,
        /// Nothing follows.
        ended: bool,
        /// The method is HEAD.
        is_head: bool,
        /// It became an extended CONNECT, and this is how its client's key is answered if that is taken up.
        accept: Option<Accept>,
    },
    /// Payload, of which the caller says how much was taken ([`Upward::taken`]).
    Data {
        /// Bytes of it, at least 1.
        len: usize,
        /// Nothing follows.
        ended: bool,
    },
    /// The end of a body; trailers, if any, are written as a header block.
    End {
        /// Its bytes.
        consumed: usize,
        /// There are some.
        has_trailers: bool,
    },
    /// Bytes of the coding that say nothing.
    Coding {
        /// How many.
        consumed: usize,
    },
    /// Nothing is to be had yet.
    Nothing,
}

/// Not what the line writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// What a request needs to know of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// It is encrypted.
    pub is_secure: bool,
    /// Its endpoint takes extended CONNECT (RFC 8441).
    pub connects: bool,
}

/// How far a request was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Upward {
    /// Nothing of it.
    #[default]
    Begins,
    /// So much of a body of known length is to come.
    Fixed(u64),
    /// A chunk begins.
    BetweenChunks,
    /// So much of a chunk is to come, and CRLF.
    InChunk(u64),
    /// All of it.
    Ended,
}

impl Upward {
    /// Reads what is at the front of `bytes`; header blocks are appended to `block`. The offer of a WebSocket becomes an extended CONNECT
    /// where the endpoint takes that (`terms.connects`), and any other offer is left out, as may be done with all (RFC 9110 §7.8).
    ///
    /// # Errors
    /// [`Unreadable`]: the stream is to be reset.
    pub fn next(&mut self, bytes: &[u8], terms: Terms, block: &mut Vec<u8>) -> Result<Step, Unreadable> {
        match *self {
            _ if bytes.is_empty() => Ok(Step::Nothing),
            Self::Begins => self.head(bytes, terms, block),
            Self::Fixed(left) => {
                let len = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                Ok(Step::Data { len, ended: len as u64 == left })
            }
            Self::BetweenChunks => self.chunk(bytes, block),
            Self::InChunk(0) => {
                let rest = bytes.strip_prefix(b"\r\n").ok_or(Unreadable)?;
                *self = Self::BetweenChunks;
                Ok(Step::Coding { consumed: bytes.len() - rest.len() })
            }
            Self::InChunk(left) => {
                let len = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                Ok(Step::Data { len, ended: false })
            }
            Self::Ended => Err(Unreadable),
        }
    }

    /// So much payload was taken.
    pub fn taken(&mut self, bytes: usize) {
        match self {
            Self::Fixed(left) => {
                *left -= bytes as u64;
                if *left == 0 {
                    *self = Self::Ended;
                }
            }
            Self::InChunk(left) => *left -= bytes as u64,
            _ => {}
        }
    }

    /// Whether all of it was read.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        *self == Self::Ended
    }

    fn head(&mut self, bytes: &[u8], terms: Terms, block: &mut Vec<u8>) -> Result<Step, Unreadable> {
        let consumed = memchr::memmem::find(bytes, b"\r\n\r\n").ok_or(Unreadable)? + 4;
        let mut lines = bytes[..consumed - 2].split(|&byte| byte == b'\n').map(without_cr);
        let mut words = lines.next().ok_or(Unreadable)?.split(|&byte| byte == b' ');
        let (Some(method), Some(path)) = (words.next(), words.next()) else { return Err(Unreadable) };
        let authority = lines.clone().find_map(|line| value_of(line, b"host")).unwrap_or_default();
        let offer = lines.clone().find_map(|line| value_of(line, b"upgrade")).filter(|_| terms.connects);
        let key = lines.clone().find_map(|line| value_of(line, websocket::KEY.as_bytes()));
        let key = key.filter(|_| offer.is_some_and(|offer| offer.eq_ignore_ascii_case(websocket::PROTOCOL)));
        push_method(block, if key.is_some() { b"CONNECT" } else { method });
        if key.is_some() {
            push_field(block, b":protocol", websocket::PROTOCOL, false);
        }
        push_scheme(block, terms.is_secure);
        push_field(block, b":authority", authority, false);
        push_field(block, b":path", path, false);
        // what goes up a tunnel comes in chunks, so that its end can be seen
        *self = if key.is_some() { Self::BetweenChunks } else { Self::Ended };
        for line in lines {
            let Some(colon) = memchr::memchr(b':', line) else { continue };
            let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
            if name.eq_ignore_ascii_case(b"transfer-encoding") {
                *self = Self::BetweenChunks;
            } else if name.eq_ignore_ascii_case(b"content-length") {
                let bytes = str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or(Unreadable)?;
                *self = if bytes == 0 { Self::Ended } else { Self::Fixed(bytes) };
            }
            let is_key = key.is_some() && name.eq_ignore_ascii_case(websocket::KEY.as_bytes());
            if !is_of_connection(name) && !is_key {
                push_field(block, name, value, name.eq_ignore_ascii_case(b"authorization"));
            }
        }
        let accept = key.map(websocket::accept);
        Ok(Step::Head { consumed, ended: self.is_ended(), is_head: method == b"HEAD", accept })
    }

    fn chunk(&mut self, bytes: &[u8], block: &mut Vec<u8>) -> Result<Step, Unreadable> {
        let end = memchr::memmem::find(bytes, b"\r\n").ok_or(Unreadable)?;
        let size = str::from_utf8(&bytes[..end]).ok().and_then(|text| u64::from_str_radix(text, 16).ok());
        let (size, skipped) = (size.ok_or(Unreadable)?, end + 2);
        if size > 0 {
            *self = Self::InChunk(size);
            return Ok(Step::Coding { consumed: skipped });
        }
        *self = Self::Ended;
        let lines = &bytes[skipped..];
        let mut has_trailers = false;
        for line in lines.split(|&byte| byte == b'\n').map(without_cr) {
            if let Some(colon) = memchr::memchr(b':', line) {
                push_field(block, &line[..colon], trim(&line[colon + 1..]), false);
                has_trailers = true;
            }
        }
        Ok(Step::End { consumed: bytes.len(), has_trailers })
    }
}

/// Fields that are about a connection of HTTP/1.1 (RFC 9113 §8.2.2). `TE` may stand, and says only `trailers` here.
fn is_of_connection(name: &[u8]) -> bool {
    let names: [&[u8]; 6] =
        [b"host", b"connection", b"transfer-encoding", b"upgrade", b"keep-alive", b"proxy-connection"];
    names.iter().any(|other| name.eq_ignore_ascii_case(other))
}

fn value_of<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let colon = memchr::memchr(b':', line)?;
    line[..colon].eq_ignore_ascii_case(name).then(|| trim(&line[colon + 1..]))
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}
