//! The mask of the k largest |g| (A4.4, A4.5), exactly: a radix select over histograms of |g|'s bits, from the top.
//!
//! The block is cut into strips, each with a histogram of its own, and read once for every digit and once to write. Of
//! what equals the k-th largest, each strip is told how many it may take: the first ones, by index.

use crate::compute::{Compute, Stored, with_gradient};
use crate::parallel::each;
use arrayvec::ArrayVec;
use blockllm::mask::{PREFIX, bit_words};
use blockllm::{DType, MaskKind, View};
use std::convert::Infallible;

/// Bits of a digit: three digits for f32, six for f64.
const DIGIT: u32 = 11;
const BINS: usize = 1 << DIGIT;
/// Strips of a block at most; also strips of a hundred threads would be more than memory can feed.
const STRIPS: usize = 32;

/// Scratch: a histogram for each strip of the largest block.
#[derive(Default)]
pub(crate) struct Histograms(Vec<u32>);

impl Histograms {
    /// Makes room for a block of `n` coordinates; whether it had to be allocated.
    ///
    /// # Errors
    /// How many elements could not be had.
    pub fn reserve(&mut self, n: usize, grain: usize) -> Result<bool, usize> {
        let len = STRIPS.min(n.div_ceil(grain)) * BINS;
        if len <= self.0.len() {
            return Ok(false);
        }
        self.0.try_reserve_exact(len - self.0.len()).map_err(|_| len)?;
        self.0.resize(len, 0);
        Ok(true)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.0[..])
    }
}

/// A run of a block: whole tiles, whole words of the bitmap, whole prefix counts.
struct Strip<'a, E> {
    g: &'a [E],
    bits: &'a mut [u32],
    counts: &'a mut [u32],
    histogram: &'a mut [u32],
    /// Of the items that equal the k-th largest: how many may be taken.
    ties: usize,
    /// Coordinates taken.
    taken: usize,
}

/// What is known of the k-th largest key: its bits from `shift` on.
#[derive(Clone, Copy)]
struct Known {
    prefix: u64,
    shift: u32,
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Coordinates of a strip: as many whole tiles and prefix counts as make about the 32nd part of a block, or the grain.
/// A tile with a large odd factor makes longer and fewer strips.
fn strip_len(n: usize, tile: usize, grain: usize) -> usize {
    let aligned = tile / gcd(tile, PREFIX) * PREFIX;
    n.div_ceil(STRIPS).max(grain).next_multiple_of(aligned)
}

/// Writes the mask of `k` active coordinates of `g`, whose compute type this is, into its words, whatever was there.
///
/// # Panics
/// Where `histograms` has no room for the block.
pub(crate) fn build_mask(
    g: View<'_>, compute: DType, k: usize, kind: MaskKind, words: &mut [u32], histograms: &mut Histograms, grain: usize,
) {
    let tile = match kind {
        MaskKind::Coordinate => 1,
        MaskKind::Tile(tile) => tile,
        other => unreachable!("a mask of kind {other:?}"),
    };
    if k < tile {
        words.fill(0);
        return;
    }
    with_gradient!(compute, g, |g, F| select::<_, F>(g, k / tile, tile, words, &mut histograms.0, grain));
}

fn select<E: Stored<F>, F: Compute>(g: &[E], items: usize, tile: usize, words: &mut [u32], histograms: &mut [u32], grain: usize) {
    let len = strip_len(g.len(), tile, grain);
    let (bits, counts) = words.split_at_mut(bit_words(g.len()));
    let parts = g.chunks(len).zip(bits.chunks_mut(len / 32)).zip(counts.chunks_mut(len / PREFIX));
    let strip = |(((g, bits), counts), histogram)| Strip { g, bits, counts, histogram, ties: 0, taken: 0 };
    let mut strips: ArrayVec<Strip<'_, E>, STRIPS> = parts.zip(histograms.chunks_exact_mut(BINS)).map(strip).collect();
    assert_eq!(strips.len(), g.len().div_ceil(len), "a histogram for each strip");

    let (known, mut room) = find::<E, F>(&mut strips, items, tile, grain);
    for s in &mut strips {
        s.ties = s.ties.min(room);
        room -= s.ties;
    }
    in_parallel(&mut strips, grain, &|s| write::<E, F>(s, tile, known));
    let mut before = 0;
    for s in &mut strips {
        s.counts.iter_mut().for_each(|count| *count += before);
        before += s.taken as u32;
    }
}

fn in_parallel<E: Sync>(strips: &mut [Strip<'_, E>], grain: usize, kernel: &(impl Fn(&mut Strip<'_, E>) + Sync)) {
    let Ok(()) = each::<_, Infallible>(strips, grain, &|s| s.g.len(), &|s| {
        kernel(s);
        Ok(())
    });
}

/// The largest bits of the key of rank `items`, down to where it is told from all keys below it; and how many items that
/// have them there is room for. Leaves in each strip's `ties` how many it has.
fn find<E: Stored<F>, F: Compute>(strips: &mut [Strip<'_, E>], items: usize, tile: usize, grain: usize) -> (Known, usize) {
    let (mut known, mut room) = (Known { prefix: 0, shift: F::MAGNITUDE_BITS }, items);
    while known.shift > 0 {
        let width = DIGIT.min(known.shift);
        in_parallel(strips, grain, &|s| count::<E, F>(s, tile, known, width));
        let mut total = [0usize; BINS];
        for s in strips.iter() {
            total.iter_mut().zip(s.histogram.iter()).for_each(|(t, h)| *t += *h as usize);
        }
        let mut digit = (1 << width) - 1;
        while total[digit] < room {
            room -= total[digit];
            digit -= 1;
        }
        known = Known { prefix: known.prefix << width | digit as u64, shift: known.shift - width };
        strips.iter_mut().for_each(|s| s.ties = s.histogram[digit] as usize);
        if total[digit] == room {
            break;
        }
    }
    (known, room)
}

/// The key of each item of a strip: |g|, or the largest |g| of a tile.
fn keys<E: Stored<F>, F: Compute>(g: &[E], tile: usize, mut f: impl FnMut(usize, u64)) {
    if tile == 1 {
        g.iter().enumerate().for_each(|(i, x)| f(i, x.widen().magnitude()));
    } else {
        let largest = |tile: &[E]| tile.iter().map(|x| x.widen().magnitude()).fold(0, u64::max);
        g.chunks(tile).enumerate().for_each(|(i, tile)| f(i, largest(tile)));
    }
}

/// The histogram of the next digit of what has the known prefix.
fn count<E: Stored<F>, F: Compute>(s: &mut Strip<'_, E>, tile: usize, known: Known, width: u32) {
    s.histogram.fill(0);
    keys::<E, F>(s.g, tile, |_, key| {
        if key >> known.shift == known.prefix {
            s.histogram[(key >> (known.shift - width)) as usize & (BINS - 1) & ((1 << width) - 1)] += 1;
        }
    });
}

/// The strip's bits, and prefix counts that begin at 0.
fn write<E: Stored<F>, F: Compute>(s: &mut Strip<'_, E>, tile: usize, known: Known) {
    s.bits.fill(0);
    let (n, mut ties) = (s.g.len(), s.ties);
    keys::<E, F>(s.g, tile, |i, key| {
        let top = key >> known.shift;
        let tie = top == known.prefix && ties > 0;
        ties -= usize::from(tie);
        if tie || top > known.prefix {
            (i * tile..n.min((i + 1) * tile)).for_each(|i| s.bits[i / 32] |= 1 << (i % 32));
        }
    });
    s.taken = 0;
    for (count, bits) in s.counts.iter_mut().zip(s.bits.chunks(PREFIX / 32)) {
        *count = s.taken as u32;
        s.taken += bits.iter().map(|w| w.count_ones() as usize).sum::<usize>();
    }
}
