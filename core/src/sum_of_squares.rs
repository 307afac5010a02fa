//! The normative sum of squares (A2.2): the same bits whoever computes it, in whatever chunks.

const LANES: usize = 16;
const LEAF: usize = 1024;

/// Sums squares in the tree of A2.2: leaves of 1024 elements in 16 lanes, folded pairwise in index order.
///
/// A binary counter of finished subtrees gives "level by level, an odd last one passing up" with log2(leaves) numbers
/// of memory and no look at the length beforehand.
#[derive(Clone, Debug)]
pub struct SumOfSquares {
    lanes: [f64; LANES],
    filled: usize,
    leaves: u64,
    height: usize,
    stack: [f64; 64],
}

impl Default for SumOfSquares {
    fn default() -> Self {
        Self { lanes: [0.0; LANES], filled: 0, leaves: 0, height: 0, stack: [0.0; 64] }
    }
}

impl SumOfSquares {
    /// Takes the next element.
    pub fn push(&mut self, x: f64) {
        self.lanes[self.filled % LANES] += x * x;
        self.filled += 1;
        if self.filled == LEAF {
            self.close_leaf();
        }
    }

    fn close_leaf(&mut self) {
        let mut half = LANES / 2;
        while half > 0 {
            for j in 0..half {
                self.lanes[j] += self.lanes[j + half];
            }
            half /= 2;
        }
        let mut sum = self.lanes[0];
        self.leaves += 1;
        for _ in 0..self.leaves.trailing_zeros() {
            self.height -= 1;
            sum += self.stack[self.height]; // of two finite or infinite terms, either way round the same bits
        }
        self.stack[self.height] = sum;
        self.height += 1;
        (self.lanes, self.filled) = ([0.0; LANES], 0);
    }

    /// The sum; +0 of nothing.
    pub fn finish(mut self) -> f64 {
        if self.filled > 0 {
            self.close_leaf();
        }
        let finished = &self.stack[..self.height];
        finished.iter().rev().copied().reduce(|right, left| left + right).unwrap_or(0.0)
    }
}

/// The sum of squares of all of `x`.
pub fn sum_of_squares(x: impl Iterator<Item = f64>) -> f64 {
    let mut sum = SumOfSquares::default();
    x.for_each(|e| sum.push(e));
    sum.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odd_last_leaf_passes_up_a2_2() {
        // Five leaves whose sums are 2^-53, 1, 2^-53, 2^-53, 1: another order of additions gives other bits.
        let tiny = (0.5f64).powi(53).sqrt();
        let leaf = |i: usize| if i == 1 || i == 4 { 1.0 } else { tiny };
        let x = (0..5 * LEAF).map(|i| if i % LEAF == 0 { leaf(i / LEAF) } else { 0.0 });
        let s = |i: usize| leaf(i) * leaf(i);
        assert_eq!(sum_of_squares(x).to_bits(), (((s(0) + s(1)) + (s(2) + s(3))) + s(4)).to_bits());
    }

    #[test]
    fn nothing_sums_to_positive_zero_a2_2() {
        assert_eq!(sum_of_squares(core::iter::empty()).to_bits(), 0);
    }
}
