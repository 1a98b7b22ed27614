//! The Huffman code of header strings (RFC 7541 §5.2, appendix B).
//!
//! The code is canonical: codes of one length follow each other in the order of their symbols, and shorter ones stand before longer ones.
//! So the lengths are all that has to be written down.

use crate::wire::Failure;

/// One for each byte, and one for the end of a string, which never appears in one.
const SYMBOLS: usize = 257;
const END: u16 = 256;
/// Bits of each symbol's code.
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];
const LENGTH_MIN: u32 = 5;
const LENGTH_MAX: usize = 30;

/// Codes of one length.
#[derive(Clone, Copy)]
struct Class {
    /// The first code behind them, as the leading bits of 32.
    end: u64,
    first: u32,
    /// Where their symbols stand in [`Code::symbols`].
    row: u16,
}

struct Code {
    codes: [u32; SYMBOLS],
    symbols: [u16; SYMBOLS],
    classes: [Class; LENGTH_MAX + 1],
}

static CODE: Code = code();

const fn code() -> Code {
    let mut made = Code {
        codes: [0; SYMBOLS],
        symbols: [0; SYMBOLS],
        classes: [Class { end: 0, first: 0, row: 0 }; LENGTH_MAX + 1],
    };
    let (mut next, mut row, mut length) = (0_u32, 0, 1);
    while length <= LENGTH_MAX {
        next <<= 1;
        made.classes[length] = Class { end: 0, first: next, row: row as u16 };
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == length {
                made.codes[symbol] = next;
                made.symbols[row] = symbol as u16;
                next += 1;
                row += 1;
            }
            symbol += 1;
        }
        made.classes[length].end = (next as u64) << (32 - length);
        length += 1;
    }
    made
}

/// Bytes that `text` has in this code.
pub(super) fn length(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|byte| usize::from(LENGTHS[usize::from(*byte)])).sum();
    bits.div_ceil(8)
}

/// Appends `text` in this code.
pub(super) fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut held, mut bits) = (0_u64, 0_u32);
    for byte in text {
        let symbol = usize::from(*byte);
        held = held << LENGTHS[symbol] | u64::from(CODE.codes[symbol]);
        bits += u32::from(LENGTHS[symbol]);
        while bits >= 8 {
            bits -= 8;
            out.push((held >> bits) as u8);
        }
    }
    if bits > 0 {
        // what is left of the last byte are ones: the beginning of the end's code
        out.push((held << (8 - bits)) as u8 | (0xff >> bits));
    }
}

/// Appends what `bytes` mean.
///
/// # Errors
/// They are none of this code, or their padding is none.
pub(super) fn decode(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
    let (mut held, mut bits) = (0_u64, 0_u32);
    for byte in bytes {
        held = held << 8 | u64::from(*byte);
        bits += 8;
        while bits >= LENGTH_MIN {
            let ahead = (held << (64 - bits)) >> 32;
            let found = (LENGTH_MIN as usize..=LENGTH_MAX).find(|length| ahead < CODE.classes[*length].end);
            let length = found.ok_or(Failure::Garbage)?;
            if length as u32 > bits {
                break;
            }
            let class = CODE.classes[length];
            let code = (ahead >> (32 - length)) as u32;
            let symbol = CODE.symbols[usize::from(class.row) + (code - class.first) as usize];
            if symbol == END {
                return Err(Failure::Garbage);
            }
            out.push(symbol as u8);
            bits -= length as u32;
        }
    }
    let padding = (1_u64 << bits) - 1;
    if bits < 8 && held & padding == padding { Ok(()) } else { Err(Failure::Garbage) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> Result<Vec<u8>, Failure> {
        let mut out = Vec::new();
        decode(bytes, &mut out).map(|()| out)
    }

    #[test]
    fn examples_of_the_standard_are_as_they_stand_there() {
        // RFC 7541 §C.4.1, §C.4.2, §C.6.1
        for (text, coded) in [
            ("www.example.com", &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff][..]),
            ("no-cache", &[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]),
            ("302", &[0x64, 0x02]),
        ] {
            let mut out = Vec::new();
            encode(text.as_bytes(), &mut out);
            assert_eq!(out, coded);
            assert_eq!(length(text.as_bytes()), coded.len());
            assert_eq!(decoded(coded), Ok(text.as_bytes().to_vec()));
        }
    }

    #[test]
    fn every_byte_comes_back_beside_every_other() {
        for first in 0..=255_u8 {
            let text: Vec<u8> = (0..=255).flat_map(|second| [first, second]).collect();
            let mut out = Vec::new();
            encode(&text, &mut out);
            assert_eq!(decoded(&out), Ok(text));
        }
    }

    #[test]
    fn what_is_padded_wrongly_or_says_the_end_is_refused() {
        for bytes in [&[0x64, 0x02, 0xff][..], &[0x64, 0x00, 0x00], &[0xff, 0xff, 0xff, 0xfc], &[0xff], &[0xff; 5]] {
            assert_eq!(decoded(bytes), Err(Failure::Garbage), "{bytes:?}");
        }
        assert_eq!(decoded(&[]), Ok(Vec::new()));
    }
}
