//! The engine's own part of a step without a decision: 500 active blocks of 1,000, 10,000 and 100,000, and as many probes as
//! by default with 10,000 (A2.6), over a backend that does nothing.
#![allow(missing_docs)]

use blockllm::{BlockId, Config, Inactive, Optimizer, Policy, Step, Trigger};
use blockllm_benches::{Null, Tensor, optimizer, sparsity};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::cell::Cell;

const ACTIVE: usize = 500;

type Drive = for<'a> fn(&mut Optimizer<Null>, &mut [(BlockId, Tensor<'a>)], &'a Cell<usize>);

fn made(blocks: usize, probes_per_step: Option<usize>) -> Optimizer<Null> {
    let policy = Policy::BlockLlm(Trigger::Period(u64::MAX));
    let sparsity = sparsity(ACTIVE, blocks);
    let mut o = optimizer(blocks, Config { policy, sparsity, inactive: Inactive::Frozen, probes_per_step, ..Config::default() });
    // The first step switches.
    let looks = Cell::new(0);
    let mut params = params(&o, &looks);
    whole(&mut o, &mut params, &looks);
    o
}

/// Of the active blocks, as a caller hands them over.
fn params<'a>(o: &Optimizer<Null>, looks: &'a Cell<usize>) -> Vec<(BlockId, Tensor<'a>)> {
    o.active().regions.iter().map(|r| (r.block, Tensor::new(looks))).collect()
}

fn whole<'a>(o: &mut Optimizer<Null>, params: &mut [(BlockId, Tensor<'a>)], looks: &'a Cell<usize>) {
    let _ = o.step(Step::new(0.01), |_| Some(Tensor::new(looks)), params).unwrap();
    o.wait().unwrap();
}

fn streamed<'a>(o: &mut Optimizer<Null>, params: &mut [(BlockId, Tensor<'a>)], looks: &'a Cell<usize>) {
    o.begin(Step::new(0.01)).unwrap();
    for i in 0..o.wanted().unwrap().len() {
        let block = o.wanted().unwrap()[i].block;
        o.grad(block, &Tensor::new(looks)).unwrap();
    }
    let _ = o.finish(params).unwrap();
}

fn bench(c: &mut Criterion) {
    let looks = Cell::new(0);
    let drives: [(&str, Drive); 2] = [("whole", whole), ("streamed", streamed)];
    for (name, step) in drives {
        let mut group = c.benchmark_group(format!("step_{name}_500_active"));
        for (row, blocks, probes) in [
            ("10000_blocks_default_probes", 10_000, None),
            ("1000_blocks_100_probes", 1_000, Some(100)),
            ("10000_blocks_100_probes", 10_000, Some(100)),
            ("100000_blocks_100_probes", 100_000, Some(100)),
        ] {
            let mut o = made(blocks, probes);
            let mut params = params(&o, &looks);
            assert_eq!(params.len(), ACTIVE);
            group.bench_function(BenchmarkId::from_parameter(row), |b| b.iter(|| step(&mut o, &mut params, &looks)));
        }
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
