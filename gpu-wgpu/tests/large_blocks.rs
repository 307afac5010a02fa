//! Blocks of which a workgroup takes more than one round: a launch has one workgroup, or two.

mod common;

use blockllm::backend::Measure;
use blockllm::moments::Region;
use blockllm::{DType, MaskKind, mask};
use blockllm_conformance::bounds;
use blockllm_conformance::cases::{hyper, mask_words, modal, numbers, region};
use blockllm_conformance::harness::{Harness, with};
use blockllm_conformance::pair::{Field, Layout, Pair, nothing};
use blockllm_conformance::recipe::Mode;
use common::OnWgpu;

const N: usize = 300_000;

fn layout(dtype: DType, n: usize) -> Layout {
    Layout { blocks: vec![(dtype, 3), (dtype, n)], capacity: n + 9, mask_words: [mask::words(n) + 9, 0] }
}

/// More than 128 MiB of f32: what a binding holds on many devices, and at most on some.
const LARGER_THAN_A_BINDING: usize = 36_000_000;

fn masks<H: Harness>(h: &mut H) {
    for (dtype, mode, kind, k) in [
        (DType::F32, Mode::Normal, MaskKind::Coordinate, 123_457),
        (DType::Bf16, Mode::Ties, MaskKind::Coordinate, 200_001),
        (DType::F16, Mode::Zero, MaskKind::Coordinate, 77_777),
        (DType::Bf16, Mode::Normal, MaskKind::Tile(8), 40_000),
        (DType::F32, Mode::Ties, MaskKind::Tile(1), 150_000),
    ] {
        let mut pair = Pair::new(h, &layout(dtype, N), format!("{dtype}, {mode:?}, {kind:?}"));
        let (r, g) = (region(1, N, k, 5, 4), modal(3, N, dtype, mode));
        pair.build_mask(&r, &g, kind);
        pair.gather(&r, &g, false);
        pair.check(&nothing);
    }
}

fn others<H: Harness>(h: &mut H) {
    let dtype = DType::Bf16;
    let (r, mut p, g) = (region(1, N, 111_111, 5, 4), numbers(1, N, dtype), numbers(2, N, dtype));
    let mut pair = Pair::new(h, &layout(dtype, N), "sign step and score");
    pair.write(Field::Masks, 4, blockllm::View::U32(&mask_words(9, N, r.k)));
    let (before, grads, h_) = (p.doubles(), g.doubles(), hyper(1));
    let bound = |i: usize| bounds::state_free(before[i], grads[i], &h_, r.scales, dtype);
    pair.state_free(&r, &g, &mut p, &h_, &bound);
    let (idle, before) = (Region { k: 0, ..r }, p.doubles());
    pair.state_free(&idle, &g, &mut p, &h_, &|i| bounds::state_free(before[i], grads[i], &h_, r.scales, dtype));
    pair.score(1, &g, &hyper(0), Measure::Gradient);
    let blockllm::View::F64(sums) = Field::Sums.of(&pair.host).view(1, 1) else { panic!("sums") };
    let sum = sums[0];
    pair.check(&|field, i| if field == Field::Sums && i == 1 { 1.5e-6 * sum } else { 0.0 });
}

#[test]
fn masks_where_workgroups_take_several_rounds() {
    with::<OnWgpu<{ u64::MAX }, 1>>("masks_where_workgroups_take_several_rounds", masks);
    with::<OnWgpu<{ u64::MAX }, 2>>("masks_where_workgroups_take_several_rounds", masks);
}

#[test]
fn sign_steps_and_scores_where_workgroups_take_several_rounds() {
    with::<OnWgpu<{ u64::MAX }, 1>>("sign_steps_and_scores_where_workgroups_take_several_rounds", others);
}

fn larger<H: Harness>(h: &mut H) {
    let n = LARGER_THAN_A_BINDING;
    let mut pair = Pair::new(h, &layout(DType::F32, n), "larger than a binding");
    let (r, g) = (region(1, n, n - 1_000_000, 5, 4), numbers(5, n, DType::F32));
    pair.build_mask(&r, &g, MaskKind::Coordinate);
    pair.gather(&r, &g, false);
    pair.score(1, &g, &hyper(0), Measure::Gradient);
    let blockllm::View::F64(sums) = Field::Sums.of(&pair.host).view(1, 1) else { panic!("sums") };
    let sum = sums[0];
    pair.check(&|field, i| if field == Field::Sums && i == 1 { 1.5e-6 * sum } else { 0.0 });
}

#[test]
fn a_block_larger_than_a_binding() {
    with::<OnWgpu<{ u64::MAX }, { u32::MAX }>>("a_block_larger_than_a_binding", larger);
}
