//! From named leaves to the arena. All is checked before anything is written.

use super::window::Window;
use super::{config_text, host, outcome, place_words, stage, window, word};
use crate::backend::{Arena, Backend, flag, norm};
use crate::block::BlockId;
use crate::config::Across;
use crate::error::Error;
use crate::fill::Sized;
use crate::mask::{self, MaskKind};
use crate::moments::Region;
use crate::optimizer::phase::{Open, Phase};
use crate::optimizer::{LastStep, Optimizer, Result, device};
use crate::policy::Memory;
use crate::record::{FORMAT, Problem, Record, dtype_code};
use crate::reference::HostBuffer;
use crate::score::ROW;
use crate::selection::{Selection, Stage};
use crate::tensor::{DType, View};
use alloc::collections::{BTreeMap, BTreeSet};
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
    /// Of an open step.
    window: Option<Window>,
    /// Of its set's regions that were gathered: where they are, their packed gradients and new masks.
    gathered: Vec<(Region, HostBuffer, Vec<u32>)>,
    sums: Vec<f64>,
}

impl<B: Backend> Optimizer<B> {
    /// Goes on where the record was made, in whatever phase this optimizer is: also after an error that poisoned it. Where
    /// the record was made inside a step, that step is open: [`Self::missing`] tells which gradients it waits for.
    ///
    /// # Errors
    /// [`Error::Record`] with the leaf and what is wrong: this optimizer is as it was. A backend's error while state is
    /// written poisons it.
    pub fn restore(&mut self, record: &Record) -> Result<(), B> {
        let problem = |(leaf, problem)| Error::Record { leaf, problem };
        let mut restored = read(&self.selection, record).map_err(problem)?;
        if let Some(window) = &restored.window {
            let wrong = self.check_step(&window.step).err().map(|e| ("window".to_string(), e.to_string()));
            wrong.map_or(Ok(()), |e| Err(problem(e)))?;
        }
        let s = &restored.selection;
        let needed = s.current.packed_end().max(s.next_set().packed_end());
        let switches = restored.window.is_some() && s.pending.is_some();
        let carrying = switches && restored.carries();
        self.fit(needed)?;
        let op = device::<B>("restore");
        let (standing, new_masks) = (s.current.mask_words(), if switches { s.next_set().mask_words() } else { 0 });
        let mut masks = self.backend.alloc(DType::U32, standing).map_err(&op)?;
        let mut others = self.backend.alloc(DType::U32, new_masks).map_err(&op)?;
        let spare = self.backend.alloc(s.blocks.compute, if carrying { self.capacity } else { 0 }).map_err(&op)?;
        self.phase = Phase::Poisoned; // until all is written
        self.entering = None;
        self.report = None;
        (self.arena.spare, self.mask_words) = (spare, [standing, 0]);
        if switches {
            // The new set's masks take the place of those that stand.
            core::mem::swap(&mut masks, &mut others);
            self.mask_words = [new_masks, standing];
        }
        (self.arena.masks, self.arena.old_masks) = (masks, others);
        write(&mut self.backend, &mut self.arena, &restored, switches).map_err(&op)?;
        let window = restored.window.take();
        (self.selection, self.last) = (restored.selection, restored.last);
        self.phase = match &window {
            Some(window) => Phase::Open(self.reopen(window, switches, carrying)),
            None => Phase::Idle,
        };
        self.reset_arrivals();
        for block in window.iter().flat_map(|w| &w.arrived) {
            let place = self.selection.wanted_index(*block, self.is_last_micro_batch());
            place.into_iter().for_each(|i| self.arrived[i] = true);
        }
        Ok(())
    }

    /// An open step that was saved, as it was.
    fn reopen(&mut self, window: &Window, switching: bool, carrying: bool) -> Open {
        self.selection.mark_fresh();
        self.selection.order_sums();
        let mut open = Open::new(&self.selection.config, &window.step, switching, carrying);
        open.micro_batch = window.micro_batch;
        self.begin_micro_batch(&mut open);
        open
    }
}

fn write<B: Backend>(
    b: &mut B, a: &mut Arena<B::Buffer>, restored: &Restored, switches: bool,
) -> core::result::Result<(), B::Error> {
    let standing = if switches { &mut a.old_masks } else { &mut a.masks };
    for (r, (m, v, mask)) in restored.selection.current.regions.iter().zip(&restored.runs) {
        b.write(&mut a.m, r.at, m.view(0, r.k))?;
        b.write(&mut a.v, r.at, v.view(0, r.k))?;
        b.write(standing, r.mask_at, View::U32(mask))?;
    }
    for (r, g, mask) in &restored.gathered {
        b.write(&mut a.gradient, r.gradient_at, g.view(0, r.k))?;
        if switches {
            b.write(&mut a.masks, r.mask_at, View::U32(mask))?;
        }
    }
    if restored.window.is_some() {
        b.write(&mut a.sums, 0, View::F64(&restored.sums))?;
    }
    b.write(&mut a.steps, 0, View::U32(&restored.steps))?;
    b.write(&mut a.powers, 0, View::F64(&restored.powers))?;
    b.write(&mut a.table, 0, View::F64(&restored.table))?;
    b.write(&mut a.flags, 0, View::U32(&restored.flags))?;
    b.write(&mut a.norm, 0, View::F64(&restored.norm))?;
    b.submit()
}

fn read(ours: &Selection, record: &Record) -> Checked<Restored> {
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
    let unit = unit.ok_or_else(|| ("cursor".to_string(), format!("no unit is named {}", String::from_utf8_lossy(&cursor))))?;
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
}

impl Restored {
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

    /// Moments move through `spare` when its step switches.
    fn carries(&self) -> bool {
        let s = &self.selection;
        s.config.across == Across::Carry && s.next_set().regions.iter().any(|r| s.current.find(r.block).is_some())
    }
}

fn read_run(s: &Selection, record: &Record, r: &Region) -> Checked<(HostBuffer, HostBuffer, Vec<u32>)> {
    Ok((read_packed(s, record, r, "m")?, read_packed(s, record, r, "v")?, read_mask(s, record, r, "mask")?))
}

/// As many elements of the compute type as the region has.
fn read_packed(s: &Selection, record: &Record, r: &Region, prefix: &str) -> Checked<HostBuffer> {
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

/// A block that a record holds whole.
pub(in crate::optimizer) struct WholeRun {
    pub block: BlockId,
    pub m: HostBuffer,
    pub v: HostBuffer,
    pub steps: u32,
    pub powers: [f64; 4],
}

/// Of the blocks of the next set, those that the record of another configuration holds whole.
pub(in crate::optimizer) fn whole_runs(s: &Selection, record: &Record) -> Checked<Vec<WholeRun>> {
    same_format(record)?;
    let (text, theirs) = (config_text(s), record.u8s("config")?);
    let theirs = String::from_utf8_lossy(&theirs);
    for field in ["betas = ", "moments = "] {
        let line = |text: &str| text.lines().find(|l| l.starts_with(field)).map(str::to_string).unwrap_or_default();
        let (here, there) = (line(&text), line(&theirs));
        if here != there {
            return Err(("config".to_string(), format!("the record was made with {there}, here it is {here}")));
        }
    }
    let mut out = Vec::new();
    for r in &s.next_set().regions {
        let (spec, leaf) = (s.blocks.spec(r.block), format!("block/{}", s.blocks.spec(r.block).record_name()));
        if record.get(&leaf).is_none() {
            continue;
        }
        let words = exactly(record.u64s(&leaf)?, word::LEN, &leaf)?;
        let shape = [words[word::ROWS], words[word::COLUMNS]];
        if shape != spec.shape.map(|n| n as u64) {
            return Err((leaf, format!("its shape is {shape:?}, here it is {:?}", spec.shape)));
        }
        let steps = u32::try_from(words[word::STEPS]).unwrap_or(u32::MAX);
        if words[word::CURRENT] != r.n as u64 || steps == 0 {
            continue;
        }
        if steps > u32::MAX >> 1 {
            return Err((leaf, "a count that no run reaches".to_string()));
        }
        let whole = Region { k: r.n, ..*r };
        let powers = core::array::from_fn(|i| f64::from_bits(words[word::POWERS + i]));
        let (m, v) = (read_packed(s, record, &whole, "m")?, read_packed(s, record, &whole, "v")?);
        out.push(WholeRun { block: r.block, m, v, steps, powers });
    }
    Ok(out)
}

fn same_format(record: &Record) -> Checked<()> {
    let format = record.u64s("format")?;
    if format == [FORMAT] { Ok(()) } else { Err(("format".into(), format!("version {format:?}, this crate reads {FORMAT}"))) }
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
