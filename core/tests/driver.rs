//! The driver: order of calls, validation, polling, poisoning, freezing, allocation.
#![allow(missing_docs)]

mod common;

use blockllm::error::Tensor;
use blockllm::{
    Across, BlockSpec, Config, DType, Decision, Error, Inactive, MaskKind, Optimizer, Policy, Progress, Reference, Slices, Step,
    Trigger, View, ViewMut,
};
use common::*;

type Never = blockllm::reference::HostError<std::convert::Infallible>;

fn config() -> Config {
    Config {
        sparsity: 0.6,
        patience: 3,
        policy: Policy::BlockLlm(Trigger::Period(4)),
        seed: 5,
        score: blockllm::ScoreKind::GradientNorm,
        ..Config::default()
    }
}

/// Parameters and everything that is saved.
fn state(o: &mut Optimizer<Reference>, params: &[Vec<f32>]) -> (Vec<Vec<u32>>, blockllm::Record) {
    (bits(params), o.save().unwrap())
}

/// The error of a call, which must change nothing.
fn refuses(
    o: &mut Optimizer<Reference>, params: &mut Vec<Vec<f32>>, want: Error<Never>,
    call: impl FnOnce(&mut Optimizer<Reference>, &mut Vec<Vec<f32>>) -> Option<Error<Never>>,
) {
    let before = state(o, params);
    assert_eq!(call(o, params), Some(want));
    assert!(state(o, params) == before, "the call changed something");
}

fn step_error(o: &mut Optimizer<Reference>, step: Step, g: &[Vec<f32>], params: &mut [Vec<f32>]) -> Option<Error<Never>> {
    o.step(step, |b| g.get(b as usize).map(|g| View::F32(g)), &mut views(params)).err()
}

#[test]
fn a_bad_step_is_refused_and_changes_nothing() {
    let (mut o, mut p) = (optimizer(config()), parameters());
    run(&mut o, &mut p, 0..9);
    let g = gradients(10);
    let ok = Step::new(0.01);
    let name = |b: usize| format!("w{b}");
    refuses(
        &mut o,
        &mut p,
        Error::Step {
            field: "lr",
            value: f64::INFINITY,
            allowed: "not negative, and finite with scales, decay and bias correction",
        },
        |o, p| step_error(o, Step::new(f64::INFINITY), &g, p),
    );
    let bad = Step { inv_loss_scale: f64::NEG_INFINITY, ..ok };
    refuses(
        &mut o,
        &mut p,
        Error::Step { field: "inv_loss_scale", value: f64::NEG_INFINITY, allowed: "finite and positive" },
        |o, p| step_error(o, bad, &g, p),
    );
    refuses(&mut o, &mut p, Error::MissingGradient { block: name(5) }, |o, p| step_error(o, ok, &g[..5], p));
    let mut short = g.clone();
    short[3].pop();
    let want = Error::Length { block: name(3), tensor: Tensor::Gradient, want: 33, got: 32 };
    refuses(&mut o, &mut p, want, |o, p| step_error(o, ok, &short, p));
    let wide = vec![0.0f64; 40];
    let want = Error::Type { block: name(0), tensor: Tensor::Gradient, want: DType::F32, got: DType::F64 };
    refuses(&mut o, &mut p, want, |o, p| {
        o.step(ok, |b| Some(if b == 0 { View::F64(&wide) } else { View::F32(&g[b as usize]) }), &mut views(p)).err()
    });
    refuses(&mut o, &mut p, Error::MissingParameter { block: name(5) }, |o, p| step_error(o, ok, &g, &mut p[..5]));
    refuses(&mut o, &mut p, Error::ParameterOrder { block: name(1) }, |o, p| {
        let mut views = views(p);
        views.swap(1, 2);
        o.step(ok, |b| Some(View::F32(&g[b as usize])), &mut views).err()
    });
    refuses(&mut o, &mut p, Error::Length { block: name(4), tensor: Tensor::Parameter, want: 64, got: 3 }, |o, p| {
        let mut tiny = vec![0.0; 3];
        let mut views = views(p);
        views[4].1 = ViewMut::F32(&mut tiny);
        o.step(ok, |b| Some(View::F32(&g[b as usize])), &mut views).err()
    });
    refuses(&mut o, &mut p, Error::UnknownBlock { block: 6, blocks: 6 }, |o, _| o.freeze(6).err());
    refuses(&mut o, &mut p, Error::AlreadySo { block: name(2), state: "trainable" }, |o, _| o.thaw(2).err());
}

#[test]
fn an_open_step_can_be_repaired_or_aborted_a6_5() {
    let config = Config { inactive: Inactive::Frozen, ..config() };
    let (mut o, mut p) = (optimizer(config.clone()), parameters());
    let (mut twin, mut q) = (optimizer(config), parameters());
    run(&mut o, &mut p, 0..13);
    run(&mut twin, &mut q, 0..13);
    let before = state(&mut o, &p);
    let g = gradients(99);
    let first = o.wanted().unwrap()[0].block;
    let idle = (0..6).find(|b| o.wanted().unwrap().iter().all(|w| w.block != *b)).unwrap();
    let view = |b: u32| View::F32(&g[b as usize]);
    assert_eq!(o.grad(first, &view(first)), Err(Error::Order { call: "grad", need: "no step is open: begin one first" }));
    o.begin(Step::new(0.5).loss(9.0)).unwrap();
    o.grad(first, &view(first)).unwrap();
    assert_eq!(o.grad(first, &view(first)), Err(Error::Twice { block: format!("w{first}") }));
    assert_eq!(o.grad(99, &view(0)), Err(Error::UnknownBlock { block: 99, blocks: 6 }));
    assert_eq!(o.grad(idle, &view(idle)), Err(Error::NotWanted { block: format!("w{idle}") }));
    let next = o.missing().find(|w| !w.only_probed()).unwrap().block;
    assert_eq!(o.finish(&mut views(&mut p)), Err(Error::MissingGradient { block: format!("w{next}") }));
    assert_eq!(o.begin(Step::new(0.1)), Err(Error::Order { call: "begin", need: "a step is open: finish or abort it first" }));
    assert!(matches!(o.freeze(0), Err(Error::Order { .. })));
    o.abort().unwrap();
    assert!(state(&mut o, &p) == before, "an aborted step left a trace");
    assert_eq!(o.abort(), Err(Error::Order { call: "abort", need: "no step is open: begin one first" }));
    run(&mut o, &mut p, 13..40);
    run(&mut twin, &mut q, 13..40);
    assert!(state(&mut o, &p) == state(&mut twin, &q));
}

#[test]
fn an_aborted_switching_step_switches_later_a6_5() {
    for across in [Across::Reset, Across::Carry] {
        let config = Config { across, inactive: Inactive::Frozen, probes_per_step: Some(6), ..config() };
        let (mut o, mut p) = (optimizer(config.clone()), parameters());
        let (mut twin, mut q) = (optimizer(config), parameters());
        let mut aborted = 0;
        for t in 0..40 {
            if o.is_switch_pending() {
                let before = state(&mut o, &p);
                o.begin(Step::new(0.1)).unwrap();
                let w = o.wanted().unwrap()[0].block;
                o.grad(w, &View::F32(&gradients(77)[w as usize])).unwrap();
                o.abort().unwrap();
                assert!(state(&mut o, &p) == before);
                aborted += 1;
            }
            run(&mut o, &mut p, t..t + 1);
            run(&mut twin, &mut q, t..t + 1);
        }
        assert!(aborted > 3, "{aborted} switches");
        assert!(state(&mut o, &p) == state(&mut twin, &q));
    }
}

#[test]
fn a_moving_block_must_come_with_its_parameter_a6_7() {
    let (mut o, _) = (optimizer(config()), parameters());
    let g = gradients(1);
    let moving = *o.wanted().unwrap().iter().find(|w| w.with_parameter).unwrap();
    o.begin(Step::new(0.1)).unwrap();
    let refused = o.grad(moving.block, &View::F32(&g[moving.block as usize]));
    assert_eq!(refused, Err(Error::MissingParameter { block: format!("w{}", moving.block) }));
}

#[test]
fn polling_late_changes_no_result_and_nothing_begins_before_a3_6() {
    let (mut o, mut p) = (optimizer(config()), parameters());
    run(&mut o, &mut p, 0..30);
    let slow = Slow { latency: 3, ..Slow::default() };
    let (mut s, mut q) = (Optimizer::new(slow, &specs(), config()).unwrap(), parameters());
    let mut pending = 0;
    for t in 0..30 {
        let g = gradients(t + 1);
        let step = Step::new(0.01).loss(2.0 - (t % 7) as f64 * 0.1);
        let progress = s.step(step, |b| Some(View::F32(&g[b as usize])), &mut views(&mut q)).unwrap();
        if progress == Progress::Pending {
            pending += 1;
            assert_eq!(s.begin(step), Err(Error::Pending));
            assert_eq!(s.wanted(), Err(Error::Pending));
            assert_eq!(s.freeze(0), Err(Error::Pending));
            assert_eq!(s.poll(), Ok(Progress::Pending));
        }
        s.wait().unwrap();
    }
    assert!(pending >= 7, "{pending}");
    assert_eq!(bits(&p), bits(&q));
    assert_eq!(o.save().unwrap(), s.save().unwrap());
}

#[test]
fn a_step_without_decision_or_switch_reads_and_allocates_nothing_and_is_one_submission() {
    let config = Config { policy: Policy::BlockLlm(Trigger::Period(1000)), ..config() };
    let (mut s, mut q) = (Optimizer::new(Slow::default(), &specs(), config).unwrap(), parameters());
    run(&mut s, &mut q, 0..2);
    let before = (s.backend().allocations, s.backend().reads, s.backend().submissions);
    run(&mut s, &mut q, 2..12);
    let after = (s.backend().allocations, s.backend().reads, s.backend().submissions);
    assert_eq!((after.0 - before.0, after.1 - before.1, after.2 - before.2), (0, 0, 10));
}

#[test]
fn a_backend_error_in_mid_step_poisons_until_a_restore() {
    let (mut s, mut q) = (Optimizer::new(Slow::default(), &specs(), config()).unwrap(), parameters());
    run(&mut s, &mut q, 0..11);
    let (saved, good) = (s.save().unwrap(), q.clone());
    let active = s.active().regions[0].block;
    s.backend_mut().fails_at = Some(active);
    let g = gradients(12);
    let failed = s.step(Step::new(0.01), |b| Some(View::F32(&g[b as usize])), &mut views(&mut q));
    assert_eq!(failed, Err(Error::Backend { operation: "step", error: Lost }));
    s.backend_mut().fails_at = None;
    assert_eq!(s.begin(Step::new(0.01)), Err(Error::Poisoned));
    assert_eq!(s.poll(), Err(Error::Poisoned));
    assert!(s.save().is_err());
    s.restore(&saved).unwrap();
    q = good;
    run(&mut s, &mut q, 11..40);
    let (mut o, mut p) = (optimizer(config()), parameters());
    run(&mut o, &mut p, 0..40);
    assert_eq!(bits(&p), bits(&q));
}

#[test]
fn a_lost_device_while_a_decision_is_read_is_an_error_not_zeros() {
    let (mut s, mut q) = (Optimizer::new(Slow { latency: 2, ..Slow::default() }, &specs(), config()).unwrap(), parameters());
    let g = gradients(1);
    assert_eq!(s.step(Step::new(0.01), |b| Some(View::F32(&g[b as usize])), &mut views(&mut q)), Ok(Progress::Pending));
    s.backend_mut().lost = true;
    assert_eq!(s.poll(), Err(Error::Backend { operation: "read a decision", error: Lost }));
    assert_eq!(s.poll(), Err(Error::Poisoned));
}

#[test]
fn forcing_before_the_table_is_full_is_an_error_and_the_step_stands_a3_3() {
    let config = Config {
        inactive: Inactive::Frozen,
        probes_per_step: Some(1),
        policy: Policy::BlockLlm(Trigger::Period(1000)),
        ..config()
    };
    let (mut o, mut p) = (optimizer(config), parameters());
    o.force_decision().unwrap();
    let g = gradients(1);
    let before = bits(&p);
    let _ = o.step(Step::new(0.01), |b| Some(View::F32(&g[b as usize])), &mut views(&mut p)).unwrap();
    assert!(matches!(o.wait(), Err(Error::Void { units: 1.., .. })));
    assert_ne!(bits(&p), before, "the step stands");
    assert_eq!((o.steps(), o.decisions()), (1, 0));
    run(&mut o, &mut p, 1..8);
    assert_eq!(o.decisions(), 0, "the request is dropped");
    o.force_decision().unwrap();
    run(&mut o, &mut p, 8..9);
    assert_eq!(o.decisions(), 1);
    assert!(matches!(o.report().unwrap().decision, Some(Decision::Switch)));
}

#[test]
fn full_makes_no_decisions() {
    let mut o = optimizer(Config::adamw());
    assert_eq!(o.force_decision(), Err(Error::NoDecisions));
}

#[test]
fn a_block_thawed_under_full_is_active_at_once_and_may_grow_the_arena_a5_6() {
    let mut specs = specs();
    specs[2].frozen = true;
    let mut o = Optimizer::new(Reference::<Slices>::default(), &specs, Config::adamw()).unwrap();
    let mut p = parameters();
    assert_eq!(o.memory().moments, 2 * 4 * (254 - 90));
    run(&mut o, &mut p, 0..3);
    o.thaw(2).unwrap();
    assert_eq!(o.memory().moments, 2 * 4 * 254);
    // A twin in which the block was there all along, but had no gradient so far.
    let mut twin = Optimizer::new(
        Reference::<Slices>::default(),
        &specs[2..3].iter().map(|s| BlockSpec { frozen: false, ..s.clone() }).collect::<Vec<_>>(),
        Config::adamw(),
    )
    .unwrap();
    let mut q = vec![parameters()[2].clone()];
    run(&mut o, &mut p, 3..8);
    for t in 3..8 {
        let g = gradients(t + 1);
        let _ = twin.step(Step::new(0.01), |_| Some(View::F32(&g[2])), &mut views(&mut q)).unwrap();
        twin.wait().unwrap();
    }
    assert_eq!(bits(&p[2..3]), bits(&q), "t and moments start at zero");
    let mut whole = optimizer(Config::adamw());
    let mut r = parameters();
    run(&mut whole, &mut r, 0..8);
    assert_eq!(bits(&p[..2]), bits(&r[..2]), "the others are untouched by it");
}

#[test]
fn thawing_an_always_active_block_that_does_not_fit_is_an_error_a1_1() {
    let mut specs = specs();
    specs[2] = specs[2].clone().frozen().always_active();
    let mut o = Optimizer::new(Reference::<Slices>::default(), &specs, Config { sparsity: 0.8, ..config() }).unwrap();
    assert_eq!(o.thaw(2), Err(Error::Budget { always_active: 90, budget: o.budget() }));
    assert!(o.blocks().spec(2).frozen);
}

#[test]
fn configurations_out_of_range_are_named() {
    let field = |config: Config| match Optimizer::new(Reference::<Slices>::default(), &specs(), config).err() {
        Some(Error::Config { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let base = config;
    assert_eq!(field(Config { sparsity: 1.0, ..base() }), "sparsity");
    assert_eq!(field(Config { sparsity: f64::NAN, ..base() }), "sparsity");
    assert_eq!(field(Config { patience: 0, ..base() }), "patience");
    assert_eq!(field(Config { betas: [0.9, 1.0], ..base() }), "beta");
    assert_eq!(field(Config { eps: -1e-8, ..base() }), "eps");
    assert_eq!(field(Config { eps: 1e-60, ..base() }), "eps");
    assert_eq!(field(Config { weight_decay: f64::INFINITY, ..base() }), "weight_decay");
    assert_eq!(field(Config { clip: Some(0.0), ..base() }), "clip");
    assert_eq!(field(Config { guard_limit: 0, ..base() }), "guard_limit");
    assert_eq!(field(Config { probes_per_step: Some(0), ..base() }), "probes_per_step");
    assert_eq!(field(Config { mask: MaskKind::Tile(0), ..base() }), "tile");
    assert_eq!(field(Config { inactive: Inactive::SignSgd(-1.0), ..base() }), "sign scale");
    assert_eq!(field(Config { policy: Policy::BlockLlm(Trigger::Period(0)), ..base() }), "period");
}

#[test]
fn bad_blocks_are_named() {
    let error = |specs: &[BlockSpec]| Optimizer::new(Reference::<Slices>::default(), specs, config()).err().unwrap();
    let b = |name: &str| BlockSpec::new(name, [2, 5]);
    assert_eq!(error(&[b("a"), b("a")]), Error::DuplicateName { block: "a".into() });
    assert_eq!(error(&[]), Error::NothingToTrain);
    assert_eq!(error(&[b("a").frozen(), BlockSpec::new("b", [0, 5])]), Error::NothingToTrain);
    let mixed = Error::MixedComputeTypes { block: "b".into(), dtype: DType::F64, compute: DType::F32 };
    assert_eq!(error(&[b("a"), b("b").dtype(DType::F64)]), mixed);
    assert!(matches!(error(&[b("a").scales(f64::NAN, 1.0)]), Error::Config { field: "lr scale", .. }));
    assert!(matches!(error(&[b("a").dtype(DType::U32)]), Error::Config { field: "dtype", .. }));
}

#[test]
fn a_streak_of_skips_is_an_error_that_stops_nothing_a6_4() {
    let config = Config { guard_limit: 3, inactive: Inactive::Frozen, ..config() };
    let (mut o, mut p) = (optimizer(config), parameters());
    run(&mut o, &mut p, 0..2);
    let before = bits(&p);
    let nan: Vec<Vec<f32>> = SIZES.iter().map(|&n| vec![f32::NAN; n]).collect();
    for streak in 1..=4 {
        let _ = o.step(Step::new(0.01), |b| Some(View::F32(&nan[b as usize])), &mut views(&mut p)).unwrap();
        o.wait().unwrap();
        let report = o.report().unwrap();
        assert!(report.skipped && report.streak == streak);
        let error = report.check::<Never>().err();
        assert_eq!(error, (streak >= 3).then_some(Error::GuardStreak { streak, limit: 3 }));
    }
    assert_eq!(bits(&p), before);
    run(&mut o, &mut p, 6..7);
    let report = o.report().unwrap();
    assert_eq!((report.streak, report.skipped_total, report.streak_errors, report.applied), (0, 4, 2, 3));
}

#[test]
fn half_precision_zero_gradients_change_nothing_a7_1() {
    for dtype in [DType::F16, DType::Bf16] {
        let specs = [BlockSpec::new("h", [1, 8]).dtype(dtype)];
        let mut o = Optimizer::new(Reference::<Slices>::default(), &specs, Config::adamw()).unwrap();
        let (zero16, zero_b) = ([half::f16::ZERO; 8], [half::bf16::ZERO; 8]);
        let (mut p16, mut p_b) = ([half::f16::from_f32(0.3); 8], [half::bf16::from_f32(0.3); 8]);
        for _ in 0..3 {
            let (g, p) = match dtype {
                DType::F16 => (View::F16(&zero16), ViewMut::F16(&mut p16)),
                _ => (View::Bf16(&zero_b), ViewMut::Bf16(&mut p_b)),
            };
            let _ = o.step(Step::new(0.01), |_| Some(g), &mut [(0, p)]).unwrap();
            o.wait().unwrap();
        }
        assert_eq!(p16, [half::f16::from_f32(0.3); 8]);
        assert_eq!(p_b, [half::bf16::from_f32(0.3); 8]);
    }
}

#[test]
fn half_precision_moves_by_the_f32_update_rounded_once_a7_1() {
    let specs = [BlockSpec::new("h", [1, 16]).dtype(DType::Bf16)];
    let mut o = Optimizer::new(Reference::<Slices>::default(), &specs, Config::adamw()).unwrap();
    let g: Vec<f32> = (0..16).map(|i| noise(1, 0, i)).collect();
    let mut p: Vec<half::bf16> = (0..16).map(|i| half::bf16::from_f32(noise(2, 0, i))).collect();
    let mut wide: Vec<f32> = p.iter().map(|x| x.to_f32()).collect();
    let _ = o.step(Step::new(0.05), |_| Some(View::F32(&g)), &mut [(0, ViewMut::Bf16(&mut p))]).unwrap();
    let mut twin = Optimizer::new(Reference::<Slices>::default(), &[BlockSpec::new("h", [1, 16])], Config::adamw()).unwrap();
    let _ = twin.step(Step::new(0.05), |_| Some(View::F32(&g)), &mut [(0, ViewMut::F32(&mut wide))]).unwrap();
    assert_eq!(p, wide.iter().map(|&x| half::bf16::from_f32(x)).collect::<Vec<_>>());
}

#[test]
fn the_memory_report_is_what_buffers_hold_and_never_more_than_the_budget() {
    let (mut o, mut p) = (optimizer(config()), parameters());
    for t in 0..30 {
        run(&mut o, &mut p, t..t + 1);
        let m = o.memory();
        assert_eq!((m.moments, m.packed_gradients), (8 * o.budget(), 4 * o.budget()));
        assert!(o.active().coordinates() <= o.budget());
        let masked = o.current().regions.iter().filter(|r| r.masked());
        let words: usize = masked.map(|r| r.n.div_ceil(32) + r.n.div_ceil(512)).sum();
        assert_eq!(m.masks, 4 * words);
        assert_eq!(m.gradients_total, 4 * SIZES.iter().sum::<usize>());
        assert_eq!(m.gradients.iter().map(|g| g.1).sum::<usize>(), m.gradients_total);
    }
}

#[test]
fn eps_zero_and_no_gradient_leave_a_weight_where_it_is_a6_1() {
    let config = Config { eps: 0.0, ..Config::adamw() };
    let mut o = Optimizer::new(Reference::<Slices>::default(), &[BlockSpec::new("w", [1, 3])], config).unwrap();
    let mut p = [vec![1.0f32, 2.0, 3.0]];
    let _ = o.step(Step::new(0.5), |_| Some(View::F32(&[0.0, -0.0, 1.0])), &mut views(&mut p)).unwrap();
    assert_eq!(p[0], [1.0, 2.0, 2.5]);
}

/// Rows of the score table by block: sum of squares, coordinates, step.
fn rows(o: &mut Optimizer<Reference>) -> Vec<[f64; 3]> {
    let saved = o.save().unwrap();
    let row = |name: &str| {
        let words: Vec<u64> =
            saved.get(&format!("block/{name}")).unwrap().data.as_chunks().0.iter().map(|b| u64::from_le_bytes(*b)).collect();
        [13, 14, 15].map(|i| f64::from_bits(words[i]))
    };
    o.blocks().specs.iter().map(|s| row(&s.name)).collect()
}

#[test]
fn a_cut_group_is_idle_and_scored_only_when_probed_a2_5() {
    // Groups of two blocks of 10; room for 25 coordinates cuts one of them.
    let specs: Vec<BlockSpec> = (0..8).map(|i| BlockSpec::new(format!("b{i}"), [1, 10]).group(format!("g{}", i / 2))).collect();
    let config = Config {
        sparsity: 1.0 - 25.0 / 80.0,
        policy: Policy::BlockLlm(Trigger::Period(1)),
        inactive: Inactive::Frozen,
        probes_per_step: Some(1),
        ..config()
    };
    let mut o = Optimizer::new(Reference::<Slices>::default(), &specs, config).unwrap();
    assert_eq!(o.budget(), 25);
    let mut p = vec![vec![0.5f32; 10]; 8];
    let mut cut_and_not_probed = 0;
    for t in 1..=40 {
        let active: Vec<u32> = o.active().regions.iter().map(|r| r.block).collect();
        let probes = o.probes().to_vec();
        let g: Vec<Vec<f32>> = (0..8).map(|b| (0..10).map(|i| noise(t, b, i)).collect()).collect();
        let _ = o.step(Step::new(0.01), |b| Some(View::F32(&g[b as usize])), &mut views(&mut p)).unwrap();
        o.wait().unwrap();
        let rows = rows(&mut o);
        for u in 0..4u32 {
            let whole = [2 * u, 2 * u + 1].iter().all(|b| active.contains(b));
            let scored = rows[2 * u as usize][2] == t as f64;
            assert_eq!(scored, whole || probes.contains(&u), "step {t}, unit {u}");
            cut_and_not_probed += u32::from(active.contains(&(2 * u)) && !whole && !probes.contains(&u));
        }
    }
    assert!(cut_and_not_probed > 0);
    assert!(o.decisions() > 20);
}

#[test]
fn the_rms_score_does_not_favour_large_blocks_a2_1() {
    // A large block of small gradients against a small one of larger gradients.
    let specs = [BlockSpec::new("large", [1, 100]), BlockSpec::new("small", [1, 4])];
    let chosen = |score| {
        let config = Config { score, sparsity: 1.0 - 4.0 / 104.0, visit_bias: blockllm::VisitBias::None, ..config() };
        let mut o = Optimizer::new(Reference::<Slices>::default(), &specs, config).unwrap();
        let mut p = [vec![0.5f32; 100], vec![0.5; 4]];
        let g = [vec![0.1f32; 100], vec![0.4; 4]];
        for _ in 0..4 {
            let _ = o.step(Step::new(0.01), |b| Some(View::F32(&g[b as usize])), &mut views(&mut p)).unwrap();
            o.wait().unwrap();
        }
        assert_eq!(o.decisions(), 1);
        o.active().regions[0].block
    };
    assert_eq!(chosen(blockllm::ScoreKind::GradientNorm), 0);
    assert_eq!(chosen(blockllm::ScoreKind::GradientRms), 1);
}

#[test]
fn freezing_the_only_active_block_leaves_an_empty_set_a5_6() {
    let config = Config { sparsity: 1.0 - 90.0 / 254.0, inactive: Inactive::Frozen, fill: blockllm::Fill::Whole, ..config() };
    let mut specs = specs();
    (0..6).filter(|&b| b != 2).for_each(|b| specs[b].frozen = true);
    let mut o = Optimizer::new(Reference::<Slices>::default(), &specs, Config { sparsity: 0.0, ..config }).unwrap();
    let mut p = parameters();
    run(&mut o, &mut p, 0..2);
    o.freeze(2).unwrap();
    assert!(o.wanted().unwrap().is_empty() && o.current().regions.is_empty());
    let before = bits(&p);
    run(&mut o, &mut p, 2..9);
    assert_eq!(bits(&p), before);
    o.thaw(2).unwrap();
    run(&mut o, &mut p, 9..20);
    assert_ne!(bits(&p), before);
}

#[test]
fn a_missing_probe_keeps_its_score_and_a_missing_active_gradient_is_an_error_a2_5() {
    let config = Config {
        inactive: Inactive::Frozen,
        probes_per_step: Some(6),
        policy: Policy::BlockLlm(Trigger::Period(1000)),
        ..config()
    };
    let (mut o, mut p) = (optimizer(config), parameters());
    run(&mut o, &mut p, 0..3);
    let before = o.report().unwrap().scores;
    let probe = o.wanted().unwrap().iter().find(|w| w.only_probed()).unwrap().block;
    let active = o.active().regions[0].block;
    let g = gradients(50);
    let step = |o: &mut Optimizer<Reference>, p: &mut Vec<Vec<f32>>, without: u32| {
        o.step(Step::new(0.01), |b| (b != without).then(|| View::F32(&g[b as usize])), &mut views(p)).map(|_| ())
    };
    step(&mut o, &mut p, probe).unwrap();
    let after = o.report().unwrap().scores;
    assert_eq!(after[probe as usize].unwrap().value, before[probe as usize].unwrap().value);
    assert_eq!(after[probe as usize].unwrap().age, before[probe as usize].unwrap().age + 1);
    let others = (0..6).filter(|&b| b != probe && o.current().find(b).is_none());
    others.for_each(|b| assert_eq!(after[b as usize].unwrap().age, 0, "unit {b}"));
    assert_eq!(step(&mut o, &mut p, active), Err(Error::MissingGradient { block: format!("w{active}") }));
    // The same, streamed.
    o.begin(Step::new(0.01)).unwrap();
    let wanted: Vec<u32> = o.wanted().unwrap().iter().map(|w| w.block).filter(|b| *b != probe).collect();
    wanted.iter().for_each(|&b| o.grad(b, &View::F32(&g[b as usize])).unwrap());
    let _ = o.finish(&mut views(&mut p)).unwrap();
    assert_eq!(o.report().unwrap().scores[probe as usize].unwrap().age, before[probe as usize].unwrap().age + 2);
}

#[test]
fn a_report_is_of_the_step_it_was_requested_after() {
    let (mut s, mut q) =
        (Optimizer::new(Slow { latency: 2, ..Slow::default() }, &specs(), Config::adamw()).unwrap(), parameters());
    let nan: Vec<Vec<f32>> = SIZES.iter().map(|&n| vec![f32::NAN; n]).collect();
    let _ = s.step(Step::new(0.01), |b| Some(View::F32(&nan[b as usize])), &mut views(&mut q)).unwrap();
    s.wait().unwrap();
    assert!(matches!(s.poll_report(), Err(Error::Order { call: "poll_report", .. })));
    s.request_report().unwrap();
    run(&mut s, &mut q, 1..2);
    let report = loop {
        if let Some(report) = s.poll_report().unwrap() {
            break report;
        }
    };
    assert_eq!((report.step, report.skipped, report.applied), (1, true, 0));
}

#[test]
fn numbers_that_the_compute_type_cannot_hold_are_refused() {
    let (mut o, mut p) = (optimizer(config()), parameters());
    let g = gradients(1);
    for (lr, inv) in [(1e39, 1.0), (-0.1, 1.0), (f64::NAN, 1.0), (0.1, 1e-60), (0.1, 0.0), (0.1, -1.0), (0.1, 1e39)] {
        let step = Step { lr, loss: None, inv_loss_scale: inv, micro_batches: 1 };
        let error = step_error(&mut o, step, &g, &mut p);
        assert!(matches!(error, Some(Error::Step { .. })), "lr {lr}, inv_loss_scale {inv}: {error:?}");
    }
    // Products that overflow would make NaN of a zero gradient.
    for config in [
        Config { inactive: Inactive::SignSgd(1e300), ..config() },
        Config { weight_decay: 1e38, decay: blockllm::Decay::Decoupled, ..config() },
    ] {
        let mut o = optimizer(config);
        let error = step_error(&mut o, Step::new(1e3), &g, &mut p);
        assert!(matches!(error, Some(Error::Step { field: "lr", .. })), "{error:?}");
    }
    let error = step_error(&mut o, Step::new(1e38), &g, &mut p);
    assert!(matches!(error, Some(Error::Step { field: "lr", .. })), "{error:?}");
    let field = |specs: &[BlockSpec], config: Config| match Optimizer::new(Reference::<Slices>::default(), specs, config).err() {
        Some(Error::Config { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(&specs(), Config { patience: usize::MAX, ..config() }), "patience");
    assert_eq!(field(&specs(), Config { weight_decay: 1e39, ..config() }), "weight_decay");
    assert_eq!(field(&specs(), Config { eps: 1e39, ..config() }), "eps");
    assert_eq!(field(&[BlockSpec::new("huge", [usize::MAX, 2])], config()), "shape");
    assert_eq!(field(&[BlockSpec::new("a", [1, usize::MAX / 9]), BlockSpec::new("b", [1, usize::MAX / 9])], config()), "shape");
}

#[test]
fn an_aborted_switch_leaves_no_count_behind_a6_5() {
    let config = Config { sparsity: 0.9, inactive: Inactive::Frozen, ..config() };
    let (mut o, mut p) = (optimizer(config), parameters());
    let masked = o.active().regions.iter().find(|r| r.masked()).unwrap().block;
    let zeros: Vec<Vec<f32>> = SIZES.iter().map(|&n| vec![0.0; n]).collect();
    let before = o.save().unwrap();
    o.begin(Step::new(0.1)).unwrap();
    o.grad(masked, &View::F32(&zeros[masked as usize])).unwrap();
    o.abort().unwrap();
    assert!(o.save().unwrap() == before);
    let _ = o.step(Step::new(0.1), |b| Some(View::F32(&zeros[b as usize])), &mut views(&mut p)).unwrap();
    o.wait().unwrap();
    assert_eq!(o.report().unwrap().zero_masks, 1, "A4.4: filled by index, and told");
}

#[test]
fn masks_that_are_held_are_reported_as_held_a5_5() {
    let config =
        Config { sparsity: 0.9, inactive: Inactive::Frozen, policy: Policy::BlockLlm(Trigger::Period(1000)), ..config() };
    let (mut o, mut p) = (optimizer(config), parameters());
    run(&mut o, &mut p, 0..1);
    let held = o.memory().masks;
    let masked = o.current().regions.iter().find(|r| r.masked()).unwrap().block;
    assert!(held > 0);
    o.freeze(masked).unwrap();
    assert_eq!(o.memory().masks, held, "nothing is freed before the next switch");
}

#[test]
fn a_constant_gradient_moves_a_weight_by_lr_from_the_first_step_on() {
    let mut o =
        Optimizer::new(Reference::<Slices>::default(), &[BlockSpec::new("w", [1, 2])], Config { eps: 0.0, ..Config::adamw() })
            .unwrap();
    let mut p = [vec![0.0f32; 2]];
    for t in 1..=50 {
        let _ = o.step(Step::new(0.125), |_| Some(View::F32(&[3.0, -0.01])), &mut views(&mut p)).unwrap();
        o.wait().unwrap();
        for (x, sign) in p[0].iter().zip([-1.0, 1.0]) {
            assert!((x - sign * 0.125 * t as f32).abs() < 1e-5 * t as f32, "step {t}: {x}");
        }
    }
}

#[test]
fn host_numbers_hold_for_tensors_of_2_to_the_40_a1_1() {
    use blockllm::{Fill, fill::fill};
    let n = 1usize << 40;
    assert_eq!(blockllm::block::budget(3 * n, 0.5), 3 * n / 2);
    assert_eq!(blockllm::mask::words(n), n / 32 + n / 512);
    let units = || [(0u32, n + 1), (1, n), (2, n - 1)].map(|b| [b]).into_iter();
    assert_eq!(fill(Fill::LastMasked, MaskKind::Coordinate, units(), n + 7), [(0, n + 1), (1, 6)]);
    // q * n_b needs 128 bits: n and n - 1, and the one left over goes to the first.
    let uniform = fill(Fill::Uniform, MaskKind::Coordinate, units(), 2 * n);
    assert_eq!(uniform, [(0, n + 1), (1, n - 1)]);
    let tiles = fill(Fill::LastMasked, MaskKind::Tile(64), units(), n + 100);
    assert_eq!(tiles, [(0, n + 1), (1, 64)]);
}
