//! A device for tests, and the caller's memory on it.
//!
//! All tensors of a harness lie in two buffers, one after another, each behind an element that is no one's: parameters,
//! gradients and guards are neighbours in words, bindings and buffers; some pairs are of one buffer, some of two.

use blockllm::{Backend, DType, View};
use blockllm_conformance::harness::{Agreement, Counts, Harness};
use blockllm_conformance::host::Host;
use blockllm_wgpu::{Kernels, Tensor, Wgpu};
use half::{bf16, f16};
use std::sync::OnceLock;
use wgpu::{Buffer, BufferDescriptor, BufferUsages, Device, MapMode, PollType, Queue};

/// Bytes of the buffer that tensors are put into.
const SLAB: u64 = 1 << 20;
/// What lies around tensors.
const GUARD: u8 = 0xa5;

/// The device of this process.
pub struct Gpu {
    pub device: Device,
    pub queue: Queue,
    pub kernels: Kernels,
}

pub fn gpu() -> Result<&'static Gpu, String> {
    static GPU: OnceLock<Result<Gpu, String>> = OnceLock::new();
    let open = || {
        let (device, queue) = blockllm_wgpu::open_blocking().map_err(|e| e.to_string())?;
        let adapter = device.adapter_info();
        println!("wgpu on {:?} by way of {:?}", adapter.name, adapter.backend);
        Ok(Gpu { kernels: Kernels::new(&device), device, queue })
    };
    GPU.get_or_init(open).as_ref().map_err(Clone::clone)
}

/// A buffer that is filled from the front.
pub struct Slab {
    gpu: &'static Gpu,
    buffer: Buffer,
    used: u64,
}

/// A tensor, with the bytes around it that no kernel may change.
pub struct Placed {
    pub tensor: Tensor,
    start: u64,
    bytes: u64,
}

fn buffer(device: &Device, size: u64, usage: BufferUsages) -> Buffer {
    device.create_buffer(&BufferDescriptor { label: Some("tensors"), size, usage, mapped_at_creation: false })
}

impl Slab {
    pub fn new(gpu: &'static Gpu) -> Self {
        Self::of(gpu, SLAB)
    }

    fn of(gpu: &'static Gpu, bytes: u64) -> Self {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        Self { gpu, buffer: buffer(&gpu.device, bytes, usage), used: 0 }
    }

    pub fn upload(&mut self, x: View<'_>) -> Placed {
        let (dtype, elements) = (x.dtype(), Host::from_view(x).bytes());
        let guard = dtype.size();
        let mut bytes = vec![GUARD; guard];
        bytes.extend(&elements);
        bytes.resize((bytes.len() + 1).next_multiple_of(4), GUARD);
        if self.used + bytes.len() as u64 > self.buffer.size() {
            *self = Self::of(self.gpu, SLAB.max(bytes.len() as u64));
        }
        let start = self.used;
        self.used += bytes.len() as u64;
        self.gpu.queue.write_buffer(&self.buffer, start, &bytes);
        let offset = start / guard as u64 + 1;
        let tensor = Tensor::new(&self.buffer, offset, x.len(), dtype).expect("a tensor of the slab");
        Placed { tensor, start, bytes: bytes.len() as u64 }
    }

    /// Submits, waits, and checks the guards.
    pub fn download(&self, backend: &mut Wgpu, t: &Placed) -> Host {
        backend.submit().expect("recorded work");
        let bytes = self.read(t.tensor.buffer(), t.start, t.bytes);
        let (info, size) = (t.tensor.info(), t.tensor.info().dtype.size());
        let (before, rest) = bytes.split_at(size);
        let (elements, after) = rest.split_at(info.len * size);
        assert!(before.iter().chain(after).all(|b| *b == GUARD), "a neighbour was written to: {before:x?}, {after:x?}");
        host(elements, info.dtype)
    }

    fn read(&self, from: &Buffer, at: u64, bytes: u64) -> Vec<u8> {
        let staging = buffer(&self.gpu.device, bytes, BufferUsages::MAP_READ | BufferUsages::COPY_DST);
        let mut commands = self.gpu.device.create_command_encoder(&Default::default());
        commands.copy_buffer_to_buffer(from, at, &staging, 0, bytes);
        self.gpu.queue.submit([commands.finish()]);
        staging.map_async(MapMode::Read, .., |r| r.expect("a mapping"));
        self.gpu.device.poll(PollType::wait_indefinitely()).expect("the device");
        staging.slice(..).get_mapped_range().expect("a mapped buffer").to_vec()
    }
}

fn host(bytes: &[u8], dtype: DType) -> Host {
    match dtype {
        DType::F32 => Host::F32(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
        DType::F16 => Host::F16(bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b)).collect()),
        DType::Bf16 => Host::Bf16(bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b)).collect()),
        other => panic!("a tensor of {other}"),
    }
}

fn counts(backend: &Wgpu) -> Counts {
    let c = backend.counts();
    Counts { allocations: c.buffers, submissions: c.submissions, readbacks: c.readbacks }
}

/// This backend, held to at most so many bytes of a binding and workgroups of a launch.
pub struct OnWgpu<const BINDING: u64, const WORKGROUPS: u32> {
    gpu: &'static Gpu,
    slabs: [Slab; 2],
    uploads: usize,
}

impl<const BINDING: u64, const WORKGROUPS: u32> Harness for OnWgpu<BINDING, WORKGROUPS> {
    const NAME: &'static str = "wgpu";
    const AGREEMENT: Agreement = Agreement::Bounds;
    type Backend = Wgpu;
    type Tensor = Placed;

    fn open() -> Result<Self, String> {
        let gpu = gpu()?;
        Ok(Self { gpu, slabs: [Slab::new(gpu), Slab::new(gpu)], uploads: 0 })
    }

    fn backend(&mut self) -> Wgpu {
        let backend = Wgpu::with_kernels(&self.gpu.device, &self.gpu.queue, &self.gpu.kernels);
        backend.expect("a device with WebGPU's limits").with_lower_limits(BINDING, WORKGROUPS)
    }

    fn supports(dtype: DType) -> bool {
        matches!(dtype, DType::F32 | DType::F16 | DType::Bf16)
    }

    fn upload(&mut self, x: View<'_>) -> Placed {
        self.uploads += 1;
        self.slabs[self.uploads / 3 % 2].upload(x)
    }

    fn download(&mut self, backend: &mut Wgpu, t: &Placed) -> Host {
        self.slabs[0].download(backend, t)
    }

    fn param(t: &mut Placed) -> &Tensor {
        &t.tensor
    }

    fn grad(t: &Placed) -> &Tensor {
        &t.tensor
    }

    fn counts(backend: &Wgpu) -> Counts {
        counts(backend)
    }
}
