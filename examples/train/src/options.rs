//! The options of a run, complete: they are kept in its folder, so that it can go on with nothing else.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::choices::{Across, Bias, Fill, Inactive, Mask, Methods, Score, Trigger};
use crate::cli::Cli;
use crate::corpus;
use crate::error::{Context, Failure, Result};
use crate::fault::Fault;
use crate::files;
use crate::model::Sizes;

/// Where they lie in the run's folder.
pub(crate) const FILE: &str = "options.json";
const VERSION: u32 = 1;

/// Everything that was chosen, or is the default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Options {
    version: u32,
    pub(crate) method: Methods,
    pub(crate) steps: usize,
    pub(crate) lr: f64,
    pub(crate) seed: u64,
    /// `None`: the addresses that come with the program.
    pub(crate) corpus: Option<PathBuf>,
    pub(crate) threads: usize,
    pub(crate) sparsity: f64,
    pub(crate) trigger: Trigger,
    pub(crate) across: Across,
    pub(crate) inactive: Inactive,
    pub(crate) score: Score,
    pub(crate) bias: Bias,
    pub(crate) fill: Fill,
    pub(crate) mask: Mask,
    pub(crate) save_every: usize,
    pub(crate) sizes: Sizes,
}

impl Options {
    /// What the command line says, and the defaults for the rest.
    pub(crate) fn new(cli: &Cli) -> Result<Self> {
        let method = cli.method.unwrap_or(Methods::Both);
        refuse_without_effect(cli, method)?;
        let paper = method == Methods::Paper;
        let corpus = cli
            .corpus
            .as_ref()
            .map(|path| std::path::absolute(path).context(|| format!("cannot read the corpus {}", path.display())));
        Ok(Self {
            version: VERSION,
            method,
            steps: cli.steps.unwrap_or(200),
            lr: cli.lr.unwrap_or(2e-3),
            seed: cli.seed.unwrap_or(0),
            corpus: corpus.transpose()?,
            threads: cli.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
            sparsity: cli.sparsity.unwrap_or(0.8),
            trigger: cli.trigger.unwrap_or(if paper { Trigger::Patience(10) } else { Trigger::Period(10) }),
            across: cli.across.unwrap_or(if paper { Across::Reset } else { Across::Carry }),
            inactive: cli.inactive.unwrap_or(if paper { Inactive::Frozen } else { Inactive::Sign(1.0) }),
            score: cli.score.unwrap_or(if paper { Score::Norm } else { Score::Rms }),
            bias: cli.bias.unwrap_or(Bias::Ratio),
            fill: cli.fill.unwrap_or(Fill::LastMasked),
            mask: cli.mask.unwrap_or(Mask::Coordinate),
            save_every: cli.save_every.unwrap_or(50),
            sizes: cli.model.map_or(Sizes::STANDARD, |model| model.0),
        })
    }

    /// Where the text is.
    pub(crate) fn corpus(&self) -> PathBuf {
        self.corpus.clone().unwrap_or_else(corpus::built_in)
    }

    /// Reads the options of the run in this folder.
    pub(crate) fn load(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let text = std::fs::read(&path).context(|| format!("there is no run in {}", folder.display()))?;
        let options: Self = serde_json::from_slice(&text).context(|| format!("cannot read {}", path.display()))?;
        if options.version != VERSION {
            let (path, version) = (path.display(), options.version);
            return Err(Failure::new(format!("{path} has version {version}, this program reads version {VERSION}")));
        }
        Ok(options)
    }

    /// Keeps them in the run's folder.
    pub(crate) fn save(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).context(|| "cannot write the options".to_string())?;
        files::write_whole(&folder.join(FILE), Fault::None, |out| out.write_all(&text))
    }

    /// An option that is given again when a run goes on must be as it was; the first that is not is named.
    pub(crate) fn check_against(&self, cli: &Cli) -> Result<()> {
        let corpus = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let was = self.corpus();
        same("--method", cli.method.map(word), word(self.method))?;
        same("--steps", cli.steps, self.steps)?;
        same("--lr", cli.lr, self.lr)?;
        same("--seed", cli.seed, self.seed)?;
        same("--corpus", cli.corpus.as_deref().map(corpus).as_ref().map(|path| path.display()), was.display())?;
        same("--threads", cli.threads, self.threads)?;
        same("--sparsity", cli.sparsity, self.sparsity)?;
        same("--trigger", cli.trigger, self.trigger)?;
        same("--across", cli.across.map(word), word(self.across))?;
        same("--inactive", cli.inactive, self.inactive)?;
        same("--score", cli.score.map(word), word(self.score))?;
        same("--bias", cli.bias.map(word), word(self.bias))?;
        same("--fill", cli.fill.map(word), word(self.fill))?;
        same("--mask", cli.mask, self.mask)?;
        same("--save-every", cli.save_every, self.save_every)
    }
}

fn word(choice: impl ValueEnum) -> String {
    choice.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string())
}

fn same(name: &str, given: Option<impl Display>, was: impl Display) -> Result<()> {
    match given.map(|given| given.to_string()) {
        Some(given) if given != was.to_string() => {
            Err(Failure::new(format!("{name} {given} contradicts the run, which was started with {name} {was}")))
        }
        _ => Ok(()),
    }
}

/// An option that would change nothing is a mistake, and silence would hide it.
fn refuse_without_effect(cli: &Cli, method: Methods) -> Result<()> {
    let choices = [
        ("--trigger", cli.trigger.is_some()),
        ("--across", cli.across.is_some()),
        ("--inactive", cli.inactive.is_some()),
        ("--score", cli.score.is_some()),
        ("--bias", cli.bias.is_some()),
        ("--fill", cli.fill.is_some()),
        ("--mask", cli.mask.is_some()),
        ("--sparsity", cli.sparsity.is_some() && method == Methods::Adamw),
    ];
    let given = choices.iter().find(|(_, given)| *given).map(|(name, _)| *name);
    match (method, given) {
        (Methods::Paper, Some(name)) => {
            Err(Failure::new(format!("{name} is fixed by --method paper; with --method blockllm it can be chosen")))
        }
        (Methods::Adamw, Some(name)) => Err(Failure::new(format!("{name} has no meaning with --method adamw"))),
        _ => Ok(()),
    }
}
