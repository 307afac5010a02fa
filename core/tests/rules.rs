//! Rules that no other test is about, one by one, through the public interface.
#![allow(missing_docs)]

mod common;

use blockllm::fill::{Sized, fill};
use blockllm::{
    BlockSpec, Config, Decision, Fill, Inactive, MaskKind, Optimizer, Policy, Record, Reference, Slices, Step, Trigger, View,
    ViewMut, VisitBias,
};
use common::noise;

type Params = Vec<Vec<f32>>;

/// By the norm of the gradient alone, a decision on each step, the rest frozen, moments reset.
fn config() -> Config {
    Config {
        policy: Policy::BlockLlm(Trigger::Period(1)),
        sparsity: 0.5,
        patience: 1, // every idle unit is probed on each step
        visit_bias: VisitBias::None,
        inactive: Inactive::Frozen,
        ..Config::published_code()
    }
}

fn vectors(sizes: &[usize]) -> Vec<BlockSpec> {
    (0..).zip(sizes).map(|(i, &n): (usize, _)| BlockSpec::new(format!("w{i}"), [1, n])).collect()
}

fn made(specs: &[BlockSpec], config: Config) -> (Optimizer<Reference>, Params) {
    let p = specs.iter().map(|s| (0..s.len()).map(|i| noise(0, s.len(), i)).collect()).collect();
    (Optimizer::new(Reference::<Slices>::default(), specs, config).unwrap(), p)
}

/// One step; `g` gives coordinate i of a block's gradient.
fn step(o: &mut Optimizer<Reference>, p: &mut Params, g: impl Fn(usize, usize) -> f32) {
    let g: Params = p.iter().enumerate().map(|(b, p)| (0..p.len()).map(|i| g(b, i)).collect()).collect();
    let mut views: Vec<_> = (0..).zip(p.iter_mut()).map(|(b, p)| (b, ViewMut::F32(p))).collect();
    let _ = o.step(Step::new(0.01), |b| Some(View::F32(&g[b as usize])), &mut views).unwrap();
    o.wait().unwrap();
}

fn set(o: &Optimizer<Reference>) -> Vec<Sized> {
    o.active().counts().collect()
}

fn words(record: &Record, leaf: &str) -> Vec<u64> {
    record.get(leaf).unwrap().data.as_chunks::<8>().0.iter().map(|w| u64::from_le_bytes(*w)).collect()
}

#[test]
fn an_always_active_block_is_in_every_set_whole_and_within_the_budget_a1_2() {
    let mut specs = vectors(&[30, 20, 50, 40, 60]);
    specs[1] = specs[1].clone().always_active();
    for (policy, fill) in [
        (config().policy, Fill::LastMasked),
        (config().policy, Fill::Uniform),
        (config().policy, Fill::Whole),
        (Policy::RandomBlocks { period: 1 }, Fill::LastMasked),
        (Policy::Lisa { period: 1, units: 1 }, Fill::LastMasked),
    ] {
        let (mut o, mut p) = made(&specs, Config { policy, fill, ..config() });
        for t in 0..8 {
            // Its own gradient is the smallest.
            step(&mut o, &mut p, |b, i| if b == 1 { 1e-6 } else { noise(t, b, i) });
            let set = set(&o);
            assert!(set.contains(&(1, 20)), "{set:?}");
            assert!(set.len() > 1 && o.active().coordinates() <= o.budget(), "{set:?} of {}", o.budget());
        }
    }
}

#[test]
fn frozen_blocks_are_not_counted_and_a_tensor_of_two_names_is_counted_once_a1_3() {
    let mut specs = vectors(&[30, 20, 50]);
    specs[0] = specs[0].clone().tied("head");
    specs[2] = specs[2].clone().frozen();
    let (o, _) = made(&specs, config());
    assert_eq!((o.budget(), o.blocks().trainable_len(), o.blocks().units.len()), (25, 50, 3));
    assert_eq!((o.blocks().find("head"), o.blocks().find("w0")), (Some(0), Some(0)));
    assert!(o.wanted().unwrap().iter().all(|w| w.block != 2));
}

#[test]
fn keys_weigh_scores_by_visits_a2_7() {
    // Two of nine decisions selected it, of 20 visits in all.
    assert_eq!(VisitBias::Ratio.key(6.0, 2, 9, 20), 6.0 / (3.0 / 10.0));
    assert_eq!(VisitBias::Exponential.key(6.0, 2, 9, 20), 6.0 / (0.1f64).exp());
    assert_eq!(VisitBias::None.key(6.0, 2, 9, 20), 6.0);
    // Before the first decision nothing weighs.
    for bias in [VisitBias::Ratio, VisitBias::Exponential, VisitBias::None] {
        assert_eq!(bias.key(6.0, 0, 0, 0), 6.0);
    }
}

#[test]
fn visits_are_of_decisions_that_took_any_of_a_unit_always_active_ones_too_a2_7() {
    let mut specs = vectors(&[10, 10, 10, 10, 10]);
    specs[4] = specs[4].clone().always_active();
    // Units 0 to 3 score 8, 3, 2 and 1/4 each time; there is room for two beside what is always active. Under `Ratio` unit 1
    // has 3, 3, 9/2 and 4, unit 2 has 2, 4, 3 and 4.
    for (visit_bias, visits) in [(VisitBias::None, [4, 4, 0, 0, 4]), (VisitBias::Ratio, [4, 3, 1, 0, 4])] {
        let (mut o, mut p) = made(&specs, Config { visit_bias, sparsity: 0.4, ..config() });
        for _ in 0..4 {
            step(&mut o, &mut p, |b, i| if i == 0 { [8.0, 3.0, 2.0, 0.25, 1.0][b] } else { 0.0 });
        }
        assert_eq!((o.decisions(), o.visits()), (4, &visits[..]));
    }
}

#[test]
fn a_decision_for_the_same_whole_set_counts_visits_and_is_no_switch_a3_7() {
    let decision = |o: &mut Optimizer<Reference>| o.report().unwrap().decision.unwrap();
    let score = |b: usize, _: usize| [1.0, 3.0, 2.0][b];
    // Block 1 whole.
    let (mut o, mut p) = made(&vectors(&[20, 20, 20]), Config { sparsity: 2.0 / 3.0, ..config() });
    let mut decisions = Vec::new();
    for _ in 0..4 {
        step(&mut o, &mut p, score);
        decisions.push((decision(&mut o), o.is_switch_pending()));
    }
    assert!(decisions[1..].iter().all(|d| *d == (Decision::Keep, false)), "{decisions:?}");
    assert_eq!((o.visits(), o.decisions()), (&[0, 4, 0][..], 4));
    // Its moments go on: it is its third step or later, though moments would be reset.
    assert!(words(&o.save().unwrap(), "block/w1")[6] >= 3);
    // A set that is pending is dropped where the one that last updated is decided for again.
    let nan = |b: usize, i: usize| if b == 1 { f32::NAN } else { [9.0, 0.0, 2.0][b] + i as f32 };
    step(&mut o, &mut p, nan);
    assert_eq!((decision(&mut o), set(&o)), (Decision::Switch, vec![(0, 20)]));
    step(&mut o, &mut p, |b, _| if b == 0 { f32::INFINITY } else { [0.0, 90.0, 2.0][b] });
    // Block 0 was skipped and keeps its score, which is above that of block 1 no more.
    assert_eq!((decision(&mut o), o.is_switch_pending(), set(&o)), (Decision::Keep, false, vec![(1, 20)]));
    // An equal set of which a block is masked is a switch.
    let masked = Config { fill: Fill::LastMasked, sparsity: 0.5, ..config() };
    let (mut o, mut p) = made(&vectors(&[20, 20, 20]), masked);
    for t in 0..4 {
        step(&mut o, &mut p, score);
        assert_eq!((decision(&mut o), t == 0 || set(&o) == [(1, 20), (2, 10)]), (Decision::Switch, true));
    }
}

#[test]
fn equal_keys_go_by_the_first_block_and_always_active_blocks_come_first_a4_1() {
    let mut specs = vectors(&[20, 20, 20, 20, 20, 20]);
    specs[5] = specs[5].clone().always_active();
    let (mut o, mut p) = made(&specs, Config { sparsity: 0.5, ..config() });
    step(&mut o, &mut p, |_, _| 1.0);
    assert_eq!(set(&o), [(0, 20), (1, 20), (5, 20)]);
    // A group counts by its first block, though its second is the last.
    let mut specs = vectors(&[20, 20, 20, 20, 20]);
    for b in [1, 4] {
        specs[b] = specs[b].clone().group("g");
    }
    // All units score 5.
    let (mut o, mut p) = made(&specs, Config { sparsity: 0.4, ..config() });
    step(&mut o, &mut p, |b, i| if i == 0 { [5.0, 3.0, 5.0, 5.0, 4.0][b] } else { 0.0 });
    assert_eq!(set(&o), [(0, 20), (1, 20), (4, 20)]);
}

/// Ranked units of one block each.
fn filled(kind: Fill, ranked: &[Sized], room: usize) -> Vec<Sized> {
    fill(kind, MaskKind::Coordinate, ranked.iter().map(|r| [*r]), room)
}

#[test]
fn each_fill_spends_the_room_its_own_way_a4_2() {
    let ranked = [(3, 40), (0, 7), (2, 90), (1, 10)];
    assert_eq!(filled(Fill::LastMasked, &ranked, 60), [(3, 40), (0, 7), (2, 13)]);
    assert_eq!(filled(Fill::LastMasked, &ranked, 47), [(3, 40), (0, 7)]);
    // The same blocks; floor(60 * n / 137) is 17, 3 and 39, and the one that is left goes to the first.
    assert_eq!(filled(Fill::Uniform, &ranked, 60), [(3, 18), (0, 3), (2, 39)]);
    assert_eq!(filled(Fill::Uniform, &ranked, 1000), ranked);
    // Whole units that still fit, in order of rank.
    assert_eq!(filled(Fill::Whole, &ranked, 60), [(3, 40), (0, 7), (1, 10)]);
    for kind in [Fill::LastMasked, Fill::Uniform, Fill::Whole] {
        assert_eq!(filled(kind, &ranked, 0), []);
        for room in 1..200 {
            let taken = filled(kind, &ranked, room);
            let total: usize = taken.iter().map(|t| t.1).sum();
            assert!(total <= room && (kind == Fill::Whole || total == room.min(147)), "{kind:?}, {room}: {taken:?}");
        }
    }
    // A group is taken entirely or not at all by `Whole` alone.
    let units = [vec![(0, 30), (1, 30)], vec![(2, 20)]];
    let of = |kind| fill(kind, MaskKind::Coordinate, units.iter().map(|u| u.iter().copied()), 40);
    assert_eq!((of(Fill::Whole), of(Fill::LastMasked)), (vec![(2, 20)], vec![(0, 30), (1, 10)]));
}

#[test]
fn a_block_that_is_left_nothing_is_not_selected_and_not_visited_a4_3() {
    // floor(10 * n / 110) is 9 and 0; the one that is left goes to the first.
    assert_eq!(filled(Fill::Uniform, &[(0, 100), (1, 10)], 10), [(0, 10)]);
    assert_eq!(filled(Fill::Uniform, &[(0, 5), (1, 100)], 10), [(0, 1), (1, 9)]);
    let config = Config { fill: Fill::LastMasked, mask: MaskKind::Tile(16), sparsity: 0.6, ..config() };
    let (mut o, mut p) = made(&vectors(&[32, 30, 33]), config);
    // 38 fit: block 0, and of block 1 six, which are no tile.
    step(&mut o, &mut p, |b, _| [3.0, 2.0, 1.0][b]);
    assert_eq!((o.budget(), set(&o), o.visits()), (38, vec![(0, 32)], &[1, 0, 0][..]));
}
