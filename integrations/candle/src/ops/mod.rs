//! Operations whose backward computes nothing for what is idle.
//!
//! All of them take contiguous f32 tensors on the CPU (ids and targets: u32), and refuse others with an error that
//! names the operation and the shapes. In backward they
//!
//! - give no gradient to an operand that no graph records, so that candle's `GradStore` never holds one (an operation
//!   with one operand is itself recorded only if that operand is);
//! - read only the activations that they kept, which are [no more than needed](crate#which-activations-are-kept);
//! - hand a weight's gradient to the [`GradientSink`](crate::GradientSink) at once, after the gradient of the input;
//! - compute the same bits at any number of threads: nothing is summed in an order that depends on them.
//!
//! [`causal_attention`] computes what [`rope`], [`split_heads`], [`matmul_transposed`], [`causal_softmax`], [`matmul`]
//! and [`merge_heads`] compute together, faster and with less memory.

mod attention;
mod cross_entropy;
mod embedding;
mod graph;
mod heads;
mod linear;
mod matmul;
mod numeric;
mod operand;
mod parallel;
mod residual;
mod rms_norm;
mod rope;
mod softmax;
mod swiglu;

pub use attention::causal_attention;
pub use cross_entropy::cross_entropy;
pub use embedding::embedding;
pub use heads::{merge_heads, split_heads};
pub use linear::linear;
pub use matmul::{matmul, matmul_transposed};
pub use residual::residual;
pub use rms_norm::rms_norm;
pub use rope::{RotaryTable, rope};
pub use softmax::causal_softmax;
pub use swiglu::swiglu;
