//! The values that options take, and how they are written.

use std::fmt::{self, Display};
use std::str::FromStr;

use blockllm::{Config, Order, Policy};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// `--method`.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Methods {
    /// BlockLLM, or another policy: as --preset, --policy and the options below them say
    Blockllm,
    /// BlockLLM as its paper has it: --preset paper, with nothing else chosen
    Paper,
    /// Adam's state for every weight
    Adamw,
    /// blockllm, then adamw, each in a process of its own
    Both,
}

/// One training run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// BlockLLM.
    Blockllm,
    /// BlockLLM as in its paper.
    Paper,
    /// Full AdamW.
    Adamw,
}

impl Methods {
    /// The runs, in order.
    pub(crate) fn runs(self) -> &'static [Method] {
        match self {
            Self::Blockllm => &[Method::Blockllm],
            Self::Paper => &[Method::Paper],
            Self::Adamw => &[Method::Adamw],
            Self::Both => &[Method::Blockllm, Method::Adamw],
        }
    }
}

impl Method {
    /// The name that options, folders and `summary.json` use.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Blockllm => "blockllm",
            Self::Paper => "paper",
            Self::Adamw => "adamw",
        }
    }

    /// The name that a reader sees.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Blockllm => "BlockLLM",
            Self::Paper => "BlockLLM (paper)",
            Self::Adamw => "AdamW",
        }
    }
}

/// `--inactive`: what happens to coordinates that are not active.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Inactive {
    /// Nothing.
    Frozen,
    /// Each moves by this times the learning rate, against the sign of its gradient.
    Sign(f64),
}

/// `--trigger`: when a new active set is decided on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Trigger {
    /// Every so many steps.
    Period(usize),
    /// When the loss is no better than the mean of the last so many.
    Patience(usize),
}

/// `--across`: what becomes of the moments of a coordinate that stays active.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Across {
    /// All moments start at zero
    Reset,
    /// Coordinates that stay active keep theirs
    Carry,
}

/// `--score`: what a block's gradient is worth.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Score {
    /// The norm of its gradient
    Norm,
    /// The root of the mean square of its gradient
    Rms,
    /// The norm of the step that Adam would take with it
    Processed,
}

/// `--first`: where the first active set of `--policy blockllm` comes from.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum First {
    /// Chance; it trains from the first step
    Random,
    /// A pass over all gradients before the first step
    FullGradient,
    /// Steps that look at gradients and train nothing
    Scan,
}

/// `--bias`: how earlier choices count against a block.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Bias {
    /// Its score is divided by how often it was chosen
    Ratio,
    /// By the exponential of its share of all choices
    Exponential,
    /// Not at all
    None,
}

/// `--fill`: how the state is spread over the best blocks.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Fill {
    /// Whole blocks, and a part of the last
    LastMasked,
    /// The same share of each of them
    Uniform,
    /// Whole blocks only
    Whole,
}

/// `--mask`: which weights of a block are the part that is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mask {
    /// Those with the largest gradients.
    Coordinate,
    /// Runs of so many neighbours, by their largest gradient.
    Tile(usize),
}

/// `--preset`: what all choices start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Preset {
    /// What measured best here
    Default,
    /// BlockLLM's paper
    Paper,
    /// BlockLLM's published code
    PublishedCode,
    /// FRUGAL: blocks at random, the rest by the sign
    Frugal,
    /// BAdam: one layer at a time
    Badam,
    /// LISA: some layers at random
    Lisa,
    /// Half fine-tuning: half of each layer
    Hft,
    /// Adam's state for every weight
    Adamw,
}

/// Its paper draws once a round of fine-tuning; here it is so many steps, unless the policy says otherwise.
const HFT_PERIOD: u64 = 100;

impl Preset {
    /// The engine's own preset.
    pub(crate) fn config(self) -> Config {
        match self {
            Self::Default => Config::default(),
            Self::Paper => Config::paper(),
            Self::PublishedCode => Config::published_code(),
            Self::Frugal => Config::frugal(),
            Self::Badam => Config::badam(),
            Self::Lisa => Config::lisa(),
            Self::Hft => Config::hft(HFT_PERIOD),
            Self::Adamw => Config::adamw(),
        }
    }
}

/// `--policy`: who is active next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PolicyChoice {
    /// The blocks with the largest gradients; `None`: by the trigger that is chosen elsewhere.
    Blockllm(Option<Trigger>),
    /// One of the engine's that are whole in themselves.
    Other(Policy),
}

/// What `--policy` takes.
const POLICIES: &str = "blockllm, full, cyclic:STEPS, lisa:STEPS:LAYERS, hft:STEPS or random:STEPS, as in lisa:20:2";

impl FromStr for PolicyChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("say {POLICIES}");
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        if kind == "blockllm" {
            let trigger = if text == kind { None } else { Some(rest.parse()?) };
            return Ok(Self::Blockllm(trigger));
        }
        let words: Vec<&str> = if rest.is_empty() { Vec::new() } else { rest.split(':').collect() };
        let count = |word: &str| match word.parse() {
            Ok(count) if count >= 1 => Ok(count),
            _ => Err(format!("'{word}' is no whole number, 1 or more")),
        };
        let policy = match (kind, &words[..]) {
            ("full", []) if text == kind => Policy::Full,
            ("cyclic", [period]) => Policy::Cyclic { period: count(period)?, order: Order::Random },
            ("cyclic", [period, order]) => Policy::Cyclic { period: count(period)?, order: order_of(order)? },
            ("lisa", [period, units]) => {
                let layers = u32::try_from(count(units)?).map_err(|_| format!("'{units}' is more layers than there can be"))?;
                Policy::Lisa { period: count(period)?, units: layers }
            }
            ("hft", [period]) => Policy::HalfFineTuning { period: count(period)? },
            ("random", [period]) => Policy::RandomBlocks { period: count(period)? },
            _ => return Err(unknown()),
        };
        Ok(Self::Other(policy))
    }
}

const ORDERS: [(&str, Order); 3] =
    [("ascending", Order::Ascending), ("descending", Order::Descending), ("random", Order::Random)];

fn order_of(word: &str) -> Result<Order, String> {
    let found = ORDERS.into_iter().find(|(name, _)| *name == word);
    found.map(|(_, order)| order).ok_or_else(|| format!("'{word}' is no order: say ascending, descending or random"))
}

/// A configuration's policy, in the words of `--policy`.
pub(crate) fn policy_text(config: &Config) -> String {
    let order_word = |order| ORDERS.into_iter().find(|(_, o)| *o == order).map_or("", |(name, _)| name);
    match &config.policy {
        Policy::BlockLlm(_) => Trigger::of(config).map_or_else(String::new, |trigger| format!("blockllm:{trigger}")),
        Policy::Full => "full".to_string(),
        Policy::Cyclic { period, order } => format!("cyclic:{period}:{}", order_word(*order)),
        Policy::Lisa { period, units } => format!("lisa:{period}:{units}"),
        Policy::HalfFineTuning { period } => format!("hft:{period}"),
        Policy::RandomBlocks { period } => format!("random:{period}"),
        other => format!("{other:?}"),
    }
}

impl FromStr for Mask {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "coordinate" => Ok(Self::Coordinate),
            Some(("tile", size)) => match size.parse() {
                Ok(size) if size >= 1 => Ok(Self::Tile(size)),
                _ => Err(format!("'{size}' is no number of weights (1 or more)")),
            },
            _ => Err("say coordinate, or tile:SIZE, as in tile:64".to_string()),
        }
    }
}

impl Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coordinate => f.write_str("coordinate"),
            Self::Tile(size) => write!(f, "tile:{size}"),
        }
    }
}

impl FromStr for Inactive {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "frozen" => Ok(Self::Frozen),
            Some(("sign", scale)) => match scale.parse() {
                Ok(scale) if positive(scale) && scale <= 1000.0 => Ok(Self::Sign(scale)),
                _ => Err(format!("'{scale}' is no number above 0, at most 1000")),
            },
            _ => Err("say frozen, or sign:SCALE, as in sign:1".to_string()),
        }
    }
}

impl FromStr for Trigger {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, steps) = text.split_once(':').unwrap_or((text, ""));
        let make = match kind {
            "period" => Self::Period,
            "patience" => Self::Patience,
            _ => return Err("say period:STEPS or patience:STEPS, as in period:10".to_string()),
        };
        match steps.parse() {
            Ok(steps) if steps >= 1 => Ok(make(steps)),
            _ => Err(format!("'{steps}' is no number of steps (1 or more)")),
        }
    }
}

/// Finite and above zero.
pub(crate) fn positive(number: f64) -> bool {
    number.is_finite() && number > 0.0
}

impl Display for Inactive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frozen => f.write_str("frozen"),
            Self::Sign(scale) => write!(f, "sign:{scale}"),
        }
    }
}

impl Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Period(steps) => write!(f, "period:{steps}"),
            Self::Patience(steps) => write!(f, "patience:{steps}"),
        }
    }
}
