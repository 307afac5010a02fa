//! The contract of [`Backend`], on a stream.

mod gradient;
mod mask;
mod moving;
mod sealing;
mod ticket;

pub(crate) use sealing::{REGION_WORDS, UNIT_WORDS};
pub use ticket::{Counts, Ticket};

use crate::arguments::{Address, Arguments, UPLOAD_WORDS, Upload};
use crate::buffer::{Buffer, Pool, Tensor, TensorMut};
use crate::error::{During, Error};
use crate::kernels::Kernels;
use crate::launch::{self, Function, THREADS};
use crate::scratch::Scratch;
use blockllm::adam::Hyper;
use blockllm::backend::{Arena, Measure, Moment, Parameter, Seal, Work};
use blockllm::block::{BlockId, Blocks};
use blockllm::moments::Region;
use blockllm::{Backend, Config, DType, Info, MaskKind, View, ViewMut};
use cudarc::driver::CudaStream;
use cudarc::driver::sys::CUdevice_attribute_enum as Attribute;
use std::sync::Arc;

/// Thread blocks of a launch for each multiprocessor, at most: a few times what runs at once.
const WAVES: u32 = 16;

/// The backend: everything it does is queued on the stream that it was given, in order, and on no other.
#[derive(Debug)]
pub struct Cuda {
    stream: Arc<CudaStream>,
    kernels: Arc<Kernels>,
    scratch: Scratch,
    pool: Arc<Pool>,
    /// Thread blocks of a launch at most.
    widest: u64,
    counts: Counts,
    has_queued: bool,
    /// The tables of a step, kept for their memory.
    words: Vec<u64>,
}

type DeviceArena = Arena<Buffer>;

impl Cuda {
    /// On this stream, with kernels of its own.
    ///
    /// # Errors
    /// Those of [`Kernels::load`].
    pub fn new(stream: Arc<CudaStream>) -> Result<Self, Error> {
        let kernels = Kernels::load(stream.context())?;
        Self::with_kernels(kernels, stream)
    }

    /// On this stream, with kernels that are loaded into its context.
    ///
    /// # Errors
    /// Where kernels and stream are of two contexts.
    pub fn with_kernels(kernels: Arc<Kernels>, stream: Arc<CudaStream>) -> Result<Self, Error> {
        let (own, of_stream) = (kernels.context(), stream.context());
        if own.cu_ctx() != of_stream.cu_ctx() {
            return Err(Error::OtherContext { tensor: own.ordinal(), stream: of_stream.ordinal() });
        }
        let multiprocessors = own.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT).during("open a device")?;
        Ok(Self {
            scratch: Scratch::new(&stream)?,
            kernels,
            pool: Arc::default(),
            widest: u64::from(WAVES) * multiprocessors.max(1) as u64,
            counts: Counts::default(),
            has_queued: false,
            words: Vec::new(),
            stream,
        })
    }

    /// The stream that all work is queued on.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        Counts { allocations: self.counts.allocations + self.scratch.allocations, ..self.counts }
    }

    /// Queues a kernel with a thread block for each of `pieces`, or as many as are worth it: kernels go over the rest.
    fn launch<A: Arguments>(&mut self, function: &Function, pieces: u64, arguments: &A) -> Result<(), Error> {
        self.has_queued = true;
        let thread_blocks = pieces.clamp(1, self.widest) as u32;
        launch::launch(&self.stream, function, thread_blocks, arguments, A::KERNEL)
    }

    /// The same with a thread for each of `items`.
    fn launch_over<A: Arguments>(&mut self, function: &Function, items: usize, arguments: &A) -> Result<(), Error> {
        self.launch(function, (items as u64).div_ceil(THREADS), arguments)
    }

    /// Writes words to an address of scratch, as arguments of launches.
    fn upload(&mut self, to: Address, words: &[u64]) -> Result<(), Error> {
        let kernels = self.kernels.clone();
        for (i, chunk) in words.chunks(UPLOAD_WORDS).enumerate() {
            let at = to + (8 * UPLOAD_WORDS * i) as Address;
            let mut arguments = Upload { to: at, count: chunk.len() as u64, words: [0; UPLOAD_WORDS] };
            arguments.words[..chunk.len()].copy_from_slice(chunk);
            self.launch_over(kernels.upload.only(), chunk.len(), &arguments)?;
        }
        Ok(())
    }
}

/// Address of a region's mask in the buffer of a set's masks; 0 where it is whole or has no state.
fn mask_address(masks: &Buffer, r: &Region) -> Address {
    if r.masked() && r.k > 0 { masks.at(r.mask_at) } else { 0 }
}

impl Backend for Cuda {
    type Error = Error;
    type Buffer = Buffer;
    type Ticket = Ticket;
    type Param<'a> = TensorMut<'a>;
    type Grad<'a> = Tensor<'a>;

    fn param_info(p: &TensorMut<'_>) -> Info {
        p.as_tensor().info()
    }

    fn grad_info(g: &Tensor<'_>) -> Info {
        g.info()
    }

    fn prepare(&mut self, blocks: &Blocks, _: &Config) -> Result<(), Error> {
        self.has_queued = true;
        self.scratch.prepare(blocks)
    }

    fn scratch_bytes(&self) -> usize {
        self.scratch.bytes()
    }

    fn alloc(&mut self, dtype: DType, len: usize) -> Result<Buffer, Error> {
        let buffer = Buffer::zeros(&self.stream, dtype, len)?;
        self.has_queued |= len > 0;
        self.counts.allocations += usize::from(len > 0);
        Ok(buffer)
    }

    fn zero(&mut self, buffer: &mut Buffer, at: usize, len: usize) -> Result<(), Error> {
        self.has_queued = true;
        buffer.zero(at, len)
    }

    fn copy(&mut self, from: &Buffer, to: &mut Buffer, len: usize) -> Result<(), Error> {
        self.has_queued = true;
        to.copy_from(from, len)
    }

    fn write(&mut self, to: &mut Buffer, at: usize, from: View<'_>) -> Result<(), Error> {
        self.has_queued = true;
        to.write(at, from)
    }

    fn read(&mut self, from: &Buffer, at: usize, len: usize) -> Result<Ticket, Error> {
        self.has_queued = true;
        let (ticket, is_new) = Ticket::new(&self.stream, &self.pool, (from, at, len))?;
        self.counts.allocations += usize::from(is_new);
        self.counts.readbacks += 1;
        Ok(ticket)
    }

    fn poll(&mut self, ticket: &mut Ticket, to: ViewMut<'_>) -> Result<bool, Error> {
        ticket.poll(to)
    }

    fn gather(&mut self, a: &mut DeviceArena, r: &Region, g: &Tensor<'_>, add: bool) -> Result<(), Error> {
        self.queue_gather(a, r, g, add)
    }

    fn build_mask(&mut self, a: &mut DeviceArena, r: &Region, g: &Tensor<'_>, kind: MaskKind) -> Result<(), Error> {
        self.queue_build_mask(a, r, g, kind)
    }

    fn score(
        &mut self, a: &mut DeviceArena, block: BlockId, g: &Tensor<'_>, h: &Hyper, measure: Measure<'_>,
    ) -> Result<(), Error> {
        match measure {
            Measure::Gradient => self.queue_score(a, block, g, h),
            Measure::Processed { present, switching } => self.queue_score_processed(a, block, g, h, (present, switching)),
        }
    }

    fn state_free(
        &mut self, a: &mut DeviceArena, r: &Region, g: &Tensor<'_>, p: &mut TensorMut<'_>, h: &Hyper,
    ) -> Result<(), Error> {
        self.queue_state_free(a, r, g, p, h)
    }

    fn seal(&mut self, a: &mut DeviceArena, w: &Work<'_>, part: Seal) -> Result<(), Error> {
        let tables = self.tables(if part == Seal::Counters { &[] } else { w.summed }, &[], &[])?;
        self.queue_seal(a, w, part, &tables)
    }

    fn enter_scores(&mut self, a: &mut DeviceArena, w: &Work<'_>) -> Result<(), Error> {
        let tables = self.tables(&[], w.scored, w.members)?;
        self.queue_enter_scores(a, w, &tables)
    }

    fn clear(&mut self, a: &mut DeviceArena, r: &Region) -> Result<(), Error> {
        self.queue_clear(a, r)
    }

    fn carry(&mut self, a: &mut DeviceArena, moment: Moment, old: Option<&Region>, new: &Region) -> Result<(), Error> {
        self.queue_carry(a, moment, old, new)
    }

    fn update(
        &mut self, a: &mut DeviceArena, r: &Region, old: Option<&Region>, p: &mut TensorMut<'_>, h: &Hyper,
    ) -> Result<(), Error> {
        self.queue_update(a, r, old, p, h)
    }

    /// As the default, with one upload of all its tables.
    fn finish(&mut self, a: &mut DeviceArena, w: &Work<'_>, params: &mut [Parameter<TensorMut<'_>>]) -> Result<(), Error> {
        let tables = self.tables(w.summed, w.scored, w.members)?;
        self.queue_seal(a, w, Seal::Step, &tables)?;
        self.queue_enter_scores(a, w, &tables)?;
        self.switch(a, w)?;
        self.update_all(a, w, params)
    }

    fn submit(&mut self) -> Result<(), Error> {
        self.counts.submissions += usize::from(core::mem::take(&mut self.has_queued));
        Ok(())
    }

    fn relax(&mut self) {
        std::thread::yield_now();
    }
}
