//! The driver: all validation, no maths, no device code.
//!
//! A step is `begin`, a gradient for each block of [`Optimizer::wanted`], `finish`. One core serves whole steps
//! ([`Optimizer::step`]) and packed streaming ([`Optimizer::begin`], [`Optimizer::grad`], [`Optimizer::finish`]): both
//! give the same bits in any order of arrival (A6.5). A step of several micro-batches (A6.2) has
//! [`Optimizer::next_micro_batch`] between them; with all gradients of each at hand it is [`Optimizer::accumulate`] for all
//! but the last, and [`Optimizer::finish_whole`].

mod adopt;
mod blocks;
mod capacity;
mod check;
mod decision;
mod freeze;
mod immediate;
mod micro_batch;
mod phase;
mod record;
mod report;
mod step;

pub use phase::Progress;
pub use record::Saving;
pub use step::Step;

use phase::Phase;

use crate::backend::{Arena, Backend, Wanted, flag, norm};
use crate::block::{BlockId, BlockSpec, Blocks};
use crate::config::Config;
use crate::error::Error;
use crate::fill::Sized;
use crate::moments::ActiveSet;
use crate::patience::LossEntry;
use crate::policy::{Policy, Trigger};
use crate::score::{EMPTY_ROW, ROW};
use crate::selection::{Decision, Reason, Selection, Stage};
use crate::tensor::{DType, View};
use alloc::vec::Vec;

/// What a step's host side came to; the report adds what the device knows.
#[derive(Clone, PartialEq, Debug)]
struct LastStep {
    /// Of the step's set, by block.
    active: Vec<Sized>,
    stage: Stage,
    loss: LossEntry,
    reason: Option<Reason>,
    decision: Option<Decision>,
    switched: bool,
}

impl LastStep {
    fn none() -> Self {
        let (loss, stage) = (LossEntry::None, Stage::Training);
        Self { active: Vec::new(), stage, loss, reason: None, decision: None, switched: false }
    }
}

/// A BlockLLM optimizer over a backend.
pub struct Optimizer<B: Backend> {
    arena: Arena<B::Buffer>,
    /// Elements that `m` and `v` hold each: n_s.
    capacity: usize,
    /// Elements that `gradient` holds.
    gradient_capacity: usize,
    selection: Selection,
    phase: Phase<B::Ticket>,
    /// Words that `arena.masks` and `arena.old_masks` hold.
    mask_words: [usize; 2],
    /// By the plan's wanted blocks: the gradient has come.
    arrived: Vec<bool>,
    last: LastStep,
    report: Option<report::Requested<B::Ticket>>,
    /// m and v of the new set, while a step that updates each block as its gradient arrives switches.
    entering: Option<[B::Buffer; 2]>,
    /// Last, so that it outlives its buffers and tickets.
    backend: B,
}

type Result<T, B> = core::result::Result<T, Error<<B as Backend>::Error>>;

fn device<B: Backend>(operation: &'static str) -> impl Fn(B::Error) -> Error<B::Error> {
    move |error| Error::Backend { operation, error }
}

impl<B: Backend> Optimizer<B> {
    /// Registers blocks and allocates all that a step without a switch needs.
    ///
    /// # Errors
    /// A bad block or configuration, named; the backend's, where memory is short.
    pub fn new(mut backend: B, blocks: &[BlockSpec], config: Config) -> Result<Self, B> {
        let blocks = Blocks::new(blocks).map_err(Error::host)?;
        let selection = Selection::new(blocks, config).map_err(Error::host)?;
        backend.prepare(&selection.blocks, &selection.config).map_err(device::<B>("prepare the device"))?;
        let (capacity, compute) = (selection.budget, selection.blocks.compute);
        let (blocks, units) = (selection.blocks.count(), selection.blocks.units.len());
        let gradient_capacity = capacity::gradient_capacity(&selection.blocks, &selection.config, capacity);
        let mut alloc = |dtype, len| backend.alloc(dtype, len).map_err(device::<B>("allocate the arena"));
        let mut arena = Arena {
            gradient: alloc(compute, gradient_capacity)?,
            m: alloc(compute, capacity)?,
            v: alloc(compute, capacity)?,
            spare: alloc(compute, 0)?,
            masks: alloc(DType::U32, 0)?,
            old_masks: alloc(DType::U32, 0)?,
            sums: alloc(DType::F64, blocks)?,
            table: alloc(DType::F64, units * ROW)?,
            steps: alloc(DType::U32, blocks)?,
            powers: alloc(DType::F64, 4 * blocks)?,
            flags: alloc(DType::U32, flag::LEN)?,
            norm: alloc(DType::F64, norm::LEN)?,
        };
        let empty = EMPTY_ROW.repeat(units);
        backend.write(&mut arena.table, 0, View::F64(&empty)).map_err(device::<B>("allocate the arena"))?;
        backend.write(&mut arena.norm, norm::CLIP, View::F64(&[1.0])).map_err(device::<B>("allocate the arena"))?;
        backend.submit().map_err(device::<B>("allocate the arena"))?;
        let mut new = Self {
            backend,
            arena,
            capacity,
            gradient_capacity,
            selection,
            phase: Phase::Idle,
            mask_words: [0; 2],
            arrived: Vec::new(),
            last: LastStep::none(),
            report: None,
            entering: None,
        };
        new.reset_arrivals();
        Ok(new)
    }

    fn reset_arrivals(&mut self) {
        let wanted = self.selection.wanted(self.is_last_micro_batch()).len();
        self.arrived.clear();
        self.arrived.resize(wanted, false);
    }

    /// Of an open step; between steps, as of a step that is one micro-batch.
    fn is_last_micro_batch(&self) -> bool {
        match &self.phase {
            Phase::Open(open) => open.is_last(),
            _ => true,
        }
    }

    /// The backend.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The backend, for what an adapter needs of it. The engine's buffers are not reachable through it.
    pub fn backend_mut(&mut self) -> &mut B {
        &mut self.backend
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.selection.config
    }

    /// The blocks as registered, with `frozen` as it is now, and the units they form.
    pub fn blocks(&self) -> &Blocks {
        &self.selection.blocks
    }

    /// n_s: the most coordinates that are ever active at once (A1.1).
    pub fn budget(&self) -> usize {
        self.selection.budget
    }

    /// Gradients that the next step asks for, by block, so that no others need be computed: the set and the probes;
    /// under `SignSgd` every trainable block. In a window of several micro-batches, what the present one asks for: before
    /// the last, the set alone (A2.6, A6.7).
    ///
    /// # Errors
    /// [`Error::Pending`] while it is not known yet, [`Error::Poisoned`].
    pub fn wanted(&self) -> Result<&[Wanted], B> {
        self.wanted_of(self.is_last_micro_batch())
    }

    /// The same of a micro-batch that has not begun: of the window's last one, or of one before it. For a caller whose
    /// forward pass must know, and whose loss, which the last one begins with, comes of that pass.
    ///
    /// # Errors
    /// As [`Self::wanted`].
    pub fn wanted_of(&self, last: bool) -> Result<&[Wanted], B> {
        match self.phase {
            Phase::Waiting(_) => Err(Error::Pending),
            Phase::Poisoned => Err(Error::Poisoned),
            _ => Ok(self.selection.wanted(last)),
        }
    }

    /// The set of the next step: [`ActiveSet::counts`] lists its blocks and their active coordinates.
    pub fn active(&self) -> &ActiveSet {
        self.selection.next_set()
    }

    /// The set that last updated: the one that has moments. Differs from [`Self::active`] while a decision is pending.
    pub fn current(&self) -> &ActiveSet {
        &self.selection.current
    }

    /// What the next step is for: training, or scoring all before it ([`First`](crate::First)).
    pub fn stage(&self) -> Stage {
        self.selection.stage
    }

    /// A decided set has not updated yet.
    pub fn is_switch_pending(&self) -> bool {
        self.selection.pending.is_some()
    }

    /// A step was begun and has not ended.
    pub fn is_step_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// Units probed by the next step, by number.
    pub fn probes(&self) -> &[u32] {
        &self.selection.plan.probes
    }

    /// Steps ended, skipped ones included.
    pub fn steps(&self) -> u64 {
        self.selection.step
    }

    /// Decisions so far: R.
    pub fn decisions(&self) -> u64 {
        self.selection.decisions
    }

    /// By unit, the decisions that selected it.
    pub fn visits(&self) -> &[u64] {
        &self.selection.visits
    }

    /// The round-robin cursor and the number of draws made (A2.6, A8.2).
    pub fn cursor_and_draws(&self) -> (u32, u64) {
        (self.selection.cursor, self.selection.stream.draws)
    }

    /// Whether the policy decides by the loss, so that a caller who never hands one over never reselects.
    pub fn needs_loss(&self) -> bool {
        self.selection.config.policy.trigger() == Some(Trigger::Patience)
    }

    /// Asks for a decision at the end of the next step (A3.2).
    ///
    /// # Errors
    /// Under a policy that makes none; while a step is open or waiting.
    pub fn force_decision(&mut self) -> Result<(), B> {
        self.idle("force_decision")?;
        if self.selection.config.policy == Policy::Full {
            return Err(Error::NoDecisions);
        }
        if self.selection.stage != Stage::Training {
            return Err(Error::Order { call: "force_decision", need: "the first set is decided when all was scored" });
        }
        self.selection.forced = true;
        Ok(())
    }

    fn block_name(&self, block: BlockId) -> alloc::string::String {
        self.selection.blocks.spec(block).name.clone()
    }
}
