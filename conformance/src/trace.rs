//! One trace of `engine.json`, as the engine's own types.

use crate::golden::from_bits;
use crate::host::Host;
use crate::recipe::{Mode, chain, values};
use blockllm::{
    Across, BlockSpec, Config, DType, Decay, Fill, First, Inactive, MaskKind, Missing, Order, Policy, ProbeOrder, ScoreKind,
    Step, Trigger, VisitBias,
};
use serde_json::Value;

/// A block of a trace: how it is registered, and what its gradients are like.
#[derive(Clone, Debug)]
pub struct Block {
    /// As the engine gets it.
    pub spec: BlockSpec,
    gblock: u64,
    gexp: i64,
    gmode: Mode,
}

/// A whole trace.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Its name.
    pub name: String,
    /// Its number in the file.
    pub number: u64,
    seed: u64,
    /// As the engine gets it.
    pub config: Config,
    /// By index.
    pub blocks: Vec<Block>,
    /// Events, in order.
    pub events: Vec<Value>,
    /// What an independent model did at each.
    pub records: Vec<Value>,
    /// Save after these steps, load, go on.
    pub resume_after: Vec<u64>,
}

fn text(v: &Value) -> &str {
    v.as_str().unwrap_or_else(|| panic!("{v} is no text"))
}

fn number(v: &Value) -> u64 {
    v.as_u64().unwrap_or_else(|| panic!("{v} is no number"))
}

fn list(v: &Value) -> Vec<Value> {
    v.as_array().cloned().unwrap_or_default()
}

/// The engine's configuration of a trace's.
pub fn config(c: &Value) -> Config {
    Config {
        policy: policy(&c["policy"]),
        first: match text(&c["first"]) {
            "FullGradient" => First::FullGradient,
            "Scan" => First::Scan,
            _ => First::Random,
        },
        sparsity: from_bits(&c["sparsity"]),
        patience: number(&c["m"]) as usize,
        seed: number(&c["seed"]),
        score: match text(&c["score"]) {
            "GradientRms" => ScoreKind::GradientRms,
            "ProcessedNorm" => ScoreKind::ProcessedNorm,
            _ => ScoreKind::GradientNorm,
        },
        probe_order: match text(&c["probes"]) {
            "Random" => ProbeOrder::Random,
            _ => ProbeOrder::RoundRobin,
        },
        probes_per_step: Some(number(&c["p"]) as usize).filter(|&p| p > 0),
        visit_bias: match text(&c["bias"]) {
            "Exponential" => VisitBias::Exponential,
            "None" => VisitBias::None,
            _ => VisitBias::Ratio,
        },
        fill: match text(&c["fill"]) {
            "Uniform" => Fill::Uniform,
            "Whole" => Fill::Whole,
            _ => Fill::LastMasked,
        },
        mask: match number(&c["tile"]) as usize {
            0 => MaskKind::Coordinate,
            t => MaskKind::Tile(t),
        },
        across: if text(&c["across"]) == "Carry" { Across::Carry } else { Across::Reset },
        inactive: if c["inactive"].is_null() { Inactive::Frozen } else { Inactive::SignSgd(from_bits(&c["inactive"])) },
        decay: if text(&c["decay"]) == "L2" { Decay::L2 } else { Decay::Decoupled },
        betas: [from_bits(&c["beta1"]), from_bits(&c["beta2"])],
        eps: from_bits(&c["eps"]),
        weight_decay: from_bits(&c["wd"]),
        clip: Some(&c["clip"]).filter(|v| !v.is_null()).map(from_bits),
        guard_limit: number(&c["guard_limit"]) as u32,
        missing: Missing::Error,
        immediate: false,
    }
}

fn policy(p: &Value) -> Policy {
    let period = || number(&p["period"]);
    match text(&p["kind"]) {
        "Full" => Policy::Full,
        "Cyclic" => Policy::Cyclic {
            period: period(),
            order: match text(&p["order"]) {
                "Ascending" => Order::Ascending,
                "Descending" => Order::Descending,
                _ => Order::Random,
            },
        },
        "Lisa" => Policy::Lisa { period: period(), units: number(&p["gamma"]) as u32 },
        "HalfFineTuning" => Policy::HalfFineTuning { period: period() },
        "RandomBlocks" => Policy::RandomBlocks { period: period() },
        _ => Policy::BlockLlm(p["period"].as_u64().map_or(Trigger::Patience, Trigger::Period)),
    }
}

/// The blocks of a trace's configuration.
pub fn blocks(c: &Value) -> Vec<Block> {
    let block = |(i, b): (usize, &Value)| {
        let mut spec = BlockSpec::new(format!("block {i}"), [1, number(&b["n"]) as usize]);
        spec.dtype = dtype(&b["type"]);
        spec.group = b["group"].as_str().map(str::to_string);
        spec.always_active = b["always"].as_bool().unwrap_or(false);
        spec.frozen = b["frozen"].as_bool().unwrap_or(false);
        spec = spec.scales(from_bits(&b["lr_scale"]), from_bits(&b["wd_scale"]));
        spec.layer = b["layer"].as_u64().map(|layer| layer as u32);
        spec.category = b["category"].as_str().map(str::to_string);
        let gmode = match text(&b["gmode"]) {
            "ties" => Mode::Ties,
            "zero" => Mode::Zero,
            _ => Mode::Normal,
        };
        let gblock = b["gblock"].as_u64().unwrap_or(i as u64);
        Block { spec, gblock, gexp: b["gexp"].as_i64().unwrap_or(0), gmode }
    };
    list(&c["blocks"]).iter().enumerate().map(block).collect()
}

fn dtype(v: &Value) -> DType {
    if text(v) == "f64" { DType::F64 } else { DType::F32 }
}

impl Trace {
    /// Reads one trace; `seed` is the file's.
    pub fn new(trace: &Value, seed: u64) -> Self {
        Self {
            name: text(&trace["name"]).to_string(),
            number: number(&trace["trace"]),
            seed,
            config: config(&trace["config"]),
            blocks: blocks(&trace["config"]),
            events: list(&trace["events"]),
            records: list(&trace["records"]),
            resume_after: list(&trace["resume_after"]).iter().map(number).collect(),
        }
    }

    /// As the engine gets them.
    pub fn specs(&self) -> Vec<BlockSpec> {
        self.blocks.iter().map(|b| b.spec.clone()).collect()
    }

    /// The parameters before the first step.
    pub fn parameters(&self) -> Vec<Host> {
        let base = |i: usize| chain(&[self.seed, 2, self.number, i as u64]);
        let one = |(i, b): (usize, &Block)| values(base(i), b.spec.len(), b.spec.dtype, Mode::Normal, 0);
        self.blocks.iter().enumerate().map(one).collect()
    }

    /// The host numbers of a step.
    pub fn step(&self, event: &Value) -> Step {
        let loss = Some(&event["loss"]).filter(|v| !v.is_null()).map(from_bits);
        let micro_batches = micro_batches(event);
        // A pass before the first step has no learning rate.
        let lr = if event["lr"].is_null() { 0.0 } else { from_bits(&event["lr"]) };
        Step { lr, loss, inv_loss_scale: from_bits(&event["inv"]), micro_batches }
    }

    /// The gradients of a step, injections included, by micro-batch and block.
    pub fn gradients(&self, event: &Value) -> Vec<Vec<Host>> {
        let step = number(&event["step"]);
        // A repeated pass has gradients of its own.
        let repeat = event["repeat"].as_u64().unwrap_or(0) as u32;
        let of = |micro: u32| self.blocks.iter().map(|b| self.gradient(step, micro + repeat, b)).collect();
        let mut out: Vec<Vec<Host>> = (0..micro_batches(event)).map(of).collect();
        for inject in list(&event["inject"]) {
            let [micro, block, coordinate] = [0, 1, 2].map(|i| number(&inject[i]) as usize);
            out[micro][block].inject(coordinate, number(&inject[3]));
        }
        out
    }

    fn gradient(&self, step: u64, micro: u32, b: &Block) -> Host {
        let drift = chain(&[self.seed, 4, self.number, step / 8, b.gblock]) % 5;
        let base = chain(&[self.seed, 1, self.number, step, u64::from(micro), b.gblock]);
        values(base, b.spec.len(), b.spec.dtype, b.gmode, b.gexp + drift as i64 - 2)
    }
}

fn micro_batches(event: &Value) -> u32 {
    event["micro"].as_u64().unwrap_or(1) as u32
}
