//! Choices as papers and published codes make them, and where each misbehaves. Sizes and learning rates are the user's.

use super::{Across, Config, First, Inactive};
use crate::fill::Fill;
use crate::policy::{Order, Policy, Trigger};
use crate::score::{ScoreKind, VisitBias};

impl Config {
    /// BlockLLM as its paper has it (arXiv 2406.17296, algorithm 1 and 2): ranked by the norm of the processed gradient over the
    /// visit frequency, the first set from one full gradient, every chosen block masked to the same share, moments reset
    /// at each switch, the rest frozen; anew when the loss is at least the mean of the last m.
    ///
    /// Where it misbehaves:
    /// - the processed gradient of an idle block is its sign: the block scores about `sqrt(n_b)` whatever its gradient is,
    ///   so idle blocks rank by size (A2.1);
    /// - the first step needs the gradients of the whole model, once; streaming, they are never alive together;
    /// - with one share for all, every chosen block has a mask and a mask's index: small ones gain nothing by it;
    /// - the loss rule compares single noisy losses: it decides when a batch is hard, not when progress ends;
    /// - after a reset the first step moves each coordinate by about the learning rate, whatever its gradient;
    /// - what is frozen learns nothing: near variants ended 0.3 nats a byte above AdamW ([`Config::default`]).
    pub fn paper() -> Self {
        Self {
            score: ScoreKind::ProcessedNorm,
            first: First::FullGradient,
            fill: Fill::Uniform,
            visit_bias: VisitBias::Ratio,
            ..Self::published_code()
        }
    }

    /// BlockLLM as its authors' package has it: ranked by the plain norm of the gradient, visits weigh as
    /// `exp(v_u / sum of v)`, whole blocks as far as they fit, a random first set, some idle blocks probed on each step,
    /// moments reset, the rest frozen; anew by the loss rule, for which each step needs a loss.
    ///
    /// Where it misbehaves:
    /// - the visit weight lies between 1 and e, and near 1 for all where there are many units: a block with a large
    ///   gradient is chosen time after time, others never;
    /// - the norm grows with a block's size: embeddings and MLPs before norms and biases;
    /// - a block larger than the budget is never trained, and room that no block fits is left empty;
    /// - resets, the loss rule and frozen weights as under [`Config::paper`].
    ///
    /// What are faults of the package and no choices (eps and weight decay that are ignored, no selection without a loss
    /// and no word about it) is not reproduced.
    pub fn published_code() -> Self {
        Self {
            policy: Policy::BlockLlm(Trigger::Patience),
            score: ScoreKind::GradientNorm,
            visit_bias: VisitBias::Exponential,
            fill: Fill::Whole,
            across: Across::Reset,
            inactive: Inactive::Frozen,
            ..Self::default()
        }
    }

    /// FRUGAL, blockwise (arXiv 2411.07837): a quarter of the weights has Adam state, in units drawn anew every 200 steps;
    /// all others move by their gradient's sign. Register embeddings, norms and head as always active, as its paper does.
    ///
    /// Where it misbehaves:
    /// - units are drawn, not ranked: where the gradient is large counts for nothing (the control of every ranking);
    /// - moments start anew at each draw;
    /// - the sign step has the learning rate of Adam: noise in a gradient moves a weight as far as a clear direction does,
    ///   so late in training its scale wants lowering ([`Inactive::SignSgd`]);
    /// - neither clip nor guard hold it back (A6.7), and every gradient is computed on every step.
    pub fn frugal() -> Self {
        Self {
            policy: Policy::RandomBlocks { period: 200 },
            sparsity: 0.75,
            fill: Fill::Whole,
            across: Across::Reset,
            inactive: Inactive::SignSgd(1.0),
            ..Self::default()
        }
    }

    /// BAdam (arXiv 2404.02827): one group of blocks at a time, in a new random order each round, 100 steps each, moments
    /// anew, the rest frozen. Give each transformer layer's blocks a group ([`names`](crate::names)).
    ///
    /// Where it misbehaves:
    /// - `sparsity` is not used: the state is that of the largest group, which is the embedding where it is not frozen;
    ///   the paper's code leaves embedding and head out;
    /// - a block waits (groups - 1) x 100 steps for its turn, and forgets its moments meanwhile: the first steps of each
    ///   turn move by about the learning rate whatever the gradient;
    /// - a run shorter than a round leaves groups untrained.
    pub fn badam() -> Self {
        let policy = Policy::Cyclic { period: 100, order: Order::Random };
        Self { policy, across: Across::Reset, inactive: Inactive::Frozen, ..Self::default() }
    }

    /// LISA (arXiv 2403.17919): embedding and head always active, 2 transformer layers beside them drawn anew every 20
    /// steps, moments anew, the rest frozen. Give each layer's blocks a group, and register embedding and head as always
    /// active ([`names`](crate::names)).
    ///
    /// Where it misbehaves:
    /// - `sparsity` is not used: embedding and head can be most of what is active (at 8 B with two layers, 70 %), so that
    ///   state shrinks less than the number of layers says;
    /// - under `Reset` embedding and head lose their moments at every draw, as in the published code;
    /// - its published code updates only layers that were trainable when its optimizer was made; here every layer moves
    ///   when it is drawn.
    pub fn lisa() -> Self {
        let policy = Policy::Lisa { period: 20, units: 2 };
        Self { policy, across: Across::Reset, inactive: Inactive::Frozen, ..Self::default() }
    }

    /// HFT (arXiv 2404.18466): half of each layer's attention, MLP and norm weights, drawn anew every `period` steps, which
    /// in its paper is a whole round of fine-tuning; moments anew, the rest frozen. Give blocks a layer and a category
    /// ([`names`](crate::names)).
    ///
    /// Where it misbehaves:
    /// - `sparsity` is not used: state is half of Adam's, and what is in no layer (embedding, head) idles unless it is
    ///   always active;
    /// - chosen by chance, as FRUGAL's units are;
    /// - a cell of one block alternates by layer, so that half of the norms is idle in each draw.
    pub fn hft(period: u64) -> Self {
        let policy = Policy::HalfFineTuning { period };
        Self { policy, across: Across::Reset, inactive: Inactive::Frozen, ..Self::default() }
    }

    /// AdamW on everything: the baseline.
    pub fn adamw() -> Self {
        Self { policy: Policy::Full, sparsity: 0.0, inactive: Inactive::Frozen, ..Self::default() }
    }
}
