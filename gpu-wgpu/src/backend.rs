//! The backend.

use crate::buffer::{Buffer, Ticket};
use crate::error::Error;
use crate::kernel::Kernels;
use crate::operations::Work;
use crate::recorder::{Counts, Recorder};
use crate::scratch::Scratch;
use crate::tensor::Tensor;
use crate::window::Split;
use blockllm::adam::Hyper;
use blockllm::backend::{Arena, Measure, Moment, Parameter, Seal, Work as Step};
use blockllm::block::{BlockId, Blocks};
use blockllm::moments::Region;
use blockllm::{Backend, Config, DType, Info, MaskKind, View, ViewMut};
use wgpu::{Device, Limits, Queue};

/// Most coordinates of a block: indices and strides of the shaders are of 32 bits.
const LARGEST_BLOCK: usize = 1 << 31;

/// The backend on a device and a queue that the caller brings. See the [crate](crate).
pub struct Wgpu {
    work: Work,
}

impl core::fmt::Debug for Wgpu {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Wgpu").field("split", &self.work.split).field("counts", &self.work.recorder.counts).finish()
    }
}

impl Wgpu {
    /// On this device and this queue; both are handles, and stay the caller's.
    ///
    /// # Errors
    /// A device whose limits are below those that every WebGPU device has.
    pub fn new(device: &Device, queue: &Queue) -> Result<Self, Error> {
        Self::with_kernels(device, queue, &Kernels::new(device))
    }

    /// The same with pipelines that other backends on this device have made, or will.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_kernels(device: &Device, queue: &Queue, kernels: &Kernels) -> Result<Self, Error> {
        let limits = device.limits();
        check_limits(&limits)?;
        let recorder = Recorder::new(device.clone(), queue.clone(), kernels.clone())?;
        Ok(Self { work: Work { recorder, split: Split::new(&limits), scratch: None } })
    }

    /// Binds at most `binding` bytes of a tensor or an arena at a time, and launches at most `workgroups` workgroups: less
    /// than the device can, never more. Results are the same; for tests.
    #[must_use]
    pub fn with_lower_limits(mut self, binding: u64, workgroups: u32) -> Self {
        self.work.split = self.work.split.lowered(binding, workgroups);
        self
    }

    /// What was done on the device so far.
    pub fn counts(&self) -> Counts {
        self.work.recorder.counts
    }

    fn scoped<R>(&mut self, operation: &'static str, f: impl FnOnce(&mut Work) -> Result<R, Error>) -> Result<R, Error> {
        let scope = self.work.recorder.open_scope();
        let done = f(&mut self.work);
        self.work.recorder.close_scope(scope, operation)?;
        done
    }
}

fn check_limits(limits: &Limits) -> Result<(), Error> {
    let needs = [
        ("max_storage_buffers_per_shader_stage", u64::from(limits.max_storage_buffers_per_shader_stage), 8),
        ("max_compute_invocations_per_workgroup", u64::from(limits.max_compute_invocations_per_workgroup), 256),
        ("max_compute_workgroup_size_x", u64::from(limits.max_compute_workgroup_size_x), 256),
        ("max_compute_workgroup_storage_size", u64::from(limits.max_compute_workgroup_storage_size), 4352),
        ("max_storage_buffer_binding_size", limits.max_storage_buffer_binding_size, 64 << 10),
    ];
    match needs.into_iter().find(|(_, have, need)| have < need) {
        Some((name, have, need)) => {
            Err(Error::Unsupported { what: format!("the device's {name} is {have}, and {need} is needed") })
        }
        None => Ok(()),
    }
}

/// What no shader here can do.
fn check_blocks(blocks: &Blocks, limits: &Limits) -> Result<(), Error> {
    let unsupported = |what: String| Err(Error::Unsupported { what });
    for spec in &blocks.specs {
        if !matches!(spec.dtype, DType::F32 | DType::F16 | DType::Bf16) {
            let (name, dtype) = (&spec.name, spec.dtype);
            return unsupported(format!(
                "block {name}: {dtype}, and shaders have no {dtype}: use f32, f16 or bf16, or a host backend"
            ));
        }
        if spec.len() > LARGEST_BLOCK {
            return unsupported(format!("block {}: {} coordinates, and {LARGEST_BLOCK} is the most", spec.name, spec.len()));
        }
    }
    // Powers of beta are the largest table by block: 32 bytes each.
    let (bytes, most) = (32 * blocks.count() as u64, limits.max_storage_buffer_binding_size);
    if bytes > most {
        return unsupported(format!("{} blocks: their table has {bytes} bytes, and the device binds {most}", blocks.count()));
    }
    Ok(())
}

impl Backend for Wgpu {
    type Error = Error;
    type Buffer = Buffer;
    type Ticket = Ticket;
    type Param<'a> = &'a Tensor;
    type Grad<'a> = &'a Tensor;

    fn param_info(p: &&Tensor) -> Info {
        p.info()
    }

    fn grad_info(g: &&Tensor) -> Info {
        g.info()
    }

    fn prepare(&mut self, blocks: &Blocks, config: &Config) -> Result<(), Error> {
        check_blocks(blocks, &self.work.recorder.device.limits())?;
        self.work.scratch = Some(Scratch::new(&mut self.work.recorder, blocks, config.mask)?);
        Ok(())
    }

    fn scratch_bytes(&self) -> usize {
        let tables = self.work.scratch.as_ref().map_or(0, Scratch::bytes);
        (tables + self.work.recorder.control_bytes()) as usize
    }

    fn alloc(&mut self, dtype: DType, len: usize) -> Result<Buffer, Error> {
        Buffer::new(&mut self.work.recorder, dtype, len)
    }

    fn zero(&mut self, buffer: &mut Buffer, at: usize, len: usize) -> Result<(), Error> {
        self.scoped("zero", |w| {
            buffer.zero(&mut w.recorder, at, len);
            Ok(())
        })
    }

    fn copy(&mut self, from: &Buffer, to: &mut Buffer, len: usize) -> Result<(), Error> {
        self.scoped("copy", |w| {
            from.copy(&mut w.recorder, to, len);
            Ok(())
        })
    }

    fn write(&mut self, to: &mut Buffer, at: usize, from: View<'_>) -> Result<(), Error> {
        to.write(&mut self.work.recorder, at, from)
    }

    fn read(&mut self, from: &Buffer, at: usize, len: usize) -> Result<Ticket, Error> {
        self.scoped("read", |w| from.read(&mut w.recorder, at, len))
    }

    fn poll(&mut self, ticket: &mut Ticket, to: ViewMut<'_>) -> Result<bool, Error> {
        ticket.poll(&mut self.work.recorder, to)
    }

    fn gather(&mut self, a: &mut Arena<Buffer>, r: &Region, g: &&Tensor, add: bool) -> Result<(), Error> {
        self.scoped("gather", |w| w.gather(a, r, g, add))
    }

    fn build_mask(&mut self, a: &mut Arena<Buffer>, r: &Region, g: &&Tensor, kind: MaskKind) -> Result<(), Error> {
        self.scoped("build_mask", |w| w.build_mask(a, r, g, kind))
    }

    fn score(
        &mut self, a: &mut Arena<Buffer>, block: BlockId, g: &&Tensor, h: &Hyper, measure: Measure<'_>,
    ) -> Result<(), Error> {
        self.scoped("score", |w| w.score(a, block, g, h, measure))
    }

    fn state_free(&mut self, a: &mut Arena<Buffer>, r: &Region, g: &&Tensor, p: &mut &Tensor, h: &Hyper) -> Result<(), Error> {
        self.scoped("state_free", |w| w.state_free(a, r, g, p, h))
    }

    fn seal(&mut self, a: &mut Arena<Buffer>, w: &Step<'_>, part: Seal) -> Result<(), Error> {
        self.scoped("seal", |work| work.seal(a, w, part))
    }

    fn enter_scores(&mut self, a: &mut Arena<Buffer>, w: &Step<'_>) -> Result<(), Error> {
        self.scoped("enter_scores", |work| work.enter_scores(a, w))
    }

    fn clear(&mut self, a: &mut Arena<Buffer>, r: &Region) -> Result<(), Error> {
        self.scoped("clear", |w| w.clear(a, r))
    }

    fn carry(&mut self, a: &mut Arena<Buffer>, moment: Moment, old: Option<&Region>, new: &Region) -> Result<(), Error> {
        self.scoped("carry", |w| w.carry(a, moment, old, new))
    }

    fn update(
        &mut self, a: &mut Arena<Buffer>, r: &Region, old: Option<&Region>, p: &mut &Tensor, h: &Hyper,
    ) -> Result<(), Error> {
        self.scoped("update", |w| {
            w.coefficients(a, &[r.block], h, false)?;
            w.update(a, r, old, p, h)
        })
    }

    /// The coefficients of all blocks in one launch.
    fn update_all(&mut self, a: &mut Arena<Buffer>, step: &Step<'_>, params: &mut [Parameter<&Tensor>]) -> Result<(), Error> {
        if step.active.is_empty() {
            return Ok(());
        }
        self.scoped("update", |w| {
            let blocks: Vec<BlockId> = step.active.iter().map(|r| r.block).collect();
            w.coefficients(a, &blocks, &step.hyper, false)?;
            let mut rest = params.iter();
            for r in step.active {
                if let Some((_, p)) = rest.find(|(block, _)| *block == r.block) {
                    w.update(a, r, step.stays(r), p, &step.hyper)?;
                }
            }
            Ok(())
        })
    }

    fn submit(&mut self) -> Result<(), Error> {
        self.work.recorder.submit()
    }

    /// Leaves the processor to others for a moment; in a browser, which cannot wait, not at all.
    fn relax(&mut self) {
        #[cfg(not(target_arch = "wasm32"))]
        std::thread::sleep(core::time::Duration::from_micros(20));
    }
}
