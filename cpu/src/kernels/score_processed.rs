//! The sum of squares of the processed gradient m̂/(sqrt(v̂)+eps) (A2.1), in the tree of A2.2.

use super::score::leaf;
use crate::active::Active;
use crate::compute::{Compute, Stored, with_gradient};
use crate::parallel::{LEAF, tree};
use blockllm::adam::{Coefficients, Hyper, Powers, Scales};
use blockllm::{DType, View};
use std::ops::Range;

/// What a block has in the set that last updated.
#[derive(Clone, Copy)]
pub(crate) struct Present<'a> {
    /// Its active coordinates.
    pub active: Active<'a>,
    /// Packed first moments.
    pub m: View<'a>,
    /// Packed second moments.
    pub v: View<'a>,
    /// Its powers before this step.
    pub powers: Powers,
}

struct Moments<'a, F> {
    active: Active<'a>,
    m: &'a [F],
    v: &'a [F],
}

/// The sum for a gradient beside this compute type. Coordinates that `present` does not hold have no moments.
pub(crate) fn score_processed(g: View<'_>, compute: DType, h: &Hyper, present: Option<Present<'_>>, grain: usize) -> f64 {
    let mut powers = present.map_or(Powers::START, |p| p.powers);
    if present.is_some() {
        powers.advance(h.betas);
    }
    with_gradient!(compute, g, |g, F| sum_of_squares::<_, F>(g, h, present, &powers, grain))
}

fn sum_of_squares<E: Stored<F>, F: Compute>(
    g: &[E], h: &Hyper, present: Option<Present<'_>>, powers: &Powers, grain: usize,
) -> f64 {
    let c = Coefficients::<F>::new(h, Scales::default(), powers, 1.0);
    let moments = present.map(|p| Moments { active: p.active, m: F::slice(p.m), v: F::slice(p.v) });
    let leaf = |run: Range<usize>| {
        let mut processed = [F::zero(); LEAF];
        let out = &mut processed[..run.len()];
        without_moments(&g[run.clone()], out, &c);
        if let Some(moments) = &moments {
            with_moments(&g[run.clone()], run.start, moments, out, &c);
        }
        leaf(out, F::to_double)
    };
    tree(0..g.len(), grain, &leaf, &|left, right| left + right)
}

fn quotient<F: Compute>(numerator: F, denominator: F) -> F {
    if denominator == F::zero() { F::zero() } else { numerator / denominator }
}

fn without_moments<E: Stored<F>, F: Compute>(g: &[E], out: &mut [F], c: &Coefficients<F>) {
    for (out, x) in out.iter_mut().zip(g) {
        let g = x.widen() * c.inv_loss_scale;
        *out = quotient(g, g.abs() + c.eps);
    }
}

/// For the active ones of the coordinates from `start` on, which is a multiple of [`LEAF`].
fn with_moments<E: Stored<F>, F: Compute>(g: &[E], start: usize, at: &Moments<'_, F>, out: &mut [F], c: &Coefficients<F>) {
    let active = if start == 0 { at.active } else { at.active.divide(start).1 };
    let active = if g.len() == LEAF && active.len() > LEAF { active.divide(LEAF).0 } else { active };
    let mut j = at.active.rank(start);
    active.for_each(|i| {
        let g = g[i].widen() * c.inv_loss_scale;
        let (m, v) = c.moments(at.m[j], at.v[j], g);
        out[i] = quotient(m / c.c1, v.root() / c.c2 + c.eps);
        j += 1;
    });
}
