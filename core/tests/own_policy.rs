//! A policy of the user's own (A4.6): what it sees, what the engine does with its answer, and what it refuses.
#![allow(missing_docs)]

mod common;

use blockllm::policy::{Candidates, Choose};
use blockllm::random::Stream;
use blockllm::{
    BlockSpec, Config, Decision, Error, Fill, First, Inactive, Optimizer, Policy, Reference, Slices, Stage, Step, Trigger, View,
};
use common::*;
use std::sync::{Arc, Mutex};

/// Chooses what it is told, and writes down what it saw.
#[derive(Debug)]
struct Told {
    maximum: Option<usize>,
    scores: bool,
    next: Next,
}

#[derive(Clone, Default)]
struct Next(Arc<Mutex<(Vec<u32>, Vec<String>)>>);

impl std::fmt::Debug for Next {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Next")
    }
}

impl Choose for Told {
    fn trigger(&self) -> Trigger {
        Trigger::Period(2)
    }

    fn scores(&self) -> bool {
        self.scores
    }

    fn maximum(&self, _: &blockllm::block::Blocks) -> Option<usize> {
        self.maximum
    }

    fn choose(&self, all: &Candidates<'_>, memory: &mut Vec<u64>, draws: &mut Stream) -> Vec<u32> {
        memory.push(all.decisions());
        draws.below(3);
        let scores: Vec<f64> = if self.scores { all.units().map(|u| all.score(u)).collect() } else { vec![] };
        let visits: Vec<u64> = all.units().map(|u| all.visits(u)).collect();
        let mut next = self.next.0.lock().unwrap();
        let known = scores.iter().filter(|s| s.is_finite()).count();
        next.1.push(format!("step {} decisions {} visits {visits:?} scores {known}", all.steps(), all.decisions()));
        next.0.clone()
    }
}

fn told(units: &[u32], maximum: Option<usize>, scores: bool) -> (Config, Next) {
    let next = Next::default();
    next.0.lock().unwrap().0 = units.to_vec();
    let policy = Policy::own(Told { maximum, scores, next: next.clone() });
    (Config { policy, sparsity: 0.5, patience: 3, inactive: Inactive::Frozen, ..Config::default() }, next)
}

fn with_always_active() -> Vec<BlockSpec> {
    let mut specs = specs();
    specs[5].always_active = true;
    specs
}

fn make(config: Config) -> Result<Optimizer<Reference>, Error<blockllm::reference::HostError<std::convert::Infallible>>> {
    Optimizer::new(Reference::<Slices>::default(), &with_always_active(), config)
}

fn active<B: blockllm::Backend>(o: &Optimizer<B>) -> Vec<(u32, usize)> {
    o.active().counts().collect()
}

#[test]
fn a_ranking_is_filled_within_the_budget_and_whole_units_are_taken_as_they_are_a4_6() {
    // n_s is 127 of 254, 20 of them always active: 107 are left.
    let (config, _) = told(&[4, 2, 0], None, false);
    assert_eq!(active(&make(config.clone()).unwrap()), [(2, 43), (4, 64), (5, 20)]);
    assert_eq!(active(&make(Config { fill: Fill::Whole, ..config }).unwrap()), [(0, 40), (4, 64), (5, 20)]);
    let (config, _) = told(&[4, 2, 0], Some(220), false);
    let o = make(config).unwrap();
    assert_eq!(active(&o), [(0, 40), (2, 90), (4, 64), (5, 20)]);
    assert_eq!((o.budget(), o.memory().moments), (220, 2 * 4 * 220));
    // The always-active block alone.
    assert_eq!(active(&make(told(&[], None, false).0).unwrap()), [(5, 20)]);
}

#[test]
fn it_sees_where_the_run_stands_and_its_decisions_are_counted() {
    let (config, next) = told(&[0], None, false);
    let (mut o, mut p) = (make(config).unwrap(), parameters());
    run(&mut o, &mut p, 0..2);
    next.0.lock().unwrap().0 = vec![3, 1];
    run(&mut o, &mut p, 2..4);
    assert_eq!(active(&o), [(1, 7), (3, 33), (5, 20)]);
    let saw = &next.0.lock().unwrap().1;
    let at = |step, decisions, visits: [u64; 5]| format!("step {step} decisions {decisions} visits {visits:?} scores 0");
    assert_eq!(*saw, [at(0, 0, [0; 5]), at(2, 0, [0; 5]), at(4, 1, [1, 0, 0, 0, 0])]);
    assert_eq!((o.decisions(), o.visits()), (2, &[1, 1, 0, 1, 0, 2][..]));
    assert!(o.probes().is_empty());
    assert!(!o.needs_loss());
}

#[test]
fn one_that_scores_has_probes_and_first_sets_and_waits_until_all_is_known_a3_4() {
    let (config, next) = told(&[1, 0], None, true);
    let mut o = make(config.clone()).unwrap();
    assert!(!o.probes().is_empty() && next.0.lock().unwrap().1.is_empty(), "the first set is the engine's own draw");
    run(&mut o, &mut parameters(), 0..4);
    assert_eq!(active(&o), [(0, 40), (1, 7), (5, 20)]);
    assert_eq!(next.0.lock().unwrap().1.last().unwrap(), "step 4 decisions 1 visits [1, 1, 0, 0, 0] scores 5");
    let mut o = make(Config { first: First::FullGradient, ..config.clone() }).unwrap();
    assert_eq!(o.stage(), Stage::FullGradient);
    run(&mut o, &mut parameters(), 0..1);
    assert_eq!((o.stage(), o.steps(), active(&o)), (Stage::Training, 0, vec![(0, 40), (1, 7), (5, 20)]));
    let (config, next) = told(&[1, 0], Some(100), true);
    let mut o = make(Config { probes_per_step: Some(1), ..config }).unwrap();
    assert!(o.active().coordinates() <= 100);
    run(&mut o, &mut parameters(), 0..2);
    assert!(matches!(o.report().unwrap().decision, Some(Decision::Void { .. })) && next.0.lock().unwrap().1.is_empty());
}

#[test]
fn an_answer_that_cannot_be_is_refused_and_the_step_stands() {
    let problem = |units: &[u32], maximum| match make(told(units, maximum, false).0) {
        Err(Error::Policy { policy, problem }) => {
            assert!(policy.starts_with("Told"), "{policy}");
            problem
        }
        other => panic!("{other:?}", other = other.map(|_| ())),
    };
    assert_eq!(problem(&[6], None), "unit 6 does not exist: there are 6");
    assert_eq!(problem(&[1, 1], None), "unit 1 (block/w1) is there twice");
    assert_eq!(problem(&[5], None), "unit 5 (block/w5) is always active or frozen");
    assert_eq!(problem(&[2, 0], Some(149)), "150 coordinates, always-active ones included, are more than its maximum of 149");
    assert!(matches!(make(told(&[], Some(19), false).0), Err(Error::Budget { always_active: 20, budget: 19 })));

    let (config, next) = told(&[0], None, false);
    let (mut o, mut p) = (make(config.clone()).unwrap(), parameters());
    let (mut twin, mut q) = (
        make(Config { policy: Policy::own(Told { maximum: None, scores: false, next: Next(next.0.clone()) }), ..config })
            .unwrap(),
        parameters(),
    );
    next.0.lock().unwrap().0 = vec![9];
    run(&mut o, &mut p, 0..1);
    let g = gradients(2);
    let step = Step::new(0.01);
    let _ = o.step(step, |b| Some(View::F32(&g[b as usize])), &mut views(&mut p)).unwrap();
    assert!(matches!(o.wait(), Err(Error::Policy { .. })));
    assert_eq!((o.steps(), o.decisions(), active(&o)), (2, 0, vec![(0, 40), (5, 20)]));
    assert_ne!(bits(&p), bits(&parameters()), "the step stands");
    // Memory and draws are as they would be had it not been asked: it goes on as one that was asked right at once.
    next.0.lock().unwrap().0 = vec![3];
    run(&mut twin, &mut q, 0..1);
    o.force_decision().unwrap();
    run(&mut o, &mut p, 2..3);
    assert_eq!((o.decisions(), o.cursor_and_draws().1), (1, 2));
    assert_eq!(active(&o), [(3, 33), (5, 20)]);
    assert_eq!(twin.cursor_and_draws().1, 1);
}

#[test]
fn keeping_the_same_whole_set_is_no_switch_a3_7() {
    let (config, _) = told(&[0, 1], None, false);
    let (mut o, mut p) = (make(config).unwrap(), parameters());
    run(&mut o, &mut p, 0..2);
    assert_eq!(o.report().unwrap().decision, Some(Decision::Keep));
    assert!(!o.is_switch_pending());
}

#[test]
fn a_block_that_its_maximum_does_not_hold_is_not_thawed_a1_1() {
    let mut blocks = with_always_active();
    blocks[5].frozen = true;
    let (config, _) = told(&[1], Some(19), false);
    let mut o = Optimizer::new(Reference::<Slices>::default(), &blocks, config).unwrap();
    let before = o.save().unwrap();
    assert!(matches!(o.thaw(5), Err(Error::Budget { always_active: 20, budget: 19 })));
    assert!(o.save().unwrap() == before);
    // One of the engine's own holds what is trainable.
    let policy = Policy::Lisa { period: 2, units: 1 };
    let mut o = Optimizer::new(Reference::<Slices>::default(), &blocks, Config { policy, ..Config::lisa() }).unwrap();
    assert_eq!(o.budget(), 90);
    o.thaw(5).unwrap();
    assert_eq!(o.budget(), 110);
}
