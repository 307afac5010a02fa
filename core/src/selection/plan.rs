//! What the next step asks for, and what it scores.

use super::{NONE, Selection, Stage};
use crate::backend::{ScoredUnit, Wanted};
use crate::block::BlockId;
use crate::moments::Region;
use crate::score::{self, ProbeOrder};
use alloc::vec::Vec;

impl Selection {
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
            let idle = |u: u32| self.ranges[u as usize].count > 0 && !self.is_wholly_chosen(u);
            let units = self.ranges.len() as u32;
            score::probes(order, self.probe_count(), units, &mut cursor, &mut stream, idle, &mut plan.probes);
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
        // The set comes first and is in order, and so, as a rule, is the rest: merging takes a fraction of a sort.
        let (set, rest) = plan.wanted.split_at_mut(plan.early.len());
        rest.sort_unstable_by_key(|w| w.block);
        merge(set, rest, &mut plan.merged);
        core::mem::swap(&mut plan.wanted, &mut plan.merged);
        for (i, w) in plan.wanted.iter().enumerate() {
            self.index[w.block as usize] = i as u32;
        }
        self.plan = plan;
    }

    /// The rest is moved by its gradient's sign (A6.7): on training steps.
    pub(super) fn moves_the_rest(&self) -> bool {
        self.stage == Stage::Training && self.config.sign_scale().is_some()
    }

    /// p of A2.6.
    pub(super) fn probe_count(&self) -> usize {
        self.config.probes_per_step.unwrap_or_else(|| self.trainable.div_ceil(self.config.patience))
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

    /// A step begins: in which order its regions are summed.
    pub fn order_sums(&mut self) {
        if self.blocks_are_reordered {
            let set = self.pending.as_ref().unwrap_or(&self.current);
            self.summed.clear();
            self.summed.extend_from_slice(&set.regions);
            self.summed.sort_unstable_by_key(|r| self.blocks.rank(r.block));
        }
    }
}

/// Two runs, each in order of blocks, as one.
fn merge(a: &[Wanted], mut b: &[Wanted], out: &mut Vec<Wanted>) {
    out.clear();
    out.reserve(a.len() + b.len());
    for w in a {
        let before = b.iter().take_while(|other| other.block < w.block).count();
        out.extend_from_slice(&b[..before]);
        out.push(*w);
        b = &b[before..];
    }
    out.extend_from_slice(b);
}
