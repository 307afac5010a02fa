//! The loss rule (A3.1, A3.2): pick again when the loss stops falling.

use alloc::vec::Vec;

/// What became of a step's loss.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LossEntry {
    /// None was given.
    None,
    /// It entered the history.
    Entered,
    /// It was not finite and was not entered.
    NotFinite,
    /// It was not entered: the step gathered scores and trained nothing (A3.4).
    Ignored,
}

/// The losses since the last decision: the last m of them, and how many there were.
#[derive(Clone, PartialEq, Debug)]
pub struct LossHistory {
    patience: usize,
    /// Oldest first, at most `patience`.
    last: Vec<f64>,
    count: u64,
    /// What the last `enter` pushed out, for `undo`.
    dropped: Option<f64>,
}

impl LossHistory {
    /// An empty history of patience m, at least 1.
    pub fn new(patience: usize) -> Self {
        Self { patience, last: Vec::with_capacity(patience), count: 0, dropped: None }
    }

    /// As saved: the last losses, oldest first, and their count since the last decision.
    pub(crate) fn restore(&mut self, last: &[f64], count: u64) {
        self.last.clear();
        self.last.extend_from_slice(last);
        self.count = count;
    }

    /// The last losses, oldest first.
    pub fn last(&self) -> &[f64] {
        &self.last
    }

    /// Losses since the last decision.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Enters a loss; whether the loss rule holds: |H| >= m, and the loss is at least the mean of the last m.
    pub fn enter(&mut self, loss: Option<f64>) -> (LossEntry, bool) {
        let Some(loss) = loss else { return (LossEntry::None, false) };
        if !loss.is_finite() {
            return (LossEntry::NotFinite, false);
        }
        // A shift of at most m numbers, in place; m is small.
        self.dropped = (self.last.len() == self.patience).then(|| self.last.remove(0));
        self.last.push(loss);
        self.count += 1;
        let full = self.last.len() == self.patience;
        let sum = self.last.iter().fold(0.0, |s, x| s + x);
        (LossEntry::Entered, full && loss >= sum / self.patience as f64)
    }

    /// Takes the last loss back, for a step that is aborted (A6.5).
    pub(crate) fn undo(&mut self, entry: LossEntry) {
        if entry == LossEntry::Entered {
            self.last.pop();
            self.count -= 1;
            if let Some(x) = self.dropped.take() {
                self.last.insert(0, x);
            }
        }
    }

    /// A decision was made.
    pub fn clear(&mut self) {
        self.last.clear();
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_one_always_holds_a3_2() {
        let mut h = LossHistory::new(1);
        assert_eq!(h.enter(Some(3.0)), (LossEntry::Entered, true));
        assert_eq!(h.enter(Some(1.0)), (LossEntry::Entered, true));
    }

    #[test]
    fn losses_that_are_not_finite_do_not_enter_a3_1() {
        let mut h = LossHistory::new(2);
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(h.enter(Some(bad)), (LossEntry::NotFinite, false));
        }
        assert_eq!(h.enter(None), (LossEntry::None, false));
        assert_eq!(h.count(), 0);
        assert_eq!(h.enter(Some(1.0)), (LossEntry::Entered, false));
        assert_eq!(h.enter(Some(1.0)), (LossEntry::Entered, true));
        assert_eq!(h.enter(Some(0.5)), (LossEntry::Entered, false));
    }

    #[test]
    fn undo_restores_what_was_pushed_out_a6_5() {
        let mut h = LossHistory::new(2);
        h.enter(Some(1.0));
        h.enter(Some(2.0));
        let before = h.clone();
        let (entry, _) = h.enter(Some(3.0));
        h.undo(entry);
        assert_eq!((h.last(), h.count()), (before.last(), before.count()));
    }
}
