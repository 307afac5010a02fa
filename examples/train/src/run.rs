//! The whole job: one process for each method, then the table and the pictures.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::choices::Method;
use crate::cli::Cli;
use crate::config_file::ConfigFile;
use crate::console::{grouped, note, say};
use crate::corpus::Corpus;
use crate::error::{Context, Failure, Result};
use crate::fault::Fault;
use crate::files;
use crate::method;
use crate::metrics;
use crate::options::{self, Options};
use crate::picture;
use crate::stop;
use crate::summary::{self, RunSummary};

/// Runs what the command line asks for.
pub(crate) fn run(cli: &Cli) -> Result<()> {
    let (out, options) = match &cli.resume {
        Some(out) => (out.clone(), resume(cli, out)?),
        None => start(cli)?,
    };
    let _lock = hold(&out)?;
    stop::watch_parent()?;
    for &method in options.method.runs() {
        if RunSummary::load(&out.join(method.name()))?.is_none() {
            let trained = train(&out, method, &options, cli.fault.unwrap_or_default());
            trained.inspect_err(|_| stopped(&out, &options))?;
        }
    }
    let runs = finished(&out, &options)?;
    summary::save_all(&runs, &out)?;
    draw(&out, &options)?;
    summary::print(&runs);
    say(format_args!("summary.json, loss.svg, blocks.svg and checkpoints are in {}", out.display()));
    Ok(())
}

/// The options of the run that shall go on.
fn resume(cli: &Cli, out: &Path) -> Result<Options> {
    let options = Options::load(out)?;
    if let Some(other) = cli.out.as_ref().filter(|other| *other != out) {
        return Err(Failure::new(format!("--out {} contradicts --resume {}", other.display(), out.display())));
    }
    options.check_against(cli)?;
    for method in options.method.runs() {
        let result = RunSummary::load(&out.join(method.name()))?;
        if result.is_some_and(|result| result.options_crc != options.fingerprint()) {
            let (out, method) = (out.display(), method.name());
            return Err(Failure::new(format!("{out}/options.json was changed after {method} had ended with other options")));
        }
    }
    files::remove_partial(out)?;
    Ok(options)
}

/// Makes the folder of a new run. All that can be wrong with what was given is found before.
fn start(cli: &Cli) -> Result<(PathBuf, Options)> {
    let file = cli.config.as_deref().map(ConfigFile::load).transpose()?;
    let options = Options::new(cli, file.as_ref())?;
    let corpus = Corpus::load(&options.corpus(), options.sizes.context)?;
    let weights = options.sizes.weights();
    method::check(&options, &weights)?;
    let named = cli.out.as_deref().or(file.as_ref().and_then(|file| file.keys.out.as_deref()));
    let out = folder(named)?;
    options.save(&out)?;
    note(format_args!(
        "text: {} bytes to train on, {} held out ({})\nmodel: {} weights in {} blocks; {} steps of {} windows of {} bytes\nfolder: {}",
        grouped(corpus.train.len()),
        grouped(corpus.held_out.len()),
        options.corpus.as_ref().map_or("State of the Union addresses".into(), |path| path.display().to_string()),
        grouped(weights.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()),
        weights.len(),
        options.steps,
        options.sizes.batch,
        options.sizes.context,
        out.display()
    ));
    Ok((out, options))
}

/// A folder without a run in it: the one that was named, or a new one under runs.
fn folder(named: Option<&Path>) -> Result<PathBuf> {
    let failed = |path: &Path| format!("cannot make the folder {}", path.display());
    if let Some(path) = named {
        if path.join(options::FILE).exists() {
            let path = path.display();
            return Err(Failure::new(format!("{path} holds a run already: go on with --resume {path}, or name another folder")));
        }
        std::fs::create_dir_all(path).context(|| failed(path))?;
        return Ok(path.to_path_buf());
    }
    let runs = Path::new("runs");
    std::fs::create_dir_all(runs).context(|| failed(runs))?;
    let names = std::iter::once("pretrain".to_string()).chain((2..).map(|n| format!("pretrain-{n}")));
    for path in names.map(|name| runs.join(name)) {
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => return made.context(|| failed(&path)).map(|()| path),
        }
    }
    unreachable!("there is always another number")
}

/// Two processes must not work on one run.
fn hold(out: &Path) -> Result<File> {
    let path = out.join(options::FILE);
    let file = File::open(&path).context(|| format!("cannot open {}", path.display()))?;
    files::lock(&file, &path, Duration::ZERO)?;
    Ok(file)
}

/// Trains with one method, in a process of its own: so its peak of memory is its own.
fn train(out: &Path, method: Method, options: &Options, fault: Fault) -> Result<()> {
    stop::check()?;
    let failed = || format!("cannot start the process that trains with {}", method.title());
    let mut command = Command::new(std::env::current_exe().context(failed)?);
    command.arg("--child").arg(method.name()).arg("--out").arg(out);
    if fault != Fault::None {
        command.arg("--fault").arg(fault.to_string());
    }
    // Both are read when the first operation runs, so they have to be there before the process is. Matrix products and our
    // operations run on rayon's threads. candle has a pool of its own for its element-wise operations, of which hardly any
    // is left here, and a thread of it that waits burns a core that others could use.
    command.env("RAYON_NUM_THREADS", options.threads.to_string()).env("CANDLE_NUM_THREADS", "1");
    let mut child = command.stdin(Stdio::piped()).spawn().context(failed)?;
    stop::hold(child.stdin.take());
    let status = child.wait().context(failed)?;
    stop::hold(None);
    outcome(status, method)
}

fn outcome(status: ExitStatus, method: Method) -> Result<()> {
    match status.code() {
        Some(0) => Ok(()),
        Some(130) => Err(Failure::Interrupted),
        // It has said itself what is wrong.
        Some(2) => Err(Failure::Reported),
        _ if stop::asked() => Err(Failure::Interrupted),
        _ => Err(Failure::new(format!("the process that trains with {} ended early ({status})", method.title()))),
    }
}

/// Says how to go on.
fn stopped(out: &Path, options: &Options) {
    // What there is of the pictures is a help, not a promise.
    let _ = draw(out, options);
    let program = match std::env::var_os("CARGO") {
        Some(_) => "cargo run --release -p blockllm-train --".to_string(),
        None => std::env::args().next().unwrap_or_else(|| "blockllm-train".to_string()),
    };
    note(format_args!("stopped; go on with: {program} --resume {}", out.display()));
}

fn finished(out: &Path, options: &Options) -> Result<Vec<RunSummary>> {
    let mut runs = Vec::new();
    for method in options.method.runs() {
        let missing = || Failure::new(format!("the run with {} left no result", method.title()));
        runs.push(RunSummary::load(&out.join(method.name()))?.ok_or_else(missing)?);
    }
    Ok(runs)
}

fn draw(out: &Path, options: &Options) -> Result<()> {
    let mut histories = Vec::new();
    for &method in options.method.runs() {
        let folder = out.join(method.name());
        let held_out = RunSummary::load(&folder)?.map(|run| run.val_loss_after);
        histories.push((method, metrics::read(&folder), held_out));
    }
    let curves: Vec<picture::Curve<'_>> = histories
        .iter()
        .map(|(method, lines, held_out)| picture::Curve { method: *method, lines, held_out: *held_out })
        .collect();
    picture::loss(&out.join("loss.svg"), &curves)?;
    let weights = options.sizes.weights();
    let blocks: Vec<(String, usize)> = weights.into_iter().map(|(name, shape)| (name, shape.iter().product())).collect();
    match histories.first() {
        Some((method, lines, _)) => picture::blocks(&out.join("blocks.svg"), *method, lines, &blocks),
        None => Ok(()),
    }
}
