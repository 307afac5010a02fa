//! Save and restore.

mod read;
mod restore;
mod save;
mod whole_runs;
mod window;

pub use save::Saving;
pub(super) use whole_runs::whole_runs;

use super::LastStep;
use crate::block::BlockSpec;
use crate::fill::Sized;
use crate::patience::LossEntry;
use crate::selection::{Decision, Reason, Selection, Stage};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Words of `block/NAME`.
mod word {
    pub const ROWS: usize = 0;
    pub const COLUMNS: usize = 1;
    pub const DTYPE: usize = 2;
    pub const FROZEN: usize = 3;
    /// k in the set that last updated; 0 where it is not in it.
    pub const CURRENT: usize = 4;
    /// k in the pending set.
    pub const PENDING: usize = 5;
    pub const STEPS: usize = 6;
    pub const POWERS: usize = 7;
    pub const UNIT: usize = 11;
    pub const VISITS: usize = 12;
    pub const TABLE: usize = 13;
    /// Active coordinates in the last step.
    pub const LAST: usize = 16;
    pub const ALWAYS_ACTIVE: usize = 17;
    pub const LR_SCALE: usize = 18;
    pub const WEIGHT_DECAY_SCALE: usize = 19;
    /// 0 without a layer, else one more.
    pub const LAYER: usize = 20;
    /// 0 without a category, else its hash.
    pub const CATEGORY: usize = 21;
    /// In an open step: its gradient of the present micro-batch has come; and its sum of squares, where it is scored.
    pub const ARRIVED: usize = 22;
    pub const SUM: usize = 23;
    /// Its place among the blocks, and its unit's number.
    pub const RANK: usize = 24;
    pub const UNIT_NUMBER: usize = 25;
    pub const LEN: usize = 26;
}

/// Words of `host`.
mod host {
    pub const STEP: usize = 0;
    pub const DECISIONS: usize = 1;
    pub const DRAWS: usize = 2;
    pub const LOSSES: usize = 3;
    pub const FORCED: usize = 4;
    pub const PENDING: usize = 5;
    pub const BUDGET: usize = 6;
    /// What the last step came to, for its report.
    pub const LAST: usize = 7;
    /// Draws of the policy so far.
    pub const DRAWN: usize = 14;
    /// 0 training, 1 full gradient, 2 scan; and the scan's steps so far.
    pub const STAGE: usize = 15;
    pub const SCANNED: usize = 16;
    /// Coordinates of the larger of its sets: more than the budget where blocks were removed since they were decided.
    pub const LIMIT: usize = 17;
    pub const LEN: usize = 18;
}

/// A block's layer and category as words.
fn place_words(spec: &BlockSpec) -> [u64; 2] {
    [spec.layer.map_or(0, |l| u64::from(l) + 1), spec.category.as_deref().map_or(0, name_hash)]
}

/// The last step's outcome as words: loss, reason, decision with its two numbers, switched, stage.
fn outcome_words(l: &LastStep) -> [u64; host::DRAWN - host::LAST] {
    let loss = match l.loss {
        LossEntry::None => 0,
        LossEntry::Entered => 1,
        LossEntry::NotFinite => 2,
        LossEntry::Ignored => 3,
    };
    let reason = match l.reason {
        None => 0,
        Some(Reason::LossRule) => 1,
        Some(Reason::Period) => 2,
        Some(Reason::Forced) => 3,
        Some(Reason::First) => 4,
    };
    let decision = match l.decision {
        None => [0; 3],
        Some(Decision::Switch) => [1, 0, 0],
        Some(Decision::Keep) => [2, 0, 0],
        Some(Decision::Void { units, first }) => [3, units as u64, u64::from(first)],
    };
    [loss, reason, decision[0], decision[1], decision[2], u64::from(l.switched), stage_word(l.stage)]
}

/// The way back; words that mean nothing are read as "nothing happened".
fn outcome(words: &[u64], active: Vec<Sized>) -> LastStep {
    LastStep {
        active,
        loss: match words[0] {
            1 => LossEntry::Entered,
            2 => LossEntry::NotFinite,
            3 => LossEntry::Ignored,
            _ => LossEntry::None,
        },
        reason: match words[1] {
            1 => Some(Reason::LossRule),
            2 => Some(Reason::Period),
            3 => Some(Reason::Forced),
            4 => Some(Reason::First),
            _ => None,
        },
        decision: match words[2] {
            1 => Some(Decision::Switch),
            2 => Some(Decision::Keep),
            3 => Some(Decision::Void { units: words[3] as usize, first: words[4] as u32 }),
            _ => None,
        },
        switched: words[5] != 0,
        stage: stage(words[6]).unwrap_or_default(),
    }
}

fn stage_word(stage: Stage) -> u64 {
    match stage {
        Stage::Training => 0,
        Stage::FullGradient => 1,
        Stage::Scan => 2,
    }
}

fn stage(word: u64) -> Option<Stage> {
    [Stage::Training, Stage::FullGradient, Stage::Scan].get(usize::try_from(word).ok()?).copied()
}

fn name_hash(name: &str) -> u64 {
    crate::record::fnv1a(name.bytes())
}

/// The configuration as the leaf `config` holds it.
fn config_text(s: &Selection) -> String {
    let c = &s.config;
    format!(
        "policy = {:?}\nsparsity = {:?}\npatience = {:?}\nseed = {:?}\nscore = {:?}\nprobe_order = {:?}\n\
         probes_per_step = {:?}\nfirst = {:?}\nvisit_bias = {:?}\nfill = {:?}\nmask = {:?}\nacross = {:?}\ninactive = {:?}\n\
         decay = {:?}\nbetas = {:?}\neps = {:?}\nweight_decay = {:?}\nclip = {:?}\nguard_limit = {:?}\nmissing = {:?}\nimmediate = {:?}\nmoments = {}\n",
        c.policy,
        c.sparsity,
        c.patience,
        c.seed,
        c.score,
        c.probe_order,
        c.probes_per_step,
        c.first,
        c.visit_bias,
        c.fill,
        c.mask,
        c.across,
        c.inactive,
        c.decay,
        c.betas,
        c.eps,
        c.weight_decay,
        c.clip,
        c.guard_limit,
        c.missing,
        c.immediate,
        s.blocks.compute,
    )
}
