use super::graph::Computed;
use super::operand::{check, read};
use super::parallel::whole_rows;
use candle_core::{CpuStorage, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use std::sync::Arc;

const NAME: &str = "rope";

/// The angles of rotary position embeddings. Cloning shares the table.
#[derive(Clone, Debug)]
pub struct RotaryTable {
    head_dim: usize,
    /// cos and sin of the angles, position by position, `head_dim / 2` at each.
    cos: Arc<[f32]>,
    sin: Arc<[f32]>,
}

impl RotaryTable {
    /// Angles t · base^(-2i / head_dim) for positions t < `positions` and pairs i < head_dim / 2; Llama's base is 10000.
    ///
    /// # Errors
    /// A head dimension that is 0 or odd; no positions; a base that is not positive and finite.
    pub fn new(positions: usize, head_dim: usize, base: f64) -> Result<Self> {
        if head_dim == 0 || !head_dim.is_multiple_of(2) || positions == 0 {
            bail!("{NAME}: {positions} positions of head dimension {head_dim}; expected an even dimension of at least 2")
        }
        if !(base.is_finite() && base > 0.0) {
            bail!("{NAME}: base is {base}, expected a positive number")
        }
        let half = head_dim / 2;
        let frequencies: Vec<f64> = (0..half).map(|i| base.powf(-2.0 * i as f64 / head_dim as f64)).collect();
        let angles = || (0..positions).flat_map(|t| frequencies.iter().map(move |f| t as f64 * f));
        Ok(Self { head_dim, cos: angles().map(|a| a.cos() as f32).collect(), sin: angles().map(|a| a.sin() as f32).collect() })
    }

    /// The length of the vectors that are rotated.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// The number of positions.
    pub fn positions(&self) -> usize {
        self.cos.len() / (self.head_dim / 2)
    }

    /// y = x rotated as at position t, pair by pair (interleaved), or rotated back.
    #[inline(always)]
    pub(super) fn rotate(&self, t: usize, back: bool, x: &[f32], y: &mut [f32]) {
        let half = self.head_dim / 2;
        let (cos, sin) = (&self.cos[t * half..][..half], &self.sin[t * half..][..half]);
        let sign = if back { -1.0 } else { 1.0 };
        let pairs = y.as_chunks_mut::<2>().0.iter_mut().zip(x.as_chunks::<2>().0);
        for (([y0, y1], [x0, x1]), (cos, sin)) in pairs.zip(cos.iter().zip(sin)) {
            let sin = sign * sin;
            *y0 = x0 * cos - x1 * sin;
            *y1 = x0 * sin + x1 * cos;
        }
    }
}

/// Rotary position embedding of each head's vectors, with pairs of neighbours (2i, 2i + 1) rotated together.
///
/// x is `[.., T, H · head_dim]` for any H, so both `[B, T, H · head_dim]` and `[B, H, T, head_dim]`; the position is
/// the index along T, which may be less than the table's positions. The result is like x.
///
/// # Errors
/// Other shapes; x that is not contiguous f32 on the CPU.
pub fn rope(x: &Tensor, table: &RotaryTable) -> Result<Tensor> {
    check(NAME, &[("x", x)])?;
    match *x.dims() {
        [.., t, d] if d.is_multiple_of(table.head_dim) && t <= table.positions() => {
            let values = CpuStorage::F32(rotated(read(NAME, x)?.values(), x.shape(), table, false));
            let table = table.clone();
            Computed { name: NAME, operands: [x], values, shape: x.shape().clone() }.record(move |g| {
                let dx = rotated(read(NAME, g)?.values(), g.shape(), &table, true);
                Ok([Some(Tensor::from_vec(dx, g.shape(), g.device())?)])
            })
        }
        _ => bail!("{NAME}: x {:?}; expected [.., T, H * {}] with T of at most {}", x.shape(), table.head_dim, table.positions()),
    }
}

fn rotated(x: &[f32], shape: &Shape, table: &RotaryTable, back: bool) -> Vec<f32> {
    let (t, d) = match *shape.dims() {
        [.., t, d] => (t, d),
        _ => (1, x.len()),
    };
    let rows = whole_rows(d) / d;
    let mut y = vec![0.0; x.len()];
    y.par_chunks_mut(rows * d).zip(x.par_chunks(rows * d)).enumerate().for_each(|(part, (y, x))| {
        for (row, (y, x)) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)).enumerate() {
            let position = (part * rows + row) % t;
            let heads = y.chunks_exact_mut(table.head_dim).zip(x.chunks_exact(table.head_dim));
            for (y, x) in heads {
                table.rotate(position, back, x, y);
            }
        }
    });
    y
}
