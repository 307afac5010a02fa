//! Blocks and units: what the caller registers, and what is selected together.

use crate::adam::Scales;
use crate::error::Error;
use crate::tensor::DType;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::convert::Infallible;

/// A block's number: its place in the list that the optimizer was built from.
pub type BlockId = u32;

/// One parameter tensor, as the caller registers it.
#[derive(Clone, PartialEq, Debug)]
pub struct BlockSpec {
    /// Its name; records are matched by it.
    pub name: String,
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
    /// As registered; `frozen` is kept up to date.
    pub specs: Vec<BlockSpec>,
    /// Numbered by their first non-empty block (A1.4).
    pub units: Vec<Unit>,
    /// The compute type of all of them.
    pub compute: DType,
}

impl Blocks {
    /// Forms units and checks what does not depend on the configuration.
    ///
    /// # Errors
    /// Duplicate names, mixed compute types, an always-active member of a group, nothing trainable.
    pub fn new(specs: &[BlockSpec]) -> Result<Self, Error<Infallible>> {
        let (mut names, mut groups, mut coordinates) = (BTreeMap::new(), BTreeMap::new(), 0usize);
        let (mut units, mut compute) = (Vec::<Unit>::new(), None);
        for (id, spec) in specs.iter().enumerate() {
            let block = || spec.name.clone();
            if names.insert(spec.name.as_str(), id).is_some() {
                return Err(Error::DuplicateName { block: block() });
            }
            for (field, scale) in [("lr scale", spec.scales.lr), ("weight decay scale", spec.scales.weight_decay)] {
                if !(scale.is_finite() && scale >= 0.0) {
                    let value = alloc::format!("{scale} of block {}", spec.name);
                    return Err(Error::Config { field, value, allowed: "finite and not negative" });
                }
            }
            let sum = spec.shape[0].checked_mul(spec.shape[1]).and_then(|n| coordinates.checked_add(n));
            coordinates = sum.filter(|n| n.checked_mul(8).is_some()).ok_or_else(|| Error::Config {
                field: "shape",
                value: alloc::format!("{:?} of block {}", spec.shape, spec.name),
                allowed: "such that all blocks together can be addressed",
            })?;
            let own = spec.dtype.compute().ok_or_else(|| Error::Config {
                field: "dtype",
                value: alloc::format!("{} of block {}", spec.dtype, spec.name),
                allowed: "a float",
            })?;
            if own != *compute.get_or_insert(own) {
                return Err(Error::MixedComputeTypes { block: block(), dtype: spec.dtype, compute: compute.unwrap_or(own) });
            }
            if let (true, Some(group)) = (spec.always_active, &spec.group) {
                return Err(Error::AlwaysActiveInGroup { block: block(), group: group.clone() });
            }
            if spec.is_empty() {
                continue;
            }
            let next = units.len();
            let unit = spec.group.as_deref().map_or(next, |g| *groups.entry(g).or_insert(next));
            if unit == next {
                units.push(Unit { blocks: Vec::new(), always_active: spec.always_active });
            }
            units[unit].blocks.push(id as BlockId);
        }
        let blocks = Self { specs: specs.to_vec(), units, compute: compute.unwrap_or(DType::F32) };
        if blocks.trainable_units().next().is_none() {
            return Err(Error::NothingToTrain);
        }
        Ok(blocks)
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
