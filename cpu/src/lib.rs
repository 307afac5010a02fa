//! BlockLLM's fast host backend: the engine of [`blockllm`] on all cores.
//!
//! ```
//! use blockllm::{BlockSpec, Config, Optimizer, Slices, Step, View, ViewMut};
//! use blockllm_cpu::Cpu;
//!
//! let blocks = [BlockSpec::new("embedding", [100, 64]), BlockSpec::new("head", [64, 100])];
//! let mut optimizer = Optimizer::new(Cpu::<Slices>::default(), &blocks, Config::default())?;
//! let mut weights = vec![vec![0.1f32; 6400]; 2];
//! for _ in 0..20 {
//!     let gradients: Vec<Vec<f32>> = weights.iter().map(|w| w.iter().map(|x| x - 1.0).collect()).collect();
//!     let mut params: Vec<_> = (0..).zip(weights.iter_mut().map(|w| ViewMut::F32(w))).collect();
//!     let _ = optimizer.step(Step::new(0.05), |block| Some(View::F32(&gradients[block as usize])), &mut params)?;
//!     optimizer.wait()?;
//! }
//! assert!(weights.iter().flatten().all(|x| (x - 1.0).abs() < 0.2));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Threads.** Work on more coordinates than the [grain](Cpu::grain), 16384 where it is not set, is shared out over the
//! threads of the rayon pool that the optimizer is called in, or of [a pool of the caller's](Cpu::in_pool): blocks side by
//! side, large blocks in parts. Less stays on the thread that calls.
//!
//! **Bits.** Every operation leaves what [`blockllm::Reference`] leaves, to the bit, whatever the number of threads and the
//! grain: elements are computed one by one, nothing is fused, and sums follow the tree of A2.2, whose subtrees are what
//! the threads compute. NaNs are NaNs, but their bits are not specified.
//!
//! **Tensors** are any [`HostTensors`](blockllm::HostTensors) whose parameters are `Send`, gradients `Sync` and errors
//! `Send`. Callbacks for different tensors run at the same time, on the pool's threads or the caller's, and while one runs
//! its thread may take up another's: what a callback for a parameter locks, no other tensor of the step may need. A gradient
//! is reached once, and once more for a mask; a parameter once for each part of the step that moves it.
//!
//! **Memory** beside the arena is a histogram for each of the strips in which the mask of the largest block is built: 8 KiB
//! for every grain of coordinates, at most 256 KiB. A step that neither decides nor switches allocates nothing.
#![forbid(unsafe_code)]

mod active;
mod backend;
mod buffers;
mod compute;
mod cpu;
mod error;
mod kernels;
mod parallel;

pub use cpu::{Counts, Cpu};
pub use error::CpuError;
