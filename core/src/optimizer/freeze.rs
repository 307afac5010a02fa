//! Freezing and thawing (A5.6).

use super::{Optimizer, Result, device};
use crate::backend::Backend;
use crate::block::BlockId;
use crate::error::Error;
use crate::moments::Region;
use crate::policy::Policy;
use crate::selection::most_active;
use crate::tensor::View;

impl<B: Backend> Optimizer<B> {
    /// Takes a block out of training: its moments, step count, mask and place in current and pending set are dropped,
    /// nothing of any other block. Its unit keeps score and visits; freed room is used at the next decision.
    ///
    /// # Errors
    /// [`Error::UnknownBlock`], [`Error::AlreadySo`]; while a step is open or waiting.
    pub fn freeze(&mut self, block: BlockId) -> Result<(), B> {
        self.idle("freeze")?;
        self.check_block(block)?;
        if self.selection.blocks.spec(block).frozen {
            return Err(Error::AlreadySo { block: self.block_name(block), state: "frozen" });
        }
        self.selection.freeze(block);
        self.reset_arrivals();
        Ok(())
    }

    /// Makes a frozen block trainable. It is idle until the next decision; under `Full` it is active at once, with zero
    /// moments.
    ///
    /// # Errors
    /// [`Error::UnknownBlock`], [`Error::AlreadySo`], [`Error::Budget`] for an always-active block that does not fit;
    /// while a step is open or waiting; the backend's, where `Full` needs more memory.
    pub fn thaw(&mut self, block: BlockId) -> Result<(), B> {
        self.idle("thaw")?;
        self.check_block(block)?;
        let (spec, budget) = (self.selection.blocks.spec(block), self.selection.budget);
        if !spec.frozen {
            return Err(Error::AlreadySo { block: self.block_name(block), state: "trainable" });
        }
        let selects = self.selection.config.policy != Policy::Full;
        if selects && spec.always_active {
            let blocks = self.selection.blocks.with_thawed(block);
            let budget = if self.selection.has_own_maximum() { most_active(&blocks, &self.selection.config) } else { budget };
            let always_active = blocks.always_active_len();
            if always_active > budget {
                return Err(Error::Budget { always_active, budget });
            }
        }
        if !selects && !spec.is_empty() {
            self.activate(block)?;
        }
        self.selection.thaw(block);
        self.reset_arrivals();
        Ok(())
    }

    /// Under `Full`: a place in the arena that nothing uses, zeroed.
    pub(super) fn activate(&mut self, block: BlockId) -> Result<(), B> {
        let spec = self.selection.blocks.spec(block);
        let (n, scales) = (spec.len(), spec.scales);
        let set = self.selection.pending.as_ref().unwrap_or(&self.selection.current);
        let at = free_run(&set.regions, n);
        self.fit(at + n)?;
        let op = device::<B>("thaw a block");
        self.backend.zero(&mut self.arena.m, at, n).map_err(&op)?;
        self.backend.zero(&mut self.arena.v, at, n).map_err(&op)?;
        self.backend.write(&mut self.arena.steps, block as usize, View::U32(&[0])).map_err(&op)?;
        self.backend.write(&mut self.arena.powers, 4 * block as usize, View::F64(&[1.0; 4])).map_err(&op)?;
        self.backend.submit().map_err(&op)?;
        let gradient_at = if self.selection.config.immediate { 0 } else { at };
        let set = self.selection.pending.as_mut().unwrap_or(&mut self.selection.current);
        let place = set.position(block).unwrap_or_else(|place| place);
        set.regions.insert(place, Region { block, n, k: n, at, gradient_at, mask_at: 0, fresh: false, scales });
        Ok(())
    }
}

/// The first run of `n` elements between the regions' runs, or after them.
fn free_run(regions: &[Region], n: usize) -> usize {
    let mut runs: alloc::vec::Vec<_> = regions.iter().map(Region::packed).collect();
    runs.sort_unstable_by_key(|r| r.start);
    let mut at = 0;
    for run in runs {
        if run.start - at >= n {
            break;
        }
        at = run.end;
    }
    at
}
