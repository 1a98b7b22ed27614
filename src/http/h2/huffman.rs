//! Strings in HPACK's Huffman code (RFC 7541 §5.2, appendix B).
//!
//! The code is canonical: codes of one length follow each other in the order of their symbols, so the lengths say everything, and the tables
//! below are made from them when the crate is compiled. Codes of up to eight bits, which are those of nearly all that headers are made of,
//! are found with one look; the length of a longer one by comparing it with the first code of each length.
//!
//! Nothing is encoded here: what the gateway sends is not compressed (CPU, and lengths that tell about secrets, CRIME).

use super::integer::Undecodable;

/// Bits of each symbol's code; the last one is EOS.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26, 30,
];
/// Bits of the longest code.
const LONGEST: usize = 30;
/// The end of a string that is padded with it; never sent as a symbol.
const EOS: u16 = 256;

/// Made from [`LENGTHS`].
struct Code {
    /// By the next eight bits: the length of the code that they begin with and its symbol; length 0 when it is longer.
    short: [(u8, u8); 256],
    /// By length, from the highest bit of 32 on: what comes behind the last code that is no longer than this.
    ends: [u64; LONGEST + 1],
    /// By length: what to add to a code of this length to have its place in `symbols`.
    places: [i64; LONGEST + 1],
    /// In the order of their codes.
    symbols: [u16; 257],
}

static CODE: Code = code();

const fn code() -> Code {
    let mut made = Code { short: [(0, 0); 256], ends: [0; LONGEST + 1], places: [0; LONGEST + 1], symbols: [0; 257] };
    let (mut next, mut place, mut length) = (0_u64, 0, 1);
    while length <= LONGEST {
        made.places[length] = place as i64 - next as i64;
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                made.symbols[place] = symbol as u16;
                let mut low = 0;
                while length <= 8 && low < 1 << (8 - length) {
                    made.short[(next as usize) << (8 - length) | low] = (length as u8, symbol as u8);
                    low += 1;
                }
                place += 1;
                next += 1;
            }
            symbol += 1;
        }
        made.ends[length] = next << (32 - length);
        next <<= 1;
        length += 1;
    }
    made
}

/// Appends what `input` stands for.
///
/// # Errors
/// EOS as a symbol, padding of eight bits or more, or of anything but ones (§5.2).
pub(super) fn decode(input: &[u8], out: &mut Vec<u8>) -> Result<(), Undecodable> {
    // five bits a symbol at least
    out.reserve(input.len() * 8 / 5 + 1);
    // the next bits, from the highest one on, and how many of them there are
    let (mut bits, mut count, mut rest) = (0_u64, 0_u32, input);
    loop {
        if count <= 32 {
            if let Some((four, behind)) = rest.split_first_chunk::<4>() {
                bits |= u64::from(u32::from_be_bytes(*four)) << (32 - count);
                (count, rest) = (count + 32, behind);
            } else {
                for &byte in rest {
                    bits |= u64::from(byte) << (56 - count);
                    count += 8;
                }
                return decode_last(bits, count, out);
            }
        }
        // whole codes for as long as there are surely some
        while count >= LONGEST as u32 {
            let (length, symbol) = next(bits)?;
            out.push(symbol);
            bits <<= length;
            count -= length;
        }
    }
}

fn decode_last(mut bits: u64, mut count: u32, out: &mut Vec<u8>) -> Result<(), Undecodable> {
    while count > 0 {
        // padding is the beginning of EOS
        if count < 8 && bits >> (64 - count) == (1 << count) - 1 {
            return Ok(());
        }
        let (length, symbol) = next(bits)?;
        if length > count {
            return Err(Undecodable);
        }
        out.push(symbol);
        bits <<= length;
        count -= length;
    }
    Ok(())
}

/// The code that `bits` begin with: its length and its symbol.
#[inline(always)] // it is the loop
fn next(bits: u64) -> Result<(u32, u8), Undecodable> {
    let (length, symbol) = CODE.short[(bits >> 56) as usize];
    if length > 0 { Ok((u32::from(length), symbol)) } else { next_long(bits) }
}

fn next_long(bits: u64) -> Result<(u32, u8), Undecodable> {
    let top = bits >> 32;
    let length = (9..=LONGEST).find(|&length| top < CODE.ends[length]).ok_or(Undecodable)?;
    let place = (top >> (32 - length)) as i64 + CODE.places[length];
    let symbol = CODE.symbols.get(place as usize).copied().filter(|&symbol| symbol != EOS).ok_or(Undecodable)?;
    Ok((length as u32, symbol as u8))
}

#[cfg(test)]
pub(super) mod testing {
    //! The other direction, for tests.
    use super::*;

    /// The code of a symbol and its length.
    pub(crate) fn code_of(symbol: u16) -> (u64, u32) {
        let length = usize::from(LENGTHS[usize::from(symbol)]);
        let place = CODE.symbols.iter().position(|&s| s == symbol).unwrap();
        ((place as i64 - CODE.places[length]) as u64, length as u32)
    }

    /// `text` in the code, padded.
    pub(crate) fn encode(text: &[u8]) -> Vec<u8> {
        let (mut out, mut bits, mut count) = (Vec::new(), 0_u64, 0);
        for &byte in text {
            let (code, length) = code_of(u16::from(byte));
            bits = bits << length | code;
            count += length;
            while count >= 8 {
                count -= 8;
                out.push((bits >> count) as u8);
            }
        }
        if count > 0 {
            out.push((bits << (8 - count) | (0xff >> count)) as u8);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{code_of, encode};
    use super::*;
    use proptest::prelude::*;

    fn decoded(input: &[u8]) -> Result<Vec<u8>, Undecodable> {
        let mut out = Vec::new();
        decode(input, &mut out).map(|()| out)
    }

    /// Some lines of RFC 7541 appendix B, one of every fifth length.
    #[test]
    fn codes_are_those_of_appendix_b() {
        for (symbol, code, length) in [
            (b'0', 0x0, 5),
            (b'a', 0x3, 5),
            (b't', 0x9, 5),
            (b' ', 0x14, 6),
            (b'z', 0x7b, 7),
            (b'&', 0xf8, 8),
            (b'X', 0xfc, 8),
            (b'!', 0x3f8, 10),
            (b'@', 0x1ffa, 13),
            (b'\\', 0x7fff0, 19),
            (0, 0x1ff8, 13),
            (1, 0x7f_ffd8, 23),
            (127, 0xfff_fffc, 28),
            (10, 0x3fff_fffc, 30),
        ] {
            assert_eq!(code_of(u16::from(symbol)), (code, length), "{symbol}");
        }
        assert_eq!(code_of(EOS), (0x3fff_ffff, 30));
    }

    #[test]
    fn every_symbol_is_decoded_behind_and_before_every_other() {
        for a in 0..=u8::MAX {
            for b in 0..=u8::MAX {
                assert_eq!(decoded(&encode(&[a, b])).as_deref(), Ok(&[a, b][..]));
            }
        }
        proptest!(|(text in proptest::collection::vec(any::<u8>(), 0..200))| {
            prop_assert_eq!(decoded(&encode(&text)), Ok(text));
        });
    }

    /// RFC 7541 §5.2.
    #[test]
    fn padding_is_less_than_a_byte_of_ones_and_eos_is_no_symbol() {
        assert_eq!(decoded(&[]).as_deref(), Ok(&b""[..]));
        assert_eq!(decoded(&[0b0001_1111]).as_deref(), Ok(&b"a"[..]));
        for wrong in [
            &[0b0001_1110][..],              // a zero
            &[0b0001_1111, 0xff],            // eleven ones
            &[0xff],                         // eight
            &[0xff, 0xff, 0xff, 0xff],       // EOS and two more
            &[0xff, 0xff, 0xff, 0xfc],       // EOS
            &[0xff, 0xff, 0xff, 0xff, 0x1f], // EOS, then 'a'
            &[0xff, 0xff],
        ] {
            assert_eq!(decoded(wrong), Err(Undecodable), "{wrong:x?}");
        }
    }
}
