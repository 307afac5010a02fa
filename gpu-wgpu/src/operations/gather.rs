//! Gather (A6.2, A6.5).

use super::{Work, elements, packed_gradient, packed_of, piece_of, type_code};
use crate::buffer::Buffer;
use crate::control::Control;
use crate::error::Error;
use crate::kernel::Kernel;
use crate::tensor::Tensor;
use blockllm::backend::Arena;
use blockllm::moments::Region;

const ADD: u32 = 1;

impl Work {
    pub fn gather(&mut self, a: &mut Arena<Buffer>, r: &Region, g: &Tensor, add: bool) -> Result<(), Error> {
        if r.masked() && !add {
            // A short tile may leave some of it over (A4.5).
            a.gradient.zero(&mut self.recorder, r.gradient_at, r.k);
        }
        let control = Control { gradient_type: type_code(g.dtype), options: if add { ADD } else { 0 }, ..Control::default() };
        for piece in self.split.pieces(0..r.n) {
            let (gradient, gradient_at) = self.split.window(elements(g), piece.clone());
            let mask = self.mask_windows(&a.masks, r, &piece);
            let control =
                Control { gradient_at, masked: mask.masked, bits_at: mask.bits_at, prefix_at: mask.prefix_at, ..control };
            let control = piece_of(control, &piece);
            for places in self.packed_pieces(r, &piece) {
                let (run, at) = self.split.window(packed_gradient(&a.gradient, r)?, places.clone());
                let windows = [gradient.clone(), run, mask.bits.clone(), mask.prefix.clone()];
                let grid = self.split.grid(piece.len(), super::WORKGROUP);
                self.recorder.launch(Kernel::Gather, &packed_of(control, &places, at), &windows, grid)?;
            }
        }
        Ok(())
    }
}
