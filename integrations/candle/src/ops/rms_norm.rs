use super::graph::{Computed, Saved};
use super::numeric::{dot, vectorized};
use super::operand::{check, last_dim, read};
use super::parallel::whole_rows;
use crate::Parameter;
use candle_core::{CpuStorage, Result, Tensor, bail};
use rayon::prelude::*;
use std::sync::Arc;

const NAME: &str = "rms_norm";

/// y = w x / sqrt(mean(x²) + epsilon), a row at a time.
///
/// x is `[.., D]`, the weight `[D]`, the result like x.
///
/// # Errors
/// Other shapes; an operand that is not contiguous f32 on the CPU; an epsilon that is negative or not finite.
pub fn rms_norm(x: &Tensor, weight: &Parameter, epsilon: f32) -> Result<Tensor> {
    let w = weight.tensor();
    check(NAME, &[("x", x), (weight.name(), &w)])?;
    let d = last_dim(NAME, "x", x)?;
    if w.dims() != [d] {
        bail!("{NAME}: x {:?} and {} {:?}; expected [.., D] and [D]", x.shape(), weight.name(), w.shape())
    }
    if !(epsilon.is_finite() && epsilon >= 0.0) {
        bail!("{NAME}: epsilon is {epsilon}, expected a finite number of at least 0")
    }
    let norm = Arc::new(RmsNorm { epsilon, w: w.detach(), x: Saved::new(x) });
    let (again, wants_dx, parameter) = (norm.clone(), x.track_op(), w.track_op().then(|| weight.clone()));
    Computed { name: NAME, operands: [x, &w], values: CpuStorage::F32(norm.values(x)?), shape: x.shape().clone() }.record_cheap(
        move |g| {
            let x = norm.x.get()?;
            let dx = if wants_dx { Some(norm.input_gradient(&x, g)?) } else { None };
            // After dx, as the sink may write the weight.
            let dw = match &parameter {
                Some(weight) => weight.deliver(norm.weight_gradient(&x, g)?)?,
                None => None,
            };
            Ok([dx, dw])
        },
        move || {
            let x = again.x.get()?;
            Tensor::from_vec(again.values(&x)?, x.shape(), x.device())
        },
    )
}

/// What backward reads.
struct RmsNorm {
    epsilon: f32,
    w: Tensor,
    x: Saved,
}

/// 1 / sqrt(mean(x²) + epsilon)
#[inline(always)]
fn inverse_rms(x: &[f32], epsilon: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + epsilon).sqrt()
}

impl RmsNorm {
    fn values(&self, x: &Tensor) -> Result<Vec<f32>> {
        let (xs, ws) = (read(NAME, x)?, read(NAME, &self.w)?);
        let (x, w) = (xs.values(), ws.values());
        let (d, part) = (w.len(), whole_rows(w.len()));
        let mut y = vec![0.0; x.len()];
        y.par_chunks_mut(part).zip(x.par_chunks(part)).for_each(|(y, x)| {
            vectorized(
                #[inline(always)]
                || {
                    for (y, x) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)) {
                        let r = inverse_rms(x, self.epsilon);
                        for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                            *y = x * r * w;
                        }
                    }
                },
            );
        });
        Ok(y)
    }

    /// With r the inverse RMS of a row: dx = r (w g) - x r³ Σ (w g x) / D.
    fn input_gradient(&self, x: &Tensor, g: &Tensor) -> Result<Tensor> {
        let (xs, ws, gs) = (read(NAME, x)?, read(NAME, &self.w)?, read(NAME, g)?);
        let (xs, ws, gs) = (xs.values(), ws.values(), gs.values());
        let (d, part) = (ws.len(), whole_rows(ws.len()));
        let mut dx = vec![0.0; xs.len()];
        dx.par_chunks_mut(part).zip(xs.par_chunks(part)).zip(gs.par_chunks(part)).for_each(|((dx, x), g)| {
            vectorized(
                #[inline(always)]
                || {
                    for ((dx, x), g) in dx.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(g.chunks_exact(d)) {
                        let r = inverse_rms(x, self.epsilon);
                        for ((dx, w), g) in dx.iter_mut().zip(ws).zip(g) {
                            *dx = w * g;
                        }
                        let k = dot(dx, x) * r * r * r / d as f32;
                        for (dx, x) in dx.iter_mut().zip(x) {
                            *dx = *dx * r - x * k;
                        }
                    }
                },
            );
        });
        Tensor::from_vec(dx, x.shape(), x.device())
    }

    /// dw = Σ over rows of g x r: one sum a part, then the parts in order.
    fn weight_gradient(&self, x: &Tensor, g: &Tensor) -> Result<Tensor> {
        let (xs, gs) = (read(NAME, x)?, read(NAME, g)?);
        let d = last_dim(NAME, "x", x)?;
        let part = whole_rows(d);
        let sum = |(x, g): (&[f32], &[f32])| {
            vectorized(
                #[inline(always)]
                || {
                    let mut dw = vec![0.0; d];
                    for (x, g) in x.chunks_exact(d).zip(g.chunks_exact(d)) {
                        let r = inverse_rms(x, self.epsilon);
                        for ((dw, x), g) in dw.iter_mut().zip(x).zip(g) {
                            *dw += g * (x * r);
                        }
                    }
                    dw
                },
            )
        };
        let sums: Vec<Vec<f32>> = xs.values().par_chunks(part).zip(gs.values().par_chunks(part)).map(sum).collect();
        let mut dw = vec![0.0; d];
        for sum in sums {
            for (dw, sum) in dw.iter_mut().zip(sum) {
                *dw += sum;
            }
        }
        Tensor::from_vec(dw, d, x.device())
    }
}
