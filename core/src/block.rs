//! Blocks and units: what the caller registers, and what is selected together.

use crate::adam::Scales;
use crate::error::Error;
use crate::tensor::DType;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::convert::Infallible;

/// A block's number: its place in the list that the optimizer was built from, blocks added later at its end. Never used
/// again for another.
pub type BlockId = u32;

/// One parameter tensor, as the caller registers it.
#[derive(Clone, PartialEq, Debug)]
pub struct BlockSpec {
    /// Its name; records are matched by it.
    pub name: String,
    /// Other names of the same tensor (a tied head, say): it is one block, counted, updated and saved once (A1.3). No other
    /// block bears one of them. Its gradient is the sum over all uses, as automatic differentiation gives it; a second
    /// gradient in one step is an error.
    pub tied: Vec<String>,
    /// Rows and columns; their product is the number of coordinates. A vector has one row.
    pub shape: [usize; 2],
    /// Element type of the parameter.
    pub dtype: DType,
    /// Blocks with the same group are selected together.
    pub group: Option<String>,
    /// Active in every set, whole, and counted in the budget (A1.2).
    pub always_active: bool,
    /// Not trainable, until thawed (A1.3).
    pub frozen: bool,
    /// Factors on learning rate and weight decay.
    pub scales: Scales,
    /// The transformer layer it is in, for policies that go by layers; a unit's is its first block's.
    pub layer: Option<u32>,
    /// What kind of weight it is in its layer ("attention", "mlp"), for policies that go by kinds.
    pub category: Option<String>,
}

impl BlockSpec {
    /// A trainable f32 block in no group.
    pub fn new(name: impl Into<String>, shape: [usize; 2]) -> Self {
        Self {
            name: name.into(),
            tied: Vec::new(),
            shape,
            dtype: DType::F32,
            group: None,
            always_active: false,
            frozen: false,
            scales: Scales::default(),
            layer: None,
            category: None,
        }
    }

    /// With another element type.
    pub fn dtype(self, dtype: DType) -> Self {
        Self { dtype, ..self }
    }

    /// With another name of the same tensor.
    pub fn tied(mut self, name: impl Into<String>) -> Self {
        self.tied.push(name.into());
        self
    }

    /// Its names, the one it was made with first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        core::iter::once(self.name.as_str()).chain(self.tied.iter().map(String::as_str))
    }

    /// The first of its names in alphabetical order: what a record calls it, whichever of them it was registered with.
    pub fn record_name(&self) -> &str {
        self.names().min().unwrap_or(&self.name)
    }

    /// In a group.
    pub fn group(self, group: impl Into<String>) -> Self {
        Self { group: Some(group.into()), ..self }
    }

    /// Active in every set.
    pub fn always_active(self) -> Self {
        Self { always_active: true, ..self }
    }

    /// Frozen from the start.
    pub fn frozen(self) -> Self {
        Self { frozen: true, ..self }
    }

    /// With factors on learning rate and weight decay.
    pub fn scales(self, lr: f64, weight_decay: f64) -> Self {
        Self { scales: Scales { lr, weight_decay }, ..self }
    }

    /// In a transformer layer, as a weight of some category.
    pub fn layer(self, layer: u32, category: impl Into<String>) -> Self {
        Self { layer: Some(layer), category: Some(category.into()), ..self }
    }

    /// Coordinates.
    pub fn len(&self) -> usize {
        self.shape[0] * self.shape[1]
    }

    /// No coordinates: legal, belongs to no unit (A1.4).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What is selected together: the blocks of a group, or one block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unit {
    /// Its non-empty blocks in index order, frozen ones included.
    pub blocks: Vec<BlockId>,
    /// A block that is always active is a unit of its own.
    pub always_active: bool,
}

/// The registered blocks and the units they form.
#[derive(Clone, Debug)]
pub struct Blocks {
    /// As registered; `frozen` is kept up to date. One that was removed is frozen and has no coordinates.
    pub specs: Vec<BlockSpec>,
    /// Numbered by their first non-empty block (A1.4). One whose blocks were all removed has none.
    pub units: Vec<Unit>,
    /// The compute type of all of them.
    pub compute: DType,
    removed: BTreeSet<BlockId>,
    /// By block, its place in the order that sums and units go by ("index order"): its number, but where a record was
    /// restored that had been saved with another order.
    rank: Vec<u32>,
}

impl Blocks {
    /// Forms units and checks what does not depend on the configuration.
    ///
    /// # Errors
    /// Duplicate names, mixed compute types, an always-active member of a group, nothing trainable.
    pub fn new(specs: &[BlockSpec]) -> Result<Self, Error<Infallible>> {
        let compute = specs.iter().find_map(|s| s.dtype.compute()).unwrap_or(DType::F32);
        let none = Self { specs: Vec::new(), units: Vec::new(), compute, removed: BTreeSet::new(), rank: Vec::new() };
        let blocks = none.with(specs)?;
        if blocks.trainable_units().next().is_none() {
            return Err(Error::NothingToTrain);
        }
        Ok(blocks)
    }

    /// These blocks and more of them. A new member of a group that is there joins its unit; other units come after those
    /// that are there.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with(&self, more: &[BlockSpec]) -> Result<Self, Error<Infallible>> {
        let mut all = self.clone();
        let mut names: BTreeSet<&str> = self.live().flat_map(|(_, s)| s.names()).collect();
        let mut coordinates: usize = self.specs.iter().map(BlockSpec::len).sum();
        let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
        for (at, unit) in self.units.iter().enumerate() {
            if let Some(group) = unit.blocks.first().and_then(|b| self.spec(*b).group.as_deref()) {
                groups.insert(group, at);
            }
        }
        for spec in more {
            let block = || spec.name.clone();
            for name in spec.names() {
                if !names.insert(name) {
                    return Err(Error::DuplicateName { block: name.into() });
                }
            }
            for (field, scale) in [("lr scale", spec.scales.lr), ("weight decay scale", spec.scales.weight_decay)] {
                if !(scale.is_finite() && scale >= 0.0) {
                    let value = format!("{scale} of block {}", spec.name);
                    return Err(Error::Config { field, value, allowed: "finite and not negative" });
                }
            }
            let sum = spec.shape[0].checked_mul(spec.shape[1]).and_then(|n| coordinates.checked_add(n));
            coordinates = sum.filter(|n| n.checked_mul(8).is_some()).ok_or_else(|| Error::Config {
                field: "shape",
                value: format!("{:?} of block {}", spec.shape, spec.name),
                allowed: "such that all blocks together can be addressed",
            })?;
            let own = spec.dtype.compute().ok_or_else(|| Error::Config {
                field: "dtype",
                value: format!("{} of block {}", spec.dtype, spec.name),
                allowed: "a float",
            })?;
            if own != self.compute {
                return Err(Error::MixedComputeTypes { block: block(), dtype: spec.dtype, compute: self.compute });
            }
            if let (true, Some(group)) = (spec.always_active, &spec.group) {
                return Err(Error::AlwaysActiveInGroup { block: block(), group: group.clone() });
            }
            let id = all.specs.len() as BlockId;
            all.specs.push(spec.clone());
            all.rank.push(id);
            if spec.is_empty() {
                continue;
            }
            let next = all.units.len();
            let unit = spec.group.as_deref().map_or(next, |g| *groups.entry(g).or_insert(next));
            if unit == next {
                all.units.push(Unit { blocks: Vec::new(), always_active: spec.always_active });
            }
            all.units[unit].blocks.push(id);
        }
        Ok(all)
    }

    /// The same with a block that is trainable.
    pub(crate) fn with_thawed(&self, block: BlockId) -> Self {
        let mut all = self.clone();
        all.specs[block as usize].frozen = false;
        all
    }

    /// The same without a block. Its number stays unused.
    pub(crate) fn without(&self, block: BlockId) -> Self {
        let mut rest = self.clone();
        let name = self.spec(block).name.clone();
        rest.specs[block as usize] = BlockSpec { dtype: self.spec(block).dtype, ..BlockSpec::new(name, [0, 0]).frozen() };
        rest.units.iter_mut().for_each(|u| u.blocks.retain(|b| *b != block));
        rest.removed.insert(block);
        rest
    }

    /// A block was removed.
    pub fn is_removed(&self, block: BlockId) -> bool {
        self.removed.contains(&block)
    }

    /// Blocks that were not removed, by number.
    pub fn live(&self) -> impl Iterator<Item = (BlockId, &BlockSpec)> {
        (0..).zip(&self.specs).filter(|(b, _)| !self.is_removed(*b))
    }

    /// A block's place in the order that sums and units go by.
    pub fn rank(&self, block: BlockId) -> u32 {
        self.rank[block as usize]
    }

    /// By block its place in that order, by unit its number, as if those that were removed had never been.
    pub(crate) fn order(&self) -> [Vec<u64>; 2] {
        let mut live: Vec<BlockId> = self.live().map(|(b, _)| b).collect();
        live.sort_unstable_by_key(|b| self.rank(*b));
        let (mut places, mut units) = (alloc::vec![0; self.specs.len()], Vec::new());
        (0..).zip(live).for_each(|(place, b)| places[b as usize] = place);
        let mut number = 0;
        for unit in &self.units {
            units.push(number);
            number += u64::from(!unit.blocks.is_empty());
        }
        [places, units]
    }

    /// Sums over blocks do not go by their numbers.
    pub(crate) fn is_reordered(&self) -> bool {
        (0..).zip(&self.rank).any(|(b, r)| *r != b)
    }

    /// Takes the order of another run: by block its place there, by unit its number there, none for those that were removed
    /// here, which stay where they are. Units come in that order, their blocks too.
    pub(crate) fn reorder(&mut self, places: &[Option<u64>], numbers: &[Option<u64>]) {
        let live: Vec<BlockId> = self.live().map(|(b, _)| b).collect();
        let mut sorted = live.clone();
        sorted.sort_by_key(|b| places[*b as usize]);
        (0..).zip(&mut self.rank).for_each(|(b, rank)| *rank = b);
        sorted.iter().zip(&live).for_each(|(b, rank)| self.rank[*b as usize] = *rank);
        let units = core::mem::take(&mut self.units);
        let slots: Vec<usize> = (0..units.len()).filter(|u| numbers[*u].is_some()).collect();
        let mut sorted = slots.clone();
        sorted.sort_by_key(|u| numbers[*u]);
        self.units = units.clone();
        slots.iter().zip(&sorted).for_each(|(slot, unit)| self.units[*slot] = units[*unit].clone());
        let rank = &self.rank;
        self.units.iter_mut().for_each(|u| u.blocks.sort_by_key(|b| rank[*b as usize]));
    }

    /// The block that bears a name, also where that is not the one it was registered with.
    pub fn find(&self, name: &str) -> Option<BlockId> {
        self.live().find(|(_, s)| s.names().any(|n| n == name)).map(|(b, _)| b)
    }

    /// A unit's name: its group's, or its block's, told apart. Empty where all its blocks were removed.
    pub fn unit_name(&self, unit: u32) -> String {
        let Some(first) = self.units[unit as usize].blocks.first() else { return String::new() };
        let spec = self.spec(*first);
        match &spec.group {
            Some(group) => format!("group/{group}"),
            None => format!("block/{}", spec.record_name()),
        }
    }

    /// A number that stands for a unit's name in records.
    pub fn unit_key(&self, unit: u32) -> u64 {
        crate::record::fnv1a(self.unit_name(unit).bytes())
    }

    /// The block's specification.
    pub fn spec(&self, block: BlockId) -> &BlockSpec {
        &self.specs[block as usize]
    }

    /// Coordinates of a block.
    pub fn len(&self, block: BlockId) -> usize {
        self.spec(block).len()
    }

    /// How many blocks there are.
    pub fn count(&self) -> usize {
        self.specs.len()
    }

    /// A unit's trainable blocks in index order.
    pub fn members(&self, unit: u32) -> impl Iterator<Item = BlockId> + '_ {
        self.units[unit as usize].blocks.iter().copied().filter(|&b| !self.spec(b).frozen)
    }

    /// Coordinates of a unit's trainable blocks.
    pub fn unit_len(&self, unit: u32) -> usize {
        self.members(unit).map(|b| self.len(b)).sum()
    }

    /// Whether a unit has a trainable block.
    pub fn is_trainable(&self, unit: u32) -> bool {
        self.members(unit).next().is_some()
    }

    /// Units with a trainable block, by number. Every count of units is of these (A1.4).
    pub fn trainable_units(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.units.len() as u32).filter(|&u| self.is_trainable(u))
    }

    /// Trainable units that are not always active, by number.
    pub fn selectable_units(&self) -> impl Iterator<Item = u32> + '_ {
        self.trainable_units().filter(|&u| !self.units[u as usize].always_active)
    }

    /// Coordinates of all trainable blocks: N.
    pub fn trainable_len(&self) -> usize {
        self.specs.iter().filter(|s| !s.frozen).map(BlockSpec::len).sum()
    }

    /// Coordinates of trainable always-active blocks.
    pub fn always_active_len(&self) -> usize {
        self.specs.iter().filter(|s| s.always_active && !s.frozen).map(BlockSpec::len).sum()
    }

    /// For each block its unit; empty blocks have none.
    pub fn unit_of_blocks(&self) -> Vec<Option<u32>> {
        let mut out = alloc::vec![None; self.specs.len()];
        for (u, unit) in self.units.iter().enumerate() {
            for &b in &unit.blocks {
                out[b as usize] = Some(u as u32);
            }
        }
        out
    }
}

/// n_s = N - floor(s*N) (A1.1): s*N in f64, then integers.
pub fn budget(trainable: usize, sparsity: f64) -> usize {
    trainable - num_traits::Float::floor(sparsity * trainable as f64) as usize
}
