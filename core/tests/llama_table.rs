//! Every policy on a Llama-shaped table: each set that the engine trains, beside its rule (A4.1 to A4.6), which is
//! written out here a second time, plainly, from names, sizes and gradients alone.
#![allow(missing_docs)]

mod common;

#[path = "llama_table/block_llm.rs"]
mod block_llm;
#[path = "llama_table/drawn.rs"]
mod drawn;
#[path = "llama_table/rules.rs"]
mod rules;

use blockllm::names::{self, Ends};
use blockllm::random::Stream;
use blockllm::{BlockSpec, Config, Optimizer, Reference, Step, View};

pub const LAYERS: u32 = 12;

/// Names and shapes of a Llama with grouped queries. Its feed-forward widens with depth, so that no two layers weigh the
/// same; blocks of one kind in one layer do, and so do all norms.
pub fn llama() -> Vec<BlockSpec> {
    let (hidden, kv, vocab) = (8, 4, 24);
    let mut table = vec![BlockSpec::new("model.embed_tokens.weight", [vocab, hidden])];
    for i in 0..LAYERS {
        let wide = 16 + i as usize;
        let shapes = [
            ("self_attn.q_proj", [hidden, hidden]),
            ("self_attn.k_proj", [kv, hidden]),
            ("self_attn.v_proj", [kv, hidden]),
            ("self_attn.o_proj", [hidden, hidden]),
            ("mlp.gate_proj", [wide, hidden]),
            ("mlp.up_proj", [wide, hidden]),
            ("mlp.down_proj", [hidden, wide]),
            ("input_layernorm", [1, hidden]),
            ("post_attention_layernorm", [1, hidden]),
        ];
        table.extend(shapes.map(|(name, shape)| BlockSpec::new(format!("model.layers.{i}.{name}.weight"), shape)));
    }
    table.push(BlockSpec::new("model.norm.weight", [1, hidden]));
    table.push(BlockSpec::new("lm_head.weight", [vocab, hidden]));
    table
}

/// BAdam's units, both ends included.
pub fn badam() -> Vec<BlockSpec> {
    let mut table = llama();
    assert!(names::cyclic_units(&mut table, names::place, Ends { embedding: true, head: true }).is_empty());
    table
}

/// LISA's units.
pub fn lisa() -> Vec<BlockSpec> {
    let mut table = llama();
    assert!(names::lisa_units(&mut table, names::place).is_empty());
    table
}

/// A block and its number of active coordinates.
pub type Count = (u32, usize);

/// The optimizer and what it is fed.
pub struct Run {
    pub optimizer: Optimizer<Reference>,
    params: Vec<Vec<f32>>,
    /// Of the step that was run last.
    pub gradients: Vec<Vec<f32>>,
}

impl Run {
    pub fn new(table: &[BlockSpec], config: &Config) -> Self {
        let optimizer = Optimizer::new(Reference::default(), table, config.clone()).unwrap();
        let params = table.iter().map(|s| vec![0.1; s.len()]).collect();
        Self { optimizer, params, gradients: Vec::new() }
    }

    /// The set of the next step.
    pub fn set(&self) -> Vec<Count> {
        self.optimizer.active().counts().collect()
    }

    /// Runs step `t`, counted from 1. Blocks of eight coordinates (the norms) all have the same gradient: ties.
    pub fn step(&mut self, t: u64) {
        let gradient = |(b, p): (usize, &Vec<f32>)| {
            let (source, scale) = if p.len() == 8 { (0, 2.0) } else { (b, 1.0 + (common::mix(t << 8 ^ b as u64) % 8) as f32) };
            (0..p.len()).map(|i| scale * common::noise(t, source, i)).collect()
        };
        self.gradients = self.params.iter().enumerate().map(gradient).collect();
        let g = &self.gradients;
        let _ = self
            .optimizer
            .step(Step::new(0.01), |b| Some(View::F32(&g[b as usize])), &mut common::views(&mut self.params))
            .unwrap();
        self.optimizer.wait().unwrap();
    }
}

/// The draws that the rules here are fed with are those of section 8: numbers from a Philox written elsewhere.
#[test]
fn known_draws_a8_2() {
    let mut s = Stream::new(7);
    assert_eq!([12, 12, 12, 1000, 1 << 63].map(|n| s.below(n)), [9, 9, 0, 250, 9_127_388_413_289_062_801]);
    let mut s = Stream::new(5 << 32 | 9);
    assert_eq!([1000; 4].map(|n| s.below(n)), [809, 731, 966, 98]);
    let mut s = Stream::new(7);
    let mut shuffled = || {
        let mut x: Vec<u32> = (0..12).collect();
        s.shuffle(&mut x);
        x
    };
    assert_eq!(shuffled(), [4, 1, 11, 3, 5, 6, 10, 7, 2, 0, 8, 9]);
    assert_eq!(shuffled(), [8, 4, 6, 3, 1, 11, 7, 0, 2, 9, 5, 10]);
    assert_eq!(s.draws, 22);
}
