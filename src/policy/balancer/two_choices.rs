//! Two random choices, the better one wins: `least_request` and `peak_ewma`.
//!
//! Mitzenmacher 2001 ("The power of two choices in randomized load balancing"): the fullest of n servers is nearly as empty as if all had
//! been compared, and no two workers herd onto the same one. Both candidates are drawn in proportion to their weights. `least_request`
//! takes the one with fewer in flight per weight, `peak_ewma` the one with the smaller round trip × (in flight per weight + 1). A tie goes
//! to the candidate drawn first, so an idle cluster is shared exactly by weight. Failures in a row count as requests in flight for a
//! while ([`Endpoint::load`]): an endpoint that refuses quickly is idle, and must not draw traffic for that.

use super::{Candidates, alias::Alias};
use crate::limits::RTT_DEFAULT;
use crate::policy::chance;
use crate::policy::endpoint::Endpoint;
use crate::units::{EndpointId, Instant, Rng, nanos};

/// Redraws when an endpoint cannot take the request; beyond that, the list is searched from a random place.
const DRAWS_MAX: usize = 8;

/// What makes a candidate better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cost {
    InFlight,
    RoundTrip,
}

/// The draws of one tier.
#[derive(Clone, Debug)]
pub struct TwoChoices {
    cost: Cost,
    alias: Alias,
    weight_mean: f32,
}

impl TwoChoices {
    /// Fewer in flight wins.
    #[must_use]
    pub fn least_request(members: usize) -> Self {
        Self { cost: Cost::InFlight, alias: Alias::with_capacity(members), weight_mean: 1.0 }
    }

    /// Shorter smoothed round trip × (in flight + 1) wins.
    #[must_use]
    pub fn peak_ewma(members: usize) -> Self {
        Self { cost: Cost::RoundTrip, alias: Alias::with_capacity(members), weight_mean: 1.0 }
    }

    /// See [`super::Strategy::rebuild`]. O(n).
    pub fn rebuild(&mut self, available: &[EndpointId], endpoints: &[Endpoint]) {
        let weights = available.iter().map(|id| endpoints[id.index()].weight);
        self.weight_mean = weights.clone().sum::<u32>() as f32 / available.len().max(1) as f32;
        self.alias.build(weights);
    }

    /// See [`super::Strategy::choose`]. O(1) while most endpoints take the request.
    pub fn choose(&self, available: &[EndpointId], c: &Candidates<'_>, rng: &mut Rng) -> Option<EndpointId> {
        let n = available.len();
        let first = self.draw(available, c, rng)?;
        if n == 1 {
            return Some(available[first]);
        }
        let mut second = self.alias.draw(rng);
        if second == first {
            second = (first + 1 + chance::below(rng, n - 1)) % n;
        }
        if !c.take(available[second]) {
            let from = second;
            second = (1..n).map(|i| (from + i) % n).find(|i| *i != first && c.take(available[*i])).unwrap_or(first);
        }
        let (first, second) = (available[first], available[second]);
        Some(if self.is_better(c.endpoint(second), c.endpoint(first), c.now) { second } else { first })
    }

    /// A position in proportion to weight among those that take the request.
    fn draw(&self, available: &[EndpointId], c: &Candidates<'_>, rng: &mut Rng) -> Option<usize> {
        let n = available.len();
        let drawn = (0..DRAWS_MAX.min(4 * n)).map(|_| self.alias.draw(rng)).find(|i| c.take(available[*i]));
        drawn.or_else(|| {
            let from = chance::below(rng, n);
            (0..n).map(|i| (from + i) % n).find(|i| c.take(available[*i]))
        })
    }

    fn is_better(&self, a: &Endpoint, b: &Endpoint, now: Instant) -> bool {
        match self.cost {
            Cost::InFlight => {
                u64::from(a.load(now)) * u64::from(b.weight) < u64::from(b.load(now)) * u64::from(a.weight)
            }
            Cost::RoundTrip => {
                // an endpoint that was never measured is taken to be like the other one
                let (rtt_a, rtt_b) = (a.rtt.get(now), b.rtt.get(now));
                let default = nanos(RTT_DEFAULT) as f32;
                let load = |e: &Endpoint| e.load(now) as f32 * self.weight_mean / e.weight.max(1) as f32 + 1.0;
                let cost_a = rtt_a.or(rtt_b).unwrap_or(default) * load(a);
                cost_a < rtt_b.or(rtt_a).unwrap_or(default) * load(b)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Balance;
    use crate::policy::balancer::testing::{Tier, assert_shares};
    use std::time::Duration;

    #[test]
    fn idle_endpoints_share_by_weight() {
        for (balance, seed) in [(Balance::LeastRequest, 41), (Balance::PeakEwma, 42)] {
            assert_shares(&Tier::new(&balance, &[1; 10], seed).counts(50_000), &[1.0; 10]);
            let mut tier = Tier::new(&balance, &[10, 20, 0, 30, 40], seed);
            let counts = tier.counts(50_000);
            assert_eq!(counts[2], 0);
            assert_shares(&[counts[0], counts[1], counts[3], counts[4]], &[1.0, 2.0, 3.0, 4.0]);
        }
    }

    #[test]
    fn of_two_endpoints_the_one_with_fewer_in_flight_always_wins() {
        let mut tier = Tier::new(&Balance::LeastRequest, &[1, 1], 43);
        tier.endpoints[0].in_flight = 1;
        assert_eq!(tier.counts(1_000), [0, 1_000]);
    }

    #[test]
    fn requests_in_flight_settle_in_proportion_to_weight() {
        let mut tier = Tier::new(&Balance::LeastRequest, &[100, 200, 300], 44);
        for _ in 0..600 {
            let id = tier.choose().unwrap();
            tier.endpoints[id.index()].in_flight += 1;
        }
        let in_flight: Vec<u32> = tier.endpoints.iter().map(|e| e.in_flight).collect();
        assert!(in_flight.iter().zip([100, 200, 300]).all(|(have, want)| have.abs_diff(want) <= 6), "{in_flight:?}");
    }

    #[test]
    fn the_fullest_of_many_is_hardly_fuller_than_the_mean() {
        let mut tier = Tier::new(&Balance::LeastRequest, &[1; 100], 45);
        for _ in 0..1_000 {
            let id = tier.choose().unwrap();
            tier.endpoints[id.index()].in_flight += 1;
        }
        let most = tier.endpoints.iter().map(|e| e.in_flight).max().unwrap();
        assert!(most <= 13, "mean 10, fullest {most}");
    }

    #[test]
    fn the_quicker_endpoint_gets_more_until_it_is_busy() {
        let mut tier = Tier::new(&Balance::PeakEwma, &[1, 1], 46);
        tier.endpoints[0].rtt.on_sample(Duration::from_millis(10), tier.now);
        tier.endpoints[1].rtt.on_sample(Duration::from_millis(50), tier.now);
        assert_eq!(tier.counts(100), [100, 0]);
        tier.endpoints[0].in_flight = 5;
        assert_eq!(tier.counts(100), [0, 100], "10 ms × 6 against 50 ms × 1");
    }

    #[test]
    fn failing_quickly_is_no_reason_to_be_chosen() {
        for balance in [Balance::LeastRequest, Balance::PeakEwma] {
            let mut tier = Tier::new(&balance, &[1, 1], 49);
            tier.endpoints[0].doubts = 2;
            tier.endpoints[0].doubted_until = tier.now + Duration::from_secs(1);
            tier.endpoints[1].in_flight = 1;
            assert_eq!(tier.counts(100), [0, 100], "{balance:?}");
            tier.now += Duration::from_secs(1);
            assert_eq!(tier.counts(100), [100, 0], "{balance:?}: doubts end");
        }
    }

    #[test]
    fn an_endpoint_never_measured_stands_equal_to_its_rival() {
        let mut tier = Tier::new(&Balance::PeakEwma, &[1, 1], 47);
        tier.endpoints[0].rtt.on_sample(Duration::from_micros(200), tier.now);
        assert_shares(&tier.counts(10_000), &[1.0, 1.0]);
    }

    #[test]
    fn tried_and_full_endpoints_are_never_chosen() {
        for balance in [Balance::LeastRequest, Balance::PeakEwma] {
            let mut tier = Tier::new(&balance, &[1; 20], 48);
            tier.requests_max = 1;
            tier.endpoints[2..].iter_mut().for_each(|e| e.in_flight = 1);
            tier.tried = vec![tier.id(0)];
            assert_eq!(tier.counts(200)[1], 200);
            tier.tried.push(tier.id(1));
            assert_eq!(tier.choose(), None);
        }
    }
}
