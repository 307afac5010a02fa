use super::graph::{Computed, Saved};
use super::matmul::product;
use super::operand::{check, last_dim};
use crate::Parameter;
use candle_core::{Layout, Result, Tensor, bail};

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
    let n = w.dims()[0];
    let rows = Layout::contiguous_with_offset((x.elem_count() / k, k), x.layout().start_offset());
    let values = product(NAME, (x, &rows), (&w, &w.layout().transpose(0, 1)?))?;
    let shape: Vec<usize> = x.dims()[..x.rank() - 1].iter().copied().chain([n]).collect();
    // The gradient of the weight reads x, that of x the weight.
    let for_dw = w.track_op().then(|| (Saved::new(x), weight.clone()));
    let for_dx = x.track_op().then(|| (w.detach(), x.shape().clone()));
    Computed { name: NAME, operands: [x, &w], values, shape: shape.into() }.record(move |g| {
        let g = g.reshape(((), n))?;
        let dx = match &for_dx {
            Some((w, shape)) => Some(g.matmul(w)?.reshape(shape)?),
            None => None,
        };
        // After dx, as the sink may write the weight.
        let dw = match &for_dw {
            Some((x, weight)) => weight.deliver(g.t()?.matmul(&x.get()?.reshape(((), k))?)?)?,
            None => None,
        };
        Ok([dx, dw])
    })
}
