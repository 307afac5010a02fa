//! Time of a forward and a backward pass of a Llama of 2.76 million parameters on 16 sequences of 128 tokens, in which
//! all weights, and then one block in five, are wanted. Prints the least and the median of the runs, in milliseconds.
//!
//! `cargo bench -p blockllm-candle`, with `RAYON_NUM_THREADS` set to the number of threads.
#![allow(missing_docs)]

#[path = "../tests/common/mod.rs"]
mod common;

use blockllm_candle::GradientSink;
use candle_core::{Result, Tensor, Var};
use common::{Llama, Sizes, batch};
use std::sync::Arc;
use std::time::Instant;

struct Drain;

impl GradientSink for Drain {
    fn receive(&self, _: usize, _: &Var, _: &Tensor) -> Result<()> {
        Ok(())
    }
}

fn main() -> Result<()> {
    let sizes = Sizes { vocabulary: 256, width: 192, heads: 6, hidden: 512, layers: 6, context: 128 };
    let model = Llama::new(sizes, 0)?;
    model.store.set_sink(Some(Arc::new(Drain)));
    let (ids, targets) = batch(sizes, 16, 1);
    println!("{} parameters in {} blocks", model.store.coordinates(), model.store.len());
    for every in [1, 5] {
        model.store.set_wanted(|block| block % every == 0);
        let (mut forward, mut backward) = (vec![], vec![]);
        for _ in 0..30 {
            let start = Instant::now();
            let loss = model.loss(&ids, &targets)?;
            loss.to_scalar::<f32>()?;
            forward.push(start.elapsed().as_secs_f64() * 1e3);
            let start = Instant::now();
            loss.backward()?;
            backward.push(start.elapsed().as_secs_f64() * 1e3);
        }
        for (name, times) in [("forward", &mut forward), ("backward", &mut backward)] {
            times.sort_by(f64::total_cmp);
            println!("1 in {every} wanted, {name}: least {:.0} ms, median {:.0} ms", times[0], times[15]);
        }
    }
    Ok(())
}
