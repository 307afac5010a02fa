//! With a sink, at most one gradient of a weight is alive at a time. Measured on the heap, so alone in its process.
#![allow(missing_docs)]

mod common;

use blockllm_candle::GradientSink;
use candle_core::{Result, Tensor, Var};
use common::{Llama, Sizes, batch};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use std::sync::{Arc, Mutex};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn live_bytes() -> isize {
    let s = HEAP.stats();
    s.bytes_allocated as isize - s.bytes_deallocated as isize
}

/// Records for each delivery the bytes of the gradient and those on the heap.
#[derive(Default)]
struct Meter(Mutex<Vec<(usize, isize)>>);

impl GradientSink for Meter {
    fn receive(&self, _: usize, _: &Var, gradient: &Tensor) -> Result<()> {
        self.0.lock().unwrap().push((4 * gradient.elem_count(), live_bytes()));
        Ok(())
    }
}

#[test]
fn one_gradient_is_alive_at_a_time() -> Result<()> {
    // Wide and short: all activations and their gradients together are small beside a weight.
    let sizes = Sizes { vocabulary: 128, width: 128, heads: 2, hidden: 384, layers: 3, context: 2 };
    let model = Llama::new(sizes, 0)?;
    let (ids, targets) = batch(sizes, 1, 1);
    let sink = Arc::new(Meter::default());
    model.store.set_sink(Some(sink.clone()));
    let largest = 4 * sizes.width * sizes.hidden;
    // Gradients of activations, at most 4 of `[2, hidden]` at a time, and bookkeeping.
    let slack = 32 * 1024;
    for every in [1, 2, 5] {
        model.store.set_wanted(|block| block % every == 0);
        // Once before, so that what is allocated for good on first use does not count.
        for counts in [false, true] {
            sink.0.lock().unwrap().clear();
            sink.0.lock().unwrap().reserve(100);
            let loss = model.loss(&ids, &targets)?;
            let before = live_bytes();
            drop(loss.backward()?);
            let after = live_bytes();
            if !counts {
                continue;
            }
            let met = sink.0.lock().unwrap();
            let total: usize = met.iter().map(|m| m.0).sum();
            assert!(total > largest + slack, "the test could not tell: {total}");
            for (bytes, live) in met.iter() {
                assert!(*bytes <= largest);
                let held = live - before;
                assert!(held <= (bytes + slack) as isize, "{held} bytes live at a gradient of {bytes}");
            }
            // The queues of rayon's threads may have grown; a matrix has 64 KiB.
            assert!((after - before).abs() < 16 * 1024, "{} bytes left behind", after - before);
        }
    }
    Ok(())
}
