//! BlockLLM on NVIDIA GPUs: CUDA kernels, shipped as PTX.
//!
//! [`Cuda`] is a backend for an [`Optimizer`](blockllm::Optimizer). It works on memory and on a stream of the caller's: a
//! tensor is a view of cudarc's or an address ([`Tensor`] for gradients, [`TensorMut`] for parameters), and all that the
//! backend does is queued on the one stream that it was given, in order. Whatever the caller queues there before a step is
//! seen by it; what it queues after, a forward pass or a reuse of the gradients' memory, sees the step's results.
//!
//! ```no_run
//! use blockllm::{BlockSpec, Config, Optimizer, Progress, Step};
//! use blockllm_cuda::{Cuda, Tensor, TensorMut};
//!
//! let context = blockllm_cuda::open(0)?;
//! let stream = context.new_stream()?;
//! let mut weights = stream.clone_htod(&vec![0.5f32; 1 << 20])?;
//! let gradient = stream.alloc_zeros::<f32>(1 << 20)?;
//!
//! let specs = [BlockSpec::new("weights", [1024, 1024])];
//! let mut optimizer = Optimizer::new(Cuda::new(stream.clone())?, &specs, Config::default())?;
//! for _ in 0..100 {
//!     let loss = 1.0; // a forward and a backward pass, which fills `gradient`
//!     let step = Step { loss: Some(loss), ..Step::new(1e-3) };
//!     let grads = |_| Tensor::new(gradient.as_view(), &stream).ok();
//!     let mut params = [(0, TensorMut::new(weights.as_view_mut(), &stream)?)];
//!     if optimizer.step(step, grads, &mut params)? == Progress::Pending {
//!         optimizer.wait()?; // once in a while: a decision is read from the device
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is promised
//!
//! - The reference's bits, for every operation and element type: nothing is fused or approximated, denormals are kept, sums
//!   of squares are f64 in the order of A2.2. Masks are exact, and are built on the device.
//! - A step that neither decides nor switches allocates nothing, copies nothing to or from the host and waits for nothing:
//!   its numbers go up as arguments of launches. [`Counts`] tells.
//! - Scratch is made beforehand: 8 bytes for every 16384 coordinates and for every 8192 of the largest block, and less than 100
//!   for each block.
//! - Errors of kernels surface at a later call, with that call's name; after one the device's context is lost, which every later
//!   call says.
//!
//! # What it needs
//!
//! To build: Rust. To run: a driver for CUDA 12.0 or later, and a device of compute capability 6.0 (Pascal) or later. The driver
//! compiles the PTX for the device the first time; [`Kernels`] can be shared by several backends of a context.
//!
//! # Layout
//!
//! `kernels/` holds the kernels, one a file, by the names of the reference's functions; `ptx/` what `cargo xtask ptx` makes of
//! them; `emulation/` a stand-in for the driver's library that runs the same sources on a CPU, for tests.

mod arguments;
mod backend;
mod buffer;
mod error;
mod kernels;
mod launch;
mod scratch;

pub use backend::{Counts, Cuda, Ticket};
pub use buffer::{Buffer, Element, Tensor, TensorMut};
pub use cudarc;
pub use error::Error;
pub use kernels::Kernels;
pub use launch::open;

// The contract's types go to other threads with their optimizer.
const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<Cuda>();
    is_send::<Buffer>();
    is_send::<Ticket>();
};
