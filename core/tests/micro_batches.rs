//! Steps of several micro-batches (A6.2), and scores of processed gradients (A2.1).
#![allow(missing_docs)]

mod common;

use blockllm::{
    Config, Error, Inactive, LossEntry, Optimizer, Policy, Progress, Reason, Reference, ScoreKind, Step, Trigger, View,
};
use common::*;

type Grads = Vec<Vec<f32>>;

/// A set that is decided on every third step, so that windows meet every kind of step.
fn config() -> Config {
    Config { sparsity: 0.6, policy: Policy::BlockLlm(Trigger::Period(3)), clip: Some(1.0), seed: 5, ..Config::default() }
}

/// Gradients that add up exactly: whole numbers of eighths.
fn micro(step: u64, micro: u64) -> Grads {
    let eighth = |b: usize, i: usize| (noise(step * 8 + micro, b, i) * 64.0).round() / 8.0;
    SIZES.iter().enumerate().map(|(b, &n)| (0..n).map(|i| eighth(b, i)).collect()).collect()
}

fn sum(parts: &[Grads]) -> Grads {
    let mut out = parts[0].clone();
    for part in &parts[1..] {
        out.iter_mut().flatten().zip(part.iter().flatten()).for_each(|(o, x)| *o += x);
    }
    out
}

fn wait(o: &mut Optimizer<Reference>, progress: Progress) {
    if progress == Progress::Pending {
        o.wait().unwrap();
    }
}

fn window(o: &mut Optimizer<Reference>, p: &mut [Vec<f32>], step: Step, parts: &[Grads]) {
    o.begin(step).unwrap();
    for part in &parts[..parts.len() - 1] {
        o.accumulate(|b| Some(View::F32(&part[b as usize]))).unwrap();
        o.next_micro_batch(None).unwrap();
    }
    let last = &parts[parts.len() - 1];
    let progress = o.finish_whole(|b| Some(View::F32(&last[b as usize])), &mut views(p)).unwrap();
    wait(o, progress);
}

#[test]
fn a_window_is_the_step_of_the_sum_where_sums_are_exact_a6_2() {
    // With whole blocks alone no mask tells the first micro-batch from the sum; Frozen, since the sign step is of the last.
    let config = Config { sparsity: 0.0, inactive: Inactive::Frozen, policy: Policy::Full, ..config() };
    let (mut a, mut b) = (optimizer(config.clone()), optimizer(config));
    let (mut p, mut q) = (parameters(), parameters());
    for t in 1..=9 {
        let parts: Vec<Grads> = (0..4).map(|i| micro(t, i)).collect();
        let step = Step { inv_loss_scale: 0.25, ..Step::new(0.01) };
        window(&mut a, &mut p, step.micro_batches(4), &parts);
        let whole = sum(&parts);
        let progress = b.step(step, |i| Some(View::F32(&whole[i as usize])), &mut views(&mut q)).unwrap();
        wait(&mut b, progress);
        assert_eq!(bits(&p), bits(&q), "step {t}");
    }
    assert!(a.save().unwrap() == b.save().unwrap());
}

#[test]
fn before_the_last_micro_batch_the_set_alone_is_asked_for_a2_6_a6_2() {
    let mut o = optimizer(config());
    let set: Vec<u32> = o.active().regions.iter().map(|r| r.block).collect();
    o.begin(Step::new(0.01).micro_batches(3)).unwrap();
    for _ in 0..2 {
        let wanted = o.wanted().unwrap();
        assert_eq!(wanted.iter().map(|w| w.block).collect::<Vec<_>>(), set);
        assert!(wanted.iter().all(|w| !w.with_parameter && !w.score && w.idle.is_none()));
        let g = micro(1, 0);
        o.accumulate(|b| Some(View::F32(&g[b as usize]))).unwrap();
        o.next_micro_batch(None).unwrap();
    }
    // On the last, all that moves.
    assert_eq!(o.wanted().unwrap().len(), SIZES.len());
    // A gradient that is not asked for yet is refused by name.
    o.abort().unwrap();
    o.begin(Step::new(0.01).micro_batches(2)).unwrap();
    let idle = (0..SIZES.len() as u32).find(|b| !set.contains(b)).unwrap();
    let g = micro(1, 0);
    let error = o.grad(idle, &View::F32(&g[idle as usize])).unwrap_err();
    assert_eq!(error, Error::NotWanted { block: format!("w{idle}") });
}

#[test]
fn the_sign_step_is_of_the_last_micro_batch_a6_7() {
    let config = Config { policy: Policy::BlockLlm(Trigger::Period(1000)), clip: None, ..config() };
    let (mut a, mut p) = (optimizer(config), parameters());
    let set: Vec<u32> = a.active().regions.iter().map(|r| r.block).collect();
    let before = p.clone();
    let parts = [vec![vec![-7.0f32; 90]; 6], vec![vec![1.0f32; 90]; 6]];
    let cut = |g: &Grads| -> Grads { g.iter().zip(SIZES).map(|(g, n)| g[..n].to_vec()).collect() };
    window(&mut a, &mut p, Step::new(0.25).micro_batches(2), &parts.each_ref().map(cut));
    for b in (0..SIZES.len()).filter(|b| !set.contains(&(*b as u32))) {
        assert!(p[b].iter().zip(&before[b]).all(|(p, q)| *p == q - 0.25), "block {b} moved by the last one's sign");
    }
}

#[test]
fn a_window_in_the_wrong_order_is_refused_and_goes_on() {
    let (mut o, mut p) = (optimizer(config()), parameters());
    let g = micro(1, 0);
    let at_hand = |b: u32| Some(View::F32(&g[b as usize]));
    let order = |e: Error<_>, call| assert!(matches!(e, Error::Order { call: c, .. } if c == call), "{e}");
    order(o.next_micro_batch(None).unwrap_err(), "next_micro_batch");
    order(o.accumulate(at_hand).unwrap_err(), "accumulate");
    order(o.finish_whole(at_hand, &mut views(&mut p)).unwrap_err(), "finish_whole");
    let error = o.begin(Step::new(0.01).micro_batches(0)).unwrap_err();
    assert_eq!(error, Error::Step { field: "micro_batches", value: 0.0, allowed: "at least 1" });
    let error = o.step(Step::new(0.01).micro_batches(2), at_hand, &mut views(&mut p)).unwrap_err();
    assert!(matches!(error, Error::Step { field: "micro_batches", value: 2.0, .. }), "{error}");
    assert!(!o.is_step_open());

    o.begin(Step::new(0.01).micro_batches(2)).unwrap();
    // Not all of the first micro-batch is here.
    let first = o.wanted().unwrap()[0].block;
    let missing = Error::MissingGradient { block: format!("w{first}") };
    assert_eq!(o.next_micro_batch(None).unwrap_err(), missing);
    assert_eq!(o.accumulate(|b| at_hand(b).filter(|_| b != first)).unwrap_err(), missing);
    o.grad(first, &at_hand(first).unwrap()).unwrap();
    let twice = Error::Twice { block: format!("w{first}") };
    assert_eq!(o.accumulate(at_hand).unwrap_err(), twice);
    let rest: Vec<u32> = o.missing().map(|w| w.block).collect();
    rest.into_iter().for_each(|b| o.grad(b, &at_hand(b).unwrap()).unwrap());
    order(o.finish(&mut views(&mut p)).unwrap_err(), "finish");
    order(o.finish_whole(at_hand, &mut views(&mut p)).unwrap_err(), "finish_whole");
    o.next_micro_batch(Some(1.0)).unwrap();
    order(o.next_micro_batch(None).unwrap_err(), "next_micro_batch");
    order(o.accumulate(at_hand).unwrap_err(), "accumulate");
    let progress = o.finish_whole(at_hand, &mut views(&mut p)).unwrap();
    wait(&mut o, progress);

    // The same window without a mishap gives the same bits.
    let (mut again, mut q) = (optimizer(config()), parameters());
    window(&mut again, &mut q, Step::new(0.01).loss(1.0).micro_batches(2), &[g.clone(), g.clone()]);
    assert_eq!(bits(&p), bits(&q));
    assert!(o.save().unwrap() == again.save().unwrap());
}

#[test]
fn a_window_enters_the_loss_given_last_a3_2() {
    let config = Config { policy: Policy::BlockLlm(Trigger::Patience), patience: 1, sparsity: 0.6, ..near_the_paper() };
    for (with_begin, with_last, entered, decides) in [
        (None, None, LossEntry::None, false),
        (Some(2.0), None, LossEntry::Entered, true),
        (None, Some(2.0), LossEntry::Entered, true),
        (Some(f64::NAN), Some(2.0), LossEntry::Entered, true),
        (Some(2.0), Some(f64::NAN), LossEntry::NotFinite, false),
    ] {
        let (mut o, mut p) = (optimizer(config.clone()), parameters());
        let g = micro(1, 0);
        let at_hand = |b: u32| Some(View::F32(&g[b as usize]));
        o.begin(Step { loss: with_begin, ..Step::new(0.01) }.micro_batches(3)).unwrap();
        o.accumulate(at_hand).unwrap();
        o.next_micro_batch(None).unwrap();
        o.accumulate(at_hand).unwrap();
        o.next_micro_batch(with_last).unwrap();
        let progress = o.finish_whole(at_hand, &mut views(&mut p)).unwrap();
        wait(&mut o, progress);
        let report = o.report().unwrap();
        assert_eq!((report.loss, report.reason), (entered, decides.then_some(Reason::LossRule)), "{with_begin:?}, {with_last:?}");
    }
}

#[test]
fn a_window_aborted_anywhere_leaves_no_trace_a6_5() {
    let config = Config { inactive: Inactive::Frozen, policy: Policy::BlockLlm(Trigger::Patience), patience: 2, ..config() };
    let (mut o, mut p) = (optimizer(config), parameters());
    for t in 1..=12u64 {
        let parts: Vec<Grads> = (0..3).map(|i| micro(t, i)).collect();
        let step = Step::new(0.01).loss(2.0 - (t % 4) as f64 * 0.1).micro_batches(3);
        for cut in 0..3 {
            let before = (bits(&p), o.save().unwrap());
            o.begin(step).unwrap();
            for part in &parts[..cut] {
                o.accumulate(|b| Some(View::F32(&part[b as usize]))).unwrap();
                o.next_micro_batch(Some(9.0)).unwrap();
            }
            let first = o.wanted().unwrap()[0].block;
            o.grad(first, &View::F32(&parts[cut][first as usize])).unwrap();
            o.abort().unwrap();
            assert!((bits(&p), o.save().unwrap()) == before, "step {t}, cut in micro-batch {cut}");
        }
        window(&mut o, &mut p, step, &parts);
    }
    assert!(o.decisions() > 0);
}

#[test]
fn an_idle_block_scores_by_its_size_and_an_active_one_by_its_moments_a2_1() {
    let config = Config { score: ScoreKind::ProcessedNorm, ..near_the_paper() };
    let config = Config { policy: Policy::BlockLlm(Trigger::Period(2)), sparsity: 0.6, ..config };
    let (mut o, mut p) = (optimizer(config), parameters());
    // A constant gradient: m̂ / sqrt(v̂) is 1 for a coordinate that has always seen it.
    let g: Grads = SIZES.iter().map(|&n| vec![0.5; n]).collect();
    for _ in 0..2 {
        let progress = o.step(Step::new(1e-3), |b| Some(View::F32(&g[b as usize])), &mut views(&mut p)).unwrap();
        match progress {
            Progress::Ready => {}
            Progress::Pending => o.wait().unwrap(),
        }
    }
    let report = o.report().unwrap();
    let scored: Vec<_> = report.scores.iter().zip(SIZES).filter_map(|(s, n)| s.map(|s| (s.value, n))).collect();
    assert!(scored.len() >= 3, "{scored:?}");
    for (score, n) in scored {
        assert!((score - (n as f64).sqrt()).abs() < 1e-3, "{score} of {n} coordinates");
    }
    // A gradient that turned round: the moments, which do not turn at once, hold an active block's score down.
    let active = o.current().regions[0].block;
    let turned: Grads = SIZES.iter().map(|&n| vec![-0.5; n]).collect();
    for _ in 0..2 {
        let progress = o.step(Step::new(1e-3), |b| Some(View::F32(&turned[b as usize])), &mut views(&mut p)).unwrap();
        wait(&mut o, progress);
    }
    let report = o.report().unwrap();
    let of = |b: u32| report.scores[b as usize].map(|s| s.value / (SIZES[b as usize] as f64).sqrt());
    assert!(of(active).is_some_and(|s| s < 0.9), "{:?}", of(active));
}
