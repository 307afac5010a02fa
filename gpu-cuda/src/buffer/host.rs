//! Host memory that readbacks arrive in: page-locked, so that a copy does not make the host wait.

use crate::error::{During, Error};
use blockllm::{View, ViewMut};
use core::ffi::c_void;
use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, result};
use std::sync::{Arc, Mutex, PoisonError};

/// A run of host memory, and the event after the last copy to it.
#[derive(Debug)]
pub(crate) struct HostMemory {
    memory: Memory,
    bytes: usize,
    event: CudaEvent,
}

#[derive(Debug)]
enum Memory {
    PageLocked(*mut c_void),
    /// Where the driver has no more of the other: a copy may then make the host wait.
    Plain(Vec<u64>),
}

// SAFETY: the memory is owned, and the driver takes its address from any thread.
unsafe impl Send for HostMemory {}
// SAFETY: a shared reference only reads.
unsafe impl Sync for HostMemory {}

impl HostMemory {
    fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Self, Error> {
        context.bind_to_thread().during("read")?;
        let event = context.new_event(Some(CUevent_flags::CU_EVENT_DISABLE_TIMING)).during("read")?;
        // SAFETY: the memory is not read before a copy has filled it.
        let memory = match unsafe { result::malloc_host(bytes, 0) } {
            Ok(address) => Memory::PageLocked(address),
            Err(_) => Memory::Plain(vec![0; bytes.div_ceil(8)]),
        };
        Ok(Self { memory, bytes, event })
    }

    /// The first `bytes`, for a copy to fill.
    pub(super) fn target(&mut self, bytes: usize) -> &mut [u8] {
        assert!(bytes <= self.bytes, "{bytes} bytes into {}", self.bytes);
        let address = match &mut self.memory {
            Memory::PageLocked(address) => address.cast::<u8>(),
            Memory::Plain(words) => words.as_mut_ptr().cast(),
        };
        // SAFETY: the memory has `self.bytes` bytes, is owned by this, and is borrowed as this is.
        unsafe { core::slice::from_raw_parts_mut(address, bytes) }
    }

    /// Queues the event after the copy.
    pub(super) fn record(&mut self, stream: &CudaStream) -> Result<(), Error> {
        self.event.record(stream).during("read")
    }

    /// Whether the last copy has come. Never waits.
    pub(crate) fn has_come(&self) -> Result<bool, Error> {
        self.event.context().bind_to_thread().during("poll")?;
        self.event.try_is_complete().during("poll")
    }

    /// Hands the elements over. They must have come.
    pub(crate) fn copy_to(&mut self, mut to: ViewMut<'_>) {
        let out = bytes_mut(&mut to);
        let len = out.len();
        out.copy_from_slice(self.target(len));
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        let context = self.event.context();
        context.record_err(context.bind_to_thread());
        // A copy may still be on its way here. Where the device is lost, none is.
        let _ = self.event.synchronize();
        if let Memory::PageLocked(address) = self.memory {
            // SAFETY: it came from `malloc_host`, is freed once, and no copy writes to it any more.
            context.record_err(unsafe { result::free_host(address) });
        }
    }
}

/// Host memory that is used again: allocating page-locked memory makes the whole device wait.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Vec<HostMemory>>);

impl Pool {
    /// Memory of at least `bytes`, and whether it is new. A copy that nobody waits for any more may still be on its way there:
    /// on the one stream it comes before the next one.
    pub(crate) fn take(&self, context: &Arc<CudaContext>, bytes: usize) -> Result<(HostMemory, bool), Error> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let smallest = (0..free.len()).filter(|&i| free[i].bytes >= bytes).min_by_key(|&i| free[i].bytes);
        match smallest {
            Some(i) => Ok((free.swap_remove(i), false)),
            None => Ok((HostMemory::new(context, bytes.next_power_of_two().max(64))?, true)),
        }
    }

    /// Takes memory back, also where its copy has not come yet.
    pub(crate) fn put(&self, memory: HostMemory) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
    }
}

fn as_bytes<T>(x: &[T]) -> &[u8] {
    // SAFETY: called for floats and words alone, which have no padding; any byte may be read as a u8.
    unsafe { core::slice::from_raw_parts(x.as_ptr().cast(), size_of_val(x)) }
}

fn as_bytes_mut<T>(x: &mut [T]) -> &mut [u8] {
    // SAFETY: as above; any bytes are a float or a word.
    unsafe { core::slice::from_raw_parts_mut(x.as_mut_ptr().cast(), size_of_val(x)) }
}

/// The bytes of host elements.
pub(super) fn bytes(x: View<'_>) -> &[u8] {
    match x {
        View::F16(x) => as_bytes(x),
        View::Bf16(x) => as_bytes(x),
        View::F32(x) => as_bytes(x),
        View::F64(x) => as_bytes(x),
        View::U32(x) => as_bytes(x),
        other => unreachable!("elements of {}", other.dtype()),
    }
}

fn bytes_mut<'a>(x: &'a mut ViewMut<'_>) -> &'a mut [u8] {
    match x {
        ViewMut::F16(x) => as_bytes_mut(x),
        ViewMut::Bf16(x) => as_bytes_mut(x),
        ViewMut::F32(x) => as_bytes_mut(x),
        ViewMut::F64(x) => as_bytes_mut(x),
        ViewMut::U32(x) => as_bytes_mut(x),
        other => unreachable!("elements of {}", other.as_view().dtype()),
    }
}
