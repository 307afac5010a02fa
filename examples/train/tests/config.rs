//! `--config FILE.toml`: every policy and choice of the engine, what flags beside it do, and what is said of bad files.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{fail, files, finish, program, resume, stderr, without_time};
use serde_json::Value;
use tempfile::TempDir;

/// A folder with a file in it.
fn written(text: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.toml");
    fs::write(&file, text).unwrap();
    (folder, file)
}

/// Trains the tiny model as this file says. The folder is deleted when the first is dropped.
fn trained(text: &str, flags: &[&str]) -> (TempDir, PathBuf) {
    let (folder, file) = written(text);
    let out = folder.path().join("run");
    let mut command = program(&["--model", "tiny", "--config"]);
    command.arg(&file).arg("--out").arg(&out).args(flags);
    finish(command);
    (folder, out)
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The run with BlockLLM, or the policy in its place.
fn result(out: &Path) -> Value {
    json(&out.join("summary.json"))["runs"][0].clone()
}

fn lines(out: &Path) -> Vec<Value> {
    let text = fs::read_to_string(out.join("blockllm/metrics.jsonl")).unwrap();
    text.lines().map(without_time).collect()
}

/// Blocks with Adam's state, by step.
fn active(out: &Path) -> Vec<Vec<u64>> {
    let blocks = |line: &Value| line["blocks"].as_array().unwrap().iter().map(|pair| pair[0].as_u64().unwrap()).collect();
    lines(out).iter().map(blocks).collect()
}

/// Of the tiny model's 21 blocks: 0 is the embedding, 1 to 9 and 10 to 18 are the layers, 19 the last norm, 20 the head.
const LAYERS: [std::ops::RangeInclusive<u64>; 2] = [1..=9, 10..=18];

fn whole_layer(blocks: &[u64]) -> bool {
    LAYERS.into_iter().any(|layer| layer.eq(blocks.iter().copied()))
}

#[test]
fn every_policy_trains_and_is_reported() {
    for (policy, text) in [
        ("{ block_llm = { period = 2 } }", "blockllm:period:2"),
        ("{ block_llm = \"patience\" }", "blockllm:patience:3"),
        ("\"full\"", "full"),
        ("{ cyclic = { period = 2, order = \"descending\" } }", "cyclic:2:descending"),
        ("{ lisa = { period = 2, units = 1 } }", "lisa:2:1"),
        ("{ half_fine_tuning = { period = 2 } }", "hft:2"),
        ("{ random_blocks = { period = 2 } }", "random:2"),
    ] {
        let file = format!("method = \"blockllm\"\nsteps = 8\n[optimizer]\npatience = 3\npolicy = {policy}\n");
        let (_folder, out) = trained(&file, &[]);
        let (result, active) = (result(&out), active(&out));
        assert_eq!((result["policy"].as_str(), active.len()), (Some(text), 8));
        let both = result["params_total"].as_u64() == result["params_active_max"].as_u64();
        assert_eq!(both, text == "full", "{text}");
        // The flag in the same words is the same run.
        let flags = ["--policy", text, "--method", "blockllm", "--steps", "8"];
        let (_other, same) = trained("[optimizer]\npatience = 3", &flags);
        assert_eq!(lines(&out), lines(&same), "{text}");
    }
    let (_folder, out) = trained("method = \"blockllm\"\nsteps = 1", &["--policy", "cyclic:2"]);
    assert_eq!(result(&out)["policy"].as_str(), Some("cyclic:2:random"));
}

#[test]
fn policies_that_go_by_layers_get_them() {
    let run = |flags: &[&str]| {
        let (_folder, out) = trained("method = \"blockllm\"\nsteps = 16", flags);
        active(&out)
    };
    let cyclic = run(&["--preset", "badam", "--policy", "cyclic:4:ascending"]);
    assert_eq!((&cyclic[0][..], &cyclic[15][..]), (&[0][..], &[19, 20][..]));
    assert!(whole_layer(&cyclic[4]) && whole_layer(&cyclic[8]) && cyclic[4] != cyclic[8], "{cyclic:?}");
    for set in run(&["--preset", "lisa", "--policy", "lisa:2:1"]) {
        let (ends, layer): (Vec<u64>, Vec<u64>) = set.iter().partition(|block| [0, 19, 20].contains(*block));
        assert!(ends == [0, 19, 20] && whole_layer(&layer), "{set:?}");
    }
    for set in run(&["--preset", "hft", "--policy", "hft:2"]) {
        let of = |blocks: &[u64]| set.iter().filter(|block| blocks.contains(*block)).count();
        assert_eq!(of(&[0, 19, 20]), 3, "{set:?}");
        // Half of the four of attention, one or two of the three of the MLP, of both norms one.
        for layer in LAYERS {
            let at = *layer.start();
            let (norms, attention, mlp) =
                (of(&[at, at + 5]), of(&[at + 1, at + 2, at + 3, at + 4]), of(&[at + 6, at + 7, at + 8]));
            assert!((norms, attention) == (1, 2) && (1..=2).contains(&mlp), "{set:?}");
        }
    }
    let norms = [0, 1, 6, 10, 15, 19, 20];
    let frugal = run(&["--preset", "frugal", "--sparsity", "0.3", "--policy", "random:2"]);
    assert!(frugal.iter().all(|set| norms.iter().all(|norm| set.contains(norm))), "{frugal:?}");
    let control = run(&["--policy", "random:2", "--sparsity", "0.3"]);
    assert!(!control.iter().all(|set| norms.iter().all(|norm| set.contains(norm))), "{control:?}");
}

#[test]
fn every_preset_trains() {
    for (preset, policy) in [
        ("default", "blockllm:period:10"),
        ("paper", "blockllm:patience:10"),
        ("published_code", "blockllm:patience:10"),
        ("frugal", "random:200"),
        ("badam", "cyclic:100:random"),
        ("lisa", "lisa:20:2"),
        ("hft", "hft:100"),
        ("adamw", "full"),
    ] {
        // The tiny model's embedding and head are more than half of it.
        let sparsity = if preset == "frugal" { "[optimizer]\nsparsity = 0.3" } else { "" };
        let file = format!("method = \"blockllm\"\npreset = \"{preset}\"\nsteps = 3\n{sparsity}");
        let (_folder, out) = trained(&file, &[]);
        assert_eq!(result(&out)["policy"].as_str(), Some(policy), "{preset}");
        let options = json(&out.join("options.json"));
        assert_eq!((options["preset"].as_str(), options["optimizer"]["clip"].as_f64()), (Some(preset), Some(1.0)));
    }
}

#[test]
fn the_method_paper_is_the_preset() {
    let (_a, paper) = trained("steps = 12", &["--method", "paper"]);
    let (_b, preset) = trained("steps = 12\npreset = \"paper\"", &["--method", "blockllm"]);
    let text = fs::read_to_string(paper.join("paper/metrics.jsonl")).unwrap();
    assert_eq!(text.lines().map(without_time).collect::<Vec<_>>(), lines(&preset));
}

/// A pass over all gradients is no step; a scan's steps are, and train nothing.
#[test]
fn first_sets_from_gradients() {
    let steps = |first: &str| {
        let file = format!("method = \"blockllm\"\nsteps = 9\n[optimizer]\npatience = 4\nfirst = \"{first}\"");
        let (_folder, out) = trained(&file, &[]);
        let losses: Vec<f64> = lines(&out).iter().map(|line| line["loss"].as_f64().unwrap()).collect();
        (active(&out), losses)
    };
    let (random, full, scan) = (steps("random"), steps("full_gradient"), steps("scan"));
    assert_eq!((full.0.len(), scan.0.len()), (9, 9));
    assert!(full.0.iter().all(|set| !set.is_empty()) && full.0[0] != random.0[0]);
    // 21 blocks, a fourth of them on each step.
    let idle: Vec<bool> = scan.0.iter().map(Vec::is_empty).collect();
    assert_eq!(idle, [true, true, true, true, false, false, false, false, false]);
    // The first set that both decide on is that of the same scores; a step that trains shows in the loss of the next.
    assert_eq!(full.1[0].to_bits(), scan.1[0].to_bits());
    assert_ne!(full.1[1].to_bits(), scan.1[1].to_bits());
}

/// Nothing is skipped here, so that updating each block at once gives the same numbers; but of gradients less is alive.
#[test]
fn immediate_updates_are_the_same_run() {
    let run = |immediate: bool| {
        let file = format!("method = \"blockllm\"\nsteps = 25\n[optimizer]\nsparsity = 0.3\nclip = inf\nimmediate = {immediate}");
        let (folder, out) = trained(&file, &[]);
        assert_eq!(json(&out.join("options.json"))["optimizer"]["clip"], Value::Null);
        let bytes = result(&out)["gradient_bytes_peak"].as_u64().unwrap();
        let losses: Vec<Value> = lines(&out).iter().map(|line| line["loss"].clone()).collect();
        (folder, losses, active(&out), bytes)
    };
    let (packed, immediate) = (run(false), run(true));
    assert_eq!((&packed.1, &packed.2), (&immediate.1, &immediate.2));
    assert!(immediate.3 < packed.3);
    // The trainer's own clip steps aside where there can be none.
    let (_folder, out) = trained("steps = 1\n[optimizer]\nimmediate = true", &[]);
    assert_eq!(json(&out.join("options.json"))["optimizer"]["clip"], Value::Null);
}

#[test]
fn flags_beside_a_file_win() {
    let file = "method = \"both\"\npreset = \"lisa\"\nsteps = 5\nlr = 0.5\nseed = 3\nthreads = 1\nsave_every = 2\n\
                [optimizer]\nseed = 9\nsparsity = 0.5\neps = 1e-6\npolicy = { lisa = { period = 3, units = 1 } }";
    let (_folder, out) = trained(file, &[]);
    let options = json(&out.join("options.json"));
    let numbers = |o: &Value| [&o["steps"], &o["lr"], &o["seed"], &o["optimizer"]["seed"]].map(Value::to_string).join(" ");
    assert_eq!((numbers(&options), &options["save_every"]), ("5 0.5 3 9".to_string(), &Value::from(2)));
    assert_eq!(options["optimizer"]["eps"].as_f64(), Some(1e-6));
    // What the file does not set is the preset's.
    assert_eq!(options["optimizer"]["across"].as_str(), Some("reset"));

    let flags = ["--method", "blockllm", "--preset", "default", "--steps", "4", "--lr", "0.01", "--seed", "1"];
    let policy = ["--policy", "random:2", "--sparsity", "0.25", "--across", "carry"];
    let (_folder, out) = trained(file, &[&flags[..], &policy[..]].concat());
    let options = json(&out.join("options.json"));
    assert_eq!(numbers(&options), "4 0.01 1 9");
    assert_eq!((options["preset"].as_str(), options["method"].as_str()), (Some("default"), Some("blockllm")));
    let optimizer = &options["optimizer"];
    assert_eq!((optimizer["sparsity"].as_f64(), optimizer["across"].as_str()), (Some(0.25), Some("carry")));
    assert_eq!((result(&out)["policy"].as_str(), optimizer["eps"].as_f64()), (Some("random:2"), Some(1e-6)));
    // A flag that the file's policy does not look at is a mistake, as it is without a file.
    let (folder, path) = written(file);
    let mut command = program(&["--model", "tiny", "--bias", "none", "--config"]);
    command.arg(path).current_dir(folder.path());
    assert!(fail(command).contains("--bias has no meaning with the policy lisa:3:1"));
}

/// What is not about blocks holds for AdamW too, and nothing else does.
#[test]
fn adamw_beside_another_method_shares_what_it_can() {
    let run = |optimizer: &str| {
        let (_folder, out) = trained(&format!("steps = 4\npreset = \"lisa\"\n[optimizer]\n{optimizer}"), &[]);
        assert_eq!(json(&out.join("summary.json"))["runs"][1]["policy"].as_str(), Some("full"));
        let text = fs::read_to_string(out.join("adamw/metrics.jsonl")).unwrap();
        text.lines().map(without_time).collect::<Vec<_>>()
    };
    let plain = run("");
    for field in ["betas = [0.5, 0.9]", "eps = 1e-2", "decay = \"l2\"", "weight_decay = 0.5", "clip = 0.1"] {
        assert_ne!(run(field), plain, "{field}");
    }
    for field in ["across = \"carry\"", "policy = { lisa = { period = 1, units = 1 } }", "inactive = { sign_sgd = 1.0 }"] {
        assert_eq!(run(field), plain, "{field}");
    }
}

#[test]
fn paths_are_relative_to_the_file() {
    let (folder, file) = written("steps = 2\nmethod = \"adamw\"\ncorpus = \"text.txt\"\nout = \"there\"");
    fs::write(folder.path().join("text.txt"), "All the same to me. ".repeat(500)).unwrap();
    let mut command = program(&["--model", "tiny", "--config"]);
    command.arg(file).current_dir(std::env::temp_dir());
    finish(command);
    assert!(folder.path().join("there/summary.json").is_file());
}

#[test]
fn the_files_that_the_readme_shows_train() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let files: Vec<&str> = readme.split("```toml").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(files.len(), 2);
    for (file, policy) in files.into_iter().zip(["lisa:10:1", "blockllm:period:20"]) {
        let (_folder, out) = trained(file, &["--steps", "2"]);
        assert_eq!(result(&out)["policy"].as_str(), Some(policy));
    }
}

/// Runs in a folder with nothing but the file, which must stay so.
fn refused(text: &[u8], flags: &[&str]) -> String {
    let (folder, _) = written(text);
    let command = || {
        let mut command = program(&["--model", "tiny", "--config", "run.toml"]);
        command.args(flags).current_dir(folder.path());
        command
    };
    let output = command().output().unwrap();
    assert_eq!((stderr(&output).lines().count(), output.stdout.len()), (1, 0), "{}", stderr(&output));
    assert_eq!(folder.path().read_dir().unwrap().count(), 1, "{flags:?} left something behind");
    fail(command())
}

#[test]
fn bad_files_are_one_line_with_the_place() {
    for (text, words) in [
        ("", &["run.toml sets nothing"][..]),
        ("# steps = 3\n", &["run.toml sets nothing"]),
        ("steps = 3\nspeed = 11", &["run.toml, line 2:", "unknown field `speed`", "`steps`", "`optimizer`"]),
        ("steps = 3\n\n[optimizer]\nsparsty = 0.5", &["run.toml, line 4:", "unknown field `sparsty`", "`sparsity`"]),
        ("[optimiser]\nsparsity = 0.5", &["run.toml, line 1:", "unknown field `optimiser`"]),
        ("steps = \"3\"", &["run.toml, line 1:", "\"3\": it must be a whole number, 1 or more"]),
        ("steps = 0", &["run.toml, line 1:", "0: it must be a whole number, 1 or more"]),
        ("seed = -1", &["run.toml, line 1:", "-1: it must be a whole number, 0 or more"]),
        ("threads = 2000", &["run.toml, line 1:", "2000: it must be a whole number from 1 to 1024"]),
        ("save_every = 1.5", &["run.toml, line 1:", "1.5: it must be a whole number, 1 or more"]),
        ("# a\nlr = inf", &["run.toml, line 2:", "inf: it must be a number above 0, at most 1000"]),
        ("corpus = 7", &["run.toml, line 1:", "invalid type: integer `7`"]),
        ("preset = \"lion\"", &["run.toml, line 1:", "\"lion\": it must be one of default, paper, published_code"]),
        ("method = \"sgd\"", &["run.toml, line 1:", "\"sgd\": it must be one of blockllm, paper, adamw, both"]),
        ("[optimizer]\nsparsity = \"much\"", &["run.toml, line 2:", "invalid type: string \"much\"", "f64"]),
        ("[optimizer]\npatience = -1", &["run.toml, line 2:", "-1"]),
        ("[optimizer]\nsparsity = 1.0", &["run.toml, line 2: sparsity = 1 must be at least 0 and below 1"]),
        ("[optimizer]\neps = 1e-8\nbetas = [0.9, 1.0]", &["run.toml, line 3: beta = 1 must be at least 0 and below 1"]),
        ("[optimizer]\npolicy = { block_llm = { period = 0 } }", &["run.toml, line 2: period = 0 must be at least 1"]),
        ("[optimizer.policy.cyclic]\norder = \"random\"\nperiod = 0", &["run.toml, line", "period = 0 must be at least 1"]),
        ("[optimizer]\npolicy = { lisa = { period = 1, units = 0 } }", &["run.toml, line 2: units = 0 must be at least 1"]),
        ("[optimizer]\npolicy = { lisa = { period = 1 } }", &["run.toml, line 2:", "missing field `units`"]),
        ("[optimizer]\npolicy = \"galore\"", &["run.toml, line 2:", "unknown variant `galore`", "`lisa`"]),
        ("[optimizer]\nmask = { tile = 0 }", &["run.toml, line 2: tile = 0 must be at least 1"]),
        ("[optimizer]\nimmediate = true\nclip = 1.0", &["run.toml, line 3: clip = 1 must be None"]),
        ("[optimizer]\nclip = 0.0", &["run.toml, line 2: clip = 0 must be finite and positive"]),
        ("[optimizer]\nweight_decay = 1e38\n", &["cannot train so", "lr"]),
        ("steps = 3\nsteps = 4", &["run.toml, line 2:", "duplicate key"]),
        ("steps 3", &["run.toml, line 1:"]),
        ("method = \"adamw\"\n[optimizer]\nsparsity = 0.5", &["[optimizer] sparsity has no meaning with --method adamw"]),
        ("method = \"paper\"\n[optimizer]\nscore = \"gradient_rms\"", &["[optimizer] score is fixed by --method paper"]),
        ("corpus = \"missing.txt\"", &["missing.txt: No such file"]),
        ("[optimizer]\nfill = \"whole\"\nsparsity = 0.99999", &["no unit fits whole"]),
    ] {
        // Rates this high belong to the case of a decay that they overflow with.
        let flags: &[&str] = if text.contains("1e38") { &["--lr", "1000"] } else { &[] };
        let error = refused(text.as_bytes(), flags);
        assert!(words.iter().all(|word| error.contains(word)), "{text:?}: {error}");
    }
    let error = refused(b"steps = 3 # \xff", &[]);
    assert!(error.contains("run.toml is not UTF-8 text (first bad byte at offset 12)"), "{error}");
    assert!(refused(b"steps = 3", &["--config", "run.toml"]).contains("--config"));
    let missing = fail(program(&["--config", "missing.toml"]));
    assert!(missing.contains("cannot read missing.toml: No such file"), "{missing}");
}

/// As a process leaves it that was stopped at step 30 of 40.
fn take_back(out: &Path) {
    for file in ["blockllm/result.json", "blockllm/checkpoint-000040.safetensors", "summary.json"] {
        fs::remove_file(out.join(file)).unwrap();
    }
    assert_eq!(files(out, "blockllm", ".safetensors").len(), 1);
}

#[test]
fn a_run_goes_on_as_its_file_said() {
    for optimizer in [
        "policy = { cyclic = { period = 7, order = \"random\" } }",
        "policy = { lisa = { period = 3, units = 1 } }\nacross = \"reset\"",
        "policy = { half_fine_tuning = { period = 3 } }\ndecay = \"l2\"",
        "immediate = true\npolicy = { block_llm = { period = 3 } }",
        "first = \"scan\"\nscore = \"processed_norm\"\ninactive = \"frozen\"\npatience = 1\npolicy = { block_llm = \"patience\" }",
    ] {
        let file = format!("method = \"blockllm\"\nsteps = 40\nsave_every = 10\nlr = 0.01\n[optimizer]\n{optimizer}");
        let (folder, out) = trained(&file, &[]);
        let before = (lines(&out), without_time(&result(&out).to_string()));
        take_back(&out);
        // The file has served; what counts is in the run's folder.
        fs::write(folder.path().join("run.toml"), "steps = 1").unwrap();
        finish(resume(&out, &[]));
        assert_eq!((lines(&out), without_time(&result(&out).to_string())), before, "{optimizer}");
    }
}

#[test]
fn a_run_that_goes_on_takes_no_other_options() {
    let (folder, out) = trained("method = \"blockllm\"\nsteps = 40\nsave_every = 10\npreset = \"lisa\"", &[]);
    let file = folder.path().join("run.toml");
    for (flags, words) in [
        (&["--config", file.to_str().unwrap()][..], "beside --resume: a run goes on as it was started"),
        (&["--model", "standard"], "--model standard contradicts the run, which was started with --model tiny"),
        (&["--preset", "badam"], "--preset badam contradicts the run, which was started with --preset lisa"),
        (&["--policy", "lisa:20:1"], "--policy lisa:20:1 contradicts the run, which was started with --policy lisa:20:2"),
        (&["--trigger", "period:20"], "--trigger period:20 contradicts the run, which was started with --trigger none"),
        (&["--first", "scan"], "--first scan contradicts the run, which was started with --first random"),
    ] {
        assert!(fail(resume(&out, flags)).contains(words), "{flags:?}");
    }
    finish(resume(&out, &["--policy", "lisa:20:2", "--model", "tiny", "--preset", "lisa"]));

    let kept = fs::read_to_string(out.join("options.json")).unwrap();
    let edit = |from: &str, to: &str| {
        assert!(kept.contains(from), "{from}");
        fs::write(out.join("options.json"), kept.replace(from, to)).unwrap();
        let error = fail(resume(&out, &[]));
        fs::write(out.join("options.json"), &kept).unwrap();
        error
    };
    let edits = [
        ("\"batch\": 4", "\"batch\": 0", "sizes: they are those of no model"),
        ("\"steps\": 40", "\"steps\": 0", "steps = 0: it must be a whole number, 1 or more"),
        ("\"save_every\": 10", "\"save_every\": 0", "save_every = 0: it must be"),
        ("\"lr\": 0.002", "\"lr\": -1.0", "lr = -1: it must be a number above 0"),
        ("\"sparsity\": 0.8", "\"sparsity\": 1.8", "sparsity = 1.8 must be at least 0 and below 1"),
        ("\"sparsity\": 0.8", "\"sparsness\": 0.8", "unknown field `sparsness`"),
        ("\"version\": 2", "\"version\": 1", "has version 1, this program reads version 2"),
        ("\"preset\"", "\"reset\"", "unknown field `reset`"),
    ];
    for (from, to, words) in edits {
        let error = edit(from, to);
        assert!(error.contains(words), "{from}: {error}");
    }
    // What is in range but is not what the run was made with.
    let other = [
        ("\"steps\": 40", "\"steps\": 41"),
        ("\"eps\": 1e-8", "\"eps\": 1e-7"),
        ("\"lr\": 0.002", "\"lr\": 0.001"),
        ("\"units\": 2", "\"units\": 1"),
    ];
    for (from, to) in other {
        let error = edit(from, to);
        assert!(error.contains("options.json was changed after blockllm had ended with other options"), "{from}: {error}");
    }
    take_back(&out);
    for (from, to) in other {
        let error = edit(from, to);
        assert!(error.contains("are of another run: the options in options.json, or the text differ"), "{from}: {error}");
    }
    finish(resume(&out, &[]));
}

/// Weights that overflow give gradients that are not finite, step after step.
#[test]
fn a_streak_of_skipped_steps_is_saved_before_it_ends_the_run() {
    let (folder, file) = written("method = \"blockllm\"\nlr = 1000.0\n[optimizer]\nguard_limit = 3\nweight_decay = 100.0");
    let out = folder.path().join("run");
    let mut command = program(&["--model", "tiny", "--save-every", "1000", "--config"]);
    command.arg(&file).arg("--out").arg(&out);
    let error = fail(command);
    assert!(error.contains("3 steps in a row were skipped"), "{error}");
    let step = lines(&out).len();
    assert!(step < 200, "it trained to the end");
    let skipped = |line: &Value| line["skipped"].as_bool() == Some(true) && line["active"].as_u64() == Some(0);
    assert!(lines(&out)[step - 3..].iter().all(skipped) && !skipped(&lines(&out)[0]));
    let name = format!("checkpoint-{step:06}.safetensors");
    assert!(out.join("blockllm").join(&name).is_file(), "{name}");
    // From there it goes on, and says the same of the next step.
    assert!(fail(resume(&out, &[])).contains("4 steps in a row were skipped"));
    assert_eq!(lines(&out).len(), step + 1);
}
