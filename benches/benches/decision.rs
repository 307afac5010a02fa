//! A decision over 10,000 units, from the moment at which the score table is at hand to the plan of the next step; with the
//! step around it, which is the engine's part alone. A twentieth of the coordinates is active.
#![allow(missing_docs)]

use blockllm::policy::{Candidates, Choose};
use blockllm::random::Stream;
use blockllm::{BlockId, Config, Fill, Inactive, MaskKind, Optimizer, Order, Policy, Progress, Step, Trigger, VisitBias};
use blockllm_benches::{Null, Tensor, optimizer, sparsity};
use criterion::{Criterion, criterion_group, criterion_main};
use std::cell::Cell;
use std::time::{Duration, Instant};

const UNITS: usize = 10_000;

/// A rule of the user's own that ranks by score.
#[derive(Debug)]
struct ByScore;

impl Choose for ByScore {
    fn trigger(&self) -> Trigger {
        Trigger::Period(1)
    }

    fn scores(&self) -> bool {
        true
    }

    fn choose(&self, all: &Candidates<'_>, _: &mut Vec<u64>, _: &mut Stream) -> Vec<u32> {
        let mut units: Vec<u32> = all.units().collect();
        units.sort_by(|a, b| all.score(*b).total_cmp(&all.score(*a)));
        units
    }
}

fn configs() -> Vec<(String, Config)> {
    let block_llm = || Policy::BlockLlm(Trigger::Period(1));
    let base = Config { sparsity: sparsity(500, UNITS), inactive: Inactive::Frozen, policy: block_llm(), ..Config::default() };
    let mut all = Vec::new();
    for visit_bias in [VisitBias::Ratio, VisitBias::Exponential, VisitBias::None] {
        all.push((format!("block_llm_visits_{visit_bias:?}"), Config { visit_bias, ..base.clone() }));
    }
    for fill in [Fill::LastMasked, Fill::Uniform, Fill::Whole] {
        for mask in [MaskKind::Coordinate, MaskKind::Tile(4)] {
            all.push((format!("block_llm_fill_{fill:?}_{mask:?}"), Config { fill, mask, ..base.clone() }));
        }
    }
    all.push(("block_llm_sign".to_string(), Config { inactive: Inactive::SignSgd(1.0), ..base.clone() }));
    for (name, policy) in [
        ("cyclic", Policy::Cyclic { period: 1, order: Order::Random }),
        ("lisa", Policy::Lisa { period: 1, units: 500 }),
        ("half_fine_tuning", Policy::HalfFineTuning { period: 1 }),
        ("random_blocks", Policy::RandomBlocks { period: 1 }),
        ("own", Policy::own(ByScore)),
    ] {
        all.push((name.to_string(), Config { policy, ..base.clone() }));
    }
    all
}

/// A deciding step up to its end; then the time that its decision takes.
fn decide(o: &mut Optimizer<Null>) -> Duration {
    let looks = Cell::new(0);
    let mut params: Vec<(BlockId, Tensor<'_>)> = (0..UNITS as BlockId).map(|b| (b, Tensor::new(&looks))).collect();
    let progress = o.step(Step::new(0.01), |_| Some(Tensor::new(&looks)), &mut params).unwrap();
    assert_eq!(progress, Progress::Pending);
    let start = Instant::now();
    o.wait().unwrap();
    start.elapsed()
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("decision_10000_units");
    for (name, config) in configs() {
        let mut o = optimizer(UNITS, config);
        group.bench_function(name, |b| b.iter_custom(|n| (0..n).map(|_| decide(&mut o)).sum()));
        assert!(o.decisions() > 10);
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
