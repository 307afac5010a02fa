//! The update of an active coordinate (A6.1), equation first, then the same equation as code.
//!
//! ```text
//! g = (g * inv_loss_scale) * clip
//! L2 (Adam):  g = g + wd*p              decoupled (AdamW):  p = p * f(1 - lr*wd)
//! m = m + f(1-beta1) * (g - m)
//! v = beta2 * v + (f(1-beta2) * g) * g
//! p = p - ((lr / c1[t]) * m) / (sqrt(v) / c2[t] + eps)      c1 = f(1-beta1^t), c2 = f(sqrt(1-beta2^t))
//! ```
//!
//! Each operation is rounded in the compute type and none is fused, so that every backend can give the same bits.
//! Against PyTorch's AdamW the last bits differ (its `lerp` and `addcdiv` round elsewhere): A6.6 states the bounds.

use crate::element::{Element, Real};
use crate::mask::Mask;
use num_traits::Float;

/// How weight decay enters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Decay {
    /// Added to the gradient: Adam with L2 regularisation.
    L2,
    /// Shrinks the parameter: AdamW (Loshchilov and Hutter 2019).
    #[default]
    Decoupled,
}

/// The numbers of one step, in f64 as the caller gave them; kernels round each once (A6.1).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Hyper {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay rates of m and v.
    pub betas: [f64; 2],
    /// Added to the denominator.
    pub eps: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// How it enters.
    pub decay: Decay,
    /// Multiplies every gradient: the inverse of the loss scale.
    pub inv_loss_scale: f64,
    /// Largest norm of the active gradients (A6.3).
    pub clip: Option<f64>,
    /// Scale of the sign step of what is not active (A6.7); `None` leaves it where it is.
    pub sign_scale: Option<f64>,
}

/// A block's factors on the learning rate and the weight decay.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Scales {
    /// On the learning rate.
    pub lr: f64,
    /// On the weight decay.
    pub weight_decay: f64,
}

impl Default for Scales {
    fn default() -> Self {
        Self { lr: 1.0, weight_decay: 1.0 }
    }
}

/// Running powers of the betas: before and after this step's increment of t.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Powers {
    /// beta1^(t-1), beta2^(t-1).
    pub before: [f64; 2],
    /// beta1^t, beta2^t.
    pub now: [f64; 2],
}

impl Powers {
    /// Of a block that has not been updated: t = 0.
    pub const START: Self = Self { before: [1.0; 2], now: [1.0; 2] };

    /// One multiplication each (A6.1).
    pub fn advance(&mut self, betas: [f64; 2]) {
        self.before = self.now;
        self.now = [self.now[0] * betas[0], self.now[1] * betas[1]];
    }
}

/// What the update of one block multiplies with, rounded once to the compute type.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Coefficients<F> {
    /// On every gradient.
    pub inv_loss_scale: F,
    /// On every gradient (A6.3).
    pub clip: F,
    /// f(1 - beta1^t).
    pub c1: F,
    /// lr / c1\[t\], a division in the compute type.
    pub lr_over_c1: F,
    /// wd, where it enters the gradient and is not 0.
    pub l2: Option<F>,
    /// f(1 - lr*wd), where decay shrinks the parameter.
    pub shrink: Option<F>,
    /// f(1 - beta1).
    pub one_minus_beta1: F,
    /// f(beta2).
    pub beta2: F,
    /// f(1 - beta2).
    pub one_minus_beta2: F,
    /// f(sqrt(1 - beta2^t)).
    pub c2: F,
    /// f(eps).
    pub eps: F,
    /// f(1-beta1^t), f(1-beta2^t) of t before its increment: the moments of a coordinate that enters (A5.4).
    pub entering: [F; 2],
}

impl<F: Real> Coefficients<F> {
    /// `clip` is the factor of A6.3, already decided.
    pub fn new(h: &Hyper, scales: Scales, powers: &Powers, clip: f64) -> Self {
        let f = F::round_from;
        let (lr, wd) = (h.lr * scales.lr, h.weight_decay * scales.weight_decay);
        Self {
            inv_loss_scale: f(h.inv_loss_scale),
            clip: f(clip),
            c1: f(1.0 - powers.now[0]),
            lr_over_c1: f(lr) / f(1.0 - powers.now[0]),
            l2: (h.decay == Decay::L2 && f(wd) != F::zero()).then(|| f(wd)),
            shrink: (h.decay == Decay::Decoupled).then(|| f(1.0 - lr * wd)),
            one_minus_beta1: f(1.0 - h.betas[0]),
            beta2: f(h.betas[1]),
            one_minus_beta2: f(1.0 - h.betas[1]),
            c2: f(Float::sqrt(1.0 - powers.now[1])),
            eps: f(h.eps),
            entering: powers.before.map(|x| f(1.0 - x)),
        }
    }

    /// The packed gradient of a coordinate whose parameter is `p`, as it enters the line of m.
    pub fn gradient(&self, g: F, p: F) -> F {
        let g = (g * self.inv_loss_scale) * self.clip;
        self.l2.map_or(g, |wd| g + wd * p)
    }

    /// The moments after gradient g.
    pub fn moments(&self, m: F, v: F, g: F) -> (F, F) {
        (m + self.one_minus_beta1 * (g - m), self.beta2 * v + (self.one_minus_beta2 * g) * g)
    }

    /// One coordinate: parameter, packed gradient, moments (`None`: it enters a block with t > 0). Returns p, m, v.
    pub fn step(&self, mut p: F, g: F, moments: Option<(F, F)>) -> (F, F, F) {
        let g = self.gradient(g, p);
        if let Some(shrink) = self.shrink {
            p = p * shrink;
        }
        let (m, v) = moments.unwrap_or_else(|| (self.entering[0] * g, self.entering[1] * (g * g)));
        let (m, v) = self.moments(m, v, g);
        let denominator = v.sqrt() / self.c2 + self.eps;
        // Zero only with eps = 0 and a gradient that was always zero: 0/0 would be NaN, the limit is no step.
        if denominator != F::zero() {
            p = p - (self.lr_over_c1 * m) / denominator;
        }
        (p, m, v)
    }
}

/// The packed runs of one block.
#[derive(Debug)]
pub struct Packed<'a, F> {
    /// Gradients as gathered.
    pub g: &'a [F],
    /// First moments.
    pub m: &'a mut [F],
    /// Second moments.
    pub v: &'a mut [F],
}

/// Updates the active coordinates of one block in place. `old` is the mask before a switch under `Carry`: what was not
/// in it enters (A5.4).
pub fn update<E: Element<F>, F: Real>(
    p: &mut [E], mask: Mask<'_>, old: Option<Mask<'_>>, packed: Packed<'_, F>, c: &Coefficients<F>,
) {
    for (j, i) in mask.coordinates().enumerate() {
        let stays = old.is_none_or(|old| old.contains(i));
        let moments = stays.then(|| (packed.m[j], packed.v[j]));
        let (x, m, v) = c.step(p[i].widen(), packed.g[j], moments);
        (p[i], packed.m[j], packed.v[j]) = (E::round(x), m, v);
    }
}

/// Packs the gradient's active coordinates (A6.5), widened; what a short tile leaves over is zero (A4.5).
pub fn gather<E: Element<F>, F: Real>(g: &[E], mask: Mask<'_>, packed: &mut [F]) {
    packed.fill(F::zero());
    for (out, i) in packed.iter_mut().zip(mask.coordinates()) {
        *out = g[i].widen();
    }
}

/// Adds a later micro-batch to what was gathered (A6.2).
pub fn gather_add<E: Element<F>, F: Real>(g: &[E], mask: Mask<'_>, packed: &mut [F]) {
    for (out, i) in packed.iter_mut().zip(mask.coordinates()) {
        *out = *out + g[i].widen();
    }
}

/// What guard and clip must know of a packed gradient times inv_loss_scale.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Inspected {
    /// Its sum of squares (A6.3).
    pub sum: f64,
    /// It is finite, and so are its squares in the compute type (A6.4).
    pub passes: bool,
    /// Before it was scaled, it was zero everywhere.
    pub all_zero: bool,
}

/// Guard and sum of squares of one block's packed gradient.
pub fn inspect<F: Real>(packed: &[F], inv_loss_scale: f64) -> Inspected {
    let inv = F::round_from(inv_loss_scale);
    let (mut sum, mut passes) = (crate::sum_of_squares::SumOfSquares::default(), true);
    for &g in packed {
        let x = g * inv;
        // On the bits, as a device must do it: a shader compiler may assume that NaN does not exist.
        passes &= x.magnitude() < F::infinity().magnitude() && (x * x).magnitude() < F::infinity().magnitude();
        sum.push(x.to_double());
    }
    let all_zero = packed.iter().all(|g| g.magnitude() == 0);
    Inspected { sum: sum.finish(), passes, all_zero }
}

/// Sum of squares of the processed gradient m̂/(sqrt(v̂)+eps) (A2.1). `present` has the block's mask and packed moments in
/// the set that last updated, and its powers, whose `now` is of the t before this step; other coordinates have none.
pub fn score_processed<E: Element<F>, F: Real>(g: &[E], h: &Hyper, present: Option<(Mask<'_>, [&[F]; 2], Powers)>) -> f64 {
    let powers = present.map_or(Powers::START, |(_, _, mut powers)| {
        powers.advance(h.betas);
        powers
    });
    let c = Coefficients::<F>::new(h, Scales::default(), &powers, 1.0);
    let element = |(i, x): (usize, &E)| {
        let g = x.widen() * c.inv_loss_scale;
        let (numerator, denominator) = match present.filter(|(mask, _, _)| mask.contains(i)) {
            Some((mask, [m, v], _)) => {
                let (m, v) = c.moments(m[mask.rank(i)], v[mask.rank(i)], g);
                (m / c.c1, v.sqrt() / c.c2 + c.eps)
            }
            None => (g, g.abs() + c.eps),
        };
        if denominator == F::zero() { 0.0 } else { (numerator / denominator).to_double() }
    };
    crate::sum_of_squares::sum_of_squares(g.iter().enumerate().map(element))
}

/// Sum of squares of a delivered gradient times inv_loss_scale, rounded to the compute type first (A2.4).
pub fn score<E: Element<F>, F: Real>(g: &[E], inv_loss_scale: f64) -> f64 {
    let inv = F::round_from(inv_loss_scale);
    crate::sum_of_squares::sum_of_squares(g.iter().map(|x| (x.widen() * inv).to_double()))
}
