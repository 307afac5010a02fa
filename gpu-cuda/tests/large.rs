//! Blocks larger than a launch, and sets of more regions than a thread block has threads.

mod common;

use blockllm::backend::{Measure, ScoredUnit, Seal, Work};
use blockllm::moments::Region;
use blockllm::{DType, MaskKind, mask};
use blockllm_conformance::cases::{hyper, mask_words, modal, numbers, region};
use blockllm_conformance::harness::with;
use blockllm_conformance::host::Host;
use blockllm_conformance::pair::{Field, Layout, Pair, nothing};
use blockllm_conformance::recipe::Mode;
use common::Device;

/// More chunks of a selection, subtrees of a sum and runs of a launch than there are thread blocks for.
const N: usize = 700_001;

fn layout(dtype: DType, n: usize) -> Layout {
    Layout { blocks: vec![(dtype, n)], capacity: n, mask_words: [mask::words(n); 2] }
}

#[test]
fn masks_of_a_large_block() {
    with::<Device>("masks_of_a_large_block", |h| {
        for (mode, k) in [(Mode::Ties, N / 3), (Mode::Zero, N / 2), (Mode::Normal, 5000)] {
            let g = modal(3, N, DType::F32, mode);
            for kind in [MaskKind::Coordinate, MaskKind::Tile(3), MaskKind::Tile(100)] {
                let k = if let MaskKind::Tile(t) = kind { k / t * t } else { k };
                let mut pair = Pair::new(h, &layout(DType::F32, N), format!("{mode:?}, {kind:?}, k {k}"));
                let r = region(0, N, k, 0, 0);
                pair.build_mask(&r, &g, kind);
                pair.gather(&r, &g, false);
                pair.check(&nothing);
            }
        }
    });
}

#[test]
fn one_step_of_a_large_block() {
    with::<Device>("one_step_of_a_large_block", |h| {
        for k in [N, N - 7, N / 4] {
            let mut pair = Pair::new(h, &layout(DType::F32, N), format!("k {k}"));
            let (r, g) = (Region { fresh: true, ..region(0, N, k, 0, 0) }, numbers(5, N, DType::F32));
            if r.masked() {
                pair.write(Field::Masks, 0, blockllm::View::U32(&mask_words(9, N, k)));
            }
            let positive = Host::from_doubles(numbers(6, N, DType::F32).doubles().into_iter().map(f64::abs), DType::F32);
            pair.write(Field::V, 0, positive.view());
            pair.score(0, &g, &hyper(1), Measure::Gradient);
            pair.gather(&r, &g, false);
            pair.seal(&work(&[r], &[], &[]), Seal::Step);
            let mut p = numbers(7, N, DType::F32);
            pair.update(&r, None, &mut p, &hyper(1), &|_, _| 0.0);
            pair.state_free(&r, &g, &mut p, &hyper(1), &|_| 0.0);
            pair.check(&nothing);
        }
    });
}

fn work<'a>(active: &'a [Region], scored: &'a [ScoredUnit], members: &'a [u32]) -> Work<'a> {
    Work {
        step: 77,
        hyper: hyper(1),
        mask: MaskKind::Coordinate,
        first: true,
        last: true,
        wanted: &[],
        active,
        summed: active,
        idle: &[],
        scored,
        members,
        switch: None,
        processed: None,
        guard_limit: 3,
    }
}

/// Their tables take several launches to upload.
#[test]
fn many_regions_and_units() {
    with::<Device>("many_regions_and_units", |h| {
        const BLOCKS: usize = 700;
        let layout = Layout { blocks: vec![(DType::F32, 40); BLOCKS], capacity: 40 * BLOCKS, mask_words: [0, 0] };
        for poisoned in [None, Some(40 * 699 + 3)] {
            let mut pair = Pair::new(h, &layout, format!("a NaN at {poisoned:?}"));
            let mut g = numbers(8, 40 * BLOCKS, DType::F32);
            if let Some(i) = poisoned {
                g.inject(i, 0x7fc0_0000);
            }
            pair.write(Field::Gradient, 0, g.view());
            let regions: Vec<Region> = (0..BLOCKS as u32)
                .map(|b| Region { fresh: b % 3 == 0, ..region(b, 40, 1 + b as usize % 40, 40 * b as usize, 0) })
                .collect();
            let scored: Vec<ScoredUnit> =
                (0..BLOCKS as u32).map(|u| ScoredUnit { unit: u, first: u, count: (u % 3).min(699 - u) + 1, n: 40 }).collect();
            let members: Vec<u32> = (0..BLOCKS as u32).rev().collect();
            let w = work(&regions, &scored, &members);
            pair.seal(&w, Seal::Step);
            pair.enter_scores(&w);
            // NaN norms are one.
            pair.check(&nothing);
        }
    });
}
