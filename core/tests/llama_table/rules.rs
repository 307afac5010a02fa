//! What the rules share, from the text: units, room, fills.

use super::Count;
use blockllm::{BlockSpec, Fill};

/// One unit: its blocks with their sizes, by index.
#[derive(Clone, Debug)]
pub struct Unit {
    pub blocks: Vec<Count>,
    pub always: bool,
}

impl Unit {
    pub fn len(&self) -> usize {
        self.blocks.iter().map(|(_, n)| n).sum()
    }
}

/// Groups, and blocks in none, by their first block.
pub fn units(table: &[BlockSpec]) -> Vec<Unit> {
    let mut units: Vec<(Option<&str>, Unit)> = Vec::new();
    for (b, spec) in table.iter().enumerate().filter(|(_, s)| !s.frozen) {
        let block = (b as u32, spec.shape[0] * spec.shape[1]);
        match units.iter_mut().find(|(group, _)| group.is_some() && *group == spec.group.as_deref()) {
            Some((_, unit)) => unit.blocks.push(block),
            None => units.push((spec.group.as_deref(), Unit { blocks: vec![block], always: spec.always_active })),
        }
    }
    units.into_iter().map(|(_, unit)| unit).collect()
}

/// Those that are not always active, by number.
pub fn selectable(units: &[Unit]) -> Vec<usize> {
    (0..units.len()).filter(|&u| !units[u].always).collect()
}

/// n_s (A1.1).
pub fn n_s(units: &[Unit], sparsity: f64) -> usize {
    let n: usize = units.iter().map(Unit::len).sum();
    n - (sparsity * n as f64).floor() as usize
}

/// These units and the always-active ones, whole.
pub fn whole(units: &[Unit], chosen: &[usize]) -> Vec<Count> {
    let taken = units.iter().enumerate().filter(|(u, unit)| unit.always || chosen.contains(u));
    let mut set: Vec<Count> = taken.flat_map(|(_, unit)| unit.blocks.clone()).collect();
    set.sort_unstable();
    set
}

/// Always-active units whole, then the ranked ones by the fill (A4.1 to A4.3, A4.5).
pub fn filled(units: &[Unit], ranked: &[usize], n_s: usize, fill: Fill, tile: usize) -> Vec<Count> {
    let mut set = whole(units, &[]);
    let mut room = n_s - set.iter().map(|(_, n)| n).sum::<usize>();
    let in_rank_order = ranked.iter().flat_map(|&u| units[u].blocks.iter().copied());
    let mut counts: Vec<(Count, usize)> = Vec::new(); // block, its size; what it keeps
    match fill {
        Fill::Whole => {
            for &u in ranked {
                if units[u].len() <= room {
                    room -= units[u].len();
                    counts.extend(units[u].blocks.iter().map(|&b| (b, b.1)));
                }
            }
        }
        Fill::LastMasked => {
            for block in in_rank_order {
                let kept = block.1.min(room);
                room -= kept;
                counts.push((block, kept));
            }
        }
        Fill::Uniform => {
            let mut sum = 0;
            for block in in_rank_order {
                if sum < room {
                    sum += block.1;
                    counts.push((block, 0));
                }
            }
            let q = room.min(sum);
            counts.iter_mut().for_each(|((_, n), kept)| *kept = q * *n / sum);
            let mut rest = q - counts.iter().map(|(_, kept)| kept).sum::<usize>();
            let places = counts.len();
            for i in (0..places).cycle() {
                if rest == 0 {
                    break;
                }
                let ((_, n), kept) = &mut counts[i];
                if *kept < *n {
                    *kept += 1;
                    rest -= 1;
                }
            }
        }
        other => panic!("no rule for {other:?}"),
    }
    for ((block, n), kept) in counts {
        let kept = if kept < n { kept - kept % tile } else { n };
        if kept > 0 {
            set.push((block, kept));
        }
    }
    set.sort_unstable();
    set
}
