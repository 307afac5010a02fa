//! A step without a decision works in proportion to what is wanted, not to the number of blocks: counted, not timed.
#![allow(missing_docs)]

use blockllm::{Config, Inactive, MaskKind, Optimizer, Policy, ProbeOrder, Step, Trigger};
use blockllm_benches::{Null, Tensor, optimizer, sparsity};
use std::cell::Cell;

const ACTIVE: usize = 500;

fn made(blocks: usize, probe_order: ProbeOrder) -> Optimizer<Null> {
    let mut o = optimizer(
        blocks,
        Config {
            policy: Policy::BlockLlm(Trigger::Period(u64::MAX)),
            sparsity: sparsity(ACTIVE, blocks),
            inactive: Inactive::Frozen,
            mask: MaskKind::Coordinate,
            probe_order,
            probes_per_step: Some(100),
            ..Config::default()
        },
    );
    step(&mut o, true);
    assert_eq!((o.active().regions.len(), o.is_switch_pending()), (ACTIVE, false));
    o
}

/// One step: looks at gradients and at parameters, the blocks whose gradient was fetched, and backend calls.
fn step(o: &mut Optimizer<Null>, whole: bool) -> ([usize; 4], Vec<u32>) {
    let (grads, params, asked, before) = (Cell::new(0), Cell::new(0), Cell::new(Vec::new()), o.backend().calls);
    let all = o.blocks().count() as u32;
    let mut given: Vec<_> = (0..all).map(|b| (b, Tensor::new(&params))).collect();
    if whole {
        let grad = |b| {
            let mut list = asked.take();
            list.push(b);
            asked.set(list);
            Some(Tensor::new(&grads))
        };
        let _ = o.step(Step::new(0.01), grad, &mut given).unwrap();
    } else {
        o.begin(Step::new(0.01)).unwrap();
        for i in 0..o.wanted().unwrap().len() {
            let block = o.wanted().unwrap()[i].block;
            o.grad(block, &Tensor::new(&grads)).unwrap();
        }
        let _ = o.finish(&mut given).unwrap();
    }
    o.wait().unwrap();
    let asked = asked.take();
    ([grads.get(), params.get(), asked.len(), o.backend().calls - before], asked)
}

#[test]
fn a_step_looks_at_the_wanted_blocks_alone() {
    for order in [ProbeOrder::RoundRobin, ProbeOrder::Random] {
        let of = |blocks: usize, whole: bool| {
            let mut o = made(blocks, order);
            let wanted: Vec<u32> = o.wanted().unwrap().iter().map(|w| w.block).collect();
            let (counts, asked) = step(&mut o, whole);
            assert!(wanted.len() == ACTIVE + 100 && asked.iter().all(|b| wanted.contains(b)));
            counts
        };
        // Each gradient is looked at once and fetched twice, each active parameter looked at once, whatever the number of blocks.
        let whole = [ACTIVE + 100, ACTIVE, 2 * (ACTIVE + 100), 1];
        let streamed = [ACTIVE + 100, ACTIVE, 0, ACTIVE + 100 + 1];
        for blocks in [1_000, 10_000, 30_000] {
            assert_eq!((of(blocks, true), of(blocks, false)), (whole, streamed), "{blocks} blocks, {order:?}");
        }
    }
}

#[test]
fn without_probes_a_step_looks_at_the_active_blocks_alone() {
    let policy = Policy::Lisa { period: u64::MAX, units: ACTIVE as u32 };
    let mut o = optimizer(10_000, Config { policy, inactive: Inactive::Frozen, ..Config::default() });
    step(&mut o, true);
    assert_eq!(step(&mut o, true).0, [ACTIVE, ACTIVE, 2 * ACTIVE, 1]);
}
