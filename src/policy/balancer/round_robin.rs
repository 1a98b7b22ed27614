//! Round robin: the available endpoints in their order, each worker starting at a random place.
//!
//! The place is an endpoint's id, not a position in the list, so endpoints that come and go do not shift anyone's turn. Only a request's
//! first try takes a turn: if retries did too, two endpoints and a failing one would fall into step, the failing one getting
//! every first try. Weights do not count here, except that 0 drains.

use super::Candidates;
use crate::policy::chance;
use crate::units::{EndpointId, Rng};

/// Whose turn it is.
#[derive(Clone, Copy, Debug)]
pub struct RoundRobin {
    next: EndpointId,
}

impl RoundRobin {
    /// Starts at a random member.
    #[must_use]
    pub fn new(members: &[EndpointId], rng: &mut Rng) -> Self {
        Self { next: members.get(chance::below(rng, members.len())).copied().unwrap_or(EndpointId(0)) }
    }

    /// See [`super::Strategy::choose`]. O(log n), and one step for each endpoint that is skipped.
    pub fn choose(&mut self, available: &[EndpointId], c: &Candidates<'_>) -> Option<EndpointId> {
        let start = available.partition_point(|id| *id < self.next);
        let mut from_start = available[start..].iter().chain(&available[..start]);
        let id = *from_start.find(|id| c.take(**id))?;
        if c.is_first() {
            self.next = EndpointId(id.0 + 1);
        }
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Balance;
    use crate::policy::balancer::testing::Tier;
    use std::collections::HashSet;

    fn take(tier: &mut Tier, n: usize) -> Vec<u32> {
        (0..n).map(|_| u32::from(tier.choose().expect("one is available").0)).collect()
    }

    #[test]
    fn every_endpoint_has_its_turn_in_exact_order() {
        let mut tier = Tier::new(&Balance::RoundRobin, &[1, 9, 1, 1, 1], 21);
        let order = take(&mut tier, 1_000);
        assert!(order.windows(2).all(|pair| pair[1] == (pair[0] + 1) % 5), "{order:?}");
    }

    #[test]
    fn workers_start_at_different_places() {
        let starts: HashSet<_> =
            (0..64).map(|seed| take(&mut Tier::new(&Balance::RoundRobin, &[1; 8], seed), 1)).collect();
        assert_eq!(starts.len(), 8);
    }

    #[test]
    fn an_endpoint_that_leaves_and_returns_does_not_shift_the_others() {
        let mut tier = Tier::new(&Balance::RoundRobin, &[1; 4], 22);
        while take(&mut tier, 1) != [0] {}
        tier.endpoints[2].healthy = false;
        tier.rebuild();
        assert_eq!(take(&mut tier, 4), [1, 3, 0, 1]);
        tier.endpoints[2].healthy = true;
        tier.rebuild();
        assert_eq!(take(&mut tier, 4), [2, 3, 0, 1]);
    }

    #[test]
    fn a_retry_goes_to_the_next_endpoint_and_takes_nobodys_turn() {
        let mut tier = Tier::new(&Balance::RoundRobin, &[1; 2], 23);
        while take(&mut tier, 1) != [1] {}
        for _ in 0..10 {
            assert_eq!(take(&mut tier, 1), [0]);
            tier.tried = vec![tier.id(0)];
            assert_eq!(take(&mut tier, 1), [1]);
            tier.tried.clear();
            assert_eq!(take(&mut tier, 1), [1]);
        }
    }

    #[test]
    fn full_endpoints_are_passed_over() {
        let mut tier = Tier::new(&Balance::RoundRobin, &[1; 3], 24);
        tier.requests_max = 1;
        tier.endpoints[1].in_flight = 1;
        let order = take(&mut tier, 100);
        assert!(order.windows(2).all(|pair| pair[0] != pair[1] && pair[0] != 1), "{order:?}");
        tier.endpoints.iter_mut().for_each(|e| e.in_flight = 1);
        assert_eq!(tier.choose(), None);
    }
}
