//! BlockLlm: the ranking (A4.1), and the set that it gives.

use crate::block::Blocks;
use crate::config::Config;
use crate::fill::{self, Sized};
use alloc::vec::Vec;

/// Units by key, largest first; equal keys by number, which is the order of their first blocks (A4.1).
pub fn rank(units: impl Iterator<Item = u32>, key: impl Fn(u32) -> f64) -> Vec<u32> {
    let mut keyed: Vec<(f64, u32)> = units.map(|u| (key(u), u)).collect();
    keyed.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    keyed.into_iter().map(|(_, u)| u).collect()
}

/// The set that a ranking of the selectable units gives: always-active blocks whole, then the fill. By block.
pub fn set_of(blocks: &Blocks, config: &Config, budget: usize, ranked: &[u32]) -> Vec<Sized> {
    let size = |b: u32| (b, blocks.len(b));
    let always = blocks.trainable_units().filter(|&u| blocks.units[u as usize].always_active);
    let mut set: Vec<Sized> = always.flat_map(|u| blocks.members(u).map(size)).collect();
    let room = budget.saturating_sub(blocks.always_active_len());
    let units = ranked.iter().map(|&u| blocks.members(u).map(size));
    set.extend(fill::fill(config.fill, config.mask, units, room));
    set.sort_unstable();
    set
}
