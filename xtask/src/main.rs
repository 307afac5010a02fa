//! The project's own chores: `cargo xtask setup`, `cargo xtask test`, `cargo xtask bounds`, `cargo xtask ptx`, `cargo xtask fuzz`.
//! `cargo xtask help` says more.

mod arguments;
mod bounds;
mod emulator;
mod fuzz;
mod need;
mod ptx;
mod run;
mod setup;
mod stage;
mod summary;

use arguments::{Command, Fuzz, Test};
use stage::Stage;
use std::process::ExitCode;
use summary::{Ci, Done, Outcome, Summary};

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned());
    match arguments::parse(arguments) {
        Ok(Command::Help) => print!("{}", arguments::help()),
        Ok(Command::Setup { extended }) => setup::install(&stage::all(extended)),
        Ok(Command::Test(options)) => return test(&options),
        Ok(Command::Bounds) => return bounds(),
        Ok(Command::Ptx { check }) => return ptx(check),
        Ok(Command::Fuzz(options)) => return fuzz(&options),
        Err(problem) => {
            eprintln!("xtask: {problem}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn bounds() -> ExitCode {
    match bounds::check() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("xtask: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn ptx(check: bool) -> ExitCode {
    let missing = |why: &str| format!("the pinned compiler is not to be had: {}", why.lines().last().unwrap_or_default());
    match ptx::make(check) {
        Ok(ptx::Outcome::UpToDate) => println!("gpu-cuda/ptx is what the pinned compiler makes of gpu-cuda/kernels"),
        // As a test that finds no device says it, so that the stage lists it.
        Ok(ptx::Outcome::Missing(why)) if check => println!("SKIP ptx: {}", missing(&why)),
        Ok(ptx::Outcome::Missing(why)) => return fail(&missing(&why)),
        Ok(ptx::Outcome::Differs(names)) => {
            return fail(&format!("gpu-cuda/ptx is not of these kernels: {}; run cargo xtask ptx", names.join(", ")));
        }
        Err(problem) => return fail(&problem),
    }
    ExitCode::SUCCESS
}

fn fuzz(options: &Fuzz) -> ExitCode {
    match fuzz::run(options.seconds, options.target.as_deref()) {
        Ok(fuzz::Outcome::NothingFound) => println!("no target found anything"),
        Ok(fuzz::Outcome::Missing(why)) => println!("SKIP fuzz: {why}"),
        Ok(fuzz::Outcome::Found(lines)) => return fail(&lines.join("\nxtask: ")),
        Err(problem) => return fail(&problem),
    }
    ExitCode::SUCCESS
}

fn fail(problem: &str) -> ExitCode {
    eprintln!("xtask: {problem}");
    ExitCode::FAILURE
}

fn test(options: &Test) -> ExitCode {
    let stages = stage::chosen(options.extended, &options.only);
    if options.setup {
        setup::install(&stages);
    }
    let mut summary = Summary::default();
    for stage in &stages {
        let (done, ignored) = perform(stage);
        println!("{done}");
        summary.stages.push(done);
        summary.ignored.extend(ignored);
    }
    let ci = Ci::from_environment();
    print!("{}", summary.text(&ci));
    if summary.is_good(&ci) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A stage's outcome, and the tests that it left out.
fn perform(stage: &Stage) -> (Done, Vec<summary::Ignored>) {
    println!("\n==> {}: {}", stage.name, stage.what);
    let start = std::time::Instant::now();
    let missing = stage.needs.iter().find(|n| !n.is_here());
    let (outcome, ignored) = match missing {
        Some(need) => (Outcome::Skipped(format!("{} is not installed ({})", need.name, need.install.join(" "))), Vec::new()),
        None => run::commands(&stage.commands),
    };
    (Done { name: stage.name, outcome, seconds: start.elapsed().as_secs_f64() }, ignored)
}
