//! What a stage needs beyond cargo itself: how it is found, how it is installed.

use std::path::Path;
use std::process::{Command, Stdio};

/// One thing that may be missing. To add one (a rustup target, an apt or pip package), add a constant here and name it in
/// the stage's needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Need {
    /// What to call it.
    pub name: &'static str,
    /// How it shows that it is here.
    pub shown: Shown,
    /// The command that installs it.
    pub install: &'static [&'static str],
}

/// How a thing shows that it is here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shown {
    /// This command succeeds.
    Succeeds(&'static [&'static str]),
    /// This command prints the path of a folder that exists.
    Folder(&'static [&'static str]),
    /// One of these folders holds a file.
    FileIn(&'static [&'static str]),
}

/// `cargo fmt`.
pub const RUSTFMT: Need = Need {
    name: "rustfmt",
    shown: Shown::Succeeds(&["cargo", "fmt", "--version"]),
    install: &["rustup", "component", "add", "rustfmt"],
};

/// `cargo clippy`.
pub const CLIPPY: Need = Need {
    name: "clippy",
    shown: Shown::Succeeds(&["cargo", "clippy", "--version"]),
    install: &["rustup", "component", "add", "clippy"],
};

/// The bare-metal target of the no_std builds. Asked of rustc, so that it is found without rustup too.
pub const THUMB: Need = Need {
    name: "target thumbv7em-none-eabihf",
    shown: Shown::Folder(&["rustc", "--print", "target-libdir", "--target", "thumbv7em-none-eabihf"]),
    install: &["rustup", "target", "add", "thumbv7em-none-eabihf"],
};

/// The oldest compiler that the workspace promises to build with.
pub const OLDEST_RUST: Need = Need {
    name: concat!("Rust ", env!("CARGO_PKG_RUST_VERSION")),
    shown: Shown::Succeeds(&["rustup", "run", env!("CARGO_PKG_RUST_VERSION"), "rustc", "--version"]),
    install: &["rustup", "toolchain", "install", env!("CARGO_PKG_RUST_VERSION"), "--profile", "minimal"],
};

/// The same of what is built on candle. A test holds it to their manifests.
pub const OLDEST_RUST_OF_CANDLE: Need = Need {
    name: "Rust 1.94",
    shown: Shown::Succeeds(&["rustup", "run", "1.94", "rustc", "--version"]),
    install: &["rustup", "toolchain", "install", "1.94", "--profile", "minimal"],
};

/// The target of the check that gpu-wgpu builds for browsers.
pub const WASM: Need = Need {
    name: "target wasm32-unknown-unknown",
    shown: Shown::Folder(&["rustc", "--print", "target-libdir", "--target", "wasm32-unknown-unknown"]),
    install: &["rustup", "target", "add", "wasm32-unknown-unknown"],
};

/// Bare metal with 64-bit words: the other side of what a word's size may change.
pub const BARE_64: Need = Need {
    name: "target x86_64-unknown-none",
    shown: Shown::Folder(&["rustc", "--print", "target-libdir", "--target", "x86_64-unknown-none"]),
    install: &["rustup", "target", "add", "x86_64-unknown-none"],
};

/// The compiler that fuzzing and sanitizers need.
pub const NIGHTLY: Need = Need {
    name: "nightly Rust",
    shown: Shown::Succeeds(&["rustup", "run", "nightly", "rustc", "--version"]),
    install: &["rustup", "toolchain", "install", "nightly", "--profile", "minimal"],
};

/// The interpreter that notices undefined behaviour, and the standard library's sources, which it interprets.
pub const MIRI: Need = Need {
    name: "miri",
    shown: Shown::Succeeds(&[
        "sh",
        "-c",
        "rustup run nightly cargo miri --version && test -d \"$(rustup run nightly rustc --print sysroot)/lib/rustlib/src/rust\"",
    ]),
    install: &["rustup", "component", "add", "--toolchain", "nightly", "miri", "rust-src"],
};

/// Builds the fuzz targets and runs them.
pub const CARGO_FUZZ: Need = Need {
    name: "cargo-fuzz",
    shown: Shown::Succeeds(&["cargo", "fuzz", "--version"]),
    install: &["cargo", "install", "--locked", "cargo-fuzz"],
};

/// Any Vulkan driver; the one that is installed is a software driver.
pub const VULKAN: Need = Need {
    name: "a Vulkan driver",
    shown: Shown::FileIn(&["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d"]),
    install: &["sh", "-c", "apt-get update -q && apt-get install -qy --no-install-recommends mesa-vulkan-drivers libvulkan1"],
};

/// The compiler that makes the stand-in for a CUDA driver.
pub const CXX: Need = Need {
    name: "g++",
    shown: Shown::Succeeds(&["g++", "--version"]),
    install: &["sh", "-c", "apt-get update -q && apt-get install -qy --no-install-recommends g++"],
};

/// What the firmware runs on.
pub const QEMU: Need = Need {
    name: "qemu-system-arm",
    shown: Shown::Succeeds(&["qemu-system-arm", "--version"]),
    install: &["sh", "-c", "apt-get update -q && apt-get install -qy --no-install-recommends qemu-system-arm"],
};

/// What fetches the compiler that makes the PTX.
pub const PIP: Need = Need {
    name: "pip",
    shown: Shown::Succeeds(&["python3", "-m", "pip", "--version"]),
    install: &["sh", "-c", "apt-get update -q && apt-get install -qy --no-install-recommends python3-pip"],
};

impl Need {
    /// Whether it is here. Installs nothing.
    pub fn is_here(&self) -> bool {
        match self.shown {
            Shown::Succeeds(command) => output(command).is_ok(),
            Shown::Folder(command) => output(command).is_ok_and(|path| Path::new(path.trim()).is_dir()),
            Shown::FileIn(folders) => folders.iter().any(|f| std::fs::read_dir(f).is_ok_and(|mut files| files.next().is_some())),
        }
    }

    /// Installs it.
    ///
    /// # Errors
    /// One line on what went wrong.
    pub fn install(&self) -> Result<(), String> {
        output(self.install)?;
        if self.is_here() { Ok(()) } else { Err("it was installed and is not found".to_string()) }
    }
}

/// What a command prints; where it fails, the line that says why.
fn output(command: &[&str]) -> Result<String, String> {
    let (program, arguments) = (command[0], &command[1..]);
    // A missing toolchain is an answer here, no reason to download one.
    let mut command = Command::new(program);
    command.args(arguments).envs([("RUSTUP_AUTO_INSTALL", "0"), ("RUST_BACKTRACE", "0")]).stdin(Stdio::null());
    let out = command.output().map_err(|e| format!("{program}: {e}"))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    let error = said.lines().find(|l| l.starts_with("error"));
    let line = error.or_else(|| said.lines().rev().find(|l| !l.trim().is_empty()));
    Err(line.map_or_else(|| format!("{program}: {}", out.status), str::to_string))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(shown: Shown, install: &'static [&'static str]) -> Need {
        Need { name: "a thing", shown, install }
    }

    #[test]
    fn what_is_missing_is_told_from_what_is_here() {
        assert!(need(Shown::Succeeds(&["rustc", "--version"]), &[]).is_here());
        assert!(!need(Shown::Succeeds(&["rustc", "--no-such-option"]), &[]).is_here());
        assert!(!need(Shown::Succeeds(&["no-such-program"]), &[]).is_here());
        assert!(need(Shown::Folder(&["rustc", "--print", "sysroot"]), &[]).is_here());
        assert!(!need(Shown::Folder(&["rustc", "--version"]), &[]).is_here());
        assert!(need(Shown::FileIn(&["no-such-folder", concat!(env!("CARGO_MANIFEST_DIR"), "/src")]), &[]).is_here());
        assert!(!need(Shown::FileIn(&["no-such-folder"]), &[]).is_here());
    }

    #[test]
    fn what_cannot_be_installed_says_why_in_one_line() {
        let absent = Shown::Succeeds(&["no-such-program"]);
        for install in [&["no-such-installer"] as &[_], &["rustc", "--no-such-option"], &["rustc", "--version"]] {
            let why = need(absent, install).install().expect_err("it cannot be here");
            assert!(!why.is_empty() && !why.contains('\n'), "{why}");
        }
    }
}
