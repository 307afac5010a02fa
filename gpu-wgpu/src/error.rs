//! What goes wrong on a device, in one line that says where.

use blockllm::{BackendError, ErrorKind};
use core::fmt::{self, Display};

/// An error of this backend.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Error {
    /// No adapter, or none that gives a device.
    NoDevice {
        /// What was looked for, and what came of it.
        looked_for: String,
    },
    /// Something that this device, or any GPU by way of WGSL, does not do.
    Unsupported {
        /// What, and what there is instead.
        what: String,
    },
    /// The caller's tensor does not lie in its buffer, or cannot be bound.
    Tensor {
        /// What is wrong with it, with both numbers.
        problem: String,
    },
    /// Memory could not be had.
    OutOfMemory {
        /// What for.
        operation: &'static str,
        /// The driver's or the device's word.
        message: String,
    },
    /// The device refused recorded work.
    Launch {
        /// Which.
        operation: &'static str,
        /// Its word.
        message: String,
    },
    /// The device is gone, or its memory can no longer be read.
    DeviceLost {
        /// What was being done.
        operation: &'static str,
    },
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDevice { looked_for } => write!(f, "no device: {looked_for}"),
            Self::Unsupported { what } => f.write_str(what),
            Self::Tensor { problem } => write!(f, "tensor: {problem}"),
            Self::OutOfMemory { operation, message } => write!(f, "{operation}: out of device memory: {message}"),
            Self::Launch { operation, message } => write!(f, "{operation}: {message}"),
            Self::DeviceLost { operation } => write!(f, "{operation}: the device is lost"),
        }
    }
}

impl core::error::Error for Error {}

impl BackendError for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Tensor { .. } => ErrorKind::Tensor,
            Self::OutOfMemory { .. } => ErrorKind::OutOfMemory,
            Self::Launch { .. } => ErrorKind::Launch,
            Self::DeviceLost { .. } => ErrorKind::DeviceLost,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::NoDevice { .. } => ErrorKind::Other,
        }
    }
}

impl Error {
    /// A wgpu error on one line, with its causes.
    pub(crate) fn from_wgpu(operation: &'static str, error: &wgpu::Error) -> Self {
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            message = format!("{message}: {inner}");
            cause = inner.source();
        }
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        match error {
            wgpu::Error::OutOfMemory { .. } => Self::OutOfMemory { operation, message },
            wgpu::Error::Validation { .. } | wgpu::Error::Internal { .. } => Self::Launch { operation, message },
        }
    }
}
