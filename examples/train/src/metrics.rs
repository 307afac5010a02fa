//! `metrics.jsonl`: a line a step, in the file as soon as the step is done.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Failure, Result};
use crate::files;

/// Where it lies in a run's folder.
pub(crate) const FILE: &str = "metrics.jsonl";

/// A step. All but `ms` are the same in a run that was stopped and went on and in one that was not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// From 1.
    pub(crate) step: usize,
    /// Of this step's batch, before the update; in nats a byte. `null` where it is not finite.
    pub(crate) loss: Option<f64>,
    /// The learning rate.
    pub(crate) lr: f64,
    /// Coordinates that were updated with Adam's state.
    pub(crate) active: usize,
    /// The blocks they are in: the block's number, and how many of its coordinates.
    pub(crate) blocks: Vec<(usize, usize)>,
    /// Norm of the active gradients before clipping. `null` where it is not finite or not known.
    pub(crate) grad_norm: Option<f64>,
    /// Whether this step ended with a decision on a new active set.
    pub(crate) decision: bool,
    /// Whether the step was left out, because a gradient was not finite.
    pub(crate) skipped: bool,
    /// How long the step took.
    pub(crate) ms: f64,
}

/// The file, open for appending.
pub(crate) struct Metrics {
    file: File,
    path: PathBuf,
    bytes: u64,
}

impl Metrics {
    /// Opens the file. It is locked: a process whose parent was killed may still be at work on it for the rest of its step.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let open = OpenOptions::new().create(true).write(true).truncate(false).open(&path);
        let file = open.context(|| format!("cannot write {}", path.display()))?;
        files::lock(&file, &path, Duration::from_secs(30))?;
        Ok(Self { file, path, bytes: 0 })
    }

    /// Cuts the file after `keep` bytes, to go on from there: what follows is of steps that will be done again.
    pub(crate) fn cut(&mut self, keep: u64) -> Result<()> {
        let failed = || format!("cannot write {}", self.path.display());
        let there = self.file.metadata().context(failed)?.len();
        if there < keep {
            let path = self.path.display();
            return Err(Failure::new(format!("{path} has {there} bytes, but the checkpoint was made when it had {keep}")));
        }
        self.file.set_len(keep).context(failed)?;
        self.file.seek(SeekFrom::Start(keep)).context(failed)?;
        self.bytes = keep;
        Ok(())
    }

    /// Appends a line.
    pub(crate) fn push(&mut self, line: &Line) -> Result<()> {
        let failed = || format!("cannot write {}", self.path.display());
        let mut text = serde_json::to_vec(line).context(failed)?;
        text.push(b'\n');
        self.file.write_all(&text).context(failed)?;
        self.bytes += text.len() as u64;
        Ok(())
    }

    /// Forces all lines to the disk, and says how many bytes they are.
    pub(crate) fn sync(&self) -> Result<u64> {
        self.file.sync_all().context(|| format!("cannot write {}", self.path.display()))?;
        Ok(self.bytes)
    }
}

/// All whole lines of a run's file; none where there is no file yet.
pub(crate) fn read(folder: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(folder.join(FILE)).unwrap_or_default();
    text.lines().map_while(|line| serde_json::from_str(line).ok()).collect()
}

/// The median of the step times, in milliseconds.
pub(crate) fn median_ms(lines: &[Line]) -> f64 {
    let mut times: Vec<f64> = lines.iter().map(|line| line.ms).collect();
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(0.0)
}
