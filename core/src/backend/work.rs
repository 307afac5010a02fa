//! What a step asks of a backend.

use crate::adam::Hyper;
use crate::block::BlockId;
use crate::mask::MaskKind;
use crate::moments::Region;

/// Which moment `carry` moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// From `m` to `spare`.
    First,
    /// From `v` to `spare`.
    Second,
}

/// What `seal` closes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seal {
    /// The whole step: guard and clip over all active regions, counters, step counts.
    Step,
    /// One block of a step that updates each block as its gradient arrives (A6.5, immediate streaming): guard and step
    /// count of the regions given, no clip, no counters but [`flag::TRIPPED`](super::flag::TRIPPED). One that trips while
    /// the step switches enters as new: its step count is 0 again.
    Block,
    /// The counters of such a step, from `TRIPPED`, which is cleared.
    Counters,
}

/// How a step that switches treats the moments (A5.4).
#[derive(Clone, Copy, Debug)]
pub enum Switch<'a> {
    /// All start at zero.
    Reset,
    /// What stays is carried over from these regions of the set before.
    Carry(&'a [Region]),
}

/// Of what a score is the norm (A2.1).
#[derive(Clone, Copy, Debug)]
pub enum Measure<'a> {
    /// The gradient.
    Gradient,
    /// The gradient as Adam would process it: m̂/(sqrt(v̂)+eps), with the moments as they are before this step.
    Processed {
        /// The block's region in the set that last updated, where it is in it.
        present: Option<&'a Region>,
        /// Its mask lies in `old_masks`: this step switches. Otherwise in `masks`.
        switching: bool,
    },
}

/// A unit to be scored on this step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScoredUnit {
    /// Its row in the table.
    pub unit: u32,
    /// Its trainable blocks are `members[first..first + count]` of the [`Work`], in index order.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// Their coordinates.
    pub n: usize,
}

/// A block whose gradient a micro-batch asks for, and what for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// The block.
    pub block: BlockId,
    /// Its place among the step's active regions.
    pub active: Option<u32>,
    /// Its place among the step's idle regions: it is moved without state (A6.7).
    pub idle: Option<u32>,
    /// Its unit is probed: asked for the score alone, or beside it (A2.6).
    pub probe: bool,
    /// Its gradient moves it, or a part of it, as it arrives: the parameter comes with it.
    pub with_parameter: bool,
    /// Its gradient is scored on this step. Known once the last micro-batch has begun.
    pub score: bool,
}

impl Wanted {
    /// Of this block, for nothing yet.
    pub const fn new(block: BlockId) -> Self {
        Self { block, active: None, idle: None, probe: false, with_parameter: false, score: false }
    }

    /// Asked for its score alone: where it does not come, the unit keeps the score it had.
    pub fn only_probed(&self) -> bool {
        self.active.is_none() && self.idle.is_none()
    }
}

/// All that one micro-batch of a step does; a step without accumulation is one micro-batch, the first and the last.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// The step's number, from 1; 0 in a pass that only scores, before the first.
    pub step: u64,
    /// Its numbers.
    pub hyper: Hyper,
    /// How masks are built.
    pub mask: MaskKind,
    /// The first micro-batch of the window: masks are built from it, and it starts the packed sums (A6.2).
    pub first: bool,
    /// The last one: it is scored and moves what is not active (A2.4, A6.7).
    pub last: bool,
    /// Gradients asked for, by block.
    pub wanted: &'a [Wanted],
    /// The set of this step.
    pub active: &'a [Region],
    /// The same regions in the order in which `seal` adds their sums up: by block, but where a record was restored that had
    /// been saved with its blocks in another order.
    pub summed: &'a [Region],
    /// Blocks that move without state; their k is 0.
    pub idle: &'a [Region],
    /// Units scored on this step. Final in `finish` and `enter_scores`: a probe may not have come.
    pub scored: &'a [ScoredUnit],
    /// Their blocks.
    pub members: &'a [BlockId],
    /// Set where this step would switch.
    pub switch: Option<Switch<'a>>,
    /// Scores are of the processed gradient, for which these are the regions of the set that last updated.
    pub processed: Option<&'a [Region]>,
    /// Skipped steps in a row that count as an error.
    pub guard_limit: u32,
}

impl<'a> Work<'a> {
    /// The active region of a wanted block.
    pub fn active(&self, w: &Wanted) -> Option<&'a Region> {
        w.active.map(|i| &self.active[i as usize])
    }

    /// The region whose inactive coordinates move as the gradient arrives.
    pub fn moves(&self, w: &Wanted) -> Option<&'a Region> {
        let region = w.idle.map(|i| &self.idle[i as usize]).or_else(|| self.active(w));
        region.filter(|r| r.masked() && self.last && self.hyper.sign_scale.is_some())
    }

    /// The region whose mask is built from this gradient.
    pub fn masks(&self, w: &Wanted) -> Option<&'a Region> {
        self.active(w).filter(|r| self.first && self.switch.is_some() && r.masked())
    }

    /// Of what this gradient is to be scored, if it is.
    pub fn scores(&self, w: &Wanted) -> Option<Measure<'a>> {
        let measure = match self.processed {
            None => Measure::Gradient,
            Some(set) => Measure::Processed { present: find(set, w.block), switching: self.switch.is_some() },
        };
        (w.score && self.last).then_some(measure)
    }

    /// The old region of an active block that stays: it was in the set before and keeps its t (A5.4).
    pub fn stays(&self, new: &Region) -> Option<&'a Region> {
        match self.switch {
            Some(Switch::Carry(old)) if !new.fresh => find(old, new.block),
            _ => None,
        }
    }
}

fn find(set: &[Region], block: BlockId) -> Option<&Region> {
    set.binary_search_by_key(&block, |r| r.block).ok().map(|i| &set[i])
}

/// A parameter with its block. A step takes a slice of them, in ascending order of blocks; those of blocks that do not
/// move are not looked at and need not be there.
pub type Parameter<P> = (BlockId, P);
