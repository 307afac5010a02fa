//! The driver: all validation, no maths, no device code.
//!
//! A step is `begin`, a gradient for each block of [`Optimizer::wanted`], `finish`. One core serves whole steps
//! ([`Optimizer::step`]) and packed streaming ([`Optimizer::begin`], [`Optimizer::grad`], [`Optimizer::finish`]): both
//! give the same bits in any order of arrival (A6.5).

mod check;
mod decision;
mod freeze;
mod record;
mod step;

pub use record::Saving;
pub use step::{Progress, Step};

use crate::backend::{Arena, Backend, Wanted, flag, norm};
use crate::block::{BlockId, BlockSpec, Blocks};
use crate::config::Config;
use crate::error::Error;
use crate::fill::Sized;
use crate::moments::ActiveSet;
use crate::patience::LossEntry;
use crate::policy::Policy;
use crate::report::{MemoryReport, StepReport};
use crate::score::{EMPTY_ROW, ROW};
use crate::selection::{Decision, Reason, Selection};
use crate::tensor::{DType, View};
use alloc::vec::Vec;

/// What a step's host side came to; the report adds what the device knows.
#[derive(Clone, PartialEq, Debug)]
struct LastStep {
    active: Vec<Sized>,
    loss: LossEntry,
    reason: Option<Reason>,
    decision: Option<Decision>,
    switched: bool,
}

enum Phase<T> {
    Idle,
    Open(step::Open),
    /// The last step's switch or decision waits for the device.
    Waiting(decision::Waiting<T>),
    Poisoned,
}

/// A BlockLLM optimizer over a backend.
pub struct Optimizer<B: Backend> {
    backend: B,
    arena: Arena<B::Buffer>,
    /// Elements that `m`, `v` and `gradient` hold each: n_s.
    capacity: usize,
    selection: Selection,
    phase: Phase<B::Ticket>,
    /// By the plan's wanted blocks: the gradient has come.
    arrived: Vec<bool>,
    last: LastStep,
    report: Option<(B::Ticket, B::Ticket)>,
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
        let (capacity, compute) = (selection.budget, selection.blocks.compute);
        let (blocks, units) = (selection.blocks.count(), selection.blocks.units.len());
        let mut alloc = |dtype, len| backend.alloc(dtype, len).map_err(device::<B>("allocate the arena"));
        let mut arena = Arena {
            gradient: alloc(compute, capacity)?,
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
        backend.submit().map_err(device::<B>("allocate the arena"))?;
        let last = LastStep { active: Vec::new(), loss: LossEntry::None, reason: None, decision: None, switched: false };
        let mut new = Self { backend, arena, capacity, selection, phase: Phase::Idle, arrived: Vec::new(), last, report: None };
        new.reset_arrivals();
        Ok(new)
    }

    fn reset_arrivals(&mut self) {
        self.arrived.clear();
        self.arrived.resize(self.selection.plan.wanted.len(), false);
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

    /// Gradients that the next step asks for, by block, so that no others need be computed. The set and the probes;
    /// under `SignSgd` every trainable block.
    ///
    /// # Errors
    /// [`Error::Pending`] while it is not known yet, [`Error::Poisoned`].
    pub fn wanted(&self) -> Result<&[Wanted], B> {
        match self.phase {
            Phase::Waiting(_) => Err(Error::Pending),
            Phase::Poisoned => Err(Error::Poisoned),
            _ => Ok(&self.selection.plan.wanted),
        }
    }

    /// The set of the next step.
    pub fn active(&self) -> &ActiveSet {
        self.selection.next_set()
    }

    /// The set that last updated: the one that has moments. Differs from [`Self::active`] while a decision is pending.
    pub fn current(&self) -> &ActiveSet {
        &self.selection.current
    }

    /// A decided set has not updated yet.
    pub fn is_switch_pending(&self) -> bool {
        self.selection.pending.is_some()
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
        self.selection.config.policy == Policy::BlockLlm(crate::policy::Trigger::Patience)
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
        self.selection.forced = true;
        Ok(())
    }

    /// Bytes held, and bytes of the gradients that the next step asks for.
    pub fn memory(&self) -> MemoryReport {
        let (s, compute) = (&self.selection, self.selection.blocks.compute.size());
        let (blocks, units) = (s.blocks.count(), s.blocks.units.len());
        let next = s.pending.as_ref();
        let stays = next.is_some_and(|p| s.config.across == crate::config::Across::Carry && p.regions.iter().any(|r| s.current.find(r.block).is_some()));
        let gradients: Vec<_> = s.plan.wanted.iter().map(|w| (w.block, s.blocks.len(w.block) * s.blocks.spec(w.block).dtype.size())).collect();
        MemoryReport {
            moments: 2 * self.capacity * compute,
            packed_gradients: self.capacity * compute,
            masks: 4 * s.current.mask_words(),
            tables: blocks * (8 + 4 + 32) + units * ROW * 8 + flag::LEN * 4 + norm::LEN * 8,
            switch_peak: next.map_or(0, |p| 4 * p.mask_words()) + if stays { self.capacity * compute } else { 0 },
            gradients_total: gradients.iter().map(|g| g.1).sum(),
            gradients,
        }
    }

    /// Asks the device for the report of the last step; [`Self::poll_report`] brings it.
    ///
    /// # Errors
    /// While a step is open or waiting; the device's.
    pub fn request_report(&mut self) -> Result<(), B> {
        self.idle("request_report")?;
        let op = device::<B>("read the step report");
        let flags = self.backend.read(&self.arena.flags, 0, flag::LEN).map_err(&op)?;
        let norms = self.backend.read(&self.arena.norm, 0, norm::LEN).map_err(&op)?;
        self.backend.submit().map_err(&op)?;
        self.report = Some((flags, norms));
        Ok(())
    }

    /// The report that was asked for, once it has come. Never waits.
    ///
    /// # Errors
    /// [`Error::Order`] where none was asked for; the device's.
    pub fn poll_report(&mut self) -> Result<Option<StepReport>, B> {
        let Some((flags_ticket, norm_ticket)) = &mut self.report else {
            return Err(Error::Order { call: "poll_report", need: "request_report comes first" });
        };
        let op = device::<B>("read the step report");
        let (mut flags, mut norms) = ([0; flag::LEN], [0.0; norm::LEN]);
        let ready = self.backend.poll(flags_ticket, crate::ViewMut::U32(&mut flags)).map_err(&op)?
            && self.backend.poll(norm_ticket, crate::ViewMut::F64(&mut norms)).map_err(&op)?;
        if !ready {
            return Ok(None);
        }
        self.report = None;
        let l = &self.last;
        let mut report = StepReport {
            step: self.selection.step,
            active: l.active.clone(),
            loss: l.loss,
            reason: l.reason,
            decision: l.decision,
            decisions: self.selection.decisions,
            visits: self.selection.visits.clone(),
            switched: l.switched,
            guard_limit: self.selection.config.guard_limit,
            skipped: false,
            norm: 0.0,
            clip: 1.0,
            applied: 0,
            skipped_total: 0,
            streak: 0,
            streak_errors: 0,
            bad_scores: 0,
            nan_gradients: 0,
            zero_masks: 0,
        };
        report.read(&flags, &norms);
        Ok(Some(report))
    }

    /// The report of the last step, waiting for it.
    ///
    /// # Errors
    /// As [`Self::request_report`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn report(&mut self) -> Result<StepReport, B> {
        self.request_report()?;
        loop {
            if let Some(report) = self.poll_report()? {
                return Ok(report);
            }
            core::hint::spin_loop();
        }
    }

    fn block_name(&self, block: BlockId) -> alloc::string::String {
        self.selection.blocks.spec(block).name.clone()
    }
}
