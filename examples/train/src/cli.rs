//! The command line.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::error::ErrorKind;
use clap::{Parser, ValueEnum};

use crate::choices::{
    Across, Bias, Fill, First, Inactive, Mask, Method, Methods, PolicyChoice, Preset, Score, Trigger, positive,
};
use crate::error::{Failure, Result, one_line};
use crate::fault::Fault;
use crate::model::Sizes;

const ABOUT: &str = "Trains a small Llama on real English text with BlockLLM and, beside it, with AdamW.";

const LONG_ABOUT: &str = "\
Trains a small language model (a byte-level Llama of 2.76 million weights) on State of the Union addresses, twice from the \
same start and on the same text: with BlockLLM, which keeps Adam's state for a fifth of the weights at a time and moves on \
to others while it trains, and with AdamW, which keeps it for all. At the end a table says what each cost in memory and time \
and what it learned: the loss on the years that were held out, in nats a byte (lower is better; a model that knows nothing \
has 5.5, one that knows how often each byte occurs 3.2).

Nothing is downloaded, and no option has to be given. It takes a few minutes on two cores.";

const EXAMPLES: &str = "\
Examples (with cargo: cargo run --release -p blockllm-train -- OPTIONS):
  blockllm-train                                   both methods, 200 steps, into runs/pretrain
  blockllm-train --steps 400 --seed 1              longer, another start
  blockllm-train --method blockllm --sparsity 0.95 Adam's state for a twentieth of the weights
  blockllm-train --preset lisa --policy lisa:10:2  LISA in place of BlockLLM, beside AdamW
  blockllm-train --config run.toml --seed 1        options from a file, but for the seed
  blockllm-train --corpus book.txt --out runs/book your own text
  blockllm-train --resume runs/book                go on after Ctrl-C, a crash, or a power cut

In the output folder: summary.json (the table), loss.svg and blocks.svg (pictures), and for each method a folder with
metrics.jsonl (a line a step) and checkpoints (safetensors).

Exit status: 0 done, 2 something is wrong (one line on stderr says what), 130 stopped by Ctrl-C (all is saved).";

/// What can be given. Options that are not given are `None`: a run that goes on takes them from its folder.
#[derive(Debug, Parser)]
#[command(name = "blockllm-train", version, about = ABOUT, long_about = LONG_ABOUT, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Cli {
    /// What to do; pretrain is the only job so far, and the default
    #[arg(value_enum, default_value = "pretrain", hide_possible_values = true)]
    pub(crate) job: Job,

    /// What to train with [default: both]
    #[arg(long, value_enum, help_heading = "Training")]
    pub(crate) method: Option<Methods>,
    /// Steps of training, of 16 windows of 128 bytes each [default: 200]
    #[arg(long, value_parser = at_least_one, allow_negative_numbers = true, value_name = "N", help_heading = "Training")]
    pub(crate) steps: Option<usize>,
    /// Highest learning rate; it rises over 20 steps, then falls to a tenth along a cosine [default: 0.002]
    #[arg(long, value_parser = learning_rate, allow_negative_numbers = true, value_name = "RATE", help_heading = "Training")]
    pub(crate) lr: Option<f64>,
    /// Chooses the first weights and the order of the text [default: 0]
    #[arg(long, allow_negative_numbers = true, value_name = "N", help_heading = "Training")]
    pub(crate) seed: Option<u64>,
    /// Text to train on, UTF-8. Of a folder the last files in the order of their names are held out, a tenth of the bytes at
    /// most; of a file the last tenth [default: the addresses of 1950 to 2021]
    #[arg(long, value_name = "FILE_OR_DIR", help_heading = "Training")]
    pub(crate) corpus: Option<PathBuf>,
    /// Threads to compute with [default: as many as there are cores]
    #[arg(long, value_parser = threads, allow_negative_numbers = true, value_name = "N", help_heading = "Training")]
    pub(crate) threads: Option<usize>,

    /// What the choices below start from: the engine's default, or the ways of papers and of their codes
    /// [default: default]
    #[arg(long, value_enum, help_heading = "BlockLLM")]
    pub(crate) preset: Option<Preset>,
    /// Who has Adam's state when: blockllm, the blocks with the largest gradients; cyclic:K[:ORDER] one layer at a time, K
    /// steps each, ascending, descending or random; lisa:K:N, N layers at random; hft:K, half of each layer at random;
    /// random:K, blocks at random; each anew every K steps; full, all [default: blockllm]
    #[arg(long, value_name = "WHO", help_heading = "BlockLLM")]
    pub(crate) policy: Option<PolicyChoice>,
    /// Share of the weights that are without Adam's state at any time, from 0 up to but not including 1 [default: 0.8]
    #[arg(long, value_parser = sparsity, allow_negative_numbers = true, value_name = "SHARE", help_heading = "BlockLLM")]
    pub(crate) sparsity: Option<f64>,
    /// When to choose other weights: period:K every K steps, patience:M when the loss is no better than the mean of the last M
    /// [default: period:10]
    #[arg(long, value_name = "WHEN", help_heading = "BlockLLM")]
    pub(crate) trigger: Option<Trigger>,
    /// What happens to the state of weights that are chosen again [default: carry]
    #[arg(long, value_enum, help_heading = "BlockLLM")]
    pub(crate) across: Option<Across>,
    /// What happens to weights without state: frozen, or sign:SCALE, a step of SCALE times the learning rate against the
    /// sign of the gradient [default: sign:1]
    #[arg(long, value_name = "HOW", help_heading = "BlockLLM")]
    pub(crate) inactive: Option<Inactive>,
    /// What ranks the blocks (weight matrices) when weights are chosen [default: rms]
    #[arg(long, value_enum, help_heading = "BlockLLM")]
    pub(crate) score: Option<Score>,
    /// How earlier choices count against a block [default: ratio]
    #[arg(long, value_enum, help_heading = "BlockLLM")]
    pub(crate) bias: Option<Bias>,
    /// How the state is spread over the best blocks [default: last-masked]
    #[arg(long, value_enum, help_heading = "BlockLLM")]
    pub(crate) fill: Option<Fill>,
    /// Which weights of a block are chosen where only a part of it is: coordinate, those with the largest gradients, or
    /// tile:SIZE, runs of SIZE neighbours [default: coordinate]
    #[arg(long, value_name = "KIND", help_heading = "BlockLLM")]
    pub(crate) mask: Option<Mask>,
    /// Where the first choice comes from [default: random]
    #[arg(long, value_enum, help_heading = "BlockLLM")]
    pub(crate) first: Option<First>,

    /// Options from a TOML file: method, preset, steps, lr, seed, threads, corpus, out, save_every, and in its table [optimizer]
    /// any field of blockllm::Config; what is given here besides wins
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub(crate) config: Option<PathBuf>,
    /// Folder to write to; it must not hold a run yet [default: runs/pretrain, or runs/pretrain-2 and so on]
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    pub(crate) out: Option<PathBuf>,
    /// Go on with the run in this folder, with the options that it was started with
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    pub(crate) resume: Option<PathBuf>,
    /// Save a checkpoint every N steps; the newest two are kept [default: 50]
    #[arg(long, value_parser = at_least_one, allow_negative_numbers = true, value_name = "N", help_heading = "Files")]
    pub(crate) save_every: Option<usize>,

    /// Sizes of model and batch (for tests)
    #[arg(long, value_enum, hide = true)]
    pub(crate) model: Option<ModelSize>,
    /// A fault of the disk: full-after:BYTES or slow:MILLISECONDS (for tests)
    #[arg(long, hide = true)]
    pub(crate) fault: Option<Fault>,
    /// This is the process that trains with one method, and --out is the run's folder (used between processes)
    #[arg(long, value_enum, hide = true)]
    pub(crate) child: Option<Method>,
}

/// What the program can do.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Job {
    /// Train from the beginning.
    Pretrain,
}

/// `--model`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ModelSize(pub(crate) Sizes);

impl ValueEnum for ModelSize {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self(Sizes::STANDARD), Self(Sizes::TINY)]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(if self.0 == Sizes::TINY { "tiny" } else { "standard" }))
    }
}

impl Cli {
    /// Reads the command line. `None`: it asked for help, which has been given.
    pub(crate) fn read() -> Result<Option<Self>> {
        match Self::try_parse() {
            Ok(cli) => Ok(Some(cli)),
            Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
                // A reader that has seen enough may have closed the pipe.
                let _ = error.print();
                Ok(None)
            }
            Err(error) => Err(Failure::new(first_paragraph(&error.to_string()))),
        }
    }
}

/// clap explains over several lines; the first paragraph says what is wrong.
fn first_paragraph(text: &str) -> String {
    let paragraph = text.split("\n\n").next().unwrap_or(text);
    one_line(paragraph.strip_prefix("error: ").unwrap_or(paragraph))
}

pub(crate) fn at_least_one(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(number) if number >= 1 => Ok(number),
        _ => Err("it must be a whole number, 1 or more".to_string()),
    }
}

pub(crate) fn threads(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=1024).contains(&number) => Ok(number),
        _ => Err("it must be a whole number from 1 to 1024".to_string()),
    }
}

fn sparsity(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..1.0).contains(&share) => Ok(share),
        _ => Err("it must be a number from 0 up to but not including 1".to_string()),
    }
}

pub(crate) fn learning_rate(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        // Far above what trains, and far below what overflows once the run has begun.
        Ok(rate) if positive(rate) && rate <= 1000.0 => Ok(rate),
        _ => Err("it must be a number above 0, at most 1000".to_string()),
    }
}
