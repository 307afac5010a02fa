//! Operations as launches: windows over what each needs, piece by piece.

pub mod gather;
pub mod mask;
pub mod moments;
pub mod score;
pub mod seal;
pub mod state_free;
pub mod update;

use crate::buffer::Buffer;
use crate::control::Control;
use crate::error::Error;
use crate::recorder::Recorder;
use crate::scratch::Scratch;
use crate::tensor::Tensor;
use crate::window::{Run, Split, Window};
use blockllm::DType;
use blockllm::mask::{PREFIX, bit_words};
use blockllm::moments::Region;
use core::ops::Range;

/// What operations work with.
pub struct Work {
    pub recorder: Recorder,
    pub split: Split,
    /// Nothing before [`prepare`](blockllm::Backend::prepare).
    pub scratch: Option<Scratch>,
}

/// Invocations of a workgroup in kernels that go by coordinates.
pub const WORKGROUP: usize = 256;

/// As in `element.wgsl`.
pub fn type_code(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Bf16 => 2,
        other => unreachable!("a tensor of {other}"),
    }
}

/// The windows of a mask, as of coordinates `piece`, and what to add to a word's and a prefix count's number.
struct MaskWindows {
    masked: u32,
    bits: Window,
    bits_at: u32,
    prefix: Window,
    prefix_at: u32,
}

/// Elements of a tensor.
fn elements(t: &Tensor) -> Run<'_> {
    Run { buffer: &t.buffer, at: t.offset, size: t.dtype.size() as u64 }
}

/// All words of a buffer of the arena.
fn words(buffer: &Buffer) -> Result<Run<'_>, Error> {
    buffer.words().ok_or_else(|| Error::Unsupported { what: String::from("work on a buffer of no elements") })
}

/// The packed gradient of a region.
fn packed_gradient<'a>(buffer: &'a Buffer, r: &Region) -> Result<Run<'a>, Error> {
    Ok(Run { at: r.gradient_at as u64, ..words(buffer)? })
}

/// The packed run of a region in a moment's buffer.
fn packed<'a>(buffer: &'a Buffer, r: &Region) -> Result<Run<'a>, Error> {
    Ok(Run { at: r.at as u64, ..words(buffer)? })
}

/// Words of a region's bitmap, and its prefix counts.
fn mask_runs<'a>(masks: &'a Buffer, r: &Region) -> Option<[Run<'a>; 2]> {
    let run = masks.words().filter(|_| r.masked() && r.k > 0)?;
    Some([Run { at: r.mask_at as u64, ..run }, Run { at: (r.mask_at + bit_words(r.n)) as u64, ..run }])
}

/// Words of a bitmap that kernels read for these coordinates: from the last prefix count on.
fn words_of(piece: &Range<usize>) -> Range<usize> {
    piece.start / PREFIX * (PREFIX / 32)..piece.end.div_ceil(32)
}

impl Work {
    pub fn scratch(&self) -> Result<&Scratch, Error> {
        self.scratch.as_ref().ok_or_else(|| Error::Unsupported { what: String::from("prepare comes before any operation") })
    }

    fn mask_windows(&self, masks: &Buffer, r: &Region, piece: &Range<usize>) -> MaskWindows {
        self.mask_windows_of(masks, Some(r), piece)
    }

    fn mask_windows_of(&self, masks: &Buffer, r: Option<&Region>, piece: &Range<usize>) -> MaskWindows {
        let Some([bits, prefix]) = r.and_then(|r| mask_runs(masks, r)) else {
            let none = self.recorder.unread();
            return MaskWindows { masked: 0, bits: none.clone(), bits_at: 0, prefix: none, prefix_at: 0 };
        };
        let (bits, bits_at) = self.split.window(bits, words_of(piece));
        let (prefix, prefix_at) = self.split.window(prefix, piece.start / PREFIX..piece.end.div_ceil(PREFIX));
        MaskWindows { masked: 1, bits, bits_at, prefix, prefix_at }
    }

    /// Places of the packed run where coordinates of a piece may lie, in pieces of their own.
    fn packed_pieces(&self, r: &Region, piece: &Range<usize>) -> Vec<Range<usize>> {
        if r.masked() { self.split.pieces(0..r.k.min(piece.end)).collect() } else { vec![piece.clone()] }
    }
}

/// The control fields of a piece of coordinates.
fn piece_of(control: Control, piece: &Range<usize>) -> Control {
    Control { first: piece.start as u32, end: piece.end as u32, ..control }
}

/// The control fields of a window on a packed run.
fn packed_of(control: Control, places: &Range<usize>, at: u32) -> Control {
    Control { packed_at: at, packed_first: places.start as u32, packed_count: places.len() as u32, ..control }
}
