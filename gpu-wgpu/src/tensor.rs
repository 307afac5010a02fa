//! The caller's tensors.

use crate::error::Error;
use blockllm::{DType, Info};
use wgpu::{Buffer, BufferUsages};

/// A flat run of elements in a buffer of the caller's, at any element. The handle is the caller's own buffer: nothing is
/// copied, and buffers may be shared by any number of tensors, a parameter and its gradient among them.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub(crate) buffer: Buffer,
    pub(crate) offset: u64,
    pub(crate) len: usize,
    pub(crate) dtype: DType,
}

impl Tensor {
    /// `len` elements of `buffer` from element `offset` on.
    ///
    /// # Errors
    /// A type that is not f32, f16 or bf16; elements beyond the end of the buffer; a buffer that shaders cannot reach
    /// (`STORAGE`). A 16-bit element is reached through its 32-bit word, so that too must lie inside.
    pub fn new(buffer: &Buffer, offset: u64, len: usize, dtype: DType) -> Result<Self, Error> {
        let problem = |problem: String| Err(Error::Tensor { problem });
        if !matches!(dtype, DType::F32 | DType::F16 | DType::Bf16) {
            return problem(format!("of {dtype}, and shaders here know f32, f16 and bf16"));
        }
        let size = dtype.size() as u64;
        let end = (len as u64).checked_add(offset).and_then(|e| e.checked_mul(size)).and_then(|e| e.checked_next_multiple_of(4));
        if end.is_none_or(|end| end > buffer.size()) {
            let have = buffer.size();
            return problem(format!("{len} elements of {dtype} from element {offset} on do not lie in {have} bytes"));
        }
        if !buffer.usage().contains(BufferUsages::STORAGE) {
            return problem(format!("its buffer has the usages {:?}, and STORAGE is needed", buffer.usage()));
        }
        Ok(Self { buffer: buffer.clone(), offset, len, dtype })
    }

    /// The buffer.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Its first element in the buffer, in elements.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// For the engine's checks.
    pub fn info(&self) -> Info {
        Info { len: self.len, dtype: self.dtype, contiguous: true }
    }
}
