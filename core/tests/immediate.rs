//! Immediate streaming (A6.5): each block is updated as its gradient arrives.
#![allow(missing_docs)]

mod common;

use blockllm::{
    Across, Config, Error, Fill, Inactive, MaskKind, Optimizer, Policy, Progress, Record, Reference, ScoreKind, Step, Trigger,
    View, ViewMut,
};
use common::*;

fn base() -> Config {
    Config { sparsity: 0.6, seed: 5, policy: Policy::BlockLlm(Trigger::Period(3)), immediate: true, ..Config::default() }
}

/// One step, streamed in an order that the step's number shuffles.
fn stream(o: &mut Optimizer<Reference>, p: &mut [Vec<f32>], t: u64, g: &[Vec<f32>]) {
    o.begin(Step::new(0.01).loss(2.0 - (t % 7) as f64 * 0.1)).unwrap();
    let mut wanted = o.wanted().unwrap().to_vec();
    wanted.sort_by_key(|w| mix(u64::from(w.block) ^ t << 20));
    for w in wanted {
        let (view, param) = (View::F32(&g[w.block as usize]), &mut p[w.block as usize]);
        match w.with_parameter {
            true => o.grad_with(w.block, &view, &mut ViewMut::F32(param)).unwrap(),
            false => o.grad(w.block, &view).unwrap(),
        }
    }
    if o.finish(&mut []).unwrap() == Progress::Pending {
        o.wait().unwrap();
    }
}

/// All of a record but the configuration, which tells the two ways apart, and the norm, which one of them has.
fn state(r: &Record) -> Vec<(String, Vec<u8>)> {
    let leaves = r.leaves().iter().filter(|l| l.name != "config" && l.name != "norm");
    leaves.map(|l| (l.name.clone(), l.data.clone())).collect()
}

fn configs() -> Vec<Config> {
    let paper = Config { across: Across::Carry, inactive: Inactive::Frozen, ..base() };
    vec![
        base(),
        Config { across: Across::Reset, inactive: Inactive::SignSgd(0.5), weight_decay: 0.1, ..base() },
        paper.clone(),
        Config { fill: Fill::Uniform, mask: MaskKind::Tile(4), ..base() },
        Config { score: ScoreKind::ProcessedNorm, fill: Fill::Uniform, ..paper.clone() },
        Config { policy: Policy::Cyclic { period: 2, order: blockllm::Order::Random }, ..paper },
        Config { policy: Policy::Full, ..base() },
    ]
}

#[test]
fn without_a_trip_it_is_packed_streaming_to_the_bit_a6_5() {
    for config in configs() {
        let (mut a, mut p) = (optimizer(config.clone()), parameters());
        let (mut b, mut q) = (optimizer(config.clone()), parameters());
        let (mut c, mut r) = (optimizer(Config { immediate: false, ..config.clone() }), parameters());
        let mut switches = 0;
        for t in 0..30 {
            stream(&mut a, &mut p, t, &gradients(t + 1));
            run(&mut b, &mut q, t..t + 1);
            run(&mut c, &mut r, t..t + 1);
            assert_eq!(bits(&p), bits(&r), "{config:?}, step {t}");
            assert_eq!(bits(&q), bits(&r), "{config:?}, step {t}, at hand");
            let (saved, want) = (a.save().unwrap(), c.save().unwrap());
            assert_eq!(state(&saved), state(&want), "{config:?}, step {t}");
            switches += usize::from(a.report().unwrap().switched);
            // A record goes on.
            if t % 4 == 1 {
                a = optimizer(config.clone());
                a.restore(&saved).unwrap();
            }
        }
        assert!(switches >= 5 || config.policy == Policy::Full, "{config:?}: {switches}");
    }
}

#[test]
fn one_packed_gradient_is_alive_and_no_more() {
    let (o, packed) = (optimizer(base()), optimizer(Config { immediate: false, ..base() }));
    assert_eq!(packed.memory().packed_gradients, 4 * packed.budget());
    assert_eq!(o.memory().packed_gradients, 4 * 90);
    assert!(o.budget() > 90);
}

/// The block's step count, from a record.
fn steps(o: &mut Optimizer<Reference>, block: u32) -> u64 {
    let saved = o.save().unwrap();
    let leaf = saved.get(&format!("block/w{block}")).unwrap();
    u64::from_le_bytes(leaf.data[48..56].try_into().unwrap())
}

fn active(o: &Optimizer<Reference>) -> Vec<u32> {
    o.active().regions.iter().map(|r| r.block).collect()
}

/// These gradients with a NaN in every element of a block.
fn spoilt(t: u64, block: u32) -> Vec<Vec<f32>> {
    let mut g = gradients(t);
    g[block as usize].fill(f32::NAN);
    g
}

#[test]
fn a_block_that_trips_skips_alone_and_the_step_counts_as_skipped_a6_5() {
    let config = Config { policy: Policy::BlockLlm(Trigger::Period(1000)), inactive: Inactive::Frozen, sparsity: 0.3, ..base() };
    let (mut o, mut p) = (optimizer(config), parameters());
    stream(&mut o, &mut p, 0, &gradients(1));
    let set = active(&o);
    assert!(set.len() >= 3);
    let before = p.clone();
    stream(&mut o, &mut p, 1, &spoilt(2, set[1]));
    for &b in &set {
        assert_eq!(before[b as usize] != p[b as usize], b != set[1], "block {b}");
        assert_eq!(steps(&mut o, b), if b == set[1] { 1 } else { 2 });
    }
    let report = o.report().unwrap();
    assert_eq!((report.skipped, report.skipped_total, report.streak, report.applied), (true, 1, 1, 1));
    stream(&mut o, &mut p, 2, &gradients(3));
    let report = o.report().unwrap();
    assert_eq!((report.skipped, report.streak, report.applied), (false, 0, 2));
}

#[test]
fn a_block_that_trips_in_its_first_step_enters_as_new_in_the_next_a6_5() {
    for across in [Across::Carry, Across::Reset] {
        let config = Config { across, inactive: Inactive::Frozen, sparsity: 0.4, fill: Fill::Uniform, ..base() };
        let (mut o, mut p) = (optimizer(config.clone()), parameters());
        let mut t = 0;
        while !o.is_switch_pending() || t == 0 {
            stream(&mut o, &mut p, t, &gradients(t + 1));
            t += 1;
        }
        let staying: Vec<u32> = o.current().regions.iter().map(|r| r.block).filter(|b| active(&o).contains(b)).collect();
        let (bad, before) = (staying[0], p.clone());
        stream(&mut o, &mut p, t, &spoilt(t + 1, bad));
        assert!(o.report().unwrap().switched && o.report().unwrap().skipped);
        assert_eq!((steps(&mut o, bad), before[bad as usize] == p[bad as usize]), (0, true), "it has lost its state");
        // It is as if it had never been: beside a run in which it was not in the set before.
        let record = o.save().unwrap();
        let mut again = optimizer(config);
        again.restore(&record).unwrap();
        let mut q = p.clone();
        stream(&mut o, &mut p, t + 1, &gradients(t + 2));
        stream(&mut again, &mut q, t + 1, &gradients(t + 2));
        assert_eq!(bits(&p), bits(&q));
        assert_eq!(steps(&mut o, bad), 1);
        // The first Adam step of a coordinate with no past is lr, whatever its gradient; its mask is of this gradient.
        let moved = |p: &[Vec<f32>], q: &[Vec<f32>]| -> Vec<usize> {
            let (p, q) = (&p[bad as usize], &q[bad as usize]);
            (0..p.len()).filter(|&i| p[i] != q[i]).collect()
        };
        let first = moved(&p, &before);
        assert!(first.iter().all(|&i| ((p[bad as usize][i] - before[bad as usize][i]).abs() - 0.01).abs() < 1e-4));
        let (k, g) = (o.current().find(bad).unwrap().k, &gradients(t + 2)[bad as usize]);
        let mut largest: Vec<usize> = (0..g.len()).collect();
        largest.sort_by(|&i, &j| g[j].abs().total_cmp(&g[i].abs()));
        largest.truncate(k);
        largest.sort_unstable();
        assert!(k < g.len());
        assert_eq!(first, largest);
        // And it stays.
        let before = p.clone();
        stream(&mut o, &mut p, t + 2, &gradients(t + 3));
        assert_eq!(moved(&p, &before), first);
    }
}

#[test]
fn a_set_of_which_every_block_trips_has_not_updated_a5_3() {
    let config = Config { inactive: Inactive::Frozen, ..base() };
    let (mut o, mut p) = (optimizer(config), parameters());
    let mut t = 0;
    while !o.is_switch_pending() || t == 0 {
        stream(&mut o, &mut p, t, &gradients(t + 1));
        t += 1;
    }
    let (set, was, before) = (active(&o), o.current().clone(), bits(&p));
    let mut g = gradients(t + 1);
    set.iter().for_each(|&b| g[b as usize].fill(f32::INFINITY));
    stream(&mut o, &mut p, t, &g);
    assert!(!o.report().unwrap().switched && o.is_switch_pending());
    assert_eq!((bits(&p), o.current()), (before, &was));
    stream(&mut o, &mut p, t + 1, &gradients(t + 2));
    assert!(o.report().unwrap().switched);
    assert!(set.iter().all(|&b| steps(&mut o, b) == 1));
}

#[test]
fn what_needs_all_gradients_is_refused_a6_5() {
    let clip = Optimizer::new(Reference::<blockllm::Slices>::default(), &specs(), Config { clip: Some(1.0), ..base() });
    assert!(matches!(clip.err().unwrap(), Error::Config { field: "clip", .. }));
    let (mut o, mut p) = (optimizer(base()), parameters());
    let error = o.begin(Step::new(0.01).micro_batches(2)).unwrap_err();
    assert!(matches!(error, Error::Step { field: "micro_batches", .. }), "{error}");
    // Dropped while nothing active has moved, not after.
    o.begin(Step::new(0.01)).unwrap();
    o.abort().unwrap();
    o.begin(Step::new(0.01)).unwrap();
    let (set, g) = (active(&o), gradients(1));
    let missing = o.grad(set[0], &View::F32(&g[set[0] as usize])).unwrap_err();
    assert_eq!(missing, Error::MissingParameter { block: format!("w{}", set[0]) });
    o.grad_with(set[0], &View::F32(&g[set[0] as usize]), &mut ViewMut::F32(&mut p[set[0] as usize])).unwrap();
    let error = o.abort().unwrap_err();
    assert!(matches!(error, Error::Order { call: "abort", .. }), "{error}");
    assert!(o.is_step_open());
}

#[test]
fn a_tripped_block_is_scored_as_one_without_moments_a2_1() {
    let config = Config {
        score: ScoreKind::ProcessedNorm,
        sparsity: 0.4,
        fill: Fill::Uniform,
        patience: 1,
        inactive: Inactive::Frozen,
        ..base()
    };
    let (mut o, mut p) = (optimizer(config), parameters());
    // Its first steps trip, one of them a deciding one, which scores it.
    let bad = o.active().regions.iter().find(|r| r.masked()).unwrap().block;
    for t in 0..3 {
        let mut g = gradients(t + 1);
        g[bad as usize][5] = f32::NAN;
        stream(&mut o, &mut p, t, &g);
        assert!(o.report().unwrap().skipped);
    }
    assert_eq!(o.report().unwrap().reason, Some(blockllm::Reason::Period));
    let mut left = o.steps();
    while o.report().unwrap().reason.is_none() || left == 3 {
        stream(&mut o, &mut p, left, &gradients(left + 1));
        left += 1;
    }
    let score = o.report().unwrap().scores[bad as usize].unwrap();
    assert!(score.value.is_finite() && score.age == 0);
}
