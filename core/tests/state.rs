//! What the engine keeps, and when a decided set takes the place of the one before.
#![allow(missing_docs)]

mod common;

use blockllm::{
    BlockSpec, Config, DType, Error, Fill, Inactive, Optimizer, Order, Policy, Record, Reference, Slices, Step, Trigger, View,
};
use common::*;

fn frozen(policy: Policy) -> Config {
    Config { sparsity: 0.5, policy, inactive: Inactive::Frozen, ..Config::default() }
}

fn leaf(record: &Record, name: &str) -> Vec<u8> {
    record.get(name).unwrap_or_else(|| panic!("no leaf {name}")).data.clone()
}

/// The step count t of a block.
fn t(record: &Record, block: usize) -> u8 {
    leaf(record, &format!("block/w{block}"))[8 * 6]
}

/// The k coordinates with the largest |g|, of equal ones the lower index (A4.4).
fn largest(g: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..g.len()).collect();
    order.sort_by(|&i, &j| g[j].abs().total_cmp(&g[i].abs()).then(i.cmp(&j)));
    order.truncate(k);
    order.sort_unstable();
    order
}

fn step(o: &mut Optimizer<Reference>, p: &mut [Vec<f32>], g: &[Vec<f32>]) {
    let _ = o.step(Step::new(0.01).loss(1.0), |b| Some(View::F32(&g[b as usize])), &mut views(p)).unwrap();
    o.wait().unwrap();
}

#[test]
fn an_empty_block_changes_nothing_and_frozen_units_have_numbers_a1_4() {
    let config = Config { seed: 8, ..frozen(Policy::BlockLlm(Trigger::Period(3))) };
    for place in 0..=6 {
        let mut with = specs();
        with.insert(place, BlockSpec::new("empty", [3, 0]));
        let mut o = Optimizer::new(Reference::<Slices>::default(), &with, config.clone()).unwrap();
        let (mut twin, mut q) = (optimizer(config.clone()), parameters());
        assert_eq!((o.budget(), o.blocks().units.len()), (twin.budget(), 6));
        let mut p = parameters();
        p.insert(place, vec![]);
        for t in 0..20 {
            let mut g = gradients(t + 1);
            step(&mut twin, &mut q, &g);
            g.insert(place, vec![]);
            step(&mut o, &mut p, &g);
            assert!(o.active().find(place as u32).is_none());
        }
        p.remove(place);
        assert_eq!(bits(&p), bits(&q), "an empty block at {place}");
        assert_eq!((o.visits(), o.cursor_and_draws()), (twin.visits(), twin.cursor_and_draws()));
    }
    // Where round-robin begins: seed 8 modulo all six units, one of them frozen.
    let mut some = specs();
    some[0].frozen = true;
    let o = Optimizer::new(Reference::<Slices>::default(), &some, config).unwrap();
    assert_eq!(o.cursor_and_draws().0, 2);
}

#[test]
fn a_decision_takes_effect_in_the_next_step_whose_gradient_makes_the_mask_a3_5() {
    let config = Config { fill: Fill::Uniform, ..frozen(Policy::RandomBlocks { period: 2 }) };
    let (mut o, mut p) = (optimizer(config), parameters());
    let mut masked = 0;
    for t in 0..12u64 {
        let g = gradients(t + 1);
        let (set, switches, before) = (o.active().clone(), o.is_switch_pending(), p.clone());
        step(&mut o, &mut p, &g);
        for r in &set.regions {
            let b = r.block as usize;
            let moved: Vec<usize> = (0..r.n).filter(|&i| p[b][i] != before[b][i]).collect();
            assert_eq!(moved.len(), r.k, "the set of the step is the one that was asked for");
            if switches && r.masked() {
                assert_eq!(moved, largest(&g[b], r.k), "its mask is of this step's gradient");
                masked += 1;
            }
        }
        assert_eq!(o.is_switch_pending(), !t.is_multiple_of(2), "decided at the end of every second step");
    }
    assert!(masked >= 4, "{masked}");
}

#[test]
fn one_arena_serves_every_set_and_t_counts_what_was_applied_a5_1() {
    let config = frozen(Policy::Cyclic { period: 4, order: Order::Ascending });
    let (mut o, mut p) = (optimizer(config), parameters());
    for turn in 0..6usize {
        for within in 0..4u64 {
            let mut g = gradients(turn as u64 * 4 + within + 1);
            if within == 2 {
                g[turn][0] = f32::NAN;
            }
            step(&mut o, &mut p, &g);
            assert_eq!(o.memory().moments, 2 * 4 * 90, "the largest block's, whichever is active");
            let record = o.save().unwrap();
            assert_eq!(t(&record, turn), [1, 2, 2, 3][within as usize], "block {turn}");
            let packed = leaf(&record, &format!("m/w{turn}"));
            assert_eq!(packed.len(), 4 * SIZES[turn]);
            if within == 0 {
                // From zero: m = f(1 - beta1) * g.
                let first = f32::from_le_bytes(packed[..4].try_into().unwrap());
                assert_eq!(first, (1.0f64 - 0.9) as f32 * g[turn][0]);
            }
        }
    }
}

#[test]
fn a_switch_that_is_skipped_leaves_the_old_set_s_state_and_builds_its_masks_anew_a5_2() {
    let config = Config { fill: Fill::Uniform, ..frozen(Policy::RandomBlocks { period: 3 }) };
    let (mut o, mut p) = (optimizer(config), parameters());
    (0..3).for_each(|t| step(&mut o, &mut p, &gradients(t + 1)));
    assert!(o.is_switch_pending());
    let (before, params, old) = (o.save().unwrap(), p.clone(), o.current().clone());
    let active = o.active().regions[0];
    let mut wild = gradients(4);
    wild[active.block as usize].reverse();
    wild[active.block as usize][0] = f32::INFINITY;
    step(&mut o, &mut p, &wild);
    assert!(o.report().unwrap().skipped && o.is_switch_pending());
    assert_eq!((o.current(), bits(&p)), (&old, bits(&params)));
    let after = o.save().unwrap();
    for l in before.leaves().iter().filter(|l| ["m/", "v/", "mask/"].iter().any(|x| l.name.starts_with(x))) {
        assert_eq!(after.get(&l.name), Some(l));
    }
    // The next step's gradient, not the one that was skipped, makes the masks.
    let g = gradients(5);
    step(&mut o, &mut p, &g);
    let b = active.block as usize;
    let moved: Vec<usize> = (0..active.n).filter(|&i| p[b][i] != params[b][i]).collect();
    assert_eq!(moved, largest(&g[b], active.k));
    assert!(o.report().unwrap().switched);
}

/// A7.2.
#[test]
fn moments_have_a_type_of_their_own_which_a_record_keeps_a7_2() {
    let of = |dtype: DType| {
        let specs: Vec<_> = specs().into_iter().map(|s| s.dtype(dtype)).collect();
        Optimizer::new(Reference::<Slices>::default(), &specs, frozen(Policy::RandomBlocks { period: 3 })).unwrap()
    };
    // Half-precision weights have moments in single precision.
    for (dtype, bytes) in [(DType::F32, 4), (DType::F16, 4), (DType::Bf16, 4), (DType::F64, 8)] {
        let mut o = of(dtype);
        assert_eq!(o.memory().moments, 2 * bytes * o.budget(), "{dtype}");
        let record = o.save().unwrap();
        let mut again = of(dtype);
        again.restore(&record).unwrap();
        assert_eq!((again.memory(), again.save().unwrap()), (o.memory(), record));
    }
    let before = of(DType::F64).save().unwrap();
    let mut single = of(DType::F32);
    let own = single.save().unwrap();
    let Err(Error::Record { leaf, problem }) = single.restore(&before) else { panic!("moments of another type") };
    assert_eq!((leaf.as_str(), problem.as_str()), ("config", "the record was made with moments = f64, here it is moments = f32"));
    assert!(single.save().unwrap() == own);
}
