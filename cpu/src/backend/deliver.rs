//! All that is done with gradients before the step is sealed, for many of them at once.
//!
//! Masks are built one block after another, each on all threads: they share one scratch. Then a block's gradient is read
//! once: scored, gathered, and its parameter moved; blocks side by side, large ones in parts.

use super::{count, present};
use crate::active::Active;
use crate::buffers::{BATCH, Batch, HostArena, disjoint, doubles_mut, packed_runs, words};
use crate::cpu::Cpu;
use crate::error::CpuError;
use crate::kernels;
use crate::parallel::each;
use blockllm::adam::Hyper;
use blockllm::backend::{Measure, Parameter, Wanted, Work, flag};
use blockllm::reference::HostBuffer;
use blockllm::{Backend, BlockId, DType, HostTensors, View, ViewMut};

/// What every block's work reads.
pub(super) struct Shared<'a> {
    grain: usize,
    compute: DType,
    masks: [&'a HostBuffer; 2],
    m: &'a HostBuffer,
    v: &'a HostBuffer,
    powers: &'a HostBuffer,
}

impl<'a> Shared<'a> {
    pub fn new(grain: usize, a: &'a HostArena) -> Self {
        let masks = [&a.masks, &a.old_masks];
        Self { grain, compute: a.gradient.dtype(), masks, m: &a.m, v: &a.v, powers: &a.powers }
    }

    pub fn score(&self, g: View<'_>, h: &Hyper, measure: Measure<'_>) -> f64 {
        match measure {
            Measure::Processed { present: r, switching } => {
                let present = r.map(|r| present(r, switching, self.masks, self.m, self.v, self.powers));
                kernels::score_processed(g, self.compute, h, present, self.grain)
            }
            Measure::Gradient => kernels::score(g, self.compute, h.inv_loss_scale, self.grain),
        }
    }
}

/// A gradient that has come, with the parameter that it moves.
struct Delivered<'x, G, P> {
    wanted: &'x Wanted,
    g: &'x G,
    p: Option<&'x mut P>,
}

/// The same, with what it writes in the arena.
struct Job<'x, G, P> {
    delivered: Delivered<'x, G, P>,
    packed: ViewMut<'x>,
    sum: &'x mut [f64],
    nans: u32,
}

pub(super) fn deliver_all<'g, T: HostTensors>(
    cpu: &mut Cpu<T>, a: &mut HostArena, w: &Work<'_>, grads: &dyn Fn(BlockId) -> Option<T::Grad<'g>>,
    params: &mut [Parameter<T::Param<'_>>],
) -> Result<(), CpuError<T::Error>>
where
    T::Error: Send,
    for<'a> T::Param<'a>: Send,
    for<'a> T::Grad<'a>: Sync,
{
    let mut rest = params.iter_mut();
    for wanted in w.wanted.chunks(BATCH) {
        let came: Batch<_> = wanted.iter().filter_map(|wanted| Some((wanted, grads(wanted.block)?))).collect();
        let mut delivered = Batch::new();
        for (wanted, g) in &came {
            let p = if wanted.with_parameter { rest.find(|(block, _)| *block == wanted.block).map(|(_, p)| p) } else { None };
            delivered.push(Delivered { wanted, g, p });
        }
        deliver_batch(cpu, a, w, delivered)?;
    }
    Ok(())
}

pub(super) fn deliver<T: HostTensors>(
    cpu: &mut Cpu<T>, a: &mut HostArena, w: &Work<'_>, wanted: &Wanted, g: &T::Grad<'_>, p: Option<&mut T::Param<'_>>,
) -> Result<(), CpuError<T::Error>>
where
    T::Error: Send,
    for<'a> T::Param<'a>: Send,
    for<'a> T::Grad<'a>: Sync,
{
    deliver_batch(cpu, a, w, [Delivered { wanted, g, p }].into_iter().collect())
}

fn deliver_batch<'g, 'p, T: HostTensors>(
    cpu: &mut Cpu<T>, a: &mut HostArena, w: &Work<'_>, batch: Batch<Delivered<'_, T::Grad<'g>, T::Param<'p>>>,
) -> Result<(), CpuError<T::Error>>
where
    T::Error: Send,
    for<'a> T::Param<'a>: Send,
    for<'a> T::Grad<'a>: Sync,
{
    for d in &batch {
        if let Some(r) = w.masks(d.wanted) {
            cpu.build_mask(a, r, d.g, w.mask)?;
        }
    }
    let packed: Batch<_> = batch.iter().map(|d| w.active(d.wanted).map_or(0..0, |r| r.gradient())).collect();
    let sum = |wanted: &Wanted| if w.scores(wanted).is_some() { wanted.block as usize..wanted.block as usize + 1 } else { 0..0 };
    let sums: Batch<_> = batch.iter().map(|d| sum(d.wanted)).collect();
    let HostArena { gradient, sums: scores, m, v, masks, old_masks, powers, .. } = a;
    let shared = Shared { grain: cpu.grain, compute: gradient.dtype(), masks: [masks, old_masks], m, v, powers };
    let runs = packed_runs(gradient, &packed).into_iter().zip(disjoint(doubles_mut(scores), &sums));
    let mut jobs: Batch<_> =
        batch.into_iter().zip(runs).map(|(delivered, (packed, sum))| Job { delivered, packed, sum, nans: 0 }).collect();

    let weight = |job: &Job<'_, T::Grad<'g>, T::Param<'p>>| T::grad_info(job.delivered.g).len;
    let coordinates = jobs.iter().map(weight).sum();
    cpu.run(coordinates, || each(&mut jobs, cpu.grain, &weight, &|job| work::<T>(job, &shared, w))).map_err(CpuError::Tensor)?;
    let nans = jobs.iter().fold(0, |sum: u32, job| sum.saturating_add(job.nans));
    drop(jobs);
    count(a, flag::NANS, nans);
    Ok(())
}

/// Everything but the mask of one gradient.
fn work<'g, 'p, T: HostTensors>(
    job: &mut Job<'_, T::Grad<'g>, T::Param<'p>>, shared: &Shared<'_>, w: &Work<'_>,
) -> Result<(), T::Error> {
    let Delivered { wanted, g, p } = &mut job.delivered;
    let masks = words(shared.masks[0]);
    let moved = T::read(g, |g| {
        if let Some(measure) = w.scores(wanted) {
            job.sum[0] = shared.score(g, &w.hyper, measure);
        }
        if let Some(r) = w.active(wanted) {
            kernels::gather(g, Active::new(r, masks), job.packed.reborrow(), !w.first, shared.grain);
        }
        match (w.moves(wanted), p) {
            (Some(r), Some(p)) => {
                let active = Active::new(r, masks);
                T::modify(p, |p| kernels::state_free(p, g, active, &w.hyper, r.scales, shared.grain))
            }
            _ => Ok(0),
        }
    });
    job.nans = moved??;
    Ok(())
}
