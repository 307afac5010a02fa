use super::graph::Computed;
use super::operand::{check, read};
use super::parallel::map2;
use candle_core::{CpuStorage, Result, Tensor, bail};

const NAME: &str = "residual";

/// a + b, both of one shape.
///
/// # Errors
/// Shapes that differ; an operand that is not contiguous f32 on the CPU.
pub fn residual(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    check(NAME, &[("a", a), ("b", b)])?;
    if a.shape() != b.shape() {
        bail!("{NAME}: a {:?} and b {:?}; expected equal shapes", a.shape(), b.shape())
    }
    let y = map2(
        read(NAME, a)?.values(),
        read(NAME, b)?.values(),
        #[inline(always)]
        |a, b| a + b,
    );
    let (da, db) = (a.track_op(), b.track_op());
    Computed { name: NAME, operands: [a, b], values: CpuStorage::F32(y), shape: a.shape().clone() }
        .record(move |g| Ok([da.then(|| g.clone()), db.then(|| g.clone())]))
}
