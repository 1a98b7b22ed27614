//! Maglev hashing: one look-up finds a key's endpoint, shares are even, and a removal moves few other keys.
//!
//! Eisenbud et al. 2016 ("Maglev: a fast and reliable software network load balancer", §3.4): each endpoint has its own permutation of
//! 65,537 slots and endpoints claim, in turn, the next free slot of theirs. Weights decide how often an endpoint has its turn. The
//! table is built once, over all members of positive weight; endpoints that are not available are walked past, so their absence moves
//! no other key at all. Where the paper would rebuild, an ejection here must not reshuffle.

use super::{Candidates, hash};
use crate::limits::{MAGLEV_SLOTS, WEIGHT_MAX};
use crate::policy::chance::mix;
use crate::policy::endpoint::Endpoint;
use crate::units::EndpointId;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

const FREE: u16 = u16::MAX;

/// The table of one tier.
#[derive(Clone, Debug)]
pub struct Maglev {
    /// Rows of the cluster's endpoints; empty when every weight is 0.
    slots: Box<[u16]>,
}

impl Maglev {
    /// Over all members of positive weight: a few milliseconds.
    #[must_use]
    pub fn new(members: &[EndpointId], endpoints: &[Endpoint]) -> Self {
        let weight_of = |id: EndpointId| endpoints[id.index()].weight;
        // an endpoint's nth turn comes at n / weight
        let stride = |id: EndpointId| (u64::from(WEIGHT_MAX) << 16) / u64::from(weight_of(id));
        let positive = members.iter().filter(|id| weight_of(**id) > 0);
        let mut turns: BinaryHeap<_> = positive.map(|id| Reverse((stride(*id), *id))).collect();
        let mut positions: Vec<u32> = vec![0; endpoints.len()];
        let mut slots = vec![FREE; if turns.is_empty() { 0 } else { MAGLEV_SLOTS }].into_boxed_slice();
        for _ in 0..slots.len() {
            let Some(mut turn) = turns.peek_mut() else { break };
            let Reverse((at, id)) = *turn;
            *turn = Reverse((at + stride(id), id));
            let identity = endpoints[id.index()].identity;
            let position = &mut positions[id.index()];
            let slot = loop {
                let slot = permuted(identity, *position);
                *position += 1;
                if slots[slot] == FREE {
                    break slot;
                }
            };
            slots[slot] = id.0;
        }
        Self { slots }
    }

    /// See [`super::Strategy::choose`]. O(1).
    #[must_use]
    pub fn choose(&self, available: &[EndpointId], c: &Candidates<'_>) -> Option<EndpointId> {
        let start = ((u128::from(c.key) * self.slots.len() as u128) >> 64) as usize;
        let walk = self.slots[start..].iter().chain(self.slots.iter().cycle());
        hash::first_taking(walk.map(|row| EndpointId(*row)), available, c)
    }
}

/// The slot at `position` of an endpoint's permutation: offset + position × skip, the number of slots being prime.
fn permuted(identity: u64, position: u32) -> usize {
    let slots = MAGLEV_SLOTS as u64;
    let (offset, skip) = (mix(identity) % slots, mix(!identity) % (slots - 1) + 1);
    ((offset + u64::from(position) * skip) % slots) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Balance, HashKey};
    use crate::policy::balancer::Strategy;
    use crate::policy::balancer::testing::{Tier, assert_shares, disruption, shares_of_keys};

    fn tier(weights: &[u32]) -> Tier {
        Tier::new(&Balance::Maglev(HashKey::Path), weights, 61)
    }

    fn slots_of(tier: &Tier) -> Vec<u32> {
        let Strategy::Maglev(maglev) = &tier.strategy else { panic!("a table") };
        let mut counts = vec![0; tier.endpoints.len()];
        maglev.slots.iter().for_each(|row| counts[usize::from(*row)] += 1);
        counts
    }

    #[test]
    fn slots_are_shared_by_weight_to_within_a_few() {
        let counts = slots_of(&tier(&[100, 100, 200, 0, 100]));
        for (count, share) in counts.iter().zip([0.2, 0.2, 0.4, 0.0, 0.2]) {
            assert!((f64::from(*count) - share * MAGLEV_SLOTS as f64).abs() <= 2.0, "{counts:?}");
        }
    }

    #[test]
    fn keys_pass_the_chi_square_test() {
        let keys = 100_000.0;
        let shares = shares_of_keys(&mut tier(&[1, 2, 3, 4]), keys as u32);
        let counts: Vec<u32> = shares.iter().map(|share| (share * keys).round() as u32).collect();
        assert_shares(&counts, &[1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn removing_one_of_ten_endpoints_moves_only_its_own_keys() {
        let (moved, moved_of_others) = disruption(&mut tier(&[1; 10]), 3, 20_000);
        assert!(moved <= 0.15, "{moved}");
        assert_eq!(moved_of_others, 0);
    }

    #[test]
    fn a_table_built_without_the_endpoint_moves_few_other_keys_too() {
        let (with, without) = (tier(&[1; 10]), tier(&[1, 1, 1, 0, 1, 1, 1, 1, 1, 1]));
        let table = |tier: &Tier| match &tier.strategy {
            Strategy::Maglev(maglev) => maglev.slots.clone(),
            _ => panic!("a table"),
        };
        let moved = table(&with).iter().zip(&table(&without)).filter(|(a, b)| a != b).count();
        assert!(moved as f64 <= 0.15 * MAGLEV_SLOTS as f64, "{moved}");
    }

    #[test]
    fn extreme_weights_build_and_a_tier_without_weight_is_empty() {
        let counts = slots_of(&tier(&[65_535, 1]));
        assert!(counts[0] >= 65_535, "{counts:?}");
        assert_eq!(tier(&[0, 0]).choose(), None);
    }
}
