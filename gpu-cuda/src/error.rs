//! What goes wrong on a device, and where.

use blockllm::{BackendError, DType, ErrorKind};
use core::fmt::{self, Display};
use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult;

/// Why an operation failed. Kernels and copies run later than the call that queues them: an error of one surfaces at a later
/// call, whose name it then bears.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Error {
    /// No driver's library (`libcuda.so.1`, `nvcuda.dll`) is found.
    NoDriver,
    /// The driver's own error.
    Driver {
        /// What was being done.
        operation: &'static str,
        /// The driver's error.
        error: DriverError,
    },
    /// A kernel cannot be loaded.
    Kernel {
        /// Its file.
        kernel: &'static str,
        /// The newest CUDA that the driver knows, as 1000 * major + 10 * minor.
        driver: i32,
        /// The driver's error.
        error: DriverError,
    },
    /// A tensor of another context than the stream that is to use it.
    OtherContext {
        /// The tensor's device.
        tensor: usize,
        /// The stream's device.
        stream: usize,
    },
    /// An element type or a choice that this version has no kernel for.
    NoKernel {
        /// The operation.
        operation: &'static str,
        /// Of the tensor.
        dtype: DType,
    },
}

/// The CUDA version whose drivers take the PTX that ships, as the driver numbers it.
pub(crate) const OLDEST_DRIVER: i32 = 12_000;

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDriver => f.write_str("no CUDA driver: its library (libcuda.so.1, nvcuda.dll) is not found"),
            Self::Driver { operation, error } => write!(f, "{operation}: {}", Described(error)),
            Self::Kernel { kernel, driver, error } => {
                write!(f, "kernel {kernel} cannot be loaded: {}", Described(error))?;
                if *driver >= OLDEST_DRIVER {
                    return Ok(());
                }
                let cuda = |version: i32| (version / 1000, version % 1000 / 10);
                let ((has, has_minor), (needs, needs_minor)) = (cuda(*driver), cuda(OLDEST_DRIVER));
                write!(f, "; the driver is for CUDA {has}.{has_minor}, CUDA {needs}.{needs_minor} is needed")
            }
            Self::OtherContext { tensor, stream } => {
                write!(f, "a tensor of another context than the stream's: devices {tensor} and {stream}")
            }
            Self::NoKernel { operation, dtype } => write!(f, "{operation}: there is no kernel for {dtype}"),
        }
    }
}

/// The driver's name of an error, and what it says of it.
struct Described<'a>(&'a DriverError);

impl Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.0)?;
        match self.0.error_string() {
            Ok(text) => write!(f, " ({})", text.to_string_lossy()),
            Err(_) => Ok(()),
        }
    }
}

impl core::error::Error for Error {}

impl BackendError for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Driver { error, .. } => kind(error.0),
            Self::Kernel { error, .. } => match kind(error.0) {
                ErrorKind::Other => ErrorKind::Launch,
                known => known,
            },
            Self::OtherContext { .. } => ErrorKind::Tensor,
            Self::NoKernel { .. } => ErrorKind::Unsupported,
            Self::NoDriver => ErrorKind::Other,
        }
    }
}

/// After an error of a running kernel the context is of no use any more: the driver returns it for ever.
fn kind(error: CUresult) -> ErrorKind {
    use CUresult as E;
    match error {
        E::CUDA_ERROR_OUT_OF_MEMORY => ErrorKind::OutOfMemory,
        E::CUDA_ERROR_ILLEGAL_ADDRESS
        | E::CUDA_ERROR_LAUNCH_FAILED
        | E::CUDA_ERROR_LAUNCH_TIMEOUT
        | E::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | E::CUDA_ERROR_MISALIGNED_ADDRESS
        | E::CUDA_ERROR_INVALID_ADDRESS_SPACE
        | E::CUDA_ERROR_INVALID_PC
        | E::CUDA_ERROR_HARDWARE_STACK_ERROR
        | E::CUDA_ERROR_ASSERT
        | E::CUDA_ERROR_ECC_UNCORRECTABLE
        | E::CUDA_ERROR_NVLINK_UNCORRECTABLE
        | E::CUDA_ERROR_CONTEXT_IS_DESTROYED
        | E::CUDA_ERROR_INVALID_CONTEXT
        | E::CUDA_ERROR_NO_DEVICE
        | E::CUDA_ERROR_DEVICE_UNAVAILABLE
        | E::CUDA_ERROR_DEINITIALIZED
        | E::CUDA_ERROR_EXTERNAL_DEVICE => ErrorKind::DeviceLost,
        E::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES
        | E::CUDA_ERROR_INVALID_PTX
        | E::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
        | E::CUDA_ERROR_NO_BINARY_FOR_GPU
        | E::CUDA_ERROR_JIT_COMPILER_NOT_FOUND
        | E::CUDA_ERROR_INVALID_IMAGE
        | E::CUDA_ERROR_NOT_FOUND => ErrorKind::Launch,
        _ => ErrorKind::Other,
    }
}

/// Names what the driver was asked for.
pub(crate) trait During<T> {
    fn during(self, operation: &'static str) -> Result<T, Error>;
}

impl<T> During<T> for Result<T, DriverError> {
    fn during(self, operation: &'static str) -> Result<T, Error> {
        self.map_err(|error| Error::Driver { operation, error })
    }
}
