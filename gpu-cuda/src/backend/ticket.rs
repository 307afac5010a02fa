//! What a backend counts, and its readbacks.

use crate::buffer::{Buffer, HostMemory, Pool};
use crate::error::Error;
use blockllm::{DType, ViewMut};
use cudarc::driver::CudaStream;
use std::sync::Arc;

/// What a backend has done since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Buffers made: on the device, scratch included, and on the host for readbacks.
    pub allocations: usize,
    /// Calls of [`submit`](blockllm::Backend::submit) since which something was queued. The stream itself needs none.
    pub submissions: usize,
    /// Readbacks begun.
    pub readbacks: usize,
}

/// A readback on its way.
#[derive(Debug)]
pub struct Ticket {
    memory: Option<HostMemory>,
    len: usize,
    dtype: DType,
    pool: Arc<Pool>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            self.pool.put(memory);
        }
    }
}

impl Ticket {
    /// Asks for `len` elements of a buffer from `at` on. Also whether host memory had to be made for them.
    pub(super) fn new(
        stream: &Arc<CudaStream>, pool: &Arc<Pool>, (from, at, len): (&Buffer, usize, usize),
    ) -> Result<(Self, bool), Error> {
        let (memory, is_new) = pool.take(stream.context(), len * from.dtype().size())?;
        let mut ticket = Self { memory: Some(memory), len, dtype: from.dtype(), pool: pool.clone() };
        if let Some(memory) = &mut ticket.memory {
            from.read(at, len, memory)?;
        }
        Ok((ticket, is_new))
    }

    /// Hands the elements over, if they have come.
    pub(super) fn poll(&mut self, to: ViewMut<'_>) -> Result<bool, Error> {
        let wanted = (to.as_view().dtype(), to.as_view().len());
        assert_eq!(wanted, (self.dtype, self.len), "a ticket for other elements");
        let memory = self.memory.as_mut().expect("a ticket is polled until its elements have come");
        if !memory.has_come()? {
            return Ok(false);
        }
        memory.copy_to(to);
        if let Some(memory) = self.memory.take() {
            self.pool.put(memory);
        }
        Ok(true)
    }
}
