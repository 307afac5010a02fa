//! A counting allocator: what is reported as bytes is measured on what is allocated.
//!
//! It sits on mimalloc, which keeps the memory of freed activations for the next step. glibc's allocator gives memory of
//! that size back to the system on each `free` and maps it anew on each `malloc`, which about doubles the time of a step.

use cap::Cap;
use mimalloc::MiMalloc;

/// mimalloc, with a counter and no limit.
#[global_allocator]
static ALLOCATOR: Cap<MiMalloc> = Cap::new(MiMalloc, usize::MAX);

/// How many bytes the heap shrank by while `work` ran: the size of what it dropped.
pub(crate) fn freed_by(work: impl FnOnce()) -> usize {
    let before = ALLOCATOR.allocated();
    work();
    before.saturating_sub(ALLOCATOR.allocated())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_freed_is_counted() {
        let kept = vec![0u8; 4 << 20];
        // Other tests allocate and free meanwhile, but not as much.
        let freed = freed_by(|| drop(kept));
        assert!((3 << 20..5 << 20).contains(&freed));
    }
}
