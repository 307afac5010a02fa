use super::graph::{Computed, Saved};
use super::numeric::{exp_in_place, exp_sum, max, vectorized};
use super::operand::{check, check_dtype, last_dim, read};
use super::parallel::whole_rows;
use candle_core::{CpuStorage, DType, Result, Shape, Tensor, bail};
use rayon::prelude::*;

const NAME: &str = "cross_entropy";

/// The mean over all rows of -log softmax(row) at the row's target, in nats; a scalar.
///
/// The logits are `[.., V]`, the targets u32 with one number under V a row, of shape `[..]` or flat.
///
/// # Errors
/// Another number of targets; a target of V or more; targets that are not u32 on the CPU; logits that are not
/// contiguous f32 there.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    check(NAME, &[("logits", logits)])?;
    check_dtype(NAME, "targets", targets, DType::U32)?;
    let v = last_dim(NAME, "logits", logits)?;
    if targets.elem_count() * v != logits.elem_count() {
        bail!("{NAME}: logits {:?} and targets {:?}; expected [.., V] and [..]", logits.shape(), targets.shape())
    }
    let targets = targets.flatten_all()?.to_vec1::<u32>()?;
    if let Some(row) = targets.iter().position(|&t| t as usize >= v) {
        bail!("{NAME}: target {} of row {row} is out of range for logits {:?}", targets[row], logits.shape())
    }
    let loss = CpuStorage::F32(vec![mean_loss(read(NAME, logits)?.values(), &targets)]);
    let kept = Saved::new(logits);
    Computed { name: NAME, operands: [logits], values: loss, shape: Shape::from(()) }.record(move |g| {
        let weight = g.to_scalar::<f32>()? / targets.len() as f32;
        let logits = kept.get()?;
        let dx = gradient(read(NAME, &logits)?.values(), &targets, weight);
        Ok([Some(Tensor::from_vec(dx, logits.shape(), logits.device())?)])
    })
}

fn mean_loss(logits: &[f32], targets: &[u32]) -> f32 {
    let v = logits.len() / targets.len();
    let rows = whole_rows(v) / v;
    let part = |(x, targets): (&[f32], &[u32])| {
        vectorized(
            #[inline(always)]
            || x.chunks_exact(v).zip(targets).map(|(x, &t)| row_loss(x, t as usize)).sum::<f64>(),
        )
    };
    // One sum a part, then the parts in order.
    let sums: Vec<f64> = logits.par_chunks(rows * v).zip(targets.par_chunks(rows)).map(part).collect();
    (sums.iter().sum::<f64>() / targets.len() as f64) as f32
}

fn gradient(logits: &[f32], targets: &[u32], weight: f32) -> Vec<f32> {
    let v = logits.len() / targets.len();
    let rows = whole_rows(v) / v;
    let mut dx = vec![0.0; logits.len()];
    let inputs = logits.par_chunks(rows * v).zip(targets.par_chunks(rows));
    dx.par_chunks_mut(rows * v).zip(inputs).for_each(|(dx, (x, targets))| {
        vectorized(
            #[inline(always)]
            || {
                for ((dx, x), &t) in dx.chunks_exact_mut(v).zip(x.chunks_exact(v)).zip(targets) {
                    row_gradient(x, t as usize, weight, dx);
                }
            },
        );
    });
    dx
}

/// log Σ exp(x) - x[target]
#[inline(always)]
fn row_loss(x: &[f32], target: usize) -> f64 {
    let shift = max(x);
    f64::from(exp_sum(x, shift)).ln() + (f64::from(shift) - f64::from(x[target]))
}

/// weight (softmax(x) - onehot(target))
#[inline(always)]
fn row_gradient(x: &[f32], target: usize, weight: f32, dx: &mut [f32]) {
    dx.copy_from_slice(x);
    let factor = weight / exp_in_place(dx, 1.0, max(x));
    for dx in dx.iter_mut() {
        *dx *= factor;
    }
    dx[target] -= weight;
}
