//! Device memory of the backend's own, made once for the largest block.

use crate::arguments::Address;
use crate::buffer::Buffer;
use crate::error::Error;
use blockllm::DType;
use blockllm::block::Blocks;
use cudarc::driver::CudaStream;
use std::sync::Arc;

/// Elements of a subtree of the sum of squares (`tree.cuh`).
const SUBTREE: usize = 16 * 1024;
/// Items of a selection's chunk (`select.cuh`).
const CHUNK: usize = 32 * 256;
/// Words of a selection's state (`select.cuh`).
pub(crate) const SELECTION: usize = 3 + 256;

/// Subtrees of `n` elements.
pub(crate) fn subtrees(n: usize) -> usize {
    n.div_ceil(SUBTREE)
}

/// Chunks of `items` items.
pub(crate) fn chunks(items: usize) -> usize {
    items.div_ceil(CHUNK)
}

/// Buffers that hold nothing between two operations. Words of 64 bits are allocated as f64.
#[derive(Debug)]
pub(crate) struct Scratch {
    stream: Arc<CudaStream>,
    /// A sum of squares for each subtree.
    pub(crate) subtrees: Buffer,
    /// The state of a selection.
    pub(crate) selection: Buffer,
    /// Ties of each chunk.
    pub(crate) ties: Buffer,
    /// What was found in each region, u32.
    pub(crate) found: Buffer,
    /// Regions, scored units and their members.
    pub(crate) tables: Buffer,
    /// Buffers made so far.
    pub(crate) allocations: usize,
}

impl Scratch {
    /// None yet.
    pub(crate) fn new(stream: &Arc<CudaStream>) -> Result<Self, Error> {
        let none = |dtype| Buffer::zeros(stream, dtype, 0);
        Ok(Self {
            stream: stream.clone(),
            subtrees: none(DType::F64)?,
            selection: none(DType::F64)?,
            ties: none(DType::F64)?,
            found: none(DType::U32)?,
            tables: none(DType::F64)?,
            allocations: 0,
        })
    }

    /// For all blocks: any set's sums of squares, the largest block's ties, all regions and units in one table.
    pub(crate) fn prepare(&mut self, blocks: &Blocks) -> Result<(), Error> {
        let (all, units) = (blocks.count(), blocks.units.len());
        let lengths = || blocks.specs.iter().map(|s| s.len());
        self.subtrees(lengths().map(subtrees).sum())?;
        self.selection()?;
        self.ties(lengths().map(chunks).max().unwrap_or(0))?;
        self.found(all)?;
        self.tables(super::backend::REGION_WORDS * all + super::backend::UNIT_WORDS * units + all)?;
        Ok(())
    }

    /// Bytes on the device.
    pub(crate) fn bytes(&self) -> usize {
        [&self.subtrees, &self.selection, &self.ties, &self.found, &self.tables].iter().map(|b| b.bytes()).sum()
    }
}

macro_rules! at_least {
    ($($name:ident: $dtype:ident,)*) => {
        impl Scratch {
            $(
                /// The address of room for at least `len` elements.
                pub(crate) fn $name(&mut self, len: usize) -> Result<Address, Error> {
                    if self.$name.len() < len {
                        self.$name = Buffer::zeros(&self.stream, DType::$dtype, len)?;
                        self.allocations += 1;
                    }
                    Ok(self.$name.at(0))
                }
            )*
        }
    };
}

at_least! {
    subtrees: F64,
    ties: F64,
    found: U32,
    tables: F64,
}

impl Scratch {
    /// The address of a selection's state.
    pub(crate) fn selection(&mut self) -> Result<Address, Error> {
        if self.selection.is_empty() {
            self.selection = Buffer::zeros(&self.stream, DType::F64, SELECTION)?;
            self.allocations += 1;
        }
        Ok(self.selection.at(0))
    }
}
