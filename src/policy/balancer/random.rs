//! Random by availability: P(sᵢ) = aᵢ / Σaⱼ over the available endpoints.
//!
//! Availabilities change with every outcome and with time, so nothing is precomputed: draw an endpoint uniformly and
//! accept it with probability aᵢ, else draw again (rejection sampling, von Neumann 1951). Accepted draws have exactly the wanted
//! distribution, and while most endpoints work this takes one or two draws, whatever their number. After a few rejections
//! (nearly everything fails) one pass over all of them draws from the same distribution directly, which bounds the time. Weights do
//! not count here, except that 0 drains.

use super::Candidates;
use crate::policy::chance;
use crate::units::{EndpointId, Rng};

const DRAWS_MAX: usize = 16;

/// Keeps nothing: all it needs is each endpoint's availability.
#[derive(Clone, Copy, Debug)]
pub struct Random;

impl Random {
    /// See [`super::Strategy::choose`].
    pub fn choose(&self, available: &[EndpointId], c: &Candidates<'_>, rng: &mut Rng) -> Option<EndpointId> {
        let share = |id: EndpointId| f64::from(c.endpoint(id).availability.get(c.now));
        for _ in 0..DRAWS_MAX.min(4 * available.len()) {
            let id = available[chance::below(rng, available.len())];
            if c.take(id) && chance::unit(rng) < share(id) {
                return Some(id);
            }
        }
        // each replaces the one before with the probability of its share of all so far (Chao 1982)
        let (mut sum, mut chosen) = (0.0, None);
        for id in available.iter().copied().filter(|id| c.take(*id)) {
            let share = share(id);
            sum += share;
            if chosen.is_none() || chance::unit(rng) * sum < share {
                chosen = Some(id);
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Balance;
    use crate::policy::balancer::testing::{Tier, assert_shares};

    #[test]
    fn endpoints_never_tried_are_drawn_equally_whatever_their_weight() {
        let mut tier = Tier::new(&Balance::Random, &[1, 1, 50, 1], 11);
        let counts = tier.counts(40_000);
        assert_shares(&counts, &[1.0, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn draws_follow_availability_exactly() {
        let mut tier = Tier::new(&Balance::Random, &[1, 1, 1], 12);
        // a = (4 + 1) / (10 + 1), 1, and (0 + 1) / (3 + 1)
        (0..10).for_each(|i| tier.endpoints[0].availability.on_outcome(i < 4, tier.now));
        (0..3).for_each(|_| tier.endpoints[2].availability.on_outcome(false, tier.now));
        let counts = tier.counts(40_000);
        assert_shares(&counts, &[5.0 / 11.0, 1.0, 0.25]);
    }

    #[test]
    fn draws_follow_availability_when_nearly_everything_fails() {
        let mut tier = Tier::new(&Balance::Random, &[1, 1, 1], 13);
        for (endpoint, failures) in tier.endpoints.iter_mut().zip([99, 199, 399]) {
            (0..failures).for_each(|_| endpoint.availability.on_outcome(false, tier.now));
        }
        let counts = tier.counts(40_000);
        assert_shares(&counts, &[4.0, 2.0, 1.0]);
    }

    #[test]
    fn an_endpoint_that_was_tried_is_not_drawn_again() {
        let mut tier = Tier::new(&Balance::Random, &[1, 1, 1], 14);
        tier.tried = vec![tier.id(1)];
        let counts = tier.counts(10_000);
        assert_eq!(counts[1], 0);
        assert_shares(&[counts[0], counts[2]], &[1.0, 1.0]);
        tier.tried = vec![tier.id(0), tier.id(1), tier.id(2)];
        assert_eq!(tier.choose(), None);
    }
}
