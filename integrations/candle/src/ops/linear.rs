use super::operand::{check, last_dim};
use crate::Parameter;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

const NAME: &str = "linear";

/// y = x wᵀ, the product of each row of x with each row of the weight.
///
/// x is `[.., K]`, the weight `[N, K]`, the result `[.., N]`.
///
/// # Errors
/// Other shapes; an operand that is not contiguous f32 on the CPU.
pub fn linear(x: &Tensor, weight: &Parameter) -> Result<Tensor> {
    let w = weight.tensor();
    check(NAME, &[("x", x), (weight.name(), &w)])?;
    let k = last_dim(NAME, "x", x)?;
    if w.rank() != 2 || w.dims()[1] != k {
        bail!("{NAME}: x {:?} and {} {:?}; expected [.., K] and [N, K]", x.shape(), weight.name(), w.shape())
    }
    x.apply_op2(&w, Linear { weight: weight.clone() })
}

struct Linear {
    weight: Parameter,
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, w: &CpuStorage, wl: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, k) = wl.shape().dims2()?;
        let m = xl.shape().elem_count() / k;
        let rows = Layout::contiguous_with_offset((m, k), xl.start_offset());
        let y = x.matmul(w, (1, m, n, k), &rows, &wl.transpose(0, 1)?)?;
        let mut dims = xl.dims().to_vec();
        dims.pop();
        dims.push(n);
        Ok((y, dims.into()))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (n, k) = w.dims2()?;
        let g = g.reshape(((), n))?;
        let dx = if x.track_op() { Some(g.matmul(&w.detach())?.reshape(x.shape())?) } else { None };
        // After dx, as the sink may write the weight.
        let dw = if w.track_op() { self.weight.deliver(g.t()?.matmul(&x.detach().reshape(((), k))?)?)? } else { None };
        Ok((dx, dw))
    }
}
