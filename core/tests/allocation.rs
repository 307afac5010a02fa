//! A step without a decision or a switch allocates nothing, in either drive mode; and memory is flat over switches. One
//! test, alone in its process: the count is global.
#![allow(missing_docs)]

mod common;

use blockllm::{Config, Inactive, Optimizer, Policy, ProbeOrder, Reference, Slices, Step, Trigger, View, ViewMut};
use common::*;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn assert_send<T: Send>() {}

#[test]
fn steady_steps_allocate_nothing_and_switches_keep_nothing() {
    steady_steps();
    switches();
}

/// Blocks so large that state outweighs the host's own tables; after every step the heap holds what the report says.
fn switches() {
    let specs: Vec<_> = (0..5).map(|i| blockllm::BlockSpec::new(format!("w{i}"), [200, 100])).collect();
    let mut p = vec![vec![0.5f32; 20_000]; 5];
    let g: Vec<Vec<f32>> = (0..5).map(|b| (0..20_000).map(|i| noise(1, b, i)).collect()).collect();
    let config = Config { sparsity: 0.7, policy: Policy::BlockLlm(Trigger::Period(1)), ..Config::default() };
    let region = Region::new(ALLOCATOR);
    let mut o = Optimizer::new(Reference::<Slices>::default(), &specs, config).unwrap();
    let mut switches = 0;
    for _ in 0..200 {
        let _ = o.step(Step::new(0.01), |b| Some(View::F32(&g[b as usize])), &mut views(&mut p)).unwrap();
        o.wait().unwrap();
        switches += u32::from(o.is_switch_pending());
        let change = region.change();
        let (live, told) = (change.bytes_allocated - change.bytes_deallocated, o.memory().resident());
        assert!(live.abs_diff(told) < 8192, "{live} bytes live, {told} reported");
    }
    assert!(switches > 190, "{switches}");
    let bytes = o.budget() * 12;
    assert!(bytes > 300_000, "state outweighs the slack");
}

fn steady_steps() {
    assert_send::<Optimizer<Reference<Slices>>>();
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
