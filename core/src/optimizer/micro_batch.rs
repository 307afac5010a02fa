//! Windows of micro-batches (A6.2): what a micro-batch waits for, how the next one begins.

use super::phase::{Open, Phase};
use super::step::work;
use super::{Optimizer, Result};
use crate::backend::{Backend, Wanted};
use crate::block::BlockId;
use crate::config::Missing;
use crate::error::Error;
use crate::patience::LossEntry;
use crate::selection::Stage;

impl<B: Backend> Optimizer<B> {
    /// With the last micro-batch it is known whether the step decides, and what is scored.
    pub(super) fn begin_micro_batch(&mut self, open: &mut Open) {
        if open.is_last() {
            let (loss, rule) = match self.selection.stage {
                Stage::Training => self.selection.history.enter(open.given),
                _ => (open.given.map_or(LossEntry::None, |_| LossEntry::Ignored), false),
            };
            (open.loss, open.reason) = (loss, self.selection.reason(rule));
            self.selection.plan_scores(open.reason.is_some());
        }
    }

    /// Ends a micro-batch and begins the window's next one (A6.2). A window enters one loss: the one given with its last
    /// micro-batch or, where that brings none, the one given before; so a caller may hand over each and the last counts.
    ///
    /// # Errors
    /// [`Error::Order`] where no step is open or its last micro-batch is; [`Error::MissingGradient`] where one has not
    /// come. The micro-batch then goes on.
    pub fn next_micro_batch(&mut self, loss: Option<f64>) -> Result<(), B> {
        let mut open = self.open("next_micro_batch")?;
        if open.is_last() {
            return Err(Error::Order { call: "next_micro_batch", need: "the window's last micro-batch is open: finish it" });
        }
        self.check_arrivals()?;
        self.count_missing_as_zero(&open)?;
        open.micro_batch += 1;
        open.given = loss.or(open.given);
        self.begin_micro_batch(&mut open);
        self.phase = Phase::Open(open);
        self.reset_arrivals();
        Ok(())
    }

    /// Of an open step: its present micro-batch, from 0, and how many its window has.
    pub fn micro_batch(&self) -> Option<(u32, u32)> {
        match &self.phase {
            Phase::Open(open) => Some((open.micro_batch, open.micro_batches)),
            _ => None,
        }
    }

    /// What the open step's present micro-batch still waits for; nothing where none is open.
    pub fn missing(&self) -> impl Iterator<Item = &Wanted> {
        let open = matches!(self.phase, Phase::Open(_));
        let pairs = self.selection.wanted(self.is_last_micro_batch()).iter().zip(&self.arrived);
        pairs.filter(move |(_, arrived)| open && !**arrived).map(|(w, _)| w)
    }

    /// All gradients of a micro-batch before the last, at hand at once: one submission. `grads` gives the same tensor for
    /// a block each time it is asked. The window's last micro-batch is for [`Self::finish_whole`].
    ///
    /// # Errors
    /// [`Error::Order`] where no step or its last micro-batch is open; what is wrong with a gradient: none was taken.
    pub fn accumulate<'g>(&mut self, grads: impl Fn(BlockId) -> Option<B::Grad<'g>>) -> Result<(), B> {
        let open = self.open("accumulate")?;
        if open.is_last() {
            return Err(Error::Order { call: "accumulate", need: "the window's last micro-batch is open: finish it" });
        }
        self.check_none_arrived()?;
        self.check_gradients(&grads)?;
        let w = work(&self.selection, &open);
        let done = self.backend.deliver_all(&mut self.arena, &w, &grads, &mut []).and_then(|()| self.backend.submit());
        self.poison_on_error("take gradients", done)?;
        for (arrived, w) in self.arrived.iter_mut().zip(&self.selection.plan.early) {
            *arrived = grads(w.block).is_some();
        }
        Ok(())
    }

    /// Whether the step goes on without this gradient.
    pub(super) fn may_miss(&self, w: &Wanted) -> bool {
        let is_first = !matches!(self.phase, Phase::Open(open) if open.micro_batch > 0);
        let mask = w.active.is_some_and(|i| self.selection.next_set().regions[i as usize].masked());
        let needs_mask = mask && is_first && self.selection.pending.is_some();
        w.only_probed() || (self.selection.config.missing == Missing::Zero && !needs_mask)
    }

    /// What has not come of the present micro-batch's active blocks is zero: in the sum, and in the score.
    pub(super) fn count_missing_as_zero(&mut self, open: &Open) -> Result<(), B> {
        if self.selection.config.missing == Missing::Error {
            return Ok(());
        }
        for i in 0..self.arrived.len() {
            let wanted = self.selection.wanted(open.is_last())[i];
            let Some(active) = wanted.active.filter(|_| !self.arrived[i]) else { continue };
            let r = self.selection.next_set().regions[active as usize];
            if open.micro_batch == 0 {
                let done = self.backend.zero(&mut self.arena.gradient, r.gradient_at, r.k);
                self.poison_on_error("count a gradient as zero", done)?;
            }
            if wanted.score {
                let done = self.backend.zero(&mut self.arena.sums, wanted.block as usize, 1);
                self.poison_on_error("count a gradient as zero", done)?;
            }
            self.arrived[i] = true;
        }
        Ok(())
    }

    pub(super) fn check_none_arrived(&self) -> Result<(), B> {
        match self.arrived.iter().position(|a| *a) {
            Some(i) => {
                let block = self.selection.wanted(self.is_last_micro_batch())[i].block;
                Err(Error::Twice { block: self.block_name(block) })
            }
            None => Ok(()),
        }
    }

    pub(super) fn check_arrivals(&self) -> Result<(), B> {
        match self.missing().find(|w| !self.may_miss(w)) {
            Some(w) => Err(Error::MissingGradient { block: self.block_name(w.block) }),
            None => Ok(()),
        }
    }

    pub(super) fn last_open(&self, call: &'static str) -> Result<Open, B> {
        let open = self.open(call)?;
        if open.is_last() {
            return Ok(open);
        }
        Err(Error::Order { call, need: "the window has more micro-batches: next_micro_batch comes first" })
    }
}
