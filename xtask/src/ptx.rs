//! `cargo xtask ptx`: makes the PTX that gpu-cuda ships, with a pinned NVRTC. That needs no GPU, no driver and no toolkit.

use crate::emulator::{files, root};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The oldest NVRTC of CUDA 12 that is published as a package: what it makes (PTX 8.0) is taken by every driver for CUDA 12.0
/// and above. Its hash, so that the same kernels give the same PTX everywhere.
const VERSION: &str = "12.0.76";
const HASH: &str = "8dd4458a7d8bf8fd2b01a34a9069856d53a9b4c0af2037b77c12b270daf9c828";

/// Pascal, of 2016: the kernels need nothing newer, PTX for it is compiled for every later device, and for what is older no
/// driver for CUDA 13 is made.
const ARCHITECTURE: &str = "compute_60";

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The PTX in `gpu-cuda/ptx` is what the compiler makes of the kernels.
    UpToDate,
    /// These files are not.
    Differs(Vec<String>),
    /// The compiler is not to be had here, and why.
    Missing(String),
}

/// Makes the PTX again and writes it to `gpu-cuda/ptx`; or, where it is only to be checked, compares it with what is there.
///
/// # Errors
/// Kernels that do not compile; files that cannot be read or written.
pub fn make(check: bool) -> Result<Outcome, String> {
    let compiler = match compiler() {
        Ok(path) => path,
        Err(why) => return Ok(Outcome::Missing(why)),
    };
    let (made, shipped) = (root().join("target/ptx"), root().join("gpu-cuda/ptx"));
    empty(&made)?;
    compile(&compiler, &root().join("gpu-cuda/kernels"), &made)?;
    let different = differences(&made, &shipped)?;
    if check && !different.is_empty() {
        return Ok(Outcome::Differs(different));
    }
    for name in different {
        let (from, to) = (made.join(&name), shipped.join(&name));
        let done = if from.exists() { std::fs::copy(&from, &to).map(|_| ()) } else { std::fs::remove_file(&to) };
        done.map_err(|e| format!("{}: {e}", to.display()))?;
    }
    Ok(Outcome::UpToDate)
}

/// Names of files that are in one folder alone, or not the same in both.
fn differences(a: &Path, b: &Path) -> Result<Vec<String>, String> {
    let [in_a, in_b] = [files(a, &["ptx"])?, files(b, &["ptx"])?];
    let mut names: Vec<&String> =
        in_a.iter().chain(&in_b).filter(|file| !(in_a.contains(file) && in_b.contains(file))).map(|(name, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names.into_iter().cloned().collect())
}

fn empty(folder: &Path) -> Result<(), String> {
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))
}

/// Installs the compiler's package below `target`, where it is not yet. Its library.
fn compiler() -> Result<PathBuf, String> {
    let folder = root().join("target/nvrtc").join(VERSION);
    let library = folder.join("nvidia/cuda_nvrtc/lib/libnvrtc.so.12");
    if library.exists() {
        return Ok(library);
    }
    empty(&folder)?;
    let requirements = folder.join("requirements.txt");
    let line = format!("nvidia-cuda-nvrtc-cu12=={VERSION} --hash=sha256:{HASH}\n");
    std::fs::write(&requirements, line).map_err(|e| format!("{}: {e}", requirements.display()))?;
    let mut pip = Command::new("python3");
    pip.args("-m pip install --quiet --no-deps --only-binary=:all: --require-hashes --disable-pip-version-check".split(' '));
    pip.arg("--target").arg(&folder).arg("--requirement").arg(&requirements);
    run(&mut pip)?;
    if library.exists() { Ok(library) } else { Err(format!("{} is not in the package", library.display())) }
}

fn compile(compiler: &Path, kernels: &Path, out: &Path) -> Result<(), String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/ptx/compile.py");
    run(Command::new("python3").arg(script).arg(compiler).arg(ARCHITECTURE).arg(kernels).arg(out))
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let out = command.stdin(Stdio::null()).output().map_err(|e| format!("{program}: {e}"))?;
    match out.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&out.stderr).trim().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_differ_are_named_in_either_direction() {
        let folder = root().join("target/xtask-tests/ptx");
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("a file");
        let [a, b] = ["a", "b"].map(|name| folder.join(name));
        for side in [&a, &b] {
            empty(side).expect("a folder");
        }
        let texts = [("a/same.ptx", "1"), ("b/same.ptx", "1"), ("a/changed.ptx", "1"), ("b/changed.ptx", "2")];
        for (name, text) in texts.into_iter().chain(["a/new.ptx", "b/gone.ptx", "a/other.txt"].map(|name| (name, "1"))) {
            write(name, text);
        }
        assert_eq!(differences(&a, &b), Ok(["changed.ptx", "gone.ptx", "new.ptx"].map(str::to_string).to_vec()));
        assert_eq!(differences(&a, &a), Ok(vec![]));
    }

    #[test]
    fn a_command_that_fails_says_what_it_said() {
        let why = run(Command::new("python3").args(["-c", "import sys; sys.exit('no such kernel')"]));
        assert_eq!(why, Err("no such kernel".to_string()));
    }
}
