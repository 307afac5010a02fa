//! Step 1: the engine reaches the framework's tensors.

use crate::framework::Tensor;
use blockllm::{DType, HostTensors, Info, View, ViewMut};
use std::convert::Infallible;

/// The framework's tensors in host memory.
pub struct Host;

impl HostTensors for Host {
    type Error = Infallible;
    type Param<'a> = Tensor;
    type Grad<'a> = Tensor;

    fn param_info(t: &Tensor) -> Info {
        Info { len: t.shape[0] * t.shape[1], dtype: DType::F32, contiguous: true }
    }

    fn grad_info(t: &Tensor) -> Info {
        Self::param_info(t)
    }

    fn read<R>(g: &Tensor, f: impl FnOnce(View<'_>) -> R) -> Result<R, Infallible> {
        Ok(f(View::F32(&g.data.borrow())))
    }

    fn modify<R>(p: &mut Tensor, f: impl FnOnce(ViewMut<'_>) -> R) -> Result<R, Infallible> {
        Ok(f(ViewMut::F32(&mut p.data.borrow_mut())))
    }
}
