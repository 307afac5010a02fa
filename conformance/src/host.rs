//! Tensors of a test: a vector of any element type that can be trained.

use blockllm::{DType, View, ViewMut};
use half::{bf16, f16};

/// Elements in host memory.
#[derive(Clone, PartialEq, Debug)]
pub enum Host {
    /// Half precision.
    F16(Vec<f16>),
    /// bfloat16.
    Bf16(Vec<bf16>),
    /// Single precision.
    F32(Vec<f32>),
    /// Double precision.
    F64(Vec<f64>),
}

macro_rules! each {
    ($self:expr, $x:ident => $e:expr) => {
        match $self {
            Self::F16($x) => $e,
            Self::Bf16($x) => $e,
            Self::F32($x) => $e,
            Self::F64($x) => $e,
        }
    };
}

impl Host {
    /// A copy of a view's elements.
    ///
    /// # Panics
    /// For words, which are no tensor.
    pub fn from_view(x: View<'_>) -> Self {
        match x {
            View::F16(x) => Self::F16(x.to_vec()),
            View::Bf16(x) => Self::Bf16(x.to_vec()),
            View::F32(x) => Self::F32(x.to_vec()),
            View::F64(x) => Self::F64(x.to_vec()),
            other => panic!("a tensor of {}", other.dtype()),
        }
    }

    /// These numbers, each rounded to the type.
    ///
    /// # Panics
    /// For words, which are no tensor.
    pub fn from_doubles(x: impl Iterator<Item = f64>, dtype: DType) -> Self {
        match dtype {
            DType::F16 => Self::F16(x.map(f16::from_f64).collect()),
            DType::Bf16 => Self::Bf16(x.map(bf16::from_f64).collect()),
            DType::F32 => Self::F32(x.map(|x| x as f32).collect()),
            DType::F64 => Self::F64(x.collect()),
            other => panic!("a tensor of {other}"),
        }
    }

    /// The elements, widened exactly.
    pub fn doubles(&self) -> Vec<f64> {
        match self {
            Self::F16(x) => x.iter().map(|&e| f64::from(e)).collect(),
            Self::Bf16(x) => x.iter().map(|&e| f64::from(e)).collect(),
            Self::F32(x) => x.iter().map(|&e| f64::from(e)).collect(),
            Self::F64(x) => x.clone(),
        }
    }

    /// To read.
    pub fn view(&self) -> View<'_> {
        match self {
            Self::F16(x) => View::F16(x),
            Self::Bf16(x) => View::Bf16(x),
            Self::F32(x) => View::F32(x),
            Self::F64(x) => View::F64(x),
        }
    }

    /// To write.
    pub fn view_mut(&mut self) -> ViewMut<'_> {
        match self {
            Self::F16(x) => ViewMut::F16(x),
            Self::Bf16(x) => ViewMut::Bf16(x),
            Self::F32(x) => ViewMut::F32(x),
            Self::F64(x) => ViewMut::F64(x),
        }
    }

    /// Elements.
    pub fn len(&self) -> usize {
        each!(self, x => x.len())
    }

    /// No elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.view().dtype()
    }

    /// Replaces the bits of one element.
    ///
    /// # Panics
    /// Where they are more than the type has.
    pub fn inject(&mut self, i: usize, bits: u64) {
        match self {
            Self::F16(x) => x[i] = f16::from_bits(u16::try_from(bits).expect("an f16's bits")),
            Self::Bf16(x) => x[i] = bf16::from_bits(u16::try_from(bits).expect("a bf16's bits")),
            Self::F32(x) => x[i] = f32::from_bits(u32::try_from(bits).expect("an f32's bits")),
            Self::F64(x) => x[i] = f64::from_bits(bits),
        }
    }

    /// The bytes of the elements, little endian.
    pub fn bytes(&self) -> Vec<u8> {
        each!(self, x => x.iter().flat_map(|e| e.to_le_bytes()).collect())
    }

    /// The bits of each element: equal where elements are equal to the bit, NaN included.
    pub fn bits(&self) -> Vec<u64> {
        match self {
            Self::F16(x) => x.iter().map(|e| u64::from(e.to_bits())).collect(),
            Self::Bf16(x) => x.iter().map(|e| u64::from(e.to_bits())).collect(),
            Self::F32(x) => x.iter().map(|e| u64::from(e.to_bits())).collect(),
            Self::F64(x) => x.iter().map(|e| e.to_bits()).collect(),
        }
    }
}
