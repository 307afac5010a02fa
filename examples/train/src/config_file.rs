//! `--config FILE.toml`: what the command line can choose, and in its table `[optimizer]` the engine's whole configuration.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Range;
use std::path::{Path, PathBuf};

use blockllm::Config;
use clap::ValueEnum;
use serde::{Deserialize, Deserializer};
use toml::{Spanned, Table, Value};

use crate::choices::{Methods, Preset};
use crate::cli;
use crate::error::{Context, Failure, Result, one_line};
use crate::flags::word;

/// A file that was read. Its values have been checked one by one, but for the ranges of `[optimizer]`.
pub(crate) struct ConfigFile {
    path: PathBuf,
    text: String,
    /// All but `[optimizer]`.
    pub(crate) keys: Keys,
}

/// What a file may say. Paths are relative to its folder.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Keys {
    #[serde(deserialize_with = "choice")]
    pub(crate) method: Option<Methods>,
    #[serde(deserialize_with = "choice")]
    pub(crate) preset: Option<Preset>,
    #[serde(deserialize_with = "steps")]
    pub(crate) steps: Option<usize>,
    #[serde(deserialize_with = "learning_rate")]
    pub(crate) lr: Option<f64>,
    #[serde(deserialize_with = "seed")]
    pub(crate) seed: Option<u64>,
    #[serde(deserialize_with = "threads")]
    pub(crate) threads: Option<usize>,
    #[serde(deserialize_with = "steps")]
    pub(crate) save_every: Option<usize>,
    pub(crate) corpus: Option<PathBuf>,
    pub(crate) out: Option<PathBuf>,
    optimizer: BTreeMap<String, Spanned<Value>>,
}

/// The same file, read for the types in its table: the engine's own errors then bear the place.
#[derive(Deserialize)]
struct Typed {
    #[serde(default, rename = "optimizer")]
    _optimizer: Config,
}

impl ConfigFile {
    /// Reads a file.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).context(|| format!("cannot read {}", path.display()))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let offset = error.utf8_error().valid_up_to();
            Failure::new(format!("{} is not UTF-8 text (first bad byte at offset {offset})", path.display()))
        })?;
        let mut file = Self { path: path.to_path_buf(), text, keys: Keys::default() };
        file.keys = toml::from_str(&file.text).map_err(|error| file.wrong(&error))?;
        toml::from_str::<Typed>(&file.text).map_err(|error| file.wrong(&error))?;
        if file.text.parse::<Table>().is_ok_and(|table| table.is_empty()) {
            return Err(Failure::new(format!("{} sets nothing", path.display())));
        }
        let folder = std::path::absolute(path).context(|| format!("cannot read {}", path.display()))?;
        let folder = folder.parent().unwrap_or(Path::new("/"));
        for path in [&mut file.keys.corpus, &mut file.keys.out].into_iter().flatten() {
            *path = folder.join(&*path);
        }
        Ok(file)
    }

    fn line(&self, span: &Range<usize>) -> usize {
        1 + self.text.bytes().take(span.start).filter(|byte| *byte == b'\n').count()
    }

    fn wrong(&self, error: &toml::de::Error) -> Failure {
        let place = error.span().map_or_else(String::new, |span| format!(", line {}", self.line(&span)));
        Failure::new(format!("{}{place}: {}", self.path.display(), one_line(error.message())))
    }

    /// A configuration with the fields that the table sets in place of its own.
    pub(crate) fn over(&self, base: &Config) -> Result<Config> {
        let failed = || format!("{}: [optimizer]", self.path.display());
        let mut table = Table::try_from(base).context(failed)?;
        table.extend(self.keys.optimizer.iter().map(|(key, value)| (key.clone(), value.get_ref().clone())));
        table.try_into().context(failed)
    }

    /// Whether the table sets this field.
    pub(crate) fn sets(&self, field: &str) -> bool {
        self.keys.optimizer.contains_key(field)
    }

    /// The first field of the table that is not among these.
    pub(crate) fn sets_beside(&self, fields: &[&str]) -> Option<&str> {
        self.keys.optimizer.keys().map(String::as_str).find(|key| !fields.contains(key))
    }

    /// An error about the engine's configuration, with the place of the field where the table sets it.
    pub(crate) fn out_of_range(&self, error: &blockllm::Error<Infallible>) -> Failure {
        let blockllm::Error::Config { field, value, allowed } = error else { return Failure::new(error) };
        // Names of numbers inside a field.
        let key = match *field {
            "beta" => "betas",
            "tile" => "mask",
            "sign scale" => "inactive",
            "period" | "units" => "policy",
            field => field,
        };
        match self.keys.optimizer.get(key) {
            Some(set) => {
                let (path, line) = (self.path.display(), self.line(&set.span()));
                Failure::new(format!("{path}, line {line}: {field} = {value} must be {allowed}"))
            }
            None => Failure::new(error),
        }
    }
}

/// A value that the command line could give too, by the command line's own rules.
fn as_given<'de, D: Deserializer<'de>, T>(
    value: D, read: impl Fn(&str) -> std::result::Result<T, String>,
) -> std::result::Result<Option<T>, D::Error> {
    let value = Value::deserialize(value)?;
    // A number in quotes keeps them, and is none.
    let text = value.to_string();
    read(&text).map(Some).map_err(|allowed| serde::de::Error::custom(format!("{text}: {allowed}")))
}

fn steps<'de, D: Deserializer<'de>>(value: D) -> std::result::Result<Option<usize>, D::Error> {
    as_given(value, cli::at_least_one)
}

fn threads<'de, D: Deserializer<'de>>(value: D) -> std::result::Result<Option<usize>, D::Error> {
    as_given(value, cli::threads)
}

fn learning_rate<'de, D: Deserializer<'de>>(value: D) -> std::result::Result<Option<f64>, D::Error> {
    as_given(value, cli::learning_rate)
}

fn seed<'de, D: Deserializer<'de>>(value: D) -> std::result::Result<Option<u64>, D::Error> {
    as_given(value, |text| text.parse().map_err(|_| "it must be a whole number, 0 or more".to_string()))
}

fn choice<'de, D: Deserializer<'de>, T: ValueEnum>(value: D) -> std::result::Result<Option<T>, D::Error> {
    let text = String::deserialize(value)?;
    let all = || T::value_variants().iter().map(|choice| word(choice.clone())).collect::<Vec<_>>().join(", ");
    T::from_str(&text, false).map(Some).map_err(|_| serde::de::Error::custom(format!("\"{text}\": it must be one of {}", all())))
}
