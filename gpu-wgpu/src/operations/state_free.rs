//! The sign step of what is not active (A6.7).

use super::{Work, elements, piece_of, type_code};
use crate::buffer::Buffer;
use crate::control::Control;
use crate::error::Error;
use crate::kernel::Kernel;
use crate::tensor::Tensor;
use crate::window::Window;
use blockllm::adam::Hyper;
use blockllm::backend::Arena;
use blockllm::moments::Region;
use core::ops::Range;

const ONE_BINDING: u32 = 4;
const HAS_MASK: u32 = 8;

/// A parameter and its gradient as a kernel that writes the one may bind them.
struct Pair {
    gradient: Window,
    param: Window,
    control: Control,
}

impl Work {
    pub fn state_free(&mut self, a: &mut Arena<Buffer>, r: &Region, g: &Tensor, p: &Tensor, h: &Hyper) -> Result<(), Error> {
        let control = Control::new(h, r.scales);
        let options = control.options | if r.k > 0 { HAS_MASK } else { 0 };
        let control = Control { gradient_type: type_code(g.dtype), param_type: type_code(p.dtype), options, ..control };
        let flags = Window::whole(super::words(&a.flags)?.buffer);
        let mut start = 0;
        while start < r.n {
            let (piece, pair) = self.pair(g, p, start, r.n, control);
            start = piece.end;
            let mask = self.mask_windows(&a.masks, r, &piece);
            let control = Control { masked: mask.masked, bits_at: mask.bits_at, ..piece_of(pair.control, &piece) };
            let grid = self.split.grid(piece.len(), super::WORKGROUP);
            let windows = [pair.gradient, pair.param, mask.bits, flags.clone()];
            self.recorder.launch(Kernel::StateFree, &control, &windows, grid)?;
        }
        Ok(())
    }

    /// The longest piece from `start` on whose windows may be bound together. WebGPU forbids two that overlap where one is
    /// written, and those of a parameter and its gradient side by side in a buffer would, by their alignment: they are
    /// bound as one, or shortened until they lie apart.
    fn pair(&self, g: &Tensor, p: &Tensor, start: usize, n: usize, control: Control) -> (Range<usize>, Pair) {
        let mut len = self.split.elements().min(n - start);
        loop {
            let piece = start..start + len;
            let (gradient, gradient_at) = self.split.window(elements(g), piece.clone());
            let (param, param_at) = self.split.window(elements(p), piece.clone());
            let control = Control { gradient_at, param_at, ..control };
            if !gradient.overlaps(&param) {
                return (piece, Pair { gradient, param, control });
            }
            if let Some(both) = self.one_binding(&gradient, &param, g, p, control) {
                return (piece, both);
            }
            if len == 1 {
                return (piece, Pair { gradient, param, control });
            }
            len /= 2;
        }
    }

    fn one_binding(&self, gradient: &Window, param: &Window, g: &Tensor, p: &Tensor, control: Control) -> Option<Pair> {
        let both = gradient.joined(param);
        if both.size() > self.split.binding {
            return None;
        }
        // From the start of either window to the start of both, in elements.
        let moved = |w: &Window, t: &Tensor| ((w.offset() - both.offset()) / t.dtype.size() as u64) as u32;
        let control = Control {
            options: control.options | ONE_BINDING,
            gradient_at: control.gradient_at.wrapping_add(moved(gradient, g)),
            param_at: control.param_at.wrapping_add(moved(param, p)),
            ..control
        };
        Some(Pair { gradient: self.recorder.unwritten(), param: both, control })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Split;
    use blockllm::DType::{self, Bf16, F16, F32};
    use wgpu::{BufferDescriptor, BufferUsages};

    /// Pieces of a parameter at element `p_at` of a buffer and a gradient at `g_at` of the same.
    fn check(work: &Work, buffer: &wgpu::Buffer, n: usize, (p, p_at): (DType, u64), (g, g_at): (DType, u64)) -> usize {
        let param = Tensor::new(buffer, p_at, n, p).expect("a tensor");
        let gradient = Tensor::new(buffer, g_at, n, g).expect("a tensor");
        let (mut start, mut in_one) = (0, 0);
        while start < n {
            let (piece, pair) = work.pair(&gradient, &param, start, n, Control::default());
            assert!(piece.start == start && !piece.is_empty() && piece.end <= n);
            start = piece.end;
            let one = pair.control.options & ONE_BINDING != 0;
            in_one += usize::from(one);
            let what = format!("{p} at {p_at}, {g} at {g_at}, piece {piece:?} of {n}: {:?}, {:?}", pair.param, pair.gradient);
            assert!(!pair.param.overlaps(&pair.gradient), "{what}");
            assert!(pair.param.size().max(pair.gradient.size()) <= work.split.binding, "{what}");
            // Where the kernel looks, in bytes of the buffer.
            let byte = |w: &Window, at: u32, i: usize, t: &Tensor| {
                w.offset() + u64::from(at.wrapping_add(i as u32)) * t.dtype.size() as u64
            };
            let source = if one { &pair.param } else { &pair.gradient };
            for i in [piece.start, piece.end - 1] {
                let want = |t: &Tensor| (t.offset + i as u64) * t.dtype.size() as u64;
                assert_eq!(byte(&pair.param, pair.control.param_at, i, &param), want(&param), "{what}");
                assert_eq!(byte(source, pair.control.gradient_at, i, &gradient), want(&gradient), "{what}");
            }
        }
        in_one
    }

    /// Native devices let it pass; browsers do not.
    #[test]
    fn bindings_of_a_parameter_and_its_gradient_never_overlap() {
        let Some(recorder) = crate::arithmetic::recorder("bindings") else { return };
        let limits = recorder.device.limits();
        let descriptor = BufferDescriptor { label: None, size: 1 << 16, usage: BufferUsages::STORAGE, mapped_at_creation: false };
        let buffer = recorder.device.create_buffer(&descriptor);
        let mut work = Work { recorder, split: Split::new(&limits), scratch: None };
        for binding in [1000, 4000, u64::MAX] {
            work.split = Split::new(&limits).lowered(binding, 3);
            let mut in_one = 0;
            for n in [1, 5, 100, 700, 5000] {
                for gap in [0, 1, 3, 200] {
                    for (p, g) in [(F32, F32), (F16, F16), (Bf16, F32)] {
                        let (p_bytes, g_bytes) = (n as u64 * p.size() as u64, n as u64 * g.size() as u64);
                        let after = |bytes: u64, t: DType| bytes.div_ceil(t.size() as u64) + gap;
                        in_one += check(&work, &buffer, n, (p, 3), (g, after(p_bytes + 12, g)));
                        in_one += check(&work, &buffer, n, (p, after(g_bytes + 12, p)), (g, 3));
                    }
                }
            }
            assert!(in_one > 0, "no case of one binding");
        }
    }
}
