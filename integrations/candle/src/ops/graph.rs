//! How operations are recorded, so that the graph holds what backward reads and nothing else.
//!
//! candle's graph holds the operands of every operation, with their values. Here an operation whose gradient is wanted
//! gives two tensors:
//!
//! - an *edge*, whose storage is empty. It is the node that backward visits. Operations of this crate name each other's
//!   edges as operands, and keep the values they read in backward beside them;
//! - the *result*, which has the values and which the user gets. Its only operand is the edge, and no other operation of
//!   this crate holds it: its values are freed as soon as the user drops it, unless a backward pass reads them.
//!
//! Operations that are not of this crate see an ordinary tensor, and hold it.

use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, Tensor, TensorId, bail};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Results that are alive, and their edges: candle does not tell the operands of a tensor.
static EDGES: LazyLock<Mutex<HashMap<TensorId, Edge>>> = LazyLock::new(Mutex::default);

#[derive(Clone)]
struct Edge {
    node: Tensor,
    again: Option<Arc<Again>>,
}

impl Edge {
    /// The edge of a result; any other tensor is its own.
    fn of(x: &Tensor) -> Self {
        let edge = lock(&EDGES).get(&x.id()).cloned();
        edge.unwrap_or_else(|| Self { node: x.clone(), again: None })
    }
}

/// Values that backward will read.
pub(super) enum Saved {
    Values(Tensor),
    Again(Arc<Again>),
}

impl Saved {
    /// Those of x. A result that is cheap is not kept, but computed once more.
    pub(super) fn new(x: &Tensor) -> Self {
        match Edge::of(x).again {
            Some(again) => Self::Again(again),
            None => Self::Values(x.detach()),
        }
    }

    pub(super) fn get(&self) -> Result<Tensor> {
        match self {
            Self::Values(x) => Ok(x.clone()),
            Self::Again(again) => again.get(),
        }
    }
}

type Compute = dyn Fn() -> Result<Tensor> + Send + Sync;

/// How to compute a result once more, from what its operation keeps for its own backward.
pub(super) struct Again {
    compute: Box<Compute>,
    /// Kept from the first that asks until the operation's own backward, which runs after all who may ask.
    values: Mutex<Option<Tensor>>,
}

impl Again {
    fn get(&self) -> Result<Tensor> {
        if let Some(values) = &*lock(&self.values) {
            return Ok(values.clone());
        }
        // Not under the lock: while this waits for other threads, rayon may run another backward pass on this one.
        let values = (self.compute)()?;
        *lock(&self.values) = Some(values.clone());
        Ok(values)
    }
}

/// What an operation computed, before it is recorded.
pub(super) struct Computed<'a, const N: usize> {
    pub(super) name: &'static str,
    pub(super) operands: [&'a Tensor; N],
    pub(super) values: CpuStorage,
    pub(super) shape: Shape,
}

impl<const N: usize> Computed<'_, N> {
    /// The result. `backward` takes the gradient of the result to those of the operands; it must give one to each that
    /// is recorded, but may give none to a weight.
    pub(super) fn record<B>(self, backward: B) -> Result<Tensor>
    where
        B: Fn(&Tensor) -> Result<[Option<Tensor>; N]> + Send + Sync + 'static,
    {
        self.record_with(backward, None)
    }

    /// The result of an operation that costs little, whose values `again` computes from what `backward` holds anyway.
    pub(super) fn record_cheap<B, A>(self, backward: B, again: A) -> Result<Tensor>
    where
        B: Fn(&Tensor) -> Result<[Option<Tensor>; N]> + Send + Sync + 'static,
        A: Fn() -> Result<Tensor> + Send + Sync + 'static,
    {
        self.record_with(backward, Some(Arc::new(Again { compute: Box::new(again), values: Mutex::default() })))
    }

    fn record_with<B>(self, backward: B, again: Option<Arc<Again>>) -> Result<Tensor>
    where
        B: Fn(&Tensor) -> Result<[Option<Tensor>; N]> + Send + Sync + 'static,
    {
        let recorded = self.operands.map(Tensor::track_op);
        if !recorded.contains(&true) {
            return Ok(Tensor::from_storage(Storage::Cpu(self.values), self.shape, BackpropOp::none(), false));
        }
        let edges: Vec<Tensor> = self.operands.iter().filter(|x| x.track_op()).map(|x| Edge::of(x).node).collect();
        let id = Arc::new(OnceLock::new());
        let result = Values { name: self.name, id: id.clone(), values: Mutex::new(Some((self.values, self.shape.clone()))) };
        let node = Node { name: self.name, recorded, shape: self.shape, backward, again: again.clone() };
        let node = match &edges[..] {
            [a] => a.apply_op1(node)?,
            [a, b] => a.apply_op2(b, node)?,
            [a, b, c] => a.apply_op3(b, c, node)?,
            _ => bail!("{}: at most 3 operands can be recorded", self.name),
        };
        let result = node.apply_op1(result)?;
        lock(&EDGES).insert(result.id(), Edge { node, again });
        // Set once, as here is the only place.
        let _ = id.set(result.id());
        Ok(result)
    }
}

/// Gives a result its values, and is there for as long as the result is.
struct Values {
    name: &'static str,
    id: Arc<OnceLock<TensorId>>,
    values: Mutex<Option<(CpuStorage, Shape)>>,
}

impl CustomOp1 for Values {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        match lock(&self.values).take() {
            Some(values) => Ok(values),
            None => bail!("{}: the values were taken before", self.name),
        }
    }

    /// Only where an operation that is not of this crate has the result as an operand, or it is the loss.
    fn bwd(&self, _: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(g.clone()))
    }
}

impl Drop for Values {
    fn drop(&mut self) {
        let edge = self.id.get().and_then(|id| lock(&EDGES).remove(id));
        // After the lock, as an edge may be the last to hold other results.
        drop(edge);
    }
}

/// The operation of an edge.
struct Node<B, const N: usize> {
    name: &'static str,
    recorded: [bool; N],
    shape: Shape,
    backward: B,
    again: Option<Arc<Again>>,
}

impl<const N: usize, B: Fn(&Tensor) -> Result<[Option<Tensor>; N]>> Node<B, N> {
    fn no_values(&self) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![]), self.shape.clone()))
    }

    /// The gradients of the M operands that are recorded.
    fn gradients<const M: usize>(&self, g: &Tensor) -> Result<[Option<Tensor>; M]> {
        if let Some(again) = &self.again {
            lock(&again.values).take();
        }
        let all = (self.backward)(&g.contiguous()?)?.into_iter().zip(self.recorded);
        let mut recorded = all.filter_map(|(gradient, recorded)| recorded.then_some(gradient));
        Ok(std::array::from_fn(|_| recorded.next().flatten()))
    }
}

impl<const N: usize, B: Fn(&Tensor) -> Result<[Option<Tensor>; N]>> CustomOp1 for Node<B, N> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.no_values()
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let [a] = self.gradients(g)?;
        Ok(a)
    }
}

impl<const N: usize, B: Fn(&Tensor) -> Result<[Option<Tensor>; N]>> CustomOp2 for Node<B, N> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.no_values()
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [a, b] = self.gradients(g)?;
        Ok((a, b))
    }
}

impl<const N: usize, B: Fn(&Tensor) -> Result<[Option<Tensor>; N]>> CustomOp3 for Node<B, N> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.no_values()
    }

    fn bwd(
        &self, _: &Tensor, _: &Tensor, _: &Tensor, _: &Tensor, g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [a, b, c] = self.gradients(g)?;
        Ok((a, b, c))
    }
}
