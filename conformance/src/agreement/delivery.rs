//! What is done with one gradient: gather, masks, scores.

use crate::bounds;
use crate::cases::{LENGTHS, counts, hyper, mask_words, modal, numbers, region, sprinkle, types};
use crate::harness::Harness;
use crate::host::Host;
use crate::pair::{Field, Layout, Pair, nothing};
use crate::recipe::Mode;
use blockllm::backend::Measure;
use blockllm::moments::Region;
use blockllm::{DType, MaskKind, View, mask};

/// One block behind another, so that its runs begin in the middle of every buffer.
fn layout(dtype: DType, n: usize) -> Layout {
    Layout { blocks: vec![(dtype, 3), (dtype, n)], capacity: n + 9, mask_words: [mask::words(n) + 9, 0] }
}

fn placed(n: usize, k: usize) -> Region {
    region(1, n, k, 5, 4)
}

fn gathered<H: Harness>(h: &mut H, micro_batches: u64) {
    for (dtype, of_gradient) in types::<H>() {
        for n in LENGTHS {
            let case = format!("{dtype}, gradient {of_gradient}, n {n}");
            let mut pair = Pair::new(h, &layout(dtype, n), &case);
            for k in counts(n) {
                let r = placed(n, k);
                if r.masked() {
                    pair.write(Field::Masks, 4, View::U32(&mask_words(k as u64, n, k)));
                }
                pair.case = format!("{case}, k {k}");
                for micro in 0..micro_batches {
                    let mut g = numbers(chain_seed(n, k, micro), n, of_gradient);
                    // Copied bit by bit; sums of infinities and NaNs are left to whole runs.
                    sprinkle(&mut g, micro ^ 3, micro_batches == 1);
                    pair.gather(&r, &g, micro > 0);
                }
                // A sum of denormals may be flushed.
                let flushed = if micro_batches > 1 { bounds::TINY } else { 0.0 };
                pair.check(&|field, _| if field == Field::Gradient { flushed } else { 0.0 });
            }
        }
    }
}

fn chain_seed(n: usize, k: usize, micro: u64) -> u64 {
    crate::recipe::chain(&[n as u64, k as u64, micro])
}

/// Active coordinates in order, widened, their bits kept.
pub fn gather_packs_what_is_active<H: Harness>(h: &mut H) {
    gathered(h, 1);
}

/// A6.2.
pub fn gather_adds_later_micro_batches<H: Harness>(h: &mut H) {
    gathered(h, 3);
}

const KINDS: [MaskKind; 5] =
    [MaskKind::Coordinate, MaskKind::Tile(1), MaskKind::Tile(8), MaskKind::Tile(24), MaskKind::Tile(700)];

fn masked<H: Harness>(h: &mut H, n: usize, dtype: DType, g: &Host, case: &str) {
    let mut pair = Pair::new(h, &layout(dtype, n), case);
    for kind in KINDS {
        for k in counts(n) {
            let k = match kind {
                MaskKind::Tile(t) => k / t * t,
                _ => k,
            };
            if k == 0 || k == n {
                continue;
            }
            pair.case = format!("{case}, {kind:?}, k {k}");
            let r = placed(n, k);
            pair.build_mask(&r, g, kind);
            // What a short tile leaves over is zero.
            pair.gather(&r, g, false);
            pair.check(&nothing);
        }
    }
}

/// A4.4, A4.5: exact, on every length.
pub fn masks_are_of_the_largest<H: Harness>(h: &mut H) {
    for (dtype, of_gradient) in types::<H>() {
        for n in LENGTHS {
            let g = numbers(n as u64 + 11, n, of_gradient);
            masked(h, n, dtype, &g, &format!("{dtype}, gradient {of_gradient}, n {n}"));
        }
    }
}

/// Blocks of many workgroups: counts of counts.
pub fn masks_of_large_blocks<H: Harness>(h: &mut H) {
    let n = 300_000;
    let (coordinate, tile) = (MaskKind::Coordinate, MaskKind::Tile(64));
    for (mode, kind, k) in [(Mode::Normal, coordinate, 123_457), (Mode::Ties, coordinate, 299_999), (Mode::Normal, tile, 6400)] {
        let g = modal(3, n, DType::F32, mode);
        let mut pair = Pair::new(h, &layout(DType::F32, n), format!("n {n}, {mode:?}, {kind:?}, k {k}"));
        let r = placed(n, k);
        pair.build_mask(&r, &g, kind);
        pair.gather(&r, &g, false);
        pair.check(&nothing);
    }
}

/// Ties by index, zeros of both signs, NaN above infinity, denormals in their order.
pub fn masks_of_ties_and_special_values<H: Harness>(h: &mut H) {
    for (dtype, of_gradient) in types::<H>() {
        for (n, mode) in [(1500, Mode::Ties), (1500, Mode::Zero), (2600, Mode::Normal), (600, Mode::Zero)] {
            let mut g = modal(n as u64, n, of_gradient, mode);
            if n != 1500 {
                sprinkle(&mut g, 8, true);
            }
            if n == 600 {
                // Denormals and zeros alone.
                (0..n).for_each(|i| g.inject(i, crate::recipe::mix(i as u64) % 97));
            }
            masked(h, n, dtype, &g, &format!("{dtype}, gradient {of_gradient}, n {n}, {mode:?}"));
        }
    }
}

/// Within A2.3 of the normative tree; to the bit where there is f64.
fn scored<H: Harness>(pair: &mut Pair<'_, H>, g: &Host, variant: u64) {
    pair.score(1, g, &hyper(variant), Measure::Gradient);
    let sums = Field::Sums.of(&pair.host).clone();
    let sum = |i: usize| match sums.view(i, 1) {
        View::F64(x) => x[0],
        other => panic!("sums of {}", other.dtype()),
    };
    let relative = |field, i| if field == Field::Sums { bounds::SUM * sum(i) } else { 0.0 };
    // A sum that is not finite is not finite, which of the two is of no consequence.
    let wild = !sum(1).is_finite();
    pair.check(&|field, i| if wild && field == Field::Sums && i == 1 { f64::INFINITY } else { relative(field, i) });
}

/// A2.2, A2.4.
pub fn scores_of_gradients<H: Harness>(h: &mut H) {
    for (dtype, of_gradient) in types::<H>() {
        for n in LENGTHS.into_iter().chain([70_000]) {
            let mut pair = Pair::new(h, &layout(dtype, n), format!("{dtype}, gradient {of_gradient}, n {n}"));
            scored(&mut pair, &numbers(n as u64 + 5, n, of_gradient), n as u64);
        }
    }
}

/// Neither overflow nor underflow where f64 does not (A2.3): from denormals to the largest number, alone and mixed.
pub fn scores_at_every_magnitude<H: Harness>(h: &mut H) {
    for (dtype, of_gradient) in types::<H>() {
        for exponent in [-149, -140, -126, -100, -75, -63, -40, -20, 0, 14, 40, 62, 64, 90, 127] {
            for mixed in [false, true] {
                let n = 1300;
                let mut pair =
                    Pair::new(h, &layout(dtype, n), format!("{dtype}, gradient {of_gradient}, 2^{exponent}, mixed {mixed}"));
                let number = |i: u64| {
                    let x = (crate::recipe::mix(i) >> 11) as f64 / (1u64 << 53) as f64;
                    let e = if mixed && i.is_multiple_of(3) { exponent - (i % 60) as i32 } else { exponent };
                    (0.5 + 0.5 * x) * 2f64.powi(e) * if i.is_multiple_of(2) { 1.0 } else { -1.0 }
                };
                let g = Host::from_doubles((0..n as u64).map(number), of_gradient);
                scored(&mut pair, &g, 0);
            }
        }
    }
}
