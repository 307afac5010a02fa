//! Half types on the device, over all of their bit patterns.

mod common;

use blockllm::{DType, MaskKind, mask};
use blockllm_conformance::cases::{hyper, region};
use blockllm_conformance::harness::with;
use blockllm_conformance::host::Host;
use blockllm_conformance::pair::{Layout, Pair, nothing};
use blockllm_conformance::recipe::mix;
use common::Device;
use half::{bf16, f16};

const ALL: usize = 1 << 16;

fn patterns(dtype: DType) -> Host {
    match dtype {
        DType::F16 => Host::F16((0..=u16::MAX).map(f16::from_bits).collect()),
        _ => Host::Bf16((0..=u16::MAX).map(bf16::from_bits).collect()),
    }
}

fn layout(dtype: DType, n: usize) -> Layout {
    Layout { blocks: vec![(dtype, n)], capacity: n, mask_words: [mask::words(n), 0] }
}

#[test]
fn every_pattern_is_widened_exactly() {
    with::<Device>("every_pattern_is_widened_exactly", |h| {
        for dtype in [DType::F16, DType::Bf16] {
            let mut pair = Pair::new(h, &layout(dtype, ALL), format!("{dtype}"));
            pair.gather(&region(0, ALL, ALL, 0, 0), &patterns(dtype), false);
            pair.check(&nothing);
        }
    });
}

/// Masks order NaNs by their bits, once widened, so that these must be the reference's too.
#[test]
fn every_pattern_has_the_reference_s_rank() {
    with::<Device>("every_pattern_has_the_reference_s_rank", |h| {
        for dtype in [DType::F16, DType::Bf16] {
            let mut pair = Pair::new(h, &layout(dtype, ALL), format!("{dtype}"));
            for k in [1, 2, 3, 100, 253, 254, 255, 256, 1023, 1500, 2045, 2046, 2047, 2048, 2049, 30_000, ALL - 1] {
                pair.case = format!("{dtype}, k {k}");
                pair.build_mask(&region(0, ALL, k, 0, 0), &patterns(dtype), MaskKind::Coordinate);
                pair.check(&nothing);
            }
        }
    });
}

/// An f32 gradient's NaNs, widened to f64, keep their order.
#[test]
fn nans_of_f32_gradients_have_the_reference_s_rank_in_f64() {
    with::<Device>("nans_of_f32_gradients_have_the_reference_s_rank_in_f64", |h| {
        let n = 3000;
        // Quiet and signalling ones, of both signs, few enough payloads that some are equal once they are quiet.
        let nan = |i: u64| f32::from_bits(0x7f80_0001 | (mix(i) as u32 & 0x8040_00ff));
        let g = Host::F32((0..n as u64).map(nan).collect());
        let mut pair = Pair::new(h, &layout(DType::F64, n), "f64");
        for k in [1, 2, 7, 100, 1499, 1500, 2222, n - 1] {
            pair.case = format!("f64, k {k}");
            pair.build_mask(&region(0, n, k, 0, 0), &g, MaskKind::Coordinate);
            pair.check(&nothing);
        }
    });
}

/// A sign step from every pattern, of steps that land on, beside and between the type's numbers.
#[test]
fn results_are_rounded_to_nearest_even() {
    with::<Device>("results_are_rounded_to_nearest_even", |h| {
        let g = Host::F32((0..ALL as u64).map(|i| if mix(i) & 1 == 0 { 1.0 } else { -1.0 }).collect());
        for dtype in [DType::F16, DType::Bf16] {
            let mut pair = Pair::new(h, &layout(dtype, ALL), format!("{dtype}"));
            let steps = (-30..=16).step_by(3).map(|e| 2f64.powi(e)).chain((-28..12).step_by(5).map(|e| 0.712_345 * 2f64.powi(e)));
            for step in steps.chain([2f64.powi(-25) * 1.000_001, 65519.9, 65520.0, 3e38, 1e-40]) {
                let h = blockllm::adam::Hyper { lr: step, weight_decay: 0.0, sign_scale: Some(1.0 / 1.5), ..hyper(0) };
                pair.case = format!("{dtype}, step {step:e}");
                let mut p = patterns(dtype);
                pair.state_free(&region(0, ALL, 0, 0, 0), &g, &mut p, &h, &|_| 0.0);
            }
            pair.check(&nothing);
        }
    });
}
