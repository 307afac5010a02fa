//! The backend's handle: which threads it uses, what it holds beside the arena.

use crate::error::CpuError;
use crate::kernels::Histograms;
use crate::parallel::LEAF;
use blockllm::{DType, HostTensors, Slices};
use rayon::ThreadPool;
use std::fmt::{self, Debug};
use std::marker::PhantomData;
use std::sync::Arc;

/// Coordinates that one thread works on before it is worth waking another: some 20 µs of an update.
const GRAIN: usize = 1 << 14;

/// What a backend has made since it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Buffers: of the arena, of scratch, and for readbacks.
    pub allocations: usize,
    /// Readbacks.
    pub readbacks: usize,
}

/// The threaded host backend. See the [crate](crate) for what it shares out.
pub struct Cpu<T: HostTensors = Slices> {
    pool: Option<Arc<ThreadPool>>,
    pub(crate) grain: usize,
    pub(crate) histograms: Histograms,
    pub(crate) counts: Counts,
    tensors: PhantomData<fn() -> T>,
}

impl<T: HostTensors> Default for Cpu<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: HostTensors> Debug for Cpu<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threads = self.pool.as_ref().map(|pool| pool.current_num_threads());
        f.debug_struct("Cpu").field("threads", &threads).field("grain", &self.grain).field("counts", &self.counts).finish()
    }
}

impl<T: HostTensors> Cpu<T> {
    /// On the threads of the rayon pool that each operation is called in; elsewhere on those of rayon's global pool.
    pub fn new() -> Self {
        Self { pool: None, grain: GRAIN, histograms: Histograms::default(), counts: Counts::default(), tensors: PhantomData }
    }

    /// On the threads of this pool, whichever thread calls.
    pub fn in_pool(pool: Arc<ThreadPool>) -> Self {
        Self { pool: Some(pool), ..Self::new() }
    }

    /// Sets how many coordinates (elements of a tensor) one thread takes at a time: less work than this is never shared
    /// out. Rounded up to a power of two, at least 1024; 16384 where it is not set. Results do not depend on it.
    #[must_use]
    pub fn grain(self, coordinates: usize) -> Self {
        Self { grain: coordinates.clamp(LEAF, 1 << 30).next_power_of_two(), ..self }
    }

    /// What it has made so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Runs work on so many coordinates, which cuts itself into parts where they are more than the grain.
    pub(crate) fn run<R: Send>(&self, coordinates: usize, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) if coordinates > self.grain => pool.install(work),
            _ => work(),
        }
    }

    /// Scratch for masks of blocks of so many coordinates.
    pub(crate) fn reserve(&mut self, largest: usize) -> Result<(), CpuError<T::Error>> {
        let allocated = self.histograms.reserve(largest, self.grain);
        let allocated = allocated.map_err(|len| CpuError::OutOfMemory { dtype: DType::U32, len })?;
        self.counts.allocations += usize::from(allocated);
        Ok(())
    }
}
