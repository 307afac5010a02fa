//! The checkpoints of one run: which are kept, and which one counts.

use std::path::{Path, PathBuf};

use crate::checkpoint::{self, Leaf, State};
use crate::error::{Context, Result};
use crate::fault::Fault;
use crate::files;

/// As many are kept, so that there is one to go back to where the disk has damaged the newest.
const KEPT: usize = 2;

/// The folder of a run's checkpoints.
pub(crate) struct Store {
    folder: PathBuf,
    fault: Fault,
}

impl Store {
    /// Checkpoints in this folder; writing them goes wrong as `fault` says.
    pub(crate) fn new(folder: &Path, fault: Fault) -> Self {
        Self { folder: folder.to_path_buf(), fault }
    }

    /// Adds a checkpoint, then removes what is no longer needed.
    pub(crate) fn save(&self, state: &State, leaves: &[Leaf]) -> Result<()> {
        let path = self.folder.join(format!("checkpoint-{:06}.safetensors", state.step));
        files::write_whole(&path, self.fault, |out| checkpoint::write(out, state, leaves))?;
        // A damaged file of a later step stays out of the count, and is written anew when the run gets there.
        let older = self.list()?.into_iter().filter(|(step, _)| *step <= state.step);
        for (_, path) in older.skip(KEPT) {
            std::fs::remove_file(&path).context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }

    /// The newest whole checkpoint. Of each damaged one before it `warn` is told.
    pub(crate) fn newest(&self, warn: impl Fn(&str)) -> Result<Option<(State, Vec<Leaf>)>> {
        for (_, path) in self.list()? {
            match std::fs::read(&path) {
                Ok(bytes) if checkpoint::is_whole(&bytes) => {
                    let content = checkpoint::read(&bytes);
                    return content.map(Some).context(|| format!("cannot go on from {}", path.display()));
                }
                Ok(_) => warn(&format!("{} is damaged: passed over", path.display())),
                Err(error) => warn(&format!("{} cannot be read ({error}): passed over", path.display())),
            }
        }
        Ok(None)
    }

    /// All checkpoints, the newest first.
    fn list(&self) -> Result<Vec<(usize, PathBuf)>> {
        let failed = || format!("cannot read {}", self.folder.display());
        let mut list = Vec::new();
        for entry in self.folder.read_dir().context(failed)? {
            let path = entry.context(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let step = name.strip_prefix("checkpoint-").and_then(|name| name.strip_suffix(".safetensors"));
            if let Some(step) = step.and_then(|step| step.parse().ok()) {
                list.push((step, path));
            }
        }
        list.sort_by(|a, b| b.cmp(a));
        Ok(list)
    }
}
