//! The problem of the whole runs: some blocks of every kind, gradients that are functions of step and block, losses that
//! fall and rise, and a schedule of what may go wrong.

use crate::host::Host;
use crate::recipe::{Mode, chain, mix, values};
use blockllm::{Across, BlockSpec, Config, DType, Decay, Fill, Inactive, MaskKind, Policy, ScoreKind, Step, Trigger, VisitBias};

/// Steps of a run.
pub const STEPS: u64 = 60;

/// One run: how it is configured, and what its tensors are.
#[derive(Clone, Debug)]
pub struct Problem {
    /// For messages.
    pub name: String,
    /// The engine's.
    pub config: Config,
    /// Blocks, in order.
    pub specs: Vec<BlockSpec>,
    /// Micro-batches of each step.
    pub micro_batches: u32,
}

const SIZES: [usize; 8] = [640, 33, 1500, 512, 97, 2049, 20, 255];

fn specs(dtypes: &[DType]) -> Vec<BlockSpec> {
    let spec = |(i, n): (usize, &usize)| {
        let spec = BlockSpec::new(format!("block {i}"), [1, *n]).dtype(dtypes[i % dtypes.len()]);
        match i {
            1 | 4 => spec.group("pair").scales(0.5, 2.0),
            6 => spec.always_active(),
            _ => spec,
        }
    };
    SIZES.iter().enumerate().map(spec).collect()
}

/// The runs for blocks of these types, mixed: each policy choice that a backend can tell apart at least once.
pub fn problems(dtypes: &[DType]) -> Vec<Problem> {
    let new = |name: &str, config: Config, micro_batches| Problem {
        name: format!("{name}, {}", dtypes.iter().map(|d| d.name()).collect::<Vec<_>>().join("+")),
        config: Config { seed: 7, guard_limit: 2, patience: 4, ..config },
        specs: specs(dtypes),
        micro_batches,
    };
    let period = |k| Policy::BlockLlm(Trigger::Period(k));
    let base = Config { policy: period(5), ..Config::default() };
    let paper = Config { fill: Fill::LastMasked, visit_bias: VisitBias::Ratio, ..Config::published_code() };
    vec![
        new("default", Config { clip: Some(2.0), ..base.clone() }, 1),
        new("paper", Config { sparsity: 0.5, clip: Some(0.5), weight_decay: 0.1, ..paper.clone() }, 1),
        new("accumulation and clip", Config { clip: Some(1.0), visit_bias: VisitBias::Exponential, ..base.clone() }, 3),
        new("tiles", Config { mask: MaskKind::Tile(24), fill: Fill::Uniform, clip: Some(1.0), ..base.clone() }, 2),
        new(
            "L2, frozen, carry",
            Config { inactive: Inactive::Frozen, decay: Decay::L2, weight_decay: 0.05, sparsity: 0.6, ..base.clone() },
            2,
        ),
        new(
            "processed gradients",
            Config { score: ScoreKind::ProcessedNorm, fill: Fill::Uniform, policy: period(6), sparsity: 0.4, ..paper },
            1,
        ),
        new("reset", Config { across: Across::Reset, inactive: Inactive::SignSgd(0.1), clip: Some(3.0), ..base.clone() }, 1),
        new("immediate", Config { immediate: true, fill: Fill::Uniform, sparsity: 0.4, ..base.clone() }, 1),
        new(
            "immediate, tiles, reset",
            Config { mask: MaskKind::Tile(8), across: Across::Reset, immediate: true, ..base.clone() },
            1,
        ),
        new(
            "immediate, processed gradients",
            Config {
                score: ScoreKind::ProcessedNorm,
                fill: Fill::Uniform,
                immediate: true,
                inactive: Inactive::Frozen,
                ..base.clone()
            },
            1,
        ),
        new("full", Config { clip: Some(1.0), weight_decay: 0.01, ..Config::adamw() }, 2),
    ]
}

impl Problem {
    /// Whether gradients of this step hold NaNs: steps of a set that goes on, and two that follow a decision.
    fn is_wild(step: u64) -> bool {
        matches!(step, 8 | 9 | 26 | 46)
    }

    /// A block's gradient is f32 where an odd block's parameter is a half type.
    fn gradient_type(&self, block: usize) -> DType {
        match self.specs[block].dtype {
            DType::F16 | DType::Bf16 if block % 4 == 1 => DType::F32,
            dtype => dtype,
        }
    }

    /// The parameters before the first step.
    pub fn parameters(&self) -> Vec<Host> {
        let one =
            |(i, s): (usize, &BlockSpec)| Host::from_doubles(numbers(chain(&[3, i as u64]), s.len(), 0).into_iter(), s.dtype);
        self.specs.iter().enumerate().map(one).collect()
    }

    /// The gradients of one micro-batch, by block.
    pub fn gradients(&self, step: u64, micro: u32) -> Vec<Host> {
        (0..self.specs.len()).map(|block| self.gradient(step, micro, block)).collect()
    }

    fn gradient(&self, step: u64, micro: u32, block: usize) -> Host {
        let (n, dtype) = (self.specs[block].len(), self.gradient_type(block));
        // Which blocks are large changes every few steps, so that decisions do.
        let drift = (chain(&[step / 6, block as u64]) % 5) as i64 - 3;
        let x = numbers(chain(&[1, step, u64::from(micro), block as u64]), n, drift);
        let wild = Self::is_wild(step) && micro == 0;
        let number = |(i, x): (usize, f64)| if wild && i % 3 == 0 { f64::NAN } else { x };
        Host::from_doubles(x.into_iter().enumerate().map(number), dtype)
    }

    /// Host numbers of a step: a falling loss that rises now and then.
    pub fn step(&self, step: u64) -> Step {
        let loss = 3.0 - step as f64 * 0.02 + (mix(step) % 100) as f64 * 2e-3;
        let inv_loss_scale = if step.is_multiple_of(2) { 0.1 } else { 1.0 };
        Step { loss: Some(loss), inv_loss_scale, ..Step::new(2e-3 / (1.0 + step as f64 * 0.01)) }
            .micro_batches(self.micro_batches)
    }

    /// Blocks frozen before a step, and thawed before it.
    pub fn frozen_and_thawed(step: u64) -> (Option<u32>, Option<u32>) {
        ((step == 31).then_some(2), (step == 41).then_some(2))
    }
}

fn numbers(seed: u64, n: usize, exponent: i64) -> Vec<f64> {
    values(seed, n, DType::F64, Mode::Normal, exponent).doubles()
}
