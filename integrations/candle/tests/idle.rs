//! What a backward pass computes, stores and hands over when only some weights of a model are wanted.
#![allow(missing_docs)]

mod common;

use blockllm_candle::{Embedding, GradientSink, Linear, Module, Parameter, ParameterStore, RmsNorm, ops};
use candle_core::{Result, Tensor, Var, bail};
use common::{Llama, Random, TINY, batch, bits, contents};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex};

/// Keeps the bits of what it receives, in order.
#[derive(Default)]
struct Recorder(Mutex<Vec<(usize, Vec<u32>)>>);

impl GradientSink for Recorder {
    fn receive(&self, block: usize, weight: &Var, gradient: &Tensor) -> Result<()> {
        assert_eq!(gradient.dims(), weight.dims());
        assert!(gradient.is_contiguous() && !gradient.track_op());
        self.0.lock().unwrap().push((block, bits(gradient)));
        Ok(())
    }
}

impl Recorder {
    fn take(&self) -> Vec<(usize, Vec<u32>)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Single blocks of every kind, the ends, and random ones.
fn subsets(model: &Llama) -> Vec<BTreeSet<usize>> {
    let single = ["embedding", "head", "norm", "0.attention_norm", "1.mlp_norm", "0.q", "1.v", "0.down", "1.gate"];
    let block = |name: &str| BTreeSet::from([model.store.get(name).unwrap().block()]);
    let n = model.store.len();
    let mut subsets: Vec<_> = single.iter().map(|name| block(name)).collect();
    subsets.extend([(0..n).collect(), (n - 2..n).collect(), (0..2).collect()]);
    let mut random = Random(11);
    for _ in 0..12 {
        let share = 1 + random.below(4);
        let subset: BTreeSet<usize> = (0..n).filter(|_| random.below(5) < share).collect();
        subsets.push(if subset.is_empty() { block("0.k") } else { subset });
    }
    subsets
}

/// The gradient of every weight when all are wanted and candle stores them.
fn all_gradients(model: &Llama, ids: &Tensor, targets: &Tensor) -> Result<BTreeMap<usize, Vec<u32>>> {
    model.store.set_sink(None);
    model.store.set_wanted(|_| true);
    let store = model.loss(ids, targets)?.backward()?;
    Ok(model.store.iter().map(|p| (p.block(), bits(store.get(p.var()).unwrap()))).collect())
}

#[test]
fn exactly_the_wanted_gradients_are_computed_and_none_stay_behind_with_a_sink() -> Result<()> {
    let model = Llama::new(TINY, 0)?;
    let (ids, targets) = batch(TINY, 2, 1);
    let all = all_gradients(&model, &ids, &targets)?;
    assert!(all.values().all(|g| g.iter().any(|&b| b != 0)), "every weight has a gradient");
    let sink = Arc::new(Recorder::default());
    model.store.set_sink(Some(sink.clone()));
    for subset in subsets(&model) {
        model.store.set_wanted(|block| subset.contains(&block));
        let store = model.loss(&ids, &targets)?.backward()?;
        assert_eq!(contents(&store), (HashSet::new(), 0), "{subset:?}");
        let received = sink.take();
        assert_eq!(received.len(), subset.len(), "one delivery each: {subset:?}");
        let received: BTreeMap<_, _> = received.into_iter().collect();
        assert!(received.keys().eq(&subset), "{:?} for {subset:?}", received.keys());
        for (block, gradient) in received {
            assert_eq!(gradient, all[&block], "block {block} in {subset:?}");
        }
    }
    Ok(())
}

#[test]
fn exactly_the_wanted_gradients_are_stored_without_a_sink() -> Result<()> {
    let model = Llama::new(TINY, 0)?;
    let (ids, targets) = batch(TINY, 2, 1);
    let all = all_gradients(&model, &ids, &targets)?;
    for subset in subsets(&model) {
        model.store.set_wanted(|block| subset.contains(&block));
        let store = model.loss(&ids, &targets)?.backward()?;
        let wanted: Vec<Parameter> = model.parameters().into_iter().filter(|p| subset.contains(&p.block())).collect();
        let ids = wanted.iter().map(|p| p.var().id()).collect();
        let bytes = wanted.iter().map(|p| 4 * p.shape().elem_count()).sum();
        assert_eq!(contents(&store), (ids, bytes), "{subset:?}");
        for p in &wanted {
            assert_eq!(bits(store.get(p.var()).unwrap()), all[&p.block()], "{} in {subset:?}", p.name());
        }
    }
    Ok(())
}

#[test]
fn with_nothing_wanted_no_graph_is_recorded() -> Result<()> {
    let model = Llama::new(TINY, 0)?;
    let (ids, targets) = batch(TINY, 2, 1);
    model.store.set_wanted(|_| false);
    let loss = model.loss(&ids, &targets)?;
    assert!(!loss.track_op());
    // All that candle stores is the gradient of the loss by itself.
    assert_eq!(contents(&loss.backward()?), (HashSet::from([loss.id()]), 4));
    Ok(())
}

#[test]
fn a_graph_keeps_the_set_it_was_built_with() -> Result<()> {
    let model = Llama::new(TINY, 0)?;
    let (ids, targets) = batch(TINY, 2, 1);
    let sink = Arc::new(Recorder::default());
    model.store.set_sink(Some(sink.clone()));
    model.store.set_wanted(|block| block == 3);
    let loss = model.loss(&ids, &targets)?;
    model.store.set_wanted(|block| block == 4);
    loss.backward()?;
    model.loss(&ids, &targets)?.backward()?;
    assert_eq!(sink.take().iter().map(|g| g.0).collect::<Vec<_>>(), [3, 4]);
    Ok(())
}

/// Wipes each weight as soon as its gradient arrives.
struct Eraser(Recorder);

impl GradientSink for Eraser {
    fn receive(&self, block: usize, weight: &Var, gradient: &Tensor) -> Result<()> {
        self.0.receive(block, weight, gradient)?;
        weight.set(&(weight.ones_like()? * f64::NAN)?)
    }
}

#[test]
fn a_weight_may_be_written_as_soon_as_its_gradient_arrives() -> Result<()> {
    let model = Llama::new(TINY, 0)?;
    let (ids, targets) = batch(TINY, 2, 1);
    let all = all_gradients(&model, &ids, &targets)?;
    let sink = Arc::new(Eraser(Recorder::default()));
    model.store.set_sink(Some(sink.clone()));
    model.loss(&ids, &targets)?.backward()?;
    assert_eq!(sink.0.take().into_iter().collect::<BTreeMap<_, _>>(), all);
    Ok(())
}

#[test]
fn a_tied_weight_is_delivered_once_a_use() -> Result<()> {
    let mut store = ParameterStore::new();
    let table = store.add("table", &Random(1).tensor(&[7, 5]))?;
    let (embedding, head) = (Embedding::new(table.clone())?, Linear::new(table.clone())?);
    let ids = Random(2).ids(&[2, 6], 7);
    let loss = || ops::cross_entropy(&head.forward(&embedding.forward(&ids)?)?, &ids);
    let sum = loss()?.backward()?;
    let sink = Arc::new(Recorder::default());
    store.set_sink(Some(sink.clone()));
    assert_eq!(contents(&loss()?.backward()?), (HashSet::new(), 0));
    let received = sink.take();
    let [(0, a), (0, b)] = &received[..] else { panic!("{} deliveries", received.len()) };
    let added: Vec<u32> = a.iter().zip(b).map(|(a, b)| (f32::from_bits(*a) + f32::from_bits(*b)).to_bits()).collect();
    assert_eq!(added, bits(sum.get(table.var()).unwrap()));
    assert!(a != b && a.iter().any(|&a| a != 0) && b.iter().any(|&b| b != 0));
    Ok(())
}

/// Refuses one block.
struct Refuser(usize);

impl GradientSink for Refuser {
    fn receive(&self, block: usize, _: &Var, _: &Tensor) -> Result<()> {
        if block == self.0 {
            bail!("block {block} is refused")
        }
        Ok(())
    }
}

#[test]
fn an_error_of_the_sink_ends_backward() -> Result<()> {
    let model = Llama::new(TINY, 0)?;
    let (ids, targets) = batch(TINY, 2, 1);
    for name in ["embedding", "head", "norm", "0.up"] {
        let block = model.store.get(name).unwrap().block();
        model.store.set_sink(Some(Arc::new(Refuser(block))));
        let error = model.loss(&ids, &targets)?.backward().err().unwrap().to_string();
        assert_eq!(error.lines().next(), Some(&*format!("block {block} is refused")));
    }
    // The store is usable after it.
    model.store.set_sink(None);
    model.loss(&ids, &targets)?.backward()?;
    Ok(())
}

#[test]
fn two_passes_over_one_graph_deliver_the_same() -> Result<()> {
    let model = Llama::new(TINY, 0)?;
    let (ids, targets) = batch(TINY, 2, 1);
    let sink = Arc::new(Recorder::default());
    model.store.set_sink(Some(sink.clone()));
    let loss = model.loss(&ids, &targets)?;
    loss.backward()?;
    let first = sink.take();
    assert_eq!(first.len(), model.store.len());
    loss.backward()?;
    assert_eq!(sink.take(), first);
    Ok(())
}

#[test]
fn candles_own_operations_may_stand_between() -> Result<()> {
    let mut random = Random(4);
    let mut store = ParameterStore::new();
    let a = Linear::new(store.add("a", &random.tensor(&[5, 4]))?)?;
    let b = Linear::new(store.add("b", &random.tensor(&[5, 5]))?)?;
    let x = random.tensor(&[3, 4]);
    // The result of a is an operand of both kinds.
    let loss = |h: &Tensor, bh: &Tensor| ((h * bh)?.sqr()? + h)?.sum_all();
    let got = {
        let h = a.forward(&x)?;
        let bh = b.forward(&h)?;
        loss(&h, &bh)?.backward()?
    };
    let (va, vb) = (a.weight().var(), b.weight().var());
    let h = x.matmul(&va.t()?)?;
    let want = loss(&h, &h.matmul(&vb.t()?)?)?.backward()?;
    for v in [va, vb] {
        let (got, want) = (common::values(got.get(v).unwrap()), common::values(want.get(v).unwrap()));
        let scale = want.iter().fold(0f32, |m, x| m.max(x.abs()));
        assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() <= 1e-6 * scale), "{got:?} {want:?}");
    }
    Ok(())
}

#[test]
fn what_backward_computes_once_more_has_the_bits_that_were_not_kept() -> Result<()> {
    let mut random = Random(5);
    let mut store = ParameterStore::new();
    let mut linear = |name: &str| Linear::new(store.add(name, &random.tensor(&[40, 40]))?);
    let (a, b, c) = (linear("a")?, linear("b")?, linear("c")?);
    let norm = RmsNorm::new(store.add("norm", &random.tensor(&[40]))?, 0.1)?;
    let x = random.tensor(&[7, 40]);
    let targets = random.ids(&[7], 40);
    // A view by candle, of which nothing is known: the layer that reads it keeps it.
    let kept = |h: Tensor| h.reshape(h.shape());
    let gradients = |between: &dyn Fn(Tensor) -> Result<Tensor>| -> Result<Vec<Vec<u32>>> {
        // A norm of a SwiGLU's result, so that one is computed from the other.
        let g = a.forward(&x)?;
        let h = between(ops::swiglu(&g, &x)?)?;
        let h = between(norm.forward(&h)?)?;
        let h = ops::residual(&b.forward(&h)?, &c.forward(&h)?)?;
        let grads = ops::cross_entropy(&h, &targets)?.backward()?;
        Ok(store.iter().map(|p| bits(grads.get(p.var()).unwrap())).collect())
    };
    let again = gradients(&Ok)?;
    assert_eq!(again, gradients(&kept)?);
    assert!(again.iter().flatten().any(|&b| b != 0));
    Ok(())
}
