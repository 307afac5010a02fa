//! The optimizer on candle's tensors.
#![allow(missing_docs)]

mod common;

use blockllm::{Config, HostTensors, Inactive, Policy, Trigger, ViewMut};
use blockllm_candle::ops;
use blockllm_candle::{BlockLlm, CandleTensors, Linear, Module, ParameterStore, ParamsBlockLlm};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Storage, Tensor, Var};
use candle_nn::Optimizer;
use common::Random;

fn bits(t: &Tensor) -> Vec<u32> {
    t.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|x| x.to_bits()).collect()
}

fn address(t: &Tensor) -> usize {
    let (storage, _) = t.storage_and_layout();
    let Storage::Cpu(candle_core::CpuStorage::F32(x)) = &*storage else { panic!("f32 in host memory") };
    x.as_ptr().addr()
}

/// Three linear layers in a row.
struct Net {
    store: ParameterStore,
    layers: Vec<Linear>,
}

impl Net {
    fn new() -> Self {
        let (mut store, mut random) = (ParameterStore::new(), Random(3));
        let layers =
            (0..3).map(|i| Linear::new(store.add(format!("layer.{i}"), &random.tensor(&[8, 8])).unwrap()).unwrap()).collect();
        Self { store, layers }
    }

    fn loss(&self, seed: u64) -> Tensor {
        let mut x = Random(seed).tensor(&[5, 8]);
        for layer in &self.layers {
            x = layer.forward(&x).unwrap();
        }
        x.sqr().unwrap().mean_all().unwrap()
    }

    fn weights(&self) -> Vec<Vec<u32>> {
        self.store.iter().map(|p| bits(p.var())).collect()
    }
}

fn frozen() -> Config {
    Config {
        inactive: Inactive::Frozen,
        sparsity: 0.66,
        policy: Policy::BlockLlm(Trigger::Period(1)),
        patience: 1,
        ..Config::default()
    }
}

fn message<T>(r: Result<T>) -> String {
    r.err().expect("an error").to_string()
}

#[test]
fn every_selected_layer_moves_and_only_in_its_own_step() {
    let net = Net::new();
    let mut optimizer = BlockLlm::new(&net.store, frozen(), 0.01).unwrap();
    let start = net.weights();
    for step in 0..12 {
        let before = net.weights();
        let active: Vec<usize> =
            optimizer.with_engine(|e| e.active().regions.iter().map(|r| r.block as usize).collect()).unwrap();
        let report = optimizer.backward_step(&net.loss(step)).unwrap();
        assert_eq!(report.active.len(), active.len());
        for (block, (was, is)) in before.iter().zip(net.weights()).enumerate() {
            assert_eq!(*was != is, active.contains(&block), "step {step}, block {block}");
        }
    }
    let moved = start.iter().zip(net.weights()).filter(|(a, b)| **a != *b).count();
    assert_eq!(moved, 3);
}

#[test]
fn weights_are_written_in_place_and_every_handle_sees_it() {
    let net = Net::new();
    let (handle, home) = (net.layers[0].weight().tensor(), address(net.layers[0].weight().var()));
    let before = bits(&handle);
    let mut optimizer = BlockLlm::new(&net.store, Config::default(), 0.01).unwrap();
    optimizer.backward_step(&net.loss(1)).unwrap();
    assert_eq!(address(net.layers[0].weight().var()), home);
    assert_ne!(bits(&handle), before);
    // The user writes a weight between steps: its moments are kept, and the next step starts from there.
    net.layers[0].weight().var().set(&Tensor::ones((8, 8), DType::F32, &Device::Cpu).unwrap()).unwrap();
    assert_eq!(address(net.layers[0].weight().var()), home);
    let report = optimizer.backward_step(&net.loss(2)).unwrap();
    assert_eq!(report.applied, 2);
    let moved = net.layers[0].weight().var().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(moved.iter().all(|x| (x - 1.0).abs() < 0.02 && *x != 1.0));
}

#[test]
fn a_set_is_reselected_through_candles_trait_alone() {
    fn train<O: Optimizer<Config = ParamsBlockLlm>>(vars: &[Var]) {
        let config = Config { policy: Policy::BlockLlm(Trigger::Patience), patience: 2, ..frozen() };
        let mut optimizer = O::new(vars.to_vec(), ParamsBlockLlm { lr: 0.05, config }).unwrap();
        assert_eq!(optimizer.learning_rate(), 0.05);
        for step in 0..40 {
            let x = Random(step).tensor(&[5, 8]);
            let y = vars.iter().try_fold(x, |x, w| x.matmul(w.as_tensor())).unwrap();
            optimizer.backward_step(&y.sqr().unwrap().mean_all().unwrap()).unwrap();
        }
    }
    let mut random = Random(9);
    let vars: Vec<Var> = (0..3).map(|_| random.var(&[8, 8])).collect();
    let before: Vec<_> = vars.iter().map(|v| bits(v)).collect();
    train::<BlockLlm>(&vars);
    let moved = before.iter().zip(&vars).filter(|(b, v)| **b != bits(v)).count();
    assert_eq!(moved, 3, "a set that never changes holds a third of the weights");
}

#[test]
fn a_bare_step_under_patience_needs_a_loss() {
    let mut random = Random(9);
    let vars: Vec<Var> = (0..3).map(|_| random.var(&[8, 8])).collect();
    let config = Config { policy: Policy::BlockLlm(Trigger::Patience), patience: 1, ..frozen() };
    let mut optimizer = <BlockLlm as Optimizer>::new(vars.clone(), ParamsBlockLlm { lr: 0.05, config }).unwrap();
    let grads = |seed| {
        let y = vars.iter().try_fold(Random(seed).tensor(&[5, 8]), |x, w| x.matmul(w.as_tensor())).unwrap();
        y.sqr().unwrap().mean_all().unwrap().backward().unwrap()
    };
    let before: Vec<_> = vars.iter().map(|v| bits(v)).collect();
    assert!(message(Optimizer::step(&mut optimizer, &grads(1))).contains("no loss was given"));
    assert_eq!(before, vars.iter().map(|v| bits(v)).collect::<Vec<_>>());
    for seed in 0..6 {
        optimizer.set_loss(1.0);
        Optimizer::step(&mut optimizer, &grads(seed)).unwrap();
    }
    let decisions = optimizer.with_engine(|e| e.decisions()).unwrap();
    assert!(decisions >= 3, "{decisions}");
    let names = optimizer.with_engine(|e| e.blocks().specs.iter().map(|s| s.name.clone()).collect::<Vec<_>>()).unwrap();
    assert_eq!(names, ["var.0", "var.1", "var.2"]);
}

#[test]
fn streaming_equals_a_whole_step_from_stored_gradients_to_the_bit() {
    for inactive in [Inactive::Frozen, Inactive::SignSgd(0.5)] {
        let config =
            Config { inactive, clip: Some(0.1), weight_decay: 0.1, policy: Policy::BlockLlm(Trigger::Period(3)), ..frozen() };
        let (streamed, stored) = (Net::new(), Net::new());
        let mut a = BlockLlm::new(&streamed.store, config.clone(), 0.01).unwrap();
        let vars: Vec<Var> = stored.store.iter().map(|p| p.var().clone()).collect();
        let mut b = <BlockLlm as Optimizer>::new(vars, ParamsBlockLlm { lr: 0.01, config }).unwrap();
        for seed in 0..20 {
            a.backward_step(&streamed.loss(seed)).unwrap();
            b.step_with(&stored.loss(seed).backward().unwrap()).unwrap();
            assert_eq!(streamed.weights(), stored.weights(), "step {seed}, {inactive:?}");
        }
    }
}

#[test]
fn a_missing_gradient_is_loud_and_nothing_moves() {
    let net = Net::new();
    let mut store = ParameterStore::new();
    net.store.iter().for_each(|p| drop(store.add(p.name(), p.var()).unwrap()));
    store.add("orphan", &Tensor::ones((2, 2), DType::F32, &Device::Cpu).unwrap()).unwrap();
    let mut optimizer = BlockLlm::new(&store, Config::adamw(), 0.01).unwrap();
    let before = net.weights();
    let error = message(optimizer.backward_step(&net.loss(1)));
    assert!(error.contains("block orphan: this step needs its gradient and has none"), "{error}");
    assert_eq!(net.weights(), before);
    assert!(message(optimizer.step_with(&GradStore::default())).contains("needs its gradient"));
}

#[test]
fn strides_that_do_not_matter_are_accepted_and_others_refused() {
    let var = Var::ones((2, 1, 100), DType::F32, &Device::Cpu).unwrap();
    let mut optimizer =
        <BlockLlm as Optimizer>::new(vec![var.clone()], ParamsBlockLlm { lr: 0.01, config: Config::adamw() }).unwrap();
    let mut grads = GradStore::default();
    // Shape [2, 1, 100] with a stride of 200 on the dimension of size 1.
    let odd = Random(1).tensor(&[2, 100]).reshape((1, 2, 100)).unwrap().transpose(0, 1).unwrap();
    assert_eq!(odd.stride()[1], 200);
    grads.insert(&var, odd);
    optimizer.step_with(&grads).unwrap();
    let before = bits(&var);
    grads.insert(&var, Random(1).tensor(&[100, 1, 2]).transpose(0, 2).unwrap());
    assert!(message(optimizer.step_with(&grads)).contains("var.0: its gradient is not contiguous"));
    assert_eq!(bits(&var), before);
}

#[test]
fn a_gradient_without_an_open_step_is_refused() {
    let net = Net::new();
    let optimizer = BlockLlm::new(&net.store, Config::default(), 0.01).unwrap();
    assert!(message(net.loss(1).backward()).contains("no step open: use its backward_step"));
    drop(optimizer);
    // Without an optimizer, gradients go where candle puts them.
    assert_eq!(net.loss(1).backward().unwrap().get_ids().filter(|id| net.store.iter().any(|p| p.var().id() == **id)).count(), 3);
}

#[test]
fn dropping_an_optimizer_leaves_its_successor_plugged_in() {
    let net = Net::new();
    let mut optimizer = BlockLlm::new(&net.store, frozen(), 0.01).unwrap();
    optimizer.backward_step(&net.loss(1)).unwrap();
    optimizer = BlockLlm::new(&net.store, frozen(), 0.02).unwrap(); // the old one is dropped after the new one is made
    let report = optimizer.backward_step(&net.loss(2)).unwrap();
    assert_eq!(report.applied, 1);
    assert!(net.loss(3).backward().is_err(), "its layers still stream");
}

#[test]
fn a_refused_step_does_not_use_up_the_loss() {
    let net = Net::new();
    let vars: Vec<Var> = net.store.iter().map(|p| p.var().clone()).collect();
    let config = Config { policy: Policy::BlockLlm(Trigger::Patience), patience: 1, ..frozen() };
    let mut optimizer = <BlockLlm as Optimizer>::new(vars, ParamsBlockLlm { lr: 0.05, config }).unwrap();
    optimizer.set_loss(1.0);
    assert!(message(optimizer.step_with(&GradStore::default())).contains("needs its gradient"));
    optimizer.step_with(&net.loss(1).backward().unwrap()).unwrap();
}

#[test]
fn a_weight_used_twice_delivers_twice_which_is_an_error() {
    let net = Net::new();
    let shared = Linear::new(net.layers[0].weight().clone()).unwrap();
    let mut optimizer = BlockLlm::new(&net.store, Config::adamw(), 0.01).unwrap();
    let x = Random(1).tensor(&[5, 8]);
    let y = shared.forward(&net.layers[2].forward(&net.layers[1].forward(&net.layers[0].forward(&x).unwrap()).unwrap()).unwrap());
    let before = net.weights();
    assert!(message(optimizer.backward_step(&y.unwrap().sqr().unwrap().mean_all().unwrap())).contains("layer.0: a second time"));
    assert_eq!(net.weights(), before);
}

#[test]
fn a_restored_run_goes_on_to_the_bit_and_frozen_blocks_stay() {
    let config = Config { sparsity: 0.5, policy: Policy::BlockLlm(Trigger::Period(3)), ..Config::default() };
    let net = Net::new();
    let mut optimizer = BlockLlm::new(&net.store, config.clone(), 0.01).unwrap();
    (0..7).for_each(|s| drop(optimizer.backward_step(&net.loss(s)).unwrap()));
    optimizer.with_engine(|e| e.freeze(1)).unwrap().unwrap();
    let still = net.weights()[1].clone();
    let (saved, copy) = (optimizer.save().unwrap(), Net::new());
    for (from, to) in net.store.iter().zip(copy.store.iter()) {
        to.var().set(&from.var().as_tensor().copy().unwrap()).unwrap();
    }
    let mut again = BlockLlm::new(&copy.store, config, 0.01).unwrap();
    again.restore(&saved).unwrap();
    for s in 7..25 {
        optimizer.backward_step(&net.loss(s)).unwrap();
        again.backward_step(&copy.loss(s)).unwrap();
    }
    assert_eq!(net.weights(), copy.weights());
    assert_eq!(optimizer.save().unwrap(), again.save().unwrap());
    assert_eq!(net.weights()[1], still);
}

#[test]
fn tensors_are_reached_without_a_copy() {
    let mut var = Var::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
    let home = address(&var);
    let seen = CandleTensors::modify(&mut var, |view| {
        let ViewMut::F32(x) = view else { panic!("f32") };
        x[4] = 7.0;
        x.as_ptr().addr()
    });
    assert_eq!(seen.unwrap(), home);
    assert_eq!(var.to_vec2::<f32>().unwrap(), [[0.0, 0.0, 0.0], [0.0, 7.0, 0.0]]);
    let read = CandleTensors::read(var.as_tensor(), |view| view.len()).unwrap();
    assert_eq!(read, 6);
    let strided = var.as_tensor().t().unwrap();
    assert!(message(CandleTensors::read(&strided, |_| ())).contains("not contiguous"));
    let _ = ops::residual(&strided.contiguous().unwrap(), &strided.contiguous().unwrap()).unwrap();
}
