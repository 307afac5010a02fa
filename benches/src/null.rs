//! A backend without memory or arithmetic. Every readback comes at once and holds made-up numbers: scores that are finite and
//! differ, flags of a step that was applied.

use blockllm::adam::Hyper;
use blockllm::backend::{Arena, Backend, Measure, Moment, Seal, Work};
use blockllm::moments::Region;
use blockllm::{BackendError, BlockId, DType, ErrorKind, Info, MaskKind, View, ViewMut};
use std::convert::Infallible;
use std::fmt;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Null {
    /// Turns the made-up scores, so that decisions differ.
    pub turn: u64,
}

/// It cannot fail.
#[derive(Debug)]
pub struct Never(Infallible);

impl fmt::Display for Never {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

impl BackendError for Never {
    fn kind(&self) -> ErrorKind {
        match self.0 {}
    }
}

type Done = Result<(), Never>;

/// Lengths in place of tensors and buffers.
impl Backend for Null {
    type Error = Never;
    type Buffer = ();
    type Ticket = ();
    type Param<'a> = usize;
    type Grad<'a> = usize;

    fn param_info(p: &usize) -> Info {
        Info { len: *p, dtype: DType::F32, contiguous: true }
    }

    fn grad_info(g: &usize) -> Info {
        Self::param_info(g)
    }

    fn alloc(&mut self, _: DType, _: usize) -> Done {
        Ok(())
    }

    fn zero(&mut self, (): &mut (), _: usize, _: usize) -> Done {
        Ok(())
    }

    fn copy(&mut self, (): &(), (): &mut (), _: usize) -> Done {
        Ok(())
    }

    fn write(&mut self, (): &mut (), _: usize, _: View<'_>) -> Done {
        Ok(())
    }

    fn read(&mut self, (): &(), _: usize, _: usize) -> Done {
        Ok(())
    }

    fn poll(&mut self, (): &mut (), to: ViewMut<'_>) -> Result<bool, Never> {
        match to {
            ViewMut::F64(rows) => {
                self.turn += 1;
                for (i, row) in rows.chunks_exact_mut(3).enumerate() {
                    let number = (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(self.turn as u32) >> 40;
                    row.copy_from_slice(&[number as f64, 1.0, 0.0]);
                }
            }
            ViewMut::U32(words) => words.fill(0),
            _ => {}
        }
        Ok(true)
    }

    fn gather(&mut self, _: &mut Arena<()>, _: &Region, _: &usize, _: bool) -> Done {
        Ok(())
    }

    fn build_mask(&mut self, _: &mut Arena<()>, _: &Region, _: &usize, _: MaskKind) -> Done {
        Ok(())
    }

    fn score(&mut self, _: &mut Arena<()>, _: BlockId, _: &usize, _: &Hyper, _: Measure<'_>) -> Done {
        Ok(())
    }

    fn state_free(&mut self, _: &mut Arena<()>, _: &Region, _: &usize, _: &mut usize, _: &Hyper) -> Done {
        Ok(())
    }

    fn seal(&mut self, _: &mut Arena<()>, _: &Work<'_>, _: Seal) -> Done {
        Ok(())
    }

    fn enter_scores(&mut self, _: &mut Arena<()>, _: &Work<'_>) -> Done {
        Ok(())
    }

    fn clear(&mut self, _: &mut Arena<()>, _: &Region) -> Done {
        Ok(())
    }

    fn carry(&mut self, _: &mut Arena<()>, _: Moment, _: Option<&Region>, _: &Region) -> Done {
        Ok(())
    }

    fn update(&mut self, _: &mut Arena<()>, _: &Region, _: Option<&Region>, _: &mut usize, _: &Hyper) -> Done {
        Ok(())
    }
}
