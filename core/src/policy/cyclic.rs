//! Cyclic: one unit after another (BAdam, arXiv 2404.02827).

use crate::block::Blocks;
use crate::random::Stream;
use alloc::vec::Vec;

/// The order of a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Order {
    /// By number.
    Ascending,
    /// From the last to the first.
    Descending,
    /// Shuffled anew at the start of each round (BAdam's default).
    #[default]
    Random,
}

/// The unit that is next; none where there is none to select. `round` holds those that the present round still has to
/// visit: one that was frozen meanwhile is left out, one that was thawed waits for the next round.
pub fn next(blocks: &Blocks, order: Order, round: &mut Vec<u32>, stream: &mut Stream) -> Vec<u32> {
    round.retain(|&u| blocks.is_trainable(u));
    if round.is_empty() {
        round.extend(blocks.selectable_units());
        match order {
            Order::Ascending => {}
            Order::Descending => round.reverse(),
            Order::Random => stream.shuffle(round),
        }
    }
    round.drain(..round.len().min(1)).collect()
}
