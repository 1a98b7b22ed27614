//! Draws and hashes that decisions share.
//!
//! Bounded draws are one multiplication (Lemire 2019, "Fast random integer generation in an interval") without its rejection step:
//! the bias is below n / 2⁶⁴. Hashes are fixed functions, not keyed: a key must meet the same endpoint on every worker and after every
//! restart. They do not resist chosen keys; a client that wants to reach one endpoint of a hashed cluster can.

use crate::units::Rng;
use rand::Rng as _;

/// Uniform in `0..n`; 0 when `n` is 0.
#[must_use]
pub fn below(rng: &mut Rng, n: usize) -> usize {
    ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize
}

/// Uniform in [0, 1), with 53 bits.
#[must_use]
pub fn unit(rng: &mut Rng) -> f64 {
    unit_of(rng.next_u64())
}

/// The upper 53 bits of `bits` as a number in [0, 1).
#[must_use]
pub fn unit_of(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// A permutation of 64-bit values in which every input bit moves every output bit (SplitMix64's finaliser, Steele 2014).
#[must_use]
pub const fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The hash of a balancing key (a client's address, a header's value, …): FNV-1a over its bytes, then [`mix`].
#[must_use]
pub fn hash_key(bytes: &[u8]) -> u64 {
    let fnv =
        bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3));
    mix(fnv)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn draws_stay_below_their_bound_and_reach_every_value() {
        let mut rng = Rng::seed_from_u64(1);
        let mut seen = [false; 7];
        for _ in 0..1_000 {
            seen[below(&mut rng, 7)] = true;
            assert!((0.0..1.0).contains(&unit(&mut rng)));
        }
        assert_eq!(seen, [true; 7]);
        assert_eq!(below(&mut rng, 0), 0);
        assert!(unit_of(u64::MAX) < 1.0);
    }

    #[test]
    fn hashes_never_change_because_keys_must_meet_the_same_endpoint_after_an_upgrade() {
        assert_eq!(mix(0), 0xE220_A839_7B1D_CDAF);
        assert_eq!(hash_key(b""), mix(0xCBF2_9CE4_8422_2325));
        assert_ne!(hash_key(b"10.0.0.1"), hash_key(b"10.0.0.2"));
    }
}
