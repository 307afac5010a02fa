use super::graph::Computed;
use super::numeric::{dot, exp_in_place, max, vectorized};
use super::operand::{check, last_dim, read};
use candle_core::{CpuStorage, Result, Tensor, bail};
use rayon::prelude::*;
use std::sync::{Arc, OnceLock};

const NAME: &str = "causal_softmax";

/// The softmax of scale · x over the last dimension, where row i sees columns 0 to i; the others are 0.
///
/// x is `[.., T, T]`, the result like x.
///
/// # Errors
/// Other shapes; x that is not contiguous f32 on the CPU; a scale that is not positive and finite.
pub fn causal_softmax(x: &Tensor, scale: f32) -> Result<Tensor> {
    check(NAME, &[("x", x)])?;
    if !matches!(*x.dims(), [.., rows, columns] if rows == columns) {
        bail!("{NAME}: x {:?}; expected [.., T, T]", x.shape())
    }
    if !(scale.is_finite() && scale > 0.0) {
        bail!("{NAME}: scale is {scale}, expected a positive number")
    }
    // Backward reads the result, which there is after it has been recorded.
    let result = Arc::new(OnceLock::<Tensor>::new());
    let kept = result.clone();
    let computed = Computed { name: NAME, operands: [x], values: CpuStorage::F32(values(x, scale)?), shape: x.shape().clone() };
    let y = computed.record(move |g| match kept.get() {
        Some(y) => Ok([Some(input_gradient(y, g, scale)?)]),
        None => bail!("{NAME}: there is no result"),
    })?;
    let _ = result.set(y.detach());
    Ok(y)
}

/// Replaces a row by its softmax.
#[inline(always)]
pub(super) fn softmax_in_place(row: &mut [f32], scale: f32) {
    let inverse = 1.0 / exp_in_place(row, scale, max(row));
    for y in row {
        *y *= inverse;
    }
}

/// dx = scale y (g - Σ y g), in place of g.
#[inline(always)]
pub(super) fn softmax_backward_in_place(y: &[f32], g: &mut [f32], scale: f32) {
    let mean = dot(y, g);
    for (g, y) in g.iter_mut().zip(y) {
        *g = scale * y * (*g - mean);
    }
}

fn values(x: &Tensor, scale: f32) -> Result<Vec<f32>> {
    let (xs, t) = (read(NAME, x)?, last_dim(NAME, "x", x)?);
    let xs = xs.values();
    Ok(lower_triangles(xs.len(), t, |i, range, y| {
        y.copy_from_slice(&xs[range]);
        softmax_in_place(&mut y[..=i], scale);
    }))
}

fn input_gradient(y: &Tensor, g: &Tensor, scale: f32) -> Result<Tensor> {
    let (ys, gs, t) = (read(NAME, y)?, read(NAME, g)?, last_dim(NAME, "x", y)?);
    let (ys, gs) = (ys.values(), gs.values());
    let dx = lower_triangles(ys.len(), t, |i, range, dx| {
        dx.copy_from_slice(&gs[range.clone()]);
        softmax_backward_in_place(&ys[range], &mut dx[..=i], scale);
    });
    Tensor::from_vec(dx, y.shape(), y.device())
}

/// Fills the lower triangle of each t x t matrix a row at a time: `fill(i, range, row)` gets the row's number, where
/// its first i + 1 elements lie, and those elements.
fn lower_triangles(len: usize, t: usize, fill: impl Fn(usize, std::ops::Range<usize>, &mut [f32]) + Sync) -> Vec<f32> {
    let mut y = vec![0.0; len];
    y.par_chunks_mut(t * t).enumerate().for_each(|(matrix, y)| {
        vectorized(
            #[inline(always)]
            || {
                for (i, y) in y.chunks_exact_mut(t).enumerate() {
                    let start = (matrix * t + i) * t;
                    fill(i, start..start + i + 1, &mut y[..=i]);
                }
            },
        );
    });
    y
}
