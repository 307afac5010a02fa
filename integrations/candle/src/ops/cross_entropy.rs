use super::numeric::{exp_in_place, exp_sum, max, vectorized};
use super::operand::{check, check_dtype, last_dim, read, values};
use super::parallel::whole_rows;
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};
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
    logits.apply_op1(CrossEntropy { targets })
}

struct CrossEntropy {
    targets: Vec<u32>,
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let logits = values(NAME, logits, layout)?;
        let v = logits.len() / self.targets.len();
        let rows = whole_rows(v) / v;
        let part = |(x, targets): (&[f32], &[u32])| {
            vectorized(
                #[inline(always)]
                || x.chunks_exact(v).zip(targets).map(|(x, &t)| row_loss(x, t as usize)).sum::<f64>(),
            )
        };
        // One sum a part, then the parts in order.
        let sums: Vec<f64> = logits.par_chunks(rows * v).zip(self.targets.par_chunks(rows)).map(part).collect();
        let mean = sums.iter().sum::<f64>() / self.targets.len() as f64;
        Ok((CpuStorage::F32(vec![mean as f32]), Shape::from(())))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let weight = g.to_scalar::<f32>()? / self.targets.len() as f32;
        let xs = read(NAME, logits)?;
        let xs = xs.values();
        let v = xs.len() / self.targets.len();
        let rows = whole_rows(v) / v;
        let mut dx = vec![0.0; xs.len()];
        let inputs = xs.par_chunks(rows * v).zip(self.targets.par_chunks(rows));
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
        Ok(Some(Tensor::from_vec(dx, logits.shape(), logits.device())?))
    }
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
