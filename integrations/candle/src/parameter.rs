//! A weight that layers share, and where its gradient goes.

use candle_core::{Result, Shape, Tensor, Var, bail};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

/// Takes the gradient of one weight during the backward pass.
///
/// # For those who implement it
///
/// - `receive` is called on the thread that runs backward, once for each use of the weight in the graph: a weight that
///   two layers share is received twice a pass, and its gradient is the sum of both.
/// - `block` is the position of the weight in its [`ParameterStore`](crate::ParameterStore).
/// - `gradient` has the shape and dtype of the weight, is contiguous, and belongs to no graph. It is dropped right
///   after the call, unless a clone of it is kept.
/// - The weight may be written in place during the call: the operation has already computed the gradient of its input.
///   For a weight with several uses this holds at the last call only, as earlier layers still read it; an embedding's
///   backward does not read its table, so a table tied to the output head may be written at any call.
/// - Weights arrive from the loss down; two passes over one graph deliver in the same order.
/// - A returned error ends the backward pass, which returns it unchanged.
pub trait GradientSink: Send + Sync {
    /// Takes the gradient of one use of `weight`.
    ///
    /// # Errors
    /// Whatever should end the backward pass.
    fn receive(&self, block: usize, weight: &Var, gradient: &Tensor) -> Result<()>;
}

/// Where the parameters of one store find their sink.
pub(crate) type SinkSlot = Arc<RwLock<Option<Arc<dyn GradientSink>>>>;

/// A named weight. Cloning gives another handle to the same weight: this is how layers tie weights.
#[derive(Clone)]
pub struct Parameter(Arc<Inner>);

struct Inner {
    name: String,
    block: usize,
    var: Var,
    wanted: AtomicBool,
    sink: SinkSlot,
}

impl Parameter {
    pub(crate) fn new(name: String, block: usize, var: Var, sink: SinkSlot) -> Self {
        Self(Arc::new(Inner { name, block, var, wanted: AtomicBool::new(true), sink }))
    }

    /// The name under which the weight was added.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The position of the weight in its store.
    pub fn block(&self) -> usize {
        self.0.block
    }

    /// The variable that holds the weight.
    pub fn var(&self) -> &Var {
        &self.0.var
    }

    /// The shape of the weight.
    pub fn shape(&self) -> &Shape {
        self.0.var.shape()
    }

    /// Whether the next forward pass records this weight, so that backward computes its gradient.
    pub fn is_wanted(&self) -> bool {
        self.0.wanted.load(Relaxed)
    }

    /// Sets whether forward passes from now on record this weight. Graphs already built are unchanged.
    pub fn set_wanted(&self, wanted: bool) {
        self.0.wanted.store(wanted, Relaxed);
    }

    /// The tensor to use in one forward pass: the variable when it is wanted, else a handle that no graph records.
    /// Both share the variable's storage; nothing is copied.
    pub fn tensor(&self) -> Tensor {
        if self.is_wanted() { self.var().as_tensor().clone() } else { self.var().detach() }
    }

    /// Hands a gradient to the sink. Without a sink it comes back, for candle to store.
    ///
    /// No lock is held during the call, so that the sink may write the weight and change the sink.
    pub(crate) fn deliver(&self, gradient: Tensor) -> Result<Option<Tensor>> {
        if gradient.shape() != self.shape() {
            bail!("gradient of {} has shape {:?}, the weight {:?}", self.name(), gradient.shape(), self.shape())
        }
        let sink = self.0.sink.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(sink) = sink else {
            return Ok(Some(gradient));
        };
        sink.receive(self.block(), self.var(), &gradient.contiguous()?)?;
        Ok(None)
    }
}

impl fmt::Debug for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parameter")
            .field("name", &self.name())
            .field("block", &self.block())
            .field("shape", self.shape())
            .field("wanted", &self.is_wanted())
            .finish()
    }
}
