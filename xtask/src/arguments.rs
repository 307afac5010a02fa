//! The command line.

use crate::fuzz::targets;
use crate::stage;

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Print the help.
    Help,
    /// Install what the checks need.
    Setup {
        /// What the extended checks need too.
        extended: bool,
    },
    /// Run the checks.
    Test(Test),
    /// Measure what the main job must reach.
    Bounds,
    /// Make the PTX that ships.
    Ptx {
        /// Only compare it with what is there.
        check: bool,
    },
    /// Look for inputs that the engine does not stand.
    Fuzz(Fuzz),
}

/// How long to fuzz what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fuzz {
    /// Of each target; at least 1.
    pub seconds: u32,
    /// This target alone.
    pub target: Option<String>,
}

/// How to run the checks.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Test {
    /// Install what is missing first.
    pub setup: bool,
    /// Run what takes long too.
    pub extended: bool,
    /// These stages alone; all of them where it is empty.
    pub only: Vec<String>,
}

impl Test {
    /// The stages of these backends, with what they need.
    fn backends(&mut self, names: &str) -> Result<(), String> {
        self.only.extend(backends(names)?);
        self.setup = true;
        Ok(())
    }
}

/// Reads the arguments after the program's name.
///
/// # Errors
/// One line that says what is wrong.
pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Command, String> {
    let arguments: Vec<String> = arguments.collect();
    if arguments.iter().any(|a| matches!(a.as_str(), "help" | "--help" | "-h")) {
        return Ok(Command::Help);
    }
    let mut rest = arguments.iter().map(String::as_str);
    match rest.next() {
        None => Ok(Command::Help),
        Some("setup") => setup(rest),
        Some("test") => test(rest).map(Command::Test),
        Some("bounds") => match rest.next() {
            None => Ok(Command::Bounds),
            Some(other) => Err(format!("bounds does not know {other}: it takes nothing")),
        },
        Some("ptx") => match (rest.next(), rest.next()) {
            (None, _) => Ok(Command::Ptx { check: false }),
            (Some("--check"), None) => Ok(Command::Ptx { check: true }),
            (Some("--check"), Some(other)) | (Some(other), _) => {
                Err(format!("ptx does not know {other}: it takes --check or nothing"))
            }
        },
        Some("fuzz") => fuzz(rest).map(Command::Fuzz),
        Some(other) => Err(format!("no command is called {other}: setup, test, bounds, ptx, fuzz or help")),
    }
}

fn setup<'a>(rest: impl Iterator<Item = &'a str>) -> Result<Command, String> {
    let mut extended = false;
    for argument in rest {
        match argument {
            "--extended" => extended = true,
            other => return Err(format!("setup does not know {other}: it takes --extended or nothing")),
        }
    }
    Ok(Command::Setup { extended })
}

fn test<'a>(mut rest: impl Iterator<Item = &'a str>) -> Result<Test, String> {
    let mut options = Test::default();
    while let Some(argument) = rest.next() {
        match argument {
            "--setup" => options.setup = true,
            "--extended" => options.extended = true,
            "--only" => options.only.extend(stages(rest.next().unwrap_or_default())?),
            "--backend" => options.backends(rest.next().unwrap_or_default())?,
            other => match (other.strip_prefix("--only="), other.strip_prefix("--backend=")) {
                (Some(names), _) => options.only.extend(stages(names)?),
                (_, Some(names)) => options.backends(names)?,
                _ => {
                    let takes = "--setup, --extended, --only STAGE[,STAGE] and --backend NAME[,NAME]";
                    return Err(format!("test does not know {other}: it takes {takes}"));
                }
            },
        }
    }
    Ok(options)
}

fn fuzz<'a>(mut rest: impl Iterator<Item = &'a str>) -> Result<Fuzz, String> {
    let mut options = Fuzz { seconds: 60, target: None };
    while let Some(argument) = rest.next() {
        let (option, value) = argument.split_once('=').unwrap_or_else(|| (argument, rest.next().unwrap_or_default()));
        match (option, value.parse()) {
            ("--seconds", Ok(seconds)) if seconds > 0 => options.seconds = seconds,
            ("--seconds", _) => return Err(format!("--seconds: '{value}' is no number of seconds: at least 1")),
            ("--target", _) if targets().contains(&value) => options.target = Some(value.to_string()),
            ("--target", _) => return Err(format!("--target: no target is called '{value}': {}", targets().join(", "))),
            (other, _) => return Err(format!("fuzz does not know {other}: it takes --seconds N and --target NAME")),
        }
    }
    Ok(options)
}

fn stages(names: &str) -> Result<Vec<String>, String> {
    let known: Vec<&str> = stage::all(true).iter().map(|s| s.name).collect();
    let stage = |name: &str| match known.contains(&name) {
        true => Ok(name.to_string()),
        false => Err(format!("--only: no stage is called '{name}': {}", known.join(", "))),
    };
    names.split(',').map(str::trim).map(stage).collect()
}

/// The stages of backends.
fn backends(names: &str) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    for name in names.split(',').map(str::trim) {
        let known = stage::BACKENDS.iter().find(|(backend, _)| *backend == name);
        let Some((_, stages)) = known else {
            let list: Vec<&str> = stage::BACKENDS.iter().map(|b| b.0).collect();
            return Err(format!("--backend: no backend is called '{name}': {}", list.join(", ")));
        };
        out.extend(stages.iter().map(|s| s.to_string()));
    }
    Ok(out)
}

/// The help.
pub fn help() -> String {
    let mut stages = String::new();
    for s in stage::all(true) {
        let mark = if s.extended { " (extended)" } else { "" };
        stages += &format!("  {:14}{}{mark}\n", s.name, s.what);
    }
    format!(
        "cargo xtask: the project's own chores

  cargo xtask setup [--extended]
      Installs what the checks need and is not here yet. What cannot be installed is reported; that is no failure.
  cargo xtask test [--setup] [--extended] [--only STAGE[,STAGE]] [--backend NAME[,NAME]]
      Runs the checks, one stage after another, also after one that failed. Prints the seconds of each.
      --setup     installs what is missing first; without it nothing is installed, and a stage that lacks something
                  is listed as SKIP
      --extended  also what takes long: tests that are marked #[ignore], and the stages marked below
      --only      these stages alone
      --backend   the stages of these backends alone (cpu, wgpu, cuda), and installs what they need
  cargo xtask bounds
      Trains the main job with three seeds, with BlockLLM and with AdamW (about ten minutes), and says whether memory,
      coverage and loss are within their bounds.
  cargo xtask ptx [--check]
      Makes the PTX in gpu-cuda/ptx again, with a pinned compiler that is fetched from PyPI; with --check, fails where it
      is not what is there.
  cargo xtask fuzz [--seconds N] [--target NAME]
      Throws bytes at what reads bytes: each target in core/fuzz, or one, for N seconds (60). Installs what it needs: a nightly
      compiler, g++ and cargo-fuzz. An input that makes one fail is kept, and named with the command that runs it again.
  cargo xtask help
      Prints this.

Stages:
{stages}
Where CI is set (CI=true), whatever is skipped fails the run, unless XTASK_ALLOWED_SKIPS names it: stages and ignored
tests, separated by commas. Backends that REQUIRE_BACKENDS names (cpu, wgpu, cuda-emulated) may be skipped nowhere.

Exit status: 0 all is well; 1 a stage failed, or something was skipped that may not be; 2 wrong arguments.
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(str::to_string))
    }

    #[test]
    fn the_readmes_command() {
        assert_eq!(parsed("test --setup"), Ok(Command::Test(Test { setup: true, ..Test::default() })));
    }

    #[test]
    fn bounds_take_nothing() {
        assert_eq!(parsed("bounds"), Ok(Command::Bounds));
    }

    #[test]
    fn ptx_is_made_or_checked() {
        assert_eq!(parsed("ptx"), Ok(Command::Ptx { check: false }));
        assert_eq!(parsed("ptx --check"), Ok(Command::Ptx { check: true }));
    }

    #[test]
    fn fuzz_takes_seconds_and_a_target() {
        let is = |line, seconds, target: Option<&str>| {
            assert_eq!(parsed(line), Ok(Command::Fuzz(Fuzz { seconds, target: target.map(str::to_string) })), "{line}");
        };
        is("fuzz", 60, None);
        is("fuzz --seconds 5", 5, None);
        is("fuzz --target=record_file --seconds=7", 7, Some("record_file"));
    }

    #[test]
    fn only_takes_a_list_in_both_spellings() {
        let only =
            |names: &[&str]| Ok(Command::Test(Test { only: names.iter().map(|s| s.to_string()).collect(), ..Test::default() }));
        assert_eq!(parsed("test --only clippy,docs"), only(&["clippy", "docs"]));
        assert_eq!(parsed("test --only=clippy --only docs"), only(&["clippy", "docs"]));
    }

    #[test]
    fn a_backend_stands_for_its_stages() {
        let Ok(Command::Test(options)) = parsed("test --backend wgpu --backend=cuda") else { panic!("no test") };
        assert_eq!(options.only, ["wgpu", "wasm", "cuda-emulated", "ptx"]);
        assert!(options.setup, "it sets up what they need");
        let all = stage::all(true);
        let known = |name: &&str| all.iter().any(|s| s.name == *name);
        assert!(stage::BACKENDS.iter().all(|(_, stages)| stages.iter().all(known)));
    }

    #[test]
    fn help_is_found_anywhere_and_is_the_default() {
        for line in ["", "help", "--help", "test -h", "test --nonsense --help"] {
            assert_eq!(parsed(line), Ok(Command::Help), "{line}");
        }
        assert!(stage::all(true).iter().all(|s| help().contains(s.name)));
    }

    #[test]
    fn what_is_wrong_is_one_line_that_names_it() {
        for (line, part) in [
            ("tset", "tset"),
            ("setup --all", "--all"),
            ("bounds 3", "3"),
            ("ptx --chekc", "--chekc"),
            ("ptx --check all", "all"),
            ("fuzz --seconds", "''"),
            ("fuzz --seconds 0", "'0'"),
            ("fuzz --seconds x", "'x'"),
            ("fuzz --target recrod", "'recrod'"),
            ("fuzz 60", "60"),
            ("test --onyl clippy", "--onyl"),
            ("test --only", "''"),
            ("test --only clippy,", "''"),
            ("test --only lint", "'lint'"),
            ("test --backend gpu", "'gpu'"),
            ("test --backend", "''"),
        ] {
            let problem = parsed(line).expect_err(line);
            assert!(problem.contains(part) && !problem.contains('\n'), "{line}: {problem}");
        }
    }
}
