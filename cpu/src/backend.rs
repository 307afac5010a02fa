//! The backend: one operation on one buffer or block at a time. Its submodules do many blocks at once.

mod deliver;
mod finish;
mod seal;

use crate::active::Active;
use crate::buffers::{HostArena, clear, doubles, doubles_mut, view, words, words_mut, zeros};
use crate::cpu::Cpu;
use crate::error::CpuError;
use crate::kernels::{self, Packed, Present};
use blockllm::adam::{Hyper, Powers};
use blockllm::backend::{Measure, Moment, Parameter, Seal, Wanted, Work, flag, norm};
use blockllm::block::Blocks;
use blockllm::moments::Region;
use blockllm::reference::HostBuffer;
use blockllm::score::ROW;
use blockllm::{Backend, BlockId, Config, DType, HostTensors, Info, MaskKind, View, ViewMut};

fn skipped(a: &HostArena) -> bool {
    words(&a.flags)[flag::SKIP] != 0
}

/// A diverged run counts billions of NaNs: counters stay at their largest value.
fn count(a: &mut HostArena, flag: usize, n: u32) {
    let word = &mut words_mut(&mut a.flags)[flag];
    *word = word.saturating_add(n);
}

fn powers(powers: &HostBuffer, block: BlockId) -> Powers {
    let p = &doubles(powers)[4 * block as usize..][..4];
    Powers { before: [p[0], p[1]], now: [p[2], p[3]] }
}

/// What the block of a processed score has in the set that last updated.
fn present<'a>(
    r: &Region, switching: bool, masks: [&'a HostBuffer; 2], m: &'a HostBuffer, v: &'a HostBuffer, p: &HostBuffer,
) -> Present<'a> {
    Present {
        active: Active::new(r, words(masks[usize::from(switching)])),
        m: m.view(r.at, r.k),
        v: v.view(r.at, r.k),
        powers: powers(p, r.block),
    }
}

impl<T: HostTensors> Backend for Cpu<T>
where
    T::Error: Send,
    for<'a> T::Param<'a>: Send,
    for<'a> T::Grad<'a>: Sync,
{
    type Error = CpuError<T::Error>;
    type Buffer = HostBuffer;
    type Ticket = HostBuffer;
    type Param<'a> = T::Param<'a>;
    type Grad<'a> = T::Grad<'a>;

    fn param_info(p: &T::Param<'_>) -> Info {
        T::param_info(p)
    }

    fn grad_info(g: &T::Grad<'_>) -> Info {
        T::grad_info(g)
    }

    fn prepare(&mut self, blocks: &Blocks, _: &Config) -> Result<(), Self::Error> {
        self.reserve(blocks.specs.iter().map(|s| s.len()).max().unwrap_or(0))
    }

    fn scratch_bytes(&self) -> usize {
        self.histograms.bytes()
    }

    fn alloc(&mut self, dtype: DType, len: usize) -> Result<HostBuffer, Self::Error> {
        self.counts.allocations += usize::from(len > 0);
        zeros(dtype, len).ok_or(CpuError::OutOfMemory { dtype, len })
    }

    fn zero(&mut self, buffer: &mut HostBuffer, at: usize, len: usize) -> Result<(), Self::Error> {
        clear(buffer.view_mut(at, len));
        Ok(())
    }

    fn copy(&mut self, from: &HostBuffer, to: &mut HostBuffer, len: usize) -> Result<(), Self::Error> {
        to.view_mut(0, len).copy_from(from.view(0, len));
        Ok(())
    }

    fn write(&mut self, to: &mut HostBuffer, at: usize, from: View<'_>) -> Result<(), Self::Error> {
        to.view_mut(at, from.len()).copy_from(from);
        Ok(())
    }

    fn read(&mut self, from: &HostBuffer, at: usize, len: usize) -> Result<HostBuffer, Self::Error> {
        self.counts.readbacks += 1;
        let mut out = self.alloc(from.dtype(), len)?;
        out.view_mut(0, len).copy_from(from.view(at, len));
        Ok(out)
    }

    fn poll(&mut self, ticket: &mut HostBuffer, to: ViewMut<'_>) -> Result<bool, Self::Error> {
        to.copy_from(view(ticket));
        Ok(true)
    }

    fn score(
        &mut self, a: &mut HostArena, block: BlockId, g: &T::Grad<'_>, h: &Hyper, measure: Measure<'_>,
    ) -> Result<(), Self::Error> {
        let sum = T::read(g, |g| self.run(g.len(), || deliver::Shared::new(self.grain, a).score(g, h, measure)));
        doubles_mut(&mut a.sums)[block as usize] = sum.map_err(CpuError::Tensor)?;
        Ok(())
    }

    fn build_mask(&mut self, a: &mut HostArena, r: &Region, g: &T::Grad<'_>, kind: MaskKind) -> Result<(), Self::Error> {
        self.reserve(r.n)?;
        let (compute, words) = (a.gradient.dtype(), &mut words_mut(&mut a.masks)[r.mask_words()]);
        let mut histograms = std::mem::take(&mut self.histograms);
        let done = T::read(g, |g| {
            self.run(r.n, || kernels::build_mask(g, compute, r.k, kind, words, &mut histograms, self.grain));
        });
        self.histograms = histograms;
        done.map_err(CpuError::Tensor)
    }

    fn gather(&mut self, a: &mut HostArena, r: &Region, g: &T::Grad<'_>, add: bool) -> Result<(), Self::Error> {
        let (active, packed) = (Active::new(r, words(&a.masks)), a.gradient.view_mut(r.gradient_at, r.k));
        T::read(g, |g| self.run(r.n, || kernels::gather(g, active, packed, add, self.grain))).map_err(CpuError::Tensor)
    }

    fn state_free(
        &mut self, a: &mut HostArena, r: &Region, g: &T::Grad<'_>, p: &mut T::Param<'_>, h: &Hyper,
    ) -> Result<(), Self::Error> {
        let active = Active::new(r, words(&a.masks));
        let nans = T::read(g, |g| T::modify(p, |p| self.run(r.n, || kernels::state_free(p, g, active, h, r.scales, self.grain))));
        count(a, flag::NANS, nans.and_then(|n| n).map_err(CpuError::Tensor)?);
        Ok(())
    }

    fn seal(&mut self, a: &mut HostArena, w: &Work<'_>, part: Seal) -> Result<(), Self::Error> {
        if part != Seal::Counters {
            let coordinates = w.active.iter().map(|r| r.k).sum();
            let inspected = self.run(coordinates, || seal::inspect(a, w, self.grain));
            seal::decide(a, w, part, inspected);
        }
        seal::count_step(a, w, part);
        Ok(())
    }

    fn enter_scores(&mut self, a: &mut HostArena, w: &Work<'_>) -> Result<(), Self::Error> {
        for s in w.scored {
            let members = &w.members[s.first as usize..][..s.count as usize];
            let total = members.iter().fold(0.0, |t, &b| t + doubles(&a.sums)[b as usize]);
            if total.is_finite() {
                let row = &mut doubles_mut(&mut a.table)[s.unit as usize * ROW..][..ROW];
                row.copy_from_slice(&[total, s.n as f64, w.step as f64]);
            } else {
                count(a, flag::BAD_SCORES, 1);
            }
        }
        Ok(())
    }

    fn clear(&mut self, a: &mut HostArena, r: &Region) -> Result<(), Self::Error> {
        if !skipped(a) {
            [&mut a.m, &mut a.v].into_iter().for_each(|b| clear(b.view_mut(r.at, r.k)));
        }
        Ok(())
    }

    fn carry(&mut self, a: &mut HostArena, moment: Moment, old: Option<&Region>, new: &Region) -> Result<(), Self::Error> {
        if skipped(a) {
            return Ok(());
        }
        let from = if moment == Moment::First { &a.m } else { &a.v };
        let (old_masks, masks, to) = (words(&a.old_masks), words(&a.masks), a.spare.view_mut(new.at, new.k));
        self.run(new.n, || finish::carry(from, old, old_masks, to, new, masks, self.grain));
        Ok(())
    }

    fn update(
        &mut self, a: &mut HostArena, r: &Region, old: Option<&Region>, p: &mut T::Param<'_>, h: &Hyper,
    ) -> Result<(), Self::Error> {
        if skipped(a) {
            return Ok(());
        }
        let (m, v) = (a.m.view_mut(r.at, r.k), a.v.view_mut(r.at, r.k));
        let packed = Packed { g: a.gradient.view(r.gradient_at, r.k), m, v };
        let active = Active::new(r, words(&a.masks));
        let old = old.map(|old| Active::new(old, words(&a.old_masks)));
        let (powers, clip) = (powers(&a.powers, r.block), doubles(&a.norm)[norm::CLIP]);
        T::modify(p, |p| self.run(r.n, || kernels::update(p, active, old, packed, h, r.scales, &powers, clip, self.grain)))
            .map_err(CpuError::Tensor)
    }

    // Many blocks at once: in the submodules.

    fn deliver_all<'g>(
        &mut self, a: &mut HostArena, w: &Work<'_>, grads: &dyn Fn(BlockId) -> Option<T::Grad<'g>>,
        params: &mut [Parameter<T::Param<'_>>],
    ) -> Result<(), Self::Error> {
        deliver::deliver_all(self, a, w, grads, params)
    }

    fn deliver(
        &mut self, a: &mut HostArena, w: &Work<'_>, wanted: &Wanted, g: &T::Grad<'_>, p: Option<&mut T::Param<'_>>,
    ) -> Result<(), Self::Error> {
        deliver::deliver(self, a, w, wanted, g, p)
    }

    fn finish(&mut self, a: &mut HostArena, w: &Work<'_>, params: &mut [Parameter<T::Param<'_>>]) -> Result<(), Self::Error> {
        self.seal(a, w, Seal::Step)?;
        self.enter_scores(a, w)?;
        finish::switch(self, a, w);
        self.update_all(a, w, params)
    }

    fn update_all(&mut self, a: &mut HostArena, w: &Work<'_>, params: &mut [Parameter<T::Param<'_>>]) -> Result<(), Self::Error> {
        finish::update_all(self, a, w, params)
    }
}
