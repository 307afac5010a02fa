use super::graph::{Computed, Saved};
use super::operand::check;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, bail};

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

#[derive(Clone, Copy)]
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
        self.recorded(a, b)
    }

    fn name(&self) -> &'static str {
        if self.transposed { "matmul_transposed" } else { "matmul" }
    }

    fn recorded(self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let layout = |t: &Tensor| match batch(t.dims()) {
            Some(dims) => Ok(Layout::contiguous_with_offset(dims, t.layout().start_offset())),
            None => bail!("{}: expected matrices", self.name()),
        };
        let (a_layout, b_layout) = (layout(a)?, layout(b)?);
        let b_layout = if self.transposed { b_layout.transpose(1, 2)? } else { b_layout };
        let values = product(self.name(), (a, &a_layout), (b, &b_layout))?;
        let shape: Vec<usize> = a.dims()[..a.rank() - 1].iter().copied().chain([b_layout.dims()[2]]).collect();
        // The gradient of each reads the other.
        let for_da = a.track_op().then(|| (Saved::new(b), a.shape().clone()));
        let for_db = b.track_op().then(|| (Saved::new(a), b.shape().clone()));
        let flat = move |t: &Tensor| match batch(t.dims()) {
            Some(dims) => t.reshape(dims),
            None => bail!("{}: expected matrices", self.name()),
        };
        Computed { name: self.name(), operands: [a, b], values, shape: shape.into() }.record(move |g| {
            let g = flat(g)?;
            let da = match &for_da {
                Some((b, shape)) if self.transposed => Some(g.matmul(&flat(&b.get()?)?)?.reshape(shape)?),
                Some((b, shape)) => Some(g.matmul(&flat(&b.get()?)?.t()?)?.reshape(shape)?),
                None => None,
            };
            let db = match &for_db {
                Some((a, shape)) if self.transposed => Some(g.t()?.matmul(&flat(&a.get()?)?)?.reshape(shape)?),
                Some((a, shape)) => Some(flat(&a.get()?)?.t()?.matmul(&g)?.reshape(shape)?),
                None => None,
            };
            Ok([da, db])
        })
    }
}

/// The products of two matrices, or of the matrices of two batches, that lie in the tensors' memory as the layouts say.
pub(super) fn product(op: &str, (a, a_layout): (&Tensor, &Layout), (b, b_layout): (&Tensor, &Layout)) -> Result<CpuStorage> {
    let (&[.., m, k], &[.., n]) = (a_layout.dims(), b_layout.dims()) else { bail!("{op}: expected matrices") };
    let count = a_layout.shape().elem_count() / (m * k);
    let (a, b) = (a.storage_and_layout().0, b.storage_and_layout().0);
    match (&*a, &*b) {
        (Storage::Cpu(a), Storage::Cpu(b)) => a.matmul(b, (count, m, n, k), a_layout, b_layout),
        _ => bail!("{op}: only the CPU is supported"),
    }
}
