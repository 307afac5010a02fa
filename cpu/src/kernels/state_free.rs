//! The sign step of what is not active (A6.7).
//!
//! ```text
//! L2, wd != 0:  g = (g * inv_loss_scale) + wd*p        decoupled:  p = p * f(1 - lr*wd)
//! p = p - f(lr*scale) * sign(g)                         sign(0) = sign(NaN) = 0
//! ```

use crate::active::{Active, ones};
use crate::compute::{Compute, Stored};
use crate::parallel::{Divide, fold};
use blockllm::adam::{Decay, Hyper, Scales};
use blockllm::{View, ViewMut};

/// The block's numbers, each rounded once.
struct SignStep<F> {
    inv_loss_scale: F,
    /// Weight decay as L2, where it is not zero.
    l2: Option<F>,
    shrink: Option<F>,
    step: F,
}

impl<F: Compute> SignStep<F> {
    fn new(h: &Hyper, scales: Scales) -> Self {
        let f = F::round_from;
        let (lr, wd) = (h.lr * scales.lr, h.weight_decay * scales.weight_decay);
        Self {
            inv_loss_scale: f(h.inv_loss_scale),
            l2: (h.decay == Decay::L2 && f(wd) != F::zero()).then(|| f(wd)),
            shrink: (h.decay == Decay::Decoupled).then(|| f(1.0 - lr * wd)),
            step: f(lr * h.sign_scale.unwrap_or(0.0)),
        }
    }

    /// One coordinate; and whether its gradient, decay included, was a NaN.
    fn apply<E: Stored<F>, G: Stored<F>>(&self, p: &mut E, g: G) -> bool {
        let (mut x, mut d) = (p.widen(), g.widen());
        if let Some(wd) = self.l2 {
            d = d * self.inv_loss_scale + wd * x;
        }
        if let Some(shrink) = self.shrink {
            x = x * shrink;
        }
        let sign = if d > F::zero() {
            F::one()
        } else if d < F::zero() {
            -F::one()
        } else {
            F::zero()
        };
        *p = E::round(x - self.step * sign);
        d.is_nan()
    }
}

struct StateFree<'a, E, G> {
    p: &'a mut [E],
    g: &'a [G],
    active: Active<'a>,
}

impl<E: Send, G: Sync> Divide for StateFree<'_, E, G> {
    fn len(&self) -> usize {
        self.p.len()
    }

    fn divide(self, at: usize) -> (Self, Self) {
        let (p, g, active) = (self.p.split_at_mut(at), self.g.split_at(at), self.active.divide(at));
        (Self { p: p.0, g: g.0, active: active.0 }, Self { p: p.1, g: g.1, active: active.1 })
    }
}

/// Moves what is not active; returns how many NaNs it met, at most `u32::MAX`.
pub(crate) fn state_free(p: ViewMut<'_>, g: View<'_>, active: Active<'_>, h: &Hyper, scales: Scales, grain: usize) -> u32 {
    macro_rules! run {
        ($p:expr, $g:expr, $F:ty) => {{
            let step = SignStep::<$F>::new(h, scales);
            fold(StateFree { p: $p, g: $g, active }, grain, &|work| kernel(work, &step), &u32::saturating_add)
        }};
    }
    match (p, g) {
        (ViewMut::F32(p), View::F32(g)) => run!(p, g, f32),
        (ViewMut::F16(p), View::F16(g)) => run!(p, g, f32),
        (ViewMut::F16(p), View::F32(g)) => run!(p, g, f32),
        (ViewMut::Bf16(p), View::Bf16(g)) => run!(p, g, f32),
        (ViewMut::Bf16(p), View::F32(g)) => run!(p, g, f32),
        (ViewMut::F64(p), View::F64(g)) => run!(p, g, f64),
        (ViewMut::F64(p), View::F32(g)) => run!(p, g, f64),
        (p, g) => unreachable!("a gradient of type {} for a parameter of type {}", g.dtype(), p.as_view().dtype()),
    }
}

fn kernel<E: Stored<F>, G: Stored<F>, F: Compute>(work: StateFree<'_, E, G>, step: &SignStep<F>) -> u32 {
    let StateFree { p, g, active } = work;
    let mut nans = 0;
    if let Active::Idle(_) = active {
        p.iter_mut().zip(g).for_each(|(p, g)| nans += u32::from(step.apply(p, *g)));
        return nans;
    }
    for (w, (p, g)) in p.chunks_mut(32).zip(g.chunks(32)).enumerate() {
        let inside = u32::MAX >> (32 - p.len());
        ones(!active.word(w) & inside, |b| nans += u32::from(step.apply(&mut p[b], g[b])));
    }
    nans
}
