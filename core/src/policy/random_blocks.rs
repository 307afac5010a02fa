//! Random blocks within the budget: the control, and the first set of BlockLlm, which trains while probes fill the table
//! (A3.4).

use super::block_llm;
use crate::block::Blocks;
use crate::config::Config;
use crate::fill::Sized;
use crate::random::Stream;
use alloc::vec::Vec;

/// A shuffle of the units that are not always active, filled as configured. By block.
pub fn set_of(blocks: &Blocks, config: &Config, budget: usize, stream: &mut Stream) -> Vec<Sized> {
    let mut units: Vec<u32> = blocks.selectable_units().collect();
    stream.shuffle(&mut units);
    block_llm::set_of(blocks, config, budget, &units)
}
