//! How far the training is: a bar on a terminal, a line now and then elsewhere.

use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::console::note;

/// In a file or a pipe: as many lines for the whole run.
const LINES: usize = 10;
const BAR: &str = "{prefix:>16} {bar:24} {pos:>4}/{len} {msg}";

/// Shows the steps of one run.
pub(crate) struct Progress {
    bar: ProgressBar,
    title: &'static str,
    steps: usize,
    first: usize,
    start: Instant,
    /// What was shown of the last step.
    last: String,
}

/// What is shown of a step.
pub(crate) struct Shown {
    pub(crate) step: usize,
    pub(crate) loss: f64,
    pub(crate) tokens: usize,
    pub(crate) active_share: f64,
}

impl Progress {
    /// `done` of `steps` steps are done already.
    pub(crate) fn new(title: &'static str, done: usize, steps: usize) -> Self {
        let bar = ProgressBar::with_draw_target(Some(steps as u64), ProgressDrawTarget::stderr());
        bar.set_style(ProgressStyle::with_template(BAR).expect("a template that a test has tried"));
        bar.set_prefix(title);
        bar.set_position(done as u64);
        Self { bar, title, steps, first: done, start: Instant::now(), last: String::new() }
    }

    /// Something else is going on that takes time.
    pub(crate) fn doing(&self, what: &'static str) {
        self.bar.set_message(what);
        self.bar.tick();
    }

    /// The steps begin: time counts from here.
    pub(crate) fn begin(&mut self) {
        self.start = Instant::now();
    }

    /// A step is done.
    pub(crate) fn step(&mut self, shown: &Shown) {
        let seconds = self.start.elapsed().as_secs_f64();
        let rate = (shown.step - self.first) as f64 / seconds.max(1e-9);
        let left = ((self.steps - shown.step) as f64 / rate).round() as u64;
        let text = format!(
            "loss {:.3}  {:.0} tokens/s  active {:.1} %  {}:{:02} left",
            shown.loss,
            rate * shown.tokens as f64,
            100.0 * shown.active_share,
            left / 60,
            left % 60
        );
        if self.bar.is_hidden() && shown.step.is_multiple_of(self.steps.div_ceil(LINES)) {
            note(format_args!("{} {}/{} {text}", self.title, shown.step, self.steps));
        }
        self.bar.set_message(text.clone());
        self.last = text;
        self.bar.set_position(shown.step as u64);
    }
}

impl Drop for Progress {
    /// Leaves the last state on the screen, also after an error.
    fn drop(&mut self) {
        self.bar.abandon_with_message(std::mem::take(&mut self.last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_valid() {
        let mut progress = Progress::new("BlockLLM", 3, 10);
        progress.step(&Shown { step: 4, loss: 1.0, tokens: 10, active_share: 0.2 });
    }
}
