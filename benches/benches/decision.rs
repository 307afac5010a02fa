//! A decision over many units, from the score table at hand to the plan of the next step. To be under 5 ms for 10,000.
#![allow(missing_docs)]

use blockllm::{Config, Fill, Inactive, Order, Policy, Step, Trigger, VisitBias};
use blockllm_benches::{LENGTH, optimizer};
use criterion::{Criterion, criterion_group, criterion_main};
use std::time::{Duration, Instant};

const UNITS: usize = 10_000;

fn decision(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("decision of {UNITS} units"));
    group.sample_size(20).measurement_time(Duration::from_secs(3));
    let base = Config { sparsity: 0.8, inactive: Inactive::Frozen, ..Config::default() };
    let block_llm = Policy::BlockLlm(Trigger::Period(1));
    let of = |policy: Policy| Config { policy, ..base.clone() };
    let exponential = Config { visit_bias: VisitBias::Exponential, fill: Fill::Uniform, ..of(block_llm.clone()) };
    for (name, config) in [
        ("BlockLlm", of(block_llm.clone())),
        ("BlockLlm, exponential, uniform", exponential),
        ("BlockLlm, whole", Config { fill: Fill::Whole, ..of(block_llm.clone()) }),
        ("BlockLlm, sign step of the rest", Config { inactive: Inactive::SignSgd(1.0), ..of(block_llm) }),
        ("RandomBlocks", of(Policy::RandomBlocks { period: 1 })),
        ("Cyclic", of(Policy::Cyclic { period: 1, order: Order::Random })),
        ("Lisa", of(Policy::Lisa { period: 1, units: 500 })),
        ("HalfFineTuning", of(Policy::HalfFineTuning { period: 1 })),
    ] {
        let mut o = optimizer(UNITS, config);
        let mut params: Vec<(u32, usize)> = (0..UNITS as u32).map(|b| (b, LENGTH)).collect();
        group.bench_function(name, |b| {
            b.iter_custom(|count| {
                let mut spent = Duration::ZERO;
                for _ in 0..count {
                    let _ = o.step(Step::new(0.1).loss(1.0), |_| Some(LENGTH), &mut params).unwrap_or_else(|e| panic!("{e}"));
                    let decisions = o.decisions();
                    let start = Instant::now();
                    o.wait().unwrap_or_else(|e| panic!("{e}"));
                    spent += start.elapsed();
                    assert_eq!(o.decisions(), decisions + 1, "what is timed is a decision");
                }
                spent
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decision);
criterion_main!(benches);
