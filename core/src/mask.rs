//! Masks: which coordinates of a block are active. One bit a coordinate, and a prefix count every 512 (A5.5). Counts are
//! u32, so a block that is masked has fewer than 2^32 coordinates.

use crate::element::{Element, Real};

/// How the active coordinates of a partly active block are chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum MaskKind {
    /// The k coordinates with the largest |g|; equal ones by index (A4.4).
    #[default]
    Coordinate,
    /// Runs of this many neighbouring coordinates, kept or dropped together by their largest |g| (A4.5).
    Tile(usize),
}

/// Coordinates a prefix count stands for.
pub const PREFIX: usize = 512;

/// Words of the bitmap of `n` coordinates.
pub const fn bit_words(n: usize) -> usize {
    n.div_ceil(32)
}

/// Words of a whole mask of `n` coordinates: the bitmap, then one prefix count for every [`PREFIX`] coordinates.
pub const fn words(n: usize) -> usize {
    bit_words(n) + n.div_ceil(PREFIX)
}

/// A mask to read: a bitmap, or every coordinate of a whole block.
#[derive(Clone, Copy, Debug)]
pub struct Mask<'a> {
    words: Option<&'a [u32]>,
    n: usize,
}

impl<'a> Mask<'a> {
    /// All of `n` coordinates.
    pub const fn whole(n: usize) -> Self {
        Self { words: None, n }
    }

    /// From [`words`]`(n)` words as [`build`] leaves them.
    pub const fn new(words: &'a [u32], n: usize) -> Self {
        Self { words: Some(words), n }
    }

    /// Whether coordinate `i` is active.
    pub fn contains(&self, i: usize) -> bool {
        self.words.is_none_or(|w| w[i / 32] >> (i % 32) & 1 == 1)
    }

    /// Active coordinates before `i`: where `i` lies in the packed run, if it is active.
    pub fn rank(&self, i: usize) -> usize {
        let Some(w) = self.words else { return i };
        let start = i / PREFIX * PREFIX;
        let full = w[start / 32..i / 32].iter().map(|x| x.count_ones() as usize).sum::<usize>();
        let tail = (w[i / 32] & ((1 << (i % 32)) - 1)).count_ones() as usize;
        w[bit_words(self.n) + i / PREFIX] as usize + full + tail
    }

    /// The active coordinates, in order.
    pub fn coordinates(self) -> impl Iterator<Item = usize> + 'a {
        (0..self.n).filter(move |&i| self.contains(i))
    }
}

/// Writes the mask of `k` active coordinates of gradient `g` into [`words`]`(g.len())` words. Exact, never sampled.
///
/// With tiles, `k` is a multiple of the tile; where the short last tile is kept, fewer than `k` bits are set (A4.5).
pub fn build<E: Element<F>, F: Real>(g: &[E], k: usize, kind: MaskKind, mask: &mut [u32]) {
    mask.fill(0);
    let n = g.len();
    let mut set = |i: usize| mask[i / 32] |= 1 << (i % 32);
    match kind {
        MaskKind::Coordinate => select(n, k, |i| g[i].widen().magnitude(), &mut set),
        MaskKind::Tile(t) => {
            let largest = |i: usize| g[i * t..n.min((i + 1) * t)].iter().map(|x| x.widen().magnitude()).fold(0, u64::max);
            select(n.div_ceil(t), k / t, largest, |i| (i * t..n.min((i + 1) * t)).for_each(&mut set));
        }
    }
    let (bits, prefixes) = mask.split_at_mut(bit_words(n));
    for (slot, count) in prefixes.iter_mut().zip(prefix_counts(bits)) {
        *slot = count;
    }
}

/// Bits set before each run of [`PREFIX`] coordinates.
fn prefix_counts(bits: &[u32]) -> impl Iterator<Item = u32> + '_ {
    bits.chunks(PREFIX / 32).scan(0, |before, chunk| {
        let start = *before;
        *before += chunk.iter().map(|w| w.count_ones()).sum::<u32>();
        Some(start)
    })
}

/// Whether these are the words of a mask of at most `k` of `n` coordinates: no bit beyond `n`, prefix counts that agree.
/// For words from a file, which a kernel must be able to trust.
pub fn is_valid(mask: &[u32], n: usize, k: usize) -> bool {
    if mask.len() != words(n) {
        return false;
    }
    let (bits, prefixes) = mask.split_at(bit_words(n));
    let beyond = if n.is_multiple_of(32) { 0 } else { bits.last().map_or(0, |w| w >> (n % 32)) };
    let count: usize = bits.iter().map(|w| w.count_ones() as usize).sum();
    beyond == 0 && count <= k && prefix_counts(bits).eq(prefixes.iter().copied())
}

/// Calls `take` for the `k` of `n` items with the largest keys, equal keys by index, in index order.
///
/// A radix select: the k-th largest key byte by byte from the top, then one pass that takes what lies above it and the
/// first of what equals it.
fn select(n: usize, k: usize, key: impl Fn(usize) -> u64, mut take: impl FnMut(usize)) {
    if k == 0 {
        return;
    }
    let (mut prefix, mut known, mut room) = (0u64, 0u64, k);
    for shift in (0..64).step_by(8).rev() {
        let mut count = [0usize; 256];
        for i in 0..n {
            let x = key(i);
            if x & known == prefix {
                count[(x >> shift) as usize & 255] += 1;
            }
        }
        let mut byte = 255;
        while count[byte] < room {
            room -= count[byte];
            byte -= 1;
        }
        prefix |= (byte as u64) << shift;
        known |= 255 << shift;
    }
    for i in 0..n {
        let x = key(i);
        let ties = x == prefix && room > 0;
        room -= usize::from(ties);
        if ties || x > prefix {
            take(i);
        }
    }
}

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use super::*;
    use alloc::{vec, vec::Vec};

    fn chosen(g: &[f32], k: usize, kind: MaskKind) -> Vec<usize> {
        let mut w = vec![0xffff_ffff; words(g.len())];
        build::<f32, f32>(g, k, kind, &mut w);
        Mask::new(&w, g.len()).coordinates().collect()
    }

    #[test]
    fn ties_go_to_the_lower_index_and_signs_do_not_count_a4_4() {
        assert_eq!(chosen(&[1.0, -1.0, 1.0, 2.0], 3, MaskKind::Coordinate), [0, 1, 3]);
        assert_eq!(chosen(&[0.0, -0.0, 0.0], 2, MaskKind::Coordinate), [0, 1]);
    }

    #[test]
    fn nan_ranks_above_infinity_a4_4() {
        assert_eq!(chosen(&[f32::MAX, f32::INFINITY, -f32::NAN], 1, MaskKind::Coordinate), [2]);
        assert_eq!(chosen(&[f32::MAX, f32::NEG_INFINITY, -f32::NAN], 2, MaskKind::Coordinate), [1, 2]);
    }

    #[test]
    fn the_short_last_tile_counts_as_a_tile_a4_5() {
        assert_eq!(chosen(&[1.0, 0.0, 0.0, 3.0, 9.0], 4, MaskKind::Tile(2)), [2, 3, 4]);
        assert_eq!(chosen(&[1.0, 0.0, 0.0, 3.0, 0.5], 2, MaskKind::Tile(2)), [2, 3]);
    }

    #[test]
    fn prefix_counts_agree_with_counting_a5_5() {
        let g: Vec<f32> = (0..3000).map(|i| ((i * 7919) % 1000) as f32).collect();
        let mut w = vec![0; words(g.len())];
        build::<f32, f32>(&g, 1234, MaskKind::Coordinate, &mut w);
        let mask = Mask::new(&w, g.len());
        for (rank, i) in mask.coordinates().enumerate() {
            assert_eq!(mask.rank(i), rank);
        }
        assert_eq!(mask.coordinates().count(), 1234);
    }
}
