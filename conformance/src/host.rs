//! Tensors of a test: a vector of either compute type.

use blockllm::{DType, View, ViewMut};

/// Elements in host memory.
#[derive(Clone, PartialEq, Debug)]
pub enum Host {
    /// Single precision.
    F32(Vec<f32>),
    /// Double precision.
    F64(Vec<f64>),
}

impl Host {
    /// To read.
    pub fn view(&self) -> View<'_> {
        match self {
            Self::F32(x) => View::F32(x),
            Self::F64(x) => View::F64(x),
        }
    }

    /// To write.
    pub fn view_mut(&mut self) -> ViewMut<'_> {
        match self {
            Self::F32(x) => ViewMut::F32(x),
            Self::F64(x) => ViewMut::F64(x),
        }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.view().dtype()
    }

    /// Replaces the bits of one element.
    pub fn inject(&mut self, i: usize, bits: u64) {
        match self {
            Self::F32(x) => x[i] = f32::from_bits(u32::try_from(bits).expect("an f32's bits")),
            Self::F64(x) => x[i] = f64::from_bits(bits),
        }
    }

    /// The bytes of the elements, little endian.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::F32(x) => x.iter().flat_map(|e| e.to_le_bytes()).collect(),
            Self::F64(x) => x.iter().flat_map(|e| e.to_le_bytes()).collect(),
        }
    }
}
