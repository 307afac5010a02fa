//! Records: everything that a bit-exact continuation needs, as named leaves.
//!
//! | leaf | type | what |
//! |---|---|---|
//! | `format` | u64 x 1 | [`FORMAT`] |
//! | `config` | u8 | the configuration, a `name = value` line a field |
//! | `host` | u64 | step, decisions, draws, losses since the last decision, forced, a set is pending, budget, coordinates of its sets; what the last step came to |
//! | `losses` | f64 | the last losses, oldest first |
//! | `cursor` | u8 | name of the unit that round-robin looks at next |
//! | `flags`, `norm` | u32, f64 | [`flag`](crate::backend::flag), [`norm`](crate::backend::norm) |
//! | `block/NAME` | u64 | shape, type, state, t and powers of a block, visits and score of its unit, its part in the last step, its scales, its place and its unit's; in an open step, whether its gradient has come |
//! | `m/NAME`, `v/NAME` | compute type | packed moments of a block of the set that last updated |
//! | `mask/NAME` | u32 | its mask, where only a part of it is active |
//! | `round`, `own` | u64 | units that a cyclic policy still has to visit, by [`Blocks::unit_key`](crate::block::Blocks::unit_key); what a rule of the user's own remembers |
//! | `window` | u64 | of a step that was open: micro-batch, their number, loss, learning rate, inverse loss scale |
//! | `g/NAME`, `new_mask/NAME` | compute type, u32 | of such a step: packed gradients so far, and new masks where it switches |
//!
//! Blocks are matched by name, shape and type, never by position: where they are registered in another order, the run keeps
//! the order that it had, in draws, ties and sums. A tied block goes by the first of its names in alphabetical order.
//! Learning rates and schedules are the caller's.

#[cfg(feature = "safetensors")]
pub mod file;

use crate::tensor::{DType, View};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// The version of the format that this crate writes; it reads no other.
pub const FORMAT: u64 = 2;

/// Element type of a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LeafType {
    /// Bytes.
    U8,
    /// 32-bit words.
    U32,
    /// 64-bit words.
    U64,
    /// Single precision.
    F32,
    /// Double precision.
    F64,
}

impl LeafType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U32 | Self::F32 => 4,
            Self::U64 | Self::F64 => 8,
        }
    }
}

/// One named array, little endian.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// Its name, unique in its record.
    pub name: String,
    /// Element type.
    pub dtype: LeafType,
    /// The elements' bytes.
    pub data: Vec<u8>,
}

impl Leaf {
    /// Elements.
    pub fn len(&self) -> usize {
        self.data.len() / self.dtype.size()
    }

    /// No elements.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// FNV-1a (64 bits) over name, type and bytes. Any one altered byte alters it.
    pub fn checksum(&self) -> u64 {
        let bytes = self.name.bytes().chain([self.dtype as u8]).chain(self.data.iter().copied());
        fnv1a(bytes)
    }
}

/// FNV-1a, 64 bits.
pub fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// A saved optimizer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Record {
    /// By name.
    leaves: Vec<Leaf>,
}

/// What is wrong with a leaf: its name, and the problem.
pub(crate) type Problem = (String, String);

macro_rules! words {
    ($get:ident, $t:ty, $dtype:ident) => {
        /// The elements of a leaf.
        pub(crate) fn $get(&self, name: &str) -> Result<Vec<$t>, Problem> {
            let bytes = self.typed(name, LeafType::$dtype)?;
            Ok(bytes.as_chunks::<{ size_of::<$t>() }>().0.iter().map(|b| <$t>::from_le_bytes(*b)).collect())
        }
    };
}

impl Record {
    /// From leaves, as another container held them, in any order.
    pub fn from_leaves(mut leaves: Vec<Leaf>) -> Self {
        leaves.sort_by(|a, b| a.name.cmp(&b.name));
        Self { leaves }
    }

    /// The leaves, by name.
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// The leaves, to store in another container.
    pub fn into_leaves(self) -> Vec<Leaf> {
        self.leaves
    }

    /// The leaf of this name.
    pub fn get(&self, name: &str) -> Option<&Leaf> {
        self.leaves.binary_search_by(|l| l.name.as_str().cmp(name)).ok().map(|i| &self.leaves[i])
    }

    words!(u8s, u8, U8);
    words!(u32s, u32, U32);
    words!(u64s, u64, U64);
    words!(f32s, f32, F32);
    words!(f64s, f64, F64);

    fn typed(&self, name: &str, dtype: LeafType) -> Result<&[u8], Problem> {
        let leaf = self.get(name).ok_or_else(|| (name.to_string(), "is missing".to_string()))?;
        if leaf.dtype != dtype {
            return Err((name.to_string(), alloc::format!("holds {:?}, not {dtype:?}", leaf.dtype)));
        }
        Ok(&leaf.data)
    }
}

impl Leaf {
    pub(crate) fn u8s(name: impl Into<String>, bytes: &[u8]) -> Self {
        Self { name: name.into(), dtype: LeafType::U8, data: bytes.to_vec() }
    }

    pub(crate) fn u64s(name: impl Into<String>, words: &[u64]) -> Self {
        let data = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        Self { name: name.into(), dtype: LeafType::U64, data }
    }

    /// Device elements under their own type.
    pub(crate) fn view(name: impl Into<String>, view: View<'_>) -> Self {
        let (dtype, data) = match view {
            View::F32(x) => (LeafType::F32, x.iter().flat_map(|w| w.to_le_bytes()).collect()),
            View::F64(x) => (LeafType::F64, x.iter().flat_map(|w| w.to_le_bytes()).collect()),
            View::U32(x) => (LeafType::U32, x.iter().flat_map(|w| w.to_le_bytes()).collect()),
            other => unreachable!("an arena holds no {}", other.dtype()),
        };
        Self { name: name.into(), dtype, data }
    }
}

/// The code of a block's element type in `block/NAME`.
pub(crate) const fn dtype_code(dtype: DType) -> u64 {
    match dtype {
        DType::F16 => 1,
        DType::Bf16 => 2,
        DType::F32 => 3,
        DType::F64 => 4,
        DType::U32 => 5,
    }
}
