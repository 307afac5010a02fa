//! What the backend fails with: one line that names what and how much, and the portable kind that the engine passes on.

use super::device::OutOfMemory;
use blockllm::{BackendError, DType, ErrorKind};
use std::fmt;

/// See the module.
#[derive(Clone, PartialEq, Debug)]
pub enum ToyError {
    Unsupported { block: String, dtype: DType },
    OutOfMemory(OutOfMemory),
}

impl fmt::Display for ToyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported { block, dtype } => write!(f, "block {block}: the device computes in f32 alone, not {dtype}"),
            Self::OutOfMemory(e) => write!(f, "{} bytes of device memory asked for, {} are free", e.asked, e.free),
        }
    }
}

impl BackendError for ToyError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::OutOfMemory(_) => ErrorKind::OutOfMemory,
        }
    }
}
