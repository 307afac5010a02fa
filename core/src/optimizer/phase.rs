//! Where an optimizer stands: between steps, in one, waiting for the device, or poisoned.

use crate::adam::Hyper;
use crate::backend::{Arena, Backend, flag};
use crate::patience::LossEntry;
use crate::score::ROW;
use crate::selection::{Reason, Selection};
use alloc::vec;
use alloc::vec::Vec;

/// Where an optimizer stands.
pub(super) enum Phase<T> {
    Idle,
    Open(Open),
    /// The last step's switch or decision waits for the device.
    Waiting(Waiting<T>),
    Poisoned,
}

/// Where the optimizer stands after a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a pending step must be polled before the next one begins"]
pub enum Progress {
    /// The next step may begin.
    Ready,
    /// A decision or a switch waits for the device: poll.
    Pending,
}

/// An open step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    pub hyper: Hyper,
    pub loss: LossEntry,
    pub reason: Option<Reason>,
    /// It switches, if it is applied.
    pub switching: bool,
    /// Moments move through `spare`.
    pub carrying: bool,
    /// The present micro-batch, from 0, and how many the window has.
    pub micro_batch: u32,
    pub micro_batches: u32,
    /// The loss that was given, until it is entered when the last micro-batch begins (A3.2).
    pub given: Option<f64>,
}

impl Open {
    pub fn is_last(&self) -> bool {
        self.micro_batch + 1 == self.micro_batches
    }
}

/// Readbacks on their way.
pub(super) struct Waiting<T> {
    /// The flags of a step that would switch, and whether moments moved through `spare`.
    pub switch: Option<(T, bool)>,
    /// The step counts, by block, of a step that updates each block at once and in which some may enter; and whether it
    /// switches.
    pub entering: Option<(T, Vec<u32>, bool)>,
    /// The step decides.
    pub decides: bool,
    /// The score table of a deciding step, where the policy scores.
    pub table: Option<(T, Vec<f64>)>,
    pub forced: bool,
    /// The switch is settled.
    pub applied: Option<bool>,
    /// The step counts have come.
    pub counted: bool,
}

impl<T> Waiting<T> {
    pub fn ask<B: Backend<Ticket = T>>(
        backend: &mut B, arena: &Arena<B::Buffer>, s: &Selection, open: &Open, forced: bool,
    ) -> core::result::Result<Option<Self>, B::Error> {
        let enters = s.config.immediate && (open.switching || !s.tripped.is_empty());
        if !open.switching && open.reason.is_none() && !enters {
            return Ok(None);
        }
        let entering = match enters {
            true => {
                let blocks = s.blocks.count();
                Some((backend.read(&arena.steps, 0, blocks)?, vec![0; blocks], open.switching))
            }
            false => None,
        };
        let switch = match open.switching && !enters {
            true => Some((backend.read(&arena.flags, 0, flag::LEN)?, open.carrying)),
            false => None,
        };
        let words = s.blocks.units.len() * ROW;
        let decides = open.reason.is_some();
        let table = match decides && s.config.policy.scores() {
            true => Some((backend.read(&arena.table, 0, words)?, vec![0.0; words])),
            false => None,
        };
        Ok(Some(Self { switch, entering, decides, table, forced, applied: None, counted: false }))
    }
}
