//! BlockLLM on any GPU, by way of wgpu and WGSL.

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
