//! Masks of the largest |g| (A4.4, A4.5): a radix select over the bits of |g|, then a pass that marks what lies above the
//! k-th largest and the first of what equals it. Exact; nothing is read back.

use super::{WORKGROUP, Work, elements, mask_runs, piece_of, type_code};
use crate::buffer::Buffer;
use crate::control::Control;
use crate::error::Error;
use crate::kernel::Kernel;
use crate::scratch::selection;
use crate::tensor::Tensor;
use crate::window::{Run, Window};
use blockllm::backend::Arena;
use blockllm::mask::PREFIX;
use blockllm::moments::Region;
use blockllm::{DType, MaskKind};
use core::ops::Range;

/// Invocations of one workgroup take a word each.
const WORDS: usize = WORKGROUP;
/// Coordinates that an invocation of `tile_keys` takes.
const PER_INVOCATION: usize = 8;

/// What is selected from: items with keys.
#[derive(Clone, Copy)]
struct Items<'a> {
    keys: Run<'a>,
    dtype: DType,
    n: usize,
}

impl Work {
    pub fn build_mask(&mut self, a: &mut Arena<Buffer>, r: &Region, g: &Tensor, kind: MaskKind) -> Result<(), Error> {
        let Some([bits, prefix]) = mask_runs(&a.masks, r) else { return Ok(()) };
        let commands = self.recorder.commands();
        if let Some(scratch) = &self.scratch {
            commands.clear_buffer(&scratch.selection, 0, None);
        }
        match kind {
            MaskKind::Tile(tile) => self.build_tiles(r, g, tile, bits)?,
            _ => self.select(Items { keys: elements(g), dtype: g.dtype, n: r.n }, r.k, bits)?,
        }
        self.prefix_counts(r, bits, prefix)
    }

    /// Bits of the `k` items with the largest keys.
    fn select(&mut self, items: Items<'_>, k: usize, bits: Run<'_>) -> Result<(), Error> {
        let scratch = Window::whole(&self.scratch()?.selection);
        let control = Control { k: k as u32, gradient_type: type_code(items.dtype), ..Control::default() };
        for shift in [24, 16, 8, 0] {
            let control = Control { shift, ..control };
            for piece in self.split.pieces(0..items.n) {
                let (keys, gradient_at) = self.split.window(items.keys, piece.clone());
                let control = piece_of(Control { gradient_at, ..control }, &piece);
                let grid = self.split.grid(piece.len(), 16 * WORKGROUP);
                self.recorder.launch(Kernel::Histogram, &control, &[keys, scratch.clone()], grid)?;
            }
            self.recorder.launch(Kernel::Pick, &control, core::slice::from_ref(&scratch), 1)?;
        }
        for piece in self.split.pieces(0..items.n) {
            let (keys, gradient_at) = self.split.window(items.keys, piece.clone());
            let (window, bits_at) = self.split.window(bits, words(&piece));
            let (grid, chunk) = self.chunks(&piece, 1);
            let control = piece_of(Control { gradient_at, bits_at, chunk, ..control }, &piece);
            self.recorder.launch(Kernel::CountTies, &control, &[keys.clone(), scratch.clone()], grid)?;
            self.sum_counts(grid, selection::TIES, &scratch)?;
            self.recorder.launch(Kernel::Mark, &control, &[keys, scratch.clone(), window], grid)?;
        }
        Ok(())
    }

    /// Workgroups, and words of each, a multiple of `unit`.
    fn chunks(&self, piece: &Range<usize>, unit: usize) -> (u32, u32) {
        let words = words(piece).len();
        let most = selection::COUNTS.min(self.split.workgroups) as usize;
        let chunk = words.div_ceil(words.div_ceil(WORDS).min(most)).next_multiple_of(unit);
        (words.div_ceil(chunk) as u32, chunk as u32)
    }

    fn sum_counts(&mut self, items: u32, slot: u32, scratch: &Window) -> Result<(), Error> {
        let control = Control { items, slot, ..Control::default() };
        self.recorder.launch(Kernel::SumCounts, &control, core::slice::from_ref(scratch), 1)
    }

    fn build_tiles(&mut self, r: &Region, g: &Tensor, tile: usize, bits: Run<'_>) -> Result<(), Error> {
        let tiles = r.n.div_ceil(tile);
        let Some(scratch) = &mut self.scratch else { return self.scratch().map(|_| ()) };
        let [keys, tile_bits] = scratch.tiles(&mut self.recorder, tiles)?;
        self.recorder.commands().clear_buffer(&keys, 0, Some(4 * tiles as u64));
        let words_of = |buffer| Run { buffer, at: 0, size: 4 };
        let control = Control { tile: tile as u32, gradient_type: type_code(g.dtype), ..Control::default() };
        for piece in self.split.pieces(0..r.n) {
            let (gradient, gradient_at) = self.split.window(elements(g), piece.clone());
            let (window, at) = self.split.window(words_of(&keys), piece.start / tile..(piece.end - 1) / tile + 1);
            let control = piece_of(Control { gradient_at, packed_at: at, ..control }, &piece);
            let grid = self.split.grid(piece.len(), PER_INVOCATION * WORKGROUP);
            self.recorder.launch(Kernel::TileKeys, &control, &[gradient, window], grid)?;
        }
        self.select(Items { keys: words_of(&keys), dtype: DType::F32, n: tiles }, r.k / tile, words_of(&tile_bits))?;
        for piece in self.split.pieces(0..r.n) {
            let (from, old_bits_at) =
                self.split.window(words_of(&tile_bits), words(&(piece.start / tile..(piece.end - 1) / tile + 1)));
            let (to, bits_at) = self.split.window(bits, words(&piece));
            let control = piece_of(Control { old_bits_at, bits_at, ..control }, &piece);
            let grid = self.split.grid(words(&piece).len(), WORKGROUP);
            self.recorder.launch(Kernel::ExpandTiles, &control, &[from, to], grid)?;
        }
        Ok(())
    }

    /// Counts go by way of scratch: bitmap and counts of one buffer cannot be bound to be read and to be written at once.
    fn prefix_counts(&mut self, r: &Region, bits: Run<'_>, prefix: Run<'_>) -> Result<(), Error> {
        let scratch = Window::whole(&self.scratch()?.selection);
        let counts = self.scratch()?.prefix.clone();
        let most = self.split.elements() / (PREFIX / 32) * PREFIX;
        for piece in crate::window::pieces(0..r.n, most) {
            let (window, bits_at) = self.split.window(bits, words(&piece));
            let entries = piece.start / PREFIX..piece.end.div_ceil(PREFIX);
            let (to, prefix_at) = self.split.window(Run { buffer: &counts, at: 0, size: 4 }, entries);
            let (grid, chunk) = self.chunks(&piece, PREFIX / 32);
            let control = piece_of(Control { bits_at, prefix_at, chunk, ..Control::default() }, &piece);
            self.recorder.launch(Kernel::CountActive, &control, &[window.clone(), scratch.clone()], grid)?;
            self.sum_counts(grid, selection::ACTIVE, &scratch)?;
            self.recorder.launch(Kernel::PrefixCounts, &control, &[window, scratch.clone(), to], grid)?;
        }
        let bytes = 4 * r.n.div_ceil(PREFIX) as u64;
        self.recorder.commands().copy_buffer_to_buffer(&counts, 0, prefix.buffer, 4 * prefix.at, bytes);
        Ok(())
    }
}

/// Words of a bitmap of these coordinates.
fn words(piece: &Range<usize>) -> Range<usize> {
    piece.start / 32..piece.end.div_ceil(32)
}
