//! From a ranking to coordinates: which blocks are active, and how many coordinates of each (A4.2, A4.5).

use crate::mask::MaskKind;
use alloc::vec::Vec;

/// How the budget is spread over ranked blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Fill {
    /// Blocks are taken whole until the room is reached; the last keeps the rest.
    #[default]
    LastMasked,
    /// The same blocks, each keeping the same share (the paper's tau per block).
    Uniform,
    /// No masks: in rank order every unit that still fits entirely.
    Whole,
}

/// A block and its number of coordinates, or of active ones.
pub type Sized = (u32, usize);

/// The active blocks with their counts, in rank order. `ranked` yields each unit's trainable blocks with their sizes,
/// best unit first; `room` is what always-active blocks leave of the budget.
///
/// A block left with no coordinate is not selected (A4.3). With tiles, a part is rounded down to whole tiles and what
/// is left over is given to no other block (A4.5).
pub fn fill<U: IntoIterator<Item = Sized>>(
    kind: Fill, mask: MaskKind, ranked: impl Iterator<Item = U>, room: usize,
) -> Vec<Sized> {
    let mut taken = Vec::new();
    if kind == Fill::Whole {
        let mut room = room;
        for unit in ranked {
            let start = taken.len();
            taken.extend(unit);
            let size: usize = taken[start..].iter().map(|&(_, n)| n).sum();
            if size <= room { room -= size } else { taken.truncate(start) }
        }
        return taken;
    }
    let mut total = 0;
    'units: for unit in ranked {
        for (block, n) in unit {
            if total >= room {
                break 'units;
            }
            taken.push((block, n));
            total += n;
        }
    }
    let mut kept = if kind == Fill::Uniform { uniform(&taken, total, room) } else { last_masked(&taken, room) };
    for (k, &(_, n)) in kept.iter_mut().zip(&taken) {
        if let (MaskKind::Tile(t), true) = (mask, *k < n) {
            *k = *k / t * t;
        }
    }
    taken.iter().zip(kept).map(|(&(block, _), k)| (block, k)).filter(|&(_, k)| k > 0).collect()
}

fn last_masked(taken: &[Sized], mut room: usize) -> Vec<usize> {
    let keep = |&(_, n): &Sized| {
        let k = n.min(room);
        room -= k;
        k
    };
    taken.iter().map(keep).collect()
}

fn uniform(taken: &[Sized], total: usize, room: usize) -> Vec<usize> {
    let goal = room.min(total);
    let share = |&(_, n): &Sized| (goal as u128 * n as u128 / (total as u128).max(1)) as usize;
    let mut kept: Vec<usize> = taken.iter().map(share).collect();
    let mut rest = goal - kept.iter().sum::<usize>();
    while rest > 0 {
        for (k, &(_, n)) in kept.iter_mut().zip(taken) {
            if rest > 0 && *k < n {
                *k += 1;
                rest -= 1;
            }
        }
    }
    kept
}
