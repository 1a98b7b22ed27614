//! Frames: nine bytes that say what follows, and the frames that the gateway writes itself (RFC 9113 §4.1, §6).

use super::code::Code;

/// Bytes of a frame's head.
pub const FRAME_HEAD_BYTES: usize = 9;
/// The largest payload that may be sent without having been allowed to (RFC 9113 §4.2), and the largest that we take.
pub const FRAME_BYTES_MAX: usize = 1 << 14;
/// What a client's connection begins with (RFC 9113 §3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The last frame of a stream's direction, on DATA and HEADERS.
pub const END_STREAM: u8 = 0x1;
/// An acknowledgement, on SETTINGS and PING.
pub const ACK: u8 = 0x1;
/// The last piece of a header block.
pub const END_HEADERS: u8 = 0x4;
/// Padding is there, on DATA and HEADERS.
pub const PADDED: u8 = 0x8;
/// Five bytes of the priorities of RFC 7540 are there, on HEADERS.
pub const PRIORITY: u8 = 0x20;

/// What a frame is (RFC 9113 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A piece of a body.
    Data = 0,
    /// A header block, or its first piece.
    Headers = 1,
    /// RFC 7540's priorities; without effect since RFC 9113.
    Priority = 2,
    /// The end of a stream by force.
    RstStream = 3,
    /// Parameters of the connection.
    Settings = 4,
    /// Never sent by clients, and never allowed to servers by us.
    PushPromise = 5,
    /// A sign of life.
    Ping = 6,
    /// The end of a connection.
    Goaway = 7,
    /// More room for DATA.
    WindowUpdate = 8,
    /// The rest of a header block.
    Continuation = 9,
    /// A kind that is ignored (§4.1).
    Unknown = 10,
    /// How urgent a stream is (RFC 9218 §7.1).
    PriorityUpdate = 16,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Data,
        Self::Headers,
        Self::Priority,
        Self::RstStream,
        Self::Settings,
        Self::PushPromise,
        Self::Ping,
        Self::Goaway,
        Self::WindowUpdate,
        Self::Continuation,
    ];

    fn of(byte: u8) -> Self {
        match Self::ALL.get(usize::from(byte)) {
            Some(kind) => *kind,
            None if byte == Self::PriorityUpdate as u8 => Self::PriorityUpdate,
            None => Self::Unknown,
        }
    }
}

/// The first nine bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Bytes of payload behind it, up to 2²⁴ − 1.
    pub len: usize,
    /// What it is.
    pub kind: Kind,
    /// Of its kind.
    pub flags: u8,
    /// The stream, or 0 for the connection; 31 bits.
    pub id: u32,
}

impl FrameHead {
    /// Reads the head at the front of `bytes`; `None` when not all of it has arrived.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, i, j, k, l] = bytes.first_chunk::<FRAME_HEAD_BYTES>()?;
        Some(Self {
            len: usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c),
            kind: Kind::of(kind),
            flags,
            id: u32::from_be_bytes([i, j, k, l]) & ID_MAX,
        })
    }

    /// Whether a flag is set.
    #[must_use]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The bytes of a head that says this.
    #[must_use]
    pub fn to_bytes(self) -> [u8; FRAME_HEAD_BYTES] {
        let [_, a, b, c] = (self.len as u32).to_be_bytes();
        let [i, j, k, l] = self.id.to_be_bytes();
        [a, b, c, self.kind as u8, self.flags, i, j, k, l]
    }
}

/// The largest stream id, and all bits that one has.
pub const ID_MAX: u32 = u32::MAX >> 1;

/// The four bytes of a stream id or of a window's increment, without the bit that is reserved.
pub(super) fn number31(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes) & ID_MAX)
}

/// Appends a frame's head.
pub fn push_head(out: &mut Vec<u8>, len: usize, kind: Kind, flags: u8, id: u32) {
    out.extend_from_slice(&FrameHead { len, kind, flags, id }.to_bytes());
}

/// Appends RST_STREAM (§6.4).
pub fn push_reset(out: &mut Vec<u8>, id: u32, code: Code) {
    push_head(out, 4, Kind::RstStream, 0, id);
    out.extend_from_slice(&(code as u32).to_be_bytes());
}

/// Appends WINDOW_UPDATE (§6.9) for a stream, or for the connection (`id` 0). `bytes` is 1 to 2³¹ − 1.
pub fn push_window_update(out: &mut Vec<u8>, id: u32, bytes: u32) {
    push_head(out, 4, Kind::WindowUpdate, 0, id);
    out.extend_from_slice(&bytes.to_be_bytes());
}

/// Appends GOAWAY without debug data (§6.8): streams above `last` were not looked at.
pub fn push_goaway(out: &mut Vec<u8>, last: u32, code: Code) {
    push_head(out, 8, Kind::Goaway, 0, 0);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&(code as u32).to_be_bytes());
}

/// Appends PING (§6.7).
pub fn push_ping(out: &mut Vec<u8>, ack: bool, data: [u8; 8]) {
    push_head(out, 8, Kind::Ping, if ack { ACK } else { 0 }, 0);
    out.extend_from_slice(&data);
}

/// Appends the acknowledgement of SETTINGS (§6.5.3).
pub fn push_settings_ack(out: &mut Vec<u8>) {
    push_head(out, 0, Kind::Settings, ACK, 0);
}

/// Appends a header block as HEADERS and as many CONTINUATION frames as its length asks for (§6.2, §6.10). `frame_max` is what the peer
/// takes in one frame.
pub fn push_headers(out: &mut Vec<u8>, id: u32, block: &[u8], end_stream: bool, frame_max: usize) {
    let mut kind = Kind::Headers;
    let mut flags = if end_stream { END_STREAM } else { 0 };
    let mut rest = block;
    loop {
        let piece;
        (piece, rest) = rest.split_at(rest.len().min(frame_max));
        if rest.is_empty() {
            flags |= END_HEADERS;
        }
        push_head(out, piece.len(), kind, flags, id);
        out.extend_from_slice(piece);
        if rest.is_empty() {
            return;
        }
        (kind, flags) = (Kind::Continuation, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_written_as_it_is_read() {
        for (len, kind, flags, id) in [
            (0, Kind::Settings, ACK, 0),
            (FRAME_BYTES_MAX, Kind::Data, END_STREAM, 1),
            (0xff_ffff, Kind::Ping, 0, ID_MAX),
        ] {
            let head = FrameHead { len, kind, flags, id };
            assert_eq!(FrameHead::parse(&head.to_bytes()), Some(head));
            for cut in 0..FRAME_HEAD_BYTES {
                assert_eq!(FrameHead::parse(&head.to_bytes()[..cut]), None);
            }
        }
        let reserved = [0, 0, 0, 0xaa, 0, 0xff, 0xff, 0xff, 0xff];
        let head = FrameHead::parse(&reserved).unwrap();
        assert_eq!((head.kind, head.id), (Kind::Unknown, ID_MAX));
    }

    #[test]
    fn a_block_that_is_too_long_for_one_frame_goes_on_in_others() {
        for len in [0, 1, 9, 10, 11, 20, 25] {
            let block: Vec<u8> = (0..len).collect();
            let mut out = Vec::new();
            push_headers(&mut out, 3, &block, true, 10);
            let (mut at, mut got, mut frames) = (0, Vec::new(), 0);
            while at < out.len() {
                let head = FrameHead::parse(&out[at..]).unwrap();
                assert_eq!(head.kind, if frames == 0 { Kind::Headers } else { Kind::Continuation });
                assert_eq!((head.id, head.has(END_STREAM)), (3, frames == 0));
                at += FRAME_HEAD_BYTES;
                got.extend_from_slice(&out[at..at + head.len]);
                at += head.len;
                frames += 1;
                assert_eq!(head.has(END_HEADERS), at == out.len());
            }
            assert_eq!((got, frames), (block, usize::from(len).div_ceil(10).max(1)));
        }
    }
}
