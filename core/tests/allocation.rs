//! A step without a decision or a switch allocates nothing, however it is driven. Alone in its process, without a test
//! runner: the count is global.
#![allow(missing_docs)]

mod common;

use blockllm::{
    BlockId, Config, Inactive, Missing, Optimizer, Order, Policy, ProbeOrder, Progress, Reference, ScoreKind, Slices, Step,
    Trigger, View, ViewMut,
};
use common::*;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn assert_send<T: Send>() {}

fn main() {
    assert_send::<Optimizer<Reference<Slices>>>();
    let frozen = Config { inactive: Inactive::Frozen, clip: Some(1.0), ..config() };
    let period = 1000;
    for config in [
        Config { clip: Some(1.0), ..config() },
        frozen.clone(),
        Config { probe_order: ProbeOrder::Random, ..frozen.clone() },
        Config { score: ScoreKind::ProcessedNorm, ..frozen.clone() },
        Config { missing: Missing::Zero, ..frozen.clone() },
        Config { policy: Policy::BlockLlm(Trigger::Patience), patience: 50, ..frozen.clone() },
        Config { policy: Policy::Full, ..frozen.clone() },
        Config { policy: Policy::Cyclic { period, order: Order::Random }, ..config() },
        Config { policy: Policy::RandomBlocks { period }, ..frozen },
        Config { immediate: true, ..config() },
        Config { immediate: true, inactive: Inactive::Frozen, ..config() },
    ] {
        steady_steps(config);
    }
}

fn config() -> Config {
    Config { sparsity: 0.6, patience: 3, policy: Policy::BlockLlm(Trigger::Period(1000)), ..Config::default() }
}

/// Whole, streamed and, where that is allowed, in windows of three micro-batches.
fn steady_steps(config: Config) {
    let windows = if config.immediate { &[1][..] } else { &[1, 3] };
    let what = format!("{config:?}");
    let (mut o, mut p, g) = (optimizer(config), parameters(), gradients(1));
    run(&mut o, &mut p, 0..3);
    let region = Region::new(ALLOCATOR);
    for t in 0..20 {
        let loss = 1.0 / f64::from(t + 1);
        let [a, b, c, d, e, f] = &mut p[..] else { unreachable!() };
        let mut params = [(0, a), (1, b), (2, c), (3, d), (4, e), (5, f)].map(|(i, p)| (i, ViewMut::F32(p)));
        let grads = |b: BlockId| Some(View::F32(&g[b as usize]));
        let _ = o.step(Step::new(0.01).loss(loss), grads, &mut params).unwrap();
        for &micro_batches in windows {
            for whole in [false, true] {
                o.begin(Step::new(0.01).loss(loss).micro_batches(micro_batches)).unwrap();
                for micro_batch in 1..=micro_batches {
                    let last = micro_batch == micro_batches;
                    if !whole {
                        for i in 0..o.wanted().unwrap().len() {
                            let block = o.wanted().unwrap()[i].block;
                            o.grad_with(block, &grads(block).unwrap(), &mut params[block as usize].1).unwrap();
                        }
                    } else if !last {
                        o.accumulate(grads).unwrap();
                    }
                    if !last {
                        o.next_micro_batch(None).unwrap();
                    }
                }
                let ended = if whole { o.finish_whole(grads, &mut params) } else { o.finish(&mut params) };
                assert_eq!(ended.unwrap(), Progress::Ready);
            }
        }
    }
    let change = region.change();
    assert_eq!((change.allocations, change.reallocations), (0, 0), "{what}");
}
