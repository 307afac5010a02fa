//! What guard and clip must know of a packed gradient times inv_loss_scale (A6.3, A6.4).

use super::score::leaf;
use crate::compute::Compute;
use crate::parallel::tree;
use blockllm::View;
use blockllm::adam::Inspected;

/// Guard and sum of squares of one block's packed gradient.
pub(crate) fn inspect(packed: View<'_>, inv_loss_scale: f64, grain: usize) -> Inspected {
    match packed {
        View::F64(g) => runs(g, inv_loss_scale, grain),
        g => runs(f32::slice(g), inv_loss_scale, grain),
    }
}

fn runs<F: Compute>(packed: &[F], inv_loss_scale: f64, grain: usize) -> Inspected {
    let inv = F::round_from(inv_loss_scale);
    tree(0..packed.len(), grain, &|run| kernel(&packed[run], inv), &|left, right| Inspected {
        sum: left.sum + right.sum,
        passes: left.passes & right.passes,
        all_zero: left.all_zero & right.all_zero,
    })
}

fn kernel<F: Compute>(g: &[F], inv_loss_scale: F) -> Inspected {
    let (mut passes, mut all_zero) = (true, true);
    for &g in g {
        let x = g * inv_loss_scale;
        // Where x itself is not finite, its square is not either.
        passes &= (x * x).is_finite();
        all_zero &= g == F::zero();
    }
    Inspected { sum: leaf(g, |g| (g * inv_loss_scale).to_double()), passes, all_zero }
}
