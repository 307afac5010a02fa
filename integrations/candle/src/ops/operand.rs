//! Checked access to the numbers of a tensor. Shapes are checked in each operation's public function, before candle
//! calls it back; the callbacks then only fetch slices.

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor, bail};
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

/// The values of an operand, as candle hands it to a custom operation.
pub(super) fn values<'a>(op: &str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let CpuStorage::F32(values) = storage else { bail!("{op}: expected f32") };
    match layout.contiguous_offsets().and_then(|(start, end)| values.get(start..end)) {
        Some(values) => Ok(values),
        None => bail!("{op}: operand of shape {:?} is not contiguous", layout.shape()),
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

/// Locks a tensor for reading; for backward, where candle gives tensors and not storages.
pub(super) fn read<'a>(op: &str, tensor: &'a Tensor) -> Result<Operand<impl Deref<Target = Storage> + 'a>> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(cpu) = &*storage else { bail!("{op}: only the CPU is supported") };
    values(op, cpu, layout)?;
    let start = layout.start_offset();
    Ok(Operand { range: start..start + layout.shape().elem_count(), storage })
}
