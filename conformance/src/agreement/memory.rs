//! Buffers and readbacks.

use crate::harness::Harness;
use crate::pair::{Layout, Pair, nothing};
use blockllm::DType;

fn layout(dtype: DType) -> Layout {
    Layout { blocks: vec![(dtype, 300), (dtype, 7)], capacity: 257, mask_words: [33, 0] }
}

fn compute_types<H: Harness>() -> impl Iterator<Item = DType> {
    [DType::F32, DType::F64].into_iter().filter(|d| H::supports(*d))
}

/// What is written comes back; `zero` and `copy` touch their range and no more.
pub fn buffers_hold_what_is_written<H: Harness>(h: &mut H) {
    for dtype in compute_types::<H>() {
        let mut pair = Pair::new(h, &layout(dtype), format!("{dtype}"));
        pair.check(&nothing);
        for (at, len, copied) in [(0, 257, 1), (1, 31, 200), (256, 1, 257), (100, 0, 0)] {
            pair.zero_and_copy(at, len, copied);
            pair.check(&nothing);
        }
    }
}

/// A ticket brings what was there when it was asked for.
pub fn readbacks_are_of_their_time<H: Harness>(h: &mut H) {
    Pair::new(h, &layout(DType::F32), "f32").tickets();
}
