//! Gradients that do not come and count as zero (A6.2).
#![allow(missing_docs)]

mod common;

use blockllm::{
    Config, Error, Fill, Inactive, MaskKind, Missing, Optimizer, Policy, Progress, Reference, ScoreKind, Step, Trigger, View,
};
use common::*;

fn config() -> Config {
    let policy = Policy::BlockLlm(Trigger::Period(4));
    Config {
        sparsity: 0.5,
        seed: 5,
        policy,
        inactive: Inactive::Frozen,
        missing: Missing::Zero,
        clip: Some(1.0),
        ..Config::default()
    }
}

/// Of the blocks that a step asks for, some are left out of it; the other run gets zeros for them.
fn left_out(t: u64, block: u32, active: bool) -> bool {
    active && mix(t << 8 ^ u64::from(block)).is_multiple_of(3)
}

fn settle(o: &mut Optimizer<Reference>, progress: Progress) {
    if progress == Progress::Pending {
        o.wait().unwrap();
    }
}

#[test]
fn a_missing_gradient_of_an_active_block_is_zero_everywhere_a6_2() {
    for micro_batches in [1, 3] {
        for streamed in [false, true] {
            let (mut a, mut p) = (optimizer(config()), parameters());
            let (mut b, mut q) = (optimizer(config()), parameters());
            let mut left = 0;
            for t in 0..24 {
                let step = Step::new(0.01).loss(1.0).micro_batches(micro_batches);
                a.begin(step).unwrap();
                b.begin(step).unwrap();
                for micro in 0..micro_batches {
                    let g = gradients(t * 4 + 1 + u64::from(micro));
                    let switching = a.is_switch_pending();
                    let regions = a.active().regions.clone();
                    // The first micro-batch of a mask needs them all.
                    let out = |block: u32| {
                        let r = regions.iter().find(|r| r.block == block);
                        let needs = micro == 0 && switching && r.is_some_and(|r| r.masked());
                        !needs && left_out(t * 4 + u64::from(micro), block, r.is_some())
                    };
                    let zeros: Vec<Vec<f32>> = SIZES.iter().map(|&n| vec![0.0; n]).collect();
                    let some = |block: u32| (!out(block)).then(|| View::F32(&g[block as usize]));
                    let all = |block: u32| Some(View::F32(if out(block) { &zeros[block as usize] } else { &g[block as usize] }));
                    left += a.wanted().unwrap().iter().filter(|w| out(w.block)).count();
                    let last = micro + 1 == micro_batches;
                    if streamed {
                        for w in a.wanted().unwrap().to_vec() {
                            some(w.block).into_iter().for_each(|g| a.grad(w.block, &g).unwrap());
                            b.grad(w.block, &all(w.block).unwrap()).unwrap();
                        }
                    } else if !last {
                        a.accumulate(some).unwrap();
                        b.accumulate(all).unwrap();
                    }
                    if !last {
                        a.next_micro_batch(None).unwrap();
                        b.next_micro_batch(None).unwrap();
                        continue;
                    }
                    let ended = match streamed {
                        true => [a.finish(&mut views(&mut p)).unwrap(), b.finish(&mut views(&mut q)).unwrap()],
                        false => {
                            [a.finish_whole(some, &mut views(&mut p)).unwrap(), b.finish_whole(all, &mut views(&mut q)).unwrap()]
                        }
                    };
                    settle(&mut a, ended[0]);
                    settle(&mut b, ended[1]);
                }
                assert_eq!(bits(&p), bits(&q), "step {t}, {micro_batches} micro-batches, streamed {streamed}");
                assert!(a.save().unwrap() == b.save().unwrap(), "step {t}, {micro_batches} micro-batches, streamed {streamed}");
            }
            assert!(left > 10 && a.decisions() > 3, "{left} left out, {} decisions", a.decisions());
        }
    }
}

#[test]
fn the_first_micro_batch_of_a_mask_needs_its_gradient_a6_2() {
    let config = Config { fill: Fill::Uniform, mask: MaskKind::Coordinate, ..config() };
    let mut o = optimizer(config);
    let masked = o.active().regions.iter().find(|r| r.masked()).unwrap().block;
    let (g, mut p) = (gradients(1), parameters());
    let some = |b: u32| (b != masked).then(|| View::F32(&g[b as usize]));
    let error = o.step(Step::new(0.01), some, &mut views(&mut p)).unwrap_err();
    assert_eq!(error, Error::MissingGradient { block: format!("w{masked}") });
    assert!(!o.is_step_open());
}

#[test]
fn an_idle_block_that_gets_none_stays_and_keeps_its_score() {
    let policy = Policy::BlockLlm(Trigger::Period(1));
    let mut o = optimizer(Config { inactive: Inactive::SignSgd(1.0), policy, ..config() });
    let mut p = parameters();
    run(&mut o, &mut p, 0..3);
    let idle = (0..SIZES.len() as u32).find(|b| o.active().find(*b).is_none()).unwrap();
    let (before, age) = (p.clone(), o.report().unwrap().scores[idle as usize].unwrap().age);
    let g = gradients(4);
    let some = |b: u32| (b != idle).then(|| View::F32(&g[b as usize]));
    let progress = o.step(Step::new(0.01), some, &mut views(&mut p)).unwrap();
    settle(&mut o, progress);
    assert_eq!(before[idle as usize], p[idle as usize]);
    assert_eq!(o.report().unwrap().scores[idle as usize].unwrap().age, age + 1);
}

#[test]
fn what_cannot_count_as_zero_is_refused() {
    for bad in [Config { score: ScoreKind::ProcessedNorm, ..config() }, Config { immediate: true, clip: None, ..config() }] {
        let made = Optimizer::new(Reference::<blockllm::Slices>::default(), &specs(), bad);
        assert!(matches!(made.err().unwrap(), Error::Config { field: "missing", .. }));
    }
}
