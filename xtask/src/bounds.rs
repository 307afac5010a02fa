//! `cargo xtask bounds`: what the main job must reach, measured on three seeds.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SEEDS: [u32; 3] = [0, 1, 2];

/// One seed's two runs, as `summary.json` has them.
struct Pair {
    blockllm: Value,
    adamw: Value,
}

fn number(run: &Value, field: &str) -> f64 {
    run[field].as_f64().unwrap_or(f64::NAN)
}

/// A bound, what was measured, and whether it holds.
struct Bound {
    what: &'static str,
    measured: f64,
    limit: f64,
    at_least: bool,
}

impl Bound {
    // A number that could not be read is NaN, which is within no bound.
    fn holds(&self) -> bool {
        if self.at_least { self.measured >= self.limit } else { self.measured <= self.limit }
    }
}

fn bounds(pairs: &[Pair]) -> Vec<Bound> {
    let over = |f: &dyn Fn(&Pair) -> f64| pairs.iter().map(f).collect::<Vec<_>>();
    let share = |p: &Pair, field: &str| number(&p.blockllm, field) / number(&p.adamw, field);
    let of = |p: &Pair, part: &str, all: &str| number(&p.blockllm, part) / number(&p.blockllm, all);
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    let largest = |values: Vec<f64>| values.into_iter().fold(f64::NEG_INFINITY, |a, b| if b.is_nan() { b } else { a.max(b) });
    let least = |values: Vec<f64>| values.into_iter().fold(f64::INFINITY, |a, b| if b.is_nan() { b } else { a.min(b) });
    let at_most = |what, measured, limit| Bound { what, measured, limit, at_least: false };
    let at_least = |what, measured, limit| Bound { what, measured, limit, at_least: true };
    let loss = |run: &Value| number(run, "val_loss_after");
    vec![
        at_most("optimizer state, of AdamW's", largest(over(&|p| share(p, "optimizer_state_bytes"))), 0.25),
        at_most("peak of gradients, of AdamW's", largest(over(&|p| share(p, "gradient_bytes_peak"))), 0.35),
        at_least("decisions", least(over(&|p| number(&p.blockllm, "reselections"))), 5.0),
        at_least("blocks ever active, of all", least(over(&|p| of(p, "blocks_ever_active", "blocks_total"))), 0.5),
        at_least("weights ever active, of all", least(over(&|p| of(p, "params_ever_active", "params_total"))), 0.6),
        at_most("AdamW's loss, mean, nats a byte", mean(over(&|p| loss(&p.adamw))), 2.30),
        at_most("BlockLLM's loss above AdamW's, mean", mean(over(&|p| loss(&p.blockllm) - loss(&p.adamw))), 0.03),
    ]
}

fn run(seed: u32, folder: &Path) -> Result<Pair, String> {
    let (seed, out) = (seed.to_string(), folder.to_string_lossy().into_owned());
    let words = ["run", "--release", "--package", "blockllm-train", "--", "--seed", &seed, "--out", &out];
    let status = Command::new("cargo").args(words).stdin(Stdio::null()).status().map_err(|e| format!("cargo: {e}"))?;
    if !status.success() {
        return Err(format!("the run with seed {seed} ended with {status}"));
    }
    let path = folder.join("summary.json");
    let text = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let summary: Value = serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    let of = |method: &str| {
        let mut runs = summary["runs"].as_array().into_iter().flatten();
        runs.find(|r| r["method"] == method).cloned().ok_or_else(|| format!("{}: no run of {method}", path.display()))
    };
    Ok(Pair { blockllm: of("blockllm")?, adamw: of("adamw")? })
}

/// Runs the main job with each seed into new folders below `target/bounds`, and prints bound by bound what it reached.
/// Whether all hold.
///
/// # Errors
/// A run that fails, or leaves no summary.
pub fn check() -> Result<bool, String> {
    let folder = PathBuf::from("target/bounds");
    // Of an earlier check; the runs' own folders must be new.
    let _ = std::fs::remove_dir_all(&folder);
    let pairs: Vec<Pair> = SEEDS.iter().map(|s| run(*s, &folder.join(format!("seed-{s}")))).collect::<Result<_, _>>()?;
    println!("\n{:46}seed  BlockLLM     AdamW", "validation loss, nats a byte");
    for (seed, p) in SEEDS.iter().zip(&pairs) {
        println!("{seed:>50}{:>10.4}{:>10.4}", number(&p.blockllm, "val_loss_after"), number(&p.adamw, "val_loss_after"));
    }
    println!("\n{:40}  measured  limit", "bound, worst seed or mean of all");
    let mut all = true;
    for b in bounds(&pairs) {
        let (sign, verdict) = (if b.at_least { ">=" } else { "<=" }, if b.holds() { "" } else { "  NOT REACHED" });
        println!("{:40}{:>10.4}  {sign} {}{verdict}", b.what, b.measured, b.limit);
        all &= b.holds();
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pair(state: f64, above: f64) -> Pair {
        let run = |state, loss| {
            json!({ "optimizer_state_bytes": state, "gradient_bytes_peak": state, "val_loss_after": loss, "reselections": 20,
                    "blocks_ever_active": 40, "blocks_total": 57, "params_ever_active": 9, "params_total": 10 })
        };
        Pair { blockllm: run(state, 2.0 + above), adamw: run(1.0, 2.0) }
    }

    #[test]
    fn the_worst_seed_counts_for_memory_and_the_mean_for_the_loss() {
        let broken = |pairs: &[Pair]| bounds(pairs).iter().filter(|b| !b.holds()).map(|b| b.what).collect::<Vec<_>>();
        assert!(broken(&[pair(0.2, 0.05), pair(0.2, -0.05)]).is_empty());
        assert_eq!(broken(&[pair(0.2, 0.0), pair(0.3, 0.0)]), ["optimizer state, of AdamW's"]);
        assert_eq!(broken(&[pair(0.2, 0.05), pair(0.2, 0.02)]), ["BlockLLM's loss above AdamW's, mean"]);
    }

    #[test]
    fn a_number_that_is_missing_is_within_no_bound() {
        let empty = || Pair { blockllm: json!({}), adamw: json!({}) };
        assert!(bounds(&[pair(0.2, 0.0), empty()]).iter().all(|b| !b.holds()));
    }
}
