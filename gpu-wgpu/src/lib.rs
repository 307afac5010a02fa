//! BlockLLM on any GPU: the backend of [`blockllm`] as WGSL compute shaders, by way of [`wgpu`] (Vulkan, Metal, Direct3D 12,
//! OpenGL ES, WebGPU).
//!
//! You bring the device and the queue, and tensors in buffers of your own; the optimizer moves them in place. A parameter
//! and its gradient may lie in one buffer, at any element.
//!
//! ```no_run
//! use blockllm::{BlockSpec, Config, DType, Optimizer, Step};
//! use blockllm_wgpu::wgpu::{BufferDescriptor, BufferUsages};
//! use blockllm_wgpu::{Tensor, Wgpu};
//!
//! let (device, queue) = blockllm_wgpu::open_blocking()?; // or those that you have
//! let n = 512 * 512;
//! let blocks = [BlockSpec::new("layer.0", [512, 512]).dtype(DType::Bf16), BlockSpec::new("layer.1", [512, 512]).dtype(DType::Bf16)];
//! let mut optimizer = Optimizer::new(Wgpu::new(&device, &queue)?, &blocks, Config::default())?;
//! let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
//! let size = 4 * 2 * n as u64; // weights and gradients of both
//! let buffer = device.create_buffer(&BufferDescriptor { label: None, size, usage, mapped_at_creation: false });
//! let tensor = |i: u64| Tensor::new(&buffer, i * n as u64, n, DType::Bf16);
//! let (weights, gradients) = ([tensor(0)?, tensor(1)?], [tensor(2)?, tensor(3)?]);
//! for _ in 0..1000 {
//!     let loss = 1.0; // submit a forward and a backward pass to the queue
//!     let [a, b] = &weights;
//!     let mut params = [(0, a), (1, b)];
//!     let _ = optimizer.step(Step::new(1e-3).loss(loss), |block| Some(&gradients[block as usize]), &mut params)?;
//!     optimizer.wait()?; // or poll, where nothing may block
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What agrees, and how nearly
//!
//! Parameters and gradients are f32, f16 or bf16; arithmetic is f32. WGSL has no f64, lets products and sums fuse, divides
//! within 2.5 ulp and may take denormals for zero. So:
//!
//! | | against the reference |
//! |---|---|
//! | masks and prefix counts, counters, step counts, powers of beta, packed copies, carried moments | to the bit |
//! | 1-beta^t, its root, f(clip), sums of units, norm and clip of a given sum | to the bit: f64 in integer arithmetic |
//! | whether a step is skipped, f(g * inv_loss_scale) of guard and scores, 16-bit types | to the bit, denormals too |
//! | sums of squares (A2.3) | 24 roundings of f32, 1.5e-6 relative, for every finite input |
//! | norm and clip factor | half of that |
//! | moments and parameters | as far as WGSL's f32 goes: a few ulp of each term |
//!
//! What rests on NaN, infinity or a denormal is decided on bits, never by comparing floats: a shader compiler may assume that
//! they do not exist. The arena holds true f64 bits, so a record made here goes on anywhere.
//!
//! # What a step costs
//!
//! One submission for a whole step, one for each streamed gradient; a step that neither decides nor switches makes no
//! buffer and reads nothing back ([`Wgpu::counts`]). The numbers of all its launches go up in one write. Launches grow with
//! the number of blocks: four for an active one, two for a score, one for a sign step, some fifteen for a new mask.
//!
//! Pipelines are compiled when they are first used; [`Kernels`] shares them between optimizers on one device.
//!
//! # Limits and errors
//!
//! Bindings larger than `max_storage_buffer_binding_size` are cut into pieces, at any offset, and grids larger than
//! `max_compute_workgroups_per_dimension` loop; results are the same. A block may have 2^31 coordinates. f64 blocks are
//! refused with the block's name.
//!
//! Errors are caught by error scopes around each operation; the device's handlers of uncaptured errors and of its loss stay
//! yours. A lost device is seen by the next readback, which is then an error and never zeros.
//!
//! # In a browser
//!
//! Features `webgpu` without the defaults, target `wasm32-unknown-unknown`. Nothing blocks: [`open`] is awaited, and the
//! optimizer is polled between frames.
//!
//! # Where to look
//!
//! `shaders/` has one kernel a file, named as the reference's functions are, and `shaders/lib/` what they share;
//! `src/operations/` cuts each operation into launches.
//!
//! # Features
//!
//! `vulkan` (default), `metal`, `dx12`, `gles`, `webgpu`: wgpu's, of the same names.

#[cfg(test)]
mod arithmetic;
mod backend;
mod buffer;
mod control;
mod device;
mod error;
mod kernel;
mod operations;
mod recorder;
mod scope;
mod scratch;
mod tensor;
mod window;

pub use backend::Wgpu;
pub use buffer::{Buffer, Ticket};
#[cfg(not(target_arch = "wasm32"))]
pub use device::open_blocking;
pub use device::{open, open_adapter};
pub use error::Error;
pub use kernel::Kernels;
pub use recorder::Counts;
pub use tensor::Tensor;
pub use wgpu;

#[cfg(not(target_arch = "wasm32"))]
const _: fn() = || {
    fn crosses_threads<T: Send>() {}
    crosses_threads::<Wgpu>();
    crosses_threads::<Buffer>();
    crosses_threads::<Ticket>();
    crosses_threads::<Tensor>();
};
