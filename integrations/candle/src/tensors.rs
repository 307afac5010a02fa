//! candle's CPU tensors as the engine sees them: read and written in place, in candle's own storage.

use blockllm::{HostTensors, Info, View, ViewMut};
use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Result, Storage, Tensor, Var, bail};
use std::cell::RefCell;

/// Marker for candle tensors in host memory: parameters are [`Var`]s, gradients are [`Tensor`]s, both handles to storage
/// that candle owns.
#[derive(Clone, Copy, Debug, Default)]
pub struct CandleTensors;

/// The engine's name for an element type; what it cannot train is reported as words, which it refuses.
pub(crate) fn dtype(dtype: DType) -> blockllm::DType {
    match dtype {
        DType::F16 => blockllm::DType::F16,
        DType::BF16 => blockllm::DType::Bf16,
        DType::F32 => blockllm::DType::F32,
        DType::F64 => blockllm::DType::F64,
        _ => blockllm::DType::U32,
    }
}

fn info(t: &Tensor) -> Info {
    // Strides of dimensions of size 1 do not matter to `is_contiguous`.
    Info { len: t.elem_count(), dtype: dtype(t.dtype()), contiguous: t.is_contiguous() }
}

fn range(layout: &Layout) -> Result<std::ops::Range<usize>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(start..end),
        None => bail!("a tensor of shape {:?} and strides {:?} is not contiguous", layout.shape(), layout.stride()),
    }
}

impl HostTensors for CandleTensors {
    type Error = candle_core::Error;
    type Param<'a> = Var;
    type Grad<'a> = Tensor;

    fn param_info(p: &Var) -> Info {
        info(p)
    }

    fn grad_info(g: &Tensor) -> Info {
        info(g)
    }

    fn read<R>(g: &Tensor, f: impl FnOnce(View<'_>) -> R) -> Result<R> {
        let (storage, layout) = g.storage_and_layout();
        let run = range(layout)?;
        let Storage::Cpu(storage) = &*storage else { bail!("a gradient on {:?}: this adapter reads host memory", g.device()) };
        match storage {
            CpuStorage::F32(x) => Ok(f(View::F32(&x[run]))),
            CpuStorage::F64(x) => Ok(f(View::F64(&x[run]))),
            CpuStorage::F16(x) => Ok(f(View::F16(&x[run]))),
            CpuStorage::BF16(x) => Ok(f(View::Bf16(&x[run]))),
            _ => bail!("a gradient of type {:?}", g.dtype()),
        }
    }

    fn modify<R>(p: &mut Var, f: impl FnOnce(ViewMut<'_>) -> R) -> Result<R> {
        let with = With { f: RefCell::new(Some(f)), out: RefCell::new(None) };
        p.inplace_op1(&with)?;
        match with.out.into_inner() {
            Some(out) => Ok(out),
            None => bail!("the parameter's storage was not reached"),
        }
    }
}

/// Access to one tensor's storage through candle's in-place operations: no copy, and the address stays.
struct With<F, R> {
    f: RefCell<Option<F>>,
    out: RefCell<Option<R>>,
}

impl<R, F: FnOnce(ViewMut<'_>) -> R> InplaceOp1 for With<F, R> {
    fn name(&self) -> &'static str {
        "blockllm-update"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let run = range(layout)?;
        let view = match storage {
            CpuStorage::F32(x) => ViewMut::F32(&mut x[run]),
            CpuStorage::F64(x) => ViewMut::F64(&mut x[run]),
            CpuStorage::F16(x) => ViewMut::F16(&mut x[run]),
            CpuStorage::BF16(x) => ViewMut::Bf16(&mut x[run]),
            _ => bail!("a parameter whose type the engine does not know"),
        };
        if let Some(f) = self.f.borrow_mut().take() {
            *self.out.borrow_mut() = Some(f(view));
        }
        Ok(())
    }
}
