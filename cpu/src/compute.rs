//! Compute and element types, and the one match over them that each kernel makes of a tensor (A7.1).

use blockllm::element::{Element, Real};
use blockllm::{View, ViewMut};

/// A compute type.
pub(crate) trait Compute: Real + Send + Sync {
    /// Bits of [`Real::magnitude`].
    const MAGNITUDE_BITS: u32;
    /// The correctly rounded square root: the processor's instruction, whatever features core was built with.
    fn root(self) -> Self;
    /// The elements of an arena buffer.
    fn slice(x: View<'_>) -> &[Self];
    /// The same to write.
    fn slice_mut(x: ViewMut<'_>) -> &mut [Self];
}

macro_rules! compute {
    ($t:ty, $variant:ident, $bits:expr) => {
        impl Compute for $t {
            const MAGNITUDE_BITS: u32 = $bits;

            fn root(self) -> Self {
                self.sqrt()
            }

            fn slice(x: View<'_>) -> &[Self] {
                match x {
                    View::$variant(x) => x,
                    other => unreachable!("a buffer of {}", other.dtype()),
                }
            }

            fn slice_mut(x: ViewMut<'_>) -> &mut [Self] {
                match x {
                    ViewMut::$variant(x) => x,
                    other => unreachable!("a buffer of {}", other.as_view().dtype()),
                }
            }
        }
    };
}

compute!(f32, F32, 31);
compute!(f64, F64, 63);

/// An element type of the caller's tensors.
pub(crate) trait Stored<F>: Element<F> + Send + Sync {}

impl<F, E: Element<F> + Send + Sync> Stored<F> for E {}

/// Runs `$e` with the gradient's elements and the compute type; other pairs were refused by the engine.
macro_rules! with_gradient {
    ($compute:expr, $view:expr, |$g:ident, $F:ident| $e:expr) => {{
        macro_rules! run {
            ($s:expr, $t:ty) => {{
                type $F = $t;
                let $g = $s;
                $e
            }};
        }
        match ($compute, $view) {
            (blockllm::DType::F64, blockllm::View::F64(s)) => run!(s, f64),
            (blockllm::DType::F64, blockllm::View::F32(s)) => run!(s, f64),
            (_, blockllm::View::F32(s)) => run!(s, f32),
            (_, blockllm::View::F16(s)) => run!(s, f32),
            (_, blockllm::View::Bf16(s)) => run!(s, f32),
            (compute, view) => unreachable!("a gradient of type {} beside {compute}", view.dtype()),
        }
    }};
}

/// The same for a parameter.
macro_rules! with_parameter {
    ($view:expr, |$p:ident, $F:ident| $e:expr) => {{
        macro_rules! run {
            ($s:expr, $t:ty) => {{
                type $F = $t;
                let $p = $s;
                $e
            }};
        }
        match $view {
            blockllm::ViewMut::F64(s) => run!(s, f64),
            blockllm::ViewMut::F32(s) => run!(s, f32),
            blockllm::ViewMut::F16(s) => run!(s, f32),
            blockllm::ViewMut::Bf16(s) => run!(s, f32),
            view => unreachable!("a parameter of type {}", view.as_view().dtype()),
        }
    }};
}

pub(crate) use {with_gradient, with_parameter};
