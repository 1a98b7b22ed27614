//! Smooth weighted round robin: P(sᵢ) = wᵢ / Σwⱼ, spread as evenly over time as whole turns allow; weight 0 drains.
//!
//! nginx's rule (Roman Arutyunyan's commit 52327e0627f4, 2012): each turn adds every endpoint's weight to its credit, the
//! highest credit wins and pays the sum of all weights; 5 : 1 : 1 gives a a b a c a a. Done literally that is O(n) a turn. But endpoints
//! of equal weight gain equally, so among them turns simply rotate, and only the head of each rotation can
//! win: one credit per *distinct weight* gives the same sequence in O(distinct weights), which is O(1) for equal ones.
//!
//! Only a request's first try takes a turn (see [`super::round_robin`]). An endpoint that cannot take its turn is stood in for by the next
//! of its weight, so nobody's share but its own shrinks. A change of the available set starts the credits afresh,
//! behind the endpoint chosen last, so frequent changes do not favour the first of the list.

use super::Candidates;
use crate::policy::chance;
use crate::policy::endpoint::Endpoint;
use crate::units::{EndpointId, Rng};

/// Endpoints of one weight.
#[derive(Clone, Copy, Debug)]
struct Group {
    weight: i64,
    /// Of the head.
    credit: i64,
    start: u32,
    len: u32,
    /// The head, counted from `start`.
    head: u32,
}

/// The turns of one tier.
#[derive(Clone, Debug)]
pub struct Weighted {
    groups: Vec<Group>,
    /// By group, in the order of ties; with each its rank in that order.
    order: Vec<(EndpointId, u32)>,
    weights_sum: i64,
    last: EndpointId,
}

impl Weighted {
    /// Starts at a random member.
    #[must_use]
    pub fn new(members: &[EndpointId], rng: &mut Rng) -> Self {
        let last = members.get(chance::below(rng, members.len())).copied().unwrap_or(EndpointId(0));
        let n = members.len();
        Self { groups: Vec::with_capacity(n), order: Vec::with_capacity(n), weights_sum: 0, last }
    }

    /// See [`super::Strategy::rebuild`]. O(n log n).
    pub fn rebuild(&mut self, available: &[EndpointId], endpoints: &[Endpoint]) {
        let after_last = available.partition_point(|id| *id <= self.last);
        let rotated = available[after_last..].iter().chain(&available[..after_last]);
        self.order.clear();
        self.order.extend(rotated.zip(0..).map(|(id, rank)| (*id, rank)));
        let weight_of = |id: EndpointId| endpoints[id.index()].weight;
        self.order.sort_unstable_by_key(|(id, rank)| (std::cmp::Reverse(weight_of(*id)), *rank));
        self.groups.clear();
        let mut start = 0;
        for same in self.order.chunk_by(|a, b| weight_of(a.0) == weight_of(b.0)) {
            let (weight, len) = (i64::from(weight_of(same[0].0)), same.len() as u32);
            self.groups.push(Group { weight, credit: 0, start, len, head: 0 });
            start += len;
        }
        self.weights_sum = self.groups.iter().map(|g| g.weight * i64::from(g.len)).sum();
    }

    /// See [`super::Strategy::choose`]. O(distinct weights), and one step for each endpoint that is skipped.
    pub fn choose(&mut self, c: &Candidates<'_>) -> Option<EndpointId> {
        let mut best: Option<(usize, i64, u32, EndpointId)> = None;
        for (g, group) in self.groups.iter().enumerate() {
            let credit = group.credit + group.weight;
            let (_, rank) = self.order[(group.start + group.head) as usize];
            if best
                .is_some_and(|(_, most, first, _)| (most, std::cmp::Reverse(first)) > (credit, std::cmp::Reverse(rank)))
            {
                continue;
            }
            if let Some(id) = self.first_taking(group, c) {
                best = Some((g, credit, rank, id));
            }
        }
        let (g, .., id) = best?;
        if c.is_first() {
            self.pay(g, id);
        }
        Some(id)
    }

    /// The head of the group, or who stands in for it.
    fn first_taking(&self, group: &Group, c: &Candidates<'_>) -> Option<EndpointId> {
        let (start, len) = (group.start as usize, group.len as usize);
        let (before, from_head) = self.order[start..start + len].split_at(group.head as usize);
        from_head.iter().chain(before).map(|(id, _)| *id).find(|id| c.take(*id))
    }

    fn pay(&mut self, winner: usize, id: EndpointId) {
        self.groups.iter_mut().for_each(|group| group.credit += group.weight);
        let group = &mut self.groups[winner];
        group.head += 1;
        if group.head == group.len {
            // a whole round of the group has paid, so the first of the next round has paid once more than the last of this one
            group.head = 0;
            group.credit -= self.weights_sum;
        }
        self.last = id;
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Balance;
    use crate::policy::balancer::testing::{Tier, assert_shares};
    use crate::policy::chance;
    use crate::units::Rng;
    use rand::SeedableRng;

    /// nginx's loop, literally; ties go to the endpoint that comes first in `order`.
    fn nginx(weights: &[u32], order: &[usize], turns: usize) -> Vec<u32> {
        let sum: i64 = weights.iter().map(|w| i64::from(*w)).sum();
        let mut credits = vec![0i64; weights.len()];
        let turn = |_| {
            credits.iter_mut().zip(weights).for_each(|(credit, weight)| *credit += i64::from(*weight));
            let drained = |i: &&usize| weights[**i] > 0;
            let best = order.iter().filter(drained).copied().reduce(|a, b| if credits[b] > credits[a] { b } else { a });
            let best = best.expect("a weight is positive");
            credits[best] -= sum;
            best as u32
        };
        (0..turns).map(turn).collect()
    }

    fn turns(tier: &mut Tier, n: usize) -> Vec<u32> {
        (0..n).map(|_| u32::from(tier.choose().expect("one is available").0)).collect()
    }

    #[test]
    fn five_to_one_to_one_is_spread_as_nginx_spreads_it() {
        assert_eq!(nginx(&[5, 1, 1], &[0, 1, 2], 7), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn the_sequence_is_nginxs_for_any_weights() {
        let mut rng = Rng::seed_from_u64(31);
        for seed in 0..200 {
            let n = 1 + chance::below(&mut rng, 12);
            let mut weights: Vec<u32> = (0..n).map(|_| chance::below(&mut rng, 6) as u32 * 10).collect();
            weights[0] += 1;
            let mut tier = Tier::new(&Balance::Weighted, &weights, seed);
            let ours = turns(&mut tier, 500);
            let matches = |start: &usize| {
                let order: Vec<usize> = (0..n).map(|i| (start + i) % n).collect();
                nginx(&weights, &order, 500) == ours
            };
            assert!((0..n).any(|start| matches(&start)), "seed {seed}, weights {weights:?}: {ours:?}");
        }
    }

    #[test]
    fn ten_thousand_requests_split_by_weight_to_the_last_one() {
        let mut tier = Tier::new(&Balance::Weighted, &[100, 300, 0, 100], 32);
        assert_eq!(tier.counts(10_000), [2_000, 6_000, 0, 2_000]);
    }

    #[test]
    fn an_endpoint_that_flaps_does_not_favour_the_first_of_the_list() {
        let mut tier = Tier::new(&Balance::Weighted, &[1; 5], 33);
        let mut counts = [0; 5];
        for i in 0..5_000 {
            tier.endpoints[4].healthy = i % 2 == 0;
            tier.rebuild();
            turns(&mut tier, 3).iter().for_each(|id| counts[*id as usize] += 1);
        }
        let (least, most) = (counts[..4].iter().min().unwrap(), counts[..4].iter().max().unwrap());
        assert!(most - least <= counts.iter().sum::<u32>() / 50, "{counts:?}");
    }

    #[test]
    fn who_cannot_take_its_turn_loses_it_to_the_others_by_weight() {
        let mut tier = Tier::new(&Balance::Weighted, &[40, 20, 20, 20], 34);
        tier.requests_max = 1;
        tier.endpoints[2].in_flight = 1;
        let counts = tier.counts(10_000);
        assert_eq!((counts[0], counts[1] + counts[3]), (4_000, 6_000));
        tier.tried = vec![tier.id(1), tier.id(3)];
        assert_eq!(tier.choose(), Some(tier.id(0)));
        tier.tried.push(tier.id(0));
        assert_eq!(tier.choose(), None);
    }

    #[test]
    fn the_split_passes_the_chi_square_test() {
        let mut tier = Tier::new(&Balance::Weighted, &[7, 1, 2, 90], 35);
        let counts = tier.counts(10_000);
        assert_shares(&counts, &[7.0, 1.0, 2.0, 90.0]);
    }
}
