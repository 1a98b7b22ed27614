//! Tiers: which share of the load each `priority` gets when some of its endpoints are not available.
//!
//! A tier's health is 1.4 × available / all, at most 1: a tier with 72 % of its endpoints left carries everything, one with
//! half of them 70 %, and what it cannot carry spills to the next. When all tiers together are not whole, each carries in
//! proportion to its health. The factor and the rule are Envoy's (docs, "Priority levels"); unlike Envoy there is no panic threshold: the
//! cluster fails open only when no endpoint is available anywhere. It is assumed that a tier can carry the load that spills to it.
//!
//! A *strict* cluster (`spill = "none"`) spills nothing: the best tier that has anybody left carries everything (HAProxy's and nginx's
//! `backup`).

use crate::limits::{TIER_OVERPROVISION_PERCENT, TIERS_MAX};

/// Parts of the load, in 1/65,536.
const WHOLE: u64 = 1 << 16;

/// The split of the load over the tiers.
#[derive(Clone, Copy, Debug)]
pub struct Shares {
    /// Cumulated: tier i gets draws in `upto[i - 1]..upto[i]`.
    upto: [u32; TIERS_MAX],
    len: u8,
}

impl Shares {
    /// From `(available, all)` endpoints of each tier, best first; at most [`TIERS_MAX`] tiers, `available` ≤ `all`.
    #[must_use]
    pub fn new(tiers: impl Iterator<Item = (usize, usize)> + Clone, strict: bool) -> Self {
        let health = |(available, all): (usize, usize)| {
            if strict {
                return if available > 0 { WHOLE } else { 0 };
            }
            let health = (available as u64 * WHOLE * TIER_OVERPROVISION_PERCENT).checked_div(all as u64 * 100);
            health.unwrap_or(0).min(WHOLE)
        };
        let total = tiers.clone().map(health).sum::<u64>().clamp(1, WHOLE);
        let mut shares = Self { upto: [0; TIERS_MAX], len: 0 };
        let (mut given, mut last) = (0, None);
        for (i, counts) in tiers.take(TIERS_MAX).enumerate() {
            let share = (health(counts) * WHOLE / total).min(WHOLE - given);
            given += share;
            last = if share > 0 { Some(i) } else { last };
            shares.upto[i] = given as u32;
            shares.len += 1;
        }
        // what rounding lost belongs to the last tier that carries anything
        if let Some(last) = last {
            shares.upto[last..usize::from(shares.len)].fill(WHOLE as u32);
        }
        shares
    }

    /// The tier of a uniformly drawn `point`; `None` when no tier has an available endpoint.
    #[must_use]
    pub fn tier_of(&self, point: u16) -> Option<usize> {
        self.upto[..usize::from(self.len)].iter().position(|upto| u32::from(point) < *upto)
    }

    /// The only tier that carries anything, if there is exactly one; spares the draw.
    #[must_use]
    pub fn sole(&self) -> Option<usize> {
        self.tier_of(0).filter(|tier| self.upto[*tier] == WHOLE as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percent(tiers: &[(usize, usize)]) -> Vec<u32> {
        let shares = Shares::new(tiers.iter().copied(), false);
        let mut counts = vec![0u32; tiers.len()];
        (0..=u16::MAX).filter_map(|point| shares.tier_of(point)).for_each(|tier| counts[tier] += 1);
        counts.iter().map(|c| (f64::from(*c) * 100.0 / WHOLE as f64).round() as u32).collect()
    }

    #[test]
    fn the_load_spills_as_the_table_of_envoys_documentation_says() {
        assert_eq!(percent(&[(100, 100), (100, 100)]), [100, 0]);
        assert_eq!(percent(&[(72, 100), (100, 100)]), [100, 0]);
        assert_eq!(percent(&[(71, 100), (100, 100)]), [99, 1]);
        assert_eq!(percent(&[(50, 100), (100, 100)]), [70, 30]);
        assert_eq!(percent(&[(25, 100), (100, 100)]), [35, 65]);
        assert_eq!(percent(&[(0, 100), (100, 100)]), [0, 100]);
    }

    #[test]
    fn tiers_that_are_not_whole_together_carry_in_proportion_to_their_health() {
        assert_eq!(percent(&[(25, 100), (25, 100)]), [50, 50]);
        assert_eq!(percent(&[(5, 100), (10, 100), (0, 1)]), [33, 67, 0]);
        assert_eq!(percent(&[(0, 3), (1, 3), (1, 3)]), [0, 50, 50]);
    }

    #[test]
    fn no_tier_is_drawn_when_nothing_is_available() {
        assert_eq!(percent(&[(0, 2), (0, 0)]), [0, 0]);
        assert_eq!(Shares::new([(0, 2)].into_iter(), false).sole(), None);
        assert_eq!(Shares::new([].into_iter(), false).tier_of(0), None);
    }

    #[test]
    fn a_strict_cluster_spills_nothing_while_anybody_is_left() {
        let sole = |tiers: &[(usize, usize)]| Shares::new(tiers.iter().copied(), true).sole();
        assert_eq!(sole(&[(1, 100), (100, 100)]), Some(0));
        assert_eq!(sole(&[(0, 100), (1, 100), (5, 5)]), Some(1));
        assert_eq!(sole(&[(0, 1), (0, 1)]), None);
    }

    #[test]
    fn a_lone_carrying_tier_needs_no_draw() {
        assert_eq!(Shares::new([(2, 2), (1, 1)].into_iter(), false).sole(), Some(0));
        assert_eq!(Shares::new([(0, 2), (1, 1)].into_iter(), false).sole(), Some(1));
        assert_eq!(Shares::new([(1, 2), (1, 1)].into_iter(), false).sole(), None);
    }
}
