//! Device memory of the backend's own: fixed tables, and what grows with the largest block.

use crate::error::Error;
use crate::recorder::Recorder;
use blockllm::block::Blocks;
use blockllm::mask::{self, MaskKind};
use wgpu::Buffer;

/// Most partial sums of one reduction.
pub const PARTIALS: u32 = 1024;
/// Words of a partial sum, as in `sum_of_squares.wgsl`.
const PARTIAL: u64 = 4;
/// Words of a block's coefficients, as in `coefficient.wgsl`.
const COEFFICIENTS: u64 = 8;

/// Words of the radix select's state; as in `selection.wgsl`.
pub mod selection {
    pub const TIES: u32 = 3;
    pub const ACTIVE: u32 = 4;
    /// Workgroups that count at once.
    pub const COUNTS: u32 = 256;
    pub const LEN: u64 = 264 + COUNTS as u64;
}

/// See the [module](self). Contents do not outlive an operation, but for the totals that `inspect` leaves for `seal`.
pub struct Scratch {
    /// Partial sums of a reduction.
    pub partials: Buffer,
    /// Totals over a step's regions.
    pub totals: Buffer,
    /// The radix select's state.
    pub selection: Buffer,
    /// By block.
    pub coefficients: Buffer,
    /// Prefix counts of one block, before they are copied to its mask.
    pub prefix: Buffer,
    /// Keys and bitmap of one block's tiles, where masks are of tiles.
    pub tiles: Option<[Buffer; 2]>,
}

impl Scratch {
    /// For these blocks.
    pub fn new(recorder: &mut Recorder, blocks: &Blocks, mask: MaskKind) -> Result<Self, Error> {
        let largest = blocks.specs.iter().map(blockllm::BlockSpec::len).max().unwrap_or(0);
        let mut words = |n: u64| recorder.storage("allocate scratch", 4 * n.max(1));
        let mut new = Self {
            partials: words(PARTIAL * u64::from(PARTIALS))?,
            totals: words(4)?,
            selection: words(selection::LEN)?,
            coefficients: words(COEFFICIENTS * blocks.count() as u64)?,
            prefix: words(largest.div_ceil(mask::PREFIX) as u64)?,
            tiles: None,
        };
        if let MaskKind::Tile(tile) = mask {
            new.tiles(recorder, largest.div_ceil(tile).max(1))?;
        }
        Ok(new)
    }

    /// Keys and bitmap of `tiles` tiles.
    pub fn tiles(&mut self, recorder: &mut Recorder, tiles: usize) -> Result<[Buffer; 2], Error> {
        let (keys, bits) = (4 * tiles as u64, 4 * mask::bit_words(tiles) as u64);
        if let Some(made) = self.tiles.as_ref().filter(|t| t[0].size() >= keys && t[1].size() >= bits) {
            return Ok(made.clone());
        }
        let made = [recorder.storage("allocate tile keys", keys)?, recorder.storage("allocate tile keys", bits)?];
        Ok(self.tiles.insert(made).clone())
    }

    /// Bytes of all of it.
    pub fn bytes(&self) -> u64 {
        let fixed = [&self.partials, &self.totals, &self.selection, &self.coefficients, &self.prefix];
        fixed.into_iter().chain(self.tiles.iter().flatten()).map(Buffer::size).sum()
    }
}
