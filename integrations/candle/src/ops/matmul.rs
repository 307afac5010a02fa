use super::operand::check;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

/// a b for each matrix of a batch.
///
/// a is `[.., M, K]`, b `[.., K, N]` with the same leading dimensions, the result `[.., M, N]`.
///
/// # Errors
/// Other shapes; an operand that is not contiguous f32 on the CPU.
pub fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Matmul { transposed: false }.apply(a, b)
}

/// a bᵀ for each matrix of a batch, with no copy of b.
///
/// a is `[.., M, K]`, b `[.., N, K]` with the same leading dimensions, the result `[.., M, N]`.
///
/// # Errors
/// Other shapes; an operand that is not contiguous f32 on the CPU.
pub fn matmul_transposed(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Matmul { transposed: true }.apply(a, b)
}

struct Matmul {
    transposed: bool,
}

/// The number of matrices, and the shape of one.
fn batch(dims: &[usize]) -> Option<(usize, usize, usize)> {
    let (leading, &[rows, columns]) = dims.split_last_chunk()?;
    Some((leading.iter().product(), rows, columns))
}

impl Matmul {
    fn apply(self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let name = self.name();
        check(name, &[("a", a), ("b", b)])?;
        let inner = if self.transposed { 1 } else { 2 };
        let fits = a.rank() >= 2
            && b.rank() == a.rank()
            && a.dims()[..a.rank() - 2] == b.dims()[..b.rank() - 2]
            && a.dims()[a.rank() - 1] == b.dims()[b.rank() - inner];
        if !fits {
            let expected = if self.transposed { "[.., M, K] and [.., N, K]" } else { "[.., M, K] and [.., K, N]" };
            bail!("{name}: a {:?} and b {:?}; expected {expected}", a.shape(), b.shape())
        }
        a.apply_op2(b, self)
    }
}

impl CustomOp2 for Matmul {
    fn name(&self) -> &'static str {
        if self.transposed { "matmul_transposed" } else { "matmul" }
    }

    fn cpu_fwd(&self, a: &CpuStorage, al: &Layout, b: &CpuStorage, bl: &Layout) -> Result<(CpuStorage, Shape)> {
        let (Some((count, m, k)), Some(b_dims)) = (batch(al.dims()), batch(bl.dims())) else {
            bail!("{}: expected matrices", self.name())
        };
        let a_layout = Layout::contiguous_with_offset((count, m, k), al.start_offset());
        let b_layout = Layout::contiguous_with_offset(b_dims, bl.start_offset());
        let b_layout = if self.transposed { b_layout.transpose(1, 2)? } else { b_layout };
        let n = b_layout.dims()[2];
        let y = a.matmul(b, (count, m, n, k), &a_layout, &b_layout)?;
        let dims: Vec<usize> = al.dims()[..al.dims().len() - 2].iter().copied().chain([m, n]).collect();
        Ok((y, dims.into()))
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let flat = |t: &Tensor| match batch(t.dims()) {
            Some(dims) => t.detach().reshape(dims),
            None => bail!("{}: expected matrices", self.name()),
        };
        let (fa, fb, g) = (flat(a)?, flat(b)?, flat(g)?);
        let da = match (a.track_op(), self.transposed) {
            (false, _) => None,
            (true, true) => Some(g.matmul(&fb)?.reshape(a.shape())?),
            (true, false) => Some(g.matmul(&fb.t()?)?.reshape(a.shape())?),
        };
        let db = match (b.track_op(), self.transposed) {
            (false, _) => None,
            (true, true) => Some(g.t()?.matmul(&fa)?.reshape(b.shape())?),
            (true, false) => Some(fa.t()?.matmul(&g)?.reshape(b.shape())?),
        };
        Ok((da, db))
    }
}
