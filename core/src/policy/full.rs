//! Full: dense Adam, through the same engine. It never decides.

use crate::block::Blocks;
use crate::fill::Sized;
use alloc::vec::Vec;

/// Every trainable block, whole.
pub fn set_of(blocks: &Blocks) -> Vec<Sized> {
    let trainable = |b: &u32| !blocks.spec(*b).frozen && blocks.len(*b) > 0;
    (0..blocks.count() as u32).filter(trainable).map(|b| (b, blocks.len(b))).collect()
}
