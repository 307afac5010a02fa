//! Arena buffers in host memory.

use crate::element::Real;
use crate::tensor::{DType, View, ViewMut};
use alloc::{vec, vec::Vec};
use core::ops::Range;

/// A typed run of host memory, always exactly as long as was asked for.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum HostBuffer {
    /// Single precision.
    F32(Vec<f32>),
    /// Double precision.
    F64(Vec<f64>),
    /// Words.
    U32(Vec<u32>),
}

impl HostBuffer {
    /// `len` zeros.
    ///
    /// # Panics
    /// For a type that no arena holds.
    pub fn zeros(dtype: DType, len: usize) -> Self {
        match dtype {
            DType::F32 => Self::F32(vec![0.0; len]),
            DType::F64 => Self::F64(vec![0.0; len]),
            DType::U32 => Self::U32(vec![0; len]),
            other => unreachable!("an arena holds no {other}"),
        }
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.view_all().len()
    }

    /// No elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.view_all().dtype()
    }

    fn view_all(&self) -> View<'_> {
        match self {
            Self::F32(x) => View::F32(x),
            Self::F64(x) => View::F64(x),
            Self::U32(x) => View::U32(x),
        }
    }

    /// Elements from `at` on, to read.
    pub fn view(&self, at: usize, len: usize) -> View<'_> {
        match self {
            Self::F32(x) => View::F32(&x[at..at + len]),
            Self::F64(x) => View::F64(&x[at..at + len]),
            Self::U32(x) => View::U32(&x[at..at + len]),
        }
    }

    /// Elements from `at` on, to write.
    pub fn view_mut(&mut self, at: usize, len: usize) -> ViewMut<'_> {
        match self {
            Self::F32(x) => ViewMut::F32(&mut x[at..at + len]),
            Self::F64(x) => ViewMut::F64(&mut x[at..at + len]),
            Self::U32(x) => ViewMut::U32(&mut x[at..at + len]),
        }
    }

    /// Zeros in a run.
    pub(super) fn zero(&mut self, run: Range<usize>) {
        match self {
            Self::F32(x) => x[run].fill(0.0),
            Self::F64(x) => x[run].fill(0.0),
            Self::U32(x) => x[run].fill(0),
        }
    }
}

/// The elements of a buffer whose type the engine fixed.
pub(super) trait Words: Sized {
    fn words(buffer: &HostBuffer) -> &[Self];
    fn words_mut(buffer: &mut HostBuffer) -> &mut [Self];
}

macro_rules! words {
    ($t:ty, $variant:ident) => {
        impl Words for $t {
            fn words(buffer: &HostBuffer) -> &[Self] {
                match buffer {
                    HostBuffer::$variant(x) => x,
                    other => unreachable!("a buffer of {}", other.dtype()),
                }
            }

            fn words_mut(buffer: &mut HostBuffer) -> &mut [Self] {
                match buffer {
                    HostBuffer::$variant(x) => x,
                    other => unreachable!("a buffer of {}", other.dtype()),
                }
            }
        }
    };
}

words!(f32, F32);
words!(f64, F64);
words!(u32, U32);

const _: fn() = || {
    fn compute_types<T: Real + Words>() {}
    compute_types::<f32>();
    compute_types::<f64>();
};
