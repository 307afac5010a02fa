//! LISA: some units at random (arXiv 2403.17919).

use crate::block::Blocks;
use crate::random::Stream;
use alloc::vec::Vec;

/// The first `count` of a shuffle.
pub fn next(blocks: &Blocks, count: u32, stream: &mut Stream) -> Vec<u32> {
    let mut units: Vec<u32> = blocks.selectable_units().collect();
    stream.shuffle(&mut units);
    units.truncate(count as usize);
    units
}
