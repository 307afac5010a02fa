//! `cargo xtask fuzz`: each fuzz target for a while.

use crate::emulator::root;
use crate::need::{self, Need};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What it cannot do without.
pub const NEEDS: [Need; 3] = [need::NIGHTLY, need::CXX, need::CARGO_FUZZ];

/// More for one allocation is a bug: the records that targets start from hold some ten KiB.
const LARGEST_ALLOCATION_MIB: u32 = 64;
/// An input that takes longer is a bug: most take less than a millisecond.
const SLOWEST_SECONDS: u32 = 10;

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// No target found anything.
    NothingFound,
    /// These did: a line each, with the input and how to run it again.
    Found(Vec<String>),
    /// It cannot be had here, and why.
    Missing(String),
}

/// The targets: the programs of `core/fuzz`.
pub fn targets() -> Vec<&'static str> {
    let programs = include_str!("../../core/fuzz/Cargo.toml").split("\n[[bin]]\nname = \"").skip(1);
    programs.filter_map(|rest| rest.split_once('"')).map(|(name, _)| name).collect()
}

/// Runs all targets, or one, each for so many seconds, also after one that found something. Installs what it needs first.
///
/// # Errors
/// A target that does not build or start.
pub fn run(seconds: u32, only: Option<&str>) -> Result<Outcome, String> {
    for need in NEEDS.iter().filter(|n| !n.is_here()) {
        println!("{}: {}", need.name, need.install.join(" "));
        if let Err(why) = need.install() {
            return Ok(Outcome::Missing(format!("{} is not installed, and could not be: {why}", need.name)));
        }
    }
    let chosen = targets().into_iter().filter(|t| only.is_none_or(|o| o == *t));
    let found: Vec<String> = chosen.map(|t| one(t, seconds)).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    Ok(if found.is_empty() { Outcome::NothingFound } else { Outcome::Found(found) })
}

/// What a target found.
fn one(target: &str, seconds: u32) -> Result<Vec<String>, String> {
    println!("$ cargo fuzz run {target}, for {seconds} seconds");
    let folder = root().join("core/fuzz/artifacts").join(target);
    let before = artifacts(&folder);
    let options = [
        format!("-max_total_time={seconds}"),
        format!("-malloc_limit_mb={LARGEST_ALLOCATION_MIB}"),
        format!("-timeout={SLOWEST_SECONDS}"),
        "-print_final_stats=1".to_string(),
        "-verbosity=0".to_string(),
    ];
    let mut command = Command::new("rustup");
    command.args("run nightly cargo fuzz run --fuzz-dir core/fuzz".split(' ')).arg(target).arg("--").args(options);
    let status = command.current_dir(root()).stdin(Stdio::null()).status().map_err(|e| format!("rustup: {e}"))?;
    let after = artifacts(&folder);
    let new = news(target, &before, &after);
    match (status.success(), new.is_empty()) {
        (true, _) | (false, false) => Ok(new),
        (false, true) => {
            Err(format!("{target}: {status}, and no new input that made it fail, {} old ones; see above", after.len()))
        }
    }
}

/// The inputs that made a target fail, of this run and of those before it.
fn artifacts(folder: &Path) -> BTreeSet<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// What to say of inputs that were not there before.
fn news(target: &str, before: &BTreeSet<PathBuf>, after: &BTreeSet<PathBuf>) -> Vec<String> {
    let again = format!("cargo run --manifest-path core/fuzz/Cargo.toml --bin {target} --");
    let told = |path: &PathBuf| format!("{target} failed on {0}; again: {again} {0}", path.display());
    after.difference(before).map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_names_every_target() {
        let (manifest, folder) = (include_str!("../../core/fuzz/Cargo.toml"), root().join("core/fuzz/fuzz_targets"));
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("a file").path();
            let name = path.file_stem().expect("a name").to_string_lossy();
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        }
        assert!(["record_file", "record_leaves"].iter().all(|t| targets().contains(t)), "{:?}", targets());
    }

    #[test]
    fn what_was_found_is_new_and_told_with_the_way_back_to_it() {
        let folder = root().join("target/xtask-tests/fuzz");
        let _ = std::fs::remove_dir_all(&folder);
        assert!(artifacts(&folder).is_empty(), "a folder that is not there holds none");
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("crash-1"), "1").expect("a file");
        let before = artifacts(&folder);
        std::fs::write(folder.join("crash-2"), "2").expect("a file");
        let new = news("record_file", &before, &artifacts(&folder));
        let path = folder.join("crash-2");
        assert_eq!(new.len(), 1);
        assert!(new[0].ends_with(&format!("--bin record_file -- {}", path.display())), "{new:?}");
    }
}
