//! From a record to the arena. All is checked before anything is written.

use super::read::{Restored, read};
use super::window::Window;
use crate::backend::{Arena, Backend};
use crate::error::Error;
use crate::optimizer::phase::{Open, Phase};
use crate::optimizer::{Optimizer, Result, device};
use crate::record::Record;
use crate::tensor::{DType, View};
use alloc::string::ToString;

impl<B: Backend> Optimizer<B> {
    /// Goes on where the record was made, in whatever phase this optimizer is: also after an error that poisoned it. Where
    /// the record was made inside a step, that step is open: [`Self::missing`] tells which gradients it waits for.
    ///
    /// # Errors
    /// [`Error::Record`] with the leaf and what is wrong: this optimizer is as it was. A backend's error while state is
    /// written poisons it.
    pub fn restore(&mut self, record: &Record) -> Result<(), B> {
        let problem = |(leaf, problem)| Error::Record { leaf, problem };
        let mut restored = read(&self.selection, record).map_err(problem)?;
        if let Some(window) = &restored.window {
            let wrong = self.check_step(&window.step).err().map(|e| ("window".to_string(), e.to_string()));
            wrong.map_or(Ok(()), |e| Err(problem(e)))?;
        }
        let s = &restored.selection;
        let needed = s.current.packed_end().max(s.next_set().packed_end());
        let switches = restored.window.is_some() && s.pending.is_some();
        let carrying = switches && s.carries();
        self.fit(needed)?;
        let op = device::<B>("restore");
        let (standing, new_masks) = (s.current.mask_words(), if switches { s.next_set().mask_words() } else { 0 });
        let mut masks = self.backend.alloc(DType::U32, standing).map_err(&op)?;
        let mut others = self.backend.alloc(DType::U32, new_masks).map_err(&op)?;
        let spare = self.backend.alloc(s.blocks.compute, if carrying { self.capacity } else { 0 }).map_err(&op)?;
        self.phase = Phase::Poisoned; // until all is written
        self.entering = None;
        self.report = None;
        (self.arena.spare, self.mask_words) = (spare, [standing, 0]);
        if switches {
            // The new set's masks take the place of those that stand.
            core::mem::swap(&mut masks, &mut others);
            self.mask_words = [new_masks, standing];
        }
        (self.arena.masks, self.arena.old_masks) = (masks, others);
        write(&mut self.backend, &mut self.arena, &restored, switches).map_err(&op)?;
        let window = restored.window.take();
        (self.selection, self.last) = (restored.selection, restored.last);
        self.phase = match &window {
            Some(window) => Phase::Open(self.reopen(window, switches, carrying)),
            None => Phase::Idle,
        };
        self.reset_arrivals();
        for block in window.iter().flat_map(|w| &w.arrived) {
            let place = self.selection.wanted_index(*block, self.is_last_micro_batch());
            place.into_iter().for_each(|i| self.arrived[i] = true);
        }
        Ok(())
    }

    /// An open step that was saved, as it was.
    fn reopen(&mut self, window: &Window, switching: bool, carrying: bool) -> Open {
        self.selection.mark_fresh();
        self.selection.order_sums();
        let mut open = Open::new(&self.selection.config, &window.step, switching, carrying);
        open.micro_batch = window.micro_batch;
        self.begin_micro_batch(&mut open);
        open
    }
}

fn write<B: Backend>(
    b: &mut B, a: &mut Arena<B::Buffer>, restored: &Restored, switches: bool,
) -> core::result::Result<(), B::Error> {
    let standing = if switches { &mut a.old_masks } else { &mut a.masks };
    for (r, (m, v, mask)) in restored.selection.current.regions.iter().zip(&restored.runs) {
        b.write(&mut a.m, r.at, m.view(0, r.k))?;
        b.write(&mut a.v, r.at, v.view(0, r.k))?;
        b.write(standing, r.mask_at, View::U32(mask))?;
    }
    for (r, g, mask) in &restored.gathered {
        b.write(&mut a.gradient, r.gradient_at, g.view(0, r.k))?;
        if switches {
            b.write(&mut a.masks, r.mask_at, View::U32(mask))?;
        }
    }
    if restored.window.is_some() {
        b.write(&mut a.sums, 0, View::F64(&restored.sums))?;
    }
    b.write(&mut a.steps, 0, View::U32(&restored.steps))?;
    b.write(&mut a.powers, 0, View::F64(&restored.powers))?;
    b.write(&mut a.table, 0, View::F64(&restored.table))?;
    b.write(&mut a.flags, 0, View::U32(&restored.flags))?;
    b.write(&mut a.norm, 0, View::F64(&restored.norm))?;
    b.submit()
}
