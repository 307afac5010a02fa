//! A small Llama built on this crate's layers, and what the tests share.
#![allow(dead_code, missing_docs, unreachable_pub)]

use blockllm_candle::ops::{self, RotaryTable};
use blockllm_candle::{Embedding, Linear, Module, Parameter, ParameterStore, RmsNorm};
use candle_core::backprop::GradStore;
use candle_core::{Device, Result, Tensor, TensorId, Var};
use std::collections::HashSet;

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Uniform in (-1, 1).
    pub fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn tensor(&mut self, shape: &[usize]) -> Tensor {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| self.uniform()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    pub fn var(&mut self, shape: &[usize]) -> Var {
        Var::from_tensor(&self.tensor(shape)).unwrap()
    }

    pub fn ids(&mut self, shape: &[usize], below: usize) -> Tensor {
        let ids: Vec<u32> = (0..shape.iter().product()).map(|_| self.below(below) as u32).collect();
        Tensor::from_vec(ids, shape, &Device::Cpu).unwrap()
    }
}

#[derive(Clone, Copy)]
pub struct Sizes {
    pub vocabulary: usize,
    pub width: usize,
    pub heads: usize,
    pub hidden: usize,
    pub layers: usize,
    pub context: usize,
}

pub const TINY: Sizes = Sizes { vocabulary: 19, width: 24, heads: 3, hidden: 40, layers: 2, context: 11 };

struct Layer {
    attention_norm: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    mlp_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

pub struct Llama {
    pub store: ParameterStore,
    embedding: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: Linear,
    rotary: RotaryTable,
}

impl Llama {
    pub fn new(s: Sizes, seed: u64) -> Result<Self> {
        let mut random = Random(seed);
        let mut store = ParameterStore::new();
        let mut matrix = |store: &mut ParameterStore, name: String, rows: usize, columns: usize| {
            let scale = (3.0 / columns as f64).sqrt();
            store.add(name, &(random.tensor(&[rows, columns]) * scale)?)
        };
        let norm = |store: &mut ParameterStore, name: String| {
            RmsNorm::new(store.add(name, &Tensor::ones(s.width, candle_core::DType::F32, &Device::Cpu)?)?, 1e-5)
        };
        let embedding = Embedding::new(matrix(&mut store, "embedding".into(), s.vocabulary, s.width)?)?;
        let mut layers = vec![];
        for i in 0..s.layers {
            let attention_norm = norm(&mut store, format!("{i}.attention_norm"))?;
            let mut linear = |store: &mut ParameterStore, name: &str, n: usize, k: usize| {
                Linear::new(matrix(store, format!("{i}.{name}"), n, k)?)
            };
            layers.push(Layer {
                attention_norm,
                q: linear(&mut store, "q", s.width, s.width)?,
                k: linear(&mut store, "k", s.width, s.width)?,
                v: linear(&mut store, "v", s.width, s.width)?,
                o: linear(&mut store, "o", s.width, s.width)?,
                mlp_norm: norm(&mut store, format!("{i}.mlp_norm"))?,
                gate: linear(&mut store, "gate", s.hidden, s.width)?,
                up: linear(&mut store, "up", s.hidden, s.width)?,
                down: linear(&mut store, "down", s.width, s.hidden)?,
            });
        }
        let norm = norm(&mut store, "norm".into())?;
        let head = Linear::new(matrix(&mut store, "head".into(), s.vocabulary, s.width)?)?;
        let rotary = RotaryTable::new(s.context, s.width / s.heads, 1e4)?;
        Ok(Self { store, embedding, layers, norm, head, rotary })
    }

    pub fn loss(&self, ids: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let mut x = self.embedding.forward(ids)?;
        for l in &self.layers {
            let h = l.attention_norm.forward(&x)?;
            let (q, k, v) = (l.q.forward(&h)?, l.k.forward(&h)?, l.v.forward(&h)?);
            let attention = ops::causal_attention(&q, &k, &v, &self.rotary)?;
            x = ops::residual(&x, &l.o.forward(&attention)?)?;
            let h = l.mlp_norm.forward(&x)?;
            let hidden = ops::swiglu(&l.gate.forward(&h)?, &l.up.forward(&h)?)?;
            x = ops::residual(&x, &l.down.forward(&hidden)?)?;
        }
        ops::cross_entropy(&self.head.forward(&self.norm.forward(&x)?)?, targets)
    }

    pub fn parameters(&self) -> Vec<Parameter> {
        self.store.iter().cloned().collect()
    }
}

/// Ids and targets.
pub fn batch(s: Sizes, sequences: usize, seed: u64) -> (Tensor, Tensor) {
    let mut random = Random(seed);
    let shape = [sequences, s.context];
    (random.ids(&shape, s.vocabulary), random.ids(&shape, s.vocabulary))
}

pub fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

pub fn bits(t: &Tensor) -> Vec<u32> {
    values(t).into_iter().map(f32::to_bits).collect()
}

/// All ids of a store, and the bytes they hold.
pub fn contents(store: &GradStore) -> (HashSet<TensorId>, usize) {
    let ids: HashSet<_> = store.get_ids().copied().collect();
    let bytes = |id: &TensorId| store.get_id(*id).map_or(0, |t| t.elem_count() * t.dtype().size_in_bytes());
    let total = ids.iter().map(bytes).sum();
    (ids, total)
}
