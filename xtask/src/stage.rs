//! The table of stages: what is checked, with which commands, and what they need.

use crate::fuzz;
use crate::need::{self, Need};

/// One check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stage {
    /// Its name for `--only` and `XTASK_ALLOWED_SKIPS`.
    pub name: &'static str,
    /// What it checks.
    pub what: &'static str,
    /// Runs with `--extended` alone.
    pub extended: bool,
    /// Without these it is skipped.
    pub needs: Vec<Need>,
    /// Run one after another; the first that fails ends the stage.
    pub commands: Vec<Invocation>,
}

/// A command of a stage.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invocation {
    /// Program and arguments.
    pub words: Vec<String>,
    /// A variable of compiler flags that this one is added to.
    pub flags: Option<(&'static str, &'static str)>,
    /// A stand-in for the CUDA driver is built first, and found before any other.
    pub emulated: bool,
    /// Where it runs, below the root.
    pub folder: &'static str,
}

/// The stages of a backend, by the name that `--backend` takes.
pub const BACKENDS: [(&str, &[&str]); 3] = [("cpu", &["cpu"]), ("wgpu", &["wgpu", "wasm"]), ("cuda", &["cuda-emulated", "ptx"])];

/// Targets without an operating system that `blockllm` must build for: 32-bit words, 64-bit words, and a browser's.
const BARE_TARGETS: [&str; 3] = ["thumbv7em-none-eabihf", "x86_64-unknown-none", "wasm32-unknown-unknown"];

/// What stays here: the project's own programs. All other packages are for others to use.
const UNPUBLISHED: [&str; 3] = ["xtask", "blockllm-benches", "blockllm-train"];

/// Packages that are as demanding of the compiler as candle is.
const ON_CANDLE: [&str; 2] = ["blockllm-candle", "blockllm-train"];

impl Invocation {
    /// Words separated by blanks.
    fn new(line: &str, flags: Option<(&'static str, &'static str)>) -> Self {
        Self { words: line.split_whitespace().map(str::to_string).collect(), flags, emulated: false, folder: "." }
    }
}

/// Built a row at a time.
impl Stage {
    fn new(name: &'static str, what: &'static str) -> Self {
        Self { name, what, extended: false, needs: Vec::new(), commands: Vec::new() }
    }

    fn extended(self) -> Self {
        Self { extended: true, ..self }
    }

    fn needs(mut self, need: Need) -> Self {
        self.needs.push(need);
        self
    }

    fn runs(mut self, line: &str) -> Self {
        self.commands.push(Invocation::new(line, None));
        self
    }

    /// Runs a command in a folder, whose own configuration of cargo then counts.
    fn runs_in(mut self, folder: &'static str, line: &str) -> Self {
        self.commands.push(Invocation { folder, ..Invocation::new(line, None) });
        self
    }

    /// Runs a command that finds the stand-in for a CUDA driver.
    fn runs_emulated(mut self, line: &str) -> Self {
        self.commands.push(Invocation { emulated: true, ..Invocation::new(line, None) });
        self
    }

    /// Runs a command on that stand-in, in which the compiler adds checks of memory.
    fn runs_sanitized(mut self, line: &str) -> Self {
        let flags = Some(("RUSTFLAGS", "-Zsanitizer=address"));
        self.commands.push(Invocation { emulated: true, ..Invocation::new(line, flags) });
        self
    }

    /// Runs a command in which warnings are errors for the compiler that reads this variable.
    fn denies(mut self, variable: &'static str, line: &str) -> Self {
        self.commands.push(Invocation::new(line, Some((variable, "-D warnings"))));
        self
    }
}

/// The features of the package `blockllm`, of which every combination must build: those of its manifest but `default`.
fn features() -> Vec<&'static str> {
    let section = include_str!("../../core/Cargo.toml").split("\n[features]\n").nth(1).unwrap_or_default();
    let section = section.split("\n[").next().unwrap_or_default();
    let names = section.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split_once('=')).map(|(name, _)| name.trim());
    names.filter(|name| *name != "default").collect()
}

/// `--features` for each combination of features.
fn powerset(features: &[&str]) -> Vec<String> {
    let has = |bits: usize, i: usize| bits >> i & 1 == 1;
    let set = |bits| features.iter().enumerate().filter(move |(i, _)| has(bits, *i)).map(|(_, f)| *f);
    (0..1 << features.len()).map(|bits| format!("--features={}", set(bits).collect::<Vec<_>>().join(","))).collect()
}

/// Every bare target, without and with a heap.
fn no_std() -> Stage {
    let stage = Stage::new("no-std", "blockllm builds for bare metal and for browsers, without and with a heap");
    let stage = stage.needs(need::THUMB).needs(need::BARE_64).needs(need::WASM);
    BARE_TARGETS.iter().fold(stage, |stage, target| {
        let bare = format!("cargo build --package blockllm --no-default-features --target {target}");
        stage.denies("RUSTFLAGS", &bare).denies("RUSTFLAGS", &format!("{bare} --features=alloc"))
    })
}

/// All stages, cheap ones first; what takes long where it is asked for.
pub fn all(extended: bool) -> Vec<Stage> {
    let lint = "cargo clippy --package blockllm --no-default-features";
    let test = "cargo test --workspace --all-features --no-fail-fast";
    // Backends have stages of their own, which say what is missing.
    let others = BACKENDS.iter().map(|(name, _)| format!("--exclude blockllm-{name} ")).collect::<String>();
    let of = |backend: &str| format!("cargo test --package blockllm-{backend} --no-fail-fast --lib --tests --examples");
    let job = |backend: &str| format!("cargo test --package blockllm-train --test backends -- {backend}");
    let nightly = "rustup run nightly cargo";
    let unpublished = UNPUBLISHED.map(|name| format!("--exclude {name}")).join(" ");
    let ignored = if extended { "-- --include-ignored" } else { "" };
    let on_candle = ON_CANDLE.map(|name| format!("--exclude {name}")).join(" ");
    let oldest = concat!("rustup run ", env!("CARGO_PKG_RUST_VERSION"), " cargo check --workspace --all-features");
    let oldest_of_candle = ON_CANDLE.map(|name| format!("--package {name}")).join(" ");
    let combinations =
        Stage::new("features", "every combination of blockllm's features builds, and no lint warns").needs(need::CLIPPY);
    let mut stages = vec![
        Stage::new("formatting", "rustfmt would change nothing").needs(need::RUSTFMT).runs("cargo fmt --all --check"),
        no_std(),
        // Clippy denies warnings without RUSTFLAGS, which would have every dependency built once more.
        powerset(&features()).iter().fold(combinations, |stage, set| stage.runs(&format!("{lint} {set} -- -D warnings"))),
        Stage::new("clippy", "no lint warns, in any target")
            .needs(need::CLIPPY)
            .runs("cargo clippy --workspace --all-targets --all-features --keep-going -- -D warnings"),
        Stage::new("docs", "the documentation builds, and its links hold")
            .denies("RUSTDOCFLAGS", "cargo doc --workspace --all-features --no-deps --keep-going"),
        Stage::new("tests", "all tests but those of the backends below")
            .runs(&format!("{test} {others} --lib --bins --tests --examples {ignored}")),
        Stage::new("cpu", "the CPU backend against the reference").runs(&format!("{} {ignored}", of("cpu"))).runs(&job("cpu")),
        Stage::new("wgpu", "the wgpu backend against the reference, on whatever Vulkan driver is here")
            .needs(need::VULKAN)
            .runs(&format!("{} {ignored}", of("wgpu")))
            .runs(&job("wgpu")),
        Stage::new("wasm", "the wgpu backend builds for browsers")
            .needs(need::WASM)
            .runs("cargo check --package blockllm-wgpu --target wasm32-unknown-unknown --no-default-features --features webgpu"),
        Stage::new("cuda-emulated", "the CUDA backend against the reference; kernels and driver emulated on the CPU")
            .needs(need::CXX)
            .runs_emulated(&format!("{} {ignored}", of("cuda")))
            .runs_emulated(&job("cuda")),
        Stage::new("ptx", "the PTX that ships is what the pinned compiler makes of the kernels")
            .needs(need::PIP)
            .runs("cargo xtask ptx --check"),
        Stage::new("doctests", "the examples in the documentation").runs(&format!("{test} --doc")),
        Stage::new("firmware", "a microcontroller learns, under an emulator")
            .needs(need::RUSTFMT)
            .needs(need::CLIPPY)
            .needs(need::THUMB)
            .needs(need::QEMU)
            .runs_in("examples/firmware", "cargo fmt --check")
            .runs_in("examples/firmware", "cargo clippy --release -- -D warnings")
            .runs_in("examples/firmware", "cargo run --release"),
        Stage::new("fuzz-targets", "what fuzzes builds, and stands inputs that no fuzzer chose")
            .needs(need::RUSTFMT)
            .needs(need::CLIPPY)
            .runs_in("core/fuzz", "cargo fmt --check")
            .runs_in("core/fuzz", "cargo clippy --all-targets -- -D warnings")
            .runs_in("core/fuzz", "cargo test"),
        Stage::new("package", "what others would download can be packed, with all that its manifest names")
            .runs(&format!("cargo package --allow-dirty --no-verify --workspace {unpublished}")),
        // A package of an unpublished version is unpacked and built once, and then taken from cargo's home and from the target
        // folder: where this ran for an older commit, use a fresh target folder, and remove `registry/src/-*` from cargo's home.
        Stage::new("package-builds", "what others would download builds from what is in it, on its own")
            .extended()
            .runs(&format!("cargo package --allow-dirty --workspace {unpublished}")),
        Stage::new("release-tests", "all tests again, optimised").extended().runs(&format!("{test} --release")),
        Stage::new("oldest-rust", "the oldest Rust that is promised builds everything")
            .extended()
            .needs(need::OLDEST_RUST)
            .needs(need::OLDEST_RUST_OF_CANDLE)
            .runs(&format!("{oldest} {on_candle}"))
            .runs(&format!("rustup run 1.94 cargo check --all-features {oldest_of_candle}")),
        // Build scripts and macros are not of the target, and so not sanitized.
        Stage::new("sanitizer", "no test of the one package with unsafe code reaches memory that is not its own")
            .extended()
            .needs(need::NIGHTLY)
            .needs(need::CXX)
            .runs_sanitized(&format!(
                "env LSAN_OPTIONS=suppressions=../xtask/src/leaks.txt:print_suppressions=0 {nightly} test --package blockllm-cuda --lib \
                 --tests --no-fail-fast --target x86_64-unknown-linux-gnu"
            )),
        // Natively the mathematics is assembly, which cannot be interpreted; and records must be the same on a machine whose
        // numbers have their bytes the other way round.
        Stage::new("miri", "the engine's own tests interpreted, with no undefined behaviour, on a big-endian machine")
            .extended()
            .needs(need::NIGHTLY)
            .needs(need::MIRI)
            .runs(&format!("{nightly} miri test --package blockllm --all-features --lib --target s390x-unknown-linux-gnu")),
        fuzz::NEEDS
            .iter()
            .fold(Stage::new("fuzz", "no input is found that the engine does not stand"), |stage, need| stage.needs(*need))
            .extended()
            .runs("cargo xtask fuzz --seconds 60"),
    ];
    stages.retain(|s| extended || !s.extended);
    stages
}

/// The stages that the options ask for. Naming one of the long ones is asking for it.
pub fn chosen(extended: bool, only: &[String]) -> Vec<Stage> {
    let mut stages = all(extended);
    if !only.is_empty() {
        stages.extend(all(true).into_iter().filter(|s| s.extended && !extended));
        stages.retain(|s| only.iter().any(|o| o == s.name));
    }
    stages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(stages: &[Stage]) -> Vec<&str> {
        stages.iter().map(|s| s.name).collect()
    }

    #[test]
    fn only_keeps_the_order_of_the_table_and_reaches_long_stages() {
        let only = |list: &[&str]| chosen(false, &list.iter().map(|s| s.to_string()).collect::<Vec<_>>());
        assert_eq!(names(&only(&["clippy", "formatting"])), ["formatting", "clippy"]);
        assert_eq!(names(&only(&["oldest-rust"])), ["oldest-rust"]);
        assert_eq!(only(&[]), all(false));
    }

    #[test]
    fn extended_adds_stages_and_ignored_tests() {
        let (short, long) = (all(false), all(true));
        assert!(short.len() < long.len() && short.iter().all(|s| !s.extended));
        let tests = |stages: &[Stage]| stages.iter().find(|s| s.name == "tests").expect("a stage").commands[0].words.join(" ");
        assert!(!tests(&short).contains("--include-ignored") && tests(&long).contains("--include-ignored"));
    }

    #[test]
    fn every_combination_of_features_is_built_once() {
        let sets = powerset(&["a", "b", "c"]);
        assert_eq!(sets.len(), 8);
        assert!(sets.contains(&"--features=".to_string()) && sets.contains(&"--features=a,b,c".to_string()));
        assert!((1..8).all(|i| !sets[..i].contains(&sets[i])));
    }

    #[test]
    fn every_bare_target_is_built_without_and_with_a_heap() {
        let stage = no_std();
        for target in BARE_TARGETS {
            let lines = stage.commands.iter().map(|c| c.words.join(" ")).filter(|l| l.contains(&format!("--target {target}")));
            let heaps: Vec<bool> = lines.map(|l| l.ends_with("--features=alloc")).collect();
            assert_eq!(heaps, [false, true], "{target}");
            assert!(stage.needs.iter().any(|n| n.install.contains(&target)), "{target} is not set up");
        }
    }

    /// Every package but the project's own programs is packaged; a new one is, or is named here.
    #[test]
    fn what_is_published_is_what_does_not_say_otherwise() {
        let members = include_str!("../../Cargo.toml").split("members = [").nth(1).and_then(|r| r.split_once(']'));
        let (members, _) = members.expect("members");
        for folder in members.split(',').map(|m| m.trim().trim_matches('"')) {
            let path = crate::emulator::root().join(folder).join("Cargo.toml");
            let manifest = std::fs::read_to_string(&path).expect("a manifest");
            let own = UNPUBLISHED.iter().any(|name| manifest.contains(&format!("\nname = \"{name}\"\n")));
            assert_eq!(own, manifest.contains("\npublish = false\n"), "{folder}");
            for field in ["description = ", "readme = ", "keywords = ", "categories = ", "rust-version"] {
                assert!(own || manifest.contains(&format!("\n{field}")), "{folder}: {field}");
            }
            let beside = ["CHANGELOG.md", "README.md", "LICENSE-MIT", "LICENSE-APACHE"];
            assert!(own || beside.iter().all(|file| path.with_file_name(file).is_file()), "{folder}: one of {beside:?}");
        }
    }

    #[test]
    fn what_is_built_on_candle_promises_the_rust_that_is_checked() {
        let manifests = [include_str!("../../integrations/candle/Cargo.toml"), include_str!("../../examples/train/Cargo.toml")];
        for manifest in manifests {
            let version = manifest.lines().find_map(|l| l.strip_prefix("rust-version = \"")).expect("a version of its own");
            let name = format!("Rust {}", &version[..version.find('"').expect("quotes")]);
            assert_eq!(need::OLDEST_RUST_OF_CANDLE.name, name);
        }
    }

    #[test]
    fn the_features_are_all_that_the_manifest_names() {
        for known in ["alloc", "std", "safetensors"] {
            assert!(features().contains(&known), "{known}");
        }
        // Cargo's own view of the manifest.
        let words = ["metadata", "--no-deps", "--offline", "--format-version=1"];
        let out = std::process::Command::new(env!("CARGO")).args(words).current_dir(crate::emulator::root()).output();
        let metadata: serde_json::Value = serde_json::from_slice(&out.expect("metadata").stdout).expect("JSON");
        let package = metadata["packages"].as_array().into_iter().flatten().find(|p| p["name"] == "blockllm").expect("a package");
        let mut want: Vec<&str> = package["features"].as_object().expect("features").keys().map(String::as_str).collect();
        want.retain(|name| *name != "default");
        let mut got = features();
        got.sort_unstable();
        assert_eq!(got, want);
    }
}
