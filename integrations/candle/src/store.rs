//! The ordered list of a model's weights.

use crate::parameter::{GradientSink, Parameter, SinkSlot};
use candle_core::{DType, Result, Storage, Tensor, TensorId, Var, bail};
use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, PoisonError};

/// The weights of a model in the order in which they were added: the position of a weight is its block.
///
/// ```
/// use blockllm_candle::{Linear, Module, ParameterStore};
/// use candle_core::{Device, Tensor};
///
/// # fn main() -> candle_core::Result<()> {
/// let mut store = ParameterStore::new();
/// let up = Linear::new(store.add("up", &Tensor::ones((4, 2), candle_core::DType::F32, &Device::Cpu)?)?)?;
/// let down = Linear::new(store.add("down", &Tensor::ones((1, 4), candle_core::DType::F32, &Device::Cpu)?)?)?;
/// store.set_wanted(|block| block == 1);
///
/// let x = Tensor::new(&[[1f32, 2.]], &Device::Cpu)?;
/// let gradients = down.forward(&up.forward(&x)?)?.sum_all()?.backward()?;
/// assert!(gradients.get(down.weight().var()).is_some());
/// assert!(gradients.get(up.weight().var()).is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct ParameterStore {
    parameters: Vec<Parameter>,
    by_name: HashMap<String, usize>,
    by_storage: HashMap<usize, usize>,
    // A plain tensor is copied, so its storage says nothing later; its id is unique for the life of the process.
    by_source: HashMap<TensorId, usize>,
    sink: SinkSlot,
}

impl ParameterStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a weight, wanted at first, and returns the handle to build layers with.
    ///
    /// A [`Var`] (pass `&var`) keeps its storage, so that others who hold it see the training; any other tensor is
    /// copied into a new variable.
    ///
    /// # Errors
    /// The name is taken; the tensor is not contiguous, has no elements, is not f32, f64, f16 or bf16, or was computed
    /// from a variable; or it is already registered. A weight that two layers share is registered once, and both
    /// layers get a clone of its [`Parameter`].
    pub fn add(&mut self, name: impl Into<String>, tensor: &Tensor) -> Result<Parameter> {
        let name = name.into();
        self.check(&name, tensor)?;
        let block = self.parameters.len();
        let var = Var::from_tensor(tensor)?;
        self.by_storage.insert(storage_address(&var), block);
        self.by_source.insert(tensor.id(), block);
        self.by_name.insert(name.clone(), block);
        let parameter = Parameter::new(name, block, var, self.sink.clone());
        self.parameters.push(parameter.clone());
        Ok(parameter)
    }

    fn check(&self, name: &str, tensor: &Tensor) -> Result<()> {
        if let Some(block) = self.by_name.get(name) {
            bail!("a parameter named {name} is already registered, as block {block}")
        }
        if !matches!(tensor.dtype(), DType::F32 | DType::F64 | DType::F16 | DType::BF16) {
            bail!("parameter {name} is {:?}; expected f32, f64, f16 or bf16", tensor.dtype())
        }
        if !tensor.is_contiguous() {
            bail!("parameter {name} of shape {:?} is not contiguous; call contiguous() first", tensor.shape())
        }
        if tensor.elem_count() == 0 {
            bail!("parameter {name} of shape {:?} has no elements", tensor.shape())
        }
        let same = self.by_storage.get(&storage_address(tensor)).or_else(|| self.by_source.get(&tensor.id()));
        if let Some(&block) = same {
            let first = self.parameters[block].name();
            bail!(
                "parameter {name} is the same tensor as {first}: tied weights must be registered once and shared by \
                 cloning the Parameter"
            )
        }
        if tensor.track_op() && !tensor.is_variable() {
            bail!("parameter {name} was computed from a variable; register the variable, or detach it first")
        }
        Ok(())
    }

    /// The parameters in order of their blocks.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Parameter> + DoubleEndedIterator {
        self.parameters.iter()
    }

    /// The parameter of this name.
    pub fn get(&self, name: &str) -> Option<&Parameter> {
        self.by_name.get(name).map(|&block| &self.parameters[block])
    }

    /// The number of parameters, that is of blocks.
    pub fn len(&self) -> usize {
        self.parameters.len()
    }

    /// Whether nothing was added yet.
    pub fn is_empty(&self) -> bool {
        self.parameters.is_empty()
    }

    /// The number of coordinates of all parameters together.
    pub fn coordinates(&self) -> usize {
        self.iter().map(|p| p.shape().elem_count()).sum()
    }

    /// Sets where the gradients of wanted weights go from the next backward pass on; `None`: into candle's `GradStore`.
    ///
    /// The parameters keep the sink alive. A sink that itself holds parameters of this store is freed only after it
    /// was replaced here.
    pub fn set_sink(&self, sink: Option<Arc<dyn GradientSink>>) {
        *self.sink.write().unwrap_or_else(PoisonError::into_inner) = sink;
    }

    pub(crate) fn sink_slot(&self) -> SinkSlot {
        self.sink.clone()
    }

    /// Sets for each block whether forward passes from now on record its weight.
    pub fn set_wanted(&self, wanted: impl Fn(usize) -> bool) {
        for parameter in &self.parameters {
            parameter.set_wanted(wanted(parameter.block()));
        }
    }
}

/// Equal for tensors that share their memory, for as long as one of them lives.
fn storage_address(tensor: &Tensor) -> usize {
    let (storage, _) = tensor.storage_and_layout();
    let storage: &Storage = storage.deref();
    std::ptr::from_ref(storage).addr()
}
