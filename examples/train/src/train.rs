//! One training run, in a process of its own.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::batch::Batch;
use crate::checkpoint::{self, Leaf, Run, State, Totals};
use crate::choices;
use crate::console::note;
use crate::corpus::Corpus;
use crate::coverage::Coverage;
use crate::error::{Context, Failure, Result};
use crate::fault::Fault;
use crate::files;
use crate::memory;
use crate::method::{self, Method};
use crate::metrics::{self, Line, Metrics};
use crate::model::Model;
use crate::options::Options;
use crate::progress::{Progress, Shown};
use crate::stop;
use crate::store::Store;
use crate::summary::RunSummary;

/// Steps over which the learning rate rises.
const WARM_UP: usize = 20;

/// Trains, from the newest checkpoint if there is one, and leaves a result in the method's folder.
pub(crate) fn run(out: &Path, method: choices::Method, fault: Fault) -> Result<()> {
    stop::watch_child()?;
    let mut trainer = Trainer::new(out, method, fault)?;
    while trainer.state.step < trainer.options.steps {
        trainer.step()?;
    }
    trainer.finish()
}

/// The learning rate of a step (the first is 1): a linear rise, under a cosine that ends at a tenth.
fn learning_rate(step: usize, options: &Options) -> f64 {
    let rise = (step as f64 / WARM_UP as f64).min(1.0);
    let cosine = 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / options.steps as f64).cos());
    options.lr * rise * (0.1 + 0.9 * cosine)
}

struct Trainer {
    options: Options,
    folder: PathBuf,
    corpus: Corpus,
    model: Model,
    method: Method,
    coverage: Coverage,
    store: Store,
    metrics: Metrics,
    progress: Progress,
    state: State,
    /// As the totals stood when this process began.
    before: Totals,
    start: Instant,
}

impl Trainer {
    fn new(out: &Path, kind: choices::Method, fault: Fault) -> Result<Self> {
        let start = Instant::now();
        let options = Options::load(out)?;
        let folder = out.join(kind.name());
        std::fs::create_dir_all(&folder).context(|| format!("cannot make {}", folder.display()))?;
        // Locks the folder: what another process leaves half written is not cleaned up under its hands.
        let mut metrics = Metrics::open(&folder)?;
        files::remove_partial(&folder)?;
        let corpus = Corpus::load(&options.corpus(), options.sizes.context)?;
        let model = Model::new(options.sizes, options.seed)?;
        let store = Store::new(&folder, fault);
        let saved = store.newest(|text| note(format_args!("warning: {text}")))?;
        let mut progress = Progress::new(kind.title(), saved.as_ref().map_or(0, |(state, _)| state.step), options.steps);

        let run = this_run(kind, &options, &corpus);
        let (state, leaves) = match saved {
            Some((state, leaves)) if state.run == run => (state, Some(leaves)),
            Some(_) => {
                let folder = folder.display();
                let what = "the options in options.json, or the text differ";
                return Err(Failure::new(format!("the checkpoints in {folder} are of another run: {what}")));
            }
            None => {
                progress.doing("measuring the loss before training");
                let val_loss_before = held_out_loss(&model, &corpus, &options)?;
                (State { run, step: 0, metrics_bytes: 0, val_loss_before, totals: Totals::default() }, None)
            }
        };
        // From here on the optimizer says which weights want a gradient.
        let mut method = Method::new(kind, &options, model.weights())?;
        let mut coverage = Coverage::new(model.weights().iter().map(|weight| weight.shape().elem_count()));
        if let Some(leaves) = leaves {
            coverage.restore(&leaves)?;
            method.restore(&leaves)?;
            checkpoint::restore_weights(model.weights(), &leaves)?;
        }
        metrics.cut(state.metrics_bytes)?;
        progress.begin();
        let before = state.totals.clone();
        let mut trainer =
            Self { options, folder, corpus, model, method, coverage, store, metrics, progress, state, before, start };
        trainer.look_first()?;
        Ok(trainer)
    }

    /// Passes over all gradients where the first active set comes from them. Nothing is trained, and no step is counted;
    /// a run that was stopped before its first checkpoint does them again.
    fn look_first(&mut self) -> Result<()> {
        for pass in 1..=method::MOST_PASSES {
            if !self.method.wants_full_gradient()? {
                return Ok(());
            }
            stop::check()?;
            let loss = self.model.loss(&self.batch(pass)?)?;
            self.method.backward_step(loss, 0.0)?;
        }
        let passes = method::MOST_PASSES;
        Err(Failure::new(format!("no first active set: after {passes} passes there are blocks whose gradients are not finite")))
    }

    /// The text of a step.
    fn batch(&self, step: usize) -> Result<Batch> {
        let sizes = self.options.sizes;
        Ok(Batch::random(&self.corpus.train, self.options.seed, step, sizes.batch, sizes.context)?)
    }

    fn step(&mut self) -> Result<()> {
        let (step, sizes) = (self.state.step + 1, self.options.sizes);
        let lr = learning_rate(step, &self.options);
        let batch = self.batch(step)?;
        let start = Instant::now();
        let loss = self.model.loss(&batch)?;
        let value = f64::from(loss.to_scalar::<f32>()?);
        let info = self.method.backward_step(loss, lr)?;
        let ms = start.elapsed().as_secs_f64() * 1e3;

        if info.switched {
            self.method.cover(&mut self.coverage)?;
        }
        let active = info.active.iter().map(|(_, count)| count).sum();
        let totals = &mut self.state.totals;
        totals.reselections += usize::from(info.decision);
        totals.skipped += usize::from(info.skipped);
        totals.params_active_max = totals.params_active_max.max(active);
        let finite = |x: f64| x.is_finite().then_some(x);
        self.metrics.push(&Line {
            step,
            loss: finite(value),
            lr,
            active,
            blocks: info.active,
            grad_norm: finite(info.grad_norm),
            decision: info.decision,
            skipped: info.skipped,
            ms,
        })?;
        let active_share = active as f64 / self.model.weights().coordinates() as f64;
        self.progress.step(&Shown { step, loss: value, tokens: sizes.batch * sizes.context, active_share });
        self.state.step = step;
        if info.error.is_some() || stop::asked() || step.is_multiple_of(self.options.save_every) || step == self.options.steps {
            self.save()?;
        }
        info.error.map_or_else(stop::check, Err)
    }

    fn save(&mut self) -> Result<()> {
        // First the lines, then the checkpoint that counts on them.
        self.state.metrics_bytes = self.metrics.sync()?;
        self.state.totals = self.totals();
        let mut leaves: Vec<Leaf> = checkpoint::save_weights(self.model.weights())?;
        leaves.extend(self.method.save()?);
        leaves.push(self.coverage.save());
        self.store.save(&self.state, &leaves)
    }

    /// The totals over this process and those before it.
    fn totals(&self) -> Totals {
        Totals {
            gradient_bytes_peak: self.before.gradient_bytes_peak.max(self.method.gradient_bytes_peak()),
            peak_rss_bytes: self.before.peak_rss_bytes.max(memory::peak_rss_bytes()),
            seconds: self.before.seconds + self.start.elapsed().as_secs_f64(),
            ..self.state.totals.clone()
        }
    }

    fn finish(self) -> Result<()> {
        self.progress.doing("measuring the loss after training");
        let totals = self.totals(); // before the measurement, which is no part of the training
        let val_loss_after = held_out_loss(&self.model, &self.corpus, &self.options)?;
        if totals.skipped > 0 {
            note(format_args!("warning: {} steps were left out, as a gradient was not finite", totals.skipped));
        }
        let sizes = self.options.sizes;
        let result = RunSummary {
            method: self.state.run.method,
            policy: self.state.run.policy,
            options_crc: self.state.run.options_crc,
            seed: self.options.seed,
            params_total: self.model.weights().coordinates(),
            params_active_max: totals.params_active_max,
            params_ever_active: self.coverage.coordinates(),
            optimizer_state_bytes: self.method.into_state_bytes(),
            gradient_bytes_peak: totals.gradient_bytes_peak,
            val_loss_before: self.state.val_loss_before,
            val_loss_after,
            tokens: self.options.steps * sizes.batch * sizes.context,
            step_ms_median: metrics::median_ms(&metrics::read(&self.folder)),
            peak_rss_bytes: totals.peak_rss_bytes,
            reselections: totals.reselections,
            blocks_total: self.model.weights().len(),
            blocks_ever_active: self.coverage.blocks(),
        };
        result.save(&self.folder)
    }
}

fn this_run(method: choices::Method, options: &Options, corpus: &Corpus) -> Run {
    Run {
        method: method.name().to_string(),
        policy: method::policy(method, options),
        options_crc: options.fingerprint(),
        seed: options.seed,
        steps: options.steps,
        sizes: options.sizes,
        corpus_crc: corpus.crc,
    }
}

/// The mean loss on the held-out text, in nats a byte.
fn held_out_loss(model: &Model, corpus: &Corpus, options: &Options) -> Result<f64> {
    model.weights().set_wanted(|_| false); // so that no graph is recorded
    let sizes = options.sizes;
    let (mut sum, mut windows) = (0.0, 0);
    for batch in Batch::spaced(&corpus.held_out, sizes.held_out_windows, sizes.batch, sizes.context) {
        stop::check()?;
        let batch = batch?;
        let count = batch.inputs.dim(0)?;
        sum += f64::from(model.loss(&batch)?.to_scalar::<f32>()?) * count as f64;
        windows += count;
    }
    Ok(sum / windows as f64)
}
