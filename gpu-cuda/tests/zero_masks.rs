//! Which masks count as built from a gradient that is zero everywhere (A4.4).

mod common;

use blockllm::backend::{Seal, Switch, Work};
use blockllm::moments::Region;
use blockllm::{DType, MaskKind};
use blockllm_conformance::cases::{hyper, region};
use blockllm_conformance::harness::with;
use blockllm_conformance::host::Host;
use blockllm_conformance::pair::{Field, Layout, Pair, nothing};
use common::Device;

/// A whole region of zeros has no mask; what the loss scale alone makes zero is not zero.
#[test]
fn zeros_count_where_there_is_a_mask_and_before_they_are_scaled() {
    with::<Device>("zeros_count_where_there_is_a_mask_and_before_they_are_scaled", |h| {
        let layout = Layout { blocks: vec![(DType::F32, 100); 4], capacity: 400, mask_words: [0, 0] };
        let at = |block: u32, k: usize| Region { fresh: true, ..region(block, 100, k, 100 * block as usize, 0) };
        // Zeros and masked; zeros and whole; too small to stay when it is scaled; zeros of either sign and masked.
        let regions = [at(0, 40), at(1, 100), at(2, 50), at(3, 99)];
        let mut g = vec![0.0f32; 400];
        g[220] = f32::from_bits(1);
        g[310] = -0.0;
        for switch in [None, Some(Switch::Reset)] {
            let mut pair = Pair::new(h, &layout, format!("{switch:?}"));
            pair.write(Field::Gradient, 0, Host::F32(g.clone()).view());
            let w = Work {
                step: 1,
                hyper: blockllm::adam::Hyper { inv_loss_scale: 0.1, ..hyper(0) },
                mask: MaskKind::Coordinate,
                first: true,
                last: true,
                wanted: &[],
                active: &regions,
                summed: &regions,
                idle: &[],
                scored: &[],
                members: &[],
                switch,
                processed: None,
                guard_limit: 3,
            };
            pair.seal(&w, Seal::Step);
            pair.check(&nothing);
        }
    });
}
