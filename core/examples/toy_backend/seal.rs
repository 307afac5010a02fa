//! What `seal` runs on the device: nobody on the host knows yet whether the step is skipped.

use super::backend::{count, powers};
use super::device::{Address, Memory};
use blockllm::adam::{self, Powers};
use blockllm::backend::{Arena, Seal, flag, norm};
use blockllm::moments::Region;

/// Guard: sets `SKIP`. Returns the sum of squares of all packed gradients, and how many masked runs are zero everywhere.
pub fn inspect(memory: &Memory, a: &Arena<Address>, regions: &[Region], inv_loss_scale: f64) -> (f64, u32) {
    let (packed, mut total, mut passes, mut zero_masks) = (memory.f32s(a.gradient), 0.0, true, 0);
    for r in regions {
        let run = adam::inspect(&packed[r.gradient()], inv_loss_scale);
        total += run.sum; // in block order, whatever the order of the runs in the buffer
        passes &= run.passes;
        zero_masks += u32::from(r.masked() && run.all_zero);
    }
    memory.u32s(a.flags)[flag::SKIP] = u32::from(!passes);
    (total, zero_masks)
}

/// Step counts and powers: one more where the step is applied; where it is skipped as they were, or those of a block that
/// has never been updated.
pub fn advance(memory: &Memory, a: &Arena<Address>, regions: &[Region], betas: [f64; 2], starts_anew: bool) {
    let skipped = memory.u32s(a.flags)[flag::SKIP] != 0;
    if skipped && !starts_anew {
        return;
    }
    for r in regions {
        let block = r.block as usize;
        let (mut t, mut p) = (memory.u32s(a.steps)[block], powers(memory, a, r.block));
        if r.fresh || skipped {
            (t, p) = (0, Powers::START);
        }
        if !skipped {
            t += 1;
            p.advance(betas);
        }
        memory.u32s(a.steps)[block] = t;
        memory.f64s(a.powers)[4 * block..][..4].copy_from_slice(&[p.before, p.now].concat());
    }
}

/// Norm and clip factor, of a skipped step too.
pub fn clip(memory: &Memory, a: &Arena<Address>, (total, zero_masks): (f64, u32), largest: Option<f64>, switches: bool) {
    let length = total.sqrt();
    // A NaN is not larger.
    let factor = largest.filter(|c| length > *c).map_or(1.0, |c| c / length);
    let mut norms = memory.f64s(a.norm);
    (norms[norm::NORM], norms[norm::CLIP]) = (length, factor);
    count(&mut memory.u32s(a.flags), flag::ZERO_MASKS, if switches { zero_masks } else { 0 });
}

/// The counters, by `SKIP`.
pub fn count_step(flags: &mut [u32], part: Seal, guard_limit: u32) {
    match part {
        Seal::Step => {}
        Seal::Block => {
            flags[flag::TRIPPED] |= flags[flag::SKIP];
            return;
        }
        Seal::Counters => flags[flag::SKIP] = std::mem::take(&mut flags[flag::TRIPPED]),
    }
    if flags[flag::SKIP] == 0 {
        flags[flag::STREAK] = 0;
        count(flags, flag::APPLIED, 1);
    } else {
        count(flags, flag::SKIPPED, 1);
        count(flags, flag::STREAK, 1);
        let is_error = flags[flag::STREAK] >= guard_limit;
        count(flags, flag::STREAK_ERRORS, u32::from(is_error));
    }
}
