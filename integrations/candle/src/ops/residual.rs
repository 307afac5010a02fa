use super::operand::{check, values};
use super::parallel::map2;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

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
    a.apply_op2(b, Residual)
}

struct Residual;

impl CustomOp2 for Residual {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, a: &CpuStorage, al: &Layout, b: &CpuStorage, bl: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = map2(
            values(NAME, a, al)?,
            values(NAME, b, bl)?,
            #[inline(always)]
            |a, b| a + b,
        );
        Ok((CpuStorage::F32(y), al.shape().clone()))
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((a.track_op().then(|| g.clone()), b.track_op().then(|| g.clone())))
    }
}
