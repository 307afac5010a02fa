//! Two policies of a user's own: the blocks with the smallest weights, and those with the smallest gradients.
#![allow(missing_docs)]

use blockllm::policy::{Candidates, Choose};
use blockllm::random::Stream;
use blockllm::{BlockSpec, Config, Fill, Inactive, Optimizer, Policy, Reference, Slices, Step, Trigger, View, ViewMut};
use std::fmt;
use std::sync::{Arc, Mutex};

const BLOCKS: usize = 4;
const SIZE: usize = 8;
const PERIOD: u64 = 5;
const STEPS: u64 = 25;

type Weights = [[f32; SIZE]; BLOCKS];
/// Blocks and their active coordinates, by block.
type Set = Vec<(u32, usize)>;

fn sum_of_squares(w: &[f32]) -> f64 {
    w.iter().map(|&x| f64::from(x).powi(2)).sum()
}

/// What the training loop tells the rule about the weights: by block, the sum of squares.
type Magnitudes = Arc<Mutex<Vec<f64>>>;

/// Units whose weights have the smallest root mean square, those of equal ones by number.
struct SmallMagnitude {
    magnitudes: Magnitudes,
}

impl fmt::Debug for SmallMagnitude {
    /// Without the magnitudes: a rule is known by what this shows, and a record asks for the same rule.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SmallMagnitude")
    }
}

impl Choose for SmallMagnitude {
    fn trigger(&self) -> Trigger {
        Trigger::Period(PERIOD)
    }

    fn choose(&self, all: &Candidates<'_>, _memory: &mut Vec<u64>, _draws: &mut Stream) -> Vec<u32> {
        let magnitudes = self.magnitudes.lock().unwrap();
        let rms = |unit| {
            let sum: f64 = all.blocks().members(unit).map(|block| magnitudes[block as usize]).sum();
            (sum / all.len(unit) as f64).sqrt()
        };
        let mut units: Vec<u32> = all.units().collect();
        units.sort_by(|&a, &b| rms(a).total_cmp(&rms(b)).then(a.cmp(&b)));
        units
    }
}

/// Units with the smallest gradient score: BlockLLM's control.
#[derive(Debug)]
struct SmallGradient;

impl Choose for SmallGradient {
    fn trigger(&self) -> Trigger {
        Trigger::Period(PERIOD)
    }

    fn scores(&self) -> bool {
        true
    }

    fn choose(&self, all: &Candidates<'_>, _memory: &mut Vec<u64>, _draws: &mut Stream) -> Vec<u32> {
        let mut units: Vec<u32> = all.units().collect();
        units.sort_by(|&a, &b| all.score(a).total_cmp(&all.score(b)).then(a.cmp(&b)));
        units
    }
}

/// Every gradient of this block in this step (from 1). Blocks 0 and 3 always have the same.
fn gradient(block: usize, step: u64) -> f32 {
    -1.0 - ((block as u64 + step / PERIOD) % 3) as f32
}

/// A budget of 12 coordinates: one block whole, and half of a second.
fn config(policy: Policy) -> Config {
    Config {
        policy,
        sparsity: 0.625,
        fill: Fill::LastMasked,
        inactive: Inactive::Frozen,
        probes_per_step: Some(BLOCKS), // all idle ones on each step, so that every score is of the deciding step
        ..Config::default()
    }
}

/// The set that the budget gives when these are the blocks' values, the smallest first.
fn expected(values: [f64; BLOCKS]) -> Set {
    let mut order = [0, 1, 2, 3];
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b])); // stable: equal ones by number
    let mut set = vec![(order[0] as u32, SIZE), (order[1] as u32, SIZE / 2)];
    set.sort_unstable();
    set
}

struct Run {
    /// The set of each step, from the first.
    sets: Vec<Set>,
    /// The weights before each step, and after the last.
    weights: Vec<Weights>,
}

/// Trains. After each step of `saved_after` the optimizer is saved, dropped and restored in a new one.
fn train(policy: impl Fn(Magnitudes) -> Policy, saved_after: &[u64]) -> Run {
    let blocks: Vec<_> = ["a", "b", "c", "d"].map(|name| BlockSpec::new(name, [2, SIZE / 2])).into();
    let mut weights: Weights = [[0.1; SIZE], [-0.1; SIZE], [0.3; SIZE], [0.45; SIZE]];
    let measure = |weights: &Weights| weights.iter().map(|w| sum_of_squares(w)).collect::<Vec<_>>();
    // The first set is chosen when the optimizer is made: the rule must know the weights by then.
    let mut magnitudes: Magnitudes = Arc::new(Mutex::new(measure(&weights)));
    let new = |magnitudes: &Magnitudes| {
        Optimizer::new(Reference::<Slices>::default(), &blocks, config(policy(magnitudes.clone()))).unwrap()
    };
    let mut optimizer = new(&magnitudes);
    let mut run = Run { sets: Vec::new(), weights: vec![weights] };
    for step in 1..=STEPS {
        run.sets.push(optimizer.active().counts().collect());
        // Told before the step and left alone until it has ended: whichever call asks the rule, it goes by these weights.
        *magnitudes.lock().unwrap() = measure(&weights);
        let gradients: Weights = std::array::from_fn(|block| [gradient(block, step); SIZE]);
        let mut params: Vec<_> = (0..).zip(&mut weights).map(|(block, w)| (block, ViewMut::F32(w))).collect();
        let _ = optimizer.step(Step::new(0.1), |block| Some(View::F32(&gradients[block as usize])), &mut params).unwrap();
        optimizer.wait().unwrap();
        assert_eq!(optimizer.decisions(), step / PERIOD);
        run.weights.push(weights);
        if saved_after.contains(&step) {
            let record = optimizer.save().unwrap();
            magnitudes = Arc::new(Mutex::new(measure(&weights)));
            optimizer = new(&magnitudes);
            optimizer.restore(&record).unwrap();
        }
    }
    run
}

/// After a decision (where its switch is pending), and between two.
const SAVED_AFTER: [u64; 3] = [5, 12, 20];

#[test]
fn the_smallest_weights_become_active() {
    let policy = |magnitudes| Policy::own(SmallMagnitude { magnitudes });
    let run = train(policy, &[]);
    assert_eq!(run.sets[0], [(0, SIZE), (1, SIZE / 2)]); // of equal ones the lower number
    for (i, set) in run.sets.iter().enumerate() {
        // Chosen at the end of the last deciding step, by the weights before its update; the first set by the first weights.
        let chosen = (i as u64 / PERIOD * PERIOD).saturating_sub(1) as usize;
        assert_eq!(*set, expected(run.weights[chosen].map(|w| (sum_of_squares(&w) / SIZE as f64).sqrt())), "step {}", i + 1);
    }
    assert!(run.sets.iter().any(|set| *set != run.sets[0]));

    let resumed = train(policy, &SAVED_AFTER);
    assert_eq!(resumed.sets, run.sets);
    assert_eq!(resumed.weights, run.weights);
}

#[test]
fn the_smallest_gradients_become_active() {
    let policy = |_| Policy::own(SmallGradient);
    let run = train(policy, &[]);
    for (i, set) in run.sets.iter().enumerate().skip(PERIOD as usize) {
        let decided = i as u64 / PERIOD * PERIOD; // the first set is the engine's own draw
        assert_eq!(*set, expected(std::array::from_fn(|block| f64::from(gradient(block, decided).abs()))), "step {}", i + 1);
    }
    assert!(run.sets[5..].iter().any(|set| *set != run.sets[5]));

    let resumed = train(policy, &SAVED_AFTER);
    assert_eq!(resumed.sets, run.sets);
    assert_eq!(resumed.weights, run.weights);
}
