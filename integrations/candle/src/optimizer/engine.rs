//! The engine with the weights it moves, behind the lock that backward's deliveries and the caller share.

use blockllm::{Backend, BackendError, BlockSpec, Config, Optimizer, Step, StepReport};
use candle_core::backprop::GradStore;
use candle_core::{Error, Result, Tensor, Var};

/// Backends that work on candle's tensors: `Reference<CandleTensors>` and whatever else takes
/// [`CandleTensors`](crate::CandleTensors).
pub trait CandleBackend:
    for<'a> Backend<Param<'a> = Var, Grad<'a> = Tensor, Buffer: Send, Ticket: Send, Error: BackendError + Send + Sync + 'static>
    + Send
    + 'static
{
}

impl<B> CandleBackend for B where
    B: for<'a> Backend<
            Param<'a> = Var,
            Grad<'a> = Tensor,
            Buffer: Send,
            Ticket: Send,
            Error: BackendError + Send + Sync + 'static,
        > + Send
        + 'static
{
}

/// The engine's error as candle's, with the original inside.
pub(super) fn wrap<E: BackendError + Send + Sync + 'static>(error: blockllm::Error<E>) -> Error {
    Error::wrap(error)
}

pub(super) struct Engine<B: CandleBackend> {
    pub optimizer: Optimizer<B>,
    /// By block.
    vars: Vec<Var>,
    delivered_peak: usize,
    stored_peak: usize,
}

fn bytes(t: &Tensor) -> usize {
    t.elem_count() * t.dtype().size_in_bytes()
}

impl<B: CandleBackend> Engine<B> {
    pub fn new(backend: B, specs: &[BlockSpec], config: Config, vars: Vec<Var>) -> Result<Self> {
        let optimizer = Optimizer::new(backend, specs, config).map_err(wrap)?;
        Ok(Self { optimizer, vars, delivered_peak: 0, stored_peak: 0 })
    }

    pub fn gradient_bytes_peak(&self) -> usize {
        self.optimizer.memory().packed_gradients + self.delivered_peak.max(self.stored_peak)
    }

    pub fn begin(&mut self, step: Step) -> Result<()> {
        self.optimizer.begin(step).map_err(wrap)
    }

    pub fn next_micro_batch(&mut self, loss: Option<f64>) -> Result<()> {
        self.optimizer.next_micro_batch(loss).map_err(wrap)
    }

    pub fn is_open(&self) -> bool {
        self.optimizer.is_step_open()
    }

    /// The window that a restored step is in.
    pub fn window(&self) -> Option<super::Window> {
        let (present, of) = self.optimizer.micro_batch()?;
        let is_done = self.optimizer.missing().next().is_none();
        Some(super::Window { done: present + u32::from(is_done), of })
    }

    pub fn abort(&mut self) {
        // The error that led here is the one to tell; without an open step there is nothing to drop.
        let _ = self.optimizer.abort();
    }

    /// A gradient, as backward delivers it or as it was stored.
    pub fn receive(&mut self, block: u32, weight: &Var, gradient: &Tensor) -> Result<()> {
        self.delivered_peak = self.delivered_peak.max(bytes(gradient));
        let wanted = self.optimizer.wanted().map_err(wrap)?;
        let with_parameter = wanted.binary_search_by_key(&block, |w| w.block).is_ok_and(|i| wanted[i].with_parameter);
        let done = if with_parameter {
            self.optimizer.grad_with(block, gradient, &mut weight.clone())
        } else {
            self.optimizer.grad(block, gradient)
        };
        done.map_err(wrap)
    }

    /// What layers of other crates left in candle's store.
    pub fn take_stored(&mut self, grads: &GradStore) -> Result<()> {
        let stored = grads.get_ids().filter_map(|id| grads.get_id(*id)).map(bytes).sum();
        self.stored_peak = self.stored_peak.max(stored);
        let missing: Vec<_> = self.optimizer.missing().map(|w| (w.block, w.only_probed())).collect();
        for (block, only_probed) in missing {
            let var = self.vars[block as usize].clone();
            let Some(gradient) = grads.get(&var) else {
                if only_probed {
                    continue; // its unit keeps the score it had
                }
                let name = self.optimizer.blocks().spec(block).name.clone();
                return Err(wrap::<B::Error>(blockllm::Error::MissingGradient { block: name }));
            };
            self.receive(block, &var, gradient)?;
        }
        Ok(())
    }

    /// The update of an open step, and whatever it decides.
    pub fn finish(&mut self) -> Result<StepReport> {
        let active = self.optimizer.active().regions.iter().map(|r| (r.block, self.vars[r.block as usize].clone()));
        let mut params: Vec<_> = active.collect();
        let finished = self.optimizer.finish(&mut params).map_err(wrap);
        if finished.is_err() {
            self.abort();
        }
        finished.and_then(|_| self.settle())
    }

    /// A whole step from stored gradients.
    pub fn step(&mut self, step: Step, grads: &GradStore) -> Result<StepReport> {
        if self.optimizer.needs_loss() && step.loss.is_none() {
            return Err(wrap::<B::Error>(blockllm::Error::MissingLoss));
        }
        let stored = grads.get_ids().filter_map(|id| grads.get_id(*id)).map(bytes).sum();
        self.stored_peak = self.stored_peak.max(stored);
        let mut params: Vec<_> = (0u32..).zip(self.vars.iter().cloned()).collect();
        let vars = &self.vars;
        let _ = self.optimizer.step(step, |b| grads.get(&vars[b as usize]).cloned(), &mut params).map_err(wrap)?;
        self.settle()
    }

    fn settle(&mut self) -> Result<StepReport> {
        self.optimizer.wait().map_err(wrap)?;
        let report = self.optimizer.report().map_err(wrap)?;
        report.check::<B::Error>().map_err(wrap)?;
        Ok(report)
    }
}
