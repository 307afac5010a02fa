//! BlockLLM for candle 0.11: an optimizer that keeps state for a few of a model's weights at a time, and layers whose
//! backward pass computes gradients only for those.
//!
//! - [`ParameterStore`] is the ordered list of a model's weights. A [`Parameter`] is a handle to one of them, with a flag
//!   that says whether its gradient is wanted. Every forward pass reads the flag: when the set changes, no module is
//!   built anew.
//! - [`Linear`], [`Embedding`] and [`RmsNorm`] hold parameters; [`ops`] has what a Llama needs beside them.
//! - A [`GradientSink`] takes each gradient during the backward pass, as soon as it is computed. It is dropped when the
//!   sink returns, so that one gradient of a weight is alive at a time and candle's `GradStore` stays empty. Without a
//!   sink, gradients are stored as usual, for the wanted weights only.
//!
//! # Why not candle's own operations
//!
//! They compute the right gradients, but in a model most of whose weights are idle:
//!
//! - a binary operation (`+`, `matmul`, a product with cos or sin) with one recorded operand computes the gradient of the
//!   other too, and the `GradStore` keeps it to the end. One such operation is enough to keep activations alive;
//! - all gradients are kept until backward ends;
//! - `RmsNorm::forward`, `LayerNorm::forward` with a bias, `softmax_last_dim`, `rope`, `rope_i` and `rope_thd` of candle-nn
//!   have no backward. They cut the graph without a word, and all weights below them get no gradient. (`forward_diff`,
//!   `softmax` and `rope_i_slow` have one.)
//!
//! # Which activations are kept
//!
//! A graph of candle holds all operands of all operations, with their values. One of this crate's operations ([`ops`]) holds
//! what its backward reads:
//!
//! | Operation | Holds for backward | When |
//! |---|---|---|
//! | [`Linear`] | its input | its weight is wanted |
//! | [`RmsNorm`] | its input | its input or its weight is recorded |
//! | [`ops::swiglu`] | gate and up (where the gate is not recorded: the gate) | one is recorded |
//! | [`ops::causal_attention`] | q, k, v | one is recorded |
//! | [`ops::matmul`], [`ops::matmul_transposed`] | each operand | the other is recorded |
//! | [`ops::causal_softmax`] | its result | its operand is recorded |
//! | [`ops::cross_entropy`] | the logits | they are recorded |
//! | [`Embedding`], [`ops::residual`], [`ops::rope`], [`ops::split_heads`], [`ops::merge_heads`] | nothing | |
//!
//! - The results of [`RmsNorm`] and [`ops::swiglu`] are not held by those who read them: backward computes them once more,
//!   with the same bits, from what these operations hold themselves, and drops them when it is past them.
//! - Of a Llama's layer, with [rows, width] and [rows, hidden] activations, 5 of the first and 2 of the second stay where its
//!   output projection is idle, and 6 and 2 where it is wanted. candle would keep 10 and 3.
//! - Below the lowest wanted weight nothing is recorded, and nothing kept.
//! - Nothing has to be done for it. A result is freed when the last handle to it is dropped, so do not keep those that are
//!   not needed: `x = residual(&x, &y)?` drops the old `x`, a `let` of its own holds it to the end of the function.
//!
//! What candle does not allow: an operation of its own (`+`, `reshape`, `narrow`, ...) holds its operands to the end, and what
//! comes out of it is held by the operation of this crate that takes it. And candle keeps the whole graph until the loss is
//! dropped: activations are not freed while backward goes down.
//!
//! # What to know when training
//!
//! - Do not write a weight between forward and backward, or in a sink before its last use: gradients would be wrong, and
//!   nothing says so. A weight that is used once may be written in the sink.
//! - If nothing at all is wanted, no graph is recorded and `backward` returns the gradient of the loss by itself.
//! - A loss that is kept keeps its graph, with the activations that backward reads.
//! - Activations of several MiB come and go all the time. An allocator that gives them back to the system each time, as
//!   glibc's does by default, took a sixth of the time of training a model of 2.8 million parameters: use another, or
//!   raise its thresholds.
//! - candle splits matrix products over `RAYON_NUM_THREADS` threads, and counts the processor's cores on each product if
//!   that is not set: set it before the process starts. `CANDLE_NUM_THREADS=1` turns off the threads that candle starts for
//!   simple loops, which wait in busy loops and cost more than they gave wherever this was measured.
//! - All results have the same bits at any number of threads.
#![forbid(unsafe_code)]

mod layers;
pub mod ops;
mod optimizer;
mod parameter;
mod store;
mod tensors;

pub use candle_core::Module;
pub use layers::{Embedding, Linear, RmsNorm};
pub use optimizer::{BlockLlm, CandleBackend, ParamsBlockLlm};
pub use parameter::{GradientSink, Parameter};
pub use store::ParameterStore;
pub use tensors::CandleTensors;
