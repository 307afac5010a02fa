//! Immediate streaming (A6.5): each block is updated as its gradient arrives. Guard, step count and switch are its own.
//!
//! While a step switches, the new set's moments lie in buffers of their own ([`Optimizer`]'s `entering`): other blocks
//! still need the old ones. A block that trips in its first step leaves zeros there and a step count of 0 on the device,
//! which is what a new one starts from; the step's end reads the counts, and such a block's mask is built anew in the next
//! step.

use super::phase::Open;
use super::step::work;
use super::{Optimizer, Result, device};
use crate::backend::{Arena, Backend, Moment, Parameter, Seal, Switch, Wanted, Work};
use crate::block::BlockId;
use crate::error::Error;
use crate::tensor::View;
use alloc::vec;
use core::mem::swap;

type Done<B> = core::result::Result<(), <B as Backend>::Error>;

impl<B: Backend> Optimizer<B> {
    /// Moments for the set that is being switched to.
    pub(super) fn prepare_entering(&mut self) -> Result<(), B> {
        let (dtype, op) = (self.selection.blocks.compute, device::<B>("allocate for a switch"));
        let m = self.backend.alloc(dtype, self.capacity).map_err(&op)?;
        self.entering = Some([m, self.backend.alloc(dtype, self.capacity).map_err(&op)?]);
        Ok(())
    }

    /// One gradient: scored, masked, gathered and, if the block is active, applied.
    pub(super) fn update_at_once(
        &mut self, open: &Open, wanted: &Wanted, g: &B::Grad<'_>, mut p: Option<&mut B::Param<'_>>,
    ) -> Done<B> {
        let s = &self.selection;
        let mut w = work(s, open);
        // A block that tripped in the set's first step switches by itself.
        if !open.switching && s.tripped.binary_search(&wanted.block).is_ok() {
            w.switch = Some(Switch::Reset);
            w.processed = w.processed.map(|_| Default::default()); // it has no moments
        }
        self.backend.deliver(&mut self.arena, &w, wanted, g, p.as_deref_mut())?;
        let (Some(region), Some(p)) = (w.active(wanted), p) else { return Ok(()) };
        let own = Work { active: core::slice::from_ref(region), summed: core::slice::from_ref(region), ..w };
        apply(&mut self.backend, &mut self.arena, self.entering.as_mut(), &own, p)
    }

    /// What ends a step of blocks that were updated already.
    pub(super) fn close_immediate(&mut self, open: &Open) -> Done<B> {
        let w = Work { active: &[], summed: &[], ..work(&self.selection, open) };
        self.backend.seal(&mut self.arena, &w, Seal::Counters)?;
        self.backend.enter_scores(&mut self.arena, &w)?;
        if let Some([m, v]) = self.entering.take() {
            // Whatever stays of the old moments was carried; a block that tripped has lost its own.
            (self.arena.m, self.arena.v) = (m, v);
        }
        Ok(())
    }

    /// All gradients at hand: the same, block after block.
    pub(super) fn whole_at_once<'g>(
        &mut self, open: &Open, grads: &dyn Fn(BlockId) -> Option<B::Grad<'g>>, params: &mut [Parameter<B::Param<'_>>],
    ) -> Done<B> {
        let mut rest = params.iter_mut();
        for i in 0..self.selection.plan.wanted.len() {
            let wanted = self.selection.plan.wanted[i];
            let p = if wanted.with_parameter { rest.find(|(b, _)| *b == wanted.block).map(|(_, p)| p) } else { None };
            if let Some(g) = grads(wanted.block) {
                self.update_at_once(open, &wanted, &g, p)?;
            }
        }
        self.close_immediate(open)
    }

    /// A step can be dropped while no active block has moved.
    pub(super) fn check_nothing_updated(&self) -> Result<(), B> {
        let updated = self.selection.plan.wanted.iter().zip(&self.arrived).any(|(w, arrived)| *arrived && w.active.is_some());
        if self.selection.config.immediate && updated {
            return Err(Error::Order { call: "abort", need: "blocks were updated as their gradients arrived: finish the step" });
        }
        Ok(())
    }

    /// The step counts of a step with blocks that may enter. Those at 0 tripped; where all did, the set has not updated,
    /// and what was there before has lost its state with it.
    pub(super) fn settle_entering(&mut self, switching: bool, steps: &[u32]) -> Result<bool, B> {
        let set = self.selection.next_set();
        let tripped: vec::Vec<BlockId> = set.regions.iter().map(|r| r.block).filter(|b| steps[*b as usize] == 0).collect();
        let applied = set.regions.is_empty() || tripped.len() < set.regions.len();
        if !switching {
            self.selection.tripped = tripped;
            return Ok(false);
        }
        if applied {
            self.commit_switch()?;
            self.selection.tripped = tripped;
        } else {
            self.revert_switch(false)?;
            let (blocks, op) = (self.selection.blocks.count(), device::<B>("drop the old set's state"));
            self.backend.write(&mut self.arena.steps, 0, View::U32(&vec![0; blocks])).map_err(&op)?;
            self.backend.write(&mut self.arena.powers, 0, View::F64(&vec![1.0; 4 * blocks])).map_err(&op)?;
            self.backend.submit().map_err(&op)?;
            self.selection.tripped = self.selection.current.regions.iter().map(|r| r.block).collect();
        }
        Ok(applied)
    }
}

/// Guard, moments and update of one region, whose gradient is packed.
fn apply<B: Backend>(
    b: &mut B, a: &mut Arena<B::Buffer>, mut entering: Option<&mut [B::Buffer; 2]>, w: &Work<'_>, p: &mut B::Param<'_>,
) -> Done<B> {
    let region = &w.active[0];
    let old = w.stays(region);
    b.seal(a, w, Seal::Block)?;
    if let (Some([m, v]), Some(old)) = (&mut entering, old) {
        for (moment, to) in [(Moment::First, m), (Moment::Second, v)] {
            swap(&mut a.spare, to);
            let carried = b.carry(a, moment, Some(old), region);
            swap(&mut a.spare, to);
            carried?;
        }
    }
    let mut exchange = |a: &mut Arena<B::Buffer>| {
        if let Some([m, v]) = &mut entering {
            swap(&mut a.m, m);
            swap(&mut a.v, v);
        }
    };
    exchange(a);
    let updated = b.update(a, region, old, p, &w.hyper);
    exchange(a);
    updated
}
