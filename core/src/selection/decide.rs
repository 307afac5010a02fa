//! When to decide, and what (A3.2 to A3.7).

use super::{Decision, Reason, Selection, Stage};
use crate::error::Error;
use crate::fill::Sized;
use crate::policy::{Candidates, Trigger};
use crate::score::{self, ROW};
use alloc::vec::Vec;
use core::convert::Infallible;

impl Selection {
    /// Whether the step that begins is deciding, given whether the loss rule holds.
    pub fn reason(&self, rule: bool) -> Option<Reason> {
        if self.stage != Stage::Training {
            let due = self.trainable.div_ceil(self.probe_count().max(1)) as u64;
            return (self.stage == Stage::FullGradient || self.scanned + 1 >= due).then_some(Reason::First);
        }
        let by_trigger = match self.config.policy.trigger() {
            Some(Trigger::Period(k)) => (self.step + 1).is_multiple_of(k).then_some(Reason::Period),
            Some(Trigger::Patience) => rule.then_some(Reason::LossRule),
            None => None,
        };
        by_trigger.or(self.forced.then_some(Reason::Forced))
    }

    /// A3.3 to A3.7. The score table is as it is at the end of the deciding step; empty for a policy that does not score.
    ///
    /// # Errors
    /// A user's rule that chose what it cannot have: nothing has changed then.
    pub fn decide(&mut self, table: &[f64]) -> Result<Decision, Error<Infallible>> {
        let set = match self.config.policy.scores() {
            true => match self.scores(table) {
                Ok(scores) => self.choose(Some(&scores))?,
                Err(void) => return Ok(void),
            },
            false => self.choose(None)?,
        };
        self.stage = Stage::Training;
        self.decisions += 1;
        self.history.clear();
        self.count_visits(&set);
        let keep = self.current.is_whole_and_equals(&set);
        self.pending = (!keep).then(|| self.set(&set));
        self.refresh();
        Ok(if keep { Decision::Keep } else { Decision::Switch })
    }

    /// By unit; a void decision where a trainable one has none.
    pub(super) fn scores(&self, table: &[f64]) -> Result<Vec<f64>, Decision> {
        let scores: Vec<Option<f64>> = table.chunks_exact(ROW).map(|row| score::of_row(self.config.score, row)).collect();
        let missing = |u: &u32| scores[*u as usize].is_none();
        if let Some(first) = self.blocks.trainable_units().find(missing) {
            return Err(Decision::Void { units: self.blocks.trainable_units().filter(missing).count(), first });
        }
        Ok(scores.into_iter().map(|s| s.unwrap_or(0.0)).collect())
    }

    pub(super) fn count_visits(&mut self, set: &[Sized]) {
        for unit in 0..self.visits.len() {
            let any = self.members_of(unit as u32).iter().any(|b| set.binary_search_by_key(b, |s| s.0).is_ok());
            self.visits[unit] += u64::from(any);
        }
    }

    /// The set that the policy chooses, by these scores or, where there are none yet or it needs none, without.
    pub(super) fn choose(&mut self, scores: Option<&[f64]>) -> Result<Vec<Sized>, Error<Infallible>> {
        let all = Candidates {
            blocks: &self.blocks,
            scores: scores.unwrap_or_default(),
            visits: &self.visits,
            decisions: self.decisions,
            steps: self.step,
            budget: self.budget,
        };
        match scores {
            Some(_) => self.config.policy.rank(&all, &self.config, &mut self.memory, &mut self.stream),
            None => self.config.policy.draw(&all, &self.config, &mut self.memory, &mut self.stream),
        }
    }
}
