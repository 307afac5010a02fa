//! A run that is stopped, by Ctrl-C or by `kill -9`, and goes on is to the bit the run that was never stopped.
#![cfg(unix)]

mod common;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use common::{assert_same, assert_same_runs, fail, files, finish, lines, resume, start, stderr, wait_for};
use tempfile::TempDir;

/// The run that is never stopped.
fn unbroken() -> PathBuf {
    static RUN: OnceLock<TempDir> = OnceLock::new();
    let folder = RUN.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        finish(start(&folder.path().join("run"), &[]));
        folder
    });
    folder.path().join("run")
}

/// Starts a program in a process group of its own, as a shell does.
fn in_group(mut command: Command) -> Child {
    command.process_group(0).spawn().unwrap()
}

/// Sends a signal to a process, or with a minus sign to a whole group.
fn signal(signal: &str, target: &str) {
    let status = Command::new("sh").arg("-c").arg(format!("kill -{signal} {target}")).status().unwrap();
    assert!(status.success());
}

fn stopped_by(name: &str, send: impl Fn(u32)) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let mut command = start(&out, &[]);
    for at in [40, 700] {
        let mut child = in_group(command);
        wait_for(&mut child, "enough steps", || lines(&out) > at);
        send(child.id());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{name}: {}", stderr(&output));
        assert!(stderr(&output).contains(&format!("--resume {}", out.display())), "{name}: {}", stderr(&output));
        assert!(lines(&out) < at + 300, "{name}: it went on for {} steps", lines(&out) - at);
        assert!(out.join("loss.svg").is_file());
        command = resume(&out, &[]);
    }
    finish(command);
    assert_same(&unbroken(), &out);
}

#[test]
fn ctrl_c_in_a_terminal() {
    stopped_by("SIGINT to both", |id| signal("INT", &format!("-{id}")));
}

#[test]
fn a_signal_to_the_parent_alone() {
    stopped_by("SIGTERM to the parent", |id| signal("TERM", &id.to_string()));
}

/// Losses decide here, weights stand still, and two threads compute.
#[test]
fn the_papers_rule_goes_on_too() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--method", "paper", "--sparsity", "0.7", "--threads=2"];
    let tiny = |out: &Path| {
        let mut command = common::program(&["--model", "tiny", "--steps", "600", "--lr", "0.01", "--out"]);
        command.arg(out).args(options);
        command
    };
    let (whole, out) = (folder.path().join("whole"), folder.path().join("run"));
    finish(tiny(&whole));
    let mut child = in_group(tiny(&out));
    wait_for(&mut child, "enough steps", || lines(&out) > 333);
    signal("INT", &format!("-{}", child.id()));
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    finish(resume(&out, &options));
    assert_same_runs(&whole, &out, &["paper"]);
}

/// The process that the parent has started, if it is there.
fn child_of(parent: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// `kill -9` of both processes, of the parent alone, or of the child alone.
fn kill(child: &mut Child, way: u64) {
    match (way % 3, child_of(child.id())) {
        (1, Some(_)) => child.kill().unwrap(),
        (2, Some(trainer)) => signal("KILL", &trainer.to_string()),
        _ => signal("KILL", &format!("-{}", child.id())),
    }
    let _ = child.wait();
}

/// Random numbers that are other ones each time the test runs.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn partial(out: &Path) -> bool {
    ["blockllm", "adamw"].iter().any(|method| !files(out, method, ".partial").is_empty())
}

#[test]
fn kill_9_at_ten_random_moments() {
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut random = Random(seed);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let mut command = start(&out, &[]);
    for way in 0..10 {
        let mut child = in_group(command);
        wait_for(&mut child, "a folder", || out.join("options.json").is_file());
        // Some of these moments lie before the first step, in a save, or between the two methods.
        let at = lines(&out) + random.below(110) as usize;
        wait_for(&mut child, "enough steps", || lines(&out) >= at.min(1150));
        std::thread::sleep(Duration::from_micros(random.below(3000)));
        kill(&mut child, way);
        command = resume(&out, &[]);
    }
    finish(command);
    assert_same(&unbroken(), &out);
}

#[test]
fn kill_9_inside_a_save() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let mut command = start(&out, &["--fault", "slow:5"]);
    for _ in 0..3 {
        let mut child = in_group(command);
        wait_for(&mut child, "a save", || partial(&out));
        std::thread::sleep(Duration::from_millis(50));
        signal("KILL", &format!("-{}", child.id()));
        let _ = child.wait();
        assert!(partial(&out), "it was not killed inside the save");
        // The next one gets past this save, and is killed in a later one.
        let mut child = in_group(resume(&out, &[]));
        let at = lines(&out) + 30;
        wait_for(&mut child, "the next save", || lines(&out) > at);
        kill(&mut child, 0);
        command = resume(&out, &["--fault", "slow:5"]);
    }
    finish(resume(&out, &[]));
    assert_same(&unbroken(), &out);
}

#[test]
fn two_processes_cannot_work_on_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let mut child = in_group(start(&out, &["--fault", "slow:20"]));
    wait_for(&mut child, "a save", || partial(&out));
    assert!(fail(resume(&out, &[])).contains("another process"));
    kill(&mut child, 0);
}
