//! What the microbenchmarks share: a backend that does nothing, so that what is timed is the engine's own part, and models
//! of many small blocks.
//!
//! `cargo bench -p blockllm-benches`, or `-- driver/` for one group. Numbers are of the machine that they are taken on, and
//! mean little while anything else runs there.

pub mod null;

use blockllm::{BlockSpec, Config, Optimizer};
use null::Null;

/// Coordinates of a block.
pub const LENGTH: usize = 16;

/// Blocks of [`LENGTH`] coordinates, in layers of nine with three categories.
pub fn blocks(count: usize) -> Vec<BlockSpec> {
    let category = |i: usize| ["attention", "mlp", "norm"][i % 9 / 3];
    (0..count)
        .map(|i| BlockSpec::new(format!("layers.{}.{}", i / 9, i % 9), [1, LENGTH]).layer(i as u32 / 9, category(i)))
        .collect()
}

/// An optimizer over them that does no arithmetic.
///
/// # Panics
/// Where the configuration is not legal.
pub fn optimizer(count: usize, config: Config) -> Optimizer<Null> {
    Optimizer::new(Null::default(), &blocks(count), config).unwrap_or_else(|e| panic!("{e}"))
}

/// A gradient or parameter of each active block, by block.
pub fn parameters(o: &Optimizer<Null>) -> Vec<(u32, usize)> {
    o.active().regions.iter().map(|r| (r.block, LENGTH)).collect()
}
