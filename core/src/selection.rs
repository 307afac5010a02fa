//! The host's side of selection: who is active, who is asked for a gradient, when and what to decide. Numbers only, no
//! backend, so it is compiled once whatever the backends are.

mod decide;
mod plan;

use crate::adam::Scales;
use crate::backend::{ScoredUnit, Wanted};
use crate::block::{BlockId, Blocks, budget};
use crate::config::{Across, Config, First};
use crate::error::Error;
use crate::fill::{Fill, Sized};
use crate::moments::{ActiveSet, Region};
use crate::patience::LossHistory;
use crate::policy::Memory;
use crate::random::Stream;
use alloc::vec;
use alloc::vec::Vec;
use core::convert::Infallible;

const NONE: u32 = u32::MAX;

/// What the next step asks for, and what beginning it will cost: committed at its end, so that an aborted step leaves no
/// trace (A6.5).
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// Gradients asked for on the last micro-batch, by block.
    pub wanted: Vec<Wanted>,
    /// Gradients asked for on the micro-batches before it: those of the set (A6.2).
    pub early: Vec<Wanted>,
    /// Blocks that move without state.
    pub idle: Vec<Region>,
    /// Probed units, by number.
    pub probes: Vec<u32>,
    /// Units scored; filled when the step begins.
    pub scored: Vec<ScoredUnit>,
    /// What `wanted` was before it was in order; kept for its memory.
    merged: Vec<Wanted>,
    cursor: u32,
    draws: u64,
}

/// What the steps are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Stage {
    /// Training.
    #[default]
    Training,
    /// Before the first step: every block's gradient is asked for, scored and dropped. The pass is driven as a step is; it
    /// is none (its number is 0, its learning rate and loss are not used), and is repeated while some unit has no finite
    /// score (A3.4, [`First::FullGradient`]).
    FullGradient,
    /// Steps that score some units in turn, always-active ones too, and update nothing (A3.4, [`First::Scan`]). Their
    /// losses are not entered.
    Scan,
}

/// Why a step is deciding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The loss stopped falling (A3.2).
    LossRule,
    /// The period came round.
    Period,
    /// The user asked for it.
    Forced,
    /// All was scored before training ([`Stage::FullGradient`], [`Stage::Scan`]).
    First,
}

/// What came of a deciding step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// A set was decided; the next step that is applied switches to it.
    Switch,
    /// The same set as before, all whole: it goes on (A3.7).
    Keep,
    /// No decision: so many units have no finite score yet, the first being this one (A3.3).
    Void {
        /// Units without a score.
        units: usize,
        /// The first of them.
        first: u32,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Selection {
    pub blocks: Blocks,
    pub config: Config,
    pub budget: usize,
    pub visits: Vec<u64>,
    pub decisions: u64,
    pub history: LossHistory,
    pub cursor: u32,
    pub stream: Stream,
    /// Steps ended.
    pub step: u64,
    /// A decision was asked for at the end of the next step.
    pub forced: bool,
    /// The set that last updated.
    pub current: ActiveSet,
    /// The set that was decided and has not updated yet.
    pub pending: Option<ActiveSet>,
    /// What the policy remembers.
    pub memory: Memory,
    pub stage: Stage,
    /// Blocks of the current set that tripped in their first step, by number: they enter as new in the next (A6.5).
    pub tripped: Vec<BlockId>,
    /// Steps of the scan that ended.
    pub scanned: u64,
    pub plan: Plan,
    /// Trainable blocks of each unit, one unit after another.
    pub members: Vec<BlockId>,
    /// Where each unit's are, and their coordinates.
    ranges: Vec<ScoredUnit>,
    /// Units with a trainable block.
    trainable: usize,
    /// Block -> its place in `plan.wanted`.
    index: Vec<u32>,
    /// Whether a block is in the set of the next step.
    chosen: Vec<bool>,
    /// The largest factors that any block has on learning rate and weight decay; at least 1.
    pub largest_scales: Scales,
    /// Blocks go by the order of a record (see [`Blocks::rank`]); the regions of the open step in that order.
    pub blocks_are_reordered: bool,
    pub summed: Vec<Region>,
}

impl Selection {
    pub fn new(blocks: Blocks, config: Config) -> Result<Self, Error<Infallible>> {
        config.validate(blocks.compute)?;
        let n_s = most_active(&blocks, &config);
        let mut new = Self {
            visits: vec![0; blocks.units.len()],
            decisions: 0,
            history: LossHistory::new(config.patience),
            cursor: (config.seed % blocks.units.len() as u64) as u32,
            stream: Stream::new(config.seed),
            step: 0,
            forced: false,
            current: ActiveSet::default(),
            pending: None,
            memory: Memory::default(),
            stage: Stage::Training,
            tripped: Vec::new(),
            scanned: 0,
            plan: Plan::default(),
            members: Vec::new(),
            ranges: Vec::new(),
            trainable: 0,
            index: vec![NONE; blocks.count()],
            chosen: vec![false; blocks.count()],
            largest_scales: Scales::default(),
            blocks_are_reordered: false,
            summed: Vec::new(),
            budget: n_s,
            blocks,
            config,
        };
        check_fit(&new.blocks, &new.config, n_s)?;
        match new.config.first {
            First::FullGradient if new.config.policy.scores() => new.stage = Stage::FullGradient,
            First::Scan if new.config.policy.scores() => new.stage = Stage::Scan,
            _ => {
                let first = new.choose(None)?;
                new.pending = Some(new.set(&first));
            }
        }
        new.refresh();
        Ok(new)
    }

    /// Lays out a set in the arena.
    pub fn set(&self, counts: &[Sized]) -> ActiveSet {
        let mut set = ActiveSet::new(&self.blocks, counts);
        if self.config.immediate {
            // One block's gradient at a time.
            set.regions.iter_mut().for_each(|r| r.gradient_at = 0);
        }
        set
    }

    /// The set of the next step.
    pub fn next_set(&self) -> &ActiveSet {
        self.pending.as_ref().unwrap_or(&self.current)
    }

    /// After any change of what is trainable or chosen.
    pub fn refresh(&mut self) {
        self.members.clear();
        self.ranges.clear();
        for unit in 0..self.blocks.units.len() as u32 {
            let first = self.members.len() as u32;
            self.members.extend(self.blocks.members(unit));
            let count = self.members.len() as u32 - first;
            self.ranges.push(ScoredUnit { unit, first, count, n: self.blocks.unit_len(unit) });
        }
        self.trainable = self.ranges.iter().filter(|r| r.count > 0).count();
        let largest = |f: fn(&Scales) -> f64| self.blocks.specs.iter().map(|s| f(&s.scales)).fold(1.0, f64::max);
        self.largest_scales = Scales { lr: largest(|s| s.lr), weight_decay: largest(|s| s.weight_decay) };
        self.blocks_are_reordered = self.blocks.is_reordered();
        self.chosen.fill(false);
        let set = self.pending.as_ref().unwrap_or(&self.current);
        set.regions.iter().for_each(|r| self.chosen[r.block as usize] = true);
        self.make_plan();
    }

    fn members_of(&self, unit: u32) -> &[BlockId] {
        let r = self.ranges[unit as usize];
        &self.members[r.first as usize..(r.first + r.count) as usize]
    }

    /// Every trainable block of the unit is in the set of the next step.
    fn is_wholly_chosen(&self, unit: u32) -> bool {
        self.members_of(unit).iter().all(|&b| self.chosen[b as usize])
    }

    /// The step ended: what its plan moved is now so.
    pub fn end_step(&mut self) {
        if self.stage == Stage::FullGradient {
            return; // no step
        }
        self.step += 1;
        self.scanned += u64::from(self.stage == Stage::Scan);
        self.forced = false;
        (self.cursor, self.stream.draws) = (self.plan.cursor, self.plan.draws);
    }

    /// Before a step that would switch: which of its blocks start anew (A5.4, A6.5).
    pub fn mark_fresh(&mut self) {
        let reset = self.config.across == Across::Reset;
        for r in self.pending.iter_mut().flat_map(|p| &mut p.regions) {
            r.fresh = reset || self.current.find(r.block).is_none();
        }
    }

    /// The pending set takes moments over from the one before (A5.4).
    pub fn carries(&self) -> bool {
        let stays = |p: &ActiveSet| p.regions.iter().any(|r| self.current.find(r.block).is_some());
        self.config.across == Across::Carry && self.pending.as_ref().is_some_and(stays)
    }

    /// The pending set has updated (A5.3).
    pub fn switched(&mut self) {
        if let Some(mut set) = self.pending.take() {
            set.regions.iter_mut().for_each(|r| r.fresh = false);
            self.current = set;
            self.tripped.clear();
        }
    }

    /// A5.6. The caller has checked that the block is trainable.
    pub fn freeze(&mut self, block: BlockId) {
        self.blocks.specs[block as usize].frozen = true;
        self.drop_block(block);
        self.follow_what_is_trainable();
        self.refresh();
    }

    /// A5.6. The caller has checked that the block is frozen.
    pub fn thaw(&mut self, block: BlockId) {
        self.blocks.specs[block as usize].frozen = false;
        self.follow_what_is_trainable();
        self.refresh();
    }

    /// n_s stays as it is (A1.1); a policy's own maximum is of what is trainable, from the next decision on.
    pub fn follow_what_is_trainable(&mut self) {
        if self.has_own_maximum() {
            self.budget = self.config.policy.maximum(&self.blocks);
        }
    }

    /// The policy selects, and not within n_s.
    pub fn has_own_maximum(&self) -> bool {
        self.config.policy.trigger().is_some() && !self.config.policy.keeps_budget(&self.blocks)
    }

    /// Takes a block out of current and pending set. The plan is to be made anew.
    pub fn drop_block(&mut self, block: BlockId) {
        for set in [Some(&mut self.current), self.pending.as_mut()].into_iter().flatten() {
            set.regions.retain(|r| r.block != block);
        }
        self.tripped.retain(|b| *b != block);
    }

    /// Blocks came or went, and with them coordinates. The plan is to be made anew.
    pub fn replace_blocks(&mut self, blocks: Blocks, budget: usize) {
        // By number, while blocks still have theirs.
        self.plan.wanted.drain(..).for_each(|w| self.index[w.block as usize] = NONE);
        self.visits.resize(blocks.units.len(), 0);
        self.index.resize(blocks.count(), NONE);
        self.chosen.resize(blocks.count(), false);
        (self.blocks, self.budget) = (blocks, budget);
    }
}

/// n_s, or a policy's own maximum (A1.1).
pub(crate) fn most_active(blocks: &Blocks, config: &Config) -> usize {
    match config.policy.keeps_budget(blocks) {
        true => budget(blocks.trainable_len(), config.sparsity),
        false => config.policy.maximum(blocks),
    }
}

/// What the budget must hold.
pub(crate) fn check_fit(blocks: &Blocks, config: &Config, budget: usize) -> Result<(), Error<Infallible>> {
    let always_active = blocks.always_active_len();
    if always_active > budget {
        return Err(Error::Budget { always_active, budget });
    }
    if !config.policy.keeps_budget(blocks) {
        return Ok(());
    }
    let room = budget - always_active;
    let smallest = blocks.selectable_units().map(|u| blocks.unit_len(u)).min();
    match (config.fill, smallest) {
        (Fill::Whole, Some(smallest)) if smallest > room => Err(Error::NothingFits { smallest, room }),
        _ => Ok(()),
    }
}
