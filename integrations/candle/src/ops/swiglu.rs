use super::graph::{Computed, Saved};
use super::numeric::{exp, sigmoid, vectorized};
use super::operand::{check, read};
use super::parallel::{map2, whole_rows};
use candle_core::{CpuStorage, Result, Tensor, bail};
use rayon::prelude::*;
use std::sync::Arc;

const NAME: &str = "swiglu";

/// silu(gate) · up, element by element, where silu(a) = a / (1 + e^-a). Both have one shape, as has the result.
///
/// # Errors
/// Shapes that differ; an operand that is not contiguous f32 on the CPU.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    check(NAME, &[("gate", gate), ("up", up)])?;
    if gate.shape() != up.shape() {
        bail!("{NAME}: gate {:?} and up {:?}; expected equal shapes", gate.shape(), up.shape())
    }
    let y = CpuStorage::F32(values(gate, up)?);
    let computed = Computed { name: NAME, operands: [gate, up], values: y, shape: gate.shape().clone() };
    if !gate.track_op() {
        // The gradient of up reads the gate alone.
        let gate = Saved::new(gate);
        return computed.record(move |g| Ok([None, Some(up_gradient(&gate.get()?, g)?)]));
    }
    let wants_up = up.track_op();
    let kept = Arc::new([Saved::new(gate), Saved::new(up)]);
    let again = kept.clone();
    computed.record_cheap(
        move |g| {
            let [gate, up] = [kept[0].get()?, kept[1].get()?];
            let (da, db) = gradients(read(NAME, &gate)?.values(), read(NAME, &up)?.values(), read(NAME, g)?.values());
            let tensor = |values| Tensor::from_vec(values, gate.shape(), gate.device());
            Ok([Some(tensor(da)?), if wants_up { Some(tensor(db)?) } else { None }])
        },
        move || {
            let [gate, up] = [again[0].get()?, again[1].get()?];
            Tensor::from_vec(values(&gate, &up)?, gate.shape(), gate.device())
        },
    )
}

fn values(gate: &Tensor, up: &Tensor) -> Result<Vec<f32>> {
    Ok(map2(
        read(NAME, gate)?.values(),
        read(NAME, up)?.values(),
        #[inline(always)]
        |a, b| a * sigmoid(a) * b,
    ))
}

/// db of [`gradients`].
fn up_gradient(gate: &Tensor, g: &Tensor) -> Result<Tensor> {
    let db = map2(
        read(NAME, gate)?.values(),
        read(NAME, g)?.values(),
        #[inline(always)]
        |a, g| g * (a * (1.0 / (1.0 + exp(-a).min(f32::MAX)))),
    );
    Tensor::from_vec(db, gate.shape(), gate.device())
}

/// da = g b s (1 + a (1 - s)) and db = g a s, where s = sigmoid(a): both, as s costs most. 1 - s = s e^-a keeps its digits
/// where s is almost 1.
fn gradients(a: &[f32], b: &[f32], g: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let part = whole_rows(1);
    let (mut da, mut db) = (vec![0.0; a.len()], vec![0.0; a.len()]);
    let inputs = a.par_chunks(part).zip(b.par_chunks(part)).zip(g.par_chunks(part));
    da.par_chunks_mut(part).zip(db.par_chunks_mut(part)).zip(inputs).for_each(|((da, db), ((a, b), g))| {
        vectorized(
            #[inline(always)]
            || {
                for ((da, db), ((a, b), g)) in da.iter_mut().zip(db).zip(a.iter().zip(b).zip(g)) {
                    // Not infinite, as infinity times 0 is NaN.
                    let e = exp(-a).min(f32::MAX);
                    let s = 1.0 / (1.0 + e);
                    *da = g * b * s * (1.0 + a * (s * e));
                    *db = g * (a * s);
                }
            },
        );
    });
    (da, db)
}
