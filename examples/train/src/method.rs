//! What updates the weights: the engine, behind what the trainer needs of it.

use blockllm::mask::Mask;
use blockllm::record::{self, LeafType};
use blockllm::{
    Across, BlockSpec, Config, Decision, Fill, Inactive, MaskKind, Optimizer, Policy, Record, Reference, ScoreKind, Slices,
    Trigger, VisitBias,
};
use blockllm_candle::{BlockLlm, Parameter, ParameterStore};
use candle_core::Tensor;
use safetensors::Dtype;

use crate::checkpoint::Leaf;
use crate::choices;
use crate::coverage::Coverage;
use crate::error::{Context, Result};
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
}

/// Decoupled weight decay, the same for every method.
const WEIGHT_DECAY: f64 = 0.01;
/// Gradients are scaled down to this norm where theirs is greater.
const CLIP: f64 = 1.0;

/// An optimizer over the model's weights.
pub(crate) struct Method {
    optimizer: BlockLlm,
    /// By block: its name, and the number of its coordinates.
    blocks: Vec<(String, usize)>,
}

impl Method {
    /// The optimizer of a run. From here on the weights' gradients go to it.
    pub(crate) fn new(method: choices::Method, options: &Options, weights: &ParameterStore) -> Result<Self> {
        // The learning rate is given anew on every step.
        let optimizer = BlockLlm::new(weights, config(method, options), options.lr)?;
        let block = |weight: &Parameter| (weight.name().to_string(), weight.shape().elem_count());
        Ok(Self { optimizer, blocks: weights.iter().map(block).collect() })
    }

    /// The backward pass and the update. The loss is handed over, so that the graph is freed when it has served.
    pub(crate) fn backward_step(&mut self, loss: Tensor, lr: f64) -> Result<StepInfo> {
        self.optimizer.set_lr(lr);
        let report = self.optimizer.backward_step(&loss)?;
        drop(loss);
        let active = self.optimizer.with_engine(|engine| {
            let regions = engine.current().regions.iter().filter(|region| region.k > 0);
            regions.map(|region| (region.block as usize, region.k)).collect()
        })?;
        Ok(StepInfo {
            active: if report.skipped { Vec::new() } else { active },
            switched: report.switched,
            decision: matches!(report.decision, Some(Decision::Switch)),
            skipped: report.skipped,
            grad_norm: report.norm,
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
    let blocks: Vec<BlockSpec> = weights.iter().map(|(name, shape)| BlockSpec::new(name, [1, shape.iter().product()])).collect();
    for &method in options.method.runs() {
        let made = Optimizer::new(Reference::<Slices>::default(), &blocks, config(method, options));
        made.map(drop).context(|| format!("{} cannot train so", method.title()))?;
    }
    Ok(())
}

fn config(method: choices::Method, options: &Options) -> Config {
    let base = Config { seed: options.seed, weight_decay: WEIGHT_DECAY, clip: Some(CLIP), ..Config::default() };
    if method == choices::Method::Adamw {
        let Config { policy, sparsity, inactive, .. } = Config::adamw();
        return Config { policy, sparsity, inactive, ..base };
    }
    let (trigger, patience) = match options.trigger {
        choices::Trigger::Period(steps) => (Trigger::Period(steps as u64), base.patience),
        choices::Trigger::Patience(losses) => (Trigger::Patience, losses),
    };
    Config {
        policy: Policy::BlockLlm(trigger),
        patience,
        sparsity: options.sparsity,
        across: match options.across {
            choices::Across::Reset => Across::Reset,
            choices::Across::Carry => Across::Carry,
        },
        inactive: match options.inactive {
            choices::Inactive::Frozen => Inactive::Frozen,
            choices::Inactive::Sign(scale) => Inactive::SignSgd(scale),
        },
        score: match options.score {
            choices::Score::Norm => ScoreKind::GradientNorm,
            choices::Score::Rms => ScoreKind::GradientRms,
        },
        visit_bias: match options.bias {
            choices::Bias::Ratio => VisitBias::Ratio,
            choices::Bias::Exponential => VisitBias::Exponential,
            choices::Bias::None => VisitBias::None,
        },
        fill: match options.fill {
            choices::Fill::LastMasked => Fill::LastMasked,
            choices::Fill::Uniform => Fill::Uniform,
            choices::Fill::Whole => Fill::Whole,
        },
        mask: match options.mask {
            choices::Mask::Coordinate => MaskKind::Coordinate,
            choices::Mask::Tile(size) => MaskKind::Tile(size),
        },
        ..base
    }
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
