//! `candle_nn::Optimizer`.

use super::{BlockLlm, CandleBackend};
use crate::store::ParameterStore;
use blockllm::Config;
use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};
use candle_nn::Optimizer;

/// What `candle_nn::Optimizer::new` takes.
#[derive(Clone, PartialEq, Debug)]
pub struct ParamsBlockLlm {
    /// The learning rate.
    pub lr: f64,
    /// Everything else.
    pub config: Config,
}

impl Default for ParamsBlockLlm {
    fn default() -> Self {
        Self { lr: 1e-3, config: Config::default() }
    }
}

impl<B: CandleBackend + Default> Optimizer for BlockLlm<B> {
    type Config = ParamsBlockLlm;

    /// The trait gives variables no names: they are `var.0`, `var.1`, ... in the order given, and records are matched by
    /// that order. Use [`ParameterStore`] and [`BlockLlm::with_backend`] for names.
    fn new(vars: Vec<Var>, config: ParamsBlockLlm) -> Result<Self> {
        let mut store = ParameterStore::new();
        for (i, var) in vars.iter().enumerate() {
            store.add(format!("var.{i}"), var)?;
        }
        Self::with_backend(B::default(), &store, config.config, config.lr, |spec| spec)
    }

    /// The trait's bare step never sees a loss. Under a policy that decides by the loss it is an error unless
    /// [`BlockLlm::set_loss`] was called; `backward_step` records the loss itself. Layers of this crate deliver their
    /// gradients while `backward_step` runs and leave none for `step`.
    fn step(&mut self, grads: &GradStore) -> Result<()> {
        self.step_with(grads).map(|_| ())
    }

    fn learning_rate(&self) -> f64 {
        self.lr()
    }

    fn set_learning_rate(&mut self, lr: f64) {
        self.set_lr(lr);
    }

    fn backward_step(&mut self, loss: &Tensor) -> Result<()> {
        BlockLlm::backward_step(self, loss).map(|_| ())
    }
}
