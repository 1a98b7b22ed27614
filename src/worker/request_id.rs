//! Ids for requests that bring none: 128 random bits in hexadecimal.

use crate::units::Rng;
use rand::Rng as _;

/// An id, in lower-case digits.
pub(super) type RequestId = [u8; 32];

/// A fresh one. Not a secret: whoever sees many can guess the next.
pub(super) fn draw(rng: &mut Rng) -> RequestId {
    let mut id = [0; 32];
    for digits in id.chunks_exact_mut(8) {
        digits.copy_from_slice(&hex_digits(rng.next_u32()));
    }
    id
}

/// Eight digits at once: the nibbles are spread over the bytes of a word, and those above 9 are moved up to the letters.
fn hex_digits(bits: u32) -> [u8; 8] {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut nibbles = u64::from(bits);
    nibbles = (nibbles | nibbles << 16) & 0x0000_ffff_0000_ffff;
    nibbles = (nibbles | nibbles << 8) & 0x00ff_00ff_00ff_00ff;
    nibbles = (nibbles | nibbles << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = ((nibbles + 6 * ONES) >> 4) & ONES;
    (nibbles + u64::from(b'0') * ONES + letters * u64::from(b'a' - b'0' - 10)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    #[test]
    fn digits_are_those_of_the_standard_library() {
        for bits in [0, 1, 0x9a, 0x0123_4567, 0x89ab_cdef, 0xf0f0_a5a5, u32::MAX] {
            assert_eq!(hex_digits(bits), *format!("{bits:08x}").as_bytes());
        }
    }

    #[test]
    fn an_id_is_all_digits_and_none_is_like_the_next() {
        let mut rng = Rng::seed_from_u64(5);
        let (one, other) = (draw(&mut rng), draw(&mut rng));
        assert!(one.iter().all(u8::is_ascii_hexdigit) && one != other);
    }
}
