//! The contract between the engine and a backend. Written for backend authors.
//!
//! The engine decides what is active and checks everything; a backend does the arithmetic. What the engine keeps on the
//! device lies in an [`Arena`] of buffers that the backend allocates; tensors belong to the caller and are described by
//! two types of the backend's own, [`Backend::Param`] and [`Backend::Grad`].
//!
//! **A step**, in the order in which a backend sees it:
//!
//! 1. [`Backend::deliver`] for each gradient, in any order: score, mask (where this step switches), gather, and the
//!    state-free update of what is not active. Each writes to places of its own, so the order changes no bit.
//! 2. [`Backend::finish`]: `seal` decides on the device whether the step is skipped; then, unless it is, moments are
//!    cleared or carried where the step switches, and `update` moves the parameters.
//!
//! Operations may run at the call or be recorded; recorded ones run in order. Whether a step is skipped is known on the
//! device alone: every operation after `seal` reads [`flag::SKIP`] and does nothing where it is set.
//!
//! **A switch** is the first applied step of a new set (A3.5, A5.2). Before it, the engine swaps in the new set's masks; the old
//! set's regions, masks and moments live on until the engine has read that the step was applied. It waits for that one
//! step's flags, as A5.2 allows: buffers can then be swapped and freed by the host, and no step pays for a pending mask.
//!
//! **May be assumed** by every operation: lengths, types and offsets were checked; regions of one set are disjoint, in
//! block order (not in the order of `at`), and inside the arena.

use crate::adam::Hyper;
use crate::block::BlockId;
use crate::error::BackendError;
use crate::mask::MaskKind;
use crate::moments::Region;
use crate::tensor::{DType, Info, View, ViewMut};

/// Words of [`Arena::flags`]. All but `SKIP` and `STREAK` only grow.
pub mod flag {
    /// 1 where the step being finished is skipped (A6.4).
    pub const SKIP: usize = 0;
    /// Steps skipped.
    pub const SKIPPED: usize = 1;
    /// Steps skipped in a row.
    pub const STREAK: usize = 2;
    /// Steps on which the streak was at its limit or above.
    pub const STREAK_ERRORS: usize = 3;
    /// Scores that were not finite and did not enter the table (A2.5).
    pub const BAD_SCORES: usize = 4;
    /// NaN gradients met by state-free updates (A6.7).
    pub const NANS: usize = 5;
    /// Masks built from a gradient that is zero everywhere (A4.4).
    pub const ZERO_MASKS: usize = 6;
    /// Steps applied.
    pub const APPLIED: usize = 7;
    /// Words in all.
    pub const LEN: usize = 8;
}

/// Words of [`Arena::norm`].
pub mod norm {
    /// Norm of the active gradients times inv_loss_scale (A6.3).
    pub const NORM: usize = 0;
    /// The factor that clips it, before it is rounded to the compute type.
    pub const CLIP: usize = 1;
    /// Words in all.
    pub const LEN: usize = 2;
}

/// Everything the engine keeps on the device. The engine lays it out and reads it for records; a backend keeps only
/// scratch and its queue. Generic over the buffer and not over the backend, so that a wrapper can delegate.
#[derive(Debug)]
pub struct Arena<T> {
    /// Packed gradients of the active coordinates, compute type, n_s.
    pub gradient: T,
    /// First moments, compute type, n_s.
    pub m: T,
    /// Second moments, compute type, n_s.
    pub v: T,
    /// Where `carry` writes, compute type; empty but for a step that switches under `Carry`.
    pub spare: T,
    /// Masks of the set of this step, u32.
    pub masks: T,
    /// Masks of the set before, u32; empty but for a step that switches.
    pub old_masks: T,
    /// f64 a block: this step's sums of squares.
    pub sums: T,
    /// f64 x [`score::ROW`](crate::score::ROW) a unit: the last finite score.
    pub table: T,
    /// u32 a block: t. Meaningful for the blocks of the set that last updated.
    pub steps: T,
    /// f64 x 4 a block: beta1^(t-1), beta2^(t-1), beta1^t, beta2^t.
    pub powers: T,
    /// u32 x [`flag::LEN`].
    pub flags: T,
    /// f64 x [`norm::LEN`].
    pub norm: T,
}

/// Which moment `carry` moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// From `m` to `spare`.
    First,
    /// From `v` to `spare`.
    Second,
}

/// How a step that switches treats the moments (A5.4).
#[derive(Clone, Copy, Debug)]
pub enum Switch<'a> {
    /// All start at zero.
    Reset,
    /// What stays is carried over from these regions of the set before.
    Carry(&'a [Region]),
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

/// A block whose gradient a step asks for, and what for.
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
    /// Its gradient has a part that is not active and moves as it arrives: the parameter comes with it.
    pub with_parameter: bool,
    /// Its gradient is scored on this step. Known once the step has begun.
    pub score: bool,
}

impl Wanted {
    /// Asked for its score alone: where it does not come, the unit keeps the score it had.
    pub fn only_probed(&self) -> bool {
        self.active.is_none() && self.idle.is_none()
    }
}

/// All that one step does.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// The step's number, from 1.
    pub step: u64,
    /// Its numbers.
    pub hyper: Hyper,
    /// How masks are built.
    pub mask: MaskKind,
    /// Gradients asked for, by block.
    pub wanted: &'a [Wanted],
    /// The set of this step.
    pub active: &'a [Region],
    /// Blocks that move without state; their k is 0.
    pub idle: &'a [Region],
    /// Units scored on this step.
    pub scored: &'a [ScoredUnit],
    /// Their blocks.
    pub members: &'a [BlockId],
    /// Set where this step would switch.
    pub switch: Option<Switch<'a>>,
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
        region.filter(|_| w.with_parameter)
    }
}

/// A parameter with its block. A step takes a slice of them, in ascending order of blocks; those of blocks that do not
/// move are not looked at and need not be there.
pub type Parameter<P> = (BlockId, P);

/// Kernels and memory of one device. See the [module](self) for the order of calls and what may be assumed.
///
/// Required operations act on one block. `deliver`, `finish`, `update_all` and `whole` have defaults that loop over
/// them and are what a fast backend overrides: threads over blocks, one launch over a block table, gradients read in
/// place.
pub trait Backend {
    /// What its operations fail with.
    type Error: BackendError;
    /// A typed run of device memory.
    type Buffer;
    /// A readback on its way.
    type Ticket;
    /// The caller's parameter. A handle that is Copy or owned where operations are recorded.
    type Param<'a>;
    /// The caller's gradient.
    type Grad<'a>;

    /// Length, type and contiguity. Asked of the backend: the orphan rule lets no adapter implement a trait of ours for
    /// a framework's tensor.
    fn param_info(p: &Self::Param<'_>) -> Info;
    /// Length, type and contiguity.
    fn grad_info(g: &Self::Grad<'_>) -> Info;

    /// `len` zeros.
    ///
    /// # Errors
    /// Out of memory.
    fn alloc(&mut self, dtype: DType, len: usize) -> Result<Self::Buffer, Self::Error>;
    /// Copies elements between two buffers of one type.
    ///
    /// # Errors
    /// The device's.
    fn copy(&mut self, from: &Self::Buffer, to: &mut Self::Buffer, len: usize) -> Result<(), Self::Error>;
    /// Writes host elements.
    ///
    /// # Errors
    /// The device's.
    fn write(&mut self, to: &mut Self::Buffer, at: usize, from: View<'_>) -> Result<(), Self::Error>;
    /// Asks for `len` elements as they are when all earlier operations have run.
    ///
    /// # Errors
    /// The device's.
    fn read(&mut self, from: &Self::Buffer, at: usize, len: usize) -> Result<Self::Ticket, Self::Error>;
    /// Whether the elements have come; if so they are in `to`, and the ticket is not polled again. Never waits. A lost device is an error, never zeros.
    ///
    /// # Errors
    /// The device's.
    fn poll(&mut self, ticket: &mut Self::Ticket, to: ViewMut<'_>) -> Result<bool, Self::Error>;

    /// `sums[block]` = the tree of A2.2 over f(g * inv_loss_scale).
    ///
    /// # Errors
    /// The device's or the tensor's, as for every operation below.
    fn score(
        &mut self, a: &mut Arena<Self::Buffer>, block: BlockId, g: &Self::Grad<'_>, inv_loss_scale: f64,
    ) -> Result<(), Self::Error>;
    /// The mask of the region's k largest |g|, with its prefix counts (A4.4, A4.5).
    ///
    /// # Errors
    /// As above.
    fn build_mask(
        &mut self, a: &mut Arena<Self::Buffer>, r: &Region, g: &Self::Grad<'_>, kind: MaskKind,
    ) -> Result<(), Self::Error>;
    /// The packed gradient's run of the region: the active coordinates, widened (A6.2). Not scaled.
    ///
    /// # Errors
    /// As above.
    fn gather(&mut self, a: &mut Arena<Self::Buffer>, r: &Region, g: &Self::Grad<'_>) -> Result<(), Self::Error>;
    /// The sign step of what is not active of the region (A6.7); counts NaNs. Not stopped by `SKIP`.
    ///
    /// # Errors
    /// As above.
    fn state_free(
        &mut self, a: &mut Arena<Self::Buffer>, r: &Region, g: &Self::Grad<'_>, p: &mut Self::Param<'_>, h: &Hyper,
    ) -> Result<(), Self::Error>;
    /// Guard and clip over the packed gradients of `w.active` (A6.3, A6.4); counters, which stay at their largest value;
    /// where the step switches, how many masks came of gradients that are all zero, as is then the packed run; unless skipped t and the powers of
    /// each region go on (from zero where it is `fresh`); scores that are finite enter the table (A2.5).
    ///
    /// # Errors
    /// As above.
    fn seal(&mut self, a: &mut Arena<Self::Buffer>, w: &Work<'_>) -> Result<(), Self::Error>;
    /// Unless skipped: zeros in m and v of the region.
    ///
    /// # Errors
    /// As above.
    fn clear(&mut self, a: &mut Arena<Self::Buffer>, r: &Region) -> Result<(), Self::Error>;
    /// Unless skipped: one moment of the region into `spare`, from the old region of the same block or from zero.
    ///
    /// # Errors
    /// As above.
    fn carry(
        &mut self, a: &mut Arena<Self::Buffer>, moment: Moment, old: Option<&Region>, new: &Region,
    ) -> Result<(), Self::Error>;
    /// Unless skipped: A6.1 on the region's active coordinates. `old` is given where its coordinates that were not
    /// active before enter (A5.4).
    ///
    /// # Errors
    /// As above.
    fn update(
        &mut self, a: &mut Arena<Self::Buffer>, r: &Region, old: Option<&Region>, p: &mut Self::Param<'_>, h: &Hyper,
    ) -> Result<(), Self::Error>;

    /// Everything that is done with one gradient before the step is sealed.
    ///
    /// # Errors
    /// As above.
    fn deliver(
        &mut self, a: &mut Arena<Self::Buffer>, w: &Work<'_>, wanted: &Wanted, g: &Self::Grad<'_>,
        p: Option<&mut Self::Param<'_>>,
    ) -> Result<(), Self::Error> {
        if wanted.score {
            self.score(a, wanted.block, g, w.hyper.inv_loss_scale)?;
        }
        if let Some(r) = w.active(wanted) {
            if w.switch.is_some() && r.masked() {
                self.build_mask(a, r, g, w.mask)?;
            }
            self.gather(a, r, g)?;
        }
        if let (Some(r), Some(p)) = (w.moves(wanted), p) {
            self.state_free(a, r, g, p, &w.hyper)?;
        }
        Ok(())
    }

    /// Everything after the last gradient.
    ///
    /// Under `Carry` the moments move through `spare`: the first into it, which is then `m`; the second into what was
    /// `m`. The engine swaps back where it reads that the step was skipped, and frees what is left in `spare`.
    ///
    /// # Errors
    /// As above.
    fn finish(
        &mut self, a: &mut Arena<Self::Buffer>, w: &Work<'_>, params: &mut [Parameter<Self::Param<'_>>],
    ) -> Result<(), Self::Error> {
        self.seal(a, w)?;
        match w.switch {
            None => {}
            Some(Switch::Reset) => w.active.iter().try_for_each(|r| self.clear(a, r))?,
            Some(Switch::Carry(old)) => {
                for moment in [Moment::First, Moment::Second] {
                    w.active.iter().try_for_each(|r| self.carry(a, moment, stays(old, r), r))?;
                    core::mem::swap(if moment == Moment::First { &mut a.m } else { &mut a.v }, &mut a.spare);
                }
            }
        }
        self.update_all(a, w, params)
    }

    /// The update of all active regions. `params` holds at least theirs, by block.
    ///
    /// # Errors
    /// As above.
    fn update_all(
        &mut self, a: &mut Arena<Self::Buffer>, w: &Work<'_>, params: &mut [Parameter<Self::Param<'_>>],
    ) -> Result<(), Self::Error> {
        let mut rest = params.iter_mut();
        for r in w.active {
            let old = match w.switch {
                Some(Switch::Carry(old)) => stays(old, r),
                _ => None,
            };
            if let Some((_, p)) = rest.find(|(block, _)| *block == r.block) {
                self.update(a, r, old, p, &w.hyper)?;
            }
        }
        Ok(())
    }

    /// A step with every gradient at hand. `grads` gives the same tensor for a block each time.
    ///
    /// # Errors
    /// As above.
    fn whole<'g>(
        &mut self, a: &mut Arena<Self::Buffer>, w: &Work<'_>, grads: &dyn Fn(BlockId) -> Option<Self::Grad<'g>>,
        params: &mut [Parameter<Self::Param<'_>>],
    ) -> Result<(), Self::Error> {
        let mut rest = params.iter_mut();
        for wanted in w.wanted {
            let p = if wanted.with_parameter { rest.find(|(block, _)| *block == wanted.block).map(|(_, p)| p) } else { None };
            if let Some(g) = grads(wanted.block) {
                self.deliver(a, w, wanted, &g, p)?;
            }
        }
        self.finish(a, w, params)
    }

    /// All that was recorded is on its way: called after each streamed gradient and at the end of a step.
    ///
    /// # Errors
    /// As above.
    fn submit(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// The old region of a block that stays: it was in the set before and keeps its t.
fn stays<'a>(old: &'a [Region], new: &Region) -> Option<&'a Region> {
    if new.fresh {
        return None;
    }
    old.binary_search_by_key(&new.block, |r| r.block).ok().map(|i| &old[i])
}
