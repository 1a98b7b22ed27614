//! Which side of a split takes a request.
//!
//! A *ticket* of 64 bits, drawn or hashed, falls into one of the shares, which lie beside each other in the order of the file. So who has the same ticket
//! stays on the same side while the weights stay, and where only the last share grows nobody leaves it: a canary stands last.

use crate::units::{ClusterId, Weight};

/// The side into whose share the ticket falls, among those that `may` take it; `None`: none of positive weight may.
#[must_use]
pub fn pick(split: &[(ClusterId, Weight)], ticket: u64, may: impl Fn(ClusterId) -> bool) -> Option<ClusterId> {
    let sides = || split.iter().filter(|(cluster, weight)| weight.0 > 0 && may(*cluster));
    let total: u64 = sides().map(|(_, weight)| u64::from(weight.0)).sum();
    // Lemire 2019, without the rejection step: the bias is below total / 2^64
    let mut place = ((u128::from(ticket) * u128::from(total)) >> 64) as u64;
    for (cluster, weight) in sides() {
        match place.checked_sub(u64::from(weight.0)) {
            None => return Some(*cluster),
            Some(left) => place = left,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::chance::hash_key;
    use crate::units::Rng;
    use rand::{Rng as _, SeedableRng as _};

    const fn side(row: u32, weight: u32) -> (ClusterId, Weight) {
        (ClusterId(row), Weight(weight))
    }

    #[test]
    fn sides_are_drawn_in_proportion_to_their_weights() {
        let seed = 7;
        println!("seed {seed}");
        let mut rng = Rng::seed_from_u64(seed);
        let split = [side(0, 95), side(1, 0), side(2, 5)];
        let draws = 100_000_u32;
        let mut counts = [0_u32; 3];
        for _ in 0..draws {
            counts[pick(&split, rng.next_u64(), |_| true).unwrap().index()] += 1;
        }
        assert_eq!(counts[1], 0);
        // Binomial: sigma is sqrt(n p q) = 69; five of them.
        assert!(counts[2].abs_diff(draws / 20) < 345, "{counts:?}");
        assert_eq!(pick(&[side(4, 1)], u64::MAX, |_| true), Some(ClusterId(4)));
    }

    #[test]
    fn who_is_on_a_canary_stays_there_while_it_grows() {
        let tickets: Vec<u64> = (0..2_000).map(|row: u32| hash_key(&row.to_le_bytes())).collect();
        let on_canary = |weight: u32| -> Vec<u64> {
            let split = [side(0, 100 - weight), side(1, weight)];
            tickets.iter().copied().filter(|ticket| pick(&split, *ticket, |_| true) == Some(ClusterId(1))).collect()
        };
        let mut before = Vec::new();
        for weight in [0, 1, 5, 20, 50, 100] {
            let now = on_canary(weight);
            assert!(before.iter().all(|ticket| now.contains(ticket)), "{weight}");
            assert!((now.len() as f64 - 20.0 * f64::from(weight)).abs() < 120.0, "{} at {weight}", now.len());
            before = now;
        }
    }

    #[test]
    fn where_one_side_may_not_the_others_share_in_proportion() {
        let split = [side(0, 50), side(1, 30), side(2, 20), side(3, 0)];
        let may = |cluster| cluster != ClusterId(0);
        let counts = (0..10_000_u32).fold([0; 4], |mut counts, row| {
            counts[pick(&split, hash_key(&row.to_le_bytes()), may).unwrap().index()] += 1;
            counts
        });
        assert_eq!((counts[0], counts[3]), (0, 0));
        assert!((5_700..6_300).contains(&counts[1]), "{counts:?}");
        assert_eq!(pick(&split, 1, |_| false), None);
        assert_eq!(pick(&split, 1, |cluster| cluster == ClusterId(3)), None, "a weight of 0 takes nothing");
    }
}
