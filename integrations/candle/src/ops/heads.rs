use super::graph::Computed;
use super::operand::{check, read};
use candle_core::{CpuStorage, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// Rearranges `[B, T, H · D]` into `[B, H, T, D]`, contiguous.
///
/// # Errors
/// Other shapes, or a last dimension that H does not divide; x that is not contiguous f32 on the CPU.
pub fn split_heads(x: &Tensor, heads: usize) -> Result<Tensor> {
    let op = Heads { split: true, heads };
    check(op.name(), &[("x", x)])?;
    match *x.dims() {
        [_, _, d] if heads > 0 && d.is_multiple_of(heads) => op.apply(x),
        _ => bail!("{}: x {:?}; expected [B, T, {heads} * D]", op.name(), x.shape()),
    }
}

/// Rearranges `[B, H, T, D]` into `[B, T, H · D]`, contiguous.
///
/// # Errors
/// Other shapes; x that is not contiguous f32 on the CPU.
pub fn merge_heads(x: &Tensor) -> Result<Tensor> {
    check("merge_heads", &[("x", x)])?;
    match *x.dims() {
        [_, heads, _, _] => Heads { split: false, heads }.apply(x),
        _ => bail!("merge_heads: x {:?}; expected [B, H, T, D]", x.shape()),
    }
}

struct Heads {
    split: bool,
    heads: usize,
}

impl Heads {
    /// The rearranged values, and their shape.
    fn rearranged(&self, x: &[f32], shape: &Shape) -> Result<(Vec<f32>, Shape)> {
        let (b, t, d) = match *shape.dims() {
            [b, t, width] => (b, t, width / self.heads),
            [b, _, t, d] => (b, t, d),
            _ => bail!("{}: unexpected shape {shape:?}", self.name()),
        };
        let (h, mut y) = (self.heads, vec![0.0; x.len()]);
        y.par_chunks_mut(t * h * d).zip(x.par_chunks(t * h * d)).for_each(|(y, x)| {
            for (index, y) in y.chunks_exact_mut(d).enumerate() {
                // y's vectors in order: head by head after a split, position by position after a merge.
                let source = if self.split { index % t * h + index / t } else { index % h * t + index / h };
                y.copy_from_slice(&x[source * d..][..d]);
            }
        });
        Ok((y, if self.split { (b, h, t, d).into() } else { (b, t, h * d).into() }))
    }

    fn name(&self) -> &'static str {
        if self.split { "split_heads" } else { "merge_heads" }
    }

    fn apply(self, x: &Tensor) -> Result<Tensor> {
        let (y, shape) = self.rearranged(read(self.name(), x)?.values(), x.shape())?;
        let inverse = Heads { split: !self.split, ..self };
        Computed { name: self.name(), operands: [x], values: CpuStorage::F32(y), shape }.record(move |g| {
            let (dx, shape) = inverse.rearranged(read(inverse.name(), g)?.values(), g.shape())?;
            Ok([Some(Tensor::from_vec(dx, shape, g.device())?)])
        })
    }
}
