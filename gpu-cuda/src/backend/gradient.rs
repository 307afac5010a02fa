//! What is done with one gradient: gather, scores, the state-free update.

use super::{Cuda, DeviceArena, mask_address};
use crate::arguments::{Address, Fold, Gather, Rates, Score, ScoreProcessed, StateFree};
use crate::buffer::{Tensor, TensorMut};
use crate::error::Error;
use crate::scratch::subtrees;
use blockllm::DType;
use blockllm::adam::{Decay, Hyper};
use blockllm::block::BlockId;
use blockllm::moments::Region;

/// Decay rates and eps, in f64 still.
pub(super) fn rates(h: &Hyper) -> Rates {
    Rates { one_minus_beta1: 1.0 - h.betas[0], beta2: h.betas[1], one_minus_beta2: 1.0 - h.betas[1], eps: h.eps }
}

/// Whether weight decay shrinks the parameter, as kernels take it.
pub(super) fn decoupled(h: &Hyper, operation: &'static str, dtype: DType) -> Result<u64, Error> {
    match h.decay {
        Decay::L2 => Ok(0),
        Decay::Decoupled => Ok(1),
        // One that was added since.
        _ => Err(Error::NoKernel { operation, dtype }),
    }
}

impl Cuda {
    pub(super) fn queue_gather(&mut self, a: &DeviceArena, r: &Region, g: &Tensor<'_>, add: bool) -> Result<(), Error> {
        let kernels = self.kernels.clone();
        let arguments = Gather {
            g: g.address(),
            packed: a.gradient.at(r.gradient_at),
            mask: mask_address(&a.masks, r),
            n: r.n as u64,
            k: r.k as u64,
            add: u64::from(add),
        };
        self.launch_over(kernels.gather.of_gradient(g.dtype(), a.gradient.dtype())?, r.n, &arguments)
    }

    pub(super) fn queue_score(&mut self, a: &DeviceArena, block: BlockId, g: &Tensor<'_>, h: &Hyper) -> Result<(), Error> {
        let (kernels, n) = (self.kernels.clone(), Self::len(g));
        let sums = self.scratch.subtrees(subtrees(n))?;
        let arguments = Score { g: g.address(), subtrees: sums, n: n as u64, inv_loss_scale: h.inv_loss_scale };
        self.launch(kernels.score.of_gradient(g.dtype(), a.gradient.dtype())?, subtrees(n) as u64, &arguments)?;
        self.fold(sums, subtrees(n), a.sums.at(block as usize))
    }

    /// `present` is the block's region in the set that last updated, and whether its mask lies in `old_masks`.
    pub(super) fn queue_score_processed(
        &mut self, a: &DeviceArena, block: BlockId, g: &Tensor<'_>, h: &Hyper, (present, old): (Option<&Region>, bool),
    ) -> Result<(), Error> {
        let (kernels, n) = (self.kernels.clone(), Self::len(g));
        let sums = self.scratch.subtrees(subtrees(n))?;
        let masks = if old { &a.old_masks } else { &a.masks };
        let arguments = ScoreProcessed {
            g: g.address(),
            subtrees: sums,
            m: present.map_or(0, |r| a.m.at(r.at)),
            v: present.map_or(0, |r| a.v.at(r.at)),
            mask: present.map_or(0, |r| mask_address(masks, r)),
            powers: a.powers.at(4 * block as usize),
            n: n as u64,
            inv_loss_scale: h.inv_loss_scale,
            beta1: h.betas[0],
            rates: rates(h),
        };
        let function = kernels.score_processed.of_gradient(g.dtype(), a.gradient.dtype())?;
        self.launch(function, subtrees(n) as u64, &arguments)?;
        self.fold(sums, subtrees(n), a.sums.at(block as usize))
    }

    fn fold(&mut self, subtrees: Address, count: usize, sum: Address) -> Result<(), Error> {
        let kernels = self.kernels.clone();
        self.launch(kernels.fold.only(), 1, &Fold { subtrees, sum, count: count as u64 })
    }

    pub(super) fn queue_state_free(
        &mut self, a: &DeviceArena, r: &Region, g: &Tensor<'_>, p: &TensorMut<'_>, h: &Hyper,
    ) -> Result<(), Error> {
        if !r.masked() {
            return Ok(());
        }
        let kernels = self.kernels.clone();
        let (lr, wd) = (h.lr * r.scales.lr, h.weight_decay * r.scales.weight_decay);
        let p = p.as_tensor();
        let arguments = StateFree {
            p: p.address(),
            g: g.address(),
            mask: mask_address(&a.masks, r),
            flags: a.flags.at(0),
            n: r.n as u64,
            inv_loss_scale: h.inv_loss_scale,
            step: lr * h.sign_scale.unwrap_or(0.0),
            shrink: 1.0 - lr * wd,
            weight_decay: wd,
            decoupled: decoupled(h, "state_free", p.dtype())?,
        };
        self.launch_over(kernels.state_free.of_pair(p.dtype(), g.dtype())?, r.n, &arguments)
    }

    fn len(g: &Tensor<'_>) -> usize {
        g.info().len
    }
}
