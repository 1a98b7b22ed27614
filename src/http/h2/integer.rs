//! Integers and the lengths of strings in a header block (RFC 7541 §5.1).
//!
//! An integer has a prefix of a few bits and then seven bits a byte. It may be padded with zeros without end, so the bytes are bounded, and
//! its value is bounded by what a table or a block can have.

/// Bytes behind the prefix: enough for 28 bits, more than any index or length that can be right.
const MORE_BYTES_MAX: usize = 4;

/// A header block that cannot be decoded; the dynamic table is lost with it (RFC 9113 §4.3: COMPRESSION_ERROR).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undecodable;

/// Reads the integer whose prefix are the lower `bits` of the byte at `*at`, and goes behind it.
///
/// # Errors
/// It is cut off, or longer than it may be.
#[inline]
pub(super) fn read(block: &[u8], at: &mut usize, bits: u32) -> Result<usize, Undecodable> {
    let mask = 0xff_u8 >> (8 - bits);
    let first = usize::from(block.get(*at).ok_or(Undecodable)? & mask);
    *at += 1;
    if first < usize::from(mask) { Ok(first) } else { read_more(block, at, first) }
}

fn read_more(block: &[u8], at: &mut usize, first: usize) -> Result<usize, Undecodable> {
    let mut value = first;
    for more in 0..MORE_BYTES_MAX {
        let byte = *block.get(*at).ok_or(Undecodable)?;
        *at += 1;
        value += usize::from(byte & 0x7f) << (7 * more);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Undecodable)
}

/// Appends `value` with a prefix of `bits`; `first` holds the bits before it.
#[inline]
pub(super) fn push(out: &mut Vec<u8>, first: u8, bits: u32, value: usize) {
    let mask = (1_usize << bits) - 1;
    if value < mask {
        out.push(first | value as u8);
        return;
    }
    out.push(first | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7541 appendix C.1.
    #[test]
    fn the_examples_of_appendix_c_1() {
        for (bits, value, bytes) in [(5, 10, &[0x0a][..]), (5, 1337, &[0x1f, 0x9a, 0x0a]), (8, 42, &[0x2a])] {
            let (mut out, mut at) = (Vec::new(), 0);
            push(&mut out, 0, bits, value);
            assert_eq!((out.as_slice(), read(bytes, &mut at, bits), at), (bytes, Ok(value), bytes.len()));
        }
    }

    #[test]
    fn every_integer_is_read_as_it_was_written() {
        for bits in 4..=7 {
            for value in (0..5_000).chain([16_383, 16_384, 65_535, (1 << 28) - 1]) {
                let (mut out, mut at) = (Vec::new(), 0);
                push(&mut out, 0, bits, value);
                assert_eq!(read(&out, &mut at, bits), Ok(value), "{bits} {value}");
                assert_eq!(at, out.len());
                for cut in 0..out.len() {
                    assert_eq!(read(&out[..cut], &mut 0, bits), Err(Undecodable));
                }
            }
        }
    }

    #[test]
    fn padding_has_an_end() {
        assert_eq!(read(&[0x1f, 0x80, 0x80, 0x80, 0x00], &mut 0, 5), Ok(31));
        assert_eq!(read(&[0x1f, 0x80, 0x80, 0x80, 0x80, 0x00], &mut 0, 5), Err(Undecodable));
        assert_eq!(read(&[0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], &mut 0, 5), Err(Undecodable));
    }
}
