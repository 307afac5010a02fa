//! What the engine tells: memory at once, steps when the device has answered.

use super::{Optimizer, Result, device};
use crate::backend::{Backend, flag, norm};
use crate::error::Error;
use crate::report::{MemoryReport, Score, StepReport};
use crate::score::{self, ROW};
use crate::tensor::ViewMut;
use alloc::vec;
use alloc::vec::Vec;

/// A report on its way. The host's half is of the step it was asked for after; the device's is read in queue order.
pub(super) struct Requested<T> {
    host: StepReport,
    flags: (Option<T>, [u32; flag::LEN]),
    norm: (Option<T>, [f64; norm::LEN]),
    table: (Option<T>, Vec<f64>),
}

/// Polls a ticket until it has delivered, then no more.
fn ready<B: Backend>(backend: &mut B, ticket: &mut Option<B::Ticket>, to: ViewMut<'_>) -> Result<bool, B> {
    let Some(t) = ticket else { return Ok(true) };
    let done = backend.poll(t, to).map_err(device::<B>("read the step report"))?;
    if done {
        *ticket = None;
    }
    Ok(done)
}

impl<B: Backend> Optimizer<B> {
    /// Bytes held, and bytes of the gradients that the next step asks for.
    pub fn memory(&self) -> MemoryReport {
        let (s, compute) = (&self.selection, self.selection.blocks.compute.size());
        let (blocks, units) = (s.blocks.count(), s.blocks.units.len());
        let bytes = |b| s.blocks.len(b) * s.blocks.spec(b).dtype.size();
        let gradients: Vec<_> = s.plan.wanted.iter().map(|w| (w.block, bytes(w.block))).collect();
        MemoryReport {
            moments: 2 * self.capacity * compute,
            packed_gradients: self.gradient_capacity * compute,
            masks: 4 * self.mask_words[0],
            scratch: self.backend.scratch_bytes(),
            tables: blocks * (8 + 4 + 32) + units * ROW * 8 + flag::LEN * 4 + norm::LEN * 8,
            switch_peak: self.switch_peak(),
            gradients_total: gradients.iter().map(|g| g.1).sum(),
            gradients,
        }
    }

    /// Asks the device for the report of the last step; [`Self::poll_report`] brings it, also when later steps have run.
    ///
    /// # Errors
    /// While a step is open or waiting; the device's.
    pub fn request_report(&mut self) -> Result<(), B> {
        self.idle("request_report")?;
        let op = device::<B>("read the step report");
        let words = self.selection.blocks.units.len() * ROW;
        let flags = self.backend.read(&self.arena.flags, 0, flag::LEN).map_err(&op)?;
        let norms = self.backend.read(&self.arena.norm, 0, norm::LEN).map_err(&op)?;
        let table = self.backend.read(&self.arena.table, 0, words).map_err(&op)?;
        self.backend.submit().map_err(&op)?;
        self.report = Some(Requested {
            host: self.host_report(),
            flags: (Some(flags), [0; flag::LEN]),
            norm: (Some(norms), [0.0; norm::LEN]),
            table: (Some(table), vec![0.0; words]),
        });
        Ok(())
    }

    fn host_report(&self) -> StepReport {
        let (s, l) = (&self.selection, &self.last);
        StepReport {
            step: s.step,
            active: l.active.clone(),
            stage: l.stage,
            loss: l.loss,
            reason: l.reason,
            decision: l.decision,
            decisions: s.decisions,
            visits: s.visits.clone(),
            scores: Vec::new(),
            switched: l.switched,
            skipped: false,
            norm: 0.0,
            clip: 1.0,
            applied: 0,
            skipped_total: 0,
            streak: 0,
            streak_errors: 0,
            bad_scores: 0,
            nan_gradients: 0,
            zero_masks: 0,
            guard_limit: s.config.guard_limit,
        }
    }

    /// The report that was asked for, once it has come. Never waits.
    ///
    /// # Errors
    /// [`Error::Order`] where none was asked for; the device's.
    pub fn poll_report(&mut self) -> Result<Option<StepReport>, B> {
        let Some(r) = &mut self.report else {
            return Err(Error::Order { call: "poll_report", need: "request_report comes first" });
        };
        let all = ready(&mut self.backend, &mut r.flags.0, ViewMut::U32(&mut r.flags.1))?
            && ready(&mut self.backend, &mut r.norm.0, ViewMut::F64(&mut r.norm.1))?
            && ready(&mut self.backend, &mut r.table.0, ViewMut::F64(&mut r.table.1))?;
        let Some(r) = self.report.take_if(|_| all) else { return Ok(None) };
        let mut report = r.host;
        report.read(&r.flags.1, &r.norm.1);
        let kind = self.selection.config.score;
        let score = |row: &[f64]| score::of_row(kind, row).map(|value| Score { value, age: report.step - row[2] as u64 });
        // A unit whose blocks were removed meanwhile has none.
        let is_left = |unit: usize| self.selection.blocks.units.get(unit).is_some_and(|u| !u.blocks.is_empty());
        report.scores = r.table.1.chunks_exact(ROW).enumerate().map(|(u, row)| score(row).filter(|_| is_left(u))).collect();
        Ok(Some(report))
    }

    /// The report of the last step, waiting for it.
    ///
    /// # Errors
    /// As [`Self::request_report`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn report(&mut self) -> Result<StepReport, B> {
        self.request_report()?;
        loop {
            if let Some(report) = self.poll_report()? {
                return Ok(report);
            }
            self.backend.relax();
        }
    }
}
