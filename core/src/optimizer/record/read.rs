//! What a record says, checked. Nothing is written here.

use super::window::Window;
use super::{config_text, host, outcome, place_words, stage, window, word};
use crate::backend::{flag, norm};
use crate::block::BlockId;
use crate::fill::Sized;
use crate::mask::{self, MaskKind};
use crate::moments::Region;
use crate::optimizer::LastStep;
use crate::policy::Memory;
use crate::record::{FORMAT, Problem, Record, dtype_code};
use crate::reference::HostBuffer;
use crate::score::ROW;
use crate::selection::{Selection, Stage};
use crate::tensor::DType;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};

/// Counts above this were not counted: no sum or product of them overflows, and f64 holds them.
const LARGEST: u64 = 1 << 52;

pub(super) type Checked<T> = core::result::Result<T, Problem>;

/// What a record holds, checked and in this optimizer's order.
pub(super) struct Restored {
    pub selection: Selection,
    /// By region of the current set: m, v, mask words.
    pub runs: Vec<(HostBuffer, HostBuffer, Vec<u32>)>,
    pub steps: Vec<u32>,
    pub powers: Vec<f64>,
    pub table: Vec<f64>,
    pub flags: Vec<u32>,
    pub norm: Vec<f64>,
    pub last: LastStep,
    /// Of an open step.
    pub window: Option<Window>,
    /// Of its set's regions that were gathered: where they are, their packed gradients and new masks.
    pub gathered: Vec<(Region, HostBuffer, Vec<u32>)>,
    pub sums: Vec<f64>,
}

/// All of a record, against the optimizer that it is to go on in.
pub(super) fn read(ours: &Selection, record: &Record) -> Checked<Restored> {
    same_format(record)?;
    same_config(ours, &record.u8s("config")?)?;
    same_blocks(ours, record)?;
    let (selection, words) = read_host(in_order(ours, record)?, record)?;
    let (blocks, units) = (selection.blocks.count(), selection.blocks.units.len());
    let mut out = Restored {
        runs: Vec::new(),
        steps: vec![0; blocks],
        powers: vec![1.0; 4 * blocks],
        table: vec![0.0; units * ROW],
        flags: exactly(record.u32s("flags")?, flag::LEN, "flags")?,
        norm: exactly(record.f64s("norm")?, norm::LEN, "norm")?,
        last: outcome(&words[host::LAST..host::DRAWN], Vec::new()),
        window: read_window(ours, record)?,
        gathered: Vec::new(),
        sums: vec![0.0; blocks],
        selection,
    };
    let (mut current, mut pending) = (Vec::new(), Vec::new());
    for (block, unit) in out.selection.blocks.unit_of_blocks().into_iter().enumerate() {
        if !out.selection.blocks.is_removed(block as BlockId) {
            out.read_block(record, block, unit, [&mut current, &mut pending])?;
        }
    }
    // Of the blocks trainable in the record, and with groups in its order: a group's layer is that of its first block.
    out.selection.follow_what_is_trainable();
    if words[host::BUDGET] != out.selection.budget as u64 {
        let problem = format!("its budget is {}, here it is {}", words[host::BUDGET], out.selection.budget);
        return Err(("host".to_string(), problem));
    }
    let mut set = out.selection.set(&current);
    set.regions.iter_mut().for_each(|r| r.fresh = false);
    out.runs = set.regions.iter().map(|r| read_run(&out.selection, record, r)).collect::<Checked<_>>()?;
    out.selection.current = set;
    out.selection.pending = (words[host::PENDING] != 0).then(|| out.selection.set(&pending));
    // Every block of a set that has updated has a step count, but for one that tripped in its first step (A6.5).
    let tripped = current.iter().map(|c| c.0).filter(|b| out.steps[*b as usize] == 0);
    out.selection.tripped = if out.selection.config.immediate { tripped.collect() } else { Vec::new() };
    let needed = out.selection.current.packed_end().max(out.selection.next_set().packed_end());
    if needed > (words[host::LIMIT] as usize).max(out.selection.budget) {
        let problem = format!("its active sets need {needed} coordinates, the budget is {}", out.selection.budget);
        return Err(("host".to_string(), problem));
    }
    out.selection.refresh();
    out.read_gathered(record)?;
    Ok(out)
}

/// The open step that was saved, if one was.
fn read_window(ours: &Selection, record: &Record) -> Checked<Option<Window>> {
    if record.get("window").is_none() {
        return Ok(None);
    }
    let problem = |problem: &str| ("window".to_string(), problem.to_string());
    if ours.config.immediate {
        return Err(problem("no step of blocks that are updated as their gradients arrive is saved while it is open"));
    }
    let words = exactly(record.u64s("window")?, window::WORDS, "window")?;
    Window::read(&words).map(Some).map_err(problem)
}

/// Counters, losses and cursor; and all words of `host`.
fn read_host(mut s: Selection, record: &Record) -> Checked<(Selection, Vec<u64>)> {
    let words = exactly(record.u64s("host")?, host::LEN, "host")?;
    if words[..host::FORCED].iter().any(|w| *w > LARGEST) {
        return Err(("host".into(), "a count that no run reaches".to_string()));
    }
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
    let units = || 0..s.blocks.units.len() as u32;
    let unit = units().find(|&u| s.blocks.unit_name(u).as_bytes() == cursor.as_slice());
    let unit = unit.ok_or_else(|| {
        ("cursor".to_string(), format!("no unit is named {:?}", String::from_utf8_lossy(&cursor[..cursor.len().min(80)])))
    })?;
    let by_key: BTreeMap<u64, u32> = units().map(|u| (s.blocks.unit_key(u), u)).collect();
    let round: Option<Vec<u32>> = record.u64s("round")?.iter().map(|key| by_key.get(key).copied()).collect();
    let round = round.ok_or_else(|| ("round".to_string(), "a unit that is not here".to_string()))?;
    let mut sorted = round.clone();
    sorted.sort_unstable();
    if sorted.windows(2).any(|w| w[0] == w[1]) || words[host::DRAWN] > LARGEST {
        return Err(("round".into(), "no round of a policy".to_string()));
    }
    s.cursor = unit;
    s.memory = Memory { round, drawn: words[host::DRAWN], own: record.u64s("own")? };
    s.scanned = words[host::SCANNED].min(s.step);
    let known = stage(words[host::STAGE]).filter(|other| *other == Stage::Training || s.config.policy.scores());
    s.stage = known.ok_or_else(|| ("host".to_string(), "a stage that this policy does not have".to_string()))?;
    Ok((s, words))
}

/// The selection with blocks and units in the record's order: draws, ties, walks and sums go by it.
fn in_order(ours: &Selection, record: &Record) -> Checked<Selection> {
    let mut s = ours.clone();
    let (mut places, mut numbers) = (vec![None; s.blocks.count()], vec![None; s.blocks.units.len()]);
    let units = s.blocks.unit_of_blocks();
    for (block, spec) in s.blocks.live() {
        let leaf = format!("block/{}", spec.record_name());
        let words = exactly(record.u64s(&leaf)?, word::LEN, &leaf)?;
        places[block as usize] = Some(words[word::RANK]);
        if let Some(unit) = units[block as usize] {
            let number = words[word::UNIT_NUMBER];
            if *numbers[unit as usize].get_or_insert(number) != number {
                return Err((leaf, "it was in another group".to_string()));
            }
        }
    }
    s.blocks.reorder(&places, &numbers);
    Ok(s)
}

/// A block of the record that is not here; the other way round shows when each of ours is read.
fn same_blocks(ours: &Selection, record: &Record) -> Checked<()> {
    let names: BTreeSet<&str> = ours.blocks.live().map(|(_, b)| b.record_name()).collect();
    let mut theirs = record.leaves().iter().filter_map(|l| l.name.strip_prefix("block/"));
    match theirs.find(|n| !names.contains(n)) {
        Some(name) => Err((format!("block/{name}"), "no block here has this name".to_string())),
        None => Ok(()),
    }
}

impl Restored {
    fn read_block(&mut self, record: &Record, block: usize, unit: Option<u32>, sets: [&mut Vec<Sized>; 2]) -> Checked<()> {
        let spec = &mut self.selection.blocks.specs[block];
        let leaf = format!("block/{}", spec.record_name());
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
        self.sums[block] = f64::from_bits(words[word::SUM]);
        if let (Some(window), true) = (&mut self.window, words[word::ARRIVED] != 0) {
            window.arrived.insert(block as BlockId);
        }
        let floats = |words: &[u64], to: &mut [f64]| to.iter_mut().zip(words).for_each(|(x, w)| *x = f64::from_bits(*w));
        floats(&words[word::POWERS..], &mut self.powers[4 * block..4 * block + 4]);
        let Some(unit) = unit else { return Ok(()) };
        if words[word::UNIT] != self.selection.blocks.unit_key(unit) {
            return Err((leaf, "it was in another group".to_string()));
        }
        self.selection.visits[unit as usize] = words[word::VISITS];
        floats(&words[word::TABLE..], &mut self.table[unit as usize * ROW..][..ROW]);
        Ok(())
    }

    /// The open step's packed gradients and new masks. The plan is made.
    fn read_gathered(&mut self, record: &Record) -> Checked<()> {
        let (Some(window), s) = (&self.window, &self.selection) else { return Ok(()) };
        let last = window.micro_batch + 1 == window.step.micro_batches;
        if let Some(block) = window.arrived.iter().find(|b| s.wanted_index(**b, last).is_none()) {
            let leaf = format!("block/{}", s.blocks.spec(*block).record_name());
            return Err((leaf, "a gradient came that its step does not ask for".to_string()));
        }
        for r in s.next_set().regions.iter().filter(|r| window.has_gathered(r.block)) {
            let mask = if s.pending.is_some() { read_mask(s, record, r, "new_mask")? } else { Vec::new() };
            self.gathered.push((*r, read_packed(s, record, r, "g")?, mask));
        }
        Ok(())
    }
}

fn read_run(s: &Selection, record: &Record, r: &Region) -> Checked<(HostBuffer, HostBuffer, Vec<u32>)> {
    Ok((read_packed(s, record, r, "m")?, read_packed(s, record, r, "v")?, read_mask(s, record, r, "mask")?))
}

/// As many elements of the compute type as the region has.
pub(super) fn read_packed(s: &Selection, record: &Record, r: &Region, prefix: &str) -> Checked<HostBuffer> {
    let leaf = format!("{prefix}/{}", s.blocks.spec(r.block).record_name());
    let buffer = match s.blocks.compute {
        DType::F64 => HostBuffer::F64(record.f64s(&leaf)?),
        _ => HostBuffer::F32(record.f32s(&leaf)?),
    };
    if buffer.len() == r.k { Ok(buffer) } else { Err((leaf, format!("{} elements, not {}", buffer.len(), r.k))) }
}

fn read_mask(s: &Selection, record: &Record, r: &Region, prefix: &str) -> Checked<Vec<u32>> {
    if !r.masked() {
        return Ok(Vec::new());
    }
    let leaf = format!("{prefix}/{}", s.blocks.spec(r.block).record_name());
    let mask = exactly(record.u32s(&leaf)?, mask::words(r.n), &leaf)?;
    // A short tile may hold fewer (A4.5).
    let tiles = !matches!(s.config.mask, MaskKind::Coordinate);
    let count: usize = mask[..mask.len().min(mask::bit_words(r.n))].iter().map(|w| w.count_ones() as usize).sum();
    if !mask::is_valid(&mask, r.n, r.k) || (count < r.k && !tiles) {
        return Err((leaf, format!("not a mask of {} of {} coordinates", r.k, r.n)));
    }
    Ok(mask)
}

pub(super) fn same_format(record: &Record) -> Checked<()> {
    let format = record.u64s("format")?;
    if format == [FORMAT] { Ok(()) } else { Err(("format".into(), format!("version {format:?}, this crate reads {FORMAT}"))) }
}

pub(super) fn exactly<T>(words: Vec<T>, len: usize, leaf: &str) -> Checked<Vec<T>> {
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
