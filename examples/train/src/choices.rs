//! The values that options take, and how they are written.

use std::fmt::{self, Display};
use std::str::FromStr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// `--method`.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Methods {
    /// BlockLLM, as --inactive, --trigger, --across and --sparsity say
    Blockllm,
    /// BlockLLM as in its paper: frozen, patience:10, reset
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
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Inactive {
    /// Nothing.
    Frozen,
    /// Each moves by this times the learning rate, against the sign of its gradient.
    Sign(f64),
}

/// `--trigger`: when a new active set is decided on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Trigger {
    /// Every so many steps.
    Period(usize),
    /// When the loss is no better than the mean of the last so many.
    Patience(usize),
}

/// `--across`: what becomes of the moments of a coordinate that stays active.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Across {
    /// All moments start at zero
    Reset,
    /// Coordinates that stay active keep theirs
    Carry,
}

/// `--score`: what a block's gradient is worth.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Score {
    /// The norm of its gradient
    Norm,
    /// The root of the mean square of its gradient
    Rms,
}

/// `--bias`: how earlier choices count against a block.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Bias {
    /// Its score is divided by how often it was chosen
    Ratio,
    /// By the exponential of its share of all choices
    Exponential,
    /// Not at all
    None,
}

/// `--fill`: how the state is spread over the best blocks.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Fill {
    /// Whole blocks, and a part of the last
    LastMasked,
    /// The same share of each of them
    Uniform,
    /// Whole blocks only
    Whole,
}

/// `--mask`: which weights of a block are the part that is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Mask {
    /// Those with the largest gradients.
    Coordinate,
    /// Runs of so many neighbours, by their largest gradient.
    Tile(usize),
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

/// Options are kept in the words in which they are given.
macro_rules! kept_as_text {
    ($($choice:ty),*) => {$(
        impl TryFrom<String> for $choice {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
        impl From<$choice> for String {
            fn from(choice: $choice) -> Self {
                choice.to_string()
            }
        }
    )*};
}
kept_as_text!(Inactive, Trigger, Mask);
