//! The end of a step's gradients: guard, clip, counters, step counts, the score table (A2.5, A6.1, A6.3, A6.4).

use super::{Work, words};
use crate::buffer::Buffer;
use crate::control::{Control, double};
use crate::error::Error;
use crate::kernel::Kernel;
use crate::window::Window;
use blockllm::adam::{Hyper, Scales};
use blockllm::backend::{Arena, Seal, Work as Step};
use blockllm::block::BlockId;

const STEP: u32 = 1;
const ONE_BLOCK: u32 = 2;
const COUNTERS: u32 = 4;
const EMPTY: u32 = 8;
const CLIPS: u32 = 16;
const RENEW: u32 = 32;

const OF_NEXT_STEP: u32 = 1;

/// Invocations of a workgroup in kernels that go by rows of a table.
const ROWS: usize = 64;

fn whole(buffer: &Buffer) -> Result<Window, Error> {
    Ok(Window::whole(words(buffer)?.buffer))
}

impl Work {
    pub fn seal(&mut self, a: &mut Arena<Buffer>, w: &Step<'_>, part: Seal) -> Result<(), Error> {
        let options = match part {
            Seal::Step => STEP,
            Seal::Block => ONE_BLOCK,
            Seal::Counters => COUNTERS,
        };
        let active = if part == Seal::Counters { &[] } else { w.summed };
        for (i, r) in active.iter().enumerate() {
            self.inspect(a, r, &w.hyper, i == 0, part == Seal::Step && w.switch.is_some())?;
        }
        let empty = if active.is_empty() { EMPTY } else { 0 };
        let clips = if w.hyper.clip.is_some() { CLIPS } else { 0 };
        let control = Control::new(&w.hyper, Scales::default());
        let renews = if part == Seal::Block && w.switch.is_some() { RENEW } else { 0 };
        let control = Control { options: options | empty | clips | renews, guard_limit: w.guard_limit, ..control };
        let windows = [Window::whole(&self.scratch()?.totals), whole(&a.flags)?, whole(&a.norm)?];
        self.recorder.launch(Kernel::Seal, &control, &windows, 1)?;
        let rows: Vec<u32> = active.iter().flat_map(|r| [r.block, u32::from(r.fresh)]).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let control = Control { items: active.len() as u32, ..control };
        let windows = [self.recorder.table(&rows)?, whole(&a.flags)?, whole(&a.steps)?, whole(&a.powers)?];
        self.recorder.launch(Kernel::Advance, &control, &windows, self.split.grid(active.len(), ROWS))
    }

    /// What updates, or a score of processed gradients, need of the powers of beta.
    pub fn coefficients(&mut self, a: &Arena<Buffer>, blocks: &[BlockId], h: &Hyper, of_next_step: bool) -> Result<(), Error> {
        let control = Control::new(h, Scales::default());
        let options = if of_next_step { OF_NEXT_STEP } else { 0 };
        let control = Control { items: blocks.len() as u32, options, ..control };
        let coefficients = Window::whole(&self.scratch()?.coefficients);
        let rows = self.recorder.table(blocks)?;
        let windows = [rows, whole(&a.powers)?, whole(&a.norm)?, whole(&a.flags)?, coefficients];
        self.recorder.launch(Kernel::Coefficients, &control, &windows, self.split.grid(blocks.len(), ROWS))
    }

    pub fn enter_scores(&mut self, a: &mut Arena<Buffer>, w: &Step<'_>) -> Result<(), Error> {
        let mut rows = Vec::new();
        for s in w.scored {
            let members = &w.members[s.first as usize..(s.first + s.count) as usize];
            let [low, high] = double(s.n as f64);
            for (i, &block) in members.iter().enumerate() {
                let place = u32::from(i == 0) | u32::from(i + 1 == members.len()) << 1;
                rows.extend([block, s.unit, place, low, high]);
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        let control = Control { items: rows.len() as u32 / 5, number: double(w.step as f64), ..Control::default() };
        let windows = [self.recorder.table(&rows)?, whole(&a.sums)?, whole(&a.table)?, whole(&a.flags)?];
        self.recorder.launch(Kernel::EnterScores, &control, &windows, 1)
    }
}
