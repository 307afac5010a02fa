//! How loops are split over threads: into parts of a fixed size, never into one part a thread, so that no bit depends
//! on the number of threads.

use rayon::prelude::*;

/// Elements in one part of a loop: 64 KiB of f32.
const PART: usize = 16 * 1024;

/// Elements that [`map2`] computes at a time. Long enough to make the choice of instruction set free, short enough for
/// the first cache.
const BLOCK: usize = 256;

/// Elements in a part made of whole rows of length `row`.
pub(super) fn whole_rows(row: usize) -> usize {
    (PART / row).max(1) * row
}

/// f(aᵢ, bᵢ) for all i, into memory that is not written twice. `f` must be `#[inline(always)]` to be vectorized.
pub(super) fn map2(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<BLOCK>(), b.as_chunks::<BLOCK>());
    let block = |a: &[f32], b: &[f32], y: &mut [f32]| {
        super::numeric::vectorized(
            #[inline(always)]
            || {
                for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
                    *y = f(*a, *b);
                }
            },
        );
    };
    // Room for the tail, which would else move the vector when it is added.
    let mut blocks: Vec<[f32; BLOCK]> = Vec::with_capacity(a.len() + 1);
    a.par_iter()
        .zip(b)
        .with_min_len(PART / BLOCK)
        .map(|(a, b)| {
            let mut y = [0.0; BLOCK];
            block(a, b, &mut y);
            y
        })
        .collect_into_vec(&mut blocks);
    let mut y = blocks.into_flattened();
    let whole = y.len();
    y.resize(whole + a_tail.len(), 0.0);
    block(a_tail, b_tail, &mut y[whole..]);
    y
}
