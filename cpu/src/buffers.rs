//! Arena buffers as slices: the types are those that the engine fixed.

use arrayvec::ArrayVec;
use blockllm::backend::Arena;
use blockllm::reference::HostBuffer;
use blockllm::{DType, View, ViewMut};
use std::mem::take;
use std::ops::Range;

pub(crate) type HostArena = Arena<HostBuffer>;

/// Blocks that are worked on together. What is known of each is kept on the stack, so that a step allocates nothing.
pub(crate) const BATCH: usize = 32;

/// One item for each block of a batch.
pub(crate) type Batch<T> = ArrayVec<T, BATCH>;

/// `len` zeros, or nothing where the system refuses the memory.
pub(crate) fn zeros(dtype: DType, len: usize) -> Option<HostBuffer> {
    // Asked for and given back: a vector of zeros itself cannot be had with an error. Unlike one that is asked for and
    // then filled, it leaves the first touch of each page to the thread that works on it.
    let mut bytes = Vec::<u64>::new();
    bytes.try_reserve_exact(len.checked_mul(dtype.size())?.div_ceil(8)).ok()?;
    drop(bytes);
    Some(HostBuffer::zeros(dtype, len))
}

/// All elements.
pub(crate) fn view(b: &HostBuffer) -> View<'_> {
    b.view(0, b.len())
}

/// All elements, to write.
pub(crate) fn view_mut(b: &mut HostBuffer) -> ViewMut<'_> {
    let len = b.len();
    b.view_mut(0, len)
}

/// Zeros everywhere.
pub(crate) fn clear(x: ViewMut<'_>) {
    match x {
        ViewMut::F32(x) => x.fill(0.0),
        ViewMut::F64(x) => x.fill(0.0),
        ViewMut::U32(x) => x.fill(0),
        other => unreachable!("a buffer of {}", other.as_view().dtype()),
    }
}

/// Masks, step counts, flags.
pub(crate) fn words(b: &HostBuffer) -> &[u32] {
    match b {
        HostBuffer::U32(x) => x,
        other => unreachable!("a buffer of {}", other.dtype()),
    }
}

/// The same, to write.
pub(crate) fn words_mut(b: &mut HostBuffer) -> &mut [u32] {
    match b {
        HostBuffer::U32(x) => x,
        other => unreachable!("a buffer of {}", other.dtype()),
    }
}

/// Sums, scores, powers, norms.
pub(crate) fn doubles(b: &HostBuffer) -> &[f64] {
    match b {
        HostBuffer::F64(x) => x,
        other => unreachable!("a buffer of {}", other.dtype()),
    }
}

/// The same, to write.
pub(crate) fn doubles_mut(b: &mut HostBuffer) -> &mut [f64] {
    match b {
        HostBuffer::F64(x) => x,
        other => unreachable!("a buffer of {}", other.dtype()),
    }
}

/// The runs of a packed buffer, each to write. They are disjoint, in any order, and may be empty.
pub(crate) fn packed_runs<'a>(b: &'a mut HostBuffer, runs: &[Range<usize>]) -> Batch<ViewMut<'a>> {
    match view_mut(b) {
        ViewMut::F32(x) => disjoint(x, runs).into_iter().map(ViewMut::F32).collect(),
        ViewMut::F64(x) => disjoint(x, runs).into_iter().map(ViewMut::F64).collect(),
        other => unreachable!("a packed buffer of {}", other.as_view().dtype()),
    }
}

/// The same of a slice.
pub(crate) fn disjoint<'a, T>(mut rest: &'a mut [T], runs: &[Range<usize>]) -> Batch<&'a mut [T]> {
    let mut order: Batch<usize> = (0..runs.len()).filter(|&i| !runs[i].is_empty()).collect();
    order.sort_unstable_by_key(|&i| runs[i].start);
    let mut out: Batch<&'a mut [T]> = runs.iter().map(|_| Default::default()).collect();
    let mut at = 0;
    for i in order {
        let gap = runs[i].start.checked_sub(at).expect("disjoint runs");
        let (_, from) = take(&mut rest).split_at_mut(gap);
        (out[i], rest) = from.split_at_mut(runs[i].len());
        at = runs[i].end;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_come_in_the_order_asked_for() {
        let mut x = [0, 1, 2, 3, 4, 5, 6, 7];
        let runs = disjoint(&mut x, &[5..8, 2..2, 0..1, 3..5, 7..7]);
        let want: [&[i32]; 5] = [&[5, 6, 7], &[], &[0], &[3, 4], &[]];
        assert_eq!(runs[..], want);
    }

    #[test]
    #[should_panic(expected = "disjoint")]
    fn runs_that_overlap_are_a_bug() {
        disjoint(&mut [0; 8], &[0..4, 3..5]);
    }

    #[test]
    fn memory_that_is_not_there_is_no_buffer() {
        assert_eq!(zeros(DType::F64, usize::MAX / 2), None);
        assert_eq!(zeros(DType::F32, (isize::MAX / 4) as usize), None);
        assert_eq!(zeros(DType::F32, 3), Some(HostBuffer::F32(vec![0.0; 3])));
    }
}
