//! The kernels of `kernels/`, as the PTX in `ptx/` that ships with the crate.

use crate::error::Error;
use crate::launch::{self, Function};
use blockllm::DType;
use cudarc::driver::CudaContext;
use std::sync::Arc;

/// A kernel for each combination of types that it is made for. A suffix of its name tells them apart.
#[derive(Debug)]
pub(crate) struct Family {
    name: &'static str,
    suffixes: &'static [&'static str],
    functions: Vec<Function>,
}

impl Family {
    fn load(context: &Arc<CudaContext>, name: &'static str, ptx: &str, suffixes: &'static [&'static str]) -> Result<Self, Error> {
        let functions = launch::load(context, name, ptx, suffixes.iter().map(|s| format!("{name}{s}")))?;
        Ok(Self { name, suffixes, functions })
    }

    fn find(&self, suffix: Option<&str>, dtype: DType) -> Result<&Function, Error> {
        let place = suffix.and_then(|s| self.suffixes.iter().position(|known| *known == s));
        place.map(|i| &self.functions[i]).ok_or(Error::NoKernel { operation: self.name, dtype })
    }

    /// Of a kernel that knows no types.
    pub(crate) fn only(&self) -> &Function {
        &self.functions[0]
    }

    /// By a compute, word or parameter type.
    pub(crate) fn of(&self, dtype: DType) -> Result<&Function, Error> {
        self.find(own(dtype), dtype)
    }

    /// By a gradient's type beside the compute type.
    pub(crate) fn of_gradient(&self, gradient: DType, compute: DType) -> Result<&Function, Error> {
        let suffix = match (gradient, compute) {
            (DType::F32, DType::F64) => Some("_f64_f32"),
            _ => own(gradient),
        };
        self.find(suffix, gradient)
    }

    /// By a parameter's and a gradient's type.
    pub(crate) fn of_pair(&self, parameter: DType, gradient: DType) -> Result<&Function, Error> {
        let suffix = match (parameter, gradient) {
            (DType::F16, DType::F32) => Some("_f16_f32"),
            (DType::Bf16, DType::F32) => Some("_bf16_f32"),
            (DType::F64, DType::F32) => Some("_f64_f32"),
            (p, g) if p == g => own(p),
            _ => None,
        };
        self.find(suffix, gradient)
    }
}

fn own(dtype: DType) -> Option<&'static str> {
    match dtype {
        DType::F16 => Some("_f16"),
        DType::Bf16 => Some("_bf16"),
        DType::F32 => Some("_f32"),
        DType::F64 => Some("_f64"),
        DType::U32 => Some("_u32"),
        _ => None,
    }
}

const ONE: &[&str] = &[""];
const COMPUTE_TYPES: &[&str] = &["_f32", "_f64"];
const PARAMETERS: &[&str] = &["_f16", "_bf16", "_f32", "_f64"];
const GRADIENTS: &[&str] = &["_f16", "_bf16", "_f32", "_f64", "_f64_f32"];
const PAIRS: &[&str] = &["_f16", "_f16_f32", "_bf16", "_bf16_f32", "_f32", "_f64", "_f64_f32"];
const COUNTS: &[&str] = &["_u32", "_u64"];

macro_rules! kernels {
    ($($name:ident: $suffixes:expr,)*) => {
        /// The kernels, loaded into a context. Loading compiles them for the device, which takes a while the first time (the
        /// driver keeps the result): backends of one context can share them.
        #[derive(Debug)]
        pub struct Kernels {
            context: Arc<CudaContext>,
            $(pub(crate) $name: Family,)*
        }

        impl Kernels {
            /// Loads all of them.
            ///
            /// # Errors
            /// A driver that is too old for the PTX, a device that is.
            pub fn load(context: &Arc<CudaContext>) -> Result<Arc<Self>, Error> {
                Ok(Arc::new(Self {
                    context: context.clone(),
                    $($name: Family::load(
                        context, stringify!($name), include_str!(concat!("../ptx/", stringify!($name), ".ptx")), $suffixes,
                    )?,)*
                }))
            }
        }

        /// Files, what is in them, and the suffixes.
        #[cfg(test)]
        pub(crate) const FILES: &[(&str, &str, &[&str])] =
            &[$((stringify!($name), include_str!(concat!("../ptx/", stringify!($name), ".ptx")), $suffixes)),*];
    };
}

kernels! {
    carry: COMPUTE_TYPES,
    clear: COMPUTE_TYPES,
    digit: ONE,
    enter_scores: ONE,
    fold: ONE,
    fold_regions: ONE,
    gather: GRADIENTS,
    histogram: GRADIENTS,
    inspect: COMPUTE_TYPES,
    mark: GRADIENTS,
    prefix_counts: ONE,
    scan: COUNTS,
    score: GRADIENTS,
    score_processed: GRADIENTS,
    seal: ONE,
    state_free: PAIRS,
    ties: GRADIENTS,
    update: PARAMETERS,
    upload: ONE,
}

impl Kernels {
    /// What they are loaded into.
    pub fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// Of 64-bit counts, which no element type stands for.
    pub(crate) fn scan_u64(&self) -> &Function {
        &self.scan.functions[1]
    }
}

#[cfg(test)]
mod tests;
