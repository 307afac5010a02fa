use super::graph::Computed;
use super::operand::{check, check_dtype, read};
use crate::Parameter;
use candle_core::{CpuStorage, DType, Result, Tensor, bail};

const NAME: &str = "embedding";

/// The rows of a table that the ids name.
///
/// The ids are u32 of any shape `[..]`, the table `[V, D]`, the result `[.., D]`. An idle table costs nothing in
/// backward, and nothing below it is recorded.
///
/// # Errors
/// Other shapes; ids that are not u32 on the CPU, or a table that is not contiguous f32 there; an id of V or more.
pub fn embedding(ids: &Tensor, table: &Parameter) -> Result<Tensor> {
    let w = table.tensor();
    check_dtype(NAME, "ids", ids, DType::U32)?;
    check(NAME, &[(table.name(), &w)])?;
    let [v, d] = *w.dims() else { bail!("{NAME}: {} {:?}; expected [V, D]", table.name(), w.shape()) };
    let flat = ids.flatten_all()?.to_vec1::<u32>()?;
    if let Some(at) = flat.iter().position(|&id| id as usize >= v) {
        bail!("{NAME}: id {} at position {at} is out of range for {} {:?}", flat[at], table.name(), w.shape())
    }
    let mut y = Vec::with_capacity(flat.len() * d);
    let rows = read(NAME, &w)?;
    for &id in &flat {
        y.extend_from_slice(&rows.values()[id as usize * d..][..d]);
    }
    drop(rows);
    let shape: Vec<usize> = ids.dims().iter().copied().chain([d]).collect();
    let table = table.clone();
    Computed { name: NAME, operands: [&w], values: CpuStorage::F32(y), shape: shape.into() }.record(move |g| {
        let mut dw = vec![0.0; v * d];
        // In the order of the ids: rows that occur often would gain little from threads.
        for (&id, g) in flat.iter().zip(read(NAME, g)?.values().chunks_exact(d)) {
            for (w, g) in dw[id as usize * d..][..d].iter_mut().zip(g) {
                *w += g;
            }
        }
        Ok([table.deliver(Tensor::from_vec(dw, (v, d), g.device())?)?])
    })
}
