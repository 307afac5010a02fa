mod head;

use super::graph::{Computed, Saved};
use super::operand::{check, read};
use super::{RotaryTable, numeric::vectorized};
use candle_core::{CpuStorage, Result, Shape, Tensor, bail};
use head::{Head, Scratch, Sizes};
use rayon::prelude::*;

const NAME: &str = "causal_attention";

/// Causal self-attention with rotary position embeddings: for each head, softmax(rope(q) rope(k)ᵀ / sqrt(D)) v, where a
/// position sees itself and what came before.
///
/// q, k and v are `[B, T, H · D]`, D the head dimension of the table; so is the result. The T x T probabilities are not
/// kept for backward, which computes them anew, head by head: each thread holds two such matrices at a time. The
/// sequences of a batch run on several threads, the heads of one sequence on one.
///
/// # Errors
/// Other shapes; an operand that is not contiguous f32 on the CPU.
pub fn causal_attention(q: &Tensor, k: &Tensor, v: &Tensor, rotary: &RotaryTable) -> Result<Tensor> {
    check(NAME, &[("q", q), ("k", k), ("v", v)])?;
    let fits = match *q.dims() {
        [_, t, width] => width.is_multiple_of(rotary.head_dim()) && t <= rotary.positions(),
        _ => false,
    };
    if !fits || k.shape() != q.shape() || v.shape() != q.shape() {
        bail!(
            "{NAME}: q {:?}, k {:?} and v {:?}; expected [B, T, H * {}] for all three, T of at most {}",
            q.shape(),
            k.shape(),
            v.shape(),
            rotary.head_dim(),
            rotary.positions()
        )
    }
    let attention = CausalAttention { rotary: rotary.clone() };
    let values = CpuStorage::F32(attention.values([q, k, v])?);
    let (recorded, kept) = ([q, k, v].map(Tensor::track_op), [q, k, v].map(Saved::new));
    Computed { name: NAME, operands: [q, k, v], values, shape: q.shape().clone() }.record(move |g| {
        let [q, k, v] = [kept[0].get()?, kept[1].get()?, kept[2].get()?];
        let [dq, dk, dv] = attention.gradients([&q, &k, &v], g)?;
        let tensor = |values, recorded: bool| match recorded {
            true => Tensor::from_vec(values, g.shape(), g.device()).map(Some),
            false => Ok(None),
        };
        Ok([tensor(dq, recorded[0])?, tensor(dk, recorded[1])?, tensor(dv, recorded[2])?])
    })
}

struct CausalAttention {
    rotary: RotaryTable,
}

impl CausalAttention {
    fn sizes(&self, shape: &Shape) -> Result<Sizes> {
        let (_, t, width) = shape.dims3()?;
        Ok(Sizes::new(t, width, self.rotary.head_dim()))
    }

    fn values(&self, [q, k, v]: [&Tensor; 3]) -> Result<Vec<f32>> {
        let (qs, ks, vs) = (read(NAME, q)?, read(NAME, k)?, read(NAME, v)?);
        let sizes = self.sizes(q.shape())?;
        let part = sizes.sequence();
        let (q, k, v) = (qs.values(), ks.values(), vs.values());
        let mut y = vec![0.0; q.len()];
        let inputs = q.par_chunks(part).zip(k.par_chunks(part)).zip(v.par_chunks(part));
        y.par_chunks_mut(part).zip(inputs).for_each_init(
            || Scratch::forward(&sizes),
            |scratch, (y, ((q, k), v))| {
                for head in sizes.heads() {
                    let head = Head { sizes: &sizes, rotary: &self.rotary, first: head };
                    vectorized(
                        #[inline(always)]
                        || head.forward(q, k, v, scratch, y),
                    );
                }
            },
        );
        Ok(y)
    }

    fn gradients(&self, [q, k, v]: [&Tensor; 3], g: &Tensor) -> Result<[Vec<f32>; 3]> {
        let (qs, ks, vs, gs) = (read(NAME, q)?, read(NAME, k)?, read(NAME, v)?, read(NAME, g)?);
        let sizes = self.sizes(q.shape())?;
        let part = sizes.sequence();
        let [mut dq, mut dk, mut dv] = [(); 3].map(|()| vec![0.0; qs.values().len()]);
        let inputs = (qs.values().par_chunks(part).zip(ks.values().par_chunks(part)))
            .zip(vs.values().par_chunks(part).zip(gs.values().par_chunks(part)));
        let outputs = dq.par_chunks_mut(part).zip(dk.par_chunks_mut(part)).zip(dv.par_chunks_mut(part));
        outputs.zip(inputs).for_each_init(
            || Scratch::backward(&sizes),
            |scratch, (((dq, dk), dv), ((q, k), (v, g)))| {
                for head in sizes.heads() {
                    let head = Head { sizes: &sizes, rotary: &self.rotary, first: head };
                    vectorized(
                        #[inline(always)]
                        || head.backward([q, k, v, g], scratch, [&mut *dq, &mut *dk, &mut *dv]),
                    );
                }
            },
        );
        Ok([dq, dk, dv])
    }
}
