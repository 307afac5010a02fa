//! From the arena to named leaves.

use super::{config_text, host, name_hash, outcome_words, place_words, stage_word, unit_name, word};
use crate::backend::{Backend, flag, norm};
use crate::block::BlockId;
use crate::optimizer::{LastStep, Optimizer, Result, device};
use crate::record::{FORMAT, Leaf, Record, dtype_code};
use crate::reference::HostBuffer;
use crate::score::ROW;
use crate::selection::Selection;
use crate::tensor::{DType, View};
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

/// A snapshot on its way from the device. Training may go on meanwhile.
pub struct Saving<B: Backend> {
    selection: Selection,
    last: LastStep,
    /// By block, its unit.
    units: Vec<Option<u32>>,
    /// m, v, masks, score table, step counts, powers, flags, norm: on their way, and whether they have come.
    pieces: [(B::Ticket, HostBuffer, bool); 8],
}

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

    fn assemble(&self) -> Record {
        let s = &self.selection;
        let mut out = self.host_leaves();
        out.extend((0..s.blocks.count() as BlockId).map(|block| self.block_leaf(block)));
        let [m, v, masks] = [0, 1, 2].map(|i| &self.pieces[i].1);
        for r in &s.current.regions {
            let name = &s.blocks.spec(r.block).name;
            out.push(Leaf::view(format!("m/{name}"), m.view(r.at, r.k)));
            out.push(Leaf::view(format!("v/{name}"), v.view(r.at, r.k)));
            let words = r.mask_words();
            if !words.is_empty() {
                out.push(Leaf::view(format!("mask/{name}"), masks.view(words.start, words.len())));
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
        let round: Vec<u64> = s.memory.round.iter().map(|&u| name_hash(&unit_name(s, u))).collect();
        vec![
            Leaf::u64s("format", &[FORMAT]),
            Leaf::u8s("config", config_text(s).as_bytes()),
            Leaf::u64s("host", &words),
            Leaf::view("losses", View::F64(s.history.last())),
            Leaf::u8s("cursor", unit_name(s, s.cursor).as_bytes()),
            Leaf::u64s("round", &round),
            Leaf::view("flags", self.pieces[6].1.view(0, flag::LEN)),
            Leaf::view("norm", self.pieces[7].1.view(0, norm::LEN)),
        ]
    }

    fn block_leaf(&self, block: BlockId) -> Leaf {
        let (s, at) = (&self.selection, block as usize);
        let [table, steps, powers] = [3, 4, 5].map(|i| &self.pieces[i].1);
        let spec = s.blocks.spec(block);
        let mut words = [0; word::LEN];
        words[word::ROWS] = spec.shape[0] as u64;
        words[word::COLUMNS] = spec.shape[1] as u64;
        words[word::DTYPE] = dtype_code(spec.dtype);
        words[word::FROZEN] = u64::from(spec.frozen);
        words[word::LAYER..].copy_from_slice(&place_words(spec));
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
        if let Some(unit) = self.units[at] {
            words[word::UNIT] = name_hash(&unit_name(s, unit));
            words[word::VISITS] = s.visits[unit as usize];
            for (word, x) in words[word::TABLE..].iter_mut().zip(&f64s(table)[unit as usize * ROW..][..ROW]) {
                *word = x.to_bits();
            }
        }
        Leaf::u64s(format!("block/{}", spec.name), &words)
    }
}

impl<B: Backend> Optimizer<B> {
    /// Asks the device for everything that a bit-exact continuation needs.
    ///
    /// # Errors
    /// While a step is open or waiting; the device's.
    pub fn begin_save(&mut self) -> Result<Saving<B>, B> {
        self.idle("save")?;
        let (s, a, b) = (&self.selection, &self.arena, &mut self.backend);
        let (blocks, units) = (s.blocks.count(), s.blocks.units.len());
        let (used, masks, compute) = (s.current.packed_end(), s.current.mask_words(), s.blocks.compute);
        let mut read = |buffer, dtype, len| {
            let ticket = b.read(buffer, 0, len).map_err(device::<B>("read the state"))?;
            Ok((ticket, HostBuffer::zeros(dtype, len), false))
        };
        let pieces = [
            read(&a.m, compute, used)?,
            read(&a.v, compute, used)?,
            read(&a.masks, DType::U32, masks)?,
            read(&a.table, DType::F64, units * ROW)?,
            read(&a.steps, DType::U32, blocks)?,
            read(&a.powers, DType::F64, 4 * blocks)?,
            read(&a.flags, DType::U32, flag::LEN)?,
            read(&a.norm, DType::F64, norm::LEN)?,
        ];
        b.submit().map_err(device::<B>("read the state"))?;
        Ok(Saving { units: s.blocks.unit_of_blocks(), selection: self.selection.clone(), last: self.last.clone(), pieces })
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
