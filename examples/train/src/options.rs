//! The options of a run, complete: they are kept in its folder, so that it can go on with nothing else.

use std::path::{Path, PathBuf};

use blockllm::{Config, DType};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::choices::{Methods, Preset};
use crate::cli::{self, Cli, ModelSize};
use crate::config_file::ConfigFile;
use crate::corpus;
use crate::error::{Context, Failure, Result};
use crate::fault::Fault;
use crate::files;
use crate::flags::{self, same, word};
use crate::model::Sizes;

/// Where they lie in the run's folder.
pub(crate) const FILE: &str = "options.json";
const VERSION: u32 = 2;

/// Decoupled weight decay, the same for every method and preset.
const WEIGHT_DECAY: f64 = 0.01;
/// Gradients are scaled down to this norm where theirs is greater, likewise.
const CLIP: f64 = 1.0;

/// Everything that was chosen, or is the default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Options {
    version: u32,
    pub(crate) method: Methods,
    pub(crate) preset: Preset,
    pub(crate) steps: usize,
    pub(crate) lr: f64,
    pub(crate) seed: u64,
    /// `None`: the addresses that come with the program.
    pub(crate) corpus: Option<PathBuf>,
    pub(crate) threads: usize,
    pub(crate) save_every: usize,
    pub(crate) sizes: Sizes,
    /// Of all methods but AdamW, which takes from it what is not about blocks.
    pub(crate) optimizer: Config,
}

impl Options {
    /// What the command line says, then the file, then the defaults.
    pub(crate) fn new(cli: &Cli, file: Option<&ConfigFile>) -> Result<Self> {
        let keys = file.map(|file| &file.keys);
        let method = cli.method.or(keys.and_then(|k| k.method)).unwrap_or(Methods::Both);
        refuse_without_effect(cli, file, method)?;
        let preset = cli.preset.or(keys.and_then(|k| k.preset));
        let preset = if method == Methods::Paper { Preset::Paper } else { preset.unwrap_or(Preset::Default) };
        let seed = cli.seed.or(keys.and_then(|k| k.seed)).unwrap_or(0);
        let corpus = cli.corpus.as_ref().or(keys.and_then(|k| k.corpus.as_ref()));
        let corpus =
            corpus.map(|path| std::path::absolute(path).context(|| format!("cannot read the corpus {}", path.display())));
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let options = Self {
            version: VERSION,
            method,
            preset,
            steps: cli.steps.or(keys.and_then(|k| k.steps)).unwrap_or(200),
            lr: cli.lr.or(keys.and_then(|k| k.lr)).unwrap_or(2e-3),
            seed,
            corpus: corpus.transpose()?,
            threads: cli.threads.or(keys.and_then(|k| k.threads)).unwrap_or_else(cores),
            save_every: cli.save_every.or(keys.and_then(|k| k.save_every)).unwrap_or(50),
            sizes: cli.model.map_or(Sizes::STANDARD, |model| model.0),
            optimizer: optimizer(cli, file, preset, seed)?,
        };
        let config = options.optimizer.validate(DType::F32);
        config.map_err(|error| file.map_or_else(|| Failure::new(&error), |file| file.out_of_range(&error)))?;
        Ok(options)
    }

    /// Where the text is.
    pub(crate) fn corpus(&self) -> PathBuf {
        self.corpus.clone().unwrap_or_else(corpus::built_in)
    }

    /// Reads the options of the run in this folder. They may have been edited since, so they are checked.
    pub(crate) fn load(folder: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let path = folder.join(FILE);
        let text = std::fs::read(&path).context(|| format!("there is no run in {}", folder.display()))?;
        let failed = || format!("cannot read {}", path.display());
        let Version { version } = serde_json::from_slice(&text).context(failed)?;
        if version != VERSION {
            let path = path.display();
            return Err(Failure::new(format!("{path} has version {version}, this program reads version {VERSION}")));
        }
        let options: Self = serde_json::from_slice(&text).context(failed)?;
        options.check().context(failed)?;
        Ok(options)
    }

    /// The ranges that the command line has, by its own rules.
    fn check(&self) -> std::result::Result<(), String> {
        let named = |name: &str, value: String, allowed: Option<String>| match allowed {
            Some(allowed) => Err(format!("{name} = {value}: {allowed}")),
            None => Ok(()),
        };
        let (steps, save_every, threads) = (self.steps.to_string(), self.save_every.to_string(), self.threads.to_string());
        let lr = self.lr.to_string();
        named("steps", steps.clone(), cli::at_least_one(&steps).err())?;
        named("save_every", save_every.clone(), cli::at_least_one(&save_every).err())?;
        named("threads", threads.clone(), cli::threads(&threads).err())?;
        named("lr", lr.clone(), cli::learning_rate(&lr).err())?;
        if !ModelSize::value_variants().iter().any(|model| model.0 == self.sizes) {
            return Err("sizes: they are those of no model that this program has".to_string());
        }
        self.optimizer.validate(DType::F32).map_err(|error| error.to_string())
    }

    /// Keeps them in the run's folder.
    pub(crate) fn save(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).context(|| "cannot write the options".to_string())?;
        files::write_whole(&folder.join(FILE), Fault::None, |out| out.write_all(&text))
    }

    /// A number that stands for all that the results depend on. Threads and the number of checkpoints change none.
    pub(crate) fn fingerprint(&self) -> u32 {
        let all = Self { threads: 0, save_every: 0, corpus: None, ..self.clone() };
        crc32fast::hash(format!("{all:?}").as_bytes())
    }

    /// An option that is given again when a run goes on must be as it was; the first that is not is named.
    pub(crate) fn check_against(&self, cli: &Cli) -> Result<()> {
        if let Some(file) = &cli.config {
            let file = file.display();
            return Err(Failure::new(format!("--config {file} beside --resume: a run goes on as it was started")));
        }
        let corpus = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let was = self.corpus();
        same("--method", cli.method.map(word), word(self.method))?;
        same("--preset", cli.preset.map(word), word(self.preset))?;
        same("--steps", cli.steps, self.steps)?;
        same("--lr", cli.lr, self.lr)?;
        same("--seed", cli.seed, self.seed)?;
        same("--corpus", cli.corpus.as_deref().map(corpus).as_ref().map(|path| path.display()), was.display())?;
        same("--threads", cli.threads, self.threads)?;
        same("--save-every", cli.save_every, self.save_every)?;
        same("--model", cli.model.map(word), word(ModelSize(self.sizes)))?;
        flags::check_against(cli, &self.optimizer)
    }
}

/// The engine's configuration: the preset, then the file's table, then the flags.
fn optimizer(cli: &Cli, file: Option<&ConfigFile>, preset: Preset, seed: u64) -> Result<Config> {
    // Presets leave decay and clip to the user; with those of this program they can be compared with one another.
    let base = Config { weight_decay: WEIGHT_DECAY, clip: Some(CLIP), ..preset.config() };
    let sets = |field| file.is_some_and(|file| file.sets(field));
    let mut config = file.map_or_else(|| Ok(base.clone()), |file| file.over(&base))?;
    if !sets("seed") {
        config.seed = seed;
    }
    flags::apply(cli, &mut config)?;
    // TOML has no word for "none"; and where blocks are updated one by one there can be no clip.
    if config.clip == Some(f64::INFINITY) || (config.immediate && !sets("clip")) {
        config.clip = None;
    }
    Ok(config)
}

/// What AdamW shares with the others.
const SHARED: [&str; 7] = ["betas", "eps", "weight_decay", "decay", "clip", "guard_limit", "seed"];

/// An option that would change nothing is a mistake, and silence would hide it.
fn refuse_without_effect(cli: &Cli, file: Option<&ConfigFile>, method: Methods) -> Result<()> {
    let flags = [
        ("--preset", cli.preset.is_some()),
        ("--policy", cli.policy.is_some()),
        ("--trigger", cli.trigger.is_some()),
        ("--across", cli.across.is_some()),
        ("--inactive", cli.inactive.is_some()),
        ("--score", cli.score.is_some()),
        ("--bias", cli.bias.is_some()),
        ("--fill", cli.fill.is_some()),
        ("--mask", cli.mask.is_some()),
        ("--first", cli.first.is_some()),
        ("--sparsity", cli.sparsity.is_some() && method == Methods::Adamw),
    ];
    let given = flags.iter().find(|(_, given)| *given).map(|(name, _)| (*name).to_string());
    let in_file = || {
        // A file for another method may serve AdamW as the baseline beside it.
        let file = file.filter(|_| method == Methods::Paper || cli.method.is_none())?;
        let free: &[&str] = if method == Methods::Paper { &["sparsity"] } else { &[] };
        let field = file.sets_beside(&[&SHARED, free].concat()).map(|field| format!("[optimizer] {field}"));
        file.keys.preset.map(|_| "preset".to_string()).or(field)
    };
    match (method, given.or_else(in_file)) {
        (Methods::Paper, Some(name)) => Err(Failure::new(format!(
            "{name} is fixed by --method paper; with --method blockllm --preset paper it can be chosen"
        ))),
        (Methods::Adamw, Some(name)) => Err(Failure::new(format!("{name} has no meaning with --method adamw"))),
        _ => Ok(()),
    }
}
