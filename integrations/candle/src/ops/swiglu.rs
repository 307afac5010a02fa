use super::numeric::{exp, sigmoid, vectorized};
use super::operand::{check, read, values};
use super::parallel::{map2, whole_rows};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

const NAME: &str = "swiglu";

/// silu(gate) · up, element by element, where silu(a) = a / (1 + e^-a). Both have one shape, as has the result.
///
/// # Errors
/// Shapes that differ; an operand that is not contiguous f32 on the CPU.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    check(NAME, &[("gate", gate), ("up", up)])?;
    if gate.shape() != up.shape() {
        bail!("{NAME}: gate {:?} and up {:?}; expected equal shapes", gate.shape(), up.shape())
    }
    gate.apply_op2(up, SwiGlu)
}

struct SwiGlu;

impl CustomOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, a: &CpuStorage, al: &Layout, b: &CpuStorage, bl: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = map2(
            values(NAME, a, al)?,
            values(NAME, b, bl)?,
            #[inline(always)]
            |a, b| a * sigmoid(a) * b,
        );
        Ok((CpuStorage::F32(y), al.shape().clone()))
    }

    fn bwd(&self, gate: &Tensor, up: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let g = g.contiguous()?;
        let (a, b, gs) = (read(NAME, gate)?, read(NAME, up)?, read(NAME, &g)?);
        let (da, db) = gradients(a.values(), b.values(), gs.values());
        let tensor = |values, of: &Tensor| match of.track_op() {
            true => Tensor::from_vec(values, of.shape(), of.device()).map(Some),
            false => Ok(None),
        };
        Ok((tensor(da, gate)?, tensor(db, up)?))
    }
}

/// da = g b s (1 + a (1 - s)) and db = g a s, where s = sigmoid(a): both, as s costs most. 1 - s = s e^-a keeps its digits
/// where s is almost 1.
fn gradients(a: &[f32], b: &[f32], g: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let part = whole_rows(1);
    let (mut da, mut db) = (vec![0.0; a.len()], vec![0.0; a.len()]);
    let inputs = a.par_chunks(part).zip(b.par_chunks(part)).zip(g.par_chunks(part));
    da.par_chunks_mut(part).zip(db.par_chunks_mut(part)).zip(inputs).for_each(|((da, db), ((a, b), g))| {
        vectorized(
            #[inline(always)]
            || {
                for ((da, db), ((a, b), g)) in da.iter_mut().zip(db).zip(a.iter().zip(b).zip(g)) {
                    // Not infinite, as infinity times 0 is NaN.
                    let e = exp(-a).min(f32::MAX);
                    let s = 1.0 / (1.0 + e);
                    *da = g * b * s * (1.0 + a * (s * e));
                    *db = g * (a * s);
                }
            },
        );
    });
    (da, db)
}
