//! Full: dense Adam, through the same engine. It never decides.

use crate::block::Blocks;
use crate::fill::Sized;
use alloc::vec::Vec;

/// Every trainable block, whole.
pub fn set_of(blocks: &Blocks) -> Vec<Sized> {
    let units: Vec<u32> = blocks.selectable_units().collect();
    super::whole(blocks, &units)
}
