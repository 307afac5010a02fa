//! HFT: half of each layer's units, category by category (arXiv 2404.18466).

use crate::block::Blocks;
use crate::random::Stream;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Units of one layer and category, by number.
struct Cell {
    /// The layer's place among the layers, in order of first appearance.
    layer: u64,
    units: Vec<u32>,
}

/// Cells in order of first appearance; units without a layer are in none. Keys are looked up in maps: a model may have
/// thousands of cells, and a decision falls within a step.
fn cells(blocks: &Blocks, units: impl Iterator<Item = u32>) -> Vec<Cell> {
    let (mut keys, mut layers, mut cells) = (BTreeMap::new(), BTreeMap::new(), Vec::<Cell>::new());
    for unit in units {
        let spec = blocks.spec(blocks.units[unit as usize].blocks[0]);
        let Some(layer) = spec.layer else { continue };
        let cell = *keys.entry((layer, spec.category.as_deref())).or_insert(cells.len());
        if cell == cells.len() {
            let next = layers.len() as u64;
            cells.push(Cell { layer: *layers.entry(layer).or_insert(next), units: Vec::new() });
        }
        cells[cell].units.push(unit);
    }
    cells
}

/// Of each cell of c units the first floor((c + (layer + draws) mod 2) / 2) of a shuffle: cells of odd size alternate
/// between their smaller and their larger half (A4.6).
pub fn next(blocks: &Blocks, drawn: &mut u64, stream: &mut Stream) -> Vec<u32> {
    let mut out = Vec::new();
    for mut cell in cells(blocks, blocks.selectable_units()) {
        stream.shuffle(&mut cell.units);
        let odd = ((cell.layer + *drawn) % 2) as usize;
        out.extend(&cell.units[..(cell.units.len() + odd) / 2]);
    }
    *drawn += 1;
    out
}

/// The most coordinates of a draw: the larger half of each cell, its largest units.
pub fn maximum(blocks: &Blocks) -> usize {
    let len = |u: &u32| blocks.unit_len(*u);
    let most = |mut cell: Cell| {
        cell.units.sort_by_key(|u| core::cmp::Reverse(len(u)));
        cell.units.iter().take(cell.units.len().div_ceil(2)).map(len).sum::<usize>()
    };
    cells(blocks, blocks.selectable_units()).into_iter().map(most).sum()
}
