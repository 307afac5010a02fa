//! What is decided after the last gradient: guard, clip, step counts, counters.

use super::{count, powers, skipped};
use crate::buffers::{BATCH, Batch, HostArena, doubles_mut, words, words_mut};
use crate::kernels;
use crate::parallel::each;
use blockllm::BlockId;
use blockllm::adam::{Inspected, Powers};
use blockllm::backend::{Seal, Work, flag, norm};
use std::convert::Infallible;

/// Over the packed gradients of all regions: the sum of squares, whether the guard passes, how many masks came of zeros.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sealed {
    total: f64,
    passes: bool,
    zero_masks: u32,
}

const EMPTY: Inspected = Inspected { sum: 0.0, passes: true, all_zero: true };

/// Reads all packed gradients. Blocks are added in index order (A6.3), whichever thread had which.
pub(super) fn inspect(a: &HostArena, w: &Work<'_>, grain: usize) -> Sealed {
    let mut out = Sealed { total: 0.0, passes: true, zero_masks: 0 };
    for regions in w.summed.chunks(BATCH) {
        let mut jobs: Batch<_> = regions.iter().map(|r| (r, EMPTY)).collect();
        let Ok(()) = each::<_, Infallible>(&mut jobs, grain, &|(r, _)| r.k, &|(r, inspected)| {
            *inspected = kernels::inspect(a.gradient.view(r.gradient_at, r.k), w.hyper.inv_loss_scale, grain);
            Ok(())
        });
        for (r, inspected) in jobs {
            out.total += inspected.sum;
            out.passes &= inspected.passes;
            out.zero_masks += u32::from(w.switch.is_some() && r.masked() && inspected.all_zero);
        }
    }
    out
}

/// Guard and step counts, and for a whole step clip.
pub(super) fn decide(a: &mut HostArena, w: &Work<'_>, part: Seal, sealed: Sealed) {
    words_mut(&mut a.flags)[flag::SKIP] = u32::from(!sealed.passes);
    if sealed.passes {
        advance(a, w);
    } else if part == Seal::Block && w.switch.is_some() {
        w.summed.iter().for_each(|r| store(a, r.block, 0, &Powers::START));
    }
    if part == Seal::Step {
        clip(a, w, sealed.total);
        count(a, flag::ZERO_MASKS, sealed.zero_masks);
    }
}

/// A6.3.
fn clip(a: &mut HostArena, w: &Work<'_>, total: f64) {
    let (words, total_norm) = (doubles_mut(&mut a.norm), total.sqrt());
    words[norm::NORM] = total_norm;
    words[norm::CLIP] = match w.hyper.clip {
        Some(c) if total_norm > c => c / total_norm,
        _ => 1.0,
    };
}

/// t and the powers of beta go on.
fn advance(a: &mut HostArena, w: &Work<'_>) {
    for r in w.summed {
        let (t, mut p) = match r.fresh {
            true => (0, Powers::START),
            false => (words(&a.steps)[r.block as usize], powers(&a.powers, r.block)),
        };
        p.advance(w.hyper.betas);
        store(a, r.block, t + 1, &p);
    }
}

fn store(a: &mut HostArena, block: BlockId, t: u32, p: &Powers) {
    let block = block as usize;
    doubles_mut(&mut a.powers)[4 * block..][..4].copy_from_slice(&[p.before[0], p.before[1], p.now[0], p.now[1]]);
    words_mut(&mut a.steps)[block] = t;
}

/// A6.4.
pub(super) fn count_step(a: &mut HostArena, w: &Work<'_>, part: Seal) {
    let flags = words_mut(&mut a.flags);
    match part {
        Seal::Step => {}
        Seal::Block => flags[flag::TRIPPED] |= flags[flag::SKIP],
        Seal::Counters => flags[flag::SKIP] = std::mem::take(&mut flags[flag::TRIPPED]),
    }
    match (part, skipped(a)) {
        (Seal::Block, _) => {}
        (_, true) => {
            count(a, flag::SKIPPED, 1);
            count(a, flag::STREAK, 1);
            let streak = words_mut(&mut a.flags)[flag::STREAK];
            count(a, flag::STREAK_ERRORS, u32::from(streak >= w.guard_limit));
        }
        (_, false) => {
            words_mut(&mut a.flags)[flag::STREAK] = 0;
            count(a, flag::APPLIED, 1);
        }
    }
}
