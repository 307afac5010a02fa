//! The table of stages: what is checked, with which commands, and what they need.

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

/// The features of the package `blockllm`, of which every combination must build.
const FEATURES: [&str; 3] = ["alloc", "std", "safetensors"];

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

    /// Runs a command in which warnings are errors for the compiler that reads this variable.
    fn denies(mut self, variable: &'static str, line: &str) -> Self {
        self.commands.push(Invocation::new(line, Some((variable, "-D warnings"))));
        self
    }
}

/// `--features` for each combination of features.
fn powerset() -> Vec<String> {
    let has = |bits: usize, i: usize| bits >> i & 1 == 1;
    let set = |bits| FEATURES.iter().enumerate().filter(move |(i, _)| has(bits, *i)).map(|(_, f)| *f);
    (0..1 << FEATURES.len()).map(|bits| format!("--features={}", set(bits).collect::<Vec<_>>().join(","))).collect()
}

/// All stages, cheap ones first; what takes long where it is asked for.
pub fn all(extended: bool) -> Vec<Stage> {
    let bare = "cargo build --package blockllm --no-default-features --target thumbv7em-none-eabihf";
    let lint = "cargo clippy --package blockllm --no-default-features";
    let test = "cargo test --workspace --all-features --no-fail-fast";
    // Backends have stages of their own, which say what is missing.
    let others = BACKENDS.iter().map(|(name, _)| format!("--exclude blockllm-{name} ")).collect::<String>();
    let of = |backend: &str| format!("cargo test --package blockllm-{backend} --no-fail-fast --lib --tests --examples");
    let job = |backend: &str| format!("cargo test --package blockllm-train --test backends -- {backend}");
    let ignored = if extended { "-- --include-ignored" } else { "" };
    let oldest = concat!("rustup run ", env!("CARGO_PKG_RUST_VERSION"), " cargo check --workspace --all-features");
    let features =
        Stage::new("features", "every combination of blockllm's features builds, and no lint warns").needs(need::CLIPPY);
    let mut stages = vec![
        Stage::new("formatting", "rustfmt would change nothing").needs(need::RUSTFMT).runs("cargo fmt --all --check"),
        Stage::new("no-std", "blockllm builds for bare metal, without and with a heap")
            .needs(need::THUMB)
            .denies("RUSTFLAGS", bare)
            .denies("RUSTFLAGS", &format!("{bare} --features=alloc")),
        // Clippy denies warnings without RUSTFLAGS, which would have every dependency built once more.
        powerset().iter().fold(features, |stage, set| stage.runs(&format!("{lint} {set} -- -D warnings"))),
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
        Stage::new("release-tests", "all tests again, optimised").extended().runs(&format!("{test} --release")),
        Stage::new("oldest-rust", "the oldest Rust that is promised builds everything")
            .extended()
            .needs(need::OLDEST_RUST)
            .runs(oldest),
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
        let sets = powerset();
        assert_eq!(sets.len(), 8);
        assert!(sets.contains(&"--features=".to_string()) && sets.contains(&"--features=alloc,std,safetensors".to_string()));
        assert!((1..8).all(|i| !sets[..i].contains(&sets[i])));
    }

    #[test]
    fn the_features_are_those_of_the_package() {
        let manifest = include_str!("../../core/Cargo.toml");
        let section = manifest.split("[features]").nth(1).and_then(|rest| rest.split("\n[").next()).expect("features");
        let mut found: Vec<&str> = section.lines().filter_map(|l| l.split_once(" = ")).map(|(name, _)| name).collect();
        found.retain(|f| *f != "default" && !f.starts_with('#'));
        let mut known = FEATURES.to_vec();
        found.sort_unstable();
        known.sort_unstable();
        assert_eq!(found, known);
    }
}
