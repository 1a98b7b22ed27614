//! Frames as bytes (RFC 9113 §4 and §6).

use crate::wire::Failure;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

/// Of DATA and HEADERS.
pub(super) const END_STREAM: u8 = 0x1;
/// Of SETTINGS and PING.
pub(super) const ACK: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const HAS_PRIORITY: u8 = 0x20;

/// Bytes of a frame's head.
pub(super) const HEAD_BYTES: usize = 9;
/// What a frame may carry unless more was agreed on (§4.2), and here at any time.
pub(super) const BYTES_MAX: usize = 16_384;
/// The largest window (§6.9.1), and the largest id of a stream.
pub(super) const WINDOW_MAX: i64 = (1 << 31) - 1;
/// Every window at first (§6.9.2).
pub(super) const WINDOW: i64 = 65_535;

/// Codes of errors (§7) that are said or told apart here.
pub(super) const NO_ERROR: u32 = 0;
pub(super) const PROTOCOL_ERROR: u32 = 1;
pub(super) const REFUSED_STREAM: u32 = 7;
pub(super) const CANCEL: u32 = 8;

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Frame {
    /// The head at the beginning of `bytes`, once it is whole.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let head: &[u8; HEAD_BYTES] = bytes.first_chunk()?;
        Some(Self {
            length: usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]),
            kind: head[3],
            flags: head[4],
            stream: word(&head[5..]) & 0x7fff_ffff,
        })
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Four bytes as a number; there are four.
pub(super) fn word(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |word, byte| word << 8 | u32::from(*byte))
}

/// Appends a frame's head.
pub(super) fn head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    out.extend_from_slice(&(length as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

/// Appends a frame of one word: RST_STREAM or WINDOW_UPDATE.
pub(super) fn one_word(out: &mut Vec<u8>, kind: u8, stream: u32, word: u32) {
    head(out, 4, kind, 0, stream);
    out.extend_from_slice(&word.to_be_bytes());
}

/// What a frame carries, without its padding (§6.1, §6.2).
///
/// # Errors
/// There is more padding than frame.
pub(super) fn unpadded(frame: Frame, payload: &[u8]) -> Result<&[u8], Failure> {
    if !frame.has(PADDED) {
        return Ok(payload);
    }
    let (padding, rest) = payload.split_first().ok_or(Failure::Garbage)?;
    let length = rest.len().checked_sub(usize::from(*padding)).ok_or(Failure::Garbage)?;
    Ok(&rest[..length])
}
