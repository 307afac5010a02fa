//! Runs the commands of a stage and watches what they print.

use crate::stage::Invocation;
use crate::summary::{Ignored, Outcome};
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs commands one after another until one fails. Also the tests that they left out.
pub fn commands(list: &[Invocation]) -> (Outcome, Vec<Ignored>) {
    let mut ignored = Vec::new();
    for invocation in list {
        let line = invocation.words.join(" ");
        println!("$ {line}");
        if let Err(why) = one(invocation, &mut ignored) {
            return (Outcome::Failed(format!("{line}: {why}")), ignored);
        }
    }
    (Outcome::Passed, ignored)
}

fn one(invocation: &Invocation, ignored: &mut Vec<Ignored>) -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let mut command = Command::new(program(&invocation.words[0]));
    command.args(&invocation.words[1..]).current_dir(root.join(invocation.folder)).stdin(Stdio::null()).stdout(Stdio::piped());
    if let Some((variable, flag)) = invocation.flags {
        command.env(variable, with_flag(std::env::var(variable).ok(), flag));
    }
    if invocation.emulated {
        command.env("LD_LIBRARY_PATH", crate::emulator::build()?);
    }
    let mut child = command.spawn().map_err(|e| e.to_string())?;
    if let Some(out) = child.stdout.take() {
        watch(BufReader::new(out), ignored);
    }
    let status = child.wait().map_err(|e| e.to_string())?;
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}

/// The cargo that runs this program, so that one toolchain does everything.
fn program(name: &str) -> OsString {
    let own = (name == "cargo").then(|| std::env::var_os("CARGO")).flatten();
    own.unwrap_or_else(|| name.into())
}

fn with_flag(flags: Option<String>, flag: &str) -> String {
    flags.filter(|f| !f.is_empty()).map_or_else(|| flag.to_string(), |f| format!("{f} {flag}"))
}

/// Prints lines as they come, and notes the tests among them that were ignored.
fn watch(out: impl BufRead, ignored: &mut Vec<Ignored>) {
    for line in out.split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        ignored.extend(left_out(&line));
    }
}

/// An ignored test, from a line of the test harness: `test NAME ... ignored` or `test NAME ... ignored, REASON`; or one
/// that found no device, and says so itself: `SKIP NAME: REASON`.
fn left_out(line: &str) -> Option<Ignored> {
    if let Some((name, reason)) = line.strip_prefix("SKIP ").and_then(|rest| rest.split_once(": ")) {
        return Some(Ignored { name: name.to_string(), reason: reason.to_string() });
    }
    let (name, reason) = line.strip_prefix("test ")?.split_once(" ... ignored")?;
    let reason = reason.strip_prefix(", ").unwrap_or("marked #[ignore]");
    Some(Ignored { name: name.to_string(), reason: reason.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_tests_are_noticed_with_their_reason() {
        let is = |line, want: Option<(&str, &str)>| {
            assert_eq!(left_out(line).as_ref().map(|i| (i.name.as_str(), i.reason.as_str())), want);
        };
        is("test a::b ... ignored", Some(("a::b", "marked #[ignore]")));
        is("test a::b ... ignored, takes an hour", Some(("a::b", "takes an hour")));
        is("test src/lib.rs - a (line 3) ... ignored", Some(("src/lib.rs - a (line 3)", "marked #[ignore]")));
        is("SKIP wgpu update: no adapter: none at all", Some(("wgpu update", "no adapter: none at all")));
        is("test a::b ... ok", None);
        is("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured", None);
    }

    #[test]
    fn flags_of_the_caller_stay() {
        assert_eq!(with_flag(None, "-D warnings"), "-D warnings");
        assert_eq!(with_flag(Some(String::new()), "-D warnings"), "-D warnings");
        assert_eq!(with_flag(Some("-C debuginfo=0".into()), "-D warnings"), "-C debuginfo=0 -D warnings");
    }

    #[test]
    fn the_first_failure_ends_a_stage() {
        let run = |words: &[&str]| Invocation {
            words: words.iter().map(|w| w.to_string()).collect(),
            flags: None,
            emulated: false,
            folder: ".",
        };
        let (bad, absent, good) = (run(&["rustc", "--no-such-option"]), run(&["no-such-program"]), run(&["rustc", "--version"]));
        assert_eq!(commands(std::slice::from_ref(&good)).0, Outcome::Passed);
        for first in [bad, absent] {
            let Outcome::Failed(why) = commands(&[good.clone(), first.clone(), good.clone()]).0 else {
                panic!("{first:?} passed")
            };
            assert!(why.starts_with(&first.words.join(" ")), "{why}");
        }
    }
}
