//! How many bytes of gradients live at once, by how a step is driven (A2.6, A6.5). Each gradient is made on the heap right
//! before it is handed over and dropped right after; what the heap then holds at its highest, beside parameters and what the
//! optimizer holds otherwise, is gradients:
//!
//! - immediate streaming: the one that is handed over, and the engine's packed run of it, which is as long as the largest
//!   block or n_s;
//! - packed streaming: the engine's packed run of the whole set, n_s elements, and the one that is handed over;
//! - a whole step: all that were asked for, and the packed run.
//!
//! Alone in its process, without a test runner: the count is global.
#![allow(missing_docs)]

mod common;

use blockllm::{
    Across, BlockId, BlockSpec, Config, Fill, First, Inactive, Optimizer, Policy, Reference, Slices, Stage, Step, Trigger, View,
    ViewMut,
};
use common::noise;
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const ROWS: [usize; 6] = [200, 60, 120, 90, 300, 150];
const COLUMNS: usize = 100;
/// Bytes of the host's plans and of what a decision reads; the smallest gradient is 24,000.
const SLACK: usize = 4000;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Drive {
    Streamed,
    Whole,
}

fn len(block: BlockId) -> usize {
    ROWS[block as usize] * COLUMNS
}

fn gradient(block: BlockId, t: u64) -> Vec<f32> {
    (0..len(block)).map(|i| noise(t, block as usize, i)).collect()
}

fn config() -> Config {
    let policy = Policy::BlockLlm(Trigger::Period(3));
    Config { policy, sparsity: 0.4, patience: 4, fill: Fill::Uniform, ..Config::default() }
}

fn main() {
    for inactive in [Inactive::Frozen, Inactive::SignSgd(1.0)] {
        for across in [Across::Reset, Across::Carry] {
            for first in [First::Random, First::FullGradient, First::Scan] {
                let config = Config { inactive, across, first, ..config() };
                let immediate = Config { immediate: true, ..config.clone() };
                for (config, drive, micro_batches) in [
                    (&immediate, Drive::Streamed, 1),
                    (&config, Drive::Streamed, 1),
                    (&config, Drive::Streamed, 3),
                    (&config, Drive::Whole, 1),
                    (&config, Drive::Whole, 3),
                ] {
                    run(config, drive, micro_batches);
                }
            }
        }
    }
}

fn run(config: &Config, drive: Drive, micro_batches: u32) {
    let specs: Vec<_> = (0..6).map(|b| BlockSpec::new(format!("w{b}"), [ROWS[b], COLUMNS])).collect();
    let mut params: Vec<Vec<f32>> = (0..6).map(|b| vec![0.5; len(b)]).collect();
    let mut params: Vec<_> = (0..).zip(&mut params).map(|(b, p)| (b, ViewMut::F32(p))).collect();
    let before = HEAP.current_usage();
    let mut o = Optimizer::new(Reference::<Slices>::default(), &specs, config.clone()).unwrap();
    let largest = (0..6).map(len).max().unwrap();
    // What the engine packs: n_s, or what one block may need of it.
    let packed = 4 * if config.immediate { o.budget().min(largest) } else { o.budget() };
    assert_eq!(o.memory().packed_gradients, packed);
    let (mut training, mut switches) = (0, 0);
    for t in 0..16 {
        let told = o.memory();
        let wanted: Vec<usize> = o.wanted().unwrap().iter().map(|w| 4 * len(w.block)).collect();
        let early: Vec<usize> = o.wanted_of(false).unwrap().iter().map(|w| 4 * len(w.block)).collect();
        assert_eq!(told.gradients_total, wanted.iter().sum::<usize>());
        let (largest, total) = (wanted.iter().max().unwrap(), wanted.iter().sum::<usize>().max(early.iter().sum()));
        let state = told.resident() - told.packed_gradients;
        HEAP.reset_peak_usage();
        let live = HEAP.current_usage();
        let micro_batches = if o.stage() == Stage::Training { micro_batches } else { 1 };
        one_step(&mut o, &mut params, t, drive, micro_batches);
        o.wait().unwrap();
        let high = HEAP.peak_usage();
        let switched = o.report().unwrap().switched;
        (training, switches) = (training + u32::from(o.stage() == Stage::Training), switches + u32::from(switched));
        // A switch's own needs rise before the first gradient and fall after the last.
        let gradients = high - before - state - told.switch_peak;
        let expected = packed + if drive == Drive::Whole { total } else { *largest };
        let what = format!("step {t}, {drive:?}, {micro_batches} micro-batches, {config:?}");
        assert!(gradients.abs_diff(expected) < SLACK, "{gradients} bytes of gradients, expected {expected}: {what}");
        assert!(live - before < state + packed + SLACK, "nothing is kept between steps: {what}");
    }
    assert!(training > 8 && switches > 2, "{training} training steps, {switches} switches");
}

fn one_step(
    o: &mut Optimizer<Reference<Slices>>, params: &mut [(BlockId, ViewMut<'_>)], t: u64, drive: Drive, micro_batches: u32,
) {
    o.begin(Step::new(0.01).micro_batches(micro_batches)).unwrap();
    for micro_batch in 0..micro_batches {
        let last = micro_batch + 1 == micro_batches;
        let blocks = o.wanted().unwrap().len();
        let block_at = |o: &Optimizer<_>, i: usize| o.wanted().unwrap()[i].block;
        let seed = t << 8 | u64::from(micro_batch);
        if drive == Drive::Streamed {
            for i in (0..blocks).rev() {
                let block = block_at(o, i);
                let g = gradient(block, seed);
                o.grad_with(block, &View::F32(&g), &mut params[block as usize].1).unwrap();
            }
        } else {
            let all: [Vec<f32>; 6] = core::array::from_fn(|b| match o.wanted().unwrap().iter().any(|w| w.block == b as u32) {
                true => gradient(b as BlockId, seed),
                false => Vec::new(),
            });
            let grads = |b: BlockId| Some(View::F32(&all[b as usize]));
            if last {
                let _ = o.finish_whole(grads, params).unwrap();
            } else {
                o.accumulate(grads).unwrap();
            }
        }
        if !last {
            o.next_micro_batch(None).unwrap();
        } else if drive == Drive::Streamed {
            let _ = o.finish(params).unwrap();
        }
    }
}
