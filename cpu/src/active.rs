//! Which coordinates of a run are active: a view of a mask that can be cut, each part located by the prefix counts.

use blockllm::mask::{PREFIX, bit_words};
use blockllm::moments::Region;

/// The active coordinates of a run of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Active<'a> {
    /// All of so many.
    Whole(usize),
    /// None of so many: they move without state (A6.7).
    Idle(usize),
    /// Those of a mask.
    Masked {
        /// Of the run, 32 coordinates a word; no bit beyond it is set.
        bits: &'a [u32],
        /// Of the block: active coordinates before each [`PREFIX`] of the run.
        counts: &'a [u32],
        /// Coordinates.
        n: usize,
    },
}

impl<'a> Active<'a> {
    /// Of a whole block, whose mask, if it has one, lies in `masks`.
    pub fn new(r: &Region, masks: &'a [u32]) -> Self {
        match (r.k, r.masked()) {
            (0, _) => Self::Idle(r.n),
            (_, false) => Self::Whole(r.n),
            _ => {
                let (bits, counts) = masks[r.mask_words()].split_at(bit_words(r.n));
                Self::Masked { bits, counts, n: r.n }
            }
        }
    }

    /// Coordinates, active or not.
    pub fn len(self) -> usize {
        match self {
            Self::Whole(n) | Self::Idle(n) | Self::Masked { n, .. } => n,
        }
    }

    /// Active coordinates before `at`, a multiple of [`PREFIX`] inside the run.
    pub fn rank(self, at: usize) -> usize {
        match self {
            Self::Whole(_) => at,
            Self::Idle(_) => 0,
            Self::Masked { counts, .. } => (counts[at / PREFIX] - counts[0]) as usize,
        }
    }

    /// The first `at` coordinates, a multiple of [`PREFIX`] inside the run, and the rest.
    pub fn divide(self, at: usize) -> (Self, Self) {
        match self {
            Self::Whole(n) => (Self::Whole(at), Self::Whole(n - at)),
            Self::Idle(n) => (Self::Idle(at), Self::Idle(n - at)),
            Self::Masked { bits, counts, n } => {
                let (left, right) = (bits.split_at(at / 32), counts.split_at(at / PREFIX));
                let part = |bits, counts, n| Self::Masked { bits, counts, n };
                (part(left.0, right.0, at), part(left.1, right.1, n - at))
            }
        }
    }

    /// Coordinates 32w to 32w + 31, the lowest bit first.
    pub fn word(self, w: usize) -> u32 {
        match self {
            Self::Whole(n) if n - 32 * w >= 32 => u32::MAX,
            Self::Whole(n) => (1 << (n - 32 * w)) - 1,
            Self::Idle(_) => 0,
            Self::Masked { bits, .. } => bits[w],
        }
    }

    /// Whether coordinate `i` is active.
    pub fn contains(self, i: usize) -> bool {
        self.word(i / 32) >> (i % 32) & 1 == 1
    }

    /// Calls `f` for each active coordinate, in order.
    pub fn for_each(self, mut f: impl FnMut(usize)) {
        (0..bit_words(self.len())).for_each(|w| ones(self.word(w), |b| f(32 * w + b)));
    }

    /// Lists the active ones of the [`PREFIX`] coordinates from `PREFIX * run` on, as offsets from there, and says how many
    /// they are.
    pub fn list(self, run: usize, out: &mut [u16; PREFIX]) -> usize {
        let (first, mut count) = (run * PREFIX / 32, 0);
        for w in first..bit_words(self.len()).min(first + PREFIX / 32) {
            ones(self.word(w), |b| {
                out[count] = (32 * (w - first) + b) as u16;
                count += 1;
            });
        }
        count
    }
}

/// Calls `f` for each bit that is set, from the lowest.
pub(crate) fn ones(mut word: u32, mut f: impl FnMut(usize)) {
    if word == u32::MAX {
        (0..32).for_each(f);
        return;
    }
    while word != 0 {
        f(word.trailing_zeros() as usize);
        word &= word - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockllm::mask::{self, Mask};
    use blockllm::{MaskKind, adam::Scales};

    #[test]
    fn parts_of_a_mask_know_their_coordinates() {
        let (n, k) = (5000, 1777);
        let g: Vec<f32> = (0..n).map(|i| ((i * 7919) % 997) as f32).collect();
        let mut masks = vec![u32::MAX; 3 + mask::words(n)];
        mask::build::<f32, f32>(&g, k, MaskKind::Coordinate, &mut masks[3..]);
        let r = Region { block: 0, n, k, at: 0, gradient_at: 0, mask_at: 3, fresh: false, scales: Scales::default() };
        let (want, all) = (Mask::new(&masks[3..], n), Active::new(&r, &masks));
        let (left, right) = all.divide(2048);
        let (middle, right) = right.divide(512);
        let mut found = vec![];
        for (start, part) in [(0, left), (2048, middle), (2560, right)] {
            assert_eq!(found.len(), all.rank(start));
            part.for_each(|i| found.push(start + i));
            let mut listed = [0; PREFIX];
            let count = part.list(0, &mut listed);
            assert!(
                listed[..count]
                    .iter()
                    .map(|&i| start + i as usize)
                    .eq(want.coordinates().filter(|i| (start..start + PREFIX).contains(i)))
            );
        }
        assert!(found.iter().copied().eq(want.coordinates()));
        assert_eq!(right.rank(1024), want.rank(3584) - want.rank(2560));
    }

    #[test]
    fn a_whole_run_ends_inside_a_word() {
        let mut found = vec![];
        Active::Whole(70).for_each(|i| found.push(i));
        assert!(found.into_iter().eq(0..70));
        assert_eq!((Active::Whole(64).word(1), Active::Idle(64).word(1)), (u32::MAX, 0));
    }
}
