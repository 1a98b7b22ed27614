//! Bodies as they pass through: where the payload lies in what has arrived, and when it ends (RFC 9112 §6, §7.1).
//!
//! The relay reads into a block and asks [`Body::decode`] which of its bytes are payload. Chunks are decoded in place: the payload of all
//! chunks in the block is moved together, which costs nothing for the usual one chunk a read, and can go out as one canonical chunk:
//! [`frame_chunk`] writes the size line into the bytes before it and the CRLF behind. So a chunked body crosses the gateway without
//! being copied, and nothing of the sender's chunk lines gets through.
//!
//! It works on any split of the input, down to single bytes, and keeps no byte of it but trailers. It does not read and does not wait.

use super::framing::Framing;
use super::text::{is_token_byte, is_value_byte};
use super::trailers::Trailers;
use crate::error::ProxyError;
use crate::limits;
use std::ops::Range;

/// Room before the payload that [`frame_chunk`] may need: eight digits and CRLF. A read that may be sent as a chunk begins this far
/// into its block …
pub const CHUNK_HEADROOM: usize = 10;
/// … and leaves this much behind: CRLF and the last chunk.
pub const CHUNK_TAILROOM: usize = 2 + LAST_CHUNK.len();
/// The end of a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What can be wrong with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// Not the coding that its head promised, or beyond a limit of the coding itself.
    Malformed,
    /// More payload than is allowed.
    TooLarge,
    /// The connection ended before the body.
    Truncated,
}

impl BodyError {
    /// Seen on the body of a request.
    #[must_use]
    pub fn downstream(self) -> ProxyError {
        match self {
            Self::Malformed => ProxyError::BadRequest,
            Self::TooLarge => ProxyError::PayloadTooLarge,
            Self::Truncated => ProxyError::ClientClosed,
        }
    }

    /// Seen on the body of a response.
    #[must_use]
    pub fn upstream(self) -> ProxyError {
        match self {
            Self::Malformed | Self::TooLarge => ProxyError::UpstreamProtocol,
            Self::Truncated => ProxyError::UpstreamTruncated,
        }
    }
}

/// What [`Body::decode`] found; offsets into the block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The payload, in one piece; may be empty although bytes were consumed.
    pub payload: Range<usize>,
    /// Where the body's bytes end. Before `done` that is the end of what was filled; behind it, whatever follows the message.
    pub consumed: usize,
    /// The body is complete.
    pub done: bool,
}

/// A body in transit.
#[derive(Clone, Debug)]
pub struct Body {
    coding: Coding,
    /// Payload that may still come.
    allowed: u64,
}

#[derive(Clone, Debug)]
enum Coding {
    Fixed { left: u64 },
    Chunked(Chunks),
    UntilClose,
}

impl Body {
    /// A body of this framing whose payload may be `bytes_max` long (`u64::MAX`: no limit).
    #[must_use]
    pub fn new(framing: Framing, bytes_max: u64) -> Self {
        let coding = match framing {
            Framing::None => Coding::Fixed { left: 0 },
            Framing::Fixed(left) => Coding::Fixed { left },
            Framing::Chunked => Coding::Chunked(Chunks::default()),
            Framing::UntilClose | Framing::Streamed => Coding::UntilClose,
        };
        Self { coding, allowed: bytes_max }
    }

    /// Whether all of it was decoded. A body of no bytes is done at once; one until close never is.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match &self.coding {
            Coding::Fixed { left } => *left == 0,
            Coding::Chunked(chunks) => chunks.state == State::Done,
            Coding::UntilClose => false,
        }
    }

    /// Payload bytes still to come; `None` when the body does not say.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        match &self.coding {
            Coding::Fixed { left } => Some(*left),
            Coding::Chunked(chunks) => (chunks.state == State::Done).then_some(0),
            Coding::UntilClose => None,
        }
    }

    /// Takes the bytes `filled` of `block`, which follow those of the last call. May move payload within `filled`. Trailers are added to
    /// `trailers`, which are those of this body.
    ///
    /// # Errors
    /// [`BodyError::Malformed`], [`BodyError::TooLarge`]; after either the body, and its connection, are lost.
    pub fn decode(
        &mut self,
        block: &mut [u8],
        filled: Range<usize>,
        trailers: &mut Trailers,
    ) -> Result<Decoded, BodyError> {
        let decoded = match &mut self.coding {
            Coding::Fixed { left } => {
                let bytes = (filled.len() as u64).min(*left);
                *left -= bytes;
                let end = filled.start + bytes as usize;
                Decoded { payload: filled.start..end, consumed: end, done: *left == 0 }
            }
            Coding::Chunked(chunks) => chunks.decode(block, filled, self.allowed, trailers)?,
            Coding::UntilClose => Decoded { consumed: filled.end, payload: filled, done: false },
        };
        self.allowed = self.allowed.checked_sub(decoded.payload.len() as u64).ok_or(BodyError::TooLarge)?;
        Ok(decoded)
    }

    /// The sender closed its side.
    ///
    /// # Errors
    /// [`BodyError::Truncated`] unless the body was done or its end is the connection's (RFC 9112 §8).
    pub fn on_eof(&self) -> Result<(), BodyError> {
        match self.coding {
            Coding::UntilClose => Ok(()),
            _ if self.is_done() => Ok(()),
            _ => Err(BodyError::Truncated),
        }
    }
}

/// Where in the chunked coding the next byte stands (RFC 9112 §7.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// The first digit of a size.
    #[default]
    SizeStart,
    /// More digits.
    Size,
    /// Blanks before a `;` (BWS).
    Blank,
    /// The name of an extension.
    ExtensionStart,
    /// The rest of an extension.
    Extension,
    /// Inside a quoted value …
    Quoted,
    /// … behind its backslash.
    Escaped,
    /// The LF of a chunk line.
    SizeLf,
    /// Payload.
    Data,
    /// The CR behind the payload.
    DataCr,
    /// The LF behind the payload.
    DataLf,
    /// The trailer section.
    Trailer,
    /// Nothing: the body is over.
    Done,
}

/// Decoder of the chunked coding.
#[derive(Clone, Debug, Default)]
struct Chunks {
    state: State,
    /// Of the size that is being read, but for leading zeros.
    digits: u8,
    /// Of the chunk line that is being read, but for those.
    line_bytes: u16,
    /// Of the chunk that is being read.
    left: u64,
    /// Bytes of extensions and leading zeros that no payload has paid for.
    extension_bytes: u64,
}

impl Chunks {
    fn decode(
        &mut self,
        block: &mut [u8],
        filled: Range<usize>,
        allowed: u64,
        trailers: &mut Trailers,
    ) -> Result<Decoded, BodyError> {
        let mut payload = filled.start..filled.start;
        let mut at = filled.start;
        while at < filled.end && self.state != State::Done {
            if self.state != State::Data {
                self.take(block[at], allowed - payload.len() as u64, trailers)?;
                at += 1;
                continue;
            }
            let end = at + self.left.min((filled.end - at) as u64) as usize;
            self.left -= (end - at) as u64;
            if payload.is_empty() {
                payload = at..end;
            } else {
                block.copy_within(at..end, payload.end);
                payload.end += end - at;
            }
            if self.left == 0 {
                self.state = State::DataCr;
            }
            at = end;
        }
        Ok(Decoded { payload, consumed: at, done: self.state == State::Done })
    }

    /// One byte that is not payload.
    fn take(&mut self, byte: u8, allowed: u64, trailers: &mut Trailers) -> Result<(), BodyError> {
        self.state = match (self.state, byte) {
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::SizeStart,
            (State::Trailer, _) => {
                if trailers.take(byte)? {
                    State::Done
                } else {
                    State::Trailer
                }
            }
            (State::SizeLf, b'\n') => self.end_line(allowed)?,
            _ => self.take_line_byte(byte)?,
        };
        Ok(())
    }

    /// One byte of a chunk line before its LF.
    fn take_line_byte(&mut self, byte: u8) -> Result<State, BodyError> {
        if byte == b'0' && self.left == 0 && matches!(self.state, State::SizeStart | State::Size) {
            return self.take_zero();
        }
        self.line_bytes += 1;
        if usize::from(self.line_bytes) > limits::CHUNK_LINE_BYTES_MAX {
            return Err(BodyError::Malformed);
        }
        match (self.state, byte) {
            (State::SizeStart | State::Size, _) if byte.is_ascii_hexdigit() => self.take_digit(byte),
            // RFC 9112 §7.1.1: chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )
            (State::Size | State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Size | State::Blank | State::Extension, b';') => Ok(State::ExtensionStart),
            (State::Size | State::Blank, b' ' | b'\t') => Ok(State::Blank),
            (State::ExtensionStart, b' ' | b'\t') => Ok(State::ExtensionStart),
            (State::ExtensionStart, _) if is_token_byte(byte) => Ok(State::Extension),
            (State::Extension, b'"') => Ok(State::Quoted),
            (State::Extension, b'=' | b' ' | b'\t') => Ok(State::Extension),
            (State::Extension, _) if is_token_byte(byte) => Ok(State::Extension),
            (State::Quoted, b'"') => Ok(State::Extension),
            (State::Quoted, b'\\') => Ok(State::Escaped),
            (State::Quoted | State::Escaped, _) if is_value_byte(byte) => Ok(State::Quoted),
            _ => Err(BodyError::Malformed),
        }
    }

    /// A zero before a size, or the size itself: any number of them (RFC 9112 §7.1: `1*HEXDIG`), as long as they do not add up.
    fn take_zero(&mut self) -> Result<State, BodyError> {
        self.extension_bytes += 1;
        if self.extension_bytes > 2 * limits::CHUNK_EXTENSION_BYTES_MAX {
            return Err(BodyError::Malformed);
        }
        Ok(State::Size)
    }

    fn take_digit(&mut self, byte: u8) -> Result<State, BodyError> {
        self.digits += 1;
        let value = u64::from(char::from(byte).to_digit(16).ok_or(BodyError::Malformed)?);
        self.left = self.left << 4 | value;
        // sixteen digits fill 64 bits; many peers hold a size in a signed integer
        if self.digits > 16 || self.left > i64::MAX as u64 {
            return Err(BodyError::Malformed);
        }
        Ok(State::Size)
    }

    fn end_line(&mut self, allowed: u64) -> Result<State, BodyError> {
        if self.left > allowed {
            return Err(BodyError::TooLarge);
        }
        // all of the line but its digits and its CR
        let extension = u64::from(self.line_bytes) - u64::from(self.digits) - 1;
        self.extension_bytes = (self.extension_bytes + extension).saturating_sub(self.left);
        if self.extension_bytes > limits::CHUNK_EXTENSION_BYTES_MAX {
            return Err(BodyError::Malformed);
        }
        (self.digits, self.line_bytes) = (0, 0);
        Ok(if self.left == 0 { State::Trailer } else { State::Data })
    }
}

/// Makes one chunk of the payload at `payload` in `block` by writing around it, and returns where the chunk lies; with `last`, the end
/// of the body too. `None` when there is no room: fewer than [`CHUNK_HEADROOM`] bytes before it or [`CHUNK_TAILROOM`] (2 without
/// `last`) behind it, or 4 GiB of payload. An empty payload makes no chunk, since that would end the body.
///
/// Bytes behind the payload are overwritten. Of a block that [`Body::decode`] took chunks from they are the chunks' own CRLF (and, with
/// `done`, last chunk) or not filled yet; never the next message's.
pub fn frame_chunk(block: &mut [u8], payload: Range<usize>, last: bool) -> Option<Range<usize>> {
    let end = if last { LAST_CHUNK } else { b"" };
    let bytes = u32::try_from(payload.len()).ok()?;
    let mut start = payload.start;
    let mut at = payload.end;
    if bytes > 0 {
        let digits = (32 - bytes.leading_zeros()).div_ceil(4) as usize;
        start = start.checked_sub(digits + 2)?;
        at += 2;
        if block.len() < at + end.len() {
            return None;
        }
        for (i, digit) in block[start..start + digits].iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(bytes >> (4 * (digits - 1 - i)) & 15) as usize];
        }
        block[payload.start - 2..payload.start].copy_from_slice(b"\r\n");
        block[payload.end..at].copy_from_slice(b"\r\n");
    }
    block.get_mut(at..at + end.len())?.copy_from_slice(end);
    Some(start..at + end.len())
}

/// The same in a vector, which grows where [`frame_chunk`] lacks room behind the payload. `end` are the [`Trailers::lines`] of a body that
/// is complete. What lay behind the chunk is gone.
pub fn frame_piece(bytes: &mut Vec<u8>, payload: Range<usize>, end: Option<&[u8]>) -> Option<Range<usize>> {
    let plain_end = end.is_some_and(<[u8]>::is_empty);
    let needed = payload.end + CHUNK_TAILROOM;
    if bytes.len() < needed {
        bytes.resize(needed, 0);
    }
    let chunk = frame_chunk(bytes, payload, plain_end)?;
    bytes.truncate(chunk.end);
    if let Some(lines) = end.filter(|_| !plain_end) {
        push_last_chunk(bytes, lines);
    }
    Some(chunk.start..bytes.len())
}

/// Appends `payload`, the next of a body, in its canonical framing. `end` are the [`Trailers::lines`] of a body that is complete.
pub fn push_piece(out: &mut Vec<u8>, framing: Framing, payload: &[u8], end: Option<&[u8]>) {
    if framing != Framing::Chunked {
        return out.extend_from_slice(payload);
    }
    if !payload.is_empty() {
        push_chunk_size(out, payload.len() as u64);
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }
    if let Some(lines) = end {
        push_last_chunk(out, lines);
    }
}

/// Appends the line that begins a chunk of `bytes`, which must not be 0; the payload and CRLF follow.
pub fn push_chunk_size(out: &mut Vec<u8>, bytes: u64) {
    debug_assert!(bytes > 0, "an empty chunk ends the body");
    let digits = (64 - bytes.leading_zeros()).div_ceil(4);
    out.extend((0..digits).rev().map(|i| b"0123456789abcdef"[(bytes >> (4 * i) & 15) as usize]));
    out.extend_from_slice(b"\r\n");
}

/// Appends the end of a chunked body, with the `lines` of [`Trailers::lines`].
pub fn push_last_chunk(out: &mut Vec<u8>, lines: &[u8]) {
    out.extend_from_slice(b"0\r\n");
    out.extend_from_slice(lines);
    out.extend_from_slice(b"\r\n");
}
