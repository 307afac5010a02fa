//! A step that neither decides nor switches allocates nothing, whole or streamed, and what is held is what the report
//! says. The count is of the whole process, so this is a program of its own, without the test runner, whose main thread
//! allocates when it likes. On one thread, and inside its pool: a pool that is called from outside allocates as it takes
//! the call.

use blockllm::{BlockSpec, Config, Inactive, Optimizer, Policy, ScoreKind, Step, Trigger, View, ViewMut};
use blockllm_cpu::Cpu;
use rayon::ThreadPoolBuilder;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Parts, and more blocks than are worked on together.
const SIZES: [usize; 35] = {
    let mut sizes = [70; 35];
    sizes[2] = 20_000;
    sizes[33] = 5000;
    sizes
};

type Tensors = Vec<Vec<f32>>;

fn tensors(scale: f32) -> Tensors {
    SIZES.iter().map(|&n| (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) * scale).collect()).collect()
}

fn views(p: &mut Tensors) -> Vec<(u32, ViewMut<'_>)> {
    (0..).zip(p.iter_mut().map(|p| ViewMut::F32(p))).collect()
}

fn main() {
    // No other pool: threads that start allocate.
    let pool = ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| {
        let base = Config { sparsity: 0.6, patience: 3, policy: Policy::BlockLlm(Trigger::Period(1000)), ..Config::default() };
        for config in [
            Config { clip: Some(1.0), ..base.clone() },
            Config { inactive: Inactive::Frozen, score: ScoreKind::ProcessedNorm, ..base.clone() },
            Config { immediate: true, ..base.clone() },
            Config { policy: Policy::Full, sparsity: 0.0, inactive: Inactive::Frozen, ..base },
        ] {
            steady(config);
        }
    });
}

fn steady(config: Config) {
    let specs: Vec<_> = SIZES.iter().enumerate().map(|(i, n)| BlockSpec::new(format!("w{i}"), [1, *n])).collect();
    let (mut p, g, name) = (tensors(0.1), tensors(1e-3), format!("{config:?}"));
    let mut params = views(&mut p);
    let held = Region::new(ALLOCATOR);
    let mut o = Optimizer::new(<Cpu>::default().grain(1024), &specs, config).unwrap();
    for _ in 0..3 {
        let _ = o.step(Step::new(0.01).loss(1.0), |b| Some(View::F32(&g[b as usize])), &mut params).unwrap();
        o.wait().unwrap();
    }
    let change = held.change();
    let (live, told) = (change.bytes_allocated - change.bytes_deallocated, o.memory().resident());
    // Names, specifications and plans of the engine's own are beside it.
    assert!((told..told + 24_000).contains(&live), "{live} bytes live, {told} reported: {name}");
    assert!(o.memory().scratch > 0);
    let (spent, made) = (Region::new(ALLOCATOR), o.backend().counts());
    for _ in 0..10 {
        let _ = o.step(Step::new(0.01).loss(1.0), |b| Some(View::F32(&g[b as usize])), &mut params).unwrap();
        o.begin(Step::new(0.01).loss(1.0)).unwrap();
        for i in 0..o.wanted().unwrap().len() {
            let block = o.wanted().unwrap()[i].block;
            o.grad_with(block, &View::F32(&g[block as usize]), &mut params[block as usize].1).unwrap();
        }
        let _ = o.finish(&mut params).unwrap();
    }
    let change = spent.change();
    assert_eq!((change.allocations, change.reallocations), (0, 0), "{name}");
    assert_eq!(o.backend().counts(), made);
}
