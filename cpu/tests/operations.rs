//! Operations on blocks of many parts, at the borders of parts, against the reference to the bit: every buffer is compared,
//! whole. The suite's own blocks are of nine parts at most.

mod common;

use blockllm::adam::Hyper;
use blockllm::backend::{Measure, Moment, Seal, Switch, Work, flag};
use blockllm::moments::Region;
use blockllm::{DType, MaskKind, View, mask};
use blockllm_conformance::cases::{compute, hyper, mask_words, modal, numbers, region, sprinkle};
use blockllm_conformance::harness::Harness;
use blockllm_conformance::host::Host;
use blockllm_conformance::pair::{Field, Layout, Pair, nothing};
use blockllm_conformance::recipe::Mode;
use common::Threads;

/// Around one part, two, an odd number of them, and more than the 32 strips of a mask.
const LENGTHS: [usize; 7] = [1025, 2047, 2048, 5 * 1024 + 7, 9216, 13 * 1024 - 1, 45 * 1024 + 513];

/// A parameter's and a gradient's type.
const TYPES: [(DType, DType); 3] = [(DType::Bf16, DType::F32), (DType::F16, DType::F16), (DType::F64, DType::F64)];

fn layout(dtype: DType, n: usize) -> Layout {
    let words = mask::words(n) + 9;
    Layout { blocks: vec![(dtype, 3), (dtype, n)], capacity: n + 40, mask_words: [words; 2] }
}

/// Few, about half, all but one, and all of `n`.
fn counts(n: usize) -> [usize; 4] {
    [n / 40, n / 2 + 1, n - 1, n]
}

/// Each test on 1, 2 and 7 threads, with the least grain or a larger one.
macro_rules! on_threads {
    ($($name:ident),*) => {
        $(
            #[test]
            fn $name() {
                checks::$name(&mut Threads::<1, 1024>);
                checks::$name(&mut Threads::<2, 8192>);
                checks::$name(&mut Threads::<7, 1024>);
            }
        )*
    };
}

on_threads!(gathers, masks, masks_of_ties, scores, processed_scores, sign_steps, carries, updates, seals);

mod checks {
    use super::*;

    fn each<H: Harness>(h: &mut H, mut check: impl FnMut(&mut Pair<'_, H>, DType, DType, usize)) {
        for (dtype, of_gradient) in TYPES {
            for n in LENGTHS {
                let case = format!("{dtype}, gradient {of_gradient}, n {n}");
                check(&mut Pair::new(h, &layout(dtype, n), case), dtype, of_gradient, n);
            }
        }
    }

    fn write_mask<H: Harness>(pair: &mut Pair<'_, H>, field: Field, r: &Region, seed: u64) {
        if r.masked() {
            pair.write(field, r.mask_at, View::U32(&mask_words(seed, r.n, r.k)));
        }
    }

    pub fn gathers<H: Harness>(h: &mut H) {
        each(h, |pair, _, of_gradient, n| {
            for k in counts(n) {
                let r = region(1, n, k, 5, 4);
                write_mask(pair, Field::Masks, &r, k as u64);
                for micro in 0..2 {
                    pair.gather(&r, &numbers(n as u64 + micro, n, of_gradient), micro > 0);
                }
                pair.check(&nothing);
            }
        });
    }

    fn masked<H: Harness>(pair: &mut Pair<'_, H>, g: &Host, n: usize) {
        // Tiles that divide a part and that do not, of more than a part, that leave a short one, and nearly all of n.
        for tile in [0, 24, 1000, 1536, n / 2 + 1] {
            for k in counts(n) {
                let (kind, k) = if tile == 0 { (MaskKind::Coordinate, k) } else { (MaskKind::Tile(tile), k / tile * tile) };
                if k > 0 && k < n {
                    let r = region(1, n, k, 5, 4);
                    pair.case = format!("n {n}, {kind:?}, k {k}");
                    pair.build_mask(&r, g, kind);
                    // With zeros in what a short tile leaves over.
                    pair.gather(&r, g, false);
                    pair.check(&nothing);
                }
            }
        }
    }

    pub fn masks<H: Harness>(h: &mut H) {
        each(h, |pair, _, of_gradient, n| {
            let mut g = numbers(n as u64 + 3, n, of_gradient);
            sprinkle(&mut g, n as u64, true);
            masked(pair, &g, n);
        });
    }

    /// Strips that hold the last tie that is taken, only some, and none.
    pub fn masks_of_ties<H: Harness>(h: &mut H) {
        each(h, |pair, _, of_gradient, n| {
            masked(pair, &modal(n as u64, n, of_gradient, Mode::Ties), n);
            masked(pair, &Host::from_doubles((0..n).map(|i| (i % 3) as f64), of_gradient), n);
        });
    }

    pub fn scores<H: Harness>(h: &mut H) {
        each(h, |pair, _, of_gradient, n| {
            for variant in 0..3 {
                pair.score(1, &numbers(n as u64 + variant, n, of_gradient), &hyper(variant * 3), Measure::Gradient);
                pair.check(&nothing);
            }
        });
    }

    pub fn processed_scores<H: Harness>(h: &mut H) {
        each(h, |pair, dtype, of_gradient, n| {
            for (k, switching) in counts(n).into_iter().flat_map(|k| [(k, false), (k, true)]) {
                let r = region(1, n, k, 5, 4);
                let squares = numbers(7, k, DType::F64).doubles().into_iter().map(|x| x * x);
                pair.write(Field::M, 5, numbers(6, k, compute(dtype)).view());
                pair.write(Field::V, 5, Host::from_doubles(squares, compute(dtype)).view());
                write_mask(pair, if switching { Field::OldMasks } else { Field::Masks }, &r, k as u64);
                let measure = Measure::Processed { present: Some(&r), switching };
                pair.score(1, &numbers(n as u64, n, of_gradient), &hyper(k as u64), measure);
                pair.check(&nothing);
            }
        });
    }

    pub fn sign_steps<H: Harness>(h: &mut H) {
        each(h, |pair, dtype, of_gradient, n| {
            for (variant, k) in [0, n / 40, n / 2 + 1, n - 1].into_iter().enumerate() {
                let r = region(1, n, k, 5, 4);
                if k > 0 {
                    write_mask(pair, Field::Masks, &r, k as u64);
                }
                let (mut g, mut p) = (numbers(n as u64, n, of_gradient), numbers(n as u64 + 1, n, dtype));
                sprinkle(&mut g, n as u64, true);
                pair.state_free(&r, &g, &mut p, &hyper(variant as u64), &|_| 0.0);
                pair.check(&nothing);
            }
        });
    }

    pub fn carries<H: Harness>(h: &mut H) {
        each(h, |pair, _, of_gradient, n| {
            if of_gradient == DType::F16 {
                return;
            }
            pair.set_flags(&[0; flag::LEN]);
            for (old_k, new_k) in counts(n).into_iter().flat_map(|a| counts(n).map(|b| (a, b))) {
                let (old, new) = (region(1, n, old_k, 31, 2), region(1, n, new_k, 3, 5));
                write_mask(pair, Field::OldMasks, &old, old_k as u64);
                write_mask(pair, Field::Masks, &new, new_k as u64 + 1);
                for moment in [Moment::First, Moment::Second] {
                    pair.carry(moment, Some(&old), &new);
                    pair.check(&nothing);
                }
                pair.carry(Moment::First, None, &new);
                pair.clear(&new);
                pair.check(&nothing);
            }
        });
    }

    pub fn updates<H: Harness>(h: &mut H) {
        each(h, |pair, dtype, _, n| {
            pair.set_flags(&[0; flag::LEN]);
            pair.write(Field::Powers, 4, View::F64(&[0.81, 0.998_001, 0.729, 0.997_002_999]));
            for (variant, (old_k, k)) in [0, n / 2, n].into_iter().flat_map(|old| counts(n).map(|k| (old, k))).enumerate() {
                let (r, old) = (region(1, n, k, 7, 5), region(1, n, old_k, 0, 3));
                let squares = numbers(9, k, DType::F64).doubles().into_iter().map(|x| x * x);
                pair.write(Field::Gradient, r.gradient_at, numbers(8, k, compute(dtype)).view());
                pair.write(Field::M, 7, numbers(6, k, compute(dtype)).view());
                pair.write(Field::V, 7, Host::from_doubles(squares, compute(dtype)).view());
                write_mask(pair, Field::Masks, &r, k as u64);
                let old = (old_k > 0).then_some(&old);
                old.iter().for_each(|old| write_mask(pair, Field::OldMasks, old, 77));
                let mut p = numbers(n as u64, n, dtype);
                pair.update(&r, old, &mut p, &hyper(variant as u64), &|_, _| 0.0);
                pair.check(&nothing);
            }
        });
    }

    /// More blocks than are worked on together, in another order than their runs, with holes; one element of one of them
    /// zero, infinite, a NaN, or with a square that overflows.
    pub fn seals<H: Harness>(h: &mut H) {
        let sizes: Vec<usize> = (0..70).map(|i| [1, 700, 1024, 1025, 40, 5000, 3][i % 7]).collect();
        for dtype in [DType::F32, DType::F64] {
            let mut at = sizes.iter().map(|n| n + 3).sum::<usize>();
            let capacity = at;
            let regions: Vec<Region> = (0..)
                .zip(&sizes)
                .map(|(block, &n)| {
                    at -= n + 3;
                    Region { fresh: block % 3 == 0, ..region(block, n + 1, n, at, 0) }
                })
                .collect();
            let blocks = sizes.iter().map(|n| (dtype, n + 1)).collect();
            let mut pair = Pair::new(h, &Layout { blocks, capacity, mask_words: [0; 2] }, format!("{dtype}"));
            pair.write(Field::Gradient, 0, numbers(3, capacity, dtype).view());
            let wild = [(3, 0.0), (40, f64::INFINITY), (69, f64::NAN), (33, 1e200), (0, 1.0)];
            for (variant, (block, x)) in wild.into_iter().enumerate() {
                let r = &regions[block];
                pair.write(Field::Gradient, r.gradient_at + r.k / 2, Host::from_doubles([x].into_iter(), dtype).view());
                sealed(&mut pair, &regions, variant as u64);
                pair.write(Field::Gradient, r.gradient_at, numbers(4, r.k, dtype).view());
            }
            // Zeros everywhere, and everywhere but in the first or the last part.
            for (variant, (block, x)) in [(5, [0.0, 0.0]), (12, [1.0, 0.0]), (19, [0.0, 1.0])].into_iter().enumerate() {
                let r = &regions[block];
                let run = (0..r.k).map(|j| {
                    if j == 0 {
                        x[0]
                    } else if j + 1 == r.k {
                        x[1]
                    } else {
                        0.0
                    }
                });
                pair.write(Field::Gradient, r.gradient_at, Host::from_doubles(run, dtype).view());
                sealed(&mut pair, &regions, variant as u64);
            }
        }
    }

    fn sealed<H: Harness>(pair: &mut Pair<'_, H>, regions: &[Region], variant: u64) {
        for part in [Seal::Step, Seal::Block, Seal::Counters] {
            pair.seal(&work(regions, hyper(variant)), part);
            pair.check(&nothing);
        }
    }

    fn work(active: &[Region], hyper: Hyper) -> Work<'_> {
        Work {
            step: 9,
            hyper,
            mask: MaskKind::Coordinate,
            first: true,
            last: true,
            wanted: &[],
            active,
            summed: active,
            idle: &[],
            scored: &[],
            members: &[],
            switch: Some(Switch::Reset),
            processed: None,
            guard_limit: 2,
        }
    }
}
