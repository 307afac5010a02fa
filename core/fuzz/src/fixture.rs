//! Small optimizers of which records are made, and into which they are restored.

use blockllm::{
    Across, BlockId, BlockSpec, Config, DType, Decay, Fill, First, Inactive, MaskKind, Optimizer, Order, Policy, ProbeOrder,
    Record, Reference, ScoreKind, Slices, Step, Trigger, View, ViewMut,
};
use half::bf16;
use std::sync::OnceLock;

/// On the reference backend, whose tensors are slices.
pub type Small = Optimizer<Reference<Slices>>;

/// A configuration, its blocks, and records made along one run of it.
pub struct Fixture {
    /// What all its optimizers are made with.
    pub config: Config,
    /// Their blocks.
    pub specs: Vec<BlockSpec>,
    /// After 0, 1, ... steps.
    pub records: Vec<Record>,
}

/// The parameters of one optimizer, by block.
pub struct Tensors(Vec<Tensor>);

enum Tensor {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    F64(Vec<f64>),
}

/// Steps along which records are made: several decisions and, at their ends, sets that are still pending.
const STEPS: u64 = 11;

/// One of each kind: whole and masked, grouped, bound to a layer, always active, frozen, empty.
fn specs(dtypes: [DType; 2]) -> Vec<BlockSpec> {
    vec![
        BlockSpec::new("a", [4, 9]).dtype(dtypes[0]).layer(0, "attention"),
        BlockSpec::new("b", [1, 70]).dtype(dtypes[1]).layer(0, "mlp"),
        BlockSpec::new("c", [2, 10]).dtype(dtypes[0]).group("g").layer(1, "attention"),
        BlockSpec::new("empty", [0, 3]).dtype(dtypes[0]),
        BlockSpec::new("d", [1, 13]).dtype(dtypes[1]).group("g").layer(1, "mlp"),
        BlockSpec::new("head", [1, 6]).dtype(dtypes[0]).always_active(),
        BlockSpec::new("idle", [5, 5]).dtype(dtypes[0]).frozen(),
    ]
}

fn configs() -> Vec<Config> {
    let base = Config { sparsity: 0.6, patience: 3, policy: Policy::BlockLlm(Trigger::Period(3)), seed: 5, ..Config::default() };
    let frozen = Config { inactive: Inactive::Frozen, probes_per_step: Some(2), ..base.clone() };
    vec![
        base.clone(),
        Config { policy: Policy::BlockLlm(Trigger::Patience), patience: 2, probe_order: ProbeOrder::Random, ..frozen.clone() },
        Config {
            mask: MaskKind::Tile(8),
            fill: Fill::Uniform,
            decay: Decay::L2,
            weight_decay: 0.1,
            clip: Some(3.0),
            ..base.clone()
        },
        Config { first: First::Scan, score: ScoreKind::ProcessedNorm, across: Across::Reset, ..frozen.clone() },
        Config { first: First::FullGradient, fill: Fill::Whole, ..frozen.clone() },
        Config { policy: Policy::Cyclic { period: 2, order: Order::Random }, ..base.clone() },
        Config { policy: Policy::Lisa { period: 2, units: 2 }, ..frozen },
        Config { policy: Policy::HalfFineTuning { period: 2 }, immediate: true, ..base.clone() },
        Config { immediate: true, ..base.clone() },
        Config { policy: Policy::Full, sparsity: 0.0, ..base },
    ]
}

/// All of them, made once.
pub fn all() -> &'static [Fixture] {
    static ALL: OnceLock<Vec<Fixture>> = OnceLock::new();
    ALL.get_or_init(|| configs().into_iter().enumerate().map(|(i, config)| Fixture::new(i, config)).collect())
}

impl Fixture {
    fn new(i: usize, config: Config) -> Self {
        let dtypes = if i == 1 { [DType::F64, DType::F64] } else { [DType::F32, DType::Bf16] };
        let mut new = Self { config, specs: specs(dtypes), records: Vec::new() };
        let (mut o, mut tensors) = (new.optimizer(), new.tensors());
        for step in 0..=STEPS {
            new.records.push(o.save().expect("a record"));
            train(&mut o, &mut tensors, step, (0.9 + 0.1 * (step % 3) as f64).into()).expect("a step");
        }
        new
    }

    /// As it is when it is made.
    ///
    /// # Panics
    /// Never: the configurations are fixed.
    pub fn optimizer(&self) -> Small {
        Optimizer::new(Reference::default(), &self.specs, self.config.clone()).expect("an optimizer")
    }

    /// Parameters for it.
    pub fn tensors(&self) -> Tensors {
        let tensor = |s: &BlockSpec| match s.dtype {
            DType::F64 => Tensor::F64(vec![0.5; s.len()]),
            DType::Bf16 => Tensor::Bf16(vec![bf16::from_f32(0.5); s.len()]),
            _ => Tensor::F32(vec![0.5; s.len()]),
        };
        Tensors(self.specs.iter().map(tensor).collect())
    }
}

/// A step with gradients that differ by block, coordinate and step.
///
/// # Errors
/// The optimizer's.
pub fn train(o: &mut Small, tensors: &mut Tensors, step: u64, loss: Option<f64>) -> Result<(), String> {
    let value = |b: usize, i: usize| ((step + 1) * 31 + (b * 7 + i * 13) as u64) % 17;
    let gradients: Vec<Tensor> = tensors.0.iter().enumerate().map(|(b, t)| t.map(|i| value(b, i) as f32 / 16.0 - 0.5)).collect();
    let mut params: Vec<(BlockId, ViewMut<'_>)> = (0..).zip(tensors.0.iter_mut().map(Tensor::view_mut)).collect();
    let step = Step { loss, ..Step::new(0.01) };
    let begun = o.step(step, |b| Some(gradients[b as usize].view()), &mut params).map(drop).map_err(|e| e.to_string());
    begun.and_then(|()| o.wait().map_err(|e| e.to_string()))
}

impl Tensor {
    fn map(&self, f: impl Fn(usize) -> f32) -> Self {
        match self {
            Self::F32(x) => Self::F32((0..x.len()).map(f).collect()),
            Self::Bf16(x) => Self::Bf16((0..x.len()).map(|i| bf16::from_f32(f(i))).collect()),
            Self::F64(x) => Self::F64((0..x.len()).map(|i| f64::from(f(i))).collect()),
        }
    }

    fn view(&self) -> View<'_> {
        match self {
            Self::F32(x) => View::F32(x),
            Self::Bf16(x) => View::Bf16(x),
            Self::F64(x) => View::F64(x),
        }
    }

    fn view_mut(&mut self) -> ViewMut<'_> {
        match self {
            Self::F32(x) => ViewMut::F32(x),
            Self::Bf16(x) => ViewMut::Bf16(x),
            Self::F64(x) => ViewMut::F64(x),
        }
    }
}
