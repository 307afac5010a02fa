//! The update of what is not active, without state (A6.7; FRUGAL, arXiv 2411.07837).
//!
//! ```text
//! L2, wd != 0:  g = (g * inv_loss_scale) + wd*p        decoupled:  p = p * f(1 - lr*wd)
//! p = p - f(lr*scale) * sign(g)                         sign(0) = sign(NaN) = 0
//! ```

use crate::adam::{Decay, Hyper, Scales};
use crate::element::{Element, Real};

/// Moves by its gradient's sign every coordinate that `is_active` says is not active. Returns how many of them had a
/// NaN for a gradient, after decay has entered it; it moves nothing.
pub fn update<E, G, F>(p: &mut [E], g: &[G], is_active: impl Fn(usize) -> bool, h: &Hyper, scales: Scales) -> u32
where
    E: Element<F>,
    G: Element<F>,
    F: Real,
{
    let (lr, wd) = (h.lr * scales.lr, h.weight_decay * scales.weight_decay);
    let (inv, wd_rounded, shrink) = (F::round_from(h.inv_loss_scale), F::round_from(wd), F::round_from(1.0 - lr * wd));
    let step = F::round_from(lr * h.sign_scale.unwrap_or(0.0));
    let l2 = h.decay == Decay::L2 && wd_rounded != F::zero();
    let mut nans = 0;
    for i in (0..p.len()).filter(|&i| !is_active(i)) {
        let (mut x, mut d) = (p[i].widen(), g[i].widen());
        if l2 {
            d = d * inv + wd_rounded * x;
        }
        nans += u32::from(d.magnitude() > F::infinity().magnitude());
        if h.decay == Decay::Decoupled {
            x = x * shrink;
        }
        p[i] = E::round(x - step * sign(d));
    }
    nans
}

/// -1, 0 or 1, decided on the bits; 0 of NaN.
fn sign<F: Real>(x: F) -> F {
    let bits = x.magnitude();
    if bits == 0 || bits > F::infinity().magnitude() {
        F::zero()
    } else if x.is_sign_negative() {
        -F::one()
    } else {
        F::one()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYPER: Hyper = Hyper {
        lr: 0.5,
        betas: [0.9, 0.999],
        eps: 1e-8,
        weight_decay: 0.0,
        decay: Decay::Decoupled,
        inv_loss_scale: 1.0,
        clip: None,
        sign_scale: Some(0.5),
    };

    #[test]
    fn zero_and_nan_have_no_sign_and_infinity_has_one_a6_7() {
        let (mut p, g) = ([1.0f32; 6], [3.0f32, -1e-40, 0.0, -0.0, f32::NAN, f32::NEG_INFINITY]);
        assert_eq!(update::<_, _, f32>(&mut p, &g, |_| false, &HYPER, Scales::default()), 1);
        assert_eq!(p, [0.75, 1.25, 1.0, 1.0, 1.0, 1.25]);
    }

    #[test]
    fn active_coordinates_are_left_alone_and_their_nans_not_counted_a6_7() {
        let (mut p, g) = ([1.0f32; 3], [f32::NAN, 2.0, 2.0]);
        assert_eq!(update::<_, _, f32>(&mut p, &g, |i| i < 2, &HYPER, Scales::default()), 0);
        assert_eq!(p, [1.0, 1.0, 0.75]);
    }

    #[test]
    fn decay_alone_moves_what_has_no_gradient_a6_7() {
        let h = Hyper { weight_decay: 1.0, ..HYPER };
        let mut p = [1.0f32];
        update::<_, _, f32>(&mut p, &[0.0f32], |_| false, &h, Scales::default());
        assert_eq!(p, [0.5]);
        // L2: the decay is part of the gradient whose sign is taken.
        let mut p = [1.0f32];
        update::<_, _, f32>(&mut p, &[-0.5f32], |_| false, &Hyper { decay: Decay::L2, ..h }, Scales::default());
        assert_eq!(p, [0.75]);
    }

    #[test]
    fn the_step_is_one_product_rounded_once_a6_7() {
        let (lr, scale) = (0.1f64, 0.3f64);
        assert_ne!((lr * scale) as f32, lr as f32 * scale as f32, "numbers that tell the two apart");
        let h = Hyper { lr, sign_scale: Some(scale), ..HYPER };
        let mut p = [0.0f32];
        update::<_, _, f32>(&mut p, &[-1.0f32], |_| false, &h, Scales::default());
        assert_eq!(p[0].to_bits(), ((lr * scale) as f32).to_bits());
    }

    #[test]
    fn a_nan_that_decay_brings_in_is_counted_a6_7() {
        let h = Hyper { weight_decay: 0.1, decay: Decay::L2, ..HYPER };
        let mut p = [f32::NAN, 1.0];
        assert_eq!(update::<_, _, f32>(&mut p, &[1.0f32, 1.0], |_| false, &h, Scales::default()), 1);
        assert_eq!(p[1], 0.75);
    }
}
