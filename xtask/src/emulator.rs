//! Builds the stand-in for a CUDA driver that gpu-cuda's tests run on: its sources in `gpu-cuda/emulation`, and the kernels
//! themselves, compiled for the CPU.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Contraction and reordering would give other bits than the device; and kernels read memory as the type they are told.
const FLAGS: &str = "-std=c++20 -O2 -ffp-contract=off -fno-strict-aliasing -fvisibility=hidden -fPIC -shared -pthread \
                     -U_FORTIFY_SOURCE -Wall -Wextra -Werror";

/// The folder of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_path_buf()
}

/// Names and texts of a folder's files with these extensions, by name.
///
/// # Errors
/// Which file cannot be read.
pub fn files(folder: &Path, extensions: &[&str]) -> Result<Vec<(String, String)>, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|e| extensions.iter().any(|known| e == *known)) {
            let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            out.push((name, text));
        }
    }
    out.sort_unstable();
    Ok(out)
}

/// Builds the stand-in, where its sources have changed. The folder to put on `LD_LIBRARY_PATH`.
///
/// # Errors
/// Why it cannot be built.
pub fn build() -> Result<PathBuf, String> {
    let (package, out) = (root().join("gpu-cuda"), root().join("target/cuda-emulated"));
    let kernels = files(&package.join("kernels"), &["cu", "cuh"])?;
    let emulation = files(&package.join("emulation"), &["cpp", "h"])?;
    let (sources, entries) = (includes(&kernels), entries(&files(&package.join("ptx"), &["ptx"])?));
    let stamp = format!("{FLAGS}\n{sources}\n{entries}\n{emulation:?}\n{kernels:?}\n");
    let (library, built_from) = (out.join("libcuda.so.1"), out.join("built_from.txt"));
    if library.exists() && std::fs::read_to_string(&built_from).is_ok_and(|text| text == stamp) {
        return Ok(out);
    }
    std::fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    let write = |path: &Path, text: &str| std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()));
    write(&out.join("sources.inc"), &sources)?;
    write(&out.join("entries.inc"), &entries)?;
    compile(&package, &emulation, &out, &library)?;
    write(&built_from, &stamp)?;
    Ok(out)
}

/// To a file beside it first, so that a test that is running keeps the library it has.
fn compile(package: &Path, emulation: &[(String, String)], out: &Path, library: &Path) -> Result<(), String> {
    let new = out.join(format!("libcuda.so.{}", std::process::id()));
    let mut command = Command::new("g++");
    command.args(FLAGS.split_whitespace()).arg("-I").arg(out);
    command.arg("-I").arg(package.join("kernels")).arg("-o").arg(&new);
    let units = emulation.iter().filter(|(name, _)| name.ends_with(".cpp"));
    command.args(units.map(|(name, _)| package.join("emulation").join(name)));
    let done = command.stdin(Stdio::null()).output().map_err(|e| format!("g++: {e}"))?;
    if !done.status.success() {
        let _ = std::fs::remove_file(&new);
        return Err(format!("the stand-in for a CUDA driver does not compile:\n{}", String::from_utf8_lossy(&done.stderr)));
    }
    std::fs::rename(&new, library).map_err(|e| format!("{}: {e}", library.display()))
}

fn includes(kernels: &[(String, String)]) -> String {
    let units = kernels.iter().filter(|(name, _)| name.ends_with(".cu"));
    units.map(|(name, _)| format!("#include \"{name}\"\n")).collect()
}

/// The kernels that the PTX defines: what it does not is not found on the stand-in either.
fn entries(ptx: &[(String, String)]) -> String {
    let names = ptx.iter().flat_map(|(_, text)| text.split(".entry ").skip(1)).filter_map(|rest| rest.split_once('('));
    names.map(|(name, _)| format!("KERNEL({})\n", name.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_those_of_the_ptx() {
        let file = |text: &str| ("a.ptx".to_string(), text.to_string());
        let ptx = [file("// .entry\n.visible .entry one(\n\t.param\n)\n.visible .entry two_f32(\n)"), file("nothing")];
        assert_eq!(entries(&ptx[..1]).lines().last(), Some("KERNEL(two_f32)"));
        assert!(entries(&ptx).contains("KERNEL(one)\n") && entries(&ptx[1..]).is_empty());
    }

    #[test]
    fn sources_alone_are_included() {
        let file = |name: &str| (name.to_string(), String::new());
        assert_eq!(includes(&[file("a.cu"), file("b.cuh")]), "#include \"a.cu\"\n");
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let why = files(Path::new("no/such/folder"), &["cu"]).expect_err("it is not there");
        assert!(why.contains("no/such/folder"), "{why}");
    }
}
