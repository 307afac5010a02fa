//! Save and restore.

mod restore;
mod save;

pub use save::Saving;

use crate::selection::Selection;
use alloc::format;
use alloc::string::String;

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
    pub const LEN: usize = 16;
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
    pub const LEN: usize = 7;
}

/// A unit's name: its group's, or its block's.
fn unit_name(s: &Selection, unit: u32) -> &str {
    let spec = s.blocks.spec(s.blocks.units[unit as usize].blocks[0]);
    spec.group.as_deref().unwrap_or(&spec.name)
}

fn name_hash(name: &str) -> u64 {
    crate::record::fnv1a(name.bytes())
}

/// The configuration as the leaf `config` holds it.
fn config_text(s: &Selection) -> String {
    let c = &s.config;
    format!(
        "policy = {:?}\nsparsity = {:?}\npatience = {:?}\nseed = {:?}\nscore = {:?}\nprobe_order = {:?}\n\
         probes_per_step = {:?}\nvisit_bias = {:?}\nfill = {:?}\nmask = {:?}\nacross = {:?}\ninactive = {:?}\n\
         decay = {:?}\nbetas = {:?}\neps = {:?}\nweight_decay = {:?}\nclip = {:?}\nguard_limit = {:?}\nmoments = {}\n",
        c.policy,
        c.sparsity,
        c.patience,
        c.seed,
        c.score,
        c.probe_order,
        c.probes_per_step,
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
        s.blocks.compute,
    )
}
