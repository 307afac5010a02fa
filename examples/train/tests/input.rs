//! What a user can get wrong, and what the program says then.

mod common;

use std::fs;
use std::path::Path;

use common::{fail, finish, program, resume, stderr};

#[test]
fn help_is_complete() {
    let help = String::from_utf8(finish(program(&["--help"])).stdout).unwrap();
    for option in [
        "--resume",
        "--save-every",
        "--corpus",
        "--method",
        "--config",
        "--preset",
        "--policy",
        "--first",
        "--inactive",
        "--trigger",
        "--across",
        "--score",
        "--bias",
        "--fill",
        "--mask",
        "--sparsity",
        "--steps",
        "--seed",
        "--threads",
        "--out",
        "--lr",
        "Examples",
        "Exit status",
        "nats a byte",
        "default: 200",
        "runs/pretrain",
    ] {
        assert!(help.contains(option), "{option}");
    }
    for hidden in ["--model", "--fault", "--child"] {
        assert!(!help.contains(hidden), "{hidden}");
    }
}

/// Runs in a folder where nothing else is, which must stay so.
fn refused(args: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let command = || {
        // What is taken for good by mistake shall not train for long.
        let mut command = program(&["--model", "tiny"]);
        command.args(args).current_dir(folder.path());
        command
    };
    let output = command().output().unwrap();
    assert_eq!((stderr(&output).lines().count(), output.stdout.len()), (1, 0), "{}", stderr(&output));
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "{args:?} left something behind");
    fail(command())
}

#[test]
fn bad_values_are_one_line() {
    for (args, word) in [
        (&["--sparsity", "1"][..], "--sparsity"),
        (&["--sparsity", "-0.1"], "--sparsity"),
        (&["--sparsity", "nan"], "--sparsity"),
        (&["--sparsity", "much"], "--sparsity"),
        (&["--steps", "0"], "--steps"),
        (&["--steps", "1.5"], "--steps"),
        (&["--threads", "0"], "--threads"),
        (&["--threads", "100000"], "--threads"),
        (&["--trigger", "patience:2000000"], "patience = 2000000 must be at least 1 and at most 1000000"),
        (&["--fill", "whole", "--sparsity", "0.99999"], "no unit fits whole"),
        (&["--save-every", "0"], "--save-every"),
        (&["--seed", "-1"], "--seed"),
        (&["--lr", "0"], "--lr"),
        (&["--lr", "inf"], "--lr"),
        (&["--lr", "1e300"], "--lr"),
        (&["--inactive", "sign:1e300"], "--inactive"),
        (&["--method", "sgd"], "--method"),
        (&["--inactive", "sign"], "--inactive"),
        (&["--inactive", "sign:0"], "--inactive"),
        (&["--inactive", "thawed"], "--inactive"),
        (&["--trigger", "period:0"], "--trigger"),
        (&["--trigger", "patience"], "--trigger"),
        (&["--trigger", "never:1"], "--trigger"),
        (&["--across", "keep"], "--across"),
        (&["--score", "max"], "--score"),
        (&["--bias", "off"], "--bias"),
        (&["--fill", "all"], "--fill"),
        (&["--mask", "tile:0"], "--mask"),
        (&["--method", "paper", "--trigger", "period:5"], "--trigger is fixed by --method paper"),
        (&["--method", "adamw", "--sparsity", "0.5"], "--sparsity has no meaning with --method adamw"),
        (&["--method", "paper", "--preset", "lisa"], "--preset is fixed by --method paper"),
        (&["--method", "adamw", "--policy", "full"], "--policy has no meaning with --method adamw"),
        (&["--preset", "sgd"], "--preset"),
        (&["--first", "last"], "--first"),
        (&["--policy", "galore"], "say blockllm, full, cyclic:STEPS"),
        (&["--policy", "full:"], "say blockllm, full, cyclic:STEPS"),
        (&["--policy", "cyclic"], "say blockllm, full, cyclic:STEPS"),
        (&["--policy", "cyclic:0"], "'0' is no whole number, 1 or more"),
        (&["--policy", "cyclic:5:upwards"], "'upwards' is no order"),
        (&["--policy", "lisa:5"], "say blockllm, full, cyclic:STEPS"),
        (&["--policy", "lisa:5:0"], "'0' is no whole number, 1 or more"),
        (&["--policy", "lisa:5:4294967296"], "'4294967296' is more layers than there can be"),
        (&["--policy", "hft:-1"], "'-1' is no whole number, 1 or more"),
        (&["--policy", "blockllm:"], "say period:STEPS or patience:STEPS"),
        (&["--policy", "full", "--across", "reset"], "--across has no meaning with the policy full"),
        (&["--policy", "hft:5", "--sparsity", "0.5"], "--sparsity has no meaning with the policy hft:5"),
        (&["--policy", "random:5", "--trigger", "period:5"], "--trigger has no meaning with the policy random:5"),
        (&["--preset", "lisa", "--first", "scan"], "--first has no meaning with the policy lisa:20:2"),
        (&["--preset", "frugal", "--sparsity", "0.99"], "lower the sparsity"),
        (&["--speed", "11"], "--speed"),
        (&["finetune"], "finetune"),
        (&["--resume", "nowhere"], "there is no run in nowhere"),
        (&["--corpus", "missing.txt"], "missing.txt: No such file"),
    ] {
        let error = refused(args);
        assert!(error.contains(word), "{args:?}: {error}");
    }
}

#[test]
fn bad_text_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let write = |name: &str, bytes: &[u8]| fs::write(path(name), bytes).unwrap();
    write("empty.txt", b"");
    write("short.txt", b"too short for a window");
    write("latin1.txt", &[vec![b'a'; 5000], vec![0xe9; 10]].concat());
    fs::create_dir(path("nothing")).unwrap();
    fs::create_dir(path("mixed")).unwrap();
    write("mixed/a.txt", &[b'a'; 5000]);
    write("mixed/b.txt", &[b'b', 0xff]);
    for (name, word) in [
        ("empty.txt", "empty.txt is empty"),
        ("nothing", "nothing is empty"),
        ("short.txt", "short.txt is too short"),
        ("latin1.txt", "latin1.txt is not UTF-8 text (first bad byte at offset 5000)"),
        ("mixed", "b.txt is not UTF-8 text (first bad byte at offset 1)"),
    ] {
        let error = refused(&["--corpus", path(name).to_str().unwrap()]);
        assert!(error.contains(word), "{name}: {error}");
    }
}

fn tiny(out: &Path) -> [String; 9] {
    let out = out.to_str().unwrap();
    ["--model", "tiny", "--steps", "3", "--sparsity", "0.5", "--seed", "7", &format!("--out={out}")].map(str::to_string)
}

#[test]
fn a_finished_run_is_kept_and_can_be_looked_at_again() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let args = tiny(&out);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let first = finish(program(&args));
    let table = String::from_utf8(first.stdout).unwrap();
    assert!(table.contains("validation loss after") && table.contains("blockllm ended"), "{table}");
    let summary = fs::read_to_string(out.join("summary.json")).unwrap();

    assert!(fail(program(&args)).contains("holds a run already"));
    assert_eq!(String::from_utf8(finish(resume(&out, &[])).stdout).unwrap(), table);
    assert_eq!(fs::read_to_string(out.join("summary.json")).unwrap(), summary);

    for (option, value, was) in [
        ("--seed", "8", "7"),
        ("--steps", "4", "3"),
        ("--sparsity", "0.8", "0.5"),
        ("--method", "adamw", "both"),
        ("--inactive", "frozen", "sign:1"),
        ("--trigger", "period:9", "period:10"),
        ("--across", "reset", "carry"),
        ("--policy", "full", "blockllm:period:10"),
        ("--preset", "lisa", "default"),
        ("--model", "standard", "tiny"),
        ("--save-every", "9", "50"),
        ("--lr", "0.1", "0.002"),
    ] {
        let error = fail(resume(&out, &[option, value]));
        assert_eq!(error, format!("error: {option} {value} contradicts the run, which was started with {option} {was}"));
    }
    assert!(fail(resume(&out, &["--corpus", "x"])).contains("--corpus"));
    assert!(fail(resume(&out, &["--out", "x"])).contains("--out x contradicts --resume"));
    finish(resume(&out, &["--seed", "7", "--sparsity", "0.50"]));
}

#[test]
fn the_summary_has_the_promised_fields() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let args = tiny(&out);
    finish(program(&args.iter().map(String::as_str).collect::<Vec<_>>()));
    let summary: serde_json::Value = serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
    let runs = summary["runs"].as_array().unwrap();
    assert_eq!(runs.iter().map(|run| run["method"].as_str().unwrap()).collect::<Vec<_>>(), ["blockllm", "adamw"]);
    let mut fields = [
        "method",
        "policy",
        "options_crc",
        "seed",
        "params_total",
        "params_active_max",
        "params_ever_active",
        "optimizer_state_bytes",
        "gradient_bytes_peak",
        "val_loss_before",
        "val_loss_after",
        "tokens",
        "step_ms_median",
        "peak_rss_bytes",
        "reselections",
        "blocks_total",
        "blocks_ever_active",
    ];
    fields.sort_unstable();
    for run in runs {
        assert!(run.as_object().unwrap().keys().map(String::as_str).eq(fields), "{run}");
    }
    let count = |run: usize, field: &str| runs[run][field].as_u64().unwrap();
    assert_eq!(count(0, "params_active_max"), count(0, "params_total") / 2);
    assert_eq!(count(1, "params_ever_active"), count(1, "params_total"));
    assert_eq!(count(0, "tokens"), 3 * 4 * 16);
}
