//! The active coordinates of a gradient, packed (A6.2, A6.5).

use crate::active::Active;
use crate::compute::{Compute, Stored, with_gradient};
use crate::parallel::{Divide, run};
use blockllm::{View, ViewMut};

struct Gather<'a, E, F> {
    g: &'a [E],
    active: Active<'a>,
    packed: &'a mut [F],
}

impl<E: Stored<F>, F: Compute> Divide for Gather<'_, E, F> {
    fn len(&self) -> usize {
        self.g.len()
    }

    fn divide(self, at: usize) -> (Self, Self) {
        let (g, active, packed) = (self.g.split_at(at), self.active.divide(at), self.packed.split_at_mut(self.active.rank(at)));
        (Self { g: g.0, active: active.0, packed: packed.0 }, Self { g: g.1, active: active.1, packed: packed.1 })
    }
}

/// Copies the active coordinates of `g`, widened, into `packed`, and zeros into what is left of it; or, where `add` is
/// true, adds them to what is there.
pub(crate) fn gather(g: View<'_>, active: Active<'_>, packed: ViewMut<'_>, add: bool, grain: usize) {
    with_gradient!(packed.as_view().dtype(), g, |g, F| {
        let work = Gather { g, active, packed: F::slice_mut(packed) };
        if add { run(work, grain, &sum) } else { run(work, grain, &copy) }
    });
}

fn copy<E: Stored<F>, F: Compute>(work: Gather<'_, E, F>) {
    let Gather { g, active, packed } = work;
    if let Active::Whole(_) = active {
        packed.iter_mut().zip(g).for_each(|(out, x)| *out = x.widen());
        return;
    }
    let mut j = 0;
    active.for_each(|i| {
        packed[j] = g[i].widen();
        j += 1;
    });
    packed[j..].fill(F::zero());
}

fn sum<E: Stored<F>, F: Compute>(work: Gather<'_, E, F>) {
    let Gather { g, active, packed } = work;
    if let Active::Whole(_) = active {
        packed.iter_mut().zip(g).for_each(|(out, x)| *out = *out + x.widen());
        return;
    }
    let mut j = 0;
    active.for_each(|i| {
        packed[j] = packed[j] + g[i].widen();
        j += 1;
    });
}
