//! Save and restore.

use super::{Optimizer, Phase, Result, device};
use crate::backend::{Arena, Backend, flag};
use crate::block::BlockId;
use crate::error::Error;
use crate::mask;
use crate::moments::{ActiveSet, Region};
use crate::policy::Policy;
use crate::record::{FORMAT, Leaf, Problem, Record, dtype_code};
use crate::reference::HostBuffer;
use crate::score::ROW;
use crate::selection::Selection;
use crate::tensor::{DType, View};
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Words of `block/NAME`.
mod word {
    pub const ROWS: usize = 0;
    pub const COLUMNS: usize = 1;
    pub const DTYPE: usize = 2;
    pub const FROZEN: usize = 3;
    /// k in the set that last updated; 0 where it is not in it.
    pub const CURRENT: usize = 4;
    /// k in the pending set.
    pub const PENDING: usize = 5;
    pub const STEPS: usize = 6;
    pub const POWERS: usize = 7;
    pub const UNIT: usize = 11;
    pub const VISITS: usize = 12;
    pub const TABLE: usize = 13;
    pub const LEN: usize = 16;
}

/// Words of `host`.
mod host {
    pub const STEP: usize = 0;
    pub const DECISIONS: usize = 1;
    pub const DRAWS: usize = 2;
    pub const LOSSES: usize = 3;
    pub const FORCED: usize = 4;
    pub const PENDING: usize = 5;
    pub const BUDGET: usize = 6;
    pub const LEN: usize = 7;
}

/// A snapshot on its way from the device. Training may go on meanwhile.
pub struct Saving<B: Backend> {
    selection: Selection,
    pieces: [(B::Ticket, HostBuffer, bool); 7],
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
        let (s, mut out) = (&self.selection, Vec::new());
        let [m, v, masks, table, steps, powers, flags] = self.pieces.each_ref().map(|p| &p.1);
        out.push(Leaf::u64s("format", &[FORMAT]));
        out.push(Leaf::u8s("config", config_text(s).as_bytes()));
        let mut words = [0; host::LEN];
        words[host::STEP] = s.step;
        words[host::DECISIONS] = s.decisions;
        words[host::DRAWS] = s.stream.draws;
        words[host::LOSSES] = s.history.count();
        words[host::FORCED] = u64::from(s.forced);
        words[host::PENDING] = u64::from(s.pending.is_some());
        words[host::BUDGET] = s.budget as u64;
        out.push(Leaf::u64s("host", &words));
        out.push(Leaf::view("losses", View::F64(s.history.last())));
        out.push(Leaf::u8s("cursor", unit_name(s, s.cursor).as_bytes()));
        out.push(Leaf::view("flags", flags.view(0, flag::LEN)));
        let units = s.blocks.unit_of_blocks();
        for block in 0..s.blocks.count() as BlockId {
            let spec = s.blocks.spec(block);
            let at = block as usize;
            let mut words = [0; word::LEN];
            words[word::ROWS] = spec.shape[0] as u64;
            words[word::COLUMNS] = spec.shape[1] as u64;
            words[word::DTYPE] = dtype_code(spec.dtype);
            words[word::FROZEN] = u64::from(spec.frozen);
            words[word::CURRENT] = s.current.find(block).map_or(0, |r| r.k as u64);
            words[word::PENDING] = s.pending.as_ref().and_then(|p| p.find(block)).map_or(0, |r| r.k as u64);
            if words[word::CURRENT] > 0 {
                words[word::STEPS] = u64::from(u32s(steps)[at]);
                for i in 0..4 {
                    words[word::POWERS + i] = f64s(powers)[4 * at + i].to_bits();
                }
            }
            if let Some(unit) = units[at] {
                words[word::UNIT] = name_hash(unit_name(s, unit));
                words[word::VISITS] = s.visits[unit as usize];
                for i in 0..ROW {
                    words[word::TABLE + i] = f64s(table)[unit as usize * ROW + i].to_bits();
                }
            }
            out.push(Leaf::u64s(format!("block/{}", spec.name), &words));
        }
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
}

/// What a record holds, checked and in this optimizer's order.
struct Restored {
    selection: Selection,
    /// By region of the current set: m, v, mask words.
    runs: Vec<(HostBuffer, HostBuffer, Vec<u32>)>,
    steps: Vec<u32>,
    powers: Vec<f64>,
    table: Vec<f64>,
    flags: Vec<u32>,
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
        ];
        self.backend.submit().map_err(device::<B>("read the state"))?;
        Ok(Saving { selection: self.selection.clone(), pieces })
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
            core::hint::spin_loop();
        }
    }

    /// Goes on where the record was made, in whatever phase this optimizer is: also after an error that poisoned it.
    ///
    /// # Errors
    /// [`Error::Record`] with the leaf and what is wrong: this optimizer is as it was. A backend's error while state is
    /// written poisons it.
    pub fn restore(&mut self, record: &Record) -> Result<(), B> {
        let restored = read(&self.selection, record).map_err(|(leaf, problem)| Error::Record { leaf, problem })?;
        let set = &restored.selection.current;
        if restored.selection.config.policy != Policy::Full && set.packed_end() > self.capacity {
            let problem = format!("its moments need {} elements, the budget is {}", set.packed_end(), self.capacity);
            return Err(Error::Record { leaf: "host".to_string(), problem });
        }
        self.grow(set.packed_end())?;
        let masks = self.backend.alloc(DType::U32, set.mask_words()).map_err(device::<B>("restore"))?;
        self.arena.masks = masks;
        self.report = None;
        self.phase = Phase::Poisoned; // until all is written
        write(&mut self.backend, &mut self.arena, &restored).map_err(device::<B>("restore"))?;
        self.selection = restored.selection;
        self.selection.refresh();
        self.reset_arrivals();
        self.phase = Phase::Idle;
        self.free_switch_buffers()
    }
}

fn write<B: Backend>(b: &mut B, a: &mut Arena<B::Buffer>, restored: &Restored) -> core::result::Result<(), B::Error> {
    for (r, (m, v, mask)) in restored.selection.current.regions.iter().zip(&restored.runs) {
        b.write(&mut a.m, r.at, m.view(0, r.k))?;
        b.write(&mut a.v, r.at, v.view(0, r.k))?;
        b.write(&mut a.masks, r.mask_at, View::U32(mask))?;
    }
    b.write(&mut a.steps, 0, View::U32(&restored.steps))?;
    b.write(&mut a.powers, 0, View::F64(&restored.powers))?;
    b.write(&mut a.table, 0, View::F64(&restored.table))?;
    b.write(&mut a.flags, 0, View::U32(&restored.flags))?;
    b.submit()
}

fn read(ours: &Selection, record: &Record) -> core::result::Result<Restored, Problem> {
    let format = record.u64s("format")?;
    if format != [FORMAT] {
        return Err(("format".into(), format!("version {format:?}, this crate reads {FORMAT}")));
    }
    same_config(ours, &record.u8s("config")?)?;
    let words = exactly(record.u64s("host")?, host::LEN, "host")?;
    if words[host::BUDGET] != ours.budget as u64 {
        return Err(("host".into(), format!("its budget is {}, here it is {}", words[host::BUDGET], ours.budget)));
    }
    let mut s = ours.clone();
    (s.step, s.decisions, s.stream.draws) = (words[host::STEP], words[host::DECISIONS], words[host::DRAWS]);
    s.forced = words[host::FORCED] != 0;
    let losses = record.f64s("losses")?;
    if losses.len() as u64 != words[host::LOSSES].min(s.config.patience as u64) {
        return Err(("losses".into(), format!("{} losses do not fit a history of {}", losses.len(), words[host::LOSSES])));
    }
    s.history.restore(&losses, words[host::LOSSES]);
    let cursor = record.u8s("cursor")?;
    let unit = (0..s.blocks.units.len() as u32).find(|&u| unit_name(&s, u).as_bytes() == cursor);
    s.cursor = unit.ok_or_else(|| ("cursor".to_string(), format!("no unit is named {}", String::from_utf8_lossy(&cursor))))?;
    let (blocks, units) = (s.blocks.count(), s.blocks.unit_of_blocks());
    let names: BTreeSet<&str> = ours.blocks.specs.iter().map(|b| b.name.as_str()).collect();
    let mut theirs = record.leaves().iter().filter_map(|l| l.name.strip_prefix("block/"));
    if let Some(name) = theirs.find(|n| !names.contains(n)) {
        return Err((format!("block/{name}"), "no block here has this name".to_string()));
    }
    let mut out = Restored {
        runs: Vec::new(),
        steps: alloc::vec![0; blocks],
        powers: alloc::vec![1.0; 4 * blocks],
        table: alloc::vec![0.0; s.blocks.units.len() * ROW],
        flags: exactly(record.u32s("flags")?, flag::LEN, "flags")?,
        selection: s,
    };
    let (mut current, mut pending) = (Vec::new(), Vec::new());
    for block in 0..blocks {
        let spec = &mut out.selection.blocks.specs[block];
        let leaf = format!("block/{}", spec.name);
        let words = exactly(record.u64s(&leaf)?, word::LEN, &leaf)?;
        let shape = [words[word::ROWS], words[word::COLUMNS]];
        if shape != spec.shape.map(|n| n as u64) {
            return Err((leaf, format!("its shape is {shape:?}, here it is {:?}", spec.shape)));
        }
        if words[word::DTYPE] != dtype_code(spec.dtype) {
            return Err((leaf, format!("its element type is not {}", spec.dtype)));
        }
        spec.frozen = words[word::FROZEN] != 0;
        let n = spec.len() as u64;
        for (set, k) in [(&mut current, words[word::CURRENT]), (&mut pending, words[word::PENDING])] {
            if k > n || (k > 0 && words[word::FROZEN] != 0) {
                return Err((leaf, format!("{k} active coordinates of {n}")));
            }
            if k > 0 {
                set.push((block as BlockId, k as usize));
            }
        }
        out.steps[block] = words[word::STEPS] as u32;
        for i in 0..4 {
            out.powers[4 * block + i] = f64::from_bits(words[word::POWERS + i]);
        }
        if let Some(unit) = units[block] {
            if words[word::UNIT] != name_hash(unit_name(&out.selection, unit)) {
                return Err((leaf, "it was in another group".to_string()));
            }
            out.selection.visits[unit as usize] = words[word::VISITS];
            for i in 0..ROW {
                out.table[unit as usize * ROW + i] = f64::from_bits(words[word::TABLE + i]);
            }
        }
    }
    let set = ActiveSet::new(&out.selection.blocks, &current);
    out.runs = set.regions.iter().map(|r| read_run(&out.selection, record, r)).collect::<core::result::Result<_, _>>()?;
    out.selection.current = set;
    out.selection.current.regions.iter_mut().for_each(|r| r.fresh = false);
    out.selection.pending = (words[host::PENDING] != 0).then(|| ActiveSet::new(&out.selection.blocks, &pending));
    Ok(out)
}

fn read_run(s: &Selection, record: &Record, r: &Region) -> core::result::Result<(HostBuffer, HostBuffer, Vec<u32>), Problem> {
    let name = &s.blocks.spec(r.block).name;
    let moment = |prefix: &str| {
        let leaf = format!("{prefix}/{name}");
        let buffer = match s.blocks.compute {
            DType::F64 => HostBuffer::F64(record.f64s(&leaf)?),
            _ => HostBuffer::F32(record.f32s(&leaf)?),
        };
        if buffer.len() == r.k { Ok(buffer) } else { Err((leaf, format!("{} elements, not {}", buffer.len(), r.k))) }
    };
    let mut mask = Vec::new();
    if r.masked() {
        let leaf = format!("mask/{name}");
        mask = exactly(record.u32s(&leaf)?, mask::words(r.n), &leaf)?;
        if !mask::is_valid(&mask, r.n, r.k) {
            return Err((leaf, format!("not a mask of at most {} of {} coordinates", r.k, r.n)));
        }
    }
    Ok((moment("m")?, moment("v")?, mask))
}

fn exactly<T>(words: Vec<T>, len: usize, leaf: &str) -> core::result::Result<Vec<T>, Problem> {
    if words.len() == len { Ok(words) } else { Err((leaf.to_string(), format!("{} elements, not {len}", words.len()))) }
}

/// A unit's name: its group's, or its block's.
fn unit_name(s: &Selection, unit: u32) -> &str {
    let spec = s.blocks.spec(s.blocks.units[unit as usize].blocks[0]);
    spec.group.as_deref().unwrap_or(&spec.name)
}

fn name_hash(name: &str) -> u64 {
    crate::record::fnv1a(name.bytes())
}

fn config_text(s: &Selection) -> String {
    let c = &s.config;
    format!(
        "policy = {:?}\nsparsity = {:?}\npatience = {:?}\nseed = {:?}\nscore = {:?}\nprobe_order = {:?}\n\
         probes_per_step = {:?}\nvisit_bias = {:?}\nfill = {:?}\nmask = {:?}\nacross = {:?}\ninactive = {:?}\n\
         decay = {:?}\nbetas = {:?}\neps = {:?}\nweight_decay = {:?}\nclip = {:?}\nguard_limit = {:?}\nmoments = {}\n",
        c.policy, c.sparsity, c.patience, c.seed, c.score, c.probe_order, c.probes_per_step, c.visit_bias, c.fill, c.mask,
        c.across, c.inactive, c.decay, c.betas, c.eps, c.weight_decay, c.clip, c.guard_limit, s.blocks.compute,
    )
}

/// A run goes on bit for bit only under the configuration that it began with.
fn same_config(ours: &Selection, theirs: &[u8]) -> core::result::Result<(), Problem> {
    let text = config_text(ours);
    let theirs = String::from_utf8_lossy(theirs);
    if text == theirs {
        return Ok(());
    }
    let differ = text.lines().zip(theirs.lines()).find(|(a, b)| a != b);
    let problem = differ.map_or_else(|| "it has other fields".to_string(), |(a, b)| format!("the record was made with {b}, here it is {a}"));
    Err(("config".to_string(), problem))
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
