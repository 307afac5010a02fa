//! The optimizer for candle: the engine, fed from backward passes.

mod engine;
mod trait_impl;

pub use engine::CandleBackend;
pub use trait_impl::ParamsBlockLlm;

use crate::parameter::{GradientSink, Parameter, SinkSlot};
use crate::store::ParameterStore;
use crate::tensors::{self, CandleTensors};
use blockllm::{BlockSpec, Config, MemoryReport, Record, Reference, Step, StepReport};
use candle_core::backprop::GradStore;
use candle_core::{Error, Result, Tensor, Var};
use engine::{Engine, wrap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// BlockLLM over candle's weights, which it updates in place.
///
/// ```
/// use blockllm::Config;
/// use blockllm_candle::{BlockLlm, Linear, Module, ParameterStore};
/// use candle_core::{DType, Device, Tensor};
///
/// # fn main() -> candle_core::Result<()> {
/// let mut store = ParameterStore::new();
/// let weight = Tensor::randn(0f32, 0.1, (1, 4), &Device::Cpu)?;
/// let linear = Linear::new(store.add("linear", &weight)?)?;
/// let mut optimizer: BlockLlm = BlockLlm::new(&store, Config { sparsity: 0.5, ..Config::default() }, 1e-2)?;
///
/// let x = Tensor::randn(0f32, 1.0, (8, 4), &Device::Cpu)?;
/// for _ in 0..3 {
///     let loss = linear.forward(&x)?.sqr()?.mean_all()?;
///     let report = optimizer.backward_step(&loss)?;
///     assert_eq!(report.active_coordinates(), 2);
/// }
/// # Ok(())
/// # }
/// ```
///
/// Weights of layers of this crate hand their gradient over while backward runs, so that none is kept; gradients of
/// weights in other layers are taken from candle's [`GradStore`] when it is done. A weight that is used twice in one
/// graph delivers two gradients, which is an error: tie weights in layers that add their gradients before.
pub struct BlockLlm<B: CandleBackend = Reference<CandleTensors>> {
    engine: Arc<Mutex<Engine<B>>>,
    parameters: Vec<Parameter>,
    slot: SinkSlot,
    /// What this optimizer put into the slot.
    sink: Arc<dyn GradientSink>,
    lr: f64,
    loss: Option<f64>,
    window: Option<Window>,
}

/// A step of several micro-batches that is open.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    /// Backward passes that have ended.
    pub done: u32,
    pub of: u32,
}

/// Rows and columns of a weight: the first dimension, and the rest.
fn shape(var: &Var) -> [usize; 2] {
    match var.dims() {
        [] => [1, 1],
        [n] => [1, *n],
        [rows, rest @ ..] => [*rows, rest.iter().product()],
    }
}

impl BlockLlm {
    /// An optimizer on the reference backend for all weights of a store, each a block of its own under its name.
    ///
    /// # Errors
    /// A configuration that is out of range, or does not fit the weights.
    pub fn new(store: &ParameterStore, config: Config, lr: f64) -> Result<Self> {
        Self::with_backend(Reference::default(), store, config, lr, |spec| spec)
    }
}

impl<B: CandleBackend> BlockLlm<B> {
    /// An optimizer on this backend. `describe` may complete each block's description: its group, whether it is always
    /// active or frozen, its scales.
    ///
    /// # Errors
    /// As [`BlockLlm::new`].
    pub fn with_backend(
        backend: B, store: &ParameterStore, config: Config, lr: f64, describe: impl Fn(BlockSpec) -> BlockSpec,
    ) -> Result<Self> {
        let specs =
            store.iter().map(|p| describe(BlockSpec::new(p.name(), shape(p.var())).dtype(tensors::dtype(p.var().dtype()))));
        let vars = store.iter().map(|p| p.var().clone()).collect();
        let engine = Arc::new(Mutex::new(Engine::new(backend, &specs.collect::<Vec<_>>(), config, vars)?));
        let sink: Arc<dyn GradientSink> = Arc::new(Sink(engine.clone()));
        store.set_sink(Some(sink.clone()));
        let optimizer = Self {
            engine,
            parameters: store.iter().cloned().collect(),
            slot: store.sink_slot(),
            sink,
            lr,
            loss: None,
            window: None,
        };
        optimizer.mark_wanted()?;
        Ok(optimizer)
    }

    fn engine(&self) -> MutexGuard<'_, Engine<B>> {
        // A panic in another thread's step leaves the engine poisoned by its own rules, if at all.
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the layers which weights the next step wants gradients of.
    fn mark_wanted(&self) -> Result<()> {
        let engine = self.engine();
        let wanted = engine.optimizer.wanted_of(self.window.is_none_or(|w| w.done + 1 == w.of)).map_err(wrap)?;
        for p in &self.parameters {
            let wants = wanted.binary_search_by_key(&(p.block() as u32), |w| w.block).is_ok();
            p.set_wanted(wants);
        }
        Ok(())
    }

    /// The learning rate of the next step.
    pub fn lr(&self) -> f64 {
        self.lr
    }

    /// Sets the learning rate of the steps from now on.
    pub fn set_lr(&mut self, lr: f64) {
        self.lr = lr;
    }

    /// Hands over a loss for the next step, for callers that step without one.
    pub fn set_loss(&mut self, loss: f64) {
        self.loss = Some(loss);
    }

    /// One step from a scalar loss: backward, update, and the decision where there is one. The forward pass of the next
    /// step then records just the weights it wants. In a window ([`Self::begin_window`]) it is the last micro-batch's.
    ///
    /// # Errors
    /// A wanted gradient that is missing, named; backward's own; [`blockllm::Error::Void`] of a forced decision and
    /// [`blockllm::Error::GuardStreak`], after which the step stands; [`blockllm::Error::Order`] before a window's last
    /// micro-batch, which stays open. After any other error the weights are as before, but for what state-free updates had
    /// moved already, and a window is closed. Where each weight is updated as its gradient arrives (`Config::immediate`) those
    /// that were updated stay so, and the step stays open: restore a record.
    pub fn backward_step(&mut self, loss: &Tensor) -> Result<StepReport> {
        let value = loss.to_dtype(candle_core::DType::F64)?.to_scalar::<f64>()?;
        match self.window {
            Some(w) if w.done + 1 < w.of => {
                let need = "the window has more micro-batches: accumulate them first";
                return Err(wrap::<B::Error>(blockllm::Error::Order { call: "backward_step", need }));
            }
            Some(_) => self.engine().next_micro_batch(Some(value))?,
            None => self.engine().begin(Step::new(self.lr).loss(value))?,
        }
        self.loss = None;
        self.backward(loss)?;
        self.window = None;
        let finished = self.engine().finish();
        self.after(finished)
    }

    /// Begins a step whose gradient is the sum over this many micro-batches: [`Self::accumulate`] for each but the last,
    /// [`Self::backward_step`] for that. Call it before the first forward pass: until the last one, layers record just the
    /// active weights. Averaging is the caller's: divide each loss by the number of micro-batches (the clip and what is
    /// reported are then those of the mean; the loss that decides is the last one's as given).
    ///
    /// # Errors
    /// [`blockllm::Error::Step`] for no micro-batch, [`blockllm::Error::Order`] where a window is open.
    pub fn begin_window(&mut self, micro_batches: u32) -> Result<()> {
        // A window of one needs its loss to begin with.
        if micro_batches != 1 || self.window.is_some() {
            self.engine().begin(Step::new(self.lr).micro_batches(micro_batches))?;
            self.window = Some(Window { done: 0, of: micro_batches });
        }
        self.mark_wanted()
    }

    /// The backward pass of a micro-batch before the last: its gradients are added up in the optimizer, and none is kept.
    ///
    /// # Errors
    /// [`blockllm::Error::Order`] where no window is open or its last micro-batch is next. As [`Self::backward_step`];
    /// the window is then closed, and nothing of it stays.
    pub fn accumulate(&mut self, loss: &Tensor) -> Result<()> {
        let Some(window) = self.window.filter(|w| w.done + 1 < w.of) else {
            let need = "begin_window comes first, and backward_step takes the last micro-batch";
            return Err(wrap::<B::Error>(blockllm::Error::Order { call: "accumulate", need }));
        };
        if window.done > 0 {
            self.engine().next_micro_batch(None)?;
        }
        self.backward(loss)?;
        self.window = Some(Window { done: window.done + 1, ..window });
        self.mark_wanted()
    }

    /// Backward of an open step, which is dropped where it fails.
    fn backward(&mut self, loss: &Tensor) -> Result<()> {
        let streamed = loss.backward().and_then(|grads| self.engine().take_stored(&grads));
        if streamed.is_err() {
            self.engine().abort();
            self.window = None;
            // The error that led here is the one to tell.
            let _ = self.mark_wanted();
        }
        streamed
    }

    /// One step from gradients that are all at hand, with the loss of [`Self::set_loss`] if there is one. For layers of
    /// other crates: those of this crate stream, and need [`Self::backward_step`].
    ///
    /// # Errors
    /// As [`Self::backward_step`]; [`blockllm::Error::MissingLoss`] where the policy decides by the loss and none was set.
    pub fn step_with(&mut self, grads: &GradStore) -> Result<StepReport> {
        let (loss, before) = (self.loss, self.engine().optimizer.steps());
        let stepped = self.engine().step(Step { loss, ..Step::new(self.lr) }, grads);
        if self.engine().optimizer.steps() > before {
            self.loss = None; // a step that was refused has not used it up
        }
        self.after(stepped)
    }

    fn after(&mut self, outcome: Result<StepReport>) -> Result<StepReport> {
        // The step stands after some errors, and the set may have changed: the layers must know in any case.
        match self.mark_wanted() {
            Ok(()) => outcome,
            Err(error) => outcome.and(Err(error)),
        }
    }

    /// Runs `f` on the engine between steps: to freeze, thaw, force a decision, or look at what is active; in a window, to
    /// abort it.
    ///
    /// # Errors
    /// Where `f` leaves the engine in a state in which no step can begin.
    pub fn with_engine<R>(&mut self, f: impl FnOnce(&mut blockllm::Optimizer<B>) -> R) -> Result<R> {
        let out = f(&mut self.engine().optimizer);
        if !self.engine().is_open() {
            self.window = None; // it was aborted
        }
        self.mark_wanted()?;
        Ok(out)
    }

    /// Everything that a bit-exact continuation needs, but for the weights. In a window too, between two micro-batches.
    ///
    /// # Errors
    /// The engine's.
    pub fn save(&mut self) -> Result<Record> {
        self.engine().optimizer.save().map_err(wrap)
    }

    /// Goes on where the record was made, in its window where it was made in one.
    ///
    /// # Errors
    /// A record that does not fit: the optimizer is as it was.
    pub fn restore(&mut self, record: &Record) -> Result<()> {
        self.engine().optimizer.restore(record).map_err(wrap)?;
        let window = self.engine().window();
        self.window = window;
        self.mark_wanted()
    }

    /// Bytes held, and bytes of the gradients that the next step asks for.
    pub fn memory(&self) -> MemoryReport {
        self.engine().optimizer.memory()
    }

    /// The most bytes of gradients that lived at once so far: the packed buffer, what was being delivered, and what
    /// candle's store held at the end of a backward pass.
    pub fn gradient_bytes_peak(&self) -> usize {
        self.engine().gradient_bytes_peak()
    }
}

impl<B: CandleBackend> Drop for BlockLlm<B> {
    fn drop(&mut self) {
        // Else the store's layers would keep the moments alive, and deliver to nobody. A successor stays plugged in.
        let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        if !slot.as_ref().is_some_and(|s| Arc::ptr_eq(s, &self.sink)) {
            return;
        }
        *slot = None;
        self.parameters.iter().for_each(|p| p.set_wanted(true));
    }
}

struct Sink<B: CandleBackend>(Arc<Mutex<Engine<B>>>);

impl<B: CandleBackend> GradientSink for Sink<B> {
    fn receive(&self, block: usize, weight: &Var, gradient: &Tensor) -> Result<()> {
        let mut engine = self.0.lock().map_err(|_| Error::Msg("the optimizer panicked in an earlier step".into()))?;
        if !engine.is_open() {
            return Err(Error::Msg(
                "this layer streams its gradient into an optimizer that has no step open: use its backward_step".into(),
            ));
        }
        engine.receive(block as u32, weight, gradient)
    }
}
