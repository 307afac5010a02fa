//! A step: begin, gradients, finish.

use super::phase::{Open, Phase, Progress, Waiting};
use super::{LastStep, Optimizer, Result, device};
use crate::adam::Hyper;
use crate::backend::{Backend, Parameter, Switch, Work};
use crate::block::BlockId;
use crate::config::Config;
use crate::error::Error;
use crate::patience::LossEntry;
use crate::score::ScoreKind;
use crate::selection::{Selection, Stage};
use crate::tensor::DType;

/// The host numbers of one step.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Step {
    /// Learning rate.
    pub lr: f64,
    /// A loss, of this step or of an earlier one where it is read late (A3.1).
    pub loss: Option<f64>,
    /// The inverse of the loss scale; 1 where there is none. Multiplies the sum over a window of micro-batches; averaging
    /// is the caller's, who folds 1/n into it or into the loss.
    pub inv_loss_scale: f64,
    /// Micro-batches whose gradients are added up in this step (A6.2): the length of its window, at least 1.
    pub micro_batches: u32,
}

impl Step {
    /// A step of one micro-batch at this learning rate, with no loss and no loss scale.
    pub const fn new(lr: f64) -> Self {
        Self { lr, loss: None, inv_loss_scale: 1.0, micro_batches: 1 }
    }

    /// With a loss.
    pub const fn loss(self, loss: f64) -> Self {
        Self { loss: Some(loss), ..self }
    }

    /// With a window of this many micro-batches.
    pub const fn micro_batches(self, micro_batches: u32) -> Self {
        Self { micro_batches, ..self }
    }
}

/// The work of an open step's present micro-batch. Free of `self`, so that arena and backend can be borrowed beside it.
pub(super) fn work<'a>(s: &'a Selection, open: &Open) -> Work<'a> {
    let switch = open.switching.then_some(if open.carrying { Switch::Carry(&s.current.regions) } else { Switch::Reset });
    Work {
        step: if s.stage == Stage::FullGradient { 0 } else { s.step + 1 },
        hyper: open.hyper,
        mask: s.config.mask,
        first: open.micro_batch == 0,
        last: open.is_last(),
        wanted: s.wanted(open.is_last()),
        active: &s.next_set().regions,
        summed: if s.blocks_are_reordered { &s.summed } else { &s.next_set().regions },
        idle: &s.plan.idle,
        scored: &s.plan.scored,
        members: &s.members,
        switch,
        processed: (s.config.score == ScoreKind::ProcessedNorm).then_some(&s.current.regions),
        guard_limit: s.config.guard_limit,
    }
}

impl Open {
    /// A step at its first micro-batch.
    pub(super) fn new(config: &Config, step: &Step, switching: bool, carrying: bool) -> Self {
        let hyper = Hyper {
            lr: step.lr,
            betas: config.betas,
            eps: config.eps,
            weight_decay: config.weight_decay,
            decay: config.decay,
            inv_loss_scale: step.inv_loss_scale,
            clip: config.clip,
            sign_scale: config.sign_scale(),
        };
        Self {
            hyper,
            loss: LossEntry::None,
            reason: None,
            switching,
            carrying,
            micro_batch: 0,
            micro_batches: step.micro_batches,
            given: step.loss,
        }
    }
}

impl<B: Backend> Optimizer<B> {
    /// Opens a step. The loss comes before the gradients, so that it is known whether the step decides (A3.2); in a window
    /// of several micro-batches it may also come with the last one ([`Self::next_micro_batch`]).
    ///
    /// # Errors
    /// [`Error::Pending`] while the last step's decision is not known, [`Error::Order`] while a step is open,
    /// [`Error::Step`] for a learning rate that is negative or a loss scale that is not positive, or not finite, in the
    /// compute type, or for a window of no micro-batch; the backend's, where a switch finds no memory.
    pub fn begin(&mut self, step: Step) -> Result<(), B> {
        self.idle("begin")?;
        self.check_step(&step)?;
        let (switching, carrying) = self.prepare_switch()?;
        if switching && self.selection.config.immediate {
            self.prepare_entering()?;
        }
        let mut open = Open::new(&self.selection.config, &step, switching, carrying);
        self.selection.order_sums();
        self.begin_micro_batch(&mut open);
        self.phase = Phase::Open(open);
        self.reset_arrivals();
        Ok(())
    }

    /// The new set's masks take the place of the old set's, which live on beside them until the switch is known.
    fn prepare_switch(&mut self) -> Result<(bool, bool), B> {
        if self.selection.pending.is_none() {
            return Ok((false, false));
        }
        self.fit_sets()?;
        self.selection.mark_fresh();
        let carrying = self.selection.carries();
        let words = self.selection.next_set().mask_words();
        let op = device::<B>("allocate for a switch");
        let masks = self.backend.alloc(DType::U32, words).map_err(&op)?;
        if carrying && !self.selection.config.immediate {
            self.arena.spare = self.backend.alloc(self.selection.blocks.compute, self.capacity).map_err(&op)?;
        }
        self.arena.old_masks = core::mem::replace(&mut self.arena.masks, masks);
        self.mask_words = [words, self.mask_words[0]];
        Ok((true, carrying))
    }

    /// Packed streaming: takes one gradient, which may be freed in queue order when the call returns.
    ///
    /// # Errors
    /// What is wrong with the gradient: the step stays open and can be repaired or aborted. [`Error::MissingParameter`]
    /// where the block moves as its gradient arrives: use [`Self::grad_with`].
    pub fn grad(&mut self, block: BlockId, g: &B::Grad<'_>) -> Result<(), B> {
        self.deliver(block, g, None)
    }

    /// The same with the block's parameter, a part of which the gradient moves at once (A6.7). While a backward pass
    /// still runs, only when nothing reads that weight any more.
    ///
    /// # Errors
    /// As [`Self::grad`].
    pub fn grad_with(&mut self, block: BlockId, g: &B::Grad<'_>, p: &mut B::Param<'_>) -> Result<(), B> {
        self.deliver(block, g, Some(p))
    }

    fn deliver(&mut self, block: BlockId, g: &B::Grad<'_>, p: Option<&mut B::Param<'_>>) -> Result<(), B> {
        let open = self.open("grad")?;
        let i = self.check_gradient(block, g)?;
        if self.arrived[i] {
            return Err(Error::Twice { block: self.block_name(block) });
        }
        let wanted = self.selection.wanted(open.is_last())[i];
        match &p {
            Some(p) if wanted.with_parameter => self.check_parameter(block, p)?,
            None if wanted.with_parameter => return Err(Error::MissingParameter { block: self.block_name(block) }),
            _ => {}
        }
        let p = p.filter(|_| wanted.with_parameter); // one that nothing moves was not checked
        let done = if self.selection.config.immediate {
            self.update_at_once(&open, &wanted, g, p)
        } else {
            let w = work(&self.selection, &open);
            self.backend.deliver(&mut self.arena, &w, &wanted, g, p)
        };
        let done = done.and_then(|()| self.backend.submit());
        self.poison_on_error("take a gradient", done)?;
        self.arrived[i] = true;
        Ok(())
    }

    /// Drops an open step: loss, step number, cursor, draws and scores are as before it began (A6.5). State-free updates
    /// that were made stay made.
    ///
    /// # Errors
    /// [`Error::Order`] where no step is open, or its blocks are updated as their gradients arrive and one was; the
    /// backend's.
    pub fn abort(&mut self) -> Result<(), B> {
        let open = self.open("abort")?;
        self.check_nothing_updated()?;
        self.entering = None;
        self.selection.history.undo(open.loss);
        self.selection.forget_scores();
        self.phase = Phase::Idle;
        if open.switching { self.revert_switch(false) } else { Ok(()) }
    }

    /// Ends the step: guard, clip, update. A probe that has not come keeps its score. `params` holds the parameters of at
    /// least the active blocks, by block.
    ///
    /// # Errors
    /// A gradient or parameter that is missing or wrong, [`Error::Order`] before the window's last micro-batch: the step
    /// stays open.
    pub fn finish(&mut self, params: &mut [Parameter<B::Param<'_>>]) -> Result<Progress, B> {
        let open = self.last_open("finish")?;
        self.check_arrivals()?;
        self.check_parameters(params, false)?;
        self.count_missing_as_zero(&open)?;
        self.selection.drop_scores(&self.arrived);
        let w = work(&self.selection, &open);
        let done = match self.selection.stage {
            Stage::Training if self.selection.config.immediate => self.close_immediate(&open),
            Stage::Training => self.backend.finish(&mut self.arena, &w, params),
            _ => self.backend.enter_scores(&mut self.arena, &w),
        };
        self.poison_on_error("update", done)?;
        self.end(&open)
    }

    /// The last micro-batch of an open step with every gradient at hand, and the step's end. As [`Self::step`], which
    /// begins the step too; all is checked before anything is written.
    ///
    /// # Errors
    /// As [`Self::finish`], and [`Error::Twice`] where a gradient of this micro-batch was delivered before.
    pub fn finish_whole<'g>(
        &mut self, grads: impl Fn(BlockId) -> Option<B::Grad<'g>>, params: &mut [Parameter<B::Param<'_>>],
    ) -> Result<Progress, B> {
        self.last_open("finish_whole")?;
        self.check_none_arrived()?;
        self.check_gradients(&grads)?;
        self.check_parameters(params, true)?;
        self.run_whole(&grads, params)
    }

    /// A whole step of one micro-batch: every gradient is at hand. `grads` gives the same tensor for a block each time it
    /// is asked; `params` holds at least the parameters of the blocks that move, by block. All is checked before anything
    /// is written.
    ///
    /// # Errors
    /// As [`Self::begin`], [`Self::grad`] and [`Self::finish`]; the step is then not begun. [`Error::Step`] for a step of
    /// several micro-batches, which are begun, accumulated and finished one by one.
    pub fn step<'g>(
        &mut self, step: Step, grads: impl Fn(BlockId) -> Option<B::Grad<'g>>, params: &mut [Parameter<B::Param<'_>>],
    ) -> Result<Progress, B> {
        self.idle("step")?;
        if step.micro_batches > 1 {
            let value = f64::from(step.micro_batches);
            return Err(Error::Step { field: "micro_batches", value, allowed: "1 here: begin, accumulate, finish_whole" });
        }
        self.check_gradients(&grads)?;
        self.check_parameters(params, true)?;
        self.begin(step)?;
        self.run_whole(&grads, params)
    }

    fn run_whole<'g>(
        &mut self, grads: &dyn Fn(BlockId) -> Option<B::Grad<'g>>, params: &mut [Parameter<B::Param<'_>>],
    ) -> Result<Progress, B> {
        for (arrived, w) in self.arrived.iter_mut().zip(&self.selection.plan.wanted) {
            *arrived = grads(w.block).is_some();
        }
        let open = self.open("step")?;
        self.count_missing_as_zero(&open)?;
        self.selection.drop_scores(&self.arrived);
        if self.selection.config.immediate && self.selection.stage == Stage::Training {
            let done = self.whole_at_once(&open, grads, params);
            self.poison_on_error("step", done)?;
            return self.end(&open);
        }
        let w = work(&self.selection, &open);
        let (b, a) = (&mut self.backend, &mut self.arena);
        let done = match self.selection.stage {
            Stage::Training => b.whole(a, &w, grads, params),
            _ => b.deliver_all(a, &w, grads, &mut []).and_then(|()| b.enter_scores(a, &w)),
        };
        self.poison_on_error("step", done)?;
        self.end(&open)
    }

    /// Closes a step: what it decided or switched is asked of the device.
    fn end(&mut self, open: &Open) -> Result<Progress, B> {
        let mut active = core::mem::take(&mut self.last.active);
        active.clear();
        active.extend(self.selection.next_set().counts());
        self.last = LastStep { active, stage: self.selection.stage, loss: open.loss, reason: open.reason, ..LastStep::none() };
        let forced = self.selection.forced;
        let waiting = self.ask(open, forced);
        let waiting = self.poison_on_error("end a step", waiting)?;
        self.selection.end_step();
        if let Some(waiting) = waiting {
            self.phase = Phase::Waiting(waiting);
            return Ok(Progress::Pending);
        }
        self.selection.make_plan();
        self.phase = Phase::Idle;
        Ok(Progress::Ready)
    }

    fn ask(&mut self, open: &Open, forced: bool) -> core::result::Result<Option<Waiting<B::Ticket>>, B::Error> {
        let waiting = Waiting::ask(&mut self.backend, &self.arena, &self.selection, open, forced)?;
        self.backend.submit()?;
        Ok(waiting)
    }

    /// A backend error in mid-step leaves the device in an unknown state: nothing more runs until a restore.
    pub(super) fn poison_on_error<R>(
        &mut self, operation: &'static str, result: core::result::Result<R, B::Error>,
    ) -> Result<R, B> {
        result.map_err(|error| {
            self.phase = Phase::Poisoned;
            // What is recorded runs now or never: the caller puts the parameters right before a restore.
            let _ = self.backend.submit();
            Error::Backend { operation, error }
        })
    }
}
