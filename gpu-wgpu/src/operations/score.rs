//! Sums of squares: of gradients, of processed gradients, of packed runs (A2.1, A2.3, A6.3).

use super::{Work, elements, packed, packed_gradient, packed_of, piece_of, type_code};
use crate::buffer::Buffer;
use crate::control::Control;
use crate::error::Error;
use crate::kernel::Kernel;
use crate::scratch::PARTIALS;
use crate::tensor::Tensor;
use crate::window::Window;
use blockllm::adam::{Hyper, Scales};
use blockllm::backend::{Arena, Measure};
use blockllm::block::BlockId;
use blockllm::moments::Region;
use core::ops::Range;

/// Elements that a workgroup squares and adds at a time, as in `sum_of_squares.wgsl`.
const LEAF: usize = 4096;

const FIRST_PIECE: u32 = 1;
const PRESENT: u32 = 2;
const OTHERS: u32 = 4;

const OF_STEP: u32 = 1;
const FIRST_REGION: u32 = 2;
const COUNT_ZEROS: u32 = 4;

impl Work {
    fn sum_grid(&self, piece: &Range<usize>) -> u32 {
        self.split.grid(piece.len(), LEAF).min(PARTIALS)
    }

    /// Partial sums that `n` elements leave: as many as the first piece, which is the longest, has workgroups.
    fn partials_of(&self, n: usize) -> u32 {
        self.split.pieces(0..n).next().map_or(1, |first| self.sum_grid(&first))
    }

    pub fn score(
        &mut self, a: &mut Arena<Buffer>, block: BlockId, g: &Tensor, h: &Hyper, measure: Measure<'_>,
    ) -> Result<(), Error> {
        let control = Control { gradient_type: type_code(g.dtype), slot: block, ..Control::new(h, Scales::default()) };
        match measure {
            Measure::Gradient => self.score_gradient(g, control)?,
            Measure::Processed { present, switching } => {
                if present.is_some() {
                    self.coefficients(a, &[block], h, true)?;
                }
                self.score_processed(a, g, control, present, switching)?;
            }
        }
        let (sums, sums_at) = self.split.window(super::words(&a.sums)?, 2 * block as usize..2 * block as usize + 2);
        let sums_at = sums_at.wrapping_add(2 * block);
        let control = Control { items: self.partials_of(g.len), sums_at, ..Control::default() };
        self.fold(&control, sums)
    }

    fn fold(&mut self, control: &Control, sums: Window) -> Result<(), Error> {
        let scratch = self.scratch()?;
        let windows = [Window::whole(&scratch.partials), Window::whole(&scratch.totals), sums];
        self.recorder.launch(Kernel::Fold, control, &windows, 1)
    }

    fn score_gradient(&mut self, g: &Tensor, control: Control) -> Result<(), Error> {
        for piece in self.split.pieces(0..g.len) {
            let (gradient, gradient_at) = self.split.window(elements(g), piece.clone());
            let options = if piece.start == 0 { FIRST_PIECE } else { 0 };
            let windows = [gradient, Window::whole(&self.scratch()?.partials)];
            let control = piece_of(Control { gradient_at, options, ..control }, &piece);
            self.recorder.launch(Kernel::Score, &control, &windows, self.sum_grid(&piece))?;
        }
        Ok(())
    }

    fn score_processed(
        &mut self, a: &Arena<Buffer>, g: &Tensor, control: Control, present: Option<&Region>, switching: bool,
    ) -> Result<(), Error> {
        let masks = if switching { &a.old_masks } else { &a.masks };
        for piece in self.split.pieces(0..g.len) {
            let (gradient, gradient_at) = self.split.window(elements(g), piece.clone());
            let control = piece_of(Control { gradient_at, ..control }, &piece);
            let Some(r) = present else {
                let none = || self.recorder.unread();
                let rest = [none(), none(), none(), none(), none()];
                self.launch_processed(control, OTHERS, &piece, gradient, rest, true)?;
                continue;
            };
            let mask = self.mask_windows(masks, r, &piece);
            let control = Control { masked: mask.masked, bits_at: mask.bits_at, prefix_at: mask.prefix_at, ..control };
            for (i, places) in self.packed_pieces(r, &piece).into_iter().enumerate() {
                let (m, at) = self.split.window(packed(&a.m, r)?, places.clone());
                let (v, _) = self.split.window(packed(&a.v, r)?, places.clone());
                let coefficients = Window::whole(&self.scratch()?.coefficients);
                let rest = [m, v, mask.bits.clone(), mask.prefix.clone(), coefficients];
                let options = PRESENT | if i == 0 { OTHERS } else { 0 };
                self.launch_processed(packed_of(control, &places, at), options, &piece, gradient.clone(), rest, i == 0)?;
            }
        }
        Ok(())
    }

    fn launch_processed(
        &mut self, control: Control, options: u32, piece: &Range<usize>, gradient: Window, rest: [Window; 5], first: bool,
    ) -> Result<(), Error> {
        let first = if first && piece.start == 0 { FIRST_PIECE } else { 0 };
        let control = Control { options: options | first, ..control };
        let [m, v, bits, prefix, coefficients] = rest;
        let windows = [gradient, m, v, bits, prefix, coefficients, Window::whole(&self.scratch()?.partials)];
        self.recorder.launch(Kernel::ScoreProcessed, &control, &windows, self.sum_grid(piece))
    }

    /// One region's packed run into the totals of the step.
    pub fn inspect(&mut self, a: &Arena<Buffer>, r: &Region, h: &Hyper, is_first: bool, counts_zeros: bool) -> Result<(), Error> {
        for piece in self.split.pieces(0..r.k) {
            let (run, at) = self.split.window(packed_gradient(&a.gradient, r)?, piece.clone());
            let options = if piece.start == 0 { FIRST_PIECE } else { 0 };
            let control = piece_of(Control { packed_at: at, options, ..Control::new(h, r.scales) }, &piece);
            let control = Control { options, ..control };
            let windows = [run, Window::whole(&self.scratch()?.partials)];
            self.recorder.launch(Kernel::Inspect, &control, &windows, self.sum_grid(&piece))?;
        }
        let first = if is_first { FIRST_REGION } else { 0 };
        let zeros = if counts_zeros && r.masked() { COUNT_ZEROS } else { 0 };
        let control = Control { items: self.partials_of(r.k), options: OF_STEP | first | zeros, ..Control::default() };
        let unwritten = self.recorder.unwritten();
        self.fold(&control, unwritten)
    }
}
