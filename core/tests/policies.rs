//! Policies other than BlockLlm's own (A4.6), and first sets (A3.4). What each draws is held to golden runs elsewhere; here:
//! how they are driven, what they hold, and that a record goes on.
#![allow(missing_docs)]

mod common;

use blockllm::{
    BlockSpec, Config, Error, First, Inactive, LossEntry, Optimizer, Order, Policy, Progress, Reason, Reference, Slices, Stage,
    Step, Trigger, View,
};
use common::*;

fn specs_with_layers() -> Vec<BlockSpec> {
    let place = |(i, s): (usize, BlockSpec)| match i {
        5 => s.always_active(),
        _ => s.layer(i as u32 / 2, if i % 2 == 0 { "attention" } else { "mlp" }),
    };
    specs().into_iter().enumerate().map(place).collect()
}

fn make(config: &Config) -> Optimizer<Reference> {
    Optimizer::new(Reference::default(), &specs_with_layers(), config.clone()).unwrap()
}

fn policies() -> Vec<Policy> {
    let period = 2;
    vec![
        Policy::Cyclic { period, order: Order::Ascending },
        Policy::Cyclic { period, order: Order::Descending },
        Policy::Cyclic { period, order: Order::Random },
        Policy::Lisa { period, units: 2 },
        Policy::HalfFineTuning { period },
        Policy::RandomBlocks { period },
    ]
}

#[test]
fn no_policy_asks_for_more_than_it_reserved_or_probes_a4_6() {
    for policy in policies() {
        for inactive in [Inactive::Frozen, Inactive::SignSgd(1.0)] {
            let (mut o, mut p) =
                (make(&Config { policy: policy.clone(), inactive, sparsity: 0.5, ..Config::default() }), parameters());
            assert!(!o.needs_loss());
            let (budget, moments) = (o.budget(), o.memory().moments);
            assert_eq!(moments, 2 * 4 * budget, "{policy:?}");
            let mut seen = [false; 6];
            for t in 0..40 {
                assert!(o.probes().is_empty());
                assert!(o.active().coordinates() <= budget, "{policy:?}");
                assert!(o.active().find(5).is_some(), "{policy:?}: the always-active block");
                o.active().regions.iter().for_each(|r| seen[r.block as usize] = true);
                if t == 20 {
                    o.freeze(2).unwrap();
                }
                if t == 28 {
                    o.thaw(2).unwrap();
                }
                run(&mut o, &mut p, t..t + 1);
            }
            assert!(seen.iter().all(|s| *s), "{policy:?}: {seen:?}");
            assert_eq!(o.memory().moments, moments);
            assert_eq!(o.decisions(), 20);
            assert!(o.report().unwrap().scores.iter().all(Option::is_none));
        }
    }
}

#[test]
fn a_record_goes_on_under_every_policy_and_stage() {
    let paper = Config { sparsity: 0.5, patience: 3, ..near_the_paper() };
    let first = [First::FullGradient, First::Scan].map(|first| Config { first, ..paper.clone() });
    let mut configs = policies().into_iter().map(|policy| Config { policy, ..paper.clone() }).collect::<Vec<_>>();
    configs.extend(first);
    for config in configs {
        for cut in [0, 1, 2, 3, 7] {
            let (mut a, mut p) = (make(&config), parameters());
            run(&mut a, &mut p, 0..cut);
            let (record, mut q) = (a.save().unwrap(), p.clone());
            let mut b = make(&config);
            b.restore(&record).unwrap();
            assert_eq!((a.stage(), a.wanted().unwrap()), (b.stage(), b.wanted().unwrap()));
            run(&mut a, &mut p, cut..cut + 12);
            run(&mut b, &mut q, cut..cut + 12);
            assert_eq!(bits(&p), bits(&q), "{config:?}, cut at {cut}");
            assert!(a.save().unwrap() == b.save().unwrap());
        }
    }
}

#[test]
fn a_record_of_another_layer_is_refused() {
    let config = Config { policy: Policy::HalfFineTuning { period: 2 }, ..Config::default() };
    let record = make(&config).save().unwrap();
    let mut specs = specs_with_layers();
    specs[3].layer = Some(7);
    let mut other = Optimizer::new(Reference::<blockllm::Slices>::default(), &specs, config).unwrap();
    let error = other.restore(&record).unwrap_err().to_string();
    assert!(error.contains("block/w3") && error.contains("layer"), "{error}");
}

fn pass(o: &mut Optimizer<Reference>, p: &mut [Vec<f32>], g: &[Vec<f32>]) {
    let step = Step::new(0.5).loss(1.0);
    let progress = o.step(step, |b| Some(View::F32(&g[b as usize])), &mut views(p)).unwrap();
    if progress == Progress::Pending {
        o.wait().unwrap();
    }
}

#[test]
fn a_full_gradient_pass_is_no_step_and_moves_nothing_a3_4() {
    let config = Config { first: First::FullGradient, sparsity: 0.6, seed: 5, ..Config::default() };
    let (mut o, mut p) = (optimizer(config), parameters());
    let (before, mut g) = (bits(&p), gradients(1));
    assert_eq!(o.stage(), Stage::FullGradient);
    assert_eq!(o.wanted().unwrap().len(), SIZES.len());
    assert!(o.wanted().unwrap().iter().all(|w| !w.with_parameter && w.only_probed()));
    let force = o.force_decision().unwrap_err();
    assert!(matches!(force, Error::Order { call: "force_decision", .. }), "{force}");
    // A unit without a finite score: the pass is repeated.
    g[3][0] = f32::NAN;
    pass(&mut o, &mut p, &g);
    let report = o.report().unwrap();
    assert_eq!(
        (report.step, report.stage, report.loss, report.reason),
        (0, Stage::FullGradient, LossEntry::Ignored, Some(Reason::First))
    );
    assert!(matches!(report.decision, Some(blockllm::Decision::Void { units: 1, first: 3 })));
    assert_eq!((o.stage(), o.steps(), o.decisions()), (Stage::FullGradient, 0, 0));
    // Streamed, and dropped once.
    o.begin(Step::new(0.5)).unwrap();
    o.grad(0, &View::F32(&g[0])).unwrap();
    o.abort().unwrap();
    pass(&mut o, &mut p, &gradients(2));
    assert_eq!((o.stage(), o.steps(), o.decisions()), (Stage::Training, 0, 1));
    assert!(o.is_switch_pending());
    assert_eq!(bits(&p), before);
    let report = o.report().unwrap();
    assert_eq!((report.applied, report.skipped, report.norm), (0, false, 0.0));
    run(&mut o, &mut p, 0..1);
    assert_eq!((o.steps(), o.report().unwrap().switched), (1, true));
    assert_ne!(bits(&p), before);
}

#[test]
fn a_scan_asks_for_some_units_a_step_and_counts_steps_a3_4() {
    let policy = Policy::BlockLlm(Trigger::Patience);
    let config = Config { first: First::Scan, policy, patience: 3, inactive: Inactive::SignSgd(1.0), ..Config::default() };
    let (mut o, mut p) = (make(&config), parameters());
    let before = bits(&p);
    for step in 1..=3 {
        assert_eq!((o.stage(), o.probes().len()), (Stage::Scan, 2));
        assert!(o.active().regions.is_empty() && o.wanted().unwrap().len() == 2);
        pass(&mut o, &mut p, &gradients(step));
        assert_eq!(o.steps(), step);
    }
    assert_eq!((o.stage(), o.decisions()), (Stage::Training, 1));
    assert_eq!(bits(&p), before);
    pass(&mut o, &mut p, &gradients(4));
    assert_ne!(bits(&p), before);
}

#[test]
fn nothing_to_scan_is_an_empty_set() {
    for first in [First::Scan, First::FullGradient] {
        let (mut o, mut p) = (optimizer(Config { first, ..near_the_paper() }), parameters());
        (0..SIZES.len() as u32).for_each(|b| o.freeze(b).unwrap());
        let before = bits(&p);
        for t in 0..3 {
            run(&mut o, &mut p, t..t + 1);
        }
        assert_eq!((o.stage(), bits(&p)), (Stage::Training, before));
    }
}

#[test]
fn what_is_held_follows_what_is_trainable_a1_1() {
    // The largest of them is frozen: a cyclic policy holds what the largest of the others needs.
    let mut specs = specs();
    specs[2].frozen = true;
    let policy = Policy::Cyclic { period: 1, order: Order::Ascending };
    let config = Config { policy, inactive: Inactive::Frozen, ..Config::default() };
    let make = |specs: &[BlockSpec]| Optimizer::new(Reference::<Slices>::default(), specs, config.clone()).unwrap();
    let (mut o, mut p) = (make(&specs), parameters());
    let moments = |o: &Optimizer<Reference>| o.memory().moments / 8;
    run(&mut o, &mut p, 0..3);
    assert_eq!((o.budget(), moments(&o)), (64, 64));
    o.thaw(2).unwrap();
    assert_eq!((o.budget(), moments(&o)), (90, 64), "room is made when a set needs it");
    run(&mut o, &mut p, 3..9);
    assert_eq!((o.budget(), moments(&o)), (90, 90));
    o.freeze(2).unwrap();
    run(&mut o, &mut p, 9..12);
    assert_eq!((o.budget(), moments(&o)), (64, 64), "and given back");
    o.thaw(2).unwrap();
    // A record knows what was trainable.
    let (record, mut q) = (o.save().unwrap(), p.clone());
    let mut again = make(&specs);
    again.restore(&record).unwrap();
    run(&mut o, &mut p, 12..25);
    run(&mut again, &mut q, 12..25);
    assert_eq!((bits(&p), o.save().unwrap()), (bits(&q), again.save().unwrap()));
}
