//! Memory: the arena's buffers, the caller's tensors, and where readbacks arrive.
//!
//! Unsafe code is allowed here, since device memory is an address to Rust: a buffer owns its run and frees it in stream
//! order; copies stay inside it; a tensor is the caller's word that its run is there.
#![allow(unsafe_code)]

mod host;
mod tensor;

pub(crate) use host::{HostMemory, Pool};
pub use tensor::{Element, Tensor, TensorMut};

use crate::error::{During, Error};
use blockllm::{DType, View};
use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{CudaStream, result};
use std::sync::Arc;

/// A typed run of device memory. Dropping it frees it in stream order.
#[derive(Debug)]
pub struct Buffer {
    address: CUdeviceptr,
    len: usize,
    dtype: DType,
    stream: Arc<CudaStream>,
}

impl Buffer {
    /// `len` zeros; with `len` 0 a placeholder without memory.
    pub(crate) fn zeros(stream: &Arc<CudaStream>, dtype: DType, len: usize) -> Result<Self, Error> {
        stream.context().bind_to_thread().during("alloc")?;
        let bytes = len * dtype.size();
        let address = match (bytes, stream.context().has_async_alloc()) {
            (0, _) => Ok(0),
            // SAFETY: the stream is alive; nothing reads the memory before the zeros below are queued.
            (_, true) => unsafe { result::malloc_async(stream.cu_stream(), bytes) },
            // SAFETY: as above.
            (_, false) => unsafe { result::malloc_sync(bytes) },
        };
        let address = address.during("alloc")?;
        let mut buffer = Self { address, len, dtype, stream: stream.clone() };
        buffer.zero(0, len)?;
        Ok(buffer)
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// No elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Bytes on the device.
    pub(crate) fn bytes(&self) -> usize {
        self.len * self.dtype.size()
    }

    /// Address of an element, for a kernel.
    pub(crate) fn at(&self, i: usize) -> CUdeviceptr {
        debug_assert!(i <= self.len, "element {i} of {}", self.len);
        self.address + (i * self.dtype.size()) as CUdeviceptr
    }

    /// The addresses of a run, and its bytes.
    ///
    /// # Panics
    /// Where it is not inside: a bug of the caller, which is not handed on to the device.
    fn run(&self, at: usize, len: usize) -> (CUdeviceptr, usize) {
        let inside = at.checked_add(len).is_some_and(|end| end <= self.len);
        assert!(inside, "{len} elements from {at} on, of a buffer of {}", self.len);
        (self.at(at), len * self.dtype.size())
    }

    fn bind(&self, operation: &'static str) -> Result<(), Error> {
        self.stream.context().bind_to_thread().during(operation)
    }

    /// Queues zeros in a run.
    pub(crate) fn zero(&mut self, at: usize, len: usize) -> Result<(), Error> {
        let (address, bytes) = self.run(at, len);
        if bytes == 0 {
            return Ok(());
        }
        self.bind("zero")?;
        // SAFETY: the run is inside this buffer, which is freed in stream order alone.
        unsafe { result::memset_d8_async(address, 0, bytes, self.stream.cu_stream()) }.during("zero")
    }

    /// Queues a copy of another buffer's first elements into this one's.
    pub(crate) fn copy_from(&mut self, from: &Self, len: usize) -> Result<(), Error> {
        assert_eq!(from.dtype, self.dtype, "a copy between buffers of two types");
        let ((source, bytes), (target, _)) = (from.run(0, len), self.run(0, len));
        if bytes == 0 {
            return Ok(());
        }
        self.bind("copy")?;
        // SAFETY: both runs are inside their buffers, which are two, and are freed in stream order alone.
        unsafe { result::memcpy_dtod_async(target, source, bytes, self.stream.cu_stream()) }.during("copy")
    }

    /// Copies host elements into a run, and waits until they are there: the host's may then go.
    pub(crate) fn write(&mut self, at: usize, from: View<'_>) -> Result<(), Error> {
        assert_eq!(from.dtype(), self.dtype, "elements for a buffer of another type");
        let (address, _) = self.run(at, from.len());
        if from.is_empty() {
            return Ok(());
        }
        self.bind("write")?;
        let bytes = host::bytes(from);
        // SAFETY: the run is inside this buffer and as long as `bytes`, which live until the stream has been waited for.
        unsafe { result::memcpy_htod_async(address, bytes, self.stream.cu_stream()) }.during("write")?;
        self.stream.synchronize().during("write")
    }

    /// Queues a copy of a run to host memory, which has an event after it.
    pub(crate) fn read(&self, at: usize, len: usize, to: &mut HostMemory) -> Result<(), Error> {
        let (address, bytes) = self.run(at, len);
        self.bind("read")?;
        if bytes > 0 {
            // SAFETY: the run is inside this buffer, freed in stream order alone; `to` is borrowed for the call, holds at
            // least `bytes` (asserted by `target`), and waits for the event below before it frees its memory.
            unsafe { result::memcpy_dtoh_async(to.target(bytes), address, self.stream.cu_stream()) }.during("read")?;
        }
        to.record(&self.stream)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.address == 0 {
            return;
        }
        let context = self.stream.context();
        context.record_err(context.bind_to_thread());
        let freed = match context.has_async_alloc() {
            // SAFETY: the memory came from this stream's pool, is freed once, and all its uses were queued on the stream.
            true => unsafe { result::free_async(self.address, self.stream.cu_stream()) },
            // SAFETY: it came from `malloc_sync`; the driver waits for the uses that are queued.
            false => unsafe { result::free_sync(self.address) },
        };
        // Nobody can be told here; the context tells it at its next use.
        context.record_err(freed);
    }
}
