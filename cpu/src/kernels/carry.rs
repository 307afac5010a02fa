//! One moment of a block that stays, from its old packed run to its new one (A5.4).

use crate::active::{Active, ones};
use crate::compute::Compute;
use crate::parallel::{Divide, run};
use blockllm::mask::bit_words;
use blockllm::{View, ViewMut};

struct Carry<'a, F> {
    old: Active<'a>,
    from: &'a [F],
    new: Active<'a>,
    to: &'a mut [F],
}

impl<F: Compute> Divide for Carry<'_, F> {
    fn len(&self) -> usize {
        self.new.len()
    }

    fn divide(self, at: usize) -> (Self, Self) {
        let (old, from) = (self.old.divide(at), self.from.split_at(self.old.rank(at)));
        let (new, to) = (self.new.divide(at), self.to.split_at_mut(self.new.rank(at)));
        (Self { old: old.0, from: from.0, new: new.0, to: to.0 }, Self { old: old.1, from: from.1, new: new.1, to: to.1 })
    }
}

/// Copies what stays; zeros for what enters, and in what a short tile leaves over.
pub(crate) fn carry(from: View<'_>, old: Active<'_>, to: ViewMut<'_>, new: Active<'_>, grain: usize) {
    match to {
        ViewMut::F64(to) => run(Carry { old, from: f64::slice(from), new, to }, grain, &kernel),
        to => run(Carry { old, from: f32::slice(from), new, to: f32::slice_mut(to) }, grain, &kernel),
    }
}

fn kernel<F: Compute>(work: Carry<'_, F>) {
    let Carry { old, from, new, to } = work;
    to.fill(F::zero());
    let (mut source, mut target) = (0, 0);
    for w in 0..bit_words(new.len()) {
        let (was, is) = (old.word(w), new.word(w));
        let rank = |word: u32, bit: usize| (word & ((1 << bit) - 1)).count_ones() as usize;
        ones(was & is, |bit| to[target + rank(is, bit)] = from[source + rank(was, bit)]);
        source += was.count_ones() as usize;
        target += is.count_ones() as usize;
    }
}
