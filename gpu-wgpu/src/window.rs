//! Windows: the part of a buffer that one dispatch sees.
//!
//! A binding may be no larger than the device says and must begin where its alignment allows, so work on a large or oddly
//! placed tensor is cut into pieces, and kernels are told where in the window an element lies. Grids of workgroups need no
//! cutting: kernels loop over what the grid does not cover.

use core::ops::Range;
use wgpu::{Buffer, BufferBinding, BufferSize, Limits};

/// A binding.
#[derive(Clone, Debug)]
pub struct Window {
    buffer: Buffer,
    offset: u64,
    size: u64,
}

impl Window {
    /// All of a buffer that is known to be small.
    pub fn whole(buffer: &Buffer) -> Self {
        Self { buffer: buffer.clone(), offset: 0, size: buffer.size() }
    }

    /// Bytes of a buffer, at an aligned offset.
    pub fn part(buffer: &Buffer, offset: u64, size: u64) -> Self {
        Self { buffer: buffer.clone(), offset, size }
    }

    /// First byte in its buffer.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// One window from the first byte of two, which are of one buffer, to the last.
    pub fn joined(&self, other: &Self) -> Self {
        let offset = self.offset.min(other.offset);
        let end = (self.offset + self.size).max(other.offset + other.size);
        Self::part(&self.buffer, offset, end - offset)
    }

    /// For a bind group.
    pub fn binding(&self) -> BufferBinding<'_> {
        BufferBinding { buffer: &self.buffer, offset: self.offset, size: BufferSize::new(self.size) }
    }

    /// Whether two windows have a byte in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        let disjoint = self.offset + self.size <= other.offset || other.offset + other.size <= self.offset;
        self.buffer == other.buffer && !disjoint
    }
}

/// Elements in a buffer, from element `at` on.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The buffer.
    pub buffer: &'a Buffer,
    /// Where element 0 lies, in elements.
    pub at: u64,
    /// Bytes of an element.
    pub size: u64,
}

/// How large a window may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Split {
    /// Most bytes of a binding.
    pub binding: u64,
    /// Most workgroups of a dispatch.
    pub workgroups: u32,
    alignment: u64,
}

impl Split {
    /// What the device says.
    pub fn new(limits: &Limits) -> Self {
        Self {
            binding: limits.max_storage_buffer_binding_size,
            workgroups: limits.max_compute_workgroups_per_dimension,
            alignment: u64::from(limits.min_storage_buffer_offset_alignment),
        }
    }

    /// Lowered, and never below what one piece needs at any offset.
    pub fn lowered(self, binding: u64, workgroups: u32) -> Self {
        let floor = (3 * self.alignment).max(self.alignment + 256);
        let binding = binding.clamp(floor.min(self.binding), self.binding);
        Self { binding, workgroups: workgroups.clamp(1, self.workgroups), ..self }
    }

    /// 32-bit elements of which a window always has room for; a multiple of 32, so that a piece is whole words of a mask.
    pub fn elements(&self) -> usize {
        // A mask's window also holds up to 16 words before its first.
        let elements = (self.binding - self.alignment - 64) / 4;
        usize::try_from(elements.min(1 << 30)).unwrap_or(1 << 30) / 32 * 32
    }

    /// Cuts a range into pieces.
    pub fn pieces(&self, range: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        pieces(range, self.elements())
    }

    /// A window with the elements `range` of a run, and what to add to an element's number to find it there; it may be
    /// negative, as a u32 that wraps.
    pub fn window(&self, run: Run<'_>, range: Range<usize>) -> (Window, u32) {
        let (start, end) = ((run.at + range.start as u64) * run.size, (run.at + range.end as u64) * run.size);
        let offset = start / self.alignment * self.alignment;
        let size = (end.next_multiple_of(4) - offset).max(4);
        let at = ((start - offset) / run.size).wrapping_sub(range.start as u64) as u32;
        (Window::part(run.buffer, offset, size), at)
    }

    /// A grid for `count` invocations of `size` a workgroup.
    pub fn grid(&self, count: usize, size: usize) -> u32 {
        u32::try_from(count.div_ceil(size)).unwrap_or(u32::MAX).clamp(1, self.workgroups)
    }
}

/// Cuts a range into pieces of at most `most`.
pub fn pieces(range: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(most).map(move |start| start..end.min(start + most))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(binding: u64, alignment: u32) -> Split {
        Split::new(&Limits {
            max_storage_buffer_binding_size: binding,
            min_storage_buffer_offset_alignment: alignment,
            ..Limits::default()
        })
    }

    #[test]
    fn pieces_cover_a_range_once() {
        for (range, most) in [(0..1000, 224), (5..6, 32), (0..64, 32), (7..7, 32)] {
            let all: Vec<usize> = pieces(range.clone(), most).flatten().collect();
            assert_eq!(all, range.collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_piece_fits_a_window_wherever_it_begins() {
        for (binding, alignment) in [(1000, 32), (1024, 256), (128 << 20, 256)] {
            let s = split(binding, alignment);
            assert!(s.elements() >= 32 && s.elements().is_multiple_of(32));
            let words = s.elements() as u64 * 4;
            assert!(words + u64::from(alignment) <= binding);
            // The words of a mask, with those from the last prefix count on.
            assert!(words / 32 + 4 + 64 + u64::from(alignment) <= binding);
        }
    }

    #[test]
    fn limits_are_lowered_and_not_raised() {
        let s = split(1 << 20, 32);
        assert_eq!(s.lowered(1 << 30, u32::MAX), s);
        assert_eq!((s.lowered(1000, 3).binding, s.lowered(1000, 3).workgroups), (1000, 3));
        assert!(s.lowered(1, 0).elements() >= 32 && s.lowered(1, 0).workgroups == 1);
    }
}
