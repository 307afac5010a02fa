//! The update of active coordinates (A6.1).

use super::{Work, elements, packed, packed_gradient, packed_of, piece_of, type_code};
use crate::buffer::Buffer;
use crate::control::Control;
use crate::error::Error;
use crate::kernel::Kernel;
use crate::tensor::Tensor;
use crate::window::Window;
use blockllm::adam::Hyper;
use blockllm::backend::Arena;
use blockllm::moments::Region;

const ENTERING: u32 = 4;

impl Work {
    /// After [`Work::coefficients`] of the block.
    pub fn update(
        &mut self, a: &mut Arena<Buffer>, r: &Region, old: Option<&Region>, p: &Tensor, h: &Hyper,
    ) -> Result<(), Error> {
        let control = Control::new(h, r.scales);
        let options = control.options | if old.is_some() { ENTERING } else { 0 };
        let control = Control { param_type: type_code(p.dtype), slot: r.block, options, ..control };
        for piece in self.split.pieces(0..r.n) {
            let (param, param_at) = self.split.window(elements(p), piece.clone());
            let mask = self.mask_windows(&a.masks, r, &piece);
            // A whole old region held every coordinate: then nothing enters.
            let before = self.mask_windows_of(&a.old_masks, old, &piece);
            let control = Control {
                param_at,
                masked: mask.masked,
                bits_at: mask.bits_at,
                prefix_at: mask.prefix_at,
                old_masked: before.masked,
                old_bits_at: before.bits_at,
                ..piece_of(control, &piece)
            };
            for places in self.packed_pieces(r, &piece) {
                let (g, gradient_at) = self.split.window(packed_gradient(&a.gradient, r)?, places.clone());
                let control = Control { gradient_at, ..control };
                let (m, at) = self.split.window(packed(&a.m, r)?, places.clone());
                let (v, _) = self.split.window(packed(&a.v, r)?, places.clone());
                let coefficients = Window::whole(&self.scratch()?.coefficients);
                let masks = [mask.bits.clone(), mask.prefix.clone(), before.bits.clone()];
                let [bits, prefix, old_bits] = masks;
                let windows = [g, m, v, param.clone(), bits, prefix, old_bits, coefficients];
                let grid = self.split.grid(piece.len(), super::WORKGROUP);
                self.recorder.launch(Kernel::Update, &packed_of(control, &places, at), &windows, grid)?;
            }
        }
        Ok(())
    }
}
