//! The contract between the engine and a backend. Written for backend authors; [`write_a_backend`](crate::write_a_backend)
//! goes through it step by step, with a complete toy backend.
//!
//! The engine decides what is active and checks everything; a backend does the arithmetic. What the engine keeps on the
//! device lies in an [`Arena`] of buffers that the backend allocates; tensors belong to the caller and are described by
//! two types of the backend's own, [`Backend::Param`] and [`Backend::Grad`].
//!
//! **A step**, in the order in which a backend sees it:
//!
//! 1. [`Backend::deliver`] for each gradient of each micro-batch, in any order within one: score, mask (where this step
//!    switches), gather, and the state-free update of what is not active. Each writes to places of its own, so the order
//!    changes no bit. Where all gradients of a micro-batch are at hand, [`Backend::deliver_all`].
//! 2. [`Backend::finish`]: `seal` decides on the device whether the step is skipped, `enter_scores` brings the table up
//!    to date; then, unless the step is skipped, moments are cleared or carried where it switches, and `update` moves
//!    the parameters.
//! 3. [`Backend::submit`].
//!
//! A step that updates each block as its gradient arrives ([`Config::immediate`](crate::Config)) calls for each gradient
//! `deliver`, then for an active block `seal` ([`Seal::Block`]), on a switch under `Carry` two `carry`, and `update`; at its
//! end `seal` ([`Seal::Counters`]) and `enter_scores`. Its moments' buffers change places between these calls. A pass that
//! only scores ([`Stage`](crate::Stage)) calls `deliver` or `deliver_all`, then `enter_scores` alone.
//!
//! A step may be dropped after any `deliver`, with no call that says so.
//!
//! Operations may run at the call or be recorded; recorded ones run in order, on the queue that the caller gave to the
//! backend. Handles ([`Backend::Param`], [`Backend::Grad`], buffers) are borrowed for the call only: a backend that
//! records keeps copies of its own handles, never of the elements. The caller frees or overwrites a gradient in queue
//! order, after the call.
//!
//! Whether a step is skipped is known on the device alone: every operation after `seal` reads [`flag::SKIP`] there and
//! does nothing where it is set. So a step that neither decides nor switches reads nothing back.
//!
//! **A switch** is the first applied step of a new set (A3.5, A5.2). Before it, the engine swaps in buffers for the new
//! set's masks; the old set's regions, masks and moments live on until the engine has read that the step was applied. It waits
//! for that one step's flags, as A5.2 allows: buffers can then be swapped and freed by the host, and no other step pays
//! for a pending mask.
//!
//! **May be assumed** by every operation: lengths, types and offsets were checked; regions of one set are disjoint, in
//! block order (not in the order of `at`), and inside the arena; every region but an idle one has k > 0; tensors have at
//! least one element, and the compute type of the arena is that of the blocks (A7.1). Runs of `gradient` are disjoint where
//! the whole set is packed ([`Region::gradient_at`]). `active`, `scored` and `wanted` may be empty: an empty set passes the
//! guard, and is counted.
//!
//! **Numbers** of [`Hyper`] and [`Region`] are the caller's f64; a kernel rounds each once to the compute type, where
//! A6.1 and A6.7 say ([`Coefficients`](crate::adam::Coefficients) does it).
//!
//! **What if it fails**: an error of any operation inside a step poisons the optimizer until a record is restored: the
//! device may be half updated. An operation that fails says so at its call or, where it was recorded, at a later one or at
//! `poll`; a lost device is an error and never reads as zeros. After an error the engine submits once more, so that what was
//! recorded runs before the caller puts the parameters right. A panic is a bug of the backend.

mod arena;
mod work;

pub use arena::{Arena, flag, norm};
pub use work::{Measure, Moment, Parameter, ScoredUnit, Seal, Switch, Wanted, Work};

use crate::adam::Hyper;
use crate::block::{BlockId, Blocks};
use crate::config::Config;
use crate::error::BackendError;
use crate::mask::MaskKind;
use crate::moments::Region;
use crate::tensor::{DType, Info, View, ViewMut};

/// Kernels and memory of one device. See the [module](self) for the order of calls, what may be assumed and what happens
/// on errors.
///
/// Required methods act on one buffer or one block. `deliver`, `deliver_all`, `finish`, `update_all` and `whole` have
/// defaults that loop over them and are what a fast backend overrides: threads over blocks, one launch over a block
/// table, gradients read in place. `prepare`, `scratch_bytes`, `submit` and `relax` have defaults for a device that
/// works at the call.
pub trait Backend {
    /// What its operations fail with.
    type Error: BackendError;
    /// A typed run of device memory, owned. Dropping it frees it, in queue order; the engine drops buffers and tickets
    /// before the backend.
    type Buffer;
    /// A readback on its way. Dropping it abandons the readback.
    type Ticket;
    /// The caller's parameter. A handle that is Copy or owned where operations are recorded.
    type Param<'a>;
    /// The caller's gradient.
    type Grad<'a>;

    // --- tensors ---

    /// Length, type and contiguity of a parameter, for the engine's checks. Asked of the backend: the orphan rule lets no
    /// adapter implement a trait of ours for a framework's tensor. Called often; touches no device.
    fn param_info(p: &Self::Param<'_>) -> Info;
    /// The same of a gradient.
    fn grad_info(g: &Self::Grad<'_>) -> Info;

    // --- memory ---

    /// Called once, before anything else, with the blocks as registered, frozen ones included (they may be thawed), and the
    /// configuration. A backend refuses here what its device cannot do and what it does not know (choices may be added
    /// later), and allocates scratch for the largest block, so that no step has to.
    ///
    /// # Errors
    /// A compute or element type that the device does not have; out of memory. The optimizer is then not made.
    fn prepare(&mut self, blocks: &Blocks, config: &Config) -> Result<(), Self::Error> {
        let _ = (blocks, config);
        Ok(())
    }
    /// Bytes of scratch that the backend holds on the device beside the arena, for
    /// [`MemoryReport::scratch`](crate::MemoryReport::scratch).
    fn scratch_bytes(&self) -> usize {
        0
    }
    /// A buffer of `len` zeros; the types are f32 or f64 (the compute type), u32, and f64 for tables. Called at
    /// construction, before a step that switches, where the arena grows, by a restore, and after a switch with `len` 0 for
    /// placeholders.
    ///
    /// # Errors
    /// Out of memory. Called between steps only, and everything is as before; but where a placeholder cannot be had the
    /// optimizer is poisoned.
    fn alloc(&mut self, dtype: DType, len: usize) -> Result<Self::Buffer, Self::Error>;
    /// Zeros in `len` elements from `at` on. For a thawed block and, inside a step, in `gradient` and `sums` for a missing
    /// gradient that counts as zero.
    ///
    /// # Errors
    /// The device's.
    fn zero(&mut self, buffer: &mut Self::Buffer, at: usize, len: usize) -> Result<(), Self::Error>;
    /// The first `len` elements of one buffer into another of its type. For an arena that grows. Here and in `write` and
    /// `read` `len` may be 0, also on a buffer of 0.
    ///
    /// # Errors
    /// The device's.
    fn copy(&mut self, from: &Self::Buffer, to: &mut Self::Buffer, len: usize) -> Result<(), Self::Error>;
    /// Host elements of the buffer's type, from element `at` on, after all operations before this call and before all
    /// after it. `from` may be freed when the call returns. For construction, restoring, thawing, and what a set loses of which
    /// every block tripped; not inside a step.
    ///
    /// # Errors
    /// The device's.
    fn write(&mut self, to: &mut Self::Buffer, at: usize, from: View<'_>) -> Result<(), Self::Error>;
    /// Asks for `len` elements from `at` on, as they are when all earlier operations have run. Later operations may
    /// change them, and the buffer may be dropped, before the ticket is polled. Called after a step that decides or
    /// switches, for reports and for records; `submit` follows before the first `poll`.
    ///
    /// # Errors
    /// The device's.
    fn read(&mut self, from: &Self::Buffer, at: usize, len: usize) -> Result<Self::Ticket, Self::Error>;
    /// Whether the elements have come; if so they are in `to` (as long as was asked for, of the buffer's type), and the
    /// ticket is not polled again. Never waits. Tickets may be polled in any order.
    ///
    /// # Errors
    /// The device's, also of recorded operations that failed; the ticket may then be polled again. A lost device is an error,
    /// never zeros.
    fn poll(&mut self, ticket: &mut Self::Ticket, to: ViewMut<'_>) -> Result<bool, Self::Error>;

    // --- one gradient ---

    /// The packed gradient's run of the region ([`Region::gradient`]): the active coordinates, in order, widened to the compute type, not
    /// scaled (A6.2). Copied where `add` is false, with zeros in what a short tile leaves over of the k elements (A4.5);
    /// added to what is there where it is true. Reads the region's mask in `masks`, where it is masked.
    ///
    /// # Errors
    /// The device's or the tensor's, as for every operation below.
    fn gather(&mut self, a: &mut Arena<Self::Buffer>, r: &Region, g: &Self::Grad<'_>, add: bool) -> Result<(), Self::Error>;
    /// The region's mask of the k largest |g|, with its prefix counts, into its words of `masks` (A4.4, A4.5; bit for
    /// bit as [`mask::build`](crate::mask::build) leaves them, whatever was there). On a step that switches, for regions
    /// that are masked, before the gather of the same gradient. Exact and on the device: no sort, no readback.
    ///
    /// # Errors
    /// As above.
    fn build_mask(
        &mut self, a: &mut Arena<Self::Buffer>, r: &Region, g: &Self::Grad<'_>, kind: MaskKind,
    ) -> Result<(), Self::Error>;
    /// `sums[block]` = the tree of A2.2 over f(g * inv_loss_scale), or over the processed gradient (A2.1), for which
    /// m, v, step count and powers are those before this step; t counts as one more, and `clip` and weight decay do not
    /// enter. An overflow to infinity or a NaN is a sum that is not finite, never an error.
    ///
    /// # Errors
    /// As above.
    fn score(
        &mut self, a: &mut Arena<Self::Buffer>, block: BlockId, g: &Self::Grad<'_>, h: &Hyper, measure: Measure<'_>,
    ) -> Result<(), Self::Error>;
    /// The sign step of what is not active of the region (A6.7): all of an idle one (k = 0, no mask), of a masked one
    /// what its mask leaves out. Adds the NaNs to [`flag::NANS`]: of what the sign is taken of, after L2 decay has entered
    /// (which it does not where it rounds to 0). Not stopped by `SKIP`. Called after `score`,
    /// `build_mask` and `gather` of the same gradient.
    ///
    /// # Errors
    /// As above.
    fn state_free(
        &mut self, a: &mut Arena<Self::Buffer>, r: &Region, g: &Self::Grad<'_>, p: &mut Self::Param<'_>, h: &Hyper,
    ) -> Result<(), Self::Error>;

    // --- after the last gradient ---

    /// Decides on the device whether the step is skipped, after the last gradient and before anything that moves an
    /// active coordinate or a moment.
    ///
    /// [`Seal::Step`] and [`Seal::Block`], over the packed gradients of `w.active` times inv_loss_scale:
    /// - [`flag::SKIP`]: 1 where one of them, or its square, is not finite in the compute type (A6.4), else 0;
    /// - unless skipped, for each region: its step count (1 where it is `fresh`, else one more) and its four powers (from
    ///   [`Powers::START`](crate::adam::Powers::START) where it is `fresh`).
    ///
    /// [`Seal::Step`] besides:
    /// - [`norm::NORM`] (the root of the blocks' trees added in index order) and [`norm::CLIP`] (`hyper.clip` over the norm
    ///   where the norm is larger, which a NaN is not, else 1; A6.3), both also where skipped;
    /// - where `w.switch` is set, [`flag::ZERO_MASKS`] plus the masked regions whose packed run, before it is scaled, is zero
    ///   everywhere (in a window, the sum), also where skipped.
    ///
    /// [`Seal::Block`] besides: [`flag::TRIPPED`] becomes 1 where skipped; where skipped and `w.switch` is set, the step
    /// count of each region is 0 and its powers are [`Powers::START`](crate::adam::Powers::START). [`Seal::Counters`] looks at no gradient:
    /// `SKIP` = `TRIPPED`, then `TRIPPED` = 0. [`Seal::Step`] and [`Seal::Counters`] count by `SKIP`: either `APPLIED`
    /// plus one and `STREAK` = 0, or `SKIPPED` and `STREAK` plus one, and `STREAK_ERRORS` plus one where the streak is now
    /// `w.guard_limit` or more.
    ///
    /// # Errors
    /// As above.
    fn seal(&mut self, a: &mut Arena<Self::Buffer>, w: &Work<'_>, part: Seal) -> Result<(), Self::Error>;
    /// For each unit of `w.scored`: the sums of its members added in index order from +0, and where that is finite, the
    /// unit's row of `table` = (sum, coordinates, step); where it is not, the row stays and [`flag::BAD_SCORES`] grows
    /// by one (A2.5). Skipped or not. On wgpu and its like the sum is within the bound of A2.3.
    ///
    /// # Errors
    /// As above.
    fn enter_scores(&mut self, a: &mut Arena<Self::Buffer>, w: &Work<'_>) -> Result<(), Self::Error>;
    /// Unless skipped: zeros in m and v of the region. On a step that switches under `Reset`.
    ///
    /// # Errors
    /// As above.
    fn clear(&mut self, a: &mut Arena<Self::Buffer>, r: &Region) -> Result<(), Self::Error>;
    /// Unless skipped: one moment of the region into its run of `spare`: for a coordinate that is active in `old` and in
    /// `new` what it was (from `m` or `v` at the old region's run), else zero; all zeros without `old` (A5.4). `old`'s mask
    /// lies in `old_masks`, `new`'s in `masks`. Old and new runs overlap in any way, so nothing may be moved in place; no
    /// other element of `spare` is touched.
    /// On a step that switches under `Carry`.
    ///
    /// # Errors
    /// As above.
    fn carry(
        &mut self, a: &mut Arena<Self::Buffer>, moment: Moment, old: Option<&Region>, new: &Region,
    ) -> Result<(), Self::Error>;
    /// Unless skipped: A6.1 on the region's active coordinates, with the powers as `seal` left them and the clip factor
    /// rounded to the compute type. `old` is given where coordinates that were not active in it enter a block with t > 0
    /// (A5.4). Inactive coordinates and other regions' runs keep their bits.
    ///
    /// # Errors
    /// As above.
    fn update(
        &mut self, a: &mut Arena<Self::Buffer>, r: &Region, old: Option<&Region>, p: &mut Self::Param<'_>, h: &Hyper,
    ) -> Result<(), Self::Error>;

    // --- what may be overridden for speed ---

    /// Everything that is done with one gradient before the step is sealed. `p` is given where the gradient moves a part
    /// of it.
    ///
    /// # Errors
    /// As above.
    fn deliver(
        &mut self, a: &mut Arena<Self::Buffer>, w: &Work<'_>, wanted: &Wanted, g: &Self::Grad<'_>,
        p: Option<&mut Self::Param<'_>>,
    ) -> Result<(), Self::Error> {
        if let Some(measure) = w.scores(wanted) {
            self.score(a, wanted.block, g, &w.hyper, measure)?;
        }
        if let Some(r) = w.masks(wanted) {
            self.build_mask(a, r, g, w.mask)?;
        }
        if let Some(r) = w.active(wanted) {
            self.gather(a, r, g, !w.first)?;
        }
        if let (Some(r), Some(p)) = (w.moves(wanted), p) {
            self.state_free(a, r, g, p, &w.hyper)?;
        }
        Ok(())
    }

    /// The same with every gradient of a micro-batch at hand. `grads` gives the same tensor for a block each time, and
    /// nothing for a probe that did not come, or for a block whose gradient counts as zero: its run and its sum are right
    /// already. `params` holds at least the parameters of the blocks that move, by block;
    /// it may be empty before the last micro-batch.
    ///
    /// # Errors
    /// As above.
    fn deliver_all<'g>(
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
        Ok(())
    }

    /// Everything after the last gradient. `params` holds at least the parameters of the active regions, by block.
    ///
    /// Under `Carry` the moments move through `spare`: the first into it, which is then `m`; the second into what was
    /// `m`. This happens skipped or not: the engine swaps back where it reads that the step was skipped, and frees what is
    /// left in `spare`.
    ///
    /// # Errors
    /// As above.
    fn finish(
        &mut self, a: &mut Arena<Self::Buffer>, w: &Work<'_>, params: &mut [Parameter<Self::Param<'_>>],
    ) -> Result<(), Self::Error> {
        self.seal(a, w, Seal::Step)?;
        self.enter_scores(a, w)?;
        match w.switch {
            None => {}
            Some(Switch::Reset) => w.active.iter().try_for_each(|r| self.clear(a, r))?,
            Some(Switch::Carry(_)) => {
                for moment in [Moment::First, Moment::Second] {
                    w.active.iter().try_for_each(|r| self.carry(a, moment, w.stays(r), r))?;
                    core::mem::swap(if moment == Moment::First { &mut a.m } else { &mut a.v }, &mut a.spare);
                }
            }
        }
        self.update_all(a, w, params)
    }

    /// The update of all active regions.
    ///
    /// # Errors
    /// As above.
    fn update_all(
        &mut self, a: &mut Arena<Self::Buffer>, w: &Work<'_>, params: &mut [Parameter<Self::Param<'_>>],
    ) -> Result<(), Self::Error> {
        let mut rest = params.iter_mut();
        for r in w.active {
            if let Some((_, p)) = rest.find(|(block, _)| *block == r.block) {
                self.update(a, r, w.stays(r), p, &w.hyper)?;
            }
        }
        Ok(())
    }

    /// The last micro-batch of a step and its end, with every gradient of it at hand.
    ///
    /// # Errors
    /// As above.
    fn whole<'g>(
        &mut self, a: &mut Arena<Self::Buffer>, w: &Work<'_>, grads: &dyn Fn(BlockId) -> Option<Self::Grad<'g>>,
        params: &mut [Parameter<Self::Param<'_>>],
    ) -> Result<(), Self::Error> {
        self.deliver_all(a, w, grads, params)?;
        self.finish(a, w, params)
    }

    // --- what a device with a queue overrides ---

    /// All that was recorded is on its way. Called once after each streamed gradient, once after the gradients of a
    /// micro-batch that came together, and once at the end of a step, its readbacks included: a whole step is one
    /// submission. Also after construction, thawing, restoring, and after what a report or a record asks for; it may find
    /// nothing recorded.
    ///
    /// # Errors
    /// The device's.
    fn submit(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
    /// What a blocking helper does between two polls: a hint to the processor, or leaving it to others for a while.
    fn relax(&mut self) {
        core::hint::spin_loop();
    }
}
