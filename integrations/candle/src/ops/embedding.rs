use super::operand::{check, check_dtype, read, values};
use crate::Parameter;
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};

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
    if w.rank() != 2 {
        bail!("{NAME}: {} {:?}; expected [V, D]", table.name(), w.shape())
    }
    let flat = ids.flatten_all()?.to_vec1::<u32>()?;
    if let Some(at) = flat.iter().position(|&id| id as usize >= w.dims()[0]) {
        bail!("{NAME}: id {} at position {at} is out of range for {} {:?}", flat[at], table.name(), w.shape())
    }
    w.apply_op1(Embedding { ids: flat, shape: ids.dims().to_vec(), table: table.clone() })
}

struct Embedding {
    ids: Vec<u32>,
    shape: Vec<usize>,
    table: Parameter,
}

impl CustomOp1 for Embedding {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, table: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let table = values(NAME, table, layout)?;
        let (_, d) = layout.shape().dims2()?;
        let mut y = Vec::with_capacity(self.ids.len() * d);
        for &id in &self.ids {
            y.extend_from_slice(&table[id as usize * d..][..d]);
        }
        let shape: Vec<usize> = self.shape.iter().copied().chain([d]).collect();
        Ok((CpuStorage::F32(y), shape.into()))
    }

    fn bwd(&self, table: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let (v, d) = table.dims2()?;
        let mut dw = vec![0.0; v * d];
        let g = g.contiguous()?;
        // In the order of the ids: rows that occur often would gain little from threads.
        for (&id, g) in self.ids.iter().zip(read(NAME, &g)?.values().chunks_exact(d)) {
            for (w, g) in dw[id as usize * d..][..d].iter_mut().zip(g) {
                *w += g;
            }
        }
        self.table.deliver(Tensor::from_vec(dw, (v, d), table.device())?)
    }
}
