//! What the engine keeps on the device.

/// Words of [`Arena::flags`]. All but `SKIP`, `STREAK` and `TRIPPED` only grow, and stay at their largest value.
pub mod flag {
    /// 1 where what was sealed last is skipped (A6.4).
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
    /// 1 where a block of the open step was skipped by itself ([`Seal::Block`](crate::backend::Seal)); 0 between steps.
    pub const TRIPPED: usize = 8;
    /// Words in all.
    pub const LEN: usize = 9;
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
///
/// `sums`, `table`, `powers` and `norm` are f64 also where the compute type is f32. A device without f64 keeps them as it
/// likes: what was written is read back to the bit, and powers are exact (A6.1).
///
/// The engine moves buffers between the fields (the moments of a switch, its masks); a backend that records operations
/// takes the handles at the call.
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
    /// Masks of the set of this step, u32: for each masked region a bitmap and its prefix counts, as
    /// [`mask::words`](crate::mask::words) lays them out.
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

impl<T> Arena<T> {
    /// The same of each buffer: handles for what is recorded, say.
    pub fn map<U>(&self, mut f: impl FnMut(&T) -> U) -> Arena<U> {
        Arena {
            gradient: f(&self.gradient),
            m: f(&self.m),
            v: f(&self.v),
            spare: f(&self.spare),
            masks: f(&self.masks),
            old_masks: f(&self.old_masks),
            sums: f(&self.sums),
            table: f(&self.table),
            steps: f(&self.steps),
            powers: f(&self.powers),
            flags: f(&self.flags),
            norm: f(&self.norm),
        }
    }
}
