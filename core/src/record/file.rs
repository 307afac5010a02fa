//! Records as safetensors files (feature `safetensors`): versioned, a checksum a leaf, replaced atomically.
//!
//! The file is canonical: its header must be byte for byte what this crate would write for its content, so that any
//! altered byte is noticed, in names and padding too. Checksums stand in the metadata under `blockllm`, in the order of
//! the leaves' names.

use super::{FORMAT, Leaf, LeafType, Record};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Why a record could not be written or read. Whatever was at the path before is still there.
#[derive(Debug)]
#[non_exhaustive]
pub enum FileError {
    /// The file system's.
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        operation: &'static str,
        /// The error.
        error: io::Error,
    },
    /// The bytes are not a record of this format.
    Content {
        /// The leaf, or what else is wrong.
        problem: String,
    },
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, operation, error } => write!(f, "{operation} {}: {error}", path.display()),
            Self::Content { problem } => write!(f, "not a whole record: {problem}"),
        }
    }
}

impl std::error::Error for FileError {}

const KEY: &str = "blockllm";

fn content(problem: impl ToString) -> FileError {
    FileError::Content { problem: problem.to_string() }
}

fn dtype(t: LeafType) -> Dtype {
    match t {
        LeafType::U8 => Dtype::U8,
        LeafType::U32 => Dtype::U32,
        LeafType::U64 => Dtype::U64,
        LeafType::F32 => Dtype::F32,
        LeafType::F64 => Dtype::F64,
    }
}

fn leaf_type(t: Dtype) -> Option<LeafType> {
    [LeafType::U8, LeafType::U32, LeafType::U64, LeafType::F32, LeafType::F64].into_iter().find(|&l| dtype(l) == t)
}

/// The format and the checksums of all leaves, in the order of their names.
fn seal(record: &Record) -> String {
    let sums = record.leaves().iter().map(|l| format!(" {:016x}", l.checksum()));
    core::iter::once(format!("format {FORMAT}")).chain(sums).collect()
}

/// The file's bytes.
///
/// # Errors
/// Two leaves of one name.
pub fn to_bytes(record: &Record) -> Result<Vec<u8>, FileError> {
    if let Some(pair) = record.leaves().windows(2).find(|w| w[0].name == w[1].name) {
        return Err(content(format!("two leaves are named {}", pair[0].name)));
    }
    let view = |l| -> Result<_, FileError> {
        let l: &Leaf = l;
        Ok((l.name.as_str(), TensorView::new(dtype(l.dtype), vec![l.len()], &l.data).map_err(content)?))
    };
    let views = record.leaves().iter().map(view).collect::<Result<Vec<_>, _>>()?;
    let metadata = HashMap::from([(KEY.to_string(), seal(record))]);
    safetensors::serialize(views, Some(metadata)).map_err(content)
}

/// The record in a file's bytes.
///
/// # Errors
/// Truncated, altered, of another program, or of a newer format: [`FileError::Content`] says which.
pub fn from_bytes(bytes: &[u8]) -> Result<Record, FileError> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(content)?;
    let sealed =
        header.metadata().as_ref().and_then(|m| m.get(KEY)).ok_or_else(|| content("it was not written by this crate"))?;
    let version = sealed.split(' ').nth(1).and_then(|v| v.parse::<u64>().ok());
    if version.is_some_and(|v| v > FORMAT) {
        return Err(content(format!("format {}, this crate reads {FORMAT}", version.unwrap_or_default())));
    }
    let file = SafeTensors::deserialize(bytes).map_err(content)?;
    let leaf = |(name, t): (String, TensorView<'_>)| {
        let dtype = leaf_type(t.dtype()).ok_or_else(|| content(format!("{name}: its type is {:?}", t.dtype())))?;
        Ok(Leaf { name, dtype, data: t.data().to_vec() })
    };
    let record = Record::from_leaves(file.tensors().into_iter().map(leaf).collect::<Result<_, FileError>>()?);
    let want: Vec<&str> = sealed.split(' ').skip(2).collect();
    if want.len() != record.leaves().len() {
        return Err(content(format!("{} leaves, {} checksums", record.leaves().len(), want.len())));
    }
    if let Some((l, _)) = record.leaves().iter().zip(want).find(|(l, sum)| format!("{:016x}", l.checksum()) != *sum) {
        return Err(content(format!("{}: its checksum does not fit", l.name)));
    }
    if to_bytes(&record)? != bytes {
        return Err(content("its header was altered"));
    }
    Ok(record)
}

/// Writes a record in place of what is at `path`, atomically.
///
/// # Errors
/// The file system's; what was there is then still there.
pub fn save(path: &Path, record: &Record) -> Result<(), FileError> {
    let bytes = to_bytes(record)?;
    replace(path, |file| file.write_all(&bytes))
}

/// Reads a record.
///
/// # Errors
/// The file system's, or as [`from_bytes`].
pub fn load(path: &Path) -> Result<Record, FileError> {
    let bytes = fs::read(path).map_err(|error| FileError::Io { path: path.into(), operation: "read", error })?;
    from_bytes(&bytes)
}

/// Replaces a file by what `write` writes: into a temporary file in the same folder, synced, then renamed over it. At
/// every moment `path` is the old file or the whole new one. A symbolic link stays, its target is replaced.
///
/// # Errors
/// The file system's or `write`'s: the old file is as it was and the temporary one is gone.
pub fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), FileError> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let (folder, name) = (target.parent().unwrap_or(Path::new("")), target.file_name().unwrap_or_default());
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let io = |operation| move |error| FileError::Io { path: path.into(), operation, error };
    let (mut file, temporary) = create_beside(folder, &name.to_string_lossy()).map_err(io("create"))?;
    let written = write(&mut file).map_err(io("write")).and_then(|()| file.sync_all().map_err(io("sync")));
    drop(file);
    let written = written.and_then(|()| fs::rename(&temporary, &target).map_err(io("replace")));
    if written.is_err() {
        // The first error is the one to tell; a leftover that cannot be removed changes nothing.
        let _ = fs::remove_file(&temporary);
        return written;
    }
    // The rename itself must survive a power cut. Not every file system lets a folder be synced.
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// A new file under a name of its own. A killed process may have left one of the same name behind: it is not touched.
fn create_beside(folder: &Path, name: &str) -> io::Result<(File, PathBuf)> {
    static NEXT: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);
    loop {
        let number = NEXT.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        let path = folder.join(format!(".{name}.{}-{number}.tmp", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return opened.map(|file| (file, path)),
        }
    }
}
