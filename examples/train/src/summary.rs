//! `summary.json`: what each run cost and what it learned; and the same as a table.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::console::say;
use crate::error::{Context, Result};
use crate::fault::Fault;
use crate::files;

/// A finished run's own part, in the run's folder.
pub(crate) const RESULT: &str = "result.json";
const SUMMARY: &str = "summary.json";

/// One run. Byte counts are measured on what is allocated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunSummary {
    /// `blockllm`, `paper` or `adamw`.
    pub(crate) method: String,
    /// Who had Adam's state when, in the words of `--policy`.
    pub(crate) policy: String,
    /// The fingerprint of the options that it was made with.
    pub(crate) options_crc: u32,
    pub(crate) seed: u64,
    pub(crate) params_total: usize,
    /// The most coordinates that had Adam's state at one time.
    pub(crate) params_active_max: usize,
    /// Coordinates that had it at some time.
    pub(crate) params_ever_active: usize,
    pub(crate) optimizer_state_bytes: usize,
    pub(crate) gradient_bytes_peak: usize,
    /// On the held-out text, in nats a byte.
    pub(crate) val_loss_before: f64,
    pub(crate) val_loss_after: f64,
    /// Bytes trained on.
    pub(crate) tokens: usize,
    pub(crate) step_ms_median: f64,
    /// `null` where the system does not tell.
    pub(crate) peak_rss_bytes: Option<u64>,
    pub(crate) reselections: usize,
    pub(crate) blocks_total: usize,
    pub(crate) blocks_ever_active: usize,
}

#[derive(Serialize)]
struct Summary<'a> {
    runs: &'a [RunSummary],
}

impl RunSummary {
    /// Says that a run is finished.
    pub(crate) fn save(&self, folder: &Path) -> Result<()> {
        save(self, &folder.join(RESULT))
    }

    /// The result of the run in this folder; none where it is not finished.
    pub(crate) fn load(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(RESULT);
        let failed = || format!("cannot read {}", path.display());
        match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            other => serde_json::from_slice(&other.context(failed)?).context(failed).map(Some),
        }
    }
}

/// Writes summary.json.
pub(crate) fn save_all(runs: &[RunSummary], folder: &Path) -> Result<()> {
    save(&Summary { runs }, &folder.join(SUMMARY))
}

fn save(what: &impl Serialize, path: &Path) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(what).context(|| format!("cannot write {}", path.display()))?;
    text.push(b'\n');
    files::write_whole(path, Fault::None, |out| out.write_all(&text))
}

/// Prints the table. With two runs the last column compares the first with the second.
pub(crate) fn print(runs: &[RunSummary]) {
    say("");
    let mut head = format!("{:<34}", "");
    runs.iter().for_each(|run| head += &format!("{:>14}", run.method));
    if let [first, second] = runs {
        head += &format!("{:>20}", format!("{} : {}", first.method, second.method));
    }
    say(head);
    let loss = |x: f64| format!("{x:.4}");
    let mega = |x: f64| format!("{:.2} MB", x / 1e6);
    let milli = |x: f64| format!("{x:.0} ms");
    row(runs, "validation loss before, nats/byte", loss, |run| Some(run.val_loss_before));
    row(runs, "validation loss after, nats/byte", loss, |run| Some(run.val_loss_after));
    row(runs, "optimizer state", mega, |run| Some(run.optimizer_state_bytes as f64));
    row(runs, "gradients, peak", mega, |run| Some(run.gradient_bytes_peak as f64));
    row(runs, "resident memory, peak", mega, |run| run.peak_rss_bytes.map(|bytes| bytes as f64));
    row(runs, "step, median", milli, |run| Some(run.step_ms_median));
    say("");
    for run in runs {
        say(format_args!(
            "{} ({}): {} reselections; {} of {} blocks and {:.1} % of all weights had Adam's state at some time",
            run.method,
            run.policy,
            run.reselections,
            run.blocks_ever_active,
            run.blocks_total,
            100.0 * run.params_ever_active as f64 / run.params_total as f64
        ));
    }
    if let [first, second] = runs {
        let distance = first.val_loss_after - second.val_loss_after;
        let word = if distance > 0.0 { "above" } else { "below" };
        let (a, b) = (&first.method, &second.method);
        say(format_args!("{a} ended {:.4} nats a byte {word} {b} (lower is better)", distance.abs()));
    }
}

fn row(runs: &[RunSummary], name: &str, show: impl Fn(f64) -> String, value: impl Fn(&RunSummary) -> Option<f64>) {
    let mut line = format!("{name:<34}");
    let values: Vec<Option<f64>> = runs.iter().map(value).collect();
    values.iter().for_each(|value| line += &format!("{:>14}", value.map_or("unknown".to_string(), &show)));
    if let [Some(first), Some(second)] = values[..] {
        line += &format!("{:>20}", format!("{:.1} %", 100.0 * first / second));
    }
    say(line);
}
