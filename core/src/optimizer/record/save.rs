//! From the arena to named leaves.

use super::window::Window;
use super::{config_text, host, outcome_words, place_words, stage_word, word};
use crate::backend::{Backend, flag, norm};
use crate::block::BlockId;
use crate::error::Error;
use crate::optimizer::phase::Phase;
use crate::optimizer::{LastStep, Optimizer, Result, device};
use crate::record::{FORMAT, Leaf, Record, dtype_code};
use crate::reference::HostBuffer;
use crate::score::ROW;
use crate::selection::Selection;
use crate::tensor::{DType, View};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// A snapshot on its way from the device. Training may go on meanwhile.
pub struct Saving<B: Backend> {
    selection: Selection,
    last: LastStep,
    /// By block, its unit.
    units: Vec<Option<u32>>,
    /// By block its place, by unit its number, of those that are left.
    order: [Vec<u64>; 2],
    /// Of an open step.
    window: Option<Window>,
    /// Buffers on their way, and whether they have come.
    pieces: [(B::Ticket, HostBuffer, bool); PIECES],
}

/// What is read of the arena, in this order.
#[derive(Clone, Copy)]
enum Piece {
    M,
    V,
    /// Of the set that last updated.
    Masks,
    Table,
    Steps,
    Powers,
    Flags,
    Norm,
    /// Of an open step: packed gradients, the new set's masks, sums of squares.
    Gradient,
    NewMasks,
    Sums,
}

const PIECES: usize = Piece::Sums as usize + 1;

impl<B: Backend> Saving<B> {
    /// The record, once all of it has come. Never waits.
    ///
    /// # Errors
    /// The device's; there is then no record.
    pub fn poll(&mut self, backend: &mut B) -> Result<Option<Record>, B> {
        for (ticket, buffer, done) in &mut self.pieces {
            let len = buffer.len();
            if !*done && !backend.poll(ticket, buffer.view_mut(0, len)).map_err(device::<B>("read the state"))? {
                return Ok(None);
            }
            *done = true;
        }
        Ok(Some(self.assemble()))
    }

    fn piece(&self, piece: Piece) -> &HostBuffer {
        &self.pieces[piece as usize].1
    }

    fn assemble(&self) -> Record {
        let s = &self.selection;
        let mut out = self.host_leaves();
        out.extend(s.blocks.live().map(|(block, _)| self.block_leaf(block)));
        for r in &s.current.regions {
            let name = s.blocks.spec(r.block).record_name();
            out.push(Leaf::view(format!("m/{name}"), self.piece(Piece::M).view(r.at, r.k)));
            out.push(Leaf::view(format!("v/{name}"), self.piece(Piece::V).view(r.at, r.k)));
            let words = r.mask_words();
            if !words.is_empty() {
                out.push(Leaf::view(format!("mask/{name}"), self.piece(Piece::Masks).view(words.start, words.len())));
            }
        }
        for r in self.window.iter().flat_map(|w| s.next_set().regions.iter().filter(|r| w.has_gathered(r.block))) {
            let name = s.blocks.spec(r.block).record_name();
            out.push(Leaf::view(format!("g/{name}"), self.piece(Piece::Gradient).view(r.gradient_at, r.k)));
            let words = r.mask_words();
            if s.pending.is_some() && !words.is_empty() {
                out.push(Leaf::view(format!("new_mask/{name}"), self.piece(Piece::NewMasks).view(words.start, words.len())));
            }
        }
        Record::from_leaves(out)
    }

    fn host_leaves(&self) -> Vec<Leaf> {
        let s = &self.selection;
        let mut words = [0; host::LEN];
        words[host::STEP] = s.step;
        words[host::DECISIONS] = s.decisions;
        words[host::DRAWS] = s.stream.draws;
        words[host::LOSSES] = s.history.count();
        words[host::FORCED] = u64::from(s.forced);
        words[host::PENDING] = u64::from(s.pending.is_some());
        words[host::BUDGET] = s.budget as u64;
        words[host::LAST..host::DRAWN].copy_from_slice(&outcome_words(&self.last));
        words[host::DRAWN] = s.memory.drawn;
        words[host::STAGE] = stage_word(s.stage);
        words[host::SCANNED] = s.scanned;
        words[host::LIMIT] = s.current.coordinates().max(s.next_set().coordinates()) as u64;
        let here = |u: &&u32| !s.blocks.units[**u as usize].blocks.is_empty();
        let round: Vec<u64> = s.memory.round.iter().filter(here).map(|&u| s.blocks.unit_key(u)).collect();
        let mut leaves = vec![
            Leaf::u64s("format", &[FORMAT]),
            Leaf::u8s("config", config_text(s).as_bytes()),
            Leaf::u64s("host", &words),
            Leaf::view("losses", View::F64(s.history.last())),
            Leaf::u8s("cursor", cursor_name(s).as_bytes()),
            Leaf::u64s("round", &round),
            Leaf::u64s("own", &s.memory.own),
            Leaf::view("flags", self.piece(Piece::Flags).view(0, flag::LEN)),
            Leaf::view("norm", self.piece(Piece::Norm).view(0, norm::LEN)),
        ];
        leaves.extend(self.window.as_ref().map(|w| Leaf::u64s("window", &w.words())));
        leaves
    }

    fn block_leaf(&self, block: BlockId) -> Leaf {
        let (s, at) = (&self.selection, block as usize);
        let [table, steps, powers] = [Piece::Table, Piece::Steps, Piece::Powers].map(|p| self.piece(p));
        let spec = s.blocks.spec(block);
        let mut words = [0; word::LEN];
        words[word::ROWS] = spec.shape[0] as u64;
        words[word::COLUMNS] = spec.shape[1] as u64;
        words[word::DTYPE] = dtype_code(spec.dtype);
        words[word::FROZEN] = u64::from(spec.frozen);
        words[word::LAYER..=word::CATEGORY].copy_from_slice(&place_words(spec));
        words[word::ALWAYS_ACTIVE] = u64::from(spec.always_active);
        words[word::LR_SCALE] = spec.scales.lr.to_bits();
        words[word::WEIGHT_DECAY_SCALE] = spec.scales.weight_decay.to_bits();
        let last = self.last.active.binary_search_by_key(&block, |a| a.0);
        words[word::LAST] = last.map_or(0, |i| self.last.active[i].1 as u64);
        words[word::CURRENT] = s.current.find(block).map_or(0, |r| r.k as u64);
        words[word::PENDING] = s.pending.as_ref().and_then(|p| p.find(block)).map_or(0, |r| r.k as u64);
        if words[word::CURRENT] > 0 {
            words[word::STEPS] = u64::from(u32s(steps)[at]);
            for (word, power) in words[word::POWERS..].iter_mut().zip(&f64s(powers)[4 * at..4 * at + 4]) {
                *word = power.to_bits();
            }
        }
        words[word::RANK] = self.order[0][at];
        if let Some(unit) = self.units[at] {
            words[word::UNIT_NUMBER] = self.order[1][unit as usize];
            words[word::UNIT] = s.blocks.unit_key(unit);
            words[word::VISITS] = s.visits[unit as usize];
            for (word, x) in words[word::TABLE..].iter_mut().zip(&f64s(table)[unit as usize * ROW..][..ROW]) {
                *word = x.to_bits();
            }
        }
        if let Some(window) = &self.window {
            words[word::ARRIVED] = u64::from(window.has_arrived(block));
            words[word::SUM] = f64s(self.piece(Piece::Sums))[at].to_bits();
        }
        Leaf::u64s(format!("block/{}", spec.record_name()), &words)
    }
}

impl<B: Backend> Optimizer<B> {
    /// Asks the device for everything that a bit-exact continuation needs. Between steps, or inside one: gradients that
    /// have come are then saved as far as they are packed, and the restored step waits for the others. (State-free updates
    /// that were made are in the parameters, which are the caller's to save.)
    ///
    /// # Errors
    /// [`Error::Pending`], [`Error::Poisoned`]; [`Error::Order`] inside a step of blocks that are updated as their gradients
    /// arrive; the device's.
    pub fn begin_save(&mut self) -> Result<Saving<B>, B> {
        let window = match &self.phase {
            Phase::Open(_) if self.selection.config.immediate => {
                return Err(Error::Order { call: "save", need: "blocks are updated as their gradients arrive: finish the step" });
            }
            Phase::Open(open) => Some(Window::of(open, self.selection.wanted(open.is_last()), &self.arrived)),
            _ => self.idle("save").map(|()| None)?,
        };
        let mut selection = self.selection.clone();
        if let Phase::Open(open) = &self.phase {
            selection.history.undo(open.loss); // entered anew where the step goes on
        }
        let (s, a, b) = (&selection, &self.arena, &mut self.backend);
        let (blocks, units) = (s.blocks.count(), s.blocks.units.len());
        let (used, masks, compute) = (s.current.packed_end(), s.current.mask_words(), s.blocks.compute);
        let is_open = usize::from(window.is_some());
        // While a step switches, its set's masks have the place of those that stand.
        let switches = window.is_some() && s.pending.is_some();
        let (standing, new_masks) = if switches { (&a.old_masks, s.next_set().mask_words()) } else { (&a.masks, 0) };
        let mut read = |buffer, dtype, len| {
            let ticket = b.read(buffer, 0, len).map_err(device::<B>("read the state"))?;
            Ok((ticket, HostBuffer::zeros(dtype, len), false))
        };
        let pieces = [
            read(&a.m, compute, used)?,
            read(&a.v, compute, used)?,
            read(standing, DType::U32, masks)?,
            read(&a.table, DType::F64, units * ROW)?,
            read(&a.steps, DType::U32, blocks)?,
            read(&a.powers, DType::F64, 4 * blocks)?,
            read(&a.flags, DType::U32, flag::LEN)?,
            read(&a.norm, DType::F64, norm::LEN)?,
            read(&a.gradient, compute, s.next_set().packed_end() * is_open)?,
            read(&a.masks, DType::U32, new_masks)?,
            read(&a.sums, DType::F64, blocks * is_open)?,
        ];
        b.submit().map_err(device::<B>("read the state"))?;
        Ok(Saving {
            units: s.blocks.unit_of_blocks(),
            order: s.blocks.order(),
            selection,
            last: self.last.clone(),
            window,
            pieces,
        })
    }

    /// The record of everything that a bit-exact continuation needs, waiting for the device.
    ///
    /// # Errors
    /// As [`Self::begin_save`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn save(&mut self) -> Result<Record, B> {
        let mut saving = self.begin_save()?;
        loop {
            if let Some(record) = saving.poll(&mut self.backend)? {
                return Ok(record);
            }
            self.backend.relax();
        }
    }
}

/// The unit at the cursor; where its blocks were removed, the next one that has any, which is where a walk begins.
fn cursor_name(s: &Selection) -> String {
    let units = s.blocks.units.len() as u32;
    let walk = (s.cursor..units).chain(0..s.cursor);
    walk.map(|u| s.blocks.unit_name(u)).find(|name| !name.is_empty()).unwrap_or_default()
}

fn u32s(buffer: &HostBuffer) -> &[u32] {
    match buffer {
        HostBuffer::U32(x) => x,
        other => unreachable!("a buffer of {}", other.dtype()),
    }
}

fn f64s(buffer: &HostBuffer) -> &[f64] {
    match buffer {
        HostBuffer::F64(x) => x,
        other => unreachable!("a buffer of {}", other.dtype()),
    }
}
