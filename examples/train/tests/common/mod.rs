//! Runs the program with a tiny model, and compares what runs leave behind.

#![allow(dead_code, unreachable_pub)] // each test file uses its own part of this

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A run that is long enough to be stopped in the middle, with both methods.
pub const STEPS: usize = 600;
const TINY: [&str; 10] = ["--model", "tiny", "--steps", "600", "--save-every", "25", "--threads", "1", "--lr", "0.01"];

/// The program, silent but for what it writes to its pipes.
pub fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blockllm-train"));
    command.args(args).env_remove("CARGO").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts a new tiny run in this folder.
pub fn start(out: &Path, more: &[&str]) -> Command {
    let mut command = program(&TINY);
    command.arg("--out").arg(out).args(more);
    command
}

/// Goes on with the run in this folder.
pub fn resume(out: &Path, more: &[&str]) -> Command {
    let mut command = program(&["--resume"]);
    command.arg(out).args(more);
    command
}

/// Standard error as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs to the end, which must be a good one.
pub fn finish(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    output
}

/// Runs into an error, which must be one line and exit status 2.
pub fn fail(mut command: Command) -> String {
    let output = command.output().unwrap();
    let text = stderr(&output);
    let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!((output.status.code(), errors.len()), (Some(2), 1), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    errors[0].to_string()
}

/// Waits until something is true of a process that is at work.
pub fn wait_for(child: &mut Child, what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(child.try_wait().unwrap().is_none(), "the program ended before {what}");
        assert!(start.elapsed() < Duration::from_secs(60), "no {what} within a minute");
        std::thread::sleep(Duration::from_micros(300));
    }
}

/// Lines of metrics so far, of all methods.
pub fn lines(out: &Path) -> usize {
    let count =
        |method| fs::read(out.join(method).join("metrics.jsonl")).map_or(0, |t| t.iter().filter(|b| **b == b'\n').count());
    ["blockllm", "paper", "adamw"].map(count).iter().sum()
}

/// Files of a method's folder whose names end like this, in order.
pub fn files(out: &Path, method: &str, end: &str) -> Vec<PathBuf> {
    let Ok(folder) = out.join(method).read_dir() else { return Vec::new() };
    let mut files: Vec<PathBuf> = folder.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.to_string_lossy().ends_with(end));
    files.sort();
    files
}

/// A metrics line, or a result, without what depends on the clock, the machine and the heap: the bytes of state are
/// measured, and a restored vector may have less room to spare than one that grew.
pub fn without_time(text: &str) -> Value {
    let mut value: Value = serde_json::from_str(text).unwrap();
    for field in ["ms", "step_ms_median", "peak_rss_bytes", "optimizer_state_bytes"] {
        value.as_object_mut().unwrap().remove(field);
    }
    value
}

/// Every array of a checkpoint but its checksum, which also covers the clock.
fn arrays(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let arrays = file.iter().map(|(name, view)| (name.to_string(), view.data().to_vec()));
    arrays.filter(|(name, _)| name != "trainer.checksum").collect()
}

/// Two finished runs with both methods are the same to the bit: every line, every weight, every moment, every result.
pub fn assert_same(a: &Path, b: &Path) {
    assert_same_runs(a, b, &["blockllm", "adamw"]);
}

/// The same for the methods that are named.
pub fn assert_same_runs(a: &Path, b: &Path, methods: &[&str]) {
    for method in methods {
        let read = |out: &Path, file: &str| fs::read_to_string(out.join(method).join(file)).unwrap();
        let (lines_a, lines_b) = (read(a, "metrics.jsonl"), read(b, "metrics.jsonl"));
        assert_eq!((lines_a.lines().count(), lines_b.lines().count()), (STEPS, STEPS), "{method}");
        for (a, b) in lines_a.lines().zip(lines_b.lines()) {
            assert_eq!(without_time(a), without_time(b), "{method}");
        }
        assert_eq!(without_time(&read(a, "result.json")), without_time(&read(b, "result.json")), "{method}");
        let last = format!("checkpoint-{STEPS:06}.safetensors");
        let (arrays_a, arrays_b) = (arrays(&a.join(method).join(&last)), arrays(&b.join(method).join(&last)));
        assert!(arrays_a.len() > 40 && arrays_a.keys().eq(arrays_b.keys()), "{method}");
        for (name, bytes) in &arrays_a {
            assert!(*bytes == arrays_b[name], "{method}: {name} differs");
        }
        assert_eq!(files(b, method, ".partial"), Vec::<PathBuf>::new(), "{method}: left over");
        assert_eq!(files(b, method, ".safetensors").len(), 2, "{method}: the newest two are kept");
    }
    for file in ["summary.json", "loss.svg", "blocks.svg"] {
        assert!(b.join(file).is_file(), "{file}");
    }
}
