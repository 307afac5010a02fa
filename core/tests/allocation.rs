//! A step without a decision or a switch allocates nothing, however it is driven. Alone in its process, without a test
//! runner: the count is global.
#![allow(missing_docs)]

mod common;

use blockllm::{Config, Inactive, Optimizer, Policy, ProbeOrder, Reference, Slices, Step, Trigger, View, ViewMut};
use common::*;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn assert_send<T: Send>() {}

fn main() {
    assert_send::<Optimizer<Reference<Slices>>>();
    steady_steps();
}

fn steady_steps() {
    for (inactive, probe_order) in [
        (Inactive::SignSgd(1.0), ProbeOrder::RoundRobin),
        (Inactive::Frozen, ProbeOrder::RoundRobin),
        (Inactive::Frozen, ProbeOrder::Random),
    ] {
        let policy = Policy::BlockLlm(Trigger::Period(1000));
        let config = Config { sparsity: 0.6, patience: 3, inactive, probe_order, policy, clip: Some(1.0), ..Config::default() };
        let (mut o, mut p, g) = (optimizer(config), parameters(), gradients(1));
        run(&mut o, &mut p, 0..3);
        let region = Region::new(ALLOCATOR);
        for _ in 0..20 {
            let [a, b, c, d, e, f] = &mut p[..] else { unreachable!() };
            let mut params = [(0, a), (1, b), (2, c), (3, d), (4, e), (5, f)].map(|(i, p)| (i, ViewMut::F32(p)));
            let _ = o.step(Step::new(0.01).loss(1.0), |b| Some(View::F32(&g[b as usize])), &mut params).unwrap();
            o.begin(Step::new(0.01).loss(1.0)).unwrap();
            for i in 0..o.wanted().unwrap().len() {
                let block = o.wanted().unwrap()[i].block;
                o.grad_with(block, &View::F32(&g[block as usize]), &mut params[block as usize].1).unwrap();
            }
            let _ = o.finish(&mut params).unwrap();
        }
        let change = region.change();
        assert_eq!((change.allocations, change.reallocations), (0, 0), "{inactive:?}, {probe_order:?}");
    }
}
