//! At s = 0 the optimizer is AdamW: against candle's own on gradients of the training example's model.
#![allow(missing_docs)]

mod common;

use blockllm::Config;
use blockllm_candle::{BlockLlm, ParamsBlockLlm};
use candle_core::{Device, Tensor, Var};
use candle_nn::Optimizer;
use common::{Llama, Random, Sizes};
use std::path::Path;

/// The sizes of the training example: 2.76 million weights in 57 blocks.
const REAL: Sizes = Sizes { vocabulary: 256, width: 192, heads: 6, hidden: 512, layers: 6, context: 128 };
const BATCH: usize = 1;
/// Bytes of a window: short, as every one of the 2.76 million weights has a gradient from the first on.
const WINDOW: usize = 48;

/// Windows of real text and the bytes that follow.
fn batch(text: &[u8], random: &mut Random) -> (Tensor, Tensor) {
    let (mut x, mut y) = (vec![], vec![]);
    for _ in 0..BATCH {
        let start = random.below(text.len() - WINDOW - 1);
        x.extend(text[start..][..WINDOW].iter().map(|&b| u32::from(b)));
        y.extend(text[start + 1..][..WINDOW].iter().map(|&b| u32::from(b)));
    }
    let tensor = |v: Vec<u32>| Tensor::from_vec(v, (BATCH, WINDOW), &Device::Cpu).unwrap();
    (tensor(x), tensor(y))
}

#[test]
fn dense_steps_agree_with_candles_adamw_on_100_gradients() {
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/train/data/sotu/1999_william_j_clinton_d.txt");
    let (text, mut random) = (std::fs::read(text).unwrap(), Random(1));
    let model = Llama::new(REAL, 7).unwrap();
    let ours: Vec<Var> = model.store.iter().map(|p| p.var().clone()).collect();
    let copy = |v: &Var| Var::from_tensor(&v.as_tensor().copy().unwrap()).unwrap();
    let theirs: Vec<Var> = ours.iter().map(copy).collect();
    let settings = candle_nn::ParamsAdamW { lr: 1e-3, weight_decay: 0.01, ..Default::default() };
    let mut candle = candle_nn::AdamW::new(theirs.clone(), settings).unwrap();
    let config = Config { weight_decay: 0.01, ..Config::adamw() };
    let mut optimizer = <BlockLlm as Optimizer>::new(ours.clone(), ParamsBlockLlm { lr: 1e-3, config }).unwrap();
    let (mut largest, mut moved) = (0f64, 0f64);
    for step in 1..=100 {
        let (x, y) = batch(&text, &mut random);
        let gradients = model.loss(&x, &y).unwrap().backward().unwrap();
        let mut same = candle_core::backprop::GradStore::default();
        ours.iter().zip(&theirs).for_each(|(a, b)| drop(same.insert(b, gradients.get(a).unwrap().clone())));
        let lr = 1e-3 * (f64::from(step) / 20.0).min(1.0);
        candle.set_learning_rate(lr);
        candle.step(&same).unwrap();
        optimizer.set_learning_rate(lr);
        Optimizer::step(&mut optimizer, &gradients).unwrap();
        for (block, (a, b)) in ours.iter().zip(&theirs).enumerate() {
            let values = |v: &Var| v.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for (a, b) in values(a).into_iter().zip(values(b)) {
                let error = f64::from((a - b).abs()) / f64::from(a.abs().max(1.0));
                assert!(error <= 5e-7, "step {step}, block {block}: {a} and {b}");
                largest = largest.max(error);
                moved = moved.max(f64::from(a.abs()));
            }
        }
    }
    println!("largest |p - p_candle| / max(1, |p|) after 100 steps: {largest:e}");
    assert!(moved > 0.05, "the weights have trained");
}
