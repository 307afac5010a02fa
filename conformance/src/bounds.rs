//! How far a result may be from the reference's on a device without f64 that may fuse, flush denormals and divide with
//! some error: WGSL's rules (floating point accuracy, section "Floating Point Evaluation").
//!
//! u = 2^-24 is half an ulp of an f32. Sums, differences and products are correctly rounded (u) and may be fused (which
//! leaves out one rounding: two results each within E of the exact one are within 2E of each other); a division is
//! within 2.5 ulp (5u), a square root is that of an inverse square root (2 ulp) and a division (9u together); any operand
//! or result below 2^-126 may be taken as zero.

use blockllm::DType;
use blockllm::adam::{Decay, Hyper, Powers, Scales};
use half::{bf16, f16};

/// Half an ulp of an f32, relative.
pub const U: f64 = 1.0 / (1u64 << 24) as f64;
/// The smallest normal f32: what flushing may cost.
pub const TINY: f64 = f32::MIN_POSITIVE as f64;
/// Of a sum of squares, relative (A2.3).
pub const SUM: f64 = 1e-5;
/// Of a norm, which is its root, and of the clip factor, which is its inverse.
pub const NORM: f64 = 0.51e-5 + 20.0 * U;

/// The step between neighbours of `x` in a parameter's type: a result beside a rounding boundary falls to either side.
pub fn step_of_type(dtype: DType, x: f64) -> f64 {
    let between = |next: f64, here: f64| (next - here).abs();
    match dtype {
        DType::F16 => between(f64::from(f16::from_bits(f16::from_f64(x).to_bits() + 1)), f64::from(f16::from_f64(x))),
        DType::Bf16 => between(f64::from(bf16::from_bits(bf16::from_f64(x).to_bits() + 1)), f64::from(bf16::from_f64(x))),
        _ => 0.0,
    }
}

/// What one coordinate's update started from and came to on the reference.
#[derive(Clone, Copy, Debug)]
pub struct Coordinate {
    /// The parameter before.
    pub p: f64,
    /// |g * inv_loss_scale * clip| + |wd * p| (L2).
    pub g: f64,
    /// Relative error that g has already: of the clip factor.
    pub g_error: f64,
    /// m after.
    pub m: f64,
    /// v after.
    pub v: f64,
}

/// Absolute bounds on p, m and v after an update (A6.1), for parameters of f32 or a half type.
///
/// With dg = g * (g_error + 4u): dm = 8u(|m| + g) + dg; dv = v(10u + 2 dg/g), since (1-beta2) g^2 <= v; of the denominator
/// d = sqrt(v)/c2 + eps, dd = min(dv / 2 sqrt(v), sqrt(dv)) / c2 + 12u d; of the step s = (lr/c1) m / d, ds = (lr/c1) dm / d
/// + s(20u + dd / (d - dd)); dp = ds + 4u(|p| + s) and a step of the parameter's type.
pub fn update(x: Coordinate, h: &Hyper, scales: Scales, powers: &Powers, dtype: DType) -> [f64; 3] {
    let (lr, wd) = (h.lr * scales.lr, h.weight_decay * scales.weight_decay);
    let (c1, c2) = (1.0 - powers.now[0], (1.0 - powers.now[1]).sqrt());
    let dg = x.g * (x.g_error + 4.0 * U) + 4.0 * TINY;
    let dm = 8.0 * U * (x.m.abs() + x.g) + dg + 4.0 * TINY;
    let dv = x.v * 10.0 * U + 2.0 * (1.0 - h.betas[1]).sqrt() * x.v.sqrt() * dg + 4.0 * TINY;
    let root = x.v.sqrt();
    let d = root / c2 + h.eps;
    let dd = 1.1 * (dv / (2.0 * root)).min(dv.sqrt()) / c2 + 12.0 * U * d;
    let s = lr / c1 * x.m.abs() / d;
    let ds = if dd < d { lr / c1 * dm / (d - dd) + s * (20.0 * U + dd / (d - dd)) } else { f64::INFINITY };
    let shrink = if h.decay == Decay::Decoupled { 1.0 + lr * wd } else { 1.0 };
    let dp = ds + 4.0 * U * (x.p.abs() * shrink + s) + step_of_type(dtype, x.p.abs() * shrink + s) + 4.0 * TINY;
    [dp, dm, dv]
}

/// Absolute bound on a parameter after its sign step (A6.7).
pub fn state_free(p: f64, g: f64, h: &Hyper, scales: Scales, dtype: DType) -> f64 {
    let (lr, wd) = (h.lr * scales.lr, h.weight_decay * scales.weight_decay);
    let step = lr * h.sign_scale.unwrap_or(0.0);
    let l2 = h.decay == Decay::L2 && wd != 0.0;
    let (a, b) = (g * h.inv_loss_scale, wd * p);
    // A sum that nearly cancels may fall to either side of zero.
    let ambiguous = l2 && a.is_finite() && (a + b).abs() <= 8.0 * U * (a.abs() + b.abs()) + 4.0 * TINY;
    let moved = p.abs() * (1.0 + lr * wd) + step;
    4.0 * U * moved + step_of_type(dtype, moved) + TINY + if ambiguous { 2.0 * step } else { 0.0 }
}

/// Absolute bound on the sum of squares of the processed gradient (A2.1): per element x = num / den,
/// dx = |x| (20u + dd / (d - dd)) + dnum / (d - dd), and the squares' sum errs by the sum of 2|x|dx + dx^2 beside [`SUM`].
pub fn processed(elements: impl Iterator<Item = (f64, Option<(f64, f64)>)>, h: &Hyper, powers: Option<Powers>) -> f64 {
    let mut powers = powers.unwrap_or(Powers::START);
    powers.advance(h.betas);
    let (c1, c2) = (1.0 - powers.now[0], (1.0 - powers.now[1]).sqrt());
    let (mut sum, mut error) = (0.0, 0.0);
    for (g, moments) in elements {
        let g = g * h.inv_loss_scale;
        let (x, dx) = match moments {
            None => {
                let d = g.abs() + h.eps;
                (g / d, 10.0 * U + 2.0 * TINY / d)
            }
            Some((m, v)) => {
                let m1 = m + (1.0 - h.betas[0]) * (g - m);
                let v1 = h.betas[1] * v + (1.0 - h.betas[1]) * g * g;
                let dm = 8.0 * U * (m.abs() + g.abs()) + 4.0 * TINY;
                let dv = 12.0 * U * v1 + 4.0 * TINY;
                let d = v1.sqrt() / c2 + h.eps;
                let dd = 1.1 * (dv / (2.0 * v1.sqrt())).min(dv.sqrt()) / c2 + 12.0 * U * d;
                let x = m1 / c1 / d;
                let rest = if dd < d { d - dd } else { 0.0 };
                (x, x.abs() * (20.0 * U + dd / rest) + dm / c1 / rest)
            }
        };
        sum += x * x;
        error += 2.0 * x.abs() * dx + dx * dx;
    }
    sum * SUM + error * 1.01
}
