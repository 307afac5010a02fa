//! What a user chooses. Each choice is one point of ALGORITHM on which both readings exist in the field.

mod presets;

use crate::adam::Decay;
use crate::error::Error;
use crate::fill::Fill;
use crate::mask::MaskKind;
use crate::policy::{Policy, Trigger};
use crate::score::{ProbeOrder, ScoreKind, VisitBias};
use crate::tensor::DType;
use alloc::string::ToString;
use core::convert::Infallible;

/// A history of losses that long is no patience but a mistake, and would be allocated.
const MAX_PATIENCE: usize = 1_000_000;

/// What becomes of moments when the active set changes (A5.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Across {
    /// All active coordinates start at zero, those that stay too (the paper).
    Reset,
    /// A coordinate that stays keeps its moments; one that enters a block that stays starts as if it had always seen
    /// its present gradient.
    #[default]
    Carry,
}

/// Where the first set of a policy that scores comes from (A3.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum First {
    /// Units at random: it trains from the first step, while scores are gathered.
    #[default]
    Random,
    /// One backward pass over all blocks before the first step, each gradient dropped once it is scored
    /// ([`Stage::FullGradient`](crate::Stage)).
    FullGradient,
    /// Steps that ask for some units' gradients in turn and update nothing, until all were scored
    /// ([`Stage::Scan`](crate::Stage)).
    Scan,
}

/// What happens to coordinates that are not active (A6.7).
#[derive(Clone, Copy, PartialEq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Inactive {
    /// They stay where they are (the paper).
    Frozen,
    /// They move by their gradient's sign times the learning rate times this scale, with no state (FRUGAL).
    SignSgd(f64),
}

/// What a wanted gradient that does not come counts as. One that is asked for its score alone may always be missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Missing {
    /// An error that names the block.
    #[default]
    Error,
    /// Zero, where it is an active block's (A6.2): in the sum of a window, and in the score. Always an error in the first
    /// micro-batch of a mask. An idle block stays where it is, and its unit keeps the score it had.
    Zero,
}

/// The configuration of an optimizer. `Default` is what measured best (README); [`Config::paper`] and others are the ways
/// of papers and their codes.
#[derive(Clone, PartialEq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
pub struct Config {
    /// Who is active next.
    pub policy: Policy,
    /// s: the share of coordinates without moments, in [0, 1). 0 is dense Adam.
    pub sparsity: f64,
    /// m: losses that the loss rule looks at; also sets the default number of probes a step (A2.6). At least 1.
    pub patience: usize,
    /// Key of every random choice.
    pub seed: u64,
    /// What a unit's score is.
    pub score: ScoreKind,
    /// Which idle units are probed.
    pub probe_order: ProbeOrder,
    /// Idle units probed on each step; `None`: ceil(units / m).
    pub probes_per_step: Option<usize>,
    /// Where the first set comes from, of a policy that scores.
    pub first: First,
    /// How visits count against a unit.
    pub visit_bias: VisitBias,
    /// From a ranking to coordinates.
    pub fill: Fill,
    /// How the coordinates of a partly active block are chosen.
    pub mask: MaskKind,
    /// What becomes of moments when the set changes.
    pub across: Across,
    /// What happens to coordinates that are not active.
    pub inactive: Inactive,
    /// How weight decay enters.
    pub decay: Decay,
    /// Decay rates of the moments, each in [0, 1).
    pub betas: [f64; 2],
    /// Added to the denominator; not negative.
    pub eps: f64,
    /// Weight decay; not negative.
    pub weight_decay: f64,
    /// Largest norm of the active gradients; positive.
    pub clip: Option<f64>,
    /// Skipped steps in a row that are an error (A6.4). At least 1.
    pub guard_limit: u32,
    /// What a gradient that does not come counts as.
    pub missing: Missing,
    /// Each block is updated as its gradient arrives, and no gradient but that one is alive (A6.5, immediate streaming). The
    /// guard is then each block's own; a clip and windows of several micro-batches are refused.
    pub immediate: bool,
}

impl Default for Config {
    /// BlockLlm by the RMS score, a decision every 10 steps, moments carried, what is not active moved by its gradient's
    /// sign. A fifth of the state of Adam.
    ///
    /// Held-out loss of a 2.76 M byte-level Llama after 200 steps, nats a byte, mean of three seeds (the README has them
    /// one by one, and more rows):
    ///
    /// | | |
    /// |---|---|
    /// | AdamW, all state | 2.172 |
    /// | this | 2.145 |
    /// | `GradientNorm` | 2.164 |
    /// | `GradientNorm`, `VisitBias::None` (half of the weights never have state) | 2.138 |
    /// | `GradientNorm`, `Trigger::Patience` | 2.192 |
    /// | `GradientNorm`, `Across::Reset` | 2.230 |
    /// | `GradientNorm`, `Inactive::Frozen` | 2.376 |
    /// | `GradientNorm`, `Trigger::Patience`, `Across::Reset`, `Inactive::Frozen` (near the paper and its code) | 2.480 |
    fn default() -> Self {
        Self {
            policy: Policy::BlockLlm(Trigger::Period(10)),
            sparsity: 0.8,
            patience: 10,
            seed: 0,
            score: ScoreKind::GradientRms,
            probe_order: ProbeOrder::RoundRobin,
            probes_per_step: None,
            first: First::Random,
            visit_bias: VisitBias::Ratio,
            fill: Fill::LastMasked,
            mask: MaskKind::Coordinate,
            across: Across::Carry,
            inactive: Inactive::SignSgd(1.0),
            decay: Decay::Decoupled,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.0,
            clip: None,
            guard_limit: 25,
            missing: Missing::Error,
            immediate: false,
        }
    }
}

impl Config {
    /// Checks every range.
    ///
    /// # Errors
    /// [`Error::Config`] with the field, its value and what it may be.
    pub fn validate(&self, compute: DType) -> Result<(), Error<Infallible>> {
        let check = |ok: bool, field, value: &dyn ToString, allowed| {
            if ok { Ok(()) } else { Err(Error::Config { field, value: value.to_string(), allowed }) }
        };
        let not_negative = |x: f64| x.is_finite() && x >= 0.0;
        check((0.0..1.0).contains(&self.sparsity), "sparsity", &self.sparsity, "at least 0 and below 1")?;
        check((1..=MAX_PATIENCE).contains(&self.patience), "patience", &self.patience, "at least 1 and at most 1000000")?;
        for beta in self.betas {
            check((0.0..1.0).contains(&beta), "beta", &beta, "at least 0 and below 1")?;
        }
        check(not_negative(self.eps), "eps", &self.eps, "finite and not negative")?;
        // Rounded away, it would leave 0/0 for every coordinate that never had a gradient.
        let vanishes = compute == DType::F32 && self.eps > 0.0 && (self.eps as f32) == 0.0;
        check(!vanishes, "eps", &self.eps, "0 or representable in the compute type f32")?;
        let overflows = |x: f64| compute == DType::F32 && (x as f32).is_infinite();
        check(!overflows(self.eps), "eps", &self.eps, "finite in the compute type f32")?;
        check(!overflows(self.weight_decay), "weight_decay", &self.weight_decay, "finite in the compute type f32")?;
        check(not_negative(self.weight_decay), "weight_decay", &self.weight_decay, "finite and not negative")?;
        let clip = self.clip.unwrap_or(1.0);
        check(clip.is_finite() && clip > 0.0, "clip", &clip, "finite and positive")?;
        let alone = "None where blocks are updated as their gradients arrive";
        check(!(self.immediate && self.clip.is_some()), "clip", &clip, alone)?;
        // A gradient that is not there has no kernel to process it, nor a moment at which it arrives.
        let counts = self.missing == Missing::Zero && (self.immediate || self.score == ScoreKind::ProcessedNorm);
        let alone = "Error beside the score ProcessedNorm, and where blocks are updated as their gradients arrive";
        check(!counts, "missing", &"Zero", alone)?;
        check(self.guard_limit >= 1, "guard_limit", &self.guard_limit, "at least 1")?;
        if let Some(p) = self.probes_per_step {
            check(p >= 1, "probes_per_step", &p, "at least 1")?;
        }
        if let MaskKind::Tile(t) = self.mask {
            check(t >= 1, "tile", &t, "at least 1")?;
        }
        if let Inactive::SignSgd(scale) = self.inactive {
            check(not_negative(scale), "sign scale", &scale, "finite and not negative")?;
        }
        if let Some(Trigger::Period(k)) = self.policy.trigger() {
            check(k >= 1, "period", &k, "at least 1")?;
        }
        if let Policy::Lisa { units, .. } = self.policy {
            check(units >= 1, "units", &units, "at least 1")?;
        }
        Ok(())
    }

    /// Scale of the sign step, where there is one.
    pub fn sign_scale(&self) -> Option<f64> {
        match self.inactive {
            Inactive::Frozen => None,
            Inactive::SignSgd(scale) => Some(scale),
        }
    }
}
