//! What the update of one block multiplies with.

use crate::compute::Compute;
use blockllm::adam::{Decay, Hyper, Powers, Scales};

/// The numbers of A6.1, each rounded once to the compute type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coefficients<F> {
    pub inv_loss_scale: F,
    pub clip: F,
    pub c1: F,
    pub c2: F,
    pub lr_over_c1: F,
    /// Weight decay as L2, where it is not zero.
    pub l2: Option<F>,
    /// f(1 - lr*wd) of decoupled decay.
    pub shrink: Option<F>,
    pub one_minus_beta1: F,
    pub beta2: F,
    pub one_minus_beta2: F,
    pub eps: F,
    /// f(1-beta1^t), f(1-beta2^t) of t before its increment: the moments of a coordinate that enters (A5.4).
    pub entering: [F; 2],
}

impl<F: Compute> Coefficients<F> {
    /// `powers` are those of this step, `clip` is the factor of A6.3.
    pub fn new(h: &Hyper, scales: Scales, powers: &Powers, clip: f64) -> Self {
        let f = F::round_from;
        let (lr, wd) = (h.lr * scales.lr, h.weight_decay * scales.weight_decay);
        let c1 = f(1.0 - powers.now[0]);
        Self {
            inv_loss_scale: f(h.inv_loss_scale),
            clip: f(clip),
            c1,
            c2: f((1.0 - powers.now[1]).sqrt()),
            lr_over_c1: f(lr) / c1,
            l2: (h.decay == Decay::L2 && f(wd) != F::zero()).then(|| f(wd)),
            shrink: (h.decay == Decay::Decoupled).then(|| f(1.0 - lr * wd)),
            one_minus_beta1: f(1.0 - h.betas[0]),
            beta2: f(h.betas[1]),
            one_minus_beta2: f(1.0 - h.betas[1]),
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
}
