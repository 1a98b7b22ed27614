//! What must hold for any bytes, one module per fuzz target.
//!
//! Each `check` takes the bytes that libFuzzer made and panics when a property does not hold. They are plain functions, so that
//! `cargo test` replays the kept corpus on them with any toolchain (`tests/corpus.rs`).
//!
//! An input is one byte of knobs and then bytes as they stand on the wire, so that a corpus can be read and a dictionary helps.

pub mod chunked_body;
pub mod feed;
pub mod forward;
pub mod framing;
pub mod h2_frames;
pub mod h2_seam;
pub mod head;
pub mod hpack;
pub mod milo;
pub mod path;
pub mod proxy_header;
pub mod session;
pub mod upgrade;

/// Panics when a property does not hold of the input.
pub type Check = fn(&[u8]);

/// Every target, by name.
pub const TARGETS: &[(&str, Check)] = &[
    ("head", head::check),
    ("chunked_body", chunked_body::check),
    ("framing", framing::check),
    ("path", path::check),
    ("proxy_header", proxy_header::check),
    ("upgrade", upgrade::check),
    ("forward", forward::check),
    ("session", session::check),
    ("h2_frames", h2_frames::check),
    ("hpack", hpack::check),
    ("h2_seam", h2_seam::check),
];

/// Bits of an input's first byte.
#[derive(Clone, Copy, Debug)]
pub struct Knobs(u8);

impl Knobs {
    /// The knobs, and the bytes behind them; `None` for no bytes at all.
    #[must_use]
    pub fn split(input: &[u8]) -> Option<(Self, &[u8])> {
        input.split_first().map(|(knobs, bytes)| (Self(*knobs), bytes))
    }

    /// The bit `at`.
    #[must_use]
    pub fn bit(self, at: u32) -> bool {
        self.0 >> at & 1 == 1
    }

    /// `bits` bits from `at` on, as a number.
    #[must_use]
    pub fn number(self, at: u32, bits: u32) -> usize {
        usize::from(self.0 >> at) & ((1 << bits) - 1)
    }
}

/// Whether `text` is visible ASCII.
pub(crate) fn is_visible(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether `value` may stand in a field line as it is: no control byte but HTAB, no blanks around it.
pub(crate) fn is_field_value(value: &[u8]) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    !is_blank(value.first()) && !is_blank(value.last()) && value.iter().all(|&b| b == b'\t' || (b >= b' ' && b != 0x7f))
}

/// Whether `name` is a token (RFC 9110 §5.6.2).
pub(crate) fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Elements of a list (RFC 9110 §5.6.1), empty ones included.
pub(crate) fn elements(value: &[u8]) -> Vec<&[u8]> {
    let is_blank = |byte: &&u8| matches!(byte, b' ' | b'\t');
    let trim = |element: &'_ [u8]| -> std::ops::Range<usize> {
        let start = element.iter().take_while(is_blank).count();
        let end = element.len() - element[start..].iter().rev().take_while(is_blank).count();
        start..end
    };
    value.split(|&b| b == b',').map(|element| &element[trim(element)]).collect()
}
