//! What a step leaves to be known: whether it switched, and what it decided. Polled, never waited for (A3.6).

use super::phase::{Phase, Progress, Waiting};
use super::{Optimizer, Result, device};
use crate::backend::{Backend, flag};
use crate::error::Error;
use crate::selection::Decision;
use crate::tensor::{DType, ViewMut};
use alloc::vec::Vec;

impl<B: Backend> Optimizer<B> {
    /// Whether the next step may begin. Commits the last step's switch and decision once the device has told.
    ///
    /// # Errors
    /// [`Error::Void`] where a forced decision could not be made, [`Error::Policy`] where a user's rule chose what it cannot
    /// have (the step stands, the request is dropped); the device's, after which the optimizer is poisoned.
    pub fn poll(&mut self) -> Result<Progress, B> {
        let Phase::Waiting(waiting) = &mut self.phase else {
            // Idle, or an open step and a poisoned optimizer, which say so.
            return self.idle("poll").map(|()| Progress::Ready);
        };
        let polled = poll_tickets(&mut self.backend, waiting);
        let ready = polled.map_err(|error| {
            self.phase = Phase::Poisoned;
            Error::Backend { operation: "read a decision", error }
        })?;
        if !ready {
            return Ok(Progress::Pending);
        }
        // Poisoned unless all of it is settled: a decision must not be lost.
        let Phase::Waiting(waiting) = core::mem::replace(&mut self.phase, Phase::Poisoned) else { return Ok(Progress::Ready) };
        self.settle(waiting)
    }

    fn settle(&mut self, waiting: Waiting<B::Ticket>) -> Result<Progress, B> {
        if let (Some((_, carried)), Some(applied)) = (&waiting.switch, waiting.applied) {
            if applied {
                self.commit_switch()?
            } else {
                self.revert_switch(*carried)?
            }
            self.last.switched = applied;
        }
        if let Some((_, steps, switching)) = &waiting.entering {
            self.last.switched = self.settle_entering(*switching, steps)?;
        }
        self.phase = Phase::Idle;
        if !waiting.decides {
            self.selection.make_plan();
            return Ok(Progress::Ready);
        }
        let table = waiting.table.map_or_else(Vec::new, |(_, table)| table);
        let decision = self.selection.decide(&table).map_err(|error| {
            self.selection.make_plan();
            error.host()
        })?;
        self.last.decision = Some(decision);
        if let Decision::Void { units, first } = decision {
            self.selection.make_plan();
            if waiting.forced {
                let block = self.block_name(self.selection.blocks.units[first as usize].blocks[0]);
                return Err(Error::Void { block, units });
            }
        }
        Ok(Progress::Ready)
    }

    /// The step was applied: the new set is the one that last updated, and what the old one needed is freed.
    pub(super) fn commit_switch(&mut self) -> Result<(), B> {
        self.selection.switched();
        self.free_switch_buffers()?;
        self.shrink()
    }

    /// The step was skipped or aborted: masks and moments of the old set are back in place.
    pub(super) fn revert_switch(&mut self, carried: bool) -> Result<(), B> {
        if carried {
            // In the reverse order of `Backend::finish`.
            core::mem::swap(&mut self.arena.v, &mut self.arena.spare);
            core::mem::swap(&mut self.arena.m, &mut self.arena.spare);
        }
        core::mem::swap(&mut self.arena.masks, &mut self.arena.old_masks);
        self.mask_words.swap(0, 1);
        self.free_switch_buffers()
    }

    pub(super) fn free_switch_buffers(&mut self) -> Result<(), B> {
        let op = device::<B>("free a switch's buffers");
        self.arena.old_masks = self.backend.alloc(DType::U32, 0).map_err(&op)?;
        self.mask_words[1] = 0;
        self.arena.spare = self.backend.alloc(self.selection.blocks.compute, 0).map_err(&op)?;
        Ok(())
    }

    /// Polls until the next step may begin.
    ///
    /// # Errors
    /// As [`Self::poll`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait(&mut self) -> Result<(), B> {
        while self.poll()? == Progress::Pending {
            self.backend.relax();
        }
        Ok(())
    }
}

fn poll_tickets<B: Backend>(backend: &mut B, waiting: &mut Waiting<B::Ticket>) -> core::result::Result<bool, B::Error> {
    if let (Some((ticket, _)), None) = (&mut waiting.switch, waiting.applied) {
        let mut flags = [0; flag::LEN];
        if !backend.poll(ticket, ViewMut::U32(&mut flags))? {
            return Ok(false);
        }
        waiting.applied = Some(flags[flag::SKIP] == 0);
    }
    if let Some((ticket, steps, _)) = &mut waiting.entering
        && !waiting.counted
    {
        if !backend.poll(ticket, ViewMut::U32(steps))? {
            return Ok(false);
        }
        waiting.counted = true;
    }
    match &mut waiting.table {
        Some((ticket, table)) => backend.poll(ticket, ViewMut::F64(table)),
        None => Ok(true),
    }
}
