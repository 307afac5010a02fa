//! Which activations a graph keeps alive. Measured on the heap, so alone in its process.
#![allow(missing_docs)]

mod common;

use blockllm_candle::ops::{self, RotaryTable};
use blockllm_candle::{GradientSink, Linear, Module, ParameterStore, RmsNorm};
use candle_core::{DType, Device, Error, Result, Tensor, Var};
use common::{Llama, Random, Sizes, batch};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use std::sync::Arc;

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn live_bytes() -> isize {
    let s = HEAP.stats();
    s.bytes_allocated as isize - s.bytes_deallocated as isize
}

const SIZES: Sizes = Sizes { vocabulary: 96, width: 64, heads: 2, hidden: 160, layers: 3, context: 64 };
const SEQUENCES: usize = 8;
/// Bytes of a `[rows, 1]` activation.
const ROWS: usize = 4 * SEQUENCES * SIZES.context;
/// Nodes of the graph, the queues of rayon's threads; half of the smallest activation.
const SLACK: isize = (ROWS * SIZES.width / 2) as isize;

struct Drain;

impl GradientSink for Drain {
    fn receive(&self, _: usize, _: &Var, _: &Tensor) -> Result<()> {
        Ok(())
    }
}

/// The bytes that a forward pass leaves behind its loss are these, before backward and after it, and go with the loss.
#[track_caller]
fn assert_held(what: &str, expected: usize, forward: impl Fn() -> Result<Tensor>) -> Result<()> {
    // Once before, so that what is allocated for good on first use does not count.
    forward()?.backward()?;
    let before = live_bytes();
    let loss = forward()?;
    let assert = |when: &str, expected: isize| {
        let held = live_bytes() - before;
        assert!((-SLACK / 2..SLACK).contains(&(held - expected)), "{what}, {when}: {held} bytes live, {expected} expected");
    };
    assert("after forward", expected as isize);
    loss.backward()?;
    assert("after backward", expected as isize);
    drop(loss);
    assert("without the loss", 0);
    Ok(())
}

/// One test, as several would see each other's bytes. On one thread, as each keeps working memory of a MiB for matrix
/// products once it has had a part in one.
#[test]
fn a_graph_holds_what_backward_reads() -> Result<()> {
    rayon::ThreadPoolBuilder::new().num_threads(1).build().map_err(Error::wrap)?.install(|| {
        a_stack()?;
        single_operations()?;
        a_llama()
    })
}

/// Linear layers whose lowest weight is wanted, so that all are recorded.
fn a_stack() -> Result<()> {
    let (width, mut random, mut store) = (SIZES.width, Random(1), ParameterStore::new());
    let layers: Vec<Linear> =
        (0..6).map(|i| Linear::new(store.add(format!("{i}"), &random.tensor(&[width, width]))?)).collect::<Result<_>>()?;
    store.set_sink(Some(Arc::new(Drain)));
    let x = random.tensor(&[ROWS / 4, width]);
    let targets = random.ids(&[ROWS / 4], width);
    let forward = || {
        let y = layers.iter().try_fold(x.clone(), |x, layer| layer.forward(&x))?;
        ops::cross_entropy(&y, &targets)
    };
    let activation = ROWS * width;
    // The loss reads the last result. The input of the lowest layer is held by the test.
    for (wanted, held) in [(&[0][..], 1), (&[0, 3], 2), (&[0, 1, 5], 3), (&[4], 1), (&[0, 1, 2, 3, 4, 5], 6)] {
        store.set_wanted(|block| wanted.contains(&block));
        // Where the lowest layer that is recorded is not the first, its input is held.
        let first = usize::from(wanted[0] > 0);
        assert_held(&format!("stack, {wanted:?} wanted"), (held + first) * activation, forward)?;
    }
    Ok(())
}

/// Each operation on results that nobody else holds, and of which some have no history.
fn single_operations() -> Result<()> {
    let shape = [SEQUENCES, SIZES.context, SIZES.width];
    let [x, zero] = [Random(2).tensor(&shape), Tensor::zeros(&shape, DType::F32, &Device::Cpu)?];
    let mut store = ParameterStore::new();
    let source = store.add("source", &x)?;
    let norm = RmsNorm::new(store.add("norm", &Tensor::ones(SIZES.width, DType::F32, &Device::Cpu)?)?, 1e-5)?;
    let idle = Linear::new(store.add("idle", &Random(4).tensor(&[SIZES.width, SIZES.width]))?)?;
    norm.weight().set_wanted(false);
    idle.weight().set_wanted(false);
    store.set_sink(Some(Arc::new(Drain)));
    let rotary = RotaryTable::new(SIZES.context, SIZES.width / SIZES.heads, 1e4)?;
    let targets = Random(3).ids(&shape[..2], SIZES.width);
    type Op<'a> = &'a dyn Fn([Tensor; 3]) -> Result<Tensor>;
    // The activations held, by which operands are recorded: bit i for operand i. With the logits of the loss, but for what is
    // cheap, whose values the loss computes once more too.
    let cases: [(&str, Op<'_>, &[usize]); 9] = [
        ("residual", &|[a, b, _]| ops::residual(&a, &b), &[1, 1, 1]),
        ("swiglu", &|[a, b, _]| ops::swiglu(&a, &b), &[2, 2, 2]),
        ("swiglu and a projection", &|[a, b, _]| idle.forward(&ops::swiglu(&a, &b)?), &[3, 2, 3]),
        ("matmul", &|[a, b, _]| ops::matmul(&a, &b), &[2, 2, 3]),
        ("matmul_transposed", &|[a, b, _]| ops::matmul_transposed(&a, &b), &[2, 2, 3]),
        ("causal_attention", &|[a, b, c]| ops::causal_attention(&a, &b, &c, &rotary), &[4; 7]),
        ("causal_softmax", &|[a, ..]| ops::causal_softmax(&a, 1.0), &[1]), // it shares its result with the loss
        ("rms_norm", &|[a, ..]| norm.forward(&a), &[1]),
        ("heads and rope", &|[a, ..]| ops::merge_heads(&ops::rope(&ops::split_heads(&a, SIZES.heads)?, &rotary)?), &[1]),
    ];
    for (name, op, held) in cases {
        for (recorded, held) in (1..).zip(held) {
            assert_held(&format!("{name}, {recorded:b} recorded"), held * ROWS * SIZES.width, || {
                let operand = |i: usize| {
                    source.set_wanted(recorded >> i & 1 == 1);
                    ops::residual(&source.tensor(), &zero)
                };
                ops::cross_entropy(&op([operand(0)?, operand(1)?, operand(2)?])?, &targets)
            })?;
        }
    }
    Ok(())
}

fn a_llama() -> Result<()> {
    let model = Llama::new(SIZES, 0)?;
    let (ids, targets) = batch(SIZES, SEQUENCES, 1);
    model.store.set_sink(Some(Arc::new(Drain)));
    let (width, hidden) = (ROWS * SIZES.width, ROWS * SIZES.hidden);
    // What the norms, attention and SwiGLU of each layer read, the last norm, and the loss.
    let always = SIZES.layers * (5 * width + 2 * hidden) + width + ROWS * SIZES.vocabulary;
    let cases: [(&str, &[&str], usize); 6] = [
        ("nothing else", &[], 0),
        // The input of an output projection is not cheap.
        ("one output projection", &["1.o"], 1),
        // Their inputs are computed once more.
        ("other matrices", &["0.q", "1.v", "2.gate", "0.down", "1.down", "head"], 0),
        ("norms", &["0.attention_norm", "1.mlp_norm", "norm"], 0),
        ("mixed", &["0.o", "2.o", "2.q", "1.down", "0.mlp_norm"], 2),
        ("everything", &[""], SIZES.layers),
    ];
    for (what, names, outputs) in cases {
        let wanted: Vec<bool> = model.store.iter().map(|p| names.iter().any(|n| n.is_empty() || *n == p.name())).collect();
        // With the embedding, so that all is recorded.
        model.store.set_wanted(|block| block == 0 || wanted[block]);
        assert_held(&format!("llama, {what}"), always + outputs * width, || model.loss(&ids, &targets))?;
    }
    Ok(())
}
