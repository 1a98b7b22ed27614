//! What the strategies' tests share: one tier, a chi-square test, and the disruption of a hash.

use super::{Candidates, Strategy};
use crate::config::Balance;
use crate::policy::chance::{hash_key, mix};
use crate::policy::endpoint::Endpoint;
use crate::policy::visited::Visited;
use crate::units::{EndpointId, Instant, Rng};
use rand::SeedableRng;
use std::time::Duration;

/// One tier with one strategy; fields are changed by the tests, then [`Tier::rebuild`] where availability is concerned.
pub(crate) struct Tier {
    pub(crate) strategy: Strategy,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) available: Vec<EndpointId>,
    pub(crate) tried: Vec<EndpointId>,
    pub(crate) requests_max: u32,
    pub(crate) coin: Option<f64>,
    pub(crate) now: Instant,
    key: u64,
    rng: Rng,
}

impl Tier {
    pub(crate) fn new(balance: &Balance, weights: &[u32], seed: u64) -> Self {
        let mut rng = Rng::seed_from_u64(seed);
        let endpoint =
            |(i, weight): (usize, &u32)| Endpoint::new(*weight, 0, hash_key(format!("10.0.0.{i}").as_bytes()));
        let endpoints: Vec<_> = weights.iter().enumerate().map(endpoint).collect();
        let members: Vec<_> = (0..weights.len()).map(EndpointId::from_index).collect();
        let strategy = Strategy::new(balance, &members, &endpoints, &mut rng);
        let now = Instant::from_nanos(1_000_000_000);
        let (available, tried) = (Vec::new(), Vec::new());
        let mut tier =
            Self { strategy, endpoints, available, tried, requests_max: u32::MAX, coin: None, now, key: 0, rng };
        tier.rebuild();
        tier
    }

    pub(crate) fn id(&self, index: usize) -> EndpointId {
        EndpointId::from_index(index)
    }

    pub(crate) fn set_key(&mut self, key: u32) {
        self.key = mix(u64::from(key));
    }

    pub(crate) fn rebuild(&mut self) {
        let all = (0..self.endpoints.len()).map(EndpointId::from_index);
        self.available = all.filter(|id| self.endpoints[id.index()].is_available()).collect();
        self.strategy.rebuild(&self.available, &self.endpoints);
    }

    pub(crate) fn choose(&mut self) -> Option<EndpointId> {
        let candidates = Candidates {
            endpoints: &self.endpoints,
            tried: &self.tried,
            refused: &Visited::EMPTY,
            reached: None,
            requests_max: self.requests_max,
            slow_start: Duration::from_secs(10),
            key: self.key,
            coin: self.coin,
            now: self.now,
        };
        self.strategy.choose(&self.available, &candidates, &mut self.rng)
    }

    /// How often each endpoint was chosen.
    pub(crate) fn counts(&mut self, choices: u32) -> Vec<u32> {
        let mut counts = vec![0; self.endpoints.len()];
        (0..choices).for_each(|_| counts[self.choose().expect("one is available").index()] += 1);
        counts
    }
}

/// Each endpoint's share of `keys` keys.
pub(crate) fn shares_of_keys(tier: &mut Tier, keys: u32) -> Vec<f64> {
    let mut counts = vec![0u32; tier.endpoints.len()];
    for key in 0..keys {
        tier.set_key(key);
        counts[tier.choose().expect("one is available").index()] += 1;
    }
    counts.iter().map(|count| f64::from(*count) / f64::from(keys)).collect()
}

/// Takes one endpoint away: the share of keys that moved, and how many moved that were not its own.
pub(crate) fn disruption(tier: &mut Tier, removed: usize, keys: u32) -> (f64, u32) {
    let assign = |tier: &mut Tier| -> Vec<EndpointId> {
        let one = |key| {
            tier.set_key(key);
            tier.choose().expect("one is available")
        };
        (0..keys).map(one).collect()
    };
    let before = assign(tier);
    tier.endpoints[removed].healthy = false;
    tier.rebuild();
    let after = assign(tier);
    let moved = before.iter().zip(&after).filter(|(b, a)| b != a);
    let of_others = moved.clone().filter(|(b, _)| b.index() != removed).count() as u32;
    (moved.count() as f64 / f64::from(keys), of_others)
}

/// Fails unless `counts` may come from `shares` (relative): Pearson's chi-square test at p = 0.001.
#[track_caller]
pub(crate) fn assert_shares(counts: &[u32], shares: &[f64]) {
    let (p, total) = (chi_square_p(counts, shares), counts.iter().sum::<u32>());
    assert!(p > 0.001, "p = {p:.6} for {counts:?} of {total} against {shares:?}");
}

/// The probability of a deviation at least as large as this one, by the Wilson–Hilferty approximation (1931) of the chi-square
/// distribution: good to about 0.0005 in the tail.
fn chi_square_p(counts: &[u32], shares: &[f64]) -> f64 {
    assert_eq!(counts.len(), shares.len());
    let (total, whole) = (counts.iter().sum::<u32>(), shares.iter().sum::<f64>());
    let term = |(count, share): (&u32, &f64)| {
        let expected = f64::from(total) * share / whole;
        (f64::from(*count) - expected).powi(2) / expected
    };
    let statistic: f64 = counts.iter().zip(shares).map(term).sum();
    let freedom = (counts.len() - 1) as f64;
    if freedom == 0.0 {
        return 1.0;
    }
    let spread = 2.0 / (9.0 * freedom);
    normal_tail(((statistic / freedom).cbrt() - (1.0 - spread)) / spread.sqrt())
}

/// P(Z > z), by Abramowitz and Stegun 7.1.26.
fn normal_tail(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let poly =
        t * (0.254_829_592 + t * (-0.284_496_736 + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    let tail = 0.5 * poly * (-x * x).exp();
    if z < 0.0 { 1.0 - tail } else { tail }
}

#[test]
fn the_chi_square_test_knows_the_tables() {
    // critical values at p = 0.05 and 0.001 (NIST e-Handbook 1.3.6.7.4): two, four and ten classes
    for (freedom, statistic, p) in
        [(1, 3.841, 0.05), (3, 7.815, 0.05), (9, 16.919, 0.05), (3, 16.266, 0.001), (9, 27.877, 0.001)]
    {
        let spread = 2.0 / (9.0 * f64::from(freedom));
        let z = ((statistic / f64::from(freedom)).cbrt() - (1.0 - spread)) / f64::sqrt(spread);
        assert!((normal_tail(z) - p).abs() < p * 0.15, "{freedom} {statistic}: {}", normal_tail(z));
    }
    assert!(chi_square_p(&[5_000, 5_000], &[1.0, 1.0]) > 0.9);
    assert!(chi_square_p(&[5_200, 4_800], &[1.0, 1.0]) < 0.001);
    assert!(chi_square_p(&[2_000, 6_400, 1_600], &[2.0, 6.0, 2.0]) < 0.001);
}
