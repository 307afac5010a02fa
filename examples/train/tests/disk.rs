//! A disk that fails, or that has damaged a file, costs some steps but no run.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{assert_same, fail, files, finish, resume, start, stderr};

/// A finished run, and one that was stopped right after the last save of its first method.
struct Runs {
    _folder: tempfile::TempDir,
    whole: PathBuf,
    stopped: PathBuf,
    /// The checkpoints of the latter: of steps 575 and 600.
    checkpoints: Vec<PathBuf>,
}

fn runs() -> Runs {
    let folder = tempfile::tempdir().unwrap();
    let (whole, stopped) = (folder.path().join("whole"), folder.path().join("stopped"));
    finish(start(&whole, &[]));
    fs::create_dir_all(stopped.join("blockllm")).unwrap();
    fs::copy(whole.join("options.json"), stopped.join("options.json")).unwrap();
    for file in files(&whole, "blockllm", "") {
        let name = file.file_name().unwrap();
        if name != "result.json" {
            fs::copy(&file, stopped.join("blockllm").join(name)).unwrap();
        }
    }
    let checkpoints = files(&stopped, "blockllm", ".safetensors");
    assert_eq!(checkpoints.len(), 2);
    Runs { _folder: folder, whole, stopped, checkpoints }
}

fn damage(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
}

fn truncate(file: &Path) {
    let bytes = fs::read(file).unwrap();
    fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    for harm in [damage, truncate, |file: &Path| fs::write(file, "").unwrap()] {
        let runs = runs();
        harm(&runs.checkpoints[1]);
        let output = finish(resume(&runs.stopped, &[]));
        let warnings = stderr(&output).lines().filter(|line| line.starts_with("warning: ")).count();
        assert!(warnings == 1 && stderr(&output).contains("000600.safetensors is damaged: passed over"));
        assert_same(&runs.whole, &runs.stopped);
    }
}

#[test]
fn without_a_whole_checkpoint_it_begins_anew() {
    let runs = runs();
    runs.checkpoints.iter().for_each(|file| truncate(file));
    // As a process leaves it that was killed while it wrote the summary.
    fs::write(runs.stopped.join("summary.json.partial"), "{").unwrap();
    let output = finish(resume(&runs.stopped, &[]));
    assert_eq!(stderr(&output).lines().filter(|line| line.starts_with("warning: ")).count(), 2);
    assert!(!runs.stopped.join("summary.json.partial").exists());
    assert_same(&runs.whole, &runs.stopped);
}

#[test]
fn a_full_disk_leaves_the_checkpoint_before_whole() {
    let runs = runs();
    let size = fs::metadata(&runs.checkpoints[1]).unwrap().len();
    let before = fs::read(&runs.checkpoints[0]).unwrap();
    for limit in [0, 1, 7, 1000, size / 2, size - 1] {
        let _ = fs::remove_file(&runs.checkpoints[1]);
        let error = fail(resume(&runs.stopped, &["--fault", &format!("full-after:{limit}")]));
        assert!(error.contains("cannot write") && error.contains("no storage space"), "{error}");
        assert_eq!(files(&runs.stopped, "blockllm", ".safetensors"), runs.checkpoints[..1], "limit {limit}");
        assert_eq!(files(&runs.stopped, "blockllm", ".partial"), Vec::<PathBuf>::new(), "limit {limit}");
        assert!(fs::read(&runs.checkpoints[0]).unwrap() == before, "limit {limit}");
    }
    finish(resume(&runs.stopped, &[]));
    assert_same(&runs.whole, &runs.stopped);
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let runs = runs();
    let other = runs.whole.with_file_name("other");
    finish(start(&other, &["--seed", "5"]));
    fs::copy(files(&other, "blockllm", ".safetensors").pop().unwrap(), &runs.checkpoints[1]).unwrap();
    assert!(fail(resume(&runs.stopped, &[])).contains("are of another run"));
}

#[test]
fn metrics_that_were_cut_are_noticed() {
    let runs = runs();
    truncate(&runs.stopped.join("blockllm/metrics.jsonl"));
    assert!(fail(resume(&runs.stopped, &[])).contains("metrics.jsonl has"));
}

#[test]
fn another_text_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (text, out) = (folder.path().join("text.txt"), folder.path().join("run"));
    fs::write(&text, "All the same to me. ".repeat(500)).unwrap();
    finish(start(&out, &["--method", "adamw", "--corpus", text.to_str().unwrap()]));
    fs::remove_file(out.join("adamw/result.json")).unwrap();
    fs::write(&text, "Not the same to me! ".repeat(500)).unwrap();
    assert!(fail(resume(&out, &[])).contains("text differ"));
}
