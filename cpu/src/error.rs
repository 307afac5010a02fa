//! What the backend fails with.

use blockllm::{BackendError, DType, ErrorKind};
use std::fmt::{self, Debug, Display};

/// What the backend fails with; `E` is the tensors' own error.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CpuError<E> {
    /// The caller's tensor could not be reached.
    Tensor(E),
    /// The system has no memory for a buffer.
    OutOfMemory {
        /// Its element type.
        dtype: DType,
        /// Elements of it.
        len: usize,
    },
}

impl<E: Display> Display for CpuError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tensor(e) => Display::fmt(e, f),
            Self::OutOfMemory { dtype, len } => write!(f, "no memory for {len} elements of {dtype}"),
        }
    }
}

impl<E: Debug + Display> std::error::Error for CpuError<E> {}

impl<E: Debug + Display> BackendError for CpuError<E> {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Tensor(_) => ErrorKind::Tensor,
            Self::OutOfMemory { .. } => ErrorKind::OutOfMemory,
        }
    }
}
