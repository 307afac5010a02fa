//! The count of NaN gradients, which many workgroups add to.

mod common;

use blockllm::backend::flag;
use blockllm::moments::Region;
use blockllm::{DType, mask};
use blockllm_conformance::cases::{hyper, numbers, region};
use blockllm_conformance::harness::{Harness, with};
use blockllm_conformance::host::Host;
use blockllm_conformance::pair::{Layout, Pair};
use common::OnWgpu;

const N: usize = 20_000;

fn nans<H: Harness>(h: &mut H) {
    for (dtype, start) in [(DType::F32, 0), (DType::Bf16, 7), (DType::F16, u32::MAX - 500), (DType::F32, u32::MAX)] {
        let layout = Layout { blocks: vec![(dtype, 3), (dtype, N)], capacity: 1, mask_words: [mask::words(N) + 9, 0] };
        let mut pair = Pair::new(h, &layout, format!("{dtype}, from {start}"));
        let mut flags = [0; flag::LEN];
        flags[flag::NANS] = start;
        pair.set_flags(&flags);
        let g = Host::from_doubles((0..N).map(|i| if i % 7 == 3 { f64::NAN } else { 1.0 }), dtype);
        let (r, mut p) = (Region { k: 0, ..region(1, N, 0, 0, 0) }, numbers(1, N, dtype));
        pair.state_free(&r, &g, &mut p, &hyper(0), &|_| 0.1);
        pair.check(&|_, _| 0.0);
    }
}

#[test]
fn nans_are_counted_once_and_the_count_stays_at_its_largest_value() {
    with::<OnWgpu<{ u64::MAX }, { u32::MAX }>>("nans", nans);
    with::<OnWgpu<1000, 3>>("nans in pieces", nans);
}
