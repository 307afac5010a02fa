//! Blocks that come and go between steps (A1.1).

use super::capacity::gradient_capacity;
use super::phase::Phase;
use super::{Optimizer, Result, device};
use crate::backend::Backend;
use crate::block::{BlockId, BlockSpec, Blocks};
use crate::error::Error;
use crate::score::{EMPTY_ROW, ROW};
use crate::selection::{check_fit, most_active};
use crate::tensor::{DType, View};
use core::ops::Range;

impl<B: Backend> Optimizer<B> {
    /// Adds blocks, whose numbers it returns: those after the ones that are there. The budget is computed anew and holds
    /// from the next decision on (A1.1); until then the new blocks are idle, always-active ones too, and have no score.
    /// Under `Full` they are active at once, with zero moments. Blocks of a group that is there join its unit.
    ///
    /// # Errors
    /// As [`Self::new`], for all blocks together; while a step is open or waiting; the backend's. Nothing has changed then, but
    /// for a device that fails under `Full` when it has the memory: the optimizer is then poisoned.
    pub fn add_blocks(&mut self, specs: &[BlockSpec]) -> Result<Range<BlockId>, B> {
        self.idle("add_blocks")?;
        let blocks = self.selection.blocks.with(specs).map_err(Error::host)?;
        let budget = self.check_blocks(&blocks)?;
        let op = device::<B>("add blocks");
        let (old, new) = (self.selection.blocks.count(), blocks.count());
        let (old_units, units) = (self.selection.blocks.units.len(), blocks.units.len());
        self.backend.prepare(&blocks, &self.selection.config).map_err(&op)?;
        let b = &mut self.backend;
        let mut table = |dtype, from: &B::Buffer, old: usize, new: usize| {
            let mut to = b.alloc(dtype, new)?;
            b.copy(from, &mut to, old)?;
            core::result::Result::<_, B::Error>::Ok(to)
        };
        let a = &self.arena;
        let sums = table(DType::F64, &a.sums, old, new).map_err(&op)?;
        let steps = table(DType::U32, &a.steps, old, new).map_err(&op)?;
        let powers = table(DType::F64, &a.powers, 4 * old, 4 * new).map_err(&op)?;
        let mut scores = table(DType::F64, &a.table, old_units * ROW, units * ROW).map_err(&op)?;
        let empty = EMPTY_ROW.repeat(units - old_units);
        b.write(&mut scores, old_units * ROW, View::F64(&empty)).map_err(&op)?;
        b.submit().map_err(&op)?;
        let active_at_once = self.selection.config.policy.trigger().is_none();
        if active_at_once {
            let len = self.selection.next_set().packed_end() + specs.iter().map(BlockSpec::len).sum::<usize>();
            let len = len.max(self.capacity);
            self.resize(len, gradient_capacity(&blocks, &self.selection.config, len))?;
        }
        (self.arena.sums, self.arena.steps, self.arena.powers, self.arena.table) = (sums, steps, powers, scores);
        let ids = old as BlockId..new as BlockId;
        self.selection.replace_blocks(blocks, budget);
        for block in ids.clone().filter(|_| active_at_once) {
            if !self.selection.blocks.spec(block).frozen && !self.selection.blocks.spec(block).is_empty() {
                self.activate(block).inspect_err(|_| self.phase = Phase::Poisoned)?;
            }
        }
        self.selection.refresh();
        self.reset_arrivals();
        Ok(ids)
    }

    /// Takes a block away for good: its state, its place in current and pending set, its name. Its number is not used
    /// again. The budget is computed anew and holds from the next decision on (A1.1).
    ///
    /// # Errors
    /// [`Error::UnknownBlock`], [`Error::Removed`]; [`Error::Budget`], [`Error::NothingFits`] where the rest does not fit
    /// the smaller budget; while a step is open or waiting. Nothing has changed then.
    pub fn remove_block(&mut self, block: BlockId) -> Result<(), B> {
        self.idle("remove_block")?;
        self.check_block(block)?;
        let blocks = self.selection.blocks.without(block);
        let budget = self.check_blocks(&blocks)?;
        self.selection.drop_block(block);
        self.selection.replace_blocks(blocks, budget);
        self.selection.refresh();
        self.reset_arrivals();
        Ok(())
    }

    /// The budget of these blocks, if what must be in it fits.
    fn check_blocks(&self, blocks: &Blocks) -> Result<usize, B> {
        let budget = most_active(blocks, &self.selection.config);
        check_fit(blocks, &self.selection.config, budget).map_err(Error::host)?;
        Ok(budget)
    }
}
