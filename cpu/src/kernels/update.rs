//! The update of active coordinates (A6.1).
//!
//! ```text
//! g = (g * inv_loss_scale) * clip
//! L2 (Adam):  g = g + wd*p              decoupled (AdamW):  p = p * f(1 - lr*wd)
//! m = m + f(1-beta1) * (g - m)
//! v = beta2 * v + (f(1-beta2) * g) * g
//! p = p - ((lr / c1[t]) * m) / (sqrt(v) / c2[t] + eps)      c1 = f(1-beta1^t), c2 = f(sqrt(1-beta2^t))
//! ```
//!
//! Parameters are widened and packed 512 at a time, so that the equations run on plain slices whatever mask and type.

use crate::active::Active;
use crate::compute::{Compute, Stored, with_parameter};
use crate::parallel::{Divide, run};
use blockllm::adam::{Coefficients, Hyper, Powers, Scales};
use blockllm::mask::PREFIX;
use blockllm::{View, ViewMut};

/// The packed runs of one block.
pub(crate) struct Packed<'a> {
    /// Gradients as gathered.
    pub g: View<'a>,
    /// First moments.
    pub m: ViewMut<'a>,
    /// Second moments.
    pub v: ViewMut<'a>,
}

struct Update<'a, E, F> {
    p: &'a mut [E],
    active: Active<'a>,
    /// Under `Carry`, the set before: what is not in it enters.
    old: Option<Active<'a>>,
    g: &'a [F],
    m: &'a mut [F],
    v: &'a mut [F],
}

impl<E: Send, F: Compute> Divide for Update<'_, E, F> {
    fn len(&self) -> usize {
        self.p.len()
    }

    fn divide(self, at: usize) -> (Self, Self) {
        let rank = self.active.rank(at);
        let (p, active, old) = (self.p.split_at_mut(at), self.active.divide(at), self.old.map(|old| old.divide(at)));
        let (g, m, v) = (self.g.split_at(rank), self.m.split_at_mut(rank), self.v.split_at_mut(rank));
        (
            Self { p: p.0, active: active.0, old: old.map(|o| o.0), g: g.0, m: m.0, v: v.0 },
            Self { p: p.1, active: active.1, old: old.map(|o| o.1), g: g.1, m: m.1, v: v.1 },
        )
    }
}

/// Updates the active coordinates of one block in place. `old` is the set before a switch under `Carry`: what was not in
/// it enters (A5.4). `powers` are those of this step, `clip` is the factor of A6.3.
#[expect(clippy::too_many_arguments, reason = "the operands of the equations")]
pub(crate) fn update(
    p: ViewMut<'_>, active: Active<'_>, old: Option<Active<'_>>, packed: Packed<'_>, h: &Hyper, scales: Scales, powers: &Powers,
    clip: f64, grain: usize,
) {
    with_parameter!(p, |p, F| {
        let c = Coefficients::<F>::new(h, scales, powers, clip);
        let (g, m, v) = (F::slice(packed.g), F::slice_mut(packed.m), F::slice_mut(packed.v));
        run(Update { p, active, old, g, m, v }, grain, &|work| kernel(work, &c));
    });
}

fn kernel<E: Stored<F>, F: Compute>(work: Update<'_, E, F>, c: &Coefficients<F>) {
    let Update { p, active, old, mut g, mut m, mut v } = work;
    let (mut index, mut buffer) = ([0; PREFIX], [F::zero(); PREFIX]);
    for (run, p) in p.chunks_mut(PREFIX).enumerate() {
        let count = active.list(run, &mut index);
        let (index, x) = (&index[..count], &mut buffer[..count]);
        let here;
        (here, g) = g.split_at(count);
        let (m_here, m_rest) = m.split_at_mut(count);
        let (v_here, v_rest) = v.split_at_mut(count);
        load(p, index, x);
        if let Some(old) = old {
            let enters = |i: u16| !old.contains(run * PREFIX + usize::from(i));
            enter(index, enters, x, here, m_here, v_here, c);
        }
        step(x, here, m_here, v_here, c);
        store(p, index, x);
        (m, v) = (m_rest, v_rest);
    }
}

/// The parameters of the coordinates in `index`.
fn load<E: Stored<F>, F: Compute>(p: &[E], index: &[u16], x: &mut [F]) {
    if index.len() == p.len() {
        x.iter_mut().zip(p).for_each(|(x, p)| *x = p.widen());
    } else {
        x.iter_mut().zip(index).for_each(|(x, &i)| *x = p[usize::from(i)].widen());
    }
}

fn store<E: Stored<F>, F: Compute>(p: &mut [E], index: &[u16], x: &[F]) {
    if index.len() == p.len() {
        p.iter_mut().zip(x).for_each(|(p, x)| *p = E::round(*x));
    } else {
        index.iter().zip(x).for_each(|(&i, x)| p[usize::from(i)] = E::round(*x));
    }
}

/// Moments of coordinates that enter a block with t > 0: as if each had always seen its present gradient (A5.4).
fn enter<F: Compute>(
    index: &[u16], enters: impl Fn(u16) -> bool, p: &[F], g: &[F], m: &mut [F], v: &mut [F], c: &Coefficients<F>,
) {
    for (j, &i) in index.iter().enumerate() {
        if enters(i) {
            let g = c.gradient(g[j], p[j]);
            (m[j], v[j]) = (c.entering[0] * g, c.entering[1] * (g * g));
        }
    }
}

/// The equations.
fn step<F: Compute>(p: &mut [F], g: &[F], m: &mut [F], v: &mut [F], c: &Coefficients<F>) {
    for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
        let g = c.gradient(g, *p);
        let x = c.shrink.map_or(*p, |shrink| *p * shrink);
        (*m, *v) = c.moments(*m, *v, g);
        let denominator = v.root() / c.c2 + c.eps;
        let moved = x - (c.lr_over_c1 * *m) / denominator;
        // Zero only with eps = 0 and a gradient that was always zero: 0/0 would be NaN, the limit is no step.
        *p = if denominator == F::zero() { x } else { moved };
    }
}
