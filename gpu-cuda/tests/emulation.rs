//! The stand-in's execution model and memory, held to what they promise: wrong programs do not pass.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

fn build() -> Result<PathBuf, String> {
    let (sources, out) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("emulation"), Path::new(env!("CARGO_TARGET_TMPDIR")));
    let program = out.join("emulation-checks");
    let mut command = Command::new("g++");
    command.args(["-std=c++20", "-O2", "-U_FORTIFY_SOURCE", "-Wall", "-Wextra", "-I"]).arg(&sources).arg("-o").arg(&program);
    command.args(["checks/checks.cpp", "execution.cpp", "memory.cpp", "stream.cpp"].map(|name| sources.join(name)));
    let done = command.output().map_err(|e| format!("g++: {e}"))?;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(program)
}

/// Runs one of the programs, with one order of threads.
fn run(program: &Path, which: &str, seed: u32) -> Output {
    Command::new(program).arg(which).env("CUDA_EMULATION_SEED", seed.to_string()).output().expect("a program that runs")
}

fn with(test: &str, check: impl Fn(&Path)) {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match PROGRAM.get_or_init(build) {
        Ok(program) => check(program),
        // Past the test runner's capture, as the suite does it.
        Err(why) => writeln!(std::io::stdout(), "SKIP {test}: {why}").expect("standard output"),
    }
}

const SEEDS: core::ops::Range<u32> = 0..20;

#[test]
fn a_right_program_is_right_in_every_order() {
    with("a_right_program_is_right_in_every_order", |program| {
        for seed in SEEDS {
            assert_eq!(run(program, "right", seed).status.code(), Some(0), "seed {seed}");
        }
        assert_eq!(run(program, "late", 0).status.code(), Some(0));
    });
}

#[test]
fn a_missing_barrier_and_uninitialised_memory_give_wrong_numbers() {
    with("a_missing_barrier_and_uninitialised_memory_give_wrong_numbers", |program| {
        for seed in SEEDS {
            for which in ["missing barrier", "uninitialised"] {
                assert_eq!(run(program, which, seed).status.code(), Some(1), "{which}, seed {seed}");
            }
        }
    });
}

#[test]
fn what_is_wrong_beyond_numbers_aborts_and_says_why() {
    with("what_is_wrong_beyond_numbers_aborts_and_says_why", |program| {
        for (which, message) in [
            ("divergent barrier", "divergent barrier in thread block"),
            ("past the end", "a write past the end of an allocation of 1000 bytes"),
            ("before", "a write before an allocation of 1000 bytes"),
            ("twice freed", "an address is freed that is not in use"),
            ("written after it was freed", "a write to 1000 bytes that were freed"),
            ("copied past the end", "a copy of 11 bytes"),
            ("copied from nowhere", "a copy of 1 bytes"),
            ("freed while a copy is on its way", "host memory is freed while a copy to it is on its way"),
        ] {
            let out = run(program, which, 0);
            let said = String::from_utf8_lossy(&out.stderr);
            assert!(out.status.code().is_none() && said.contains(message), "{which}: {} {said}", out.status);
        }
    });
}
