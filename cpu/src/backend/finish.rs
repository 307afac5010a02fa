//! All that is done after the step is sealed, for many blocks at once: large ones in parts, small ones side by side.

use super::{powers, skipped};
use crate::active::Active;
use crate::buffers::{BATCH, Batch, HostArena, clear, doubles, packed_runs, words};
use crate::cpu::Cpu;
use crate::error::CpuError;
use crate::kernels::{self, Packed};
use crate::parallel::each;
use blockllm::backend::{Moment, Parameter, Switch, Work, norm};
use blockllm::moments::Region;
use blockllm::reference::HostBuffer;
use blockllm::{HostTensors, View, ViewMut};
use std::convert::Infallible;
use std::mem::swap;

/// The moments of a step that switches (A5.4).
pub(super) fn switch<T: HostTensors>(cpu: &Cpu<T>, a: &mut HostArena, w: &Work<'_>) {
    match w.switch {
        None => {}
        Some(Switch::Reset) => clear_all(cpu, a, w),
        Some(Switch::Carry(_)) => {
            for moment in [Moment::First, Moment::Second] {
                carry_all(cpu, a, w, moment);
                // Also where the step is skipped: the engine swaps back.
                swap(if moment == Moment::First { &mut a.m } else { &mut a.v }, &mut a.spare);
            }
        }
    }
}

fn packed(regions: &[Region]) -> Batch<std::ops::Range<usize>> {
    regions.iter().map(Region::packed).collect()
}

fn clear_all<T: HostTensors>(cpu: &Cpu<T>, a: &mut HostArena, w: &Work<'_>) {
    if skipped(a) {
        return;
    }
    for regions in w.active.chunks(BATCH) {
        for buffer in [&mut a.m, &mut a.v] {
            let mut runs = packed_runs(buffer, &packed(regions));
            let weight = |run: &ViewMut<'_>| run.as_view().len();
            let Ok(()) = cpu.run(runs.iter().map(weight).sum(), || {
                each::<_, Infallible>(&mut runs, cpu.grain, &weight, &|run| {
                    clear(run.reborrow());
                    Ok(())
                })
            });
        }
    }
}

fn carry_all<T: HostTensors>(cpu: &Cpu<T>, a: &mut HostArena, w: &Work<'_>, moment: Moment) {
    if skipped(a) {
        return;
    }
    let from = if moment == Moment::First { &a.m } else { &a.v };
    let (old_masks, masks) = (words(&a.old_masks), words(&a.masks));
    for regions in w.active.chunks(BATCH) {
        let mut jobs: Batch<_> = regions.iter().zip(packed_runs(&mut a.spare, &packed(regions))).collect();
        let Ok(()) = cpu.run(regions.iter().map(|r| r.n).sum(), || {
            each::<_, Infallible>(&mut jobs, cpu.grain, &|(r, _)| r.n, &|(r, to)| {
                carry(from, w.stays(r), old_masks, to.reborrow(), r, masks, cpu.grain);
                Ok(())
            })
        });
    }
}

/// One moment of one block.
pub(super) fn carry(
    from: &HostBuffer, old: Option<&Region>, old_masks: &[u32], to: ViewMut<'_>, new: &Region, masks: &[u32], grain: usize,
) {
    match old {
        None => clear(to),
        Some(old) => {
            let (run, active) = (from.view(old.at, old.k), Active::new(old, old_masks));
            kernels::carry(run, active, to, Active::new(new, masks), grain);
        }
    }
}

/// One block's update.
struct Job<'x, P> {
    r: &'x Region,
    p: &'x mut P,
    g: View<'x>,
    m: ViewMut<'x>,
    v: ViewMut<'x>,
}

pub(super) fn update_all<T: HostTensors>(
    cpu: &Cpu<T>, a: &mut HostArena, w: &Work<'_>, params: &mut [Parameter<T::Param<'_>>],
) -> Result<(), CpuError<T::Error>>
where
    T::Error: Send,
    for<'a> T::Param<'a>: Send,
{
    if skipped(a) {
        return Ok(());
    }
    let mut rest = params.iter_mut();
    let (masks, old_masks, clip) = (words(&a.masks), words(&a.old_masks), doubles(&a.norm)[norm::CLIP]);
    for regions in w.active.chunks(BATCH) {
        let runs = packed(regions);
        let moments = packed_runs(&mut a.m, &runs).into_iter().zip(packed_runs(&mut a.v, &runs));
        let mut jobs = Batch::new();
        for (r, (m, v)) in regions.iter().zip(moments) {
            if let Some((_, p)) = rest.find(|(block, _)| *block == r.block) {
                jobs.push(Job { r, p, g: a.gradient.view(r.gradient_at, r.k), m, v });
            }
        }
        let update = |job: &mut Job<'_, T::Param<'_>>| {
            let (r, active) = (job.r, Active::new(job.r, masks));
            let old = w.stays(r).map(|old| Active::new(old, old_masks));
            let packed = Packed { g: job.g, m: job.m.reborrow(), v: job.v.reborrow() };
            let powers = powers(&a.powers, r.block);
            T::modify(job.p, |p| kernels::update(p, active, old, packed, &w.hyper, r.scales, &powers, clip, cpu.grain))
        };
        let coordinates = jobs.iter().map(|job| job.r.n).sum();
        cpu.run(coordinates, || each(&mut jobs, cpu.grain, &|job| job.r.n, &update)).map_err(CpuError::Tensor)?;
    }
    Ok(())
}
