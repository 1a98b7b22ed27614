//! Draws in proportion to weights in O(1): Vose's alias method (1991, "A linear algorithm for generating random numbers with a
//! given distribution").
//!
//! Every row holds one column of equal height, filled by its own weight up to a threshold and by another row's above it. A draw
//! picks a column uniformly and then one of the two. Equal weights need no table. Building is O(n), in place.

use crate::policy::chance;
use crate::units::Rng;
use rand::Rng as _;

/// Rows with weights.
#[derive(Clone, Debug, Default)]
pub struct Alias {
    /// Own share of the column in 1/2³², and who has the rest; empty when all weights are equal.
    columns: Vec<(u32, u32)>,
    rows: usize,
    /// Kept between builds so that rebuilding allocates nothing.
    scaled: Vec<u64>,
    queues: Vec<u32>,
}

impl Alias {
    /// Room for `rows` rows, none of them filled.
    #[must_use]
    pub fn with_capacity(rows: usize) -> Self {
        let (columns, scaled, queues) = (Vec::with_capacity(rows), Vec::with_capacity(rows), Vec::with_capacity(rows));
        Self { columns, rows: 0, scaled, queues }
    }

    /// Takes new weights: positive, at most [`crate::limits::WEIGHT_MAX`], at most [`crate::limits::ENDPOINTS_MAX`] of them.
    pub fn build(&mut self, weights: impl ExactSizeIterator<Item = u32> + Clone) {
        self.rows = weights.len();
        self.columns.clear();
        let sum: u64 = weights.clone().map(u64::from).sum();
        let first = weights.clone().next().unwrap_or(0);
        if weights.clone().all(|weight| weight == first) {
            return;
        }
        // a column is `sum` high, a row's weight fills `weight * rows` of it: exact in integers
        self.scaled.clear();
        self.scaled.extend(weights.map(|weight| u64::from(weight) * self.rows as u64));
        self.columns.extend((0..self.rows as u32).map(|row| (u32::MAX, row)));
        // one list from both ends: rows below the height of a column grow from the front, the others from the back
        self.queues.clear();
        self.queues.resize(self.rows, 0);
        let (mut small, mut large) = (0, self.rows);
        for row in 0..self.rows {
            self.file(row as u32, sum, &mut small, &mut large);
        }
        while small > 0 && large < self.rows {
            small -= 1;
            let (lesser, greater) = (self.queues[small], self.queues[large]);
            large += 1;
            let filled = self.scaled[lesser as usize];
            self.columns[lesser as usize] = ((u128::from(filled) * (1 << 32) / u128::from(sum)) as u32, greater);
            self.scaled[greater as usize] -= sum - filled;
            self.file(greater, sum, &mut small, &mut large);
        }
    }

    /// A row in proportion to its weight; 0 when there is none.
    #[must_use]
    pub fn draw(&self, rng: &mut Rng) -> usize {
        let row = chance::below(rng, self.rows);
        match self.columns.get(row) {
            Some((own, other)) if rng.next_u32() > *own => *other as usize,
            _ => row,
        }
    }

    fn file(&mut self, row: u32, sum: u64, small: &mut usize, large: &mut usize) {
        if self.scaled[row as usize] < sum {
            self.queues[*small] = row;
            *small += 1;
        } else {
            *large -= 1;
            self.queues[*large] = row;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::balancer::testing::assert_shares;
    use rand::SeedableRng;

    #[test]
    fn draws_follow_any_weights() {
        let mut alias = Alias::default();
        let cases: &[&[u32]] = &[&[1], &[5, 5, 5], &[1, 2, 3, 4], &[1, 1, 1, 97], &[500, 300, 100, 50, 50], &[3, 1, 1]];
        for (seed, weights) in cases.iter().enumerate() {
            let mut rng = Rng::seed_from_u64(seed as u64);
            alias.build(weights.iter().copied());
            let mut counts = vec![0; weights.len()];
            (0..100_000).for_each(|_| counts[alias.draw(&mut rng)] += 1);
            let shares: Vec<f64> = weights.iter().map(|w| f64::from(*w)).collect();
            assert_shares(&counts, &shares);
        }
    }

    #[test]
    fn a_rebuild_forgets_what_was_before() {
        let mut alias = Alias::with_capacity(4);
        alias.build([1, 65_535, 1, 1].into_iter());
        alias.build([1, 1].into_iter());
        let mut rng = Rng::seed_from_u64(9);
        let mut counts = [0; 2];
        (0..10_000).for_each(|_| counts[alias.draw(&mut rng)] += 1);
        assert_shares(&counts, &[1.0, 1.0]);
    }
}
