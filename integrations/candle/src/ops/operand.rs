//! Checked access to the numbers of a tensor.

use candle_core::{CpuStorage, DType, Result, Storage, Tensor, bail};
use std::ops::{Deref, Range};

/// Checks what every operation asks of its operands.
pub(super) fn check(op: &str, operands: &[(&str, &Tensor)]) -> Result<()> {
    for (name, tensor) in operands {
        check_dtype(op, name, tensor, DType::F32)?;
        if !tensor.is_contiguous() {
            bail!("{op}: {name} of shape {:?} is not contiguous; call contiguous() first", tensor.shape())
        }
    }
    Ok(())
}

/// The part of [`check`] that also holds for ids, which may be strided.
pub(super) fn check_dtype(op: &str, name: &str, tensor: &Tensor, dtype: DType) -> Result<()> {
    if tensor.dtype() != dtype {
        bail!("{op}: {name} is {:?}, expected {dtype:?}", tensor.dtype())
    }
    if !tensor.device().is_cpu() {
        bail!("{op}: {name} is on {:?}; only the CPU is supported", tensor.device().location())
    }
    if tensor.elem_count() == 0 {
        bail!("{op}: {name} of shape {:?} has no elements", tensor.shape())
    }
    Ok(())
}

/// The length of the last dimension, or an error for a scalar.
pub(super) fn last_dim(op: &str, name: &str, tensor: &Tensor) -> Result<usize> {
    match tensor.dims().last() {
        Some(&n) => Ok(n),
        None => bail!("{op}: {name} is a scalar, expected at least one dimension"),
    }
}

/// A tensor locked for reading.
pub(super) struct Operand<G> {
    storage: G,
    range: Range<usize>,
}

impl<G: Deref<Target = Storage>> Operand<G> {
    pub(super) fn values(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.range.clone()],
            _ => &[],
        }
    }
}

/// Locks a tensor for reading.
pub(super) fn read<'a>(op: &str, tensor: &'a Tensor) -> Result<Operand<impl Deref<Target = Storage> + 'a>> {
    let (storage, layout) = tensor.storage_and_layout();
    let len = match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => values.len(),
        _ => bail!("{op}: expected f32 on the CPU"),
    };
    match layout.contiguous_offsets() {
        Some((start, end)) if end <= len => Ok(Operand { storage, range: start..end }),
        _ => bail!("{op}: operand of shape {:?} is not contiguous", layout.shape()),
    }
}
