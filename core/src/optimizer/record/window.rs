//! A step that is saved while it is open (A6.2): what the present micro-batch has, and what it still waits for.

use crate::backend::Wanted;
use crate::block::BlockId;
use crate::optimizer::phase::Open;
use crate::optimizer::step::Step;
use alloc::collections::BTreeSet;

/// Words of the leaf `window`.
pub(super) const WORDS: usize = 6;

/// An open step. The loss rule, what is scored and what is asked for follow from it and the selection.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// As it was begun, with the loss that was given last.
    pub step: Step,
    /// The present one, from 0.
    pub micro_batch: u32,
    /// Blocks whose gradient of the present micro-batch has come.
    pub arrived: BTreeSet<BlockId>,
}

impl Window {
    pub fn of(open: &Open, wanted: &[Wanted], arrived: &[bool]) -> Self {
        let came = wanted.iter().zip(arrived).filter(|(_, a)| **a).map(|(w, _)| w.block);
        let step = Step {
            lr: open.hyper.lr,
            loss: open.given,
            inv_loss_scale: open.hyper.inv_loss_scale,
            micro_batches: open.micro_batches,
        };
        Self { step, micro_batch: open.micro_batch, arrived: came.collect() }
    }

    pub fn has_arrived(&self, block: BlockId) -> bool {
        self.arrived.contains(&block)
    }

    /// An active block's packed gradient and, while a step switches, its mask mean something.
    pub fn has_gathered(&self, block: BlockId) -> bool {
        self.micro_batch > 0 || self.has_arrived(block)
    }

    pub fn words(&self) -> [u64; WORDS] {
        let s = &self.step;
        let loss = s.loss.map_or([0; 2], |l| [1, l.to_bits()]);
        [u64::from(self.micro_batch), u64::from(s.micro_batches), loss[0], loss[1], s.lr.to_bits(), s.inv_loss_scale.to_bits()]
    }

    /// The way back, without arrivals; what is wrong with the words. Ranges of learning rate and loss scale are checked
    /// where every step's are.
    pub fn read(words: &[u64]) -> Result<Self, &'static str> {
        let count = |w: u64| u32::try_from(w).map_err(|_| "a window that no run has");
        let (micro_batch, micro_batches) = (count(words[0])?, count(words[1])?);
        if micro_batch >= micro_batches {
            return Err("its micro-batch is not one of its window");
        }
        let loss = (words[2] != 0).then_some(f64::from_bits(words[3]));
        let (lr, inv_loss_scale) = (f64::from_bits(words[4]), f64::from_bits(words[5]));
        Ok(Self { step: Step { lr, loss, inv_loss_scale, micro_batches }, micro_batch, arrived: BTreeSet::new() })
    }
}
