//! Files that are there whole or not at all, and files that one process alone may write.

use std::fs::{File, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Context, Failure, Result};
use crate::fault::{Fault, Faulty};

const PARTIAL: &str = "partial";

/// Writes a file beside its final place, forces it to the disk, and renames it. Whatever happens, and whenever, the name
/// leads to the old content or to the new; after an error nothing is left over.
pub(crate) fn write_whole(path: &Path, fault: Fault, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let partial = partial_of(path);
    let attempt = || -> io::Result<()> {
        let mut writer = Faulty::new(BufWriter::with_capacity(1 << 20, File::create(&partial)?), fault);
        write(&mut writer)?;
        writer.flush()?;
        let file = writer.into_inner().into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        std::fs::rename(&partial, path)?;
        sync_folder(path)
    };
    attempt().context(|| {
        // The error is what counts; the file may never have been made.
        let _ = std::fs::remove_file(&partial);
        format!("cannot write {}", path.display())
    })
}

/// Removes what a process that was killed left half written.
pub(crate) fn remove_partial(folder: &Path) -> Result<()> {
    let failed = || format!("cannot clean up {}", folder.display());
    for entry in folder.read_dir().context(failed)? {
        let path = entry.context(failed)?.path();
        if path.extension().is_some_and(|extension| extension == PARTIAL) {
            std::fs::remove_file(&path).context(failed)?;
        }
    }
    Ok(())
}

fn partial_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".");
    name.push(PARTIAL);
    PathBuf::from(name)
}

/// The rename itself lives in the folder, which has to be forced to the disk too. Only Unix can do that.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// Waits, at most that long, until no other process holds the file, then holds it as long as it is open. The system lets
/// go of it when the process ends, however it ends.
pub(crate) fn lock(file: &File, path: &Path, patience: Duration) -> Result<()> {
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if start.elapsed() < patience => std::thread::sleep(Duration::from_millis(20)),
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::new(format!("another process is writing to {}", path.display())));
            }
            // Some file systems know no locks; a run there must not fail for that.
            Err(TryLockError::Error(_)) => return Ok(()),
        }
    }
}
