//! The driver's own part of a step without a decision: 500 blocks active, of more and more. It is to be under 100 us, and the
//! same whatever the number of blocks.
#![allow(missing_docs)]

use blockllm::{Config, Fill, Inactive, Optimizer, Policy, Step, Trigger};
use blockllm_benches::null::Null;
use blockllm_benches::{LENGTH, optimizer, parameters};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::hint::black_box;

const ACTIVE: usize = 500;
const NEVER: u64 = 1 << 40;

/// `probes`: None for a policy that has none.
fn running(count: usize, probes: Option<usize>) -> Optimizer<Null> {
    let policy = probes.map_or(Policy::RandomBlocks { period: NEVER }, |_| Policy::BlockLlm(Trigger::Period(NEVER)));
    let sparsity = 1.0 - ACTIVE as f64 / count as f64;
    let config =
        Config { policy, sparsity, probes_per_step: probes, fill: Fill::Whole, inactive: Inactive::Frozen, ..Config::default() };
    let mut o = optimizer(count, config);
    // The first step switches.
    let mut params = parameters(&o);
    let _ = o.step(Step::new(0.1), |_| Some(LENGTH), &mut params).unwrap_or_else(|e| panic!("{e}"));
    o.wait().unwrap_or_else(|e| panic!("{e}"));
    assert!(o.active().regions.len().abs_diff(ACTIVE) <= 1);
    o
}

fn whole(o: &mut Optimizer<Null>, params: &mut [(u32, usize)]) {
    let step = o.step(Step::new(0.1).loss(1.0), |_| Some(LENGTH), params);
    let _ = black_box(step).unwrap_or_else(|e| panic!("{e}"));
}

fn streamed(o: &mut Optimizer<Null>, params: &mut [(u32, usize)]) {
    o.begin(Step::new(0.1).loss(1.0)).unwrap_or_else(|e| panic!("{e}"));
    for i in 0..o.wanted().map_or(0, <[_]>::len) {
        let block = o.wanted().map_or(0, |w| w[i].block);
        o.grad(block, &LENGTH).unwrap_or_else(|e| panic!("{e}"));
    }
    let _ = o.finish(params).unwrap_or_else(|e| panic!("{e}"));
}

fn driver(c: &mut Criterion) {
    let mut group = c.benchmark_group("driver");
    for count in [1_000, 10_000, 100_000] {
        for (name, probes) in [("no probes", None), ("10 probes", Some(10)), ("a tenth probed", Some(count / 10))] {
            let mut o = running(count, probes);
            let mut params = parameters(&o);
            group.bench_function(BenchmarkId::new(format!("whole step, {name}"), count), |b| {
                b.iter(|| whole(&mut o, &mut params))
            });
            let mut o = running(count, probes);
            let mut params = parameters(&o);
            group.bench_function(BenchmarkId::new(format!("streamed, {name}"), count), |b| {
                b.iter(|| streamed(&mut o, &mut params))
            });
        }
    }
    group.finish();
}

criterion_group!(benches, driver);
criterion_main!(benches);
