//! candle's tensors on the CPU backend: the reference's bits, on two threads that reach several tensors at once.

use blockllm::Config;
use blockllm_candle::{BlockLlm, CandleBackend, CandleTensors, Linear, Module, ParameterStore};
use blockllm_cpu::Cpu;
use candle_core::{DType, Device, Tensor};
use rayon::ThreadPoolBuilder;
use std::sync::Arc;

const WIDTH: usize = 48;

/// The same numbers on each call.
fn numbers(seed: usize, rows: usize) -> Tensor {
    let x: Vec<f32> = (0..rows * WIDTH).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 2003.0 - 0.5).collect();
    Tensor::from_vec(x, (rows, WIDTH), &Device::Cpu).expect("a tensor")
}

/// Weights after some steps that decide and switch.
fn trained<B: CandleBackend>(backend: B) -> Vec<Vec<u32>> {
    let mut store = ParameterStore::new();
    let weight = |i: usize| numbers(i, WIDTH);
    let layers: Vec<Linear> =
        (0..6).map(|i| Linear::new(store.add(format!("layer.{i}"), &weight(i)).expect("a name")).expect("a matrix")).collect();
    let config = Config { clip: Some(1.0), ..Config::default() };
    let mut optimizer = BlockLlm::with_backend(backend, &store, config, 1e-3, |spec| spec).expect("an optimizer");
    for step in 0..25 {
        let mut x = numbers(100 + step, 8);
        for layer in &layers {
            x = layer.forward(&x).expect("forward");
        }
        let loss = x.sqr().and_then(|x| x.mean_all()).expect("a loss");
        optimizer.backward_step(&loss).expect("a step");
    }
    let bits = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>().map(|x| x.iter().map(|e| e.to_bits()).collect());
    store.iter().map(|p| bits(&p.var().to_dtype(DType::F32).expect("f32")).expect("elements")).collect()
}

#[test]
fn candle_trains_on_threads_as_on_the_reference() {
    let pool = Arc::new(ThreadPoolBuilder::new().num_threads(2).build().expect("threads"));
    let threaded = trained(Cpu::<CandleTensors>::in_pool(pool).grain(1024));
    assert_eq!(threaded, trained(blockllm::Reference::<CandleTensors>::default()));
}
