//! Compute types and element types (A7.1).

use crate::tensor::DType;
use half::{bf16, f16};
use num_traits::Float;

/// A compute type: f32 or f64. Every operation on it is one IEEE operation, correctly rounded; nothing is fused.
pub trait Real: Float + Element<Self> + core::fmt::Debug + 'static {
    /// Its element type.
    const DTYPE: DType;
    /// The rounding f(x) of ALGORITHM: to nearest, ties to even.
    fn round_from(x: f64) -> Self;
    /// Exact.
    fn to_double(self) -> f64;
    /// |x| as an integer that orders as |x| does, NaN above infinity (A4.4).
    fn magnitude(self) -> u64;
}

impl Real for f32 {
    const DTYPE: DType = DType::F32;

    fn round_from(x: f64) -> Self {
        x as f32
    }

    fn to_double(self) -> f64 {
        f64::from(self)
    }

    fn magnitude(self) -> u64 {
        u64::from(self.to_bits() & 0x7fff_ffff)
    }
}

impl Real for f64 {
    const DTYPE: DType = DType::F64;

    fn round_from(x: f64) -> Self {
        x
    }

    fn to_double(self) -> f64 {
        self
    }

    fn magnitude(self) -> u64 {
        self.to_bits() & 0x7fff_ffff_ffff_ffff
    }
}

/// An element of a parameter or gradient that is computed in `F`: widened exactly, rounded once on the way back.
pub trait Element<F>: Copy {
    /// Exact.
    fn widen(self) -> F;
    /// To nearest, ties to even.
    fn round(x: F) -> Self;
}

macro_rules! element {
    ($e:ty, $f:ty, $widen:expr, $round:expr) => {
        impl Element<$f> for $e {
            fn widen(self) -> $f {
                $widen(self)
            }

            fn round(x: $f) -> $e {
                $round(x)
            }
        }
    };
}

element!(f32, f32, |x| x, |x| x);
element!(f64, f64, |x| x, |x| x);
element!(f16, f32, f16::to_f32, f16::from_f32);
element!(bf16, f32, bf16::to_f32, bf16::from_f32);
// An f32 gradient of an f64 parameter (A7.1); as a parameter's type the driver refuses it.
element!(f32, f64, f64::from, |x| x as f32);
