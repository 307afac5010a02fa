//! What updates the weights: the engine, behind what the trainer needs of it.

use blockllm::mask::Mask;
use blockllm::record::{self, LeafType};
use blockllm::{BlockSpec, Config, Decision, Optimizer, Record, Reference, Slices, Stage, Step};
use blockllm_candle::{BlockLlm, Parameter, ParameterStore};
use candle_core::Tensor;
use safetensors::Dtype;

use crate::blocks::describe;
use crate::checkpoint::Leaf;
use crate::choices::{self, policy_text};
use crate::coverage::Coverage;
use crate::error::{Context, Failure, Result};
use crate::meter;
use crate::options::Options;

/// Leaves of the optimizer are called this and the name that the engine gave them.
const PREFIX: &str = "optimizer.";

/// What a step did.
pub(crate) struct StepInfo {
    /// The blocks with coordinates that were updated with Adam's state, and how many those are.
    pub(crate) active: Vec<(usize, usize)>,
    /// Whether these are other coordinates than before.
    pub(crate) switched: bool,
    /// Whether the step ended with a decision on a new active set.
    pub(crate) decision: bool,
    /// Whether it was left out because a gradient was not finite.
    pub(crate) skipped: bool,
    /// The norm of the active gradients before clipping.
    pub(crate) grad_norm: f64,
    /// An error that the step ended with, though it was done: so many steps in a row were skipped that something is wrong.
    pub(crate) error: Option<Failure>,
}

/// Passes over all gradients before the first step, each with another text. The second is needed where the first finds
/// gradients that are not finite; where so many do, more of them will.
pub(crate) const MOST_PASSES: usize = 10;

/// An optimizer over the model's weights.
pub(crate) struct Method {
    optimizer: BlockLlm,
    /// By block: its name, and the number of its coordinates.
    blocks: Vec<(String, usize)>,
}

impl Method {
    /// The optimizer of a run. From here on the weights' gradients go to it.
    pub(crate) fn new(method: choices::Method, options: &Options, weights: &ParameterStore) -> Result<Self> {
        let (config, preset) = (config(method, options), options.preset);
        let policy = config.policy.clone();
        let describe = |spec| describe(spec, &policy, preset);
        // The learning rate is given anew on every step.
        let optimizer = BlockLlm::with_backend(Reference::default(), weights, config, options.lr, describe)?;
        let block = |weight: &Parameter| (weight.name().to_string(), weight.shape().elem_count());
        Ok(Self { optimizer, blocks: weights.iter().map(block).collect() })
    }

    /// Whether a pass over all gradients has to come before the first step; it ends as a step does, but is none.
    pub(crate) fn wants_full_gradient(&mut self) -> Result<bool> {
        Ok(self.optimizer.with_engine(|engine| engine.stage() == Stage::FullGradient)?)
    }

    /// The backward pass and the update. The loss is handed over, so that the graph is freed when it has served.
    pub(crate) fn backward_step(&mut self, loss: Tensor, lr: f64) -> Result<StepInfo> {
        self.optimizer.set_lr(lr);
        let before = self.optimizer.with_engine(|engine| engine.steps())?;
        let outcome = self.optimizer.backward_step(&loss);
        drop(loss);
        let (steps, report, active) = self.optimizer.with_engine(|engine| {
            let regions = engine.current().regions.iter().filter(|region| region.k > 0);
            let active = regions.map(|region| (region.block as usize, region.k)).collect();
            (engine.steps(), engine.report(), active)
        })?;
        let error = match outcome {
            // The step stands, and so the state after it is worth saving.
            Err(error) if steps > before => Some(error.into()),
            other => other.map(|_| None)?,
        };
        let report = report.context(|| "cannot read what the step did".to_string())?;
        Ok(StepInfo {
            active: if report.skipped { Vec::new() } else { active },
            switched: report.switched,
            decision: matches!(report.decision, Some(Decision::Switch)),
            skipped: report.skipped,
            grad_norm: report.norm,
            error,
        })
    }

    /// Marks the coordinates that the last step updated with Adam's state.
    pub(crate) fn cover(&mut self, coverage: &mut Coverage) -> Result<()> {
        // The masks are in the optimizer's memory, wherever that is; a record is how they come out.
        let record = self.optimizer.save()?;
        for (block, (name, len)) in self.blocks.iter().enumerate() {
            // A block that has moments is active; without a mask, all of it.
            let moments = record.get(&format!("m/{name}")).filter(|moments| !moments.is_empty());
            match (moments, record.get(&format!("mask/{name}"))) {
                (Some(_), None) => coverage.add_block(block),
                (Some(_), Some(mask)) => {
                    let words: Vec<u32> = mask.data.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
                    Mask::new(&words, *len).coordinates().for_each(|i| coverage.add(block, i));
                }
                (None, _) => {}
            }
        }
        Ok(())
    }

    /// Everything that a bit-exact continuation needs.
    pub(crate) fn save(&mut self) -> Result<Vec<Leaf>> {
        let leaf = |leaf: record::Leaf| Leaf {
            dtype: to_safetensors(leaf.dtype),
            shape: vec![leaf.len()],
            name: format!("{PREFIX}{}", leaf.name),
            bytes: leaf.data,
        };
        Ok(self.optimizer.save()?.into_leaves().into_iter().map(leaf).collect())
    }

    /// Goes on from what `save` gave; other leaves are passed over. After an error everything is as before.
    pub(crate) fn restore(&mut self, leaves: &[Leaf]) -> Result<()> {
        let leaf = |leaf: &Leaf| {
            let (name, dtype) = (leaf.name.strip_prefix(PREFIX)?.to_string(), from_safetensors(leaf.dtype)?);
            Some(record::Leaf { name, dtype, data: leaf.bytes.clone() })
        };
        let record = Record::from_leaves(leaves.iter().filter_map(leaf).collect());
        self.optimizer.restore(&record).context(|| "the checkpoint does not fit".to_string())
    }

    /// The most bytes of gradients that were alive at one time: packed, being delivered, stored.
    pub(crate) fn gradient_bytes_peak(&self) -> usize {
        self.optimizer.gradient_bytes_peak()
    }

    /// Ends the optimizer, and says how many bytes of state it held: the heap shrinks by them. The packed gradients, which
    /// are freed with it, count as gradients.
    pub(crate) fn into_state_bytes(self) -> usize {
        let gradients = self.optimizer.memory().packed_gradients;
        meter::freed_by(|| drop(self)).saturating_sub(gradients)
    }
}

/// Whether the engine takes these options for a model of these weights, before anything is written.
pub(crate) fn check(options: &Options, weights: &[(String, Vec<usize>)]) -> Result<()> {
    for &method in options.method.runs() {
        let config = config(method, options);
        let block = |(name, shape): &(String, Vec<usize>)| {
            describe(BlockSpec::new(name, [1, shape.iter().product()]), &config.policy, options.preset)
        };
        let blocks: Vec<BlockSpec> = weights.iter().map(block).collect();
        let made = Optimizer::new(Reference::<Slices>::default(), &blocks, config.clone());
        // The highest learning rate may be too high beside decay and betas.
        let begun = made.and_then(|mut optimizer| optimizer.begin(Step::new(options.lr)));
        begun.context(|| format!("{} cannot train so", method.title()))?;
    }
    Ok(())
}

/// The policy that a run's options give it.
pub(crate) fn policy(method: choices::Method, options: &Options) -> String {
    policy_text(&config(method, options))
}

fn config(method: choices::Method, options: &Options) -> Config {
    let chosen = options.optimizer.clone();
    if method != choices::Method::Adamw {
        return chosen;
    }
    let Config { betas, eps, weight_decay, decay, clip, guard_limit, seed, .. } = chosen;
    Config { betas, eps, weight_decay, decay, clip, guard_limit, seed, ..Config::adamw() }
}

fn to_safetensors(dtype: LeafType) -> Dtype {
    match dtype {
        LeafType::U32 => Dtype::U32,
        LeafType::U64 => Dtype::U64,
        LeafType::F32 => Dtype::F32,
        LeafType::F64 => Dtype::F64,
        _ => Dtype::U8,
    }
}

fn from_safetensors(dtype: Dtype) -> Option<LeafType> {
    let all = [LeafType::U8, LeafType::U32, LeafType::U64, LeafType::F32, LeafType::F64];
    all.into_iter().find(|leaf| to_safetensors(*leaf) == dtype)
}
