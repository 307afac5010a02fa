//! Clear and carry: what a switch does with moments (A5.4).

use super::{Work, packed, packed_of, piece_of};
use crate::buffer::Buffer;
use crate::control::Control;
use crate::error::Error;
use crate::kernel::Kernel;
use crate::window::{Run, Window};
use blockllm::backend::{Arena, Moment};
use blockllm::moments::Region;

impl Work {
    pub fn clear(&mut self, a: &mut Arena<Buffer>, r: &Region) -> Result<(), Error> {
        self.clear_run(a, packed(&a.m, r)?, r.k)?;
        self.clear_run(a, packed(&a.v, r)?, r.k)
    }

    fn clear_run(&mut self, a: &Arena<Buffer>, run: Run<'_>, len: usize) -> Result<(), Error> {
        let flags = Window::whole(super::words(&a.flags)?.buffer);
        for piece in self.split.pieces(0..len) {
            let (window, at) = self.split.window(run, piece.clone());
            let control = piece_of(Control { packed_at: at, ..Control::default() }, &piece);
            let grid = self.split.grid(piece.len(), super::WORKGROUP);
            self.recorder.launch(Kernel::Clear, &control, &[window, flags.clone()], grid)?;
        }
        Ok(())
    }

    pub fn carry(&mut self, a: &mut Arena<Buffer>, moment: Moment, old: Option<&Region>, new: &Region) -> Result<(), Error> {
        self.clear_run(a, packed(&a.spare, new)?, new.k)?;
        let Some(old) = old else { return Ok(()) };
        let from = if moment == Moment::First { &a.m } else { &a.v };
        let flags = Window::whole(super::words(&a.flags)?.buffer);
        for piece in self.split.pieces(0..new.n) {
            let (mask, before) = (self.mask_windows(&a.masks, new, &piece), self.mask_windows(&a.old_masks, old, &piece));
            let control = Control {
                masked: mask.masked,
                bits_at: mask.bits_at,
                prefix_at: mask.prefix_at,
                old_masked: before.masked,
                old_bits_at: before.bits_at,
                old_prefix_at: before.prefix_at,
                ..piece_of(Control::default(), &piece)
            };
            let grid = self.split.grid(piece.len(), super::WORKGROUP);
            for places in self.packed_pieces(new, &piece) {
                let (to, at) = self.split.window(packed(&a.spare, new)?, places.clone());
                let control = packed_of(control, &places, at);
                for old_places in self.packed_pieces(old, &piece) {
                    let (from, old_packed_at) = self.split.window(packed(from, old)?, old_places.clone());
                    let old_packed_first = old_places.start as u32;
                    let control =
                        Control { old_packed_at, old_packed_first, old_packed_count: old_places.len() as u32, ..control };
                    let masks = [&mask.bits, &mask.prefix, &before.bits, &before.prefix].map(Window::clone);
                    let [bits, prefix, old_bits, old_prefix] = masks;
                    let windows = [from, to.clone(), bits, prefix, old_bits, old_prefix, flags.clone()];
                    self.recorder.launch(Kernel::Carry, &control, &windows, grid)?;
                }
            }
        }
        Ok(())
    }
}
