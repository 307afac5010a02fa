//! Moments from another run (A5.4): from full AdamW at the start, and back to it where everything was active.

use super::record::whole_runs;
use super::{Optimizer, Result};
use crate::backend::Backend;
use crate::config::Across;
use crate::error::Error;
use crate::fill::Sized;
use crate::moments::ActiveSet;
use crate::record::Record;
use crate::selection::Stage;
use crate::tensor::View;
use alloc::string::ToString;
use alloc::vec::Vec;

impl<B: Backend> Optimizer<B> {
    /// Takes moments and step counts over from a run of another configuration, another policy or budget say, before the
    /// first step; how many coordinates were taken. It takes those of each block of the first set that the record holds
    /// whole; every other block starts anew. The first step then carries them as a switch does (A5.4), masked blocks keep
    /// the moments under their masks, and the arena goes back to n_s; until then it holds the whole blocks.
    ///
    /// So a run of full AdamW goes on as BlockLLM, and a run with everything active (s = 0) as full AdamW, in both cases as
    /// if it had been so before: to the bit where everything stays active.
    ///
    /// # Errors
    /// [`Error::Order`] after the first step, or where the first set is not known yet ([`First`](crate::First));
    /// [`Error::Config`] under `Across::Reset`, which would drop them; [`Error::Record`] for another compute type, other
    /// betas, which the step counts belong to, or a block of another shape; the backend's. Nothing has changed then, but for
    /// a backend's error in mid-copy, which poisons the optimizer.
    pub fn adopt(&mut self, record: &Record) -> Result<usize, B> {
        self.idle("adopt")?;
        let s = &self.selection;
        if s.config.across != Across::Carry {
            return Err(Error::Config { field: "across", value: "Reset".to_string(), allowed: "Carry, to take moments over" });
        }
        if s.step > 0 || s.stage != Stage::Training || !s.current.regions.is_empty() {
            return Err(Error::Order { call: "adopt", need: "moments are taken over before the first step, by its set" });
        }
        let runs = whole_runs(s, record).map_err(|(leaf, problem)| Error::Record { leaf, problem })?;
        let counts: Vec<Sized> = runs.iter().map(|r| (r.block, s.blocks.len(r.block))).collect();
        let mut set = ActiveSet::new(&s.blocks, &counts);
        set.regions.iter_mut().for_each(|r| r.fresh = false);
        self.fit(set.packed_end())?;
        let (b, a) = (&mut self.backend, &mut self.arena);
        let mut copy = || {
            for (r, run) in set.regions.iter().zip(&runs) {
                b.write(&mut a.m, r.at, run.m.view(0, r.k))?;
                b.write(&mut a.v, r.at, run.v.view(0, r.k))?;
                b.write(&mut a.steps, r.block as usize, View::U32(&[run.steps]))?;
                b.write(&mut a.powers, 4 * r.block as usize, View::F64(&run.powers))?;
            }
            b.submit()
        };
        let copied = copy();
        self.poison_on_error("take moments over", copied)?;
        let taken = set.coordinates();
        self.selection.current = set;
        Ok(taken)
    }
}
