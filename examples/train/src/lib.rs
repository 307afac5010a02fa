//! Trains a small Llama on real English text with BlockLLM and, beside it, with AdamW, and shows what each cost and what it
//! learned. `--help` says what can be chosen.
//!
//! The process that the user starts (`run`) starts one process for each method (`train`), so that each has a peak of memory
//! of its own. They share a folder: its options, and for each method metrics, checkpoints and a result.

mod batch;
mod blocks;
mod checkpoint;
mod choices;
mod cli;
mod config_file;
mod console;
mod corpus;
mod coverage;
mod error;
mod fault;
mod files;
mod flags;
mod memory;
mod meter;
mod method;
mod metrics;
mod model;
mod options;
mod picture;
mod progress;
mod random;
pub mod recording;
mod run;
mod stop;
mod store;
mod summary;
mod train;

use std::process::ExitCode;

use cli::Cli;
use error::{Failure, Result};

/// The program: reads its arguments from the environment.
pub fn main() -> ExitCode {
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Failure::Error(text) = &failure {
                console::note(format_args!("error: {text}"));
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

fn work() -> Result<()> {
    let Some(cli) = Cli::read()? else { return Ok(()) };
    match (cli.child, &cli.out) {
        (Some(method), Some(out)) => train::run(out, method, cli.fault.unwrap_or_default()),
        (Some(_), None) => Err(Failure::new("--child needs --out")),
        (None, _) => run::run(&cli),
    }
}
