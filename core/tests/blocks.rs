//! Blocks that come and go between steps (A1.1), blocks with two names (A1.3), and moments from another run.
#![allow(missing_docs)]

mod common;

use blockllm::{
    Across, BlockSpec, Config, Error, Fill, First, Inactive, Optimizer, Order, Policy, Reference, ScoreKind, Slices, Step,
    Trigger, View, ViewMut,
};
use common::*;

fn config() -> Config {
    let policy = Policy::BlockLlm(Trigger::Period(3));
    Config { sparsity: 0.5, patience: 3, seed: 5, clip: Some(1.0), policy, ..Config::default() }
}

fn make(specs: &[BlockSpec], config: &Config) -> Optimizer<Reference> {
    Optimizer::new(Reference::<Slices>::default(), specs, config.clone()).unwrap()
}

const LENGTHS: [usize; 8] = [40, 7, 90, 33, 64, 20, 150, 11];

/// Steps over however many blocks there are; a removed one has no tensor.
fn train(o: &mut Optimizer<Reference>, p: &mut [Vec<f32>], steps: std::ops::Range<u64>) {
    for t in steps {
        let g: Vec<Vec<f32>> = p.iter().enumerate().map(|(b, p)| (0..p.len()).map(|i| noise(t + 1, b, i)).collect()).collect();
        let live: Vec<u32> = o.blocks().live().map(|(b, _)| b).collect();
        let all = views(p).into_iter();
        let mut params: Vec<_> = all.filter(|(b, _)| live.contains(b)).collect();
        let step = Step::new(0.01).loss(2.0 - (t % 5) as f64 * 0.1);
        let _ = o.step(step, |b| live.contains(&b).then(|| View::F32(&g[b as usize])), &mut params).unwrap();
        o.wait().unwrap();
    }
}

fn tensors(n: usize) -> Vec<Vec<f32>> {
    LENGTHS[..n].iter().enumerate().map(|(b, &n)| (0..n).map(|i| noise(0, b, i)).collect()).collect()
}

fn named(range: std::ops::Range<usize>) -> Vec<BlockSpec> {
    range.map(|i| BlockSpec::new(format!("w{i}"), [1, LENGTHS[i]])).collect()
}

#[test]
fn the_budget_follows_what_is_added_at_the_next_decision_a1_1() {
    for inactive in [Inactive::Frozen, Inactive::SignSgd(1.0)] {
        for immediate in [false, true] {
            let clip = if immediate { None } else { Some(1.0) };
            let score = ScoreKind::GradientNorm;
            let config = Config { inactive, immediate, clip, score, ..config() };
            let (mut o, mut p) = (make(&named(0..6), &config), tensors(8));
            train(&mut o, &mut p[..6], 0..4);
            let (set, moments) = (o.active().counts().collect::<Vec<_>>(), o.memory().moments);
            let visits = o.visits().to_vec();
            assert!(visits.iter().sum::<u64>() > 0);
            assert_eq!((o.budget(), moments), (127, 2 * 4 * 127));
            assert_eq!(o.add_blocks(&named(6..8)).unwrap(), 6..8);
            assert_eq!(o.budget(), 208, "415 coordinates, half of them active");
            assert_eq!(o.visits()[..6], visits);
            assert!(o.report().unwrap().scores[6..].iter().all(Option::is_none), "no score before a gradient");
            assert_eq!(o.active().counts().collect::<Vec<_>>(), set, "idle until the next decision");
            let mut seen = [false; 8];
            for t in 4..40 {
                train(&mut o, &mut p, t..t + 1);
                assert!(o.active().coordinates() <= 208);
                o.active().regions.iter().for_each(|r| seen[r.block as usize] = true);
            }
            assert_eq!(seen, [true; 8], "{config:?}");
            assert_eq!(o.memory().moments, 2 * 4 * 208);
            assert_eq!(o.memory().packed_gradients, 4 * if immediate { 150 } else { 208 });
        }
    }
}

#[test]
fn a_removed_block_is_gone_and_its_room_too_a1_1() {
    let config = config();
    let (mut o, mut p) = (make(&named(0..8), &config), tensors(8));
    train(&mut o, &mut p, 0..7);
    let largest = o.active().find(6).is_some();
    o.remove_block(6).unwrap();
    assert_eq!((o.budget(), o.active().find(6).is_some()), (133, false));
    let kept = p[6].clone();
    train(&mut o, &mut p, 7..20);
    assert!(largest && p[6] == kept, "the seed has it in the set that loses it");
    assert_eq!(o.memory().moments, 2 * 4 * 133, "given back when the next set has switched");
    assert!(o.active().coordinates() <= 133);
    // Its number is not used again, its name may be.
    let again = [BlockSpec::new("w6", [1, 5])];
    assert_eq!(o.add_blocks(&again).unwrap(), 8..9);
    assert_eq!(o.blocks().find("w6"), Some(8));
    for error in [o.remove_block(6), o.freeze(6), o.thaw(6), o.grad_with(6, &View::F32(&[]), &mut ViewMut::F32(&mut []))] {
        let message = error.unwrap_err().to_string();
        assert!(message == "block w6 was removed" || message.starts_with("grad"), "{message}");
    }
    p.push(vec![0.5; 5]);
    train(&mut o, &mut p, 20..40);
    assert_ne!(p[8], [0.5; 5]);
}

#[test]
fn a_run_that_lost_a_block_is_saved_and_goes_on_without_it() {
    for policy in [Policy::BlockLlm(Trigger::Period(3)), Policy::Cyclic { period: 2, order: Order::Random }] {
        for lost in [0, 3, 5] {
            let config = Config { policy: policy.clone(), inactive: Inactive::Frozen, ..config() };
            let (mut o, mut p) = (make(&named(0..6), &config), tensors(6));
            train(&mut o, &mut p, 0..8);
            o.remove_block(lost as u32).unwrap();
            let record = o.save().unwrap();
            let mut rest = named(0..6);
            rest.remove(lost);
            let mut again = make(&rest, &config);
            again.restore(&record).unwrap();
            let mut q = p.clone();
            q.remove(lost);
            for t in 8..30 {
                train(&mut o, &mut p, t..t + 1);
                // By name: gradients are of the block that was registered there first.
                let g: Vec<Vec<f32>> =
                    (0..6).filter(|b| *b != lost).map(|b| (0..LENGTHS[b]).map(|i| noise(t + 1, b, i)).collect()).collect();
                let step = Step::new(0.01).loss(2.0 - (t % 5) as f64 * 0.1);
                let _ = again.step(step, |b| Some(View::F32(&g[b as usize])), &mut views(&mut q)).unwrap();
                again.wait().unwrap();
            }
            let mut p = p.clone();
            p.remove(lost);
            assert!(bits(&p) == bits(&q) && o.save().unwrap() == again.save().unwrap(), "{policy:?}, without block {lost}");
        }
    }
}

#[test]
fn under_full_a_new_block_is_active_at_once() {
    let config = Config { clip: None, ..Config::adamw() };
    let (mut o, mut p) = (make(&named(0..3), &config), tensors(4));
    train(&mut o, &mut p[..3], 0..3);
    o.add_blocks(&named(3..4)).unwrap();
    assert_eq!(o.active().counts().collect::<Vec<_>>(), [(0, 40), (1, 7), (2, 90), (3, 33)]);
    // As a twin that had it from the start, but for its own first steps.
    let (mut twin, mut q) = (make(&named(0..3), &config), tensors(3));
    train(&mut twin, &mut q, 0..3);
    let start = p[3].clone();
    train(&mut o, &mut p, 3..6);
    train(&mut twin, &mut q, 3..6);
    assert_eq!(bits(&p[..3]), bits(&q));
    let (mut fresh, mut r) = (make(&named(3..4), &config), vec![start]);
    for t in 3..6 {
        let g: Vec<f32> = (0..33).map(|i| noise(t + 1, 3, i)).collect();
        let _ = fresh.step(Step::new(0.01), |_| Some(View::F32(&g)), &mut views(&mut r)).unwrap();
        fresh.wait().unwrap();
    }
    assert_eq!(bits(&p[3..4]), bits(&r));
}

#[test]
fn what_cannot_come_or_go_changes_nothing() {
    let config = Config { fill: Fill::Whole, ..config() };
    let mut specs = named(0..5);
    specs[2].always_active = true; // 90 of 117
    let (mut o, mut p) = (make(&specs, &config), tensors(5));
    train(&mut o, &mut p, 0..4);
    let before = o.save().unwrap();
    let unchanged = |o: &mut Optimizer<Reference>| {
        assert!(o.save().unwrap() == before);
        assert_eq!((o.budget(), o.blocks().count(), o.memory().moments), (117, 5, 2 * 4 * 117));
    };
    let twice = o.add_blocks(&named(5..6).into_iter().chain(named(1..2)).collect::<Vec<_>>()).unwrap_err();
    assert_eq!(twice.to_string(), "two blocks are named w1");
    unchanged(&mut o);
    let large = o.add_blocks(&[BlockSpec::new("head", [100, 10]).always_active()]).unwrap_err();
    assert_eq!(large.to_string(), "always-active blocks hold 1090 coordinates, the budget is 617: lower the sparsity");
    unchanged(&mut o);
    let mixed = o.add_blocks(&[BlockSpec::new("wide", [1, 1]).dtype(blockllm::DType::F64)]).unwrap_err();
    assert!(mixed.to_string().starts_with("block wide: f64 beside blocks computed in f32"), "{mixed}");
    unchanged(&mut o);
    assert!(matches!(o.remove_block(4), Err(Error::Budget { always_active: 90, budget: 85 })));
    unchanged(&mut o);
    assert!(matches!(o.remove_block(5), Err(Error::UnknownBlock { block: 5, blocks: 5 })));
    o.begin(Step::new(0.1)).unwrap();
    assert!(matches!(o.remove_block(0), Err(Error::Order { call: "remove_block", .. })));
    assert!(matches!(o.add_blocks(&[]), Err(Error::Order { call: "add_blocks", .. })));
    o.abort().unwrap();
    unchanged(&mut o);
    assert!(matches!(o.remove_block(1), Err(Error::NothingFits { smallest: 33, room: 24 })));
    unchanged(&mut o);
}

#[test]
fn a_member_that_joins_its_group_is_scored_with_it() {
    let config = Config { inactive: Inactive::SignSgd(1.0), sparsity: 0.3, ..config() };
    let mut specs = named(0..4);
    specs[1].group = Some("g".into());
    let (mut o, mut p) = (make(&specs, &config), tensors(5));
    train(&mut o, &mut p[..4], 0..4);
    o.add_blocks(&[BlockSpec::new("w4", [1, 64]).group("g")]).unwrap();
    assert_eq!(o.blocks().units.len(), 4);
    assert_eq!(o.blocks().units[1].blocks, [1, 4]);
    train(&mut o, &mut p, 4..12);
    let report = o.report().unwrap();
    assert_eq!(report.scores.iter().flatten().count(), 4);
    let set = o.active();
    assert_eq!(set.find(1).is_some(), set.find(4).is_some(), "selected together: {set:?}");
}

#[test]
fn two_names_of_one_tensor_are_one_block_a1_3() {
    let tied = [BlockSpec::new("embedding", [4, 5]).tied("head"), BlockSpec::new("w", [1, 20])];
    let config = Config { policy: Policy::Full, ..Config::adamw() };
    let mut o = make(&tied, &config);
    assert_eq!((o.budget(), o.memory().moments, o.blocks().count()), (40, 2 * 4 * 40, 2));
    assert_eq!((o.blocks().find("head"), o.blocks().find("embedding"), o.blocks().find("w")), (Some(0), Some(0), Some(1)));
    // One update from the sum of both uses' gradients; one for each use is an error that names the block.
    let (mut p, g) = (vec![vec![0.5f32; 20], vec![0.25; 20]], gradients(1)[5].clone());
    let [mut a, mut b] = [p[0].clone(), p[1].clone()];
    o.begin(Step::new(0.1)).unwrap();
    o.grad(0, &View::F32(&g)).unwrap();
    assert_eq!(o.grad(0, &View::F32(&g)).unwrap_err().to_string(), "block embedding: a second time in one step");
    o.abort().unwrap();
    let sum: Vec<f32> = g.iter().map(|x| x + x).collect();
    let _ = o.step(Step::new(0.1), |b| Some(View::F32(if b == 0 { &sum } else { &g })), &mut views(&mut p)).unwrap();
    o.wait().unwrap();
    let mut alone = make(&named(5..6), &config);
    let _ = alone.step(Step::new(0.1), |_| Some(View::F32(&sum)), &mut [(0, ViewMut::F32(&mut a))]).unwrap();
    let mut other = make(&named(5..6), &config);
    let _ = other.step(Step::new(0.1), |_| Some(View::F32(&g)), &mut [(0, ViewMut::F32(&mut b))]).unwrap();
    assert_eq!(bits(&p), bits(&[a, b]));
    // Its names are its own.
    let twice = |spec: BlockSpec| Optimizer::new(Reference::<Slices>::default(), &[tied[0].clone(), spec], config.clone());
    assert!(matches!(twice(BlockSpec::new("head", [1, 1])), Err(Error::DuplicateName { block }) if block == "head"));
    assert!(
        matches!(twice(BlockSpec::new("x", [1, 1]).tied("embedding")), Err(Error::DuplicateName { block }) if block == "embedding")
    );
    // A record knows it by either name.
    let record = o.save().unwrap();
    let mut renamed = make(&[BlockSpec::new("head", [4, 5]).tied("embedding"), tied[1].clone()], &config);
    renamed.restore(&record).unwrap();
    assert!(renamed.save().unwrap() == record);
    let mut untied = make(&[BlockSpec::new("head", [4, 5]), tied[1].clone()], &config);
    assert!(matches!(untied.restore(&record), Err(Error::Record { leaf, .. }) if leaf == "block/embedding"));
}

fn adamw() -> Config {
    Config { across: Across::Carry, clip: Some(1.0), weight_decay: 0.01, ..Config::adamw() }
}

#[test]
fn full_adamw_goes_on_as_block_llm_with_everything_active_and_back_to_the_bit() {
    let (mut full, mut p) = (make(&named(0..6), &adamw()), tensors(6));
    train(&mut full, &mut p, 0..9);
    let all = Config { sparsity: 0.0, ..config() };
    let all = Config { weight_decay: 0.01, inactive: Inactive::Frozen, ..all };
    let (mut o, mut q) = (make(&named(0..6), &all), p.clone());
    assert_eq!(o.adopt(&full.save().unwrap()).unwrap(), 254);
    train(&mut full, &mut p, 9..15);
    train(&mut o, &mut q, 9..15);
    assert_eq!(bits(&p), bits(&q));
    let mut back = make(&named(0..6), &adamw());
    assert_eq!(back.adopt(&o.save().unwrap()).unwrap(), 254);
    train(&mut full, &mut p, 15..22);
    train(&mut back, &mut q, 15..22);
    assert_eq!(bits(&p), bits(&q));
    let moments = |o: &mut Optimizer<Reference>| {
        let record = o.save().unwrap();
        record.leaves().iter().filter(|l| l.name.starts_with("m/") || l.name.starts_with("v/")).cloned().collect::<Vec<_>>()
    };
    assert_eq!(moments(&mut full), moments(&mut back));
    let steps = |o: &mut Optimizer<Reference>| {
        let record = o.save().unwrap();
        let blocks = record.leaves().iter().filter(|l| l.name.starts_with("block/"));
        blocks.map(|l| l.data[8 * 6..8 * 7].to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(steps(&mut full), steps(&mut back));
    assert_eq!(steps(&mut full)[0][0], 22, "t of each block");
}

#[test]
fn what_is_active_keeps_the_moments_of_full_adamw_under_its_masks_too_a5_4() {
    for fill in [Fill::LastMasked, Fill::Uniform] {
        for immediate in [false, true] {
            let full_config = Config { clip: None, ..adamw() };
            let (mut full, mut p) = (make(&named(0..6), &full_config), tensors(6));
            train(&mut full, &mut p, 0..9);
            let policy = Policy::BlockLlm(Trigger::Period(100));
            let config =
                Config { fill, immediate, policy, clip: None, weight_decay: 0.01, inactive: Inactive::Frozen, ..config() };
            let (mut o, mut q) = (make(&named(0..6), &config), p.clone());
            let taken = o.adopt(&full.save().unwrap()).unwrap();
            let set: Vec<_> = o.active().counts().collect();
            assert_eq!(taken, set.iter().map(|(b, _)| LENGTHS[*b as usize]).sum::<usize>());
            assert!(set.iter().any(|(b, k)| *k < LENGTHS[*b as usize]), "a masked block");
            let (before, mut still) = (p.clone(), 0);
            train(&mut full, &mut p, 9..10);
            train(&mut o, &mut q, 9..10);
            for (b, k) in &set {
                let b = *b as usize;
                let moved: Vec<usize> = (0..LENGTHS[b]).filter(|&i| q[b][i] != before[b][i]).collect();
                assert_eq!(moved.len(), *k);
                assert!(moved.iter().all(|&i| q[b][i].to_bits() == p[b][i].to_bits()), "{fill:?}: as full AdamW moves it");
                still += LENGTHS[b] - moved.len();
            }
            assert!(still > 0);
            assert_eq!(o.memory().moments, 2 * 4 * o.budget(), "the arena is n_s again");
        }
    }
}

#[test]
fn moments_that_do_not_fit_are_refused_and_nothing_has_changed() {
    let (mut full, mut p) = (make(&named(0..6), &adamw()), tensors(6));
    train(&mut full, &mut p, 0..3);
    let record = full.save().unwrap();
    let error = |specs: &[BlockSpec], config: Config| {
        let mut o = make(specs, &config);
        let before = o.save().unwrap();
        let error = o.adopt(&record).unwrap_err().to_string();
        assert!(o.save().unwrap() == before);
        error
    };
    let config = config();
    let reset = Config { across: Across::Reset, ..config.clone() };
    assert_eq!(error(&named(0..6), reset), "config: across = Reset must be Carry, to take moments over");
    let scan = Config { first: First::Scan, ..config.clone() };
    assert!(error(&named(0..6), scan).starts_with("adopt: moments are taken over before the first step"));
    let betas = Config { betas: [0.9, 0.99], ..config.clone() };
    assert!(error(&named(0..6), betas).contains("the record was made with betas = [0.9, 0.999], here it is betas = [0.9, 0.99]"));
    let mut other = named(0..6);
    other.iter_mut().for_each(|s| s.shape = [s.len(), 1]);
    assert!(error(&other, Config { sparsity: 0.0, ..config.clone() }).contains("its shape is [1, 40], here it is [40, 1]"));
    let wide: Vec<_> = named(0..6).into_iter().map(|s| s.dtype(blockllm::DType::F64)).collect();
    assert!(error(&wide, config.clone()).contains("moments = f32, here it is moments = f64"));
    let mut o = make(&named(0..6), &config);
    train(&mut o, &mut tensors(6), 0..1);
    assert!(matches!(o.adopt(&record), Err(Error::Order { call: "adopt", .. })));
    // Blocks that the record does not have, or has in part, start anew.
    let mut o = make(&named(0..8), &Config { sparsity: 0.0, ..config });
    assert_eq!(o.adopt(&record).unwrap(), 254);
}

#[test]
fn moments_taken_over_are_saved_before_their_first_step_too() {
    let (mut full, mut p) = (make(&named(0..6), &Config { clip: None, ..adamw() }), tensors(6));
    train(&mut full, &mut p, 0..5);
    for inactive in [Inactive::Frozen, Inactive::SignSgd(1.0)] {
        let config = Config { inactive, fill: Fill::Uniform, ..config() };
        let mut o = make(&named(0..6), &config);
        o.adopt(&full.save().unwrap()).unwrap();
        let mut again = make(&named(0..6), &config);
        again.restore(&o.save().unwrap()).unwrap();
        let (mut q, mut r) = (p.clone(), p.clone());
        train(&mut o, &mut q, 5..20);
        train(&mut again, &mut r, 5..20);
        assert_eq!(bits(&q), bits(&r));
        assert!(o.save().unwrap() == again.save().unwrap() && o.memory() == again.memory());
    }
}
