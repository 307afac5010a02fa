//! The arena's layout: where the packed runs and masks of an active set lie, and what survives a switch (section 5).

use crate::adam::Scales;
use crate::element::Real;
use crate::mask::{self, Mask};
use core::ops::Range;

/// One block of an active set: where its packed coordinates and its mask lie in the arena.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Region {
    /// The block.
    pub block: u32,
    /// Its coordinates.
    pub n: usize,
    /// Its active coordinates; 0 for a block that is moved without state.
    pub k: usize,
    /// First of its k packed elements in `m`, `v` and `spare`.
    pub at: usize,
    /// First of its k packed elements in `gradient`: the same as `at` where the whole set's gradients are packed; a step
    /// that updates each block as its gradient arrives packs one at a time.
    pub gradient_at: usize,
    /// First of its [`mask::words`]`(n)` words in `masks`, where it is masked.
    pub mask_at: usize,
    /// In the step that switches to this set: it starts with t = 0 and zero moments.
    pub fresh: bool,
    /// Its factors on learning rate and weight decay.
    pub scales: Scales,
}

impl Region {
    /// Only some of its coordinates are active.
    pub fn masked(&self) -> bool {
        self.k < self.n
    }

    /// Its elements in `m`, `v` and `spare`.
    pub fn packed(&self) -> Range<usize> {
        self.at..self.at + self.k
    }

    /// Its elements in `gradient`.
    pub fn gradient(&self) -> Range<usize> {
        self.gradient_at..self.gradient_at + self.k
    }

    /// Its words in `masks`; none where it is whole or has no state.
    pub fn mask_words(&self) -> Range<usize> {
        let words = if self.masked() && self.k > 0 { mask::words(self.n) } else { 0 };
        self.mask_at..self.mask_at + words
    }

    /// Its mask, from the words of the whole set.
    pub fn mask<'a>(&self, masks: &'a [u32]) -> Mask<'a> {
        if self.masked() { Mask::new(&masks[self.mask_words()], self.n) } else { Mask::whole(self.n) }
    }
}

/// Moves one moment of a block that stays from its old packed run to its new one: a coordinate that stays keeps it, one
/// that enters starts from zero here and is given its moments by the update (A5.4), as is what a short tile leaves over.
pub fn carry<F: Real>(from: &[F], old: Mask<'_>, to: &mut [F], new: Mask<'_>) {
    to.fill(F::zero());
    for (out, i) in to.iter_mut().zip(new.coordinates()) {
        if old.contains(i) {
            *out = from[old.rank(i)];
        }
    }
}

#[cfg(feature = "alloc")]
pub use set::ActiveSet;

#[cfg(feature = "alloc")]
mod set {
    use super::Region;
    use crate::block::{BlockId, Blocks};
    use crate::fill::Sized;
    use alloc::vec::Vec;

    /// An active set: its regions in block order.
    #[derive(Clone, Debug, Default, PartialEq)]
    pub struct ActiveSet {
        /// By block.
        pub regions: Vec<Region>,
    }

    impl ActiveSet {
        /// Packs blocks one after another in block order.
        pub fn new(blocks: &Blocks, counts: &[Sized]) -> Self {
            let (mut at, mut mask_at) = (0, 0);
            let mut pack = |&(block, k): &Sized| {
                let spec = blocks.spec(block);
                let region = Region { block, n: spec.len(), k, at, gradient_at: at, mask_at, fresh: true, scales: spec.scales };
                at += k;
                mask_at = region.mask_words().end;
                region
            };
            Self { regions: counts.iter().map(&mut pack).collect() }
        }

        /// The region of a block, where it is in the set.
        pub fn find(&self, block: BlockId) -> Option<&Region> {
            self.position(block).ok().map(|i| &self.regions[i])
        }

        /// Where a block is in the set, or where it would be.
        pub fn position(&self, block: BlockId) -> Result<usize, usize> {
            self.regions.binary_search_by_key(&block, |r| r.block)
        }

        /// Active coordinates that were decided on. A short tile may hold fewer (A4.5).
        pub fn coordinates(&self) -> usize {
            self.regions.iter().map(|r| r.k).sum()
        }

        /// Words of all masks.
        pub fn mask_words(&self) -> usize {
            self.regions.iter().map(|r| r.mask_words().end).max().unwrap_or(0)
        }

        /// Elements of the packed buffers up to the end of the last run.
        pub fn packed_end(&self) -> usize {
            self.regions.iter().map(|r| r.at + r.k).max().unwrap_or(0)
        }

        /// Blocks and counts, by block.
        pub fn counts(&self) -> impl Iterator<Item = Sized> + '_ {
            self.regions.iter().map(|r| (r.block, r.k))
        }

        /// Whether a decision for `counts` would change nothing: the same blocks, all whole (A3.7).
        pub fn is_whole_and_equals(&self, counts: &[Sized]) -> bool {
            self.regions.iter().all(|r| !r.masked()) && self.counts().eq(counts.iter().copied())
        }
    }
}
