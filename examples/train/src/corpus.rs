//! The text: where it comes from, and which part of it is held out.

use std::path::{Path, PathBuf};

use crate::error::{Context, Failure, Result};

/// At most one part in this many is held out for validation.
const HELD_OUT: usize = 10;

/// A text, split in two.
pub(crate) struct Corpus {
    /// What is trained on.
    pub(crate) train: Vec<u8>,
    /// What the model never sees but to measure the loss.
    pub(crate) held_out: Vec<u8>,
    /// CRC-32 of both parts: a run may only go on with the text that it began with.
    pub(crate) crc: u32,
}

/// The addresses that come with this program.
pub(crate) fn built_in() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/sotu")
}

impl Corpus {
    /// Reads a file or a folder of files. Both parts must hold at least one window of `context` bytes and the next byte.
    pub(crate) fn load(path: &Path, context: usize) -> Result<Self> {
        let mut files = Vec::new();
        for file in files_of(path)? {
            let text = read_utf8(&file)?;
            if !text.is_empty() {
                files.push(text);
            }
        }
        let (train, held_out) = split(files);
        if train.len() + held_out.len() == 0 {
            return Err(Failure::new(format!("the corpus {} is empty", path.display())));
        }
        for (part, bytes) in [("for training", &train), ("held out", &held_out)] {
            if bytes.len() <= context {
                return Err(Failure::new(format!(
                    "the corpus {} is too short: its part {part} has {} bytes, one window takes {}",
                    path.display(),
                    bytes.len(),
                    context + 1
                )));
            }
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(&train);
        crc.update(&(train.len() as u64).to_le_bytes());
        crc.update(&held_out);
        Ok(Self { train, held_out, crc: crc.finalize() })
    }
}

/// The file itself, or the files of a folder in the order of their names; hidden files and folders inside are passed over.
fn files_of(path: &Path) -> Result<Vec<PathBuf>> {
    let failed = || format!("cannot read the corpus {}", path.display());
    if !path.metadata().context(failed)?.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    for entry in path.read_dir().context(failed)? {
        let entry = entry.context(failed)?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !hidden && entry.path().is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn read_utf8(file: &Path) -> Result<String> {
    let bytes = std::fs::read(file).context(|| format!("cannot read the corpus {}", file.display()))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::new(format!("{} is not UTF-8 text (first bad byte at offset {at})", file.display()))
    })
}

/// Of several files the last ones, as many as fit in a tenth of all bytes, but at least one; of a single file the last
/// tenth, cut between two characters.
fn split(mut files: Vec<String>) -> (Vec<u8>, Vec<u8>) {
    let total: usize = files.iter().map(String::len).sum();
    if let [file] = files.as_slice() {
        let ideal = total - total / HELD_OUT;
        let cut = (ideal..total).find(|&at| file.is_char_boundary(at)).unwrap_or(total);
        return (file.as_bytes()[..cut].to_vec(), file.as_bytes()[cut..].to_vec());
    }
    let mut first = files.len().saturating_sub(1);
    let mut held_out: usize = files.last().map_or(0, String::len);
    while first > 1 && held_out + files[first - 1].len() <= total / HELD_OUT {
        first -= 1;
        held_out += files[first].len();
    }
    let last = files.split_off(first);
    (files.concat().into_bytes(), last.concat().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_years_are_held_out() {
        let corpus = Corpus::load(&built_in(), 128).unwrap();
        assert_eq!((corpus.train.len(), corpus.held_out.len()), (2_334_067, 249_261));
        assert!(corpus.held_out.starts_with(&std::fs::read(built_in().join("2015_barack_obama_d.txt")).unwrap()));
    }

    #[test]
    fn a_single_file_is_cut_between_characters() {
        for n in 1..50 {
            let text = "é".repeat(n);
            let (train, held_out) = split(vec![text.clone()]);
            assert_eq!([&train[..], &held_out[..]].concat(), text.as_bytes());
            assert!(std::str::from_utf8(&train).is_ok() && held_out.len() <= text.len() / HELD_OUT);
        }
    }

    #[test]
    fn files_are_never_cut() {
        let files: Vec<String> = (1..=9).map(|n| n.to_string().repeat(10)).collect();
        let (train, held_out) = split(files);
        assert_eq!((train.len(), held_out.len()), (80, 10), "a file that is more than a tenth is held out alone");
        assert_eq!(split(Vec::new()), (vec![], vec![]));
    }
}
