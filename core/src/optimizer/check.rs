//! What the driver checks before any kernel runs.

use super::phase::{Open, Phase};
use super::step::Step;
use super::{Optimizer, Result};
use crate::backend::{Backend, Parameter};
use crate::block::BlockId;
use crate::error::{Error, Tensor};
use crate::tensor::{DType, Info};

impl<B: Backend> Optimizer<B> {
    /// No step is open or waiting.
    pub(super) fn idle(&self, call: &'static str) -> Result<(), B> {
        match self.phase {
            Phase::Idle => Ok(()),
            Phase::Open(_) => Err(Error::Order { call, need: "a step is open: finish or abort it first" }),
            Phase::Waiting(_) => Err(Error::Pending),
            Phase::Poisoned => Err(Error::Poisoned),
        }
    }

    pub(super) fn open(&self, call: &'static str) -> Result<Open, B> {
        match &self.phase {
            Phase::Open(open) => Ok(*open),
            Phase::Poisoned => Err(Error::Poisoned),
            _ => Err(Error::Order { call, need: "no step is open: begin one first" }),
        }
    }

    /// The step's numbers, as they are once rounded to the compute type.
    pub(super) fn check_step(&self, step: &Step) -> Result<(), B> {
        let single = self.selection.blocks.compute == DType::F32;
        let rounded = |x: f64| if single { f64::from(x as f32) } else { x };
        // The products that kernels form, with the largest scales: one that overflows would make NaN of a zero gradient.
        let (c, largest) = (&self.selection.config, self.selection.largest_scales);
        let (lr, wd) = (step.lr * largest.lr, c.weight_decay * largest.weight_decay);
        let products = [lr / (1.0 - c.betas[0]), lr * c.sign_scale().unwrap_or(0.0), 1.0 - lr * wd, wd];
        if !(step.lr >= 0.0 && products.iter().all(|x| rounded(*x).is_finite())) {
            return Err(Error::Step {
                field: "lr",
                value: step.lr,
                allowed: "not negative, and finite with scales, decay and bias correction",
            });
        }
        if step.micro_batches == 0 {
            return Err(Error::Step { field: "micro_batches", value: 0.0, allowed: "at least 1" });
        }
        if step.micro_batches > 1 && c.immediate {
            let value = f64::from(step.micro_batches);
            let allowed = "1 where blocks are updated as their gradients arrive";
            return Err(Error::Step { field: "micro_batches", value, allowed });
        }
        let inv = rounded(step.inv_loss_scale);
        if !(inv.is_finite() && inv > 0.0) {
            return Err(Error::Step { field: "inv_loss_scale", value: step.inv_loss_scale, allowed: "finite and positive" });
        }
        Ok(())
    }

    pub(super) fn check_block(&self, block: BlockId) -> Result<(), B> {
        let blocks = self.selection.blocks.count();
        if block as usize >= blocks {
            return Err(Error::UnknownBlock { block, blocks });
        }
        if self.selection.blocks.is_removed(block) { Err(Error::Removed { block: self.block_name(block) }) } else { Ok(()) }
    }

    /// Where the block is among the wanted ones.
    pub(super) fn check_gradient(&self, block: BlockId, g: &B::Grad<'_>) -> Result<usize, B> {
        self.check_block(block)?;
        let index = self.selection.wanted_index(block, self.is_last_micro_batch());
        let index = index.ok_or_else(|| Error::NotWanted { block: self.block_name(block) })?;
        self.check_tensor(block, B::grad_info(g), Tensor::Gradient)?;
        Ok(index)
    }

    pub(super) fn check_parameter(&self, block: BlockId, p: &B::Param<'_>) -> Result<(), B> {
        self.check_tensor(block, B::param_info(p), Tensor::Parameter)
    }

    fn check_tensor(&self, block: BlockId, got: Info, tensor: Tensor) -> Result<(), B> {
        let spec = self.selection.blocks.spec(block);
        let name = || self.block_name(block);
        // A gradient may be wider than a half-precision parameter, or f32 beside an f64 one (A7.1).
        if got.dtype != spec.dtype && !(tensor == Tensor::Gradient && got.dtype == DType::F32) {
            return Err(Error::Type { block: name(), tensor, want: spec.dtype, got: got.dtype });
        }
        if got.len != spec.len() {
            return Err(Error::Length { block: name(), tensor, want: spec.len(), got: got.len });
        }
        if got.contiguous { Ok(()) } else { Err(Error::NotContiguous { block: name(), tensor }) }
    }

    /// That every gradient which the present micro-batch needs is at hand and right, before anything is written.
    pub(super) fn check_gradients<'g>(&self, grads: &impl Fn(BlockId) -> Option<B::Grad<'g>>) -> Result<(), B> {
        for w in self.selection.wanted(self.is_last_micro_batch()) {
            match grads(w.block) {
                Some(g) => drop(self.check_gradient(w.block, &g)?),
                None if self.may_miss(w) => {}
                None => return Err(Error::MissingGradient { block: self.block_name(w.block) }),
            }
        }
        Ok(())
    }

    /// That every block that moves has its parameter: the active ones, and in a whole step those that move without
    /// state. `params` is walked once, beside the wanted blocks.
    pub(super) fn check_parameters(&self, params: &[Parameter<B::Param<'_>>], whole: bool) -> Result<(), B> {
        for pair in params.windows(2) {
            if pair[0].0 >= pair[1].0 {
                self.check_block(pair[1].0)?;
                return Err(Error::ParameterOrder { block: self.block_name(pair[1].0) });
            }
        }
        let mut rest = params.iter();
        for w in &self.selection.plan.wanted {
            if (w.active.is_some() && !self.selection.config.immediate) || (whole && w.with_parameter) {
                let found = rest.by_ref().find(|(block, _)| *block >= w.block).filter(|(block, _)| *block == w.block);
                let (_, p) = found.ok_or_else(|| Error::MissingParameter { block: self.block_name(w.block) })?;
                self.check_parameter(w.block, p)?;
            }
        }
        Ok(())
    }
}
