//! Ring hash: each key always meets the same endpoint, and an endpoint that leaves moves only its own keys.
//!
//! Ketama (R. Jones 2007, after Karger et al. 1997, "Consistent hashing and random trees"): every endpoint puts points on a ring,
//! 160 at average weight and more or fewer in proportion; a key belongs to the first point at or after its hash. The points come from the
//! endpoint's address, so they are the same on every worker and survive reordering of the file. The ring is built once;
//! endpoints that are not available are walked past. 64-bit hashes instead of ketama's MD5: the assignment is its own,
//! not libketama's.

use super::{Candidates, hash};
use crate::limits::{RING_POINTS_MAX, RING_POINTS_PER_ENDPOINT};
use crate::policy::chance::mix;
use crate::policy::endpoint::Endpoint;
use crate::units::EndpointId;

/// The points of one tier.
#[derive(Clone, Debug)]
pub struct Ring {
    /// Ascending.
    points: Vec<u64>,
    /// Whose point it is.
    owners: Vec<EndpointId>,
}

impl Ring {
    /// Over all members of positive weight. O(points × log points).
    #[must_use]
    pub fn new(members: &[EndpointId], endpoints: &[Endpoint]) -> Self {
        let weight_of = |id: &EndpointId| u64::from(endpoints[id.index()].weight);
        let sum: u64 = members.iter().map(weight_of).sum();
        let positive = members.iter().filter(|id| weight_of(id) > 0).count();
        let total = (positive * RING_POINTS_PER_ENDPOINT).min(RING_POINTS_MAX - positive) as u64;
        let mut points = Vec::with_capacity(total as usize + positive);
        for id in members.iter().filter(|id| weight_of(id) > 0) {
            let identity = endpoints[id.index()].identity;
            let own = (weight_of(id) * total / sum).max(1);
            points.extend((0..own).map(|i| (mix(identity ^ mix(i)), *id)));
        }
        points.sort_unstable();
        let (points, owners) = points.into_iter().unzip();
        Self { points, owners }
    }

    /// See [`super::Strategy::choose`]. O(log points).
    #[must_use]
    pub fn choose(&self, available: &[EndpointId], c: &Candidates<'_>) -> Option<EndpointId> {
        let start = self.points.partition_point(|point| *point < c.key);
        let walk = self.owners[start..].iter().chain(self.owners.iter().cycle());
        hash::first_taking(walk.copied(), available, c)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Balance, HashKey};
    use crate::limits::{ENDPOINTS_MAX, RING_POINTS_MAX};
    use crate::policy::balancer::Strategy;
    use crate::policy::balancer::testing::{Tier, disruption, shares_of_keys};

    fn tier(weights: &[u32]) -> Tier {
        Tier::new(&Balance::RingHash(HashKey::Path), weights, 51)
    }

    #[test]
    fn keys_spread_by_weight_within_the_accuracy_of_the_ring() {
        let shares = shares_of_keys(&mut tier(&[100, 100, 200, 0, 100]), 100_000);
        for (share, expected) in shares.iter().zip([0.2, 0.2, 0.4, 0.0, 0.2]) {
            assert!((share - expected).abs() <= expected * 0.25, "{shares:?}");
        }
    }

    #[test]
    fn removing_one_of_ten_endpoints_moves_only_its_own_keys() {
        let (moved, moved_of_others) = disruption(&mut tier(&[1; 10]), 3, 20_000);
        assert!(moved <= 0.15, "{moved}");
        assert_eq!(moved_of_others, 0);
    }

    #[test]
    fn the_ring_is_bounded_and_even_the_lightest_endpoint_has_a_point() {
        let mut weights = vec![65_535; ENDPOINTS_MAX];
        weights[0] = 1;
        let tier = tier(&weights);
        let Strategy::Ring(ring) = &tier.strategy else { panic!("a ring") };
        assert!(ring.points.len() <= RING_POINTS_MAX && ring.points.is_sorted());
        assert!(ring.owners.contains(&tier.id(0)));
    }

    #[test]
    fn a_retry_walks_on_to_another_endpoint() {
        let mut tier = tier(&[1; 3]);
        for key in 0..100 {
            tier.set_key(key);
            tier.tried.clear();
            for _ in 0..3 {
                let id = tier.choose().expect("one is left");
                assert!(!tier.tried.contains(&id));
                tier.tried.push(id);
            }
            assert_eq!(tier.choose(), None);
        }
    }
}
