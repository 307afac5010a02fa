//! The host's side of selection: who is active, who is asked for a gradient, when and what to decide. Numbers only, no
//! backend, so it is compiled once whatever the backends are.

use crate::adam::Scales;
use crate::backend::{ScoredUnit, Wanted};
use crate::block::{BlockId, Blocks, budget};
use crate::config::{Config, First};
use crate::error::Error;
use crate::fill::{Fill, Sized};
use crate::moments::{ActiveSet, Region};
use crate::patience::LossHistory;
use crate::policy::{Candidates, Memory, Trigger};
use crate::random::Stream;
use crate::score::{self, ProbeOrder, ROW};
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
                let first = new.draw()?;
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

    /// The next set of a policy that does not score, or the first.
    fn draw(&mut self) -> Result<Vec<Sized>, Error<Infallible>> {
        let all = Candidates {
            blocks: &self.blocks,
            scores: &[],
            visits: &self.visits,
            decisions: self.decisions,
            steps: self.step,
            budget: self.budget,
        };
        self.config.policy.draw(&all, &self.config, &mut self.memory, &mut self.stream)
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

    /// What the next step asks for. Works in proportion to that, not to the number of blocks.
    pub fn make_plan(&mut self) {
        let mut plan = core::mem::take(&mut self.plan);
        plan.wanted.drain(..).for_each(|w| self.index[w.block as usize] = NONE);
        plan.early.clear();
        plan.idle.clear();
        plan.scored.clear();
        plan.probes.clear();
        let (mut cursor, mut stream) = (self.cursor, self.stream);
        let sign = self.moves_the_rest();
        if self.stage == Stage::FullGradient {
            plan.probes.extend(self.blocks.trainable_units());
        } else if self.config.policy.scores() && !sign {
            let order = if self.stage == Stage::Scan { ProbeOrder::RoundRobin } else { self.config.probe_order };
            let active = |u: u32| self.is_wholly_chosen(u);
            score::probes(order, self.probe_count(), &self.blocks, &mut cursor, &mut stream, active, &mut plan.probes);
        }
        (plan.cursor, plan.draws) = (cursor, stream.draws);
        for (i, r) in self.next_set().regions.iter().enumerate() {
            let plain = Wanted { active: Some(i as u32), ..Wanted::new(r.block) };
            plan.early.push(plain);
            plan.wanted.push(Wanted { with_parameter: self.config.immediate || (sign && r.masked()), ..plain });
        }
        if sign {
            for (block, spec) in self.blocks.specs.iter().enumerate() {
                if !spec.frozen && !spec.is_empty() && !self.chosen[block] {
                    let block = block as BlockId;
                    let idle = Some(plan.idle.len() as u32);
                    plan.idle.push(Region {
                        block,
                        n: spec.len(),
                        k: 0,
                        at: 0,
                        gradient_at: 0,
                        mask_at: 0,
                        fresh: false,
                        scales: spec.scales,
                    });
                    plan.wanted.push(Wanted { idle, with_parameter: true, ..Wanted::new(block) });
                }
            }
        }
        for (i, w) in plan.wanted.iter().enumerate() {
            self.index[w.block as usize] = i as u32;
        }
        for &unit in &plan.probes {
            for &block in self.members_of(unit) {
                match self.index[block as usize] {
                    NONE => plan.wanted.push(Wanted { probe: true, ..Wanted::new(block) }),
                    i => plan.wanted[i as usize].probe = true,
                }
            }
        }
        plan.wanted.sort_unstable_by_key(|w| w.block);
        for (i, w) in plan.wanted.iter().enumerate() {
            self.index[w.block as usize] = i as u32;
        }
        self.plan = plan;
    }

    /// The rest is moved by its gradient's sign (A6.7): on training steps.
    fn moves_the_rest(&self) -> bool {
        self.stage == Stage::Training && self.config.sign_scale().is_some()
    }

    /// p of A2.6.
    fn probe_count(&self) -> usize {
        self.config.probes_per_step.unwrap_or_else(|| self.trainable_units().div_ceil(self.config.patience))
    }

    fn trainable_units(&self) -> usize {
        self.ranges.iter().filter(|r| r.count > 0).count()
    }

    /// What a micro-batch asks for.
    pub fn wanted(&self, last: bool) -> &[Wanted] {
        if last { &self.plan.wanted } else { &self.plan.early }
    }

    /// Where a block is in [`Self::wanted`].
    pub fn wanted_index(&self, block: BlockId, last: bool) -> Option<usize> {
        if !last {
            return self.plan.early.binary_search_by_key(&block, |w| w.block).ok();
        }
        self.index.get(block as usize).filter(|&&i| i != NONE).map(|&i| i as usize)
    }

    /// Whether the step that begins is deciding, given whether the loss rule holds.
    pub fn reason(&self, rule: bool) -> Option<Reason> {
        if self.stage != Stage::Training {
            let due = self.trainable_units().div_ceil(self.probe_count().max(1)) as u64;
            return (self.stage == Stage::FullGradient || self.scanned + 1 >= due).then_some(Reason::First);
        }
        let by_trigger = match self.config.policy.trigger() {
            Some(Trigger::Period(k)) => (self.step + 1).is_multiple_of(k).then_some(Reason::Period),
            Some(Trigger::Patience) => rule.then_some(Reason::LossRule),
            None => None,
        };
        by_trigger.or(self.forced.then_some(Reason::Forced))
    }

    /// Which units this step scores (A2.5): what is probed; on a deciding step also what is wholly in the set, or every
    /// unit where all gradients are at hand anyway (A6.7).
    pub fn plan_scores(&mut self, deciding: bool) {
        let mut plan = core::mem::take(&mut self.plan);
        plan.scored.clear();
        plan.wanted.iter_mut().for_each(|w| w.score = false);
        if deciding && self.config.policy.scores() && self.stage == Stage::Training {
            let sign = self.moves_the_rest();
            let score = |r: &&ScoredUnit| {
                r.count > 0 && (sign || self.is_wholly_chosen(r.unit) || plan.probes.binary_search(&r.unit).is_ok())
            };
            plan.scored.extend(self.ranges.iter().filter(score));
        } else {
            plan.scored.extend(plan.probes.iter().map(|&u| self.ranges[u as usize]));
        }
        for s in &plan.scored {
            for &b in &self.members[s.first as usize..(s.first + s.count) as usize] {
                plan.wanted[self.index[b as usize] as usize].score = true;
            }
        }
        self.plan = plan;
    }

    /// The step was aborted: what is scored is known when the next one begins.
    pub fn forget_scores(&mut self) {
        self.plan.wanted.iter_mut().for_each(|w| w.score = false);
    }

    /// A unit of which a gradient has not come is not scored: it keeps the score it had.
    pub fn drop_scores(&mut self, arrived: &[bool]) {
        if arrived.iter().all(|a| *a) {
            return;
        }
        let (members, index) = (&self.members, &self.index);
        let came = |b: &BlockId| arrived[index[*b as usize] as usize];
        self.plan.scored.retain(|s| members[s.first as usize..(s.first + s.count) as usize].iter().all(came));
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

    /// A3.3 to A3.7. The score table is as it is at the end of the deciding step; empty for a policy that does not score.
    ///
    /// # Errors
    /// A user's rule that chose what it cannot have: nothing has changed then.
    pub fn decide(&mut self, table: &[f64]) -> Result<Decision, Error<Infallible>> {
        let set = match self.config.policy.scores() {
            true => match self.scores(table) {
                Ok(scores) => self.rank(&scores)?,
                Err(void) => return Ok(void),
            },
            false => self.draw()?,
        };
        self.stage = Stage::Training;
        self.decisions += 1;
        self.history.clear();
        self.count_visits(&set);
        let keep = self.current.is_whole_and_equals(&set);
        self.pending = (!keep).then(|| self.set(&set));
        self.refresh();
        Ok(if keep { Decision::Keep } else { Decision::Switch })
    }

    /// By unit; a void decision where a trainable one has none.
    fn scores(&self, table: &[f64]) -> Result<Vec<f64>, Decision> {
        let scores: Vec<Option<f64>> = table.chunks_exact(ROW).map(|row| score::of_row(self.config.score, row)).collect();
        let missing = |u: &u32| scores[*u as usize].is_none();
        if let Some(first) = self.blocks.trainable_units().find(missing) {
            return Err(Decision::Void { units: self.blocks.trainable_units().filter(missing).count(), first });
        }
        Ok(scores.into_iter().map(|s| s.unwrap_or(0.0)).collect())
    }

    /// The set of the best units.
    fn rank(&mut self, scores: &[f64]) -> Result<Vec<Sized>, Error<Infallible>> {
        let all = Candidates {
            blocks: &self.blocks,
            scores,
            visits: &self.visits,
            decisions: self.decisions,
            steps: self.step,
            budget: self.budget,
        };
        self.config.policy.rank(&all, &self.config, &mut self.memory, &mut self.stream)
    }

    fn count_visits(&mut self, set: &[Sized]) {
        for unit in 0..self.visits.len() {
            let any = self.members_of(unit as u32).iter().any(|b| set.binary_search_by_key(b, |s| s.0).is_ok());
            self.visits[unit] += u64::from(any);
        }
    }

    /// A step begins: in which order its regions are summed.
    pub fn order_sums(&mut self) {
        if self.blocks_are_reordered {
            let set = self.pending.as_ref().unwrap_or(&self.current);
            self.summed.clear();
            self.summed.extend_from_slice(&set.regions);
            self.summed.sort_unstable_by_key(|r| self.blocks.rank(r.block));
        }
    }

    /// Before a step that would switch: which of its blocks start anew (A5.4, A6.5). Whether any stays.
    pub fn mark_fresh(&mut self) -> bool {
        let reset = self.config.across == crate::config::Across::Reset;
        let Some(pending) = &mut self.pending else { return false };
        for r in &mut pending.regions {
            r.fresh = reset || self.current.find(r.block).is_none();
        }
        pending.regions.iter().any(|r| !r.fresh)
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
