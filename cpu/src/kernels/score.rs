//! The sum of squares of a gradient times inv_loss_scale, in the tree of A2.2.

use crate::compute::{Compute, Stored, with_gradient};
use crate::parallel::tree;
use blockllm::{DType, View};

const LANES: usize = 16;

/// The sum for a gradient beside this compute type; each product is rounded to it first (A2.4).
pub(crate) fn score(g: View<'_>, compute: DType, inv_loss_scale: f64, grain: usize) -> f64 {
    with_gradient!(compute, g, |g, F| sum_of_squares::<_, F>(g, inv_loss_scale, grain))
}

fn sum_of_squares<E: Stored<F>, F: Compute>(g: &[E], inv_loss_scale: f64, grain: usize) -> f64 {
    let inv = F::round_from(inv_loss_scale);
    tree(0..g.len(), grain, &|run| leaf(&g[run], |x| (x.widen() * inv).to_double()), &|left, right| left + right)
}

/// A leaf of the tree: sixteen lanes, folded in halves.
pub(super) fn leaf<E: Copy>(x: &[E], value: impl Fn(E) -> f64) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let (rows, rest) = x.as_chunks::<LANES>();
    for row in rows {
        for (lane, e) in lanes.iter_mut().zip(row) {
            let x = value(*e);
            *lane += x * x;
        }
    }
    for (lane, e) in lanes.iter_mut().zip(rest) {
        let x = value(*e);
        *lane += x * x;
    }
    for half in [8, 4, 2, 1] {
        for j in 0..half {
            lanes[j] += lanes[j + half];
        }
    }
    lanes[0]
}
