//! Steps of several micro-batches.
#![allow(missing_docs)]

mod common;

use blockllm::{Config, Inactive, Policy, Trigger};
use blockllm_candle::{BlockLlm, Linear, Module, ParameterStore};
use candle_core::{Result, Tensor};
use common::Random;

/// Two linear layers; the loss of `rows` rows from `from` on is the sum over them.
struct Net {
    store: ParameterStore,
    layers: Vec<Linear>,
    data: Tensor,
}

impl Net {
    fn new() -> Self {
        let (mut store, mut random) = (ParameterStore::new(), Random(3));
        let layers =
            (0..4).map(|i| Linear::new(store.add(format!("layer.{i}"), &random.tensor(&[8, 8])).unwrap()).unwrap()).collect();
        Self { store, layers, data: random.tensor(&[64, 8]) }
    }

    fn loss(&self, from: usize, rows: usize) -> Tensor {
        let mut x = self.data.narrow(0, from, rows).unwrap();
        for layer in &self.layers {
            x = layer.forward(&x).unwrap();
        }
        x.sqr().unwrap().sum_all().unwrap()
    }

    fn weights(&self) -> Vec<f32> {
        self.store.iter().flat_map(|p| p.var().flatten_all().unwrap().to_vec1::<f32>().unwrap()).collect()
    }
}

fn config() -> Config {
    Config {
        inactive: Inactive::Frozen,
        sparsity: 0.5,
        policy: Policy::BlockLlm(Trigger::Period(3)),
        patience: 1,
        ..Config::default()
    }
}

fn message<T>(r: Result<T>) -> String {
    r.err().expect("an error").to_string()
}

#[test]
fn a_window_is_the_step_of_all_its_rows() {
    let (a, b) = (Net::new(), Net::new());
    let mut parts = BlockLlm::new(&a.store, config(), 1e-3).unwrap();
    let mut whole = BlockLlm::new(&b.store, config(), 1e-3).unwrap();
    // Up to the first decision: after it, masks are of the first micro-batch and scores of the last.
    for step in 0..3 {
        let from = step * 16;
        parts.begin_window(4).unwrap();
        for micro in 0..3 {
            parts.accumulate(&a.loss(from + 4 * micro, 4)).unwrap();
        }
        let report = parts.backward_step(&a.loss(from + 12, 4)).unwrap();
        let want = whole.backward_step(&b.loss(from, 16)).unwrap();
        assert_eq!(report.active, want.active);
        assert!((report.norm - want.norm).abs() < 1e-4 * want.norm, "{} is not {}", report.norm, want.norm);
        for (p, q) in a.weights().iter().zip(b.weights()) {
            assert!((p - q).abs() < 2e-5, "step {step}: {p} is not {q}");
        }
    }
    assert_ne!(a.weights(), Net::new().weights());
}

#[test]
fn before_the_last_micro_batch_idle_weights_give_no_gradient_and_none_is_kept() {
    let net = Net::new();
    let mut optimizer: BlockLlm =
        BlockLlm::new(&net.store, Config { inactive: Inactive::SignSgd(1.0), ..config() }, 1e-3).unwrap();
    let active = optimizer.with_engine(|e| e.active().regions.iter().map(|r| r.block as usize).collect::<Vec<_>>()).unwrap();
    let wanted = || net.store.iter().filter(|p| p.is_wanted()).map(|p| p.block()).collect::<Vec<_>>();
    assert_eq!(wanted().len(), 4);
    optimizer.begin_window(3).unwrap();
    assert_eq!(wanted(), active);
    optimizer.accumulate(&net.loss(0, 4)).unwrap();
    assert_eq!(wanted(), active);
    optimizer.accumulate(&net.loss(4, 4)).unwrap();
    assert_eq!(wanted().len(), 4, "the last one moves every weight");
    let before = net.weights();
    optimizer.backward_step(&net.loss(8, 4)).unwrap();
    assert!(before.iter().zip(net.weights()).all(|(p, q)| *p != q));
}

#[test]
fn calls_in_the_wrong_order_say_what_comes_first() {
    let net = Net::new();
    let mut optimizer = BlockLlm::new(&net.store, config(), 1e-3).unwrap();
    assert!(message(optimizer.accumulate(&net.loss(0, 4))).contains("begin_window"));
    assert!(message(optimizer.begin_window(0)).contains("micro_batches"));
    // A window of one is a plain step.
    optimizer.begin_window(1).unwrap();
    optimizer.backward_step(&net.loss(0, 4)).unwrap();
    optimizer.begin_window(2).unwrap();
    assert!(message(optimizer.begin_window(2)).contains("finish or abort"));
    assert!(message(optimizer.backward_step(&net.loss(0, 4))).contains("accumulate"));
    optimizer.accumulate(&net.loss(0, 4)).unwrap();
    assert!(message(optimizer.accumulate(&net.loss(0, 4))).contains("backward_step"));
    let before = net.weights();
    optimizer.backward_step(&net.loss(4, 4)).unwrap();
    assert_ne!(before, net.weights());
    // Dropped, it leaves nothing behind.
    let before = net.weights();
    optimizer.begin_window(2).unwrap();
    optimizer.accumulate(&net.loss(0, 4)).unwrap();
    optimizer.with_engine(|e| e.abort()).unwrap().unwrap();
    assert_eq!(before, net.weights());
    optimizer.backward_step(&net.loss(8, 4)).unwrap();
}

#[test]
fn a_window_cut_by_save_and_restore_goes_on_to_the_bit() {
    for inactive in [Inactive::Frozen, Inactive::SignSgd(1.0)] {
        let config = Config { inactive, ..config() };
        let run = |cut: Option<usize>| {
            let net = Net::new();
            let mut optimizer = BlockLlm::new(&net.store, config.clone(), 1e-3).unwrap();
            for step in 0..6 {
                optimizer.begin_window(4).unwrap();
                for micro in 0..4 {
                    if Some(step * 4 + micro) == cut {
                        let record = optimizer.save().unwrap();
                        optimizer = BlockLlm::new(&net.store, config.clone(), 1e-3).unwrap();
                        optimizer.restore(&record).unwrap();
                        assert!(message(optimizer.begin_window(4)).contains("a step is open"));
                    }
                    let loss = net.loss(step * 8 + micro, 1);
                    if micro < 3 { optimizer.accumulate(&loss).unwrap() } else { drop(optimizer.backward_step(&loss).unwrap()) }
                }
            }
            (net.weights(), optimizer.save().unwrap())
        };
        let whole = run(None);
        // At the start of a window, inside it, before its last micro-batch; of steps that switch and steps that do not.
        for cut in [8, 9, 11, 12, 14, 15, 19] {
            assert!(run(Some(cut)) == whole, "cut at micro-batch {cut}, {inactive:?}");
        }
    }
}

#[test]
fn each_weight_is_updated_as_its_gradient_arrives_and_first_sets_are_scored_before() {
    use blockllm::{First, Stage};
    // Without guard and clip at work, immediate updates have the bits of packed ones, and one gradient lives at a time.
    let run = |immediate: bool| {
        let net = Net::new();
        let config = Config { immediate, ..config() };
        let mut optimizer = BlockLlm::new(&net.store, config, 1e-3).unwrap();
        (0..9).for_each(|step| drop(optimizer.backward_step(&net.loss(step, 8)).unwrap()));
        (net.weights(), optimizer.memory().packed_gradients)
    };
    let ((packed, of_all), (immediate, of_one)) = (run(false), run(true));
    assert_eq!(packed, immediate);
    assert_eq!((of_all, of_one), (4 * 128, 4 * 64));
    for first in [First::FullGradient, First::Scan] {
        let net = Net::new();
        let config = Config { first, probes_per_step: Some(2), ..config() };
        let mut optimizer = BlockLlm::new(&net.store, config, 1e-3).unwrap();
        let (before, mut passes) = (net.weights(), 0);
        while optimizer.with_engine(|e| e.stage()).unwrap() != Stage::Training {
            let stage = optimizer.with_engine(|e| e.stage()).unwrap();
            let wanted = net.store.iter().filter(|p| p.is_wanted()).count();
            assert_eq!(wanted, if stage == Stage::Scan { 2 } else { 4 });
            optimizer.backward_step(&net.loss(passes, 8)).unwrap();
            passes += 1;
        }
        assert_eq!((net.weights(), passes), (before.clone(), if first == First::Scan { 2 } else { 1 }));
        optimizer.backward_step(&net.loss(9, 8)).unwrap();
        let moved = net.weights().iter().zip(&before).filter(|(a, b)| a != b).count();
        assert_eq!(moved, 128, "the two best of four");
    }
}
