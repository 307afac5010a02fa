//! What the engine tells: bytes it holds, and what a step did.

use crate::backend::{flag, norm};
use crate::block::BlockId;
use crate::error::Error;
use crate::patience::LossEntry;
use crate::selection::{Decision, Reason, Stage};
use alloc::vec::Vec;

/// Bytes that the optimizer holds or asks for. Every number is a sum over buffers that exist, or that the plan of the
/// next step needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemoryReport {
    /// m and v of the arena: n_s elements each, whatever is selected (A5.1).
    pub moments: usize,
    /// Packed gradients of the active coordinates: n_s elements; the largest block's where each is updated at once.
    pub packed_gradients: usize,
    /// Masks and prefix counts of the set that last updated.
    pub masks: usize,
    /// Per-block and per-unit numbers on the device: scores, step counts, powers, flags.
    pub tables: usize,
    /// What the backend needs to build masks and to sum (A5.5): for its largest block, whatever is selected. 0 on the reference.
    pub scratch: usize,
    /// What a switch holds for its one step beside all of the above: the new set's masks, and under `Carry` one moment (both,
    /// where each block is updated at once). Where blocks came or went, or moments were taken over, also the arena of the new
    /// size beside the old one.
    pub switch_peak: usize,
    /// Gradients that the next step asks for, by block.
    pub gradients: Vec<(BlockId, usize)>,
    /// Their sum: what lives at once in a whole step. Streaming, only the largest of them lives.
    pub gradients_total: usize,
}

impl MemoryReport {
    /// What is held between steps: moments, masks, tables, packed gradients and scratch.
    pub fn resident(&self) -> usize {
        self.moments + self.packed_gradients + self.masks + self.tables + self.scratch
    }

    /// Optimizer state alone, as it is counted for AdamW: moments, masks and tables.
    pub fn state(&self) -> usize {
        self.moments + self.masks + self.tables
    }
}

/// A unit's entry in the score table (A2.5).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Score {
    /// The score.
    pub value: f64,
    /// Steps since it was taken.
    pub age: u64,
}

/// What the last step did. Read from the device: ask with [`Optimizer::request_report`](crate::Optimizer::request_report).
#[derive(Clone, PartialEq, Debug)]
pub struct StepReport {
    /// The step's number, from 1.
    pub step: u64,
    /// Its active blocks and their active coordinates, by block. A short tile may hold fewer (A4.5).
    pub active: Vec<(BlockId, usize)>,
    /// What it was for. One that only scored is not skipped, and has no norm.
    pub stage: Stage,
    /// What became of its loss.
    pub loss: LossEntry,
    /// Why it was deciding, if it was.
    pub reason: Option<Reason>,
    /// What was decided at its end.
    pub decision: Option<Decision>,
    /// Decisions so far.
    pub decisions: u64,
    /// By unit, the decisions that selected it.
    pub visits: Vec<u64>,
    /// By unit, its last known finite score and how old that is (A2.5). Empty rows under policies that do not score.
    pub scores: Vec<Option<Score>>,
    /// It was the first applied step of its set.
    pub switched: bool,
    /// It changed no active coordinate: a gradient was not finite, or its square (A6.4).
    pub skipped: bool,
    /// Norm of the active gradients times inv_loss_scale, before clipping.
    pub norm: f64,
    /// The factor that clipping multiplied them with.
    pub clip: f64,
    /// Steps applied so far: for schedules that want it.
    pub applied: u32,
    /// Steps skipped so far.
    pub skipped_total: u32,
    /// Steps skipped in a row.
    pub streak: u32,
    /// Steps so far on which the streak was at the limit or above.
    pub streak_errors: u32,
    /// Scores so far that were not finite.
    pub bad_scores: u32,
    /// NaN gradients so far that moved nothing (A6.7).
    pub nan_gradients: u32,
    /// Masks so far that were built from a gradient of zeros (A4.4).
    pub zero_masks: u32,
    pub(crate) guard_limit: u32,
}

impl StepReport {
    /// Active coordinates.
    pub fn active_coordinates(&self) -> usize {
        self.active.iter().map(|a| a.1).sum()
    }

    pub(crate) fn read(&mut self, flags: &[u32], norms: &[f64]) {
        let trained = self.stage == Stage::Training;
        self.skipped = trained && flags[flag::SKIP] != 0;
        self.skipped_total = flags[flag::SKIPPED];
        self.streak = flags[flag::STREAK];
        self.streak_errors = flags[flag::STREAK_ERRORS];
        self.bad_scores = flags[flag::BAD_SCORES];
        self.nan_gradients = flags[flag::NANS];
        self.zero_masks = flags[flag::ZERO_MASKS];
        self.applied = flags[flag::APPLIED];
        (self.norm, self.clip) = if trained { (norms[norm::NORM], norms[norm::CLIP]) } else { (0.0, 1.0) };
    }

    /// The error that a long streak of skipped steps is (A6.4). It stops nothing.
    ///
    /// # Errors
    /// [`Error::GuardStreak`].
    pub fn check<E>(&self) -> Result<(), Error<E>> {
        if self.streak >= self.guard_limit {
            return Err(Error::GuardStreak { streak: self.streak, limit: self.guard_limit });
        }
        Ok(())
    }
}
