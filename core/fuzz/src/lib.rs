//! What the fuzz targets do with their bytes, and the seeds they start from. `cargo xtask fuzz` runs them; a file that made
//! one fail is run again, without a fuzzer, by `cargo run --bin TARGET -- FILE` in this folder.

pub mod fixture;
pub mod mutation;
pub mod record_file;
pub mod record_leaves;
pub mod restore;

use std::path::Path;

/// Writes a target's seeds to its corpus, where they are not there yet. Called before the fuzzer reads it.
///
/// # Panics
/// Where the folder cannot be written.
pub fn write_seeds(target: &str, seeds: impl IntoIterator<Item = Vec<u8>>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    std::fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for (i, seed) in seeds.into_iter().enumerate() {
        let path = folder.join(format!("seed-{i}"));
        // Another worker of the same run may be writing the very same bytes.
        std::fs::write(&path, seed).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
}

/// Runs the files that the command line names.
///
/// # Panics
/// Where a file cannot be read, or the target fails on it.
pub fn replay(run: fn(&[u8])) {
    for path in std::env::args_os().skip(1) {
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        run(&bytes);
        println!("{}: passed", path.display());
    }
}
