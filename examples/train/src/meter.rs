//! A counting allocator: what is reported as bytes is measured on what is allocated.
//!
//! It sits on mimalloc, which keeps the memory of freed activations for the next step. glibc's allocator gives memory of
//! that size back to the system on each `free` and maps it anew on each `malloc`, which about doubles the time of a step.

#![allow(unsafe_code)] // an allocator cannot be written without; the workspace denies it everywhere else

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use mimalloc::MiMalloc;

static LIVE: AtomicUsize = AtomicUsize::new(0);

/// Bytes that are allocated now.
pub(crate) fn live_bytes() -> usize {
    LIVE.load(Relaxed)
}

/// How many bytes the heap shrank by while `work` ran: the size of what it dropped.
pub(crate) fn freed_by(work: impl FnOnce()) -> usize {
    let before = live_bytes();
    work();
    before.saturating_sub(live_bytes())
}

/// mimalloc, with a counter.
pub(crate) struct Meter;

fn grown(bytes: usize) {
    LIVE.fetch_add(bytes, Relaxed);
}

fn shrunk(bytes: usize) {
    LIVE.fetch_sub(bytes, Relaxed);
}

// SAFETY: every call is handed on to mimalloc, unchanged and exactly once, so its guarantees are ours; the counter
// neither allocates nor unwinds.
unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise (a layout of non-zero size) is passed on.
        let pointer = unsafe { MiMalloc.alloc(layout) };
        if !pointer.is_null() {
            grown(layout.size());
        }
        pointer
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        let pointer = unsafe { MiMalloc.alloc_zeroed(layout) };
        if !pointer.is_null() {
            grown(layout.size());
        }
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise (a pointer of this allocator, and its layout) is passed on.
        unsafe { MiMalloc.dealloc(pointer, layout) };
        shrunk(layout.size());
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise (as in `dealloc`, and a size that is not zero) is passed on.
        let moved = unsafe { MiMalloc.realloc(pointer, layout, size) };
        if !moved.is_null() {
            grown(size);
            shrunk(layout.size());
        }
        moved
    }
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
