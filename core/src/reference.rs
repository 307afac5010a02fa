//! The reference backend: scalar, one block at a time, line for line the algorithm. It is the oracle that other backends
//! are held to and is never optimised. It works over any [`HostTensors`].

mod buffer;

pub use buffer::HostBuffer;

use crate::adam::{self, Coefficients, Hyper, Packed, Powers};
use crate::backend::{Arena, Backend, Measure, Moment, Seal, Work, flag, norm};
use crate::block::BlockId;

use crate::error::{BackendError, ErrorKind};
use crate::mask::{self, MaskKind};
use crate::moments::{self, Region};
use crate::score::ROW;
use crate::state_free;
use crate::tensor::{DType, HostTensors, Info, Slices, View, ViewMut};
use buffer::Words;
use core::fmt::{self, Debug, Display};
use core::marker::PhantomData;
use num_traits::Float;

/// The reference backend over tensors that the host can reach.
pub struct Reference<T: HostTensors = Slices>(PhantomData<fn() -> T>);

impl<T: HostTensors> Default for Reference<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: HostTensors> Debug for Reference<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reference")
    }
}

/// A failed access to the caller's tensor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostError<E>(pub E);

impl<E: Display> Display for HostError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(&self.0, f)
    }
}

impl<E: Debug + Display> BackendError for HostError<E> {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Tensor
    }
}

type HostArena = Arena<HostBuffer>;

/// Runs `$e` with the gradient's elements and the compute type; other pairs were refused by the driver (A7.1).
macro_rules! with_gradient {
    ($a:expr, $view:expr, |$g:ident, $F:ident| $e:expr) => {{
        macro_rules! run {
            ($s:expr, $t:ty) => {{
                type $F = $t;
                let $g = $s;
                $e
            }};
        }
        match ($a.gradient.dtype(), $view) {
            (DType::F64, View::F64(s)) => run!(s, f64),
            (DType::F64, View::F32(s)) => run!(s, f64),
            (_, View::F32(s)) => run!(s, f32),
            (_, View::F16(s)) => run!(s, f32),
            (_, View::Bf16(s)) => run!(s, f32),
            (compute, view) => unreachable!("a gradient of type {} beside {compute}", view.dtype()),
        }
    }};
}

/// The same for a parameter.
macro_rules! with_parameter {
    ($view:expr, |$p:ident, $F:ident| $e:expr) => {{
        macro_rules! run {
            ($s:expr, $t:ty) => {{
                type $F = $t;
                let $p = $s;
                $e
            }};
        }
        match $view {
            ViewMut::F64(s) => run!(s, f64),
            ViewMut::F32(s) => run!(s, f32),
            ViewMut::F16(s) => run!(s, f32),
            ViewMut::Bf16(s) => run!(s, f32),
            view => unreachable!("a parameter of type {}", view.as_view().dtype()),
        }
    }};
}

impl<T: HostTensors> Backend for Reference<T> {
    type Error = HostError<T::Error>;
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

    fn alloc(&mut self, dtype: DType, len: usize) -> Result<HostBuffer, Self::Error> {
        Ok(HostBuffer::zeros(dtype, len))
    }

    fn zero(&mut self, buffer: &mut HostBuffer, at: usize, len: usize) -> Result<(), Self::Error> {
        buffer.zero(at..at + len);
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
        let mut out = HostBuffer::zeros(from.dtype(), len);
        out.view_mut(0, len).copy_from(from.view(at, len));
        Ok(out)
    }

    fn poll(&mut self, ticket: &mut HostBuffer, to: ViewMut<'_>) -> Result<bool, Self::Error> {
        to.copy_from(ticket.view(0, ticket.len()));
        Ok(true)
    }

    fn score(
        &mut self, a: &mut HostArena, block: BlockId, g: &T::Grad<'_>, h: &Hyper, measure: Measure<'_>,
    ) -> Result<(), Self::Error> {
        let sum = T::read(g, |view| match measure {
            Measure::Gradient => with_gradient!(a, view, |g, F| adam::score::<_, F>(g, h.inv_loss_scale)),
            Measure::Processed { present, switching } => {
                let masks = u32::words(if switching { &a.old_masks } else { &a.masks });
                with_gradient!(a, view, |g, F| {
                    let moments = |r: &Region| [&a.m, &a.v].map(|x| &F::words(x)[r.packed()]);
                    adam::score_processed(g, h, present.map(|r| (r.mask(masks), moments(r), powers(a, block))))
                })
            }
        });
        f64::words_mut(&mut a.sums)[block as usize] = sum.map_err(HostError)?;
        Ok(())
    }

    fn build_mask(&mut self, a: &mut HostArena, r: &Region, g: &T::Grad<'_>, kind: MaskKind) -> Result<(), Self::Error> {
        T::read(g, |view| {
            with_gradient!(a, view, |g, F| mask::build::<_, F>(g, r.k, kind, &mut u32::words_mut(&mut a.masks)[r.mask_words()]))
        })
        .map_err(HostError)
    }

    fn gather(&mut self, a: &mut HostArena, r: &Region, g: &T::Grad<'_>, add: bool) -> Result<(), Self::Error> {
        let mask = r.mask(u32::words(&a.masks));
        T::read(g, |view| {
            with_gradient!(a, view, |g, F| {
                let packed = &mut F::words_mut(&mut a.gradient)[r.gradient()];
                if add { adam::gather_add(g, mask, packed) } else { adam::gather(g, mask, packed) }
            })
        })
        .map_err(HostError)
    }

    fn state_free(
        &mut self, a: &mut HostArena, r: &Region, g: &T::Grad<'_>, p: &mut T::Param<'_>, h: &Hyper,
    ) -> Result<(), Self::Error> {
        let mask = (r.k > 0).then(|| r.mask(u32::words(&a.masks)));
        let is_active = |i: usize| mask.is_some_and(|m| m.contains(i));
        let nans = T::read(g, |g| T::modify(p, |p| sign_step(p, g, &is_active, h, r.scales)));
        count(a, flag::NANS, nans.and_then(|n| n).map_err(HostError)?);
        Ok(())
    }

    fn seal(&mut self, a: &mut HostArena, w: &Work<'_>, part: Seal) -> Result<(), Self::Error> {
        if part != Seal::Counters {
            let (total, passes, zero_masks) = inspect(a, w);
            u32::words_mut(&mut a.flags)[flag::SKIP] = u32::from(!passes);
            if passes {
                advance(a, w);
            } else if part == Seal::Block && w.switch.is_some() {
                w.summed.iter().for_each(|r| store(a, r.block, 0, Powers::START));
            }
            if part == Seal::Step {
                clip(a, w, total);
                count(a, flag::ZERO_MASKS, zero_masks);
            }
        }
        let flags = u32::words_mut(&mut a.flags);
        match part {
            Seal::Step => {}
            Seal::Block => flags[flag::TRIPPED] |= flags[flag::SKIP],
            Seal::Counters => flags[flag::SKIP] = core::mem::take(&mut flags[flag::TRIPPED]),
        }
        if part != Seal::Block {
            count_step(a, w.guard_limit);
        }
        Ok(())
    }

    fn enter_scores(&mut self, a: &mut HostArena, w: &Work<'_>) -> Result<(), Self::Error> {
        for s in w.scored {
            let members = &w.members[s.first as usize..(s.first + s.count) as usize];
            let total = members.iter().fold(0.0, |t, &b| t + f64::words(&a.sums)[b as usize]);
            if total.is_finite() {
                let row = &mut f64::words_mut(&mut a.table)[s.unit as usize * ROW..][..ROW];
                row.copy_from_slice(&[total, s.n as f64, w.step as f64]);
            } else {
                count(a, flag::BAD_SCORES, 1);
            }
        }
        Ok(())
    }

    fn clear(&mut self, a: &mut HostArena, r: &Region) -> Result<(), Self::Error> {
        if !skipped(a) {
            for buffer in [&mut a.m, &mut a.v] {
                buffer.zero(r.packed());
            }
        }
        Ok(())
    }

    fn carry(&mut self, a: &mut HostArena, moment: Moment, old: Option<&Region>, new: &Region) -> Result<(), Self::Error> {
        if skipped(a) {
            return Ok(());
        }
        let from = if moment == Moment::First { &a.m } else { &a.v };
        let Some(old) = old else {
            a.spare.zero(new.packed());
            return Ok(());
        };
        let (old_mask, new_mask) = (old.mask(u32::words(&a.old_masks)), new.mask(u32::words(&a.masks)));
        match &mut a.spare {
            HostBuffer::F64(to) => moments::carry(&f64::words(from)[old.packed()], old_mask, &mut to[new.packed()], new_mask),
            to => moments::carry(&f32::words(from)[old.packed()], old_mask, &mut f32::words_mut(to)[new.packed()], new_mask),
        }
        Ok(())
    }

    fn update(
        &mut self, a: &mut HostArena, r: &Region, old: Option<&Region>, p: &mut T::Param<'_>, h: &Hyper,
    ) -> Result<(), Self::Error> {
        if skipped(a) {
            return Ok(());
        }
        let (powers, clip) = (powers(a, r.block), f64::words(&a.norm)[norm::CLIP]);
        let mask = r.mask(u32::words(&a.masks));
        let old = old.map(|o| o.mask(u32::words(&a.old_masks)));
        T::modify(p, |param| {
            with_parameter!(param, |p, F| {
                let c = Coefficients::<F>::new(h, r.scales, &powers, clip);
                let packed = Packed {
                    g: &F::words(&a.gradient)[r.gradient()],
                    m: &mut F::words_mut(&mut a.m)[r.packed()],
                    v: &mut F::words_mut(&mut a.v)[r.packed()],
                };
                adam::update(p, mask, old, packed, &c);
            })
        })
        .map_err(HostError)
    }
}

/// The pairs of element types that A7.1 allows.
fn sign_step(p: ViewMut<'_>, g: View<'_>, is_active: &dyn Fn(usize) -> bool, h: &Hyper, scales: adam::Scales) -> u32 {
    match (p, g) {
        (ViewMut::F32(p), View::F32(g)) => state_free::update::<_, _, f32>(p, g, is_active, h, scales),
        (ViewMut::F16(p), View::F16(g)) => state_free::update::<_, _, f32>(p, g, is_active, h, scales),
        (ViewMut::F16(p), View::F32(g)) => state_free::update::<_, _, f32>(p, g, is_active, h, scales),
        (ViewMut::Bf16(p), View::Bf16(g)) => state_free::update::<_, _, f32>(p, g, is_active, h, scales),
        (ViewMut::Bf16(p), View::F32(g)) => state_free::update::<_, _, f32>(p, g, is_active, h, scales),
        (ViewMut::F64(p), View::F64(g)) => state_free::update::<_, _, f64>(p, g, is_active, h, scales),
        (ViewMut::F64(p), View::F32(g)) => state_free::update::<_, _, f64>(p, g, is_active, h, scales),
        (p, g) => unreachable!("a gradient of type {} for a parameter of type {}", g.dtype(), p.as_view().dtype()),
    }
}

fn skipped(a: &HostArena) -> bool {
    u32::words(&a.flags)[flag::SKIP] != 0
}

/// A diverged run counts billions of NaNs: counters stay at their largest value.
fn count(a: &mut HostArena, flag: usize, n: u32) {
    let word = &mut u32::words_mut(&mut a.flags)[flag];
    *word = word.saturating_add(n);
}

fn powers(a: &HostArena, block: BlockId) -> Powers {
    let p = &f64::words(&a.powers)[4 * block as usize..];
    Powers { before: [p[0], p[1]], now: [p[2], p[3]] }
}

/// Over the packed gradients of all regions: the sum of squares, whether the guard passes, how many masks came of zeros.
fn inspect(a: &HostArena, w: &Work<'_>) -> (f64, bool, u32) {
    let (mut total, mut passes, mut zero_masks) = (0.0, true, 0);
    for r in w.summed {
        let packed = match &a.gradient {
            HostBuffer::F64(g) => adam::inspect(&g[r.gradient()], w.hyper.inv_loss_scale),
            g => adam::inspect(&f32::words(g)[r.gradient()], w.hyper.inv_loss_scale),
        };
        total += packed.sum;
        passes &= packed.passes;
        zero_masks += u32::from(w.switch.is_some() && r.masked() && packed.all_zero);
    }
    (total, passes, zero_masks)
}

/// A6.3.
fn clip(a: &mut HostArena, w: &Work<'_>, total: f64) {
    let (words, total_norm) = (f64::words_mut(&mut a.norm), Float::sqrt(total));
    words[norm::NORM] = total_norm;
    words[norm::CLIP] = match w.hyper.clip {
        Some(c) if total_norm > c => c / total_norm,
        _ => 1.0,
    };
}

/// A6.4: on a device, one thread does this.
fn count_step(a: &mut HostArena, guard_limit: u32) {
    if skipped(a) {
        count(a, flag::SKIPPED, 1);
        count(a, flag::STREAK, 1);
        let streak = u32::words(&a.flags)[flag::STREAK];
        count(a, flag::STREAK_ERRORS, u32::from(streak >= guard_limit));
    } else {
        u32::words_mut(&mut a.flags)[flag::STREAK] = 0;
        count(a, flag::APPLIED, 1);
    }
}

/// t and the powers of beta go on.
fn advance(a: &mut HostArena, w: &Work<'_>) {
    for r in w.summed {
        let (t, mut p) = match r.fresh {
            true => (0, Powers::START),
            false => (u32::words(&a.steps)[r.block as usize], powers(a, r.block)),
        };
        p.advance(w.hyper.betas);
        store(a, r.block, t + 1, p);
    }
}

fn store(a: &mut HostArena, block: BlockId, t: u32, p: Powers) {
    let block = block as usize;
    f64::words_mut(&mut a.powers)[4 * block..4 * block + 4].copy_from_slice(&[p.before[0], p.before[1], p.now[0], p.now[1]]);
    u32::words_mut(&mut a.steps)[block] = t;
}
