//! The caller's tensors.

use crate::error::Error;
use blockllm::{DType, Info};
use core::fmt::{self, Debug};
use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{CudaStream, CudaView, CudaViewMut, DeviceSlice, SyncOnDrop};
use half::{bf16, f16};

mod sealed {
    pub trait Sealed {}
}

/// An element type that tensors may have.
pub trait Element: sealed::Sealed {
    /// Its tag.
    const DTYPE: DType;
}

macro_rules! element {
    ($($t:ty, $dtype:ident;)*) => {
        $(
            impl sealed::Sealed for $t {}
            impl Element for $t {
                const DTYPE: DType = DType::$dtype;
            }
        )*
    };
}

element! {
    f16, F16;
    bf16, Bf16;
    f32, F32;
    f64, F64;
}

/// A contiguous run of device memory of the caller's, to read: a gradient.
pub struct Tensor<'a> {
    address: CUdeviceptr,
    len: usize,
    dtype: DType,
    /// Tells cudarc's other streams, when it is dropped, how far this one has to be waited for.
    _ordering: Option<SyncOnDrop<'a>>,
}

/// A contiguous run of device memory of the caller's, to read and write: a parameter.
pub struct TensorMut<'a>(Tensor<'a>);

impl<'a> Tensor<'a> {
    /// A view of cudarc's, for work on `stream`, which is the backend's. It waits for what other streams still write there.
    /// Keep it until the call that it is handed to has returned.
    ///
    /// # Errors
    /// Where view and stream are of two contexts.
    pub fn new<T: Element>(view: CudaView<'a, T>, stream: &'a CudaStream) -> Result<Self, Error> {
        check(view.stream(), stream)?;
        let len = view.len();
        let (address, ordering) = view.view_ptr(stream);
        Ok(Self { address, len, dtype: T::DTYPE, _ordering: Some(ordering) })
    }

    /// From an address of another library's: a framework's tensor.
    ///
    /// # Safety
    /// `address` is that of `len` elements of `dtype` in memory that the stream's device can reach in the stream's context,
    /// aligned to the element's size; they stay there until the work that the backend queues with this tensor has run, and
    /// nothing writes to them until then but in the order of the backend's stream.
    pub unsafe fn from_raw(address: CUdeviceptr, len: usize, dtype: DType) -> Self {
        Self { address, len, dtype, _ordering: None }
    }

    pub(crate) fn address(&self) -> CUdeviceptr {
        self.address
    }

    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    pub(crate) fn info(&self) -> Info {
        Info { len: self.len, dtype: self.dtype, contiguous: true }
    }
}

impl<'a> TensorMut<'a> {
    /// A view of cudarc's, for work on `stream`, which is the backend's. It waits for what other streams still do there.
    /// Keep it until the call that it is handed to has returned.
    ///
    /// # Errors
    /// Where view and stream are of two contexts.
    pub fn new<T: Element>(view: CudaViewMut<'a, T>, stream: &'a CudaStream) -> Result<Self, Error> {
        check(view.stream(), stream)?;
        let len = view.len();
        let (address, ordering) = view.view_ptr_mut(stream);
        Ok(Self(Tensor { address, len, dtype: T::DTYPE, _ordering: Some(ordering) }))
    }

    /// From an address of another library's: a framework's tensor.
    ///
    /// # Safety
    /// That of [`Tensor::from_raw`]; besides, nothing else reads or writes the elements but in the order of the backend's
    /// stream, and they overlap no other tensor of the same call.
    pub unsafe fn from_raw(address: CUdeviceptr, len: usize, dtype: DType) -> Self {
        // SAFETY: the caller's word.
        Self(unsafe { Tensor::from_raw(address, len, dtype) })
    }

    pub(crate) fn as_tensor(&self) -> &Tensor<'a> {
        &self.0
    }
}

fn check(slice: &CudaStream, stream: &CudaStream) -> Result<(), Error> {
    let (of_slice, of_stream) = (slice.context(), stream.context());
    if of_slice.cu_ctx() == of_stream.cu_ctx() {
        return Ok(());
    }
    Err(Error::OtherContext { tensor: of_slice.ordinal(), stream: of_stream.ordinal() })
}

impl Debug for Tensor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {} at {:#x}", self.len, self.dtype, self.address)
    }
}

impl Debug for TensorMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Debug::fmt(&self.0, f)
    }
}
