//! The command line's words for the engine's choices, both ways: what a flag sets, and how it reads where it was set.

use std::fmt::Display;

use blockllm::{self as engine, Config, MaskKind, Policy, ScoreKind, VisitBias};
use clap::ValueEnum;

use crate::choices::{Across, Bias, Fill, First, Inactive, Mask, PolicyChoice, Score, Trigger, policy_text};
use crate::cli::Cli;
use crate::error::{Failure, Result};

/// A choice that has the same cases here, where help texts are, and in the engine, where more may be added.
macro_rules! same_cases {
    ($($here:ident, $there:path { $($mine:ident = $its:ident),* })*) => {$(
        impl From<$here> for $there {
            fn from(choice: $here) -> Self {
                match choice { $($here::$mine => Self::$its),* }
            }
        }
        impl $here {
            /// The engine's choice in the words of the flag; `None` where it has none.
            fn of(choice: $there) -> Option<Self> {
                // The wildcard stands for what the engine may add.
                #[allow(unreachable_patterns)]
                match choice { $(<$there>::$its => Some(Self::$mine),)* _ => None }
            }
        }
    )*};
}
same_cases! {
    Across, engine::Across { Reset = Reset, Carry = Carry }
    Score, ScoreKind { Norm = GradientNorm, Rms = GradientRms, Processed = ProcessedNorm }
    Bias, VisitBias { Ratio = Ratio, Exponential = Exponential, None = None }
    Fill, engine::Fill { LastMasked = LastMasked, Uniform = Uniform, Whole = Whole }
    First, engine::First { Random = Random, FullGradient = FullGradient, Scan = Scan }
}

impl Trigger {
    /// That of a configuration; none where its policy is not BlockLLM's.
    pub(crate) fn of(config: &Config) -> Option<Self> {
        match config.policy {
            Policy::BlockLlm(engine::Trigger::Period(steps)) => Some(Self::Period(steps as usize)),
            Policy::BlockLlm(engine::Trigger::Patience) => Some(Self::Patience(config.patience)),
            _ => None,
        }
    }

    fn apply(self, config: &mut Config) {
        config.policy = Policy::BlockLlm(match self {
            Self::Period(steps) => engine::Trigger::Period(steps as u64),
            Self::Patience(losses) => {
                config.patience = losses;
                engine::Trigger::Patience
            }
        });
    }
}

impl PolicyChoice {
    fn apply(&self, config: &mut Config) {
        match self {
            Self::Blockllm(None) if Trigger::of(config).is_some() => {}
            Self::Blockllm(None) => config.policy = Config::default().policy,
            Self::Blockllm(Some(trigger)) => trigger.apply(config),
            Self::Other(policy) => config.policy = policy.clone(),
        }
    }
}

/// Sets what flags choose.
pub(crate) fn apply(cli: &Cli, config: &mut Config) -> Result<()> {
    if let Some(policy) = &cli.policy {
        policy.apply(config);
    }
    refuse_without_effect(cli, config)?;
    if let Some(trigger) = cli.trigger {
        trigger.apply(config);
    }
    config.sparsity = cli.sparsity.unwrap_or(config.sparsity);
    config.across = cli.across.map_or(config.across, Into::into);
    config.score = cli.score.map_or(config.score, Into::into);
    config.visit_bias = cli.bias.map_or(config.visit_bias, Into::into);
    config.fill = cli.fill.map_or(config.fill, Into::into);
    config.first = cli.first.map_or(config.first, Into::into);
    if let Some(inactive) = cli.inactive {
        config.inactive = match inactive {
            Inactive::Frozen => engine::Inactive::Frozen,
            Inactive::Sign(scale) => engine::Inactive::SignSgd(scale),
        };
    }
    if let Some(mask) = cli.mask {
        config.mask = match mask {
            Mask::Coordinate => MaskKind::Coordinate,
            Mask::Tile(size) => MaskKind::Tile(size),
        };
    }
    Ok(())
}

/// Flags that the policy does not look at. Silence would hide a mistake.
fn refuse_without_effect(cli: &Cli, config: &Config) -> Result<()> {
    let ranks = matches!(config.policy, Policy::BlockLlm(_));
    let fills = ranks || matches!(config.policy, Policy::RandomBlocks { .. });
    let moves_on = config.policy != Policy::Full;
    let flags = [
        ("--trigger", cli.trigger.is_some() && !ranks),
        ("--score", cli.score.is_some() && !ranks),
        ("--bias", cli.bias.is_some() && !ranks),
        ("--first", cli.first.is_some() && !ranks),
        ("--sparsity", cli.sparsity.is_some() && !fills),
        ("--fill", cli.fill.is_some() && !fills),
        ("--mask", cli.mask.is_some() && !fills),
        ("--across", cli.across.is_some() && !moves_on),
        ("--inactive", cli.inactive.is_some() && !moves_on),
    ];
    match flags.iter().find(|(_, without)| *without) {
        Some((flag, _)) => Err(Failure::new(format!("{flag} has no meaning with the policy {}", policy_text(config)))),
        None => Ok(()),
    }
}

/// A flag that is given again when a run goes on must say what the run does.
pub(crate) fn check_against(cli: &Cli, config: &Config) -> Result<()> {
    let policy = cli.policy.as_ref().map(|policy| {
        let mut given = config.clone();
        policy.apply(&mut given);
        policy_text(&given)
    });
    let none = || "none".to_string();
    same("--policy", policy, policy_text(config))?;
    same("--trigger", cli.trigger, Trigger::of(config).map_or_else(none, |trigger| trigger.to_string()))?;
    same("--sparsity", cli.sparsity, config.sparsity)?;
    same("--across", cli.across.map(word), Across::of(config.across).map_or_else(none, word))?;
    same("--score", cli.score.map(word), Score::of(config.score).map_or_else(none, word))?;
    same("--bias", cli.bias.map(word), Bias::of(config.visit_bias).map_or_else(none, word))?;
    same("--fill", cli.fill.map(word), Fill::of(config.fill).map_or_else(none, word))?;
    same("--first", cli.first.map(word), First::of(config.first).map_or_else(none, word))?;
    let inactive = match config.inactive {
        engine::Inactive::SignSgd(scale) => Inactive::Sign(scale),
        _ => Inactive::Frozen,
    };
    same("--inactive", cli.inactive, inactive)?;
    let mask = match config.mask {
        MaskKind::Tile(size) => Mask::Tile(size),
        _ => Mask::Coordinate,
    };
    same("--mask", cli.mask, mask)
}

/// The word for a choice on the command line.
pub(crate) fn word(choice: impl ValueEnum) -> String {
    choice.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string())
}

/// What is given must be what was.
pub(crate) fn same(name: &str, given: Option<impl Display>, was: impl Display) -> Result<()> {
    match given.map(|given| given.to_string()) {
        Some(given) if given != was.to_string() => {
            Err(Failure::new(format!("{name} {given} contradicts the run, which was started with {name} {was}")))
        }
        _ => Ok(()),
    }
}
