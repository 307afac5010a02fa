//! How much the arena holds: n_s, and more only as long as a set needs it.

use super::{Optimizer, Result, device};
use crate::backend::Backend;
use crate::block::{BlockSpec, Blocks};
use crate::config::Config;
use crate::policy::Policy;

/// Coordinates of the packed gradients that are alive at once, when `capacity` may be active.
pub(super) fn gradient_capacity(blocks: &Blocks, config: &Config, capacity: usize) -> usize {
    let largest = blocks.specs.iter().map(BlockSpec::len).max().unwrap_or(0);
    if config.immediate { capacity.min(largest) } else { capacity }
}

impl<B: Backend> Optimizer<B> {
    /// Coordinates that the sets need, and n_s.
    fn needed(&self) -> usize {
        let s = &self.selection;
        s.budget.max(s.current.packed_end()).max(s.next_set().packed_end())
    }

    /// Makes the arena hold at least `len` elements, and the gradients of blocks that were added. A block that was frozen
    /// at construction was not counted.
    pub(super) fn fit(&mut self, len: usize) -> Result<(), B> {
        let len = len.max(self.capacity);
        let gradients = gradient_capacity(&self.selection.blocks, &self.selection.config, len);
        if len > self.capacity || gradients > self.gradient_capacity { self.resize(len, gradients) } else { Ok(()) }
    }

    /// Room for the set that a step switches to: blocks may have been added since the arena was made.
    pub(super) fn fit_sets(&mut self) -> Result<(), B> {
        self.fit(self.needed())
    }

    /// Gives back what is not needed any more: the budget is smaller, blocks having been removed, or moments were taken
    /// over. (`Full` keeps what thawing made it grow to.)
    pub(super) fn shrink(&mut self) -> Result<(), B> {
        let len = self.needed().min(self.capacity);
        let gradients = gradient_capacity(&self.selection.blocks, &self.selection.config, len);
        if self.selection.config.policy == Policy::Full || (len, gradients) == (self.capacity, self.gradient_capacity) {
            return Ok(());
        }
        self.resize(len, gradients)
    }

    /// The most bytes that the pending switch holds at once beside what is held now: new masks and moments on their way,
    /// and where the arena is resized before or after it, the new one beside the old.
    pub(super) fn switch_peak(&self) -> usize {
        let (s, compute) = (&self.selection, self.selection.blocks.compute.size());
        let Some(next) = &s.pending else { return 0 };
        let arena = |len: usize| (2 * len + gradient_capacity(&s.blocks, &s.config, len)) * compute;
        // Both moments of the new set, beside the old ones, where each block switches by itself; else one, where any is carried.
        let moments = if s.config.immediate { 2 } else { usize::from(s.carries()) };
        let (now, len) = ((2 * self.capacity + self.gradient_capacity) * compute, self.needed().max(self.capacity));
        let grows = len > self.capacity || gradient_capacity(&s.blocks, &s.config, len) > self.gradient_capacity;
        let during = if grows { arena(len) } else { now };
        let end = arena(s.budget.max(next.packed_end()).min(len));
        let (old, new) = (4 * self.mask_words[0], 4 * next.mask_words());
        let grown = if grows { now + old + during } else { 0 };
        let switched = during + old + new + moments * len * compute;
        let shrunk = if s.config.policy != Policy::Full && end != during { during + new + end } else { 0 };
        grown.max(switched).max(shrunk) - (now + old)
    }

    /// An arena of another size. Between steps.
    pub(super) fn resize(&mut self, len: usize, gradients: usize) -> Result<(), B> {
        let (op, dtype, kept) = (device::<B>("resize the arena"), self.selection.blocks.compute, len.min(self.capacity));
        let gradient = self.backend.alloc(dtype, gradients).map_err(&op)?;
        let (mut m, mut v) = (self.backend.alloc(dtype, len).map_err(&op)?, self.backend.alloc(dtype, len).map_err(&op)?);
        self.backend.copy(&self.arena.m, &mut m, kept).map_err(&op)?;
        self.backend.copy(&self.arena.v, &mut v, kept).map_err(&op)?;
        (self.arena.gradient, self.arena.m, self.arena.v) = (gradient, m, v);
        (self.capacity, self.gradient_capacity) = (len, gradients);
        Ok(())
    }
}
