//! From named leaves to the arena. All is checked before anything is written.

use super::{config_text, host, name_hash, outcome, place_words, stage, unit_name, word};
use crate::backend::{Arena, Backend, flag, norm};
use crate::block::BlockId;
use crate::error::Error;
use crate::fill::Sized;
use crate::mask::{self, MaskKind};
use crate::moments::Region;
use crate::optimizer::phase::Phase;
use crate::optimizer::{LastStep, Optimizer, Result, device};
use crate::policy::{Memory, Policy};
use crate::record::{FORMAT, Problem, Record, dtype_code};
use crate::reference::HostBuffer;
use crate::score::ROW;
use crate::selection::{Selection, Stage};
use crate::tensor::{DType, View};
use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};

/// Counts above this were not counted: no sum or product of them overflows, and f64 holds them.
const LARGEST: u64 = 1 << 52;

type Checked<T> = core::result::Result<T, Problem>;

/// What a record holds, checked and in this optimizer's order.
struct Restored {
    selection: Selection,
    /// By region of the current set: m, v, mask words.
    runs: Vec<(HostBuffer, HostBuffer, Vec<u32>)>,
    steps: Vec<u32>,
    powers: Vec<f64>,
    table: Vec<f64>,
    flags: Vec<u32>,
    norm: Vec<f64>,
    last: LastStep,
}

impl<B: Backend> Optimizer<B> {
    /// Goes on where the record was made, in whatever phase this optimizer is: also after an error that poisoned it.
    ///
    /// # Errors
    /// [`Error::Record`] with the leaf and what is wrong: this optimizer is as it was. A backend's error while state is
    /// written poisons it.
    pub fn restore(&mut self, record: &Record) -> Result<(), B> {
        let restored = read(&self.selection, record).map_err(|(leaf, problem)| Error::Record { leaf, problem })?;
        let s = &restored.selection;
        let needed = s.current.packed_end().max(s.next_set().packed_end());
        if s.config.policy != Policy::Full && needed > self.capacity {
            let problem = format!("its active sets need {needed} coordinates, the budget is {}", self.capacity);
            return Err(Error::Record { leaf: "host".to_string(), problem });
        }
        self.grow(needed)?;
        let words = s.current.mask_words();
        let masks = self.backend.alloc(DType::U32, words).map_err(device::<B>("restore"))?;
        self.phase = Phase::Poisoned; // until all is written
        self.entering = None;
        self.report = None;
        (self.arena.masks, self.mask_words) = (masks, [words, 0]);
        write(&mut self.backend, &mut self.arena, &restored).map_err(device::<B>("restore"))?;
        self.free_switch_buffers()?;
        (self.selection, self.last) = (restored.selection, restored.last);
        self.selection.refresh();
        self.reset_arrivals();
        self.phase = Phase::Idle;
        Ok(())
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
    b.write(&mut a.norm, 0, View::F64(&restored.norm))?;
    b.submit()
}

fn read(ours: &Selection, record: &Record) -> Checked<Restored> {
    let format = record.u64s("format")?;
    if format != [FORMAT] {
        return Err(("format".into(), format!("version {format:?}, this crate reads {FORMAT}")));
    }
    same_config(ours, &record.u8s("config")?)?;
    same_blocks(ours, record)?;
    let (selection, words) = read_host(ours, record)?;
    let (blocks, units) = (selection.blocks.count(), selection.blocks.units.len());
    let mut out = Restored {
        runs: Vec::new(),
        steps: vec![0; blocks],
        powers: vec![1.0; 4 * blocks],
        table: vec![0.0; units * ROW],
        flags: exactly(record.u32s("flags")?, flag::LEN, "flags")?,
        norm: exactly(record.f64s("norm")?, norm::LEN, "norm")?,
        last: outcome(&words[host::LAST..host::DRAWN], Vec::new()),
        selection,
    };
    let (mut current, mut pending) = (Vec::new(), Vec::new());
    for (block, unit) in out.selection.blocks.unit_of_blocks().into_iter().enumerate() {
        out.read_block(record, block, unit, [&mut current, &mut pending])?;
    }
    let mut set = out.selection.set(&current);
    set.regions.iter_mut().for_each(|r| r.fresh = false);
    out.runs = set.regions.iter().map(|r| read_run(&out.selection, record, r)).collect::<Checked<_>>()?;
    out.selection.current = set;
    out.selection.pending = (words[host::PENDING] != 0).then(|| out.selection.set(&pending));
    // Every block of a set that has updated has a step count, but for one that tripped in its first step (A6.5).
    let tripped = current.iter().map(|c| c.0).filter(|b| out.steps[*b as usize] == 0);
    out.selection.tripped = if out.selection.config.immediate { tripped.collect() } else { Vec::new() };
    Ok(out)
}

/// Counters, losses and cursor; and all words of `host`.
fn read_host(ours: &Selection, record: &Record) -> Checked<(Selection, Vec<u64>)> {
    let words = exactly(record.u64s("host")?, host::LEN, "host")?;
    if words[host::BUDGET] != ours.budget as u64 {
        return Err(("host".into(), format!("its budget is {}, here it is {}", words[host::BUDGET], ours.budget)));
    }
    if words[..host::FORCED].iter().any(|w| *w > LARGEST) {
        return Err(("host".into(), "a count that no run reaches".to_string()));
    }
    let mut s = ours.clone();
    (s.step, s.decisions, s.stream.draws) = (words[host::STEP], words[host::DECISIONS], words[host::DRAWS]);
    s.forced = words[host::FORCED] != 0;
    let losses = record.f64s("losses")?;
    if losses.iter().any(|l| !l.is_finite()) {
        return Err(("losses".into(), "a loss that is not finite".to_string()));
    }
    if losses.len() as u64 != words[host::LOSSES].min(s.config.patience as u64) {
        return Err(("losses".into(), format!("{} losses do not fit a history of {}", losses.len(), words[host::LOSSES])));
    }
    s.history.restore(&losses, words[host::LOSSES]);
    let cursor = record.u8s("cursor")?;
    let unit = (0..s.blocks.units.len() as u32).find(|&u| unit_name(&s, u).as_bytes() == cursor.as_slice());
    s.cursor = unit.ok_or_else(|| ("cursor".to_string(), format!("no unit is named {}", String::from_utf8_lossy(&cursor))))?;
    let name = |u: &u32| name_hash(&unit_name(&s, *u));
    let units: Vec<(u64, u32)> = (0..s.blocks.units.len() as u32).map(|u| (name(&u), u)).collect();
    let unit = |hash: u64| units.iter().find(|(h, _)| *h == hash).map(|(_, u)| *u);
    let round: Option<Vec<u32>> = record.u64s("round")?.into_iter().map(unit).collect();
    let round = round.ok_or_else(|| ("round".to_string(), "a unit that is not here".to_string()))?;
    if (1..round.len()).any(|i| round[..i].contains(&round[i])) || words[host::DRAWN] > LARGEST {
        return Err(("round".into(), "no round of a policy".to_string()));
    }
    s.memory = Memory { round, drawn: words[host::DRAWN] };
    s.scanned = words[host::SCANNED].min(s.step);
    let known = stage(words[host::STAGE]).filter(|other| *other == Stage::Training || s.config.policy.scores());
    s.stage = known.ok_or_else(|| ("host".to_string(), "a stage that this policy does not have".to_string()))?;
    Ok((s, words))
}

/// A block of the record that is not here; the other way round shows when each of ours is read.
fn same_blocks(ours: &Selection, record: &Record) -> Checked<()> {
    let names: BTreeSet<&str> = ours.blocks.specs.iter().map(|b| b.name.as_str()).collect();
    let mut theirs = record.leaves().iter().filter_map(|l| l.name.strip_prefix("block/"));
    match theirs.find(|n| !names.contains(n)) {
        Some(name) => Err((format!("block/{name}"), "no block here has this name".to_string())),
        None => Ok(()),
    }
}

impl Restored {
    fn read_block(&mut self, record: &Record, block: usize, unit: Option<u32>, sets: [&mut Vec<Sized>; 2]) -> Checked<()> {
        let spec = &mut self.selection.blocks.specs[block];
        let leaf = format!("block/{}", spec.name);
        let words = exactly(record.u64s(&leaf)?, word::LEN, &leaf)?;
        let shape = [words[word::ROWS], words[word::COLUMNS]];
        if shape != spec.shape.map(|n| n as u64) {
            return Err((leaf, format!("its shape is {shape:?}, here it is {:?}", spec.shape)));
        }
        if words[word::DTYPE] != dtype_code(spec.dtype) {
            return Err((leaf, format!("its element type is not {}", spec.dtype)));
        }
        for (what, theirs, ours) in [
            ("always active", words[word::ALWAYS_ACTIVE], u64::from(spec.always_active)),
            ("layer", words[word::LAYER], place_words(spec)[0]),
            ("category (hash)", words[word::CATEGORY], place_words(spec)[1]),
            ("lr scale (bits)", words[word::LR_SCALE], spec.scales.lr.to_bits()),
            ("weight decay scale (bits)", words[word::WEIGHT_DECAY_SCALE], spec.scales.weight_decay.to_bits()),
        ] {
            if theirs != ours {
                return Err((leaf, format!("{what} was {theirs}, here it is {ours}")));
            }
        }
        spec.frozen = words[word::FROZEN] != 0;
        for (set, k) in sets.into_iter().zip([words[word::CURRENT], words[word::PENDING]]) {
            if k > spec.len() as u64 || (k > 0 && spec.frozen) {
                return Err((leaf, format!("{k} active coordinates of {}", spec.len())));
            }
            if k > 0 {
                set.push((block as BlockId, k as usize));
            }
        }
        if words[word::LAST] > spec.len() as u64 || words[word::STEPS] > u64::from(u32::MAX >> 1) || words[word::VISITS] > LARGEST
        {
            return Err((leaf, "a count that no run reaches".to_string()));
        }
        let scored = f64::from_bits(words[word::TABLE + 2]);
        if !(0.0..=self.selection.step as f64).contains(&scored) {
            return Err((leaf, format!("its score is of step {scored}, the record of step {}", self.selection.step)));
        }
        if words[word::LAST] > 0 {
            self.last.active.push((block as BlockId, words[word::LAST] as usize));
        }
        self.steps[block] = words[word::STEPS] as u32;
        let floats = |words: &[u64], to: &mut [f64]| to.iter_mut().zip(words).for_each(|(x, w)| *x = f64::from_bits(*w));
        floats(&words[word::POWERS..], &mut self.powers[4 * block..4 * block + 4]);
        let Some(unit) = unit else { return Ok(()) };
        if words[word::UNIT] != name_hash(&unit_name(&self.selection, unit)) {
            return Err((leaf, "it was in another group".to_string()));
        }
        self.selection.visits[unit as usize] = words[word::VISITS];
        floats(&words[word::TABLE..], &mut self.table[unit as usize * ROW..][..ROW]);
        Ok(())
    }
}

fn read_run(s: &Selection, record: &Record, r: &Region) -> Checked<(HostBuffer, HostBuffer, Vec<u32>)> {
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
        // A short tile may hold fewer (A4.5).
        let tiles = !matches!(s.config.mask, MaskKind::Coordinate);
        let count: usize = mask[..mask.len().min(mask::bit_words(r.n))].iter().map(|w| w.count_ones() as usize).sum();
        if !mask::is_valid(&mask, r.n, r.k) || (count < r.k && !tiles) {
            return Err((leaf, format!("not a mask of {} of {} coordinates", r.k, r.n)));
        }
    }
    Ok((moment("m")?, moment("v")?, mask))
}

fn exactly<T>(words: Vec<T>, len: usize, leaf: &str) -> Checked<Vec<T>> {
    if words.len() == len { Ok(words) } else { Err((leaf.to_string(), format!("{} elements, not {len}", words.len()))) }
}

/// A run goes on bit for bit only under the configuration that it began with.
fn same_config(ours: &Selection, theirs: &[u8]) -> Checked<()> {
    let text = config_text(ours);
    let theirs = String::from_utf8_lossy(theirs);
    if text == theirs {
        return Ok(());
    }
    let differ = text.lines().zip(theirs.lines()).find(|(a, b)| a != b);
    let problem = differ
        .map_or_else(|| "it has other fields".to_string(), |(a, b)| format!("the record was made with {b}, here it is {a}"));
    Err(("config".to_string(), problem))
}
