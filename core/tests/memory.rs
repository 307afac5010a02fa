//! What [`MemoryReport`](blockllm::MemoryReport) says, held against the heap itself and not against its own formula: what is
//! live between steps, and how high it rises within each, over 1,000 random switches of random configurations, with blocks
//! that come and go, freezing, saving, restoring and moments taken over in between (A5.5). Alone in its process, without a
//! test runner: the count is global.
#![allow(missing_docs)]

mod common;

use blockllm::policy::Order;
use blockllm::{
    Across, BlockId, BlockSpec, Config, Fill, First, Inactive, MaskKind, Optimizer, Policy, Record, Reference, Slices, Stage,
    Step, Trigger, View, ViewMut,
};
use common::{mix, noise};
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Bytes of the host: some, and more for each number that a block has or had (its name, specification, unit, visits, places
/// in sets and plans, and what a decision reads of it). Less than a hundredth of the state, and than the mask of any two
/// blocks.
const fn slack(blocks: usize) -> usize {
    4096 + 300 * blocks
}

/// A block's size follows from its number, so that blocks may come and go.
const ROWS: [usize; 5] = [300, 120, 240, 90, 180];
const COLUMNS: usize = 400;
const LARGEST: usize = ROWS[0] * COLUMNS;
/// Numbers that a run may use up.
const IDS: usize = 24;

fn len(block: usize) -> usize {
    ROWS[block % ROWS.len()] * COLUMNS
}

fn spec(block: usize) -> BlockSpec {
    let category = if block.is_multiple_of(2) { "attention" } else { "mlp" };
    BlockSpec::new(format!("w{block}"), [ROWS[block % ROWS.len()], COLUMNS]).layer(block as u32 / 2, category)
}

fn main() {
    let tensors = Tensors::new();
    let mut switches = 0;
    let mut runs = 0;
    while switches < 1000 {
        let before = HEAP.current_usage();
        switches += run(&tensors, runs);
        assert_eq!(HEAP.current_usage(), before, "run {runs} left something behind");
        runs += 1;
    }
    println!("{switches} switches in {runs} runs");
}

/// Parameters by block, and elements to take gradients from: all there is beside the optimizer, made once.
struct Tensors {
    noise: Vec<f32>,
    with_nan: Vec<f32>,
}

impl Tensors {
    fn new() -> Self {
        let noise: Vec<f32> = (0..2 * LARGEST).map(|i| noise(1, 0, i)).collect();
        let with_nan = noise.iter().enumerate().map(|(i, x)| if i % 1000 == 0 { f32::NAN } else { *x }).collect();
        Self { noise, with_nan }
    }

    fn gradient(&self, block: BlockId, t: u64, nan: bool) -> View<'_> {
        let at = mix(t << 8 ^ u64::from(block)) as usize % LARGEST;
        let from = if nan { &self.with_nan } else { &self.noise };
        View::F32(&from[at..at + len(block as usize)])
    }
}

/// Numbers that follow one another.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 += 1;
        mix(self.0) % n
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize].clone()
    }
}

fn config(d: &mut Dice) -> Config {
    let block_llm = Policy::BlockLlm(Trigger::Period(1));
    Config {
        policy: d.of(&[
            block_llm.clone(),
            block_llm,
            Policy::RandomBlocks { period: 1 },
            Policy::Cyclic { period: 1, order: Order::Random },
            Policy::Lisa { period: 1, units: 2 },
            Policy::HalfFineTuning { period: 1 },
            Policy::Full,
        ]),
        sparsity: d.of(&[0.5, 0.65]),
        patience: 3,
        seed: d.0,
        first: d.of(&[First::Random, First::FullGradient, First::Scan]),
        fill: d.of(&[Fill::LastMasked, Fill::Uniform, Fill::Whole]),
        mask: d.of(&[MaskKind::Coordinate, MaskKind::Tile(16)]),
        across: d.of(&[Across::Carry, Across::Reset]),
        inactive: d.of(&[Inactive::SignSgd(1.0), Inactive::Frozen]),
        immediate: d.below(3) == 0,
        ..Config::default()
    }
}

/// An optimizer, and what the heap held before there was one.
struct Run<'a> {
    tensors: &'a Tensors,
    optimizer: Optimizer<Reference<Slices>>,
    params: Vec<Vec<f32>>,
    base: usize,
    /// Of each block of the optimizer.
    live: Vec<BlockId>,
    t: u64,
    name: String,
}

/// Some forty steps under one configuration; its switches.
fn run(tensors: &Tensors, number: u64) -> u64 {
    let mut d = Dice(number << 32);
    let config = config(&mut d);
    let name = format!("run {number}: {config:?}");
    let params: Vec<Vec<f32>> = (0..IDS).map(|b| vec![0.5; len(b)]).collect();
    let specs: Vec<BlockSpec> = (0..5).map(spec).collect();
    let adopted = (config.across == Across::Carry && config.first == First::Random).then(|| full_run(tensors, &config, &specs));
    let base = HEAP.current_usage();
    let mut optimizer = Optimizer::new(Reference::default(), &specs, config).unwrap();
    if let Some(record) = &adopted {
        optimizer.adopt(record).unwrap();
    }
    let mut run = Run { tensors, optimizer, params, base, live: Vec::with_capacity(IDS), t: 0, name };
    run.live.extend(0..5);
    run.base += IDS * size_of::<BlockId>();
    run.check_live("made");
    let mut switches = 0;
    for _ in 0..40 {
        run.event(&mut d);
        switches += u64::from(run.step(&mut d));
    }
    switches
}

/// The record of some steps of full AdamW.
fn full_run(tensors: &Tensors, config: &Config, specs: &[BlockSpec]) -> Record {
    let config = Config { policy: Policy::Full, immediate: false, ..config.clone() };
    let mut o = Optimizer::new(Reference::<Slices>::default(), specs, config).unwrap();
    let mut params: Vec<Vec<f32>> = (0..5).map(|b| vec![0.5; len(b)]).collect();
    let mut views: Vec<_> = (0..).zip(&mut params).map(|(b, p)| (b, ViewMut::F32(p))).collect();
    let _ = o.step(Step::new(0.01), |b| Some(tensors.gradient(b, 0, false)), &mut views).unwrap();
    o.wait().unwrap();
    o.save().unwrap()
}

impl Run<'_> {
    fn slack(&self) -> usize {
        slack(self.optimizer.blocks().count())
    }

    /// Between steps the heap holds what the report says.
    fn check_live(&self, when: &str) {
        let (live, told) = (HEAP.current_usage() - self.base, self.optimizer.memory().resident());
        assert!(live >= told && live - told < self.slack(), "{when}: {live} bytes live, {told} reported; {}", self.name);
    }

    /// What may happen between two steps.
    fn event(&mut self, d: &mut Dice) {
        let o = &mut self.optimizer;
        let block = self.live[d.below(self.live.len() as u64) as usize];
        let is_frozen = o.blocks().spec(block).frozen;
        let trainable = self.live.iter().filter(|b| !o.blocks().spec(**b).frozen).count();
        let event = d.below(10);
        match event {
            0 if is_frozen => o.thaw(block).unwrap(),
            0 if trainable > 3 => o.freeze(block).unwrap(),
            1 if self.live.len() < 8 && o.blocks().count() < IDS => {
                let id = o.add_blocks(&[spec(o.blocks().count())]).unwrap().start;
                self.live.push(id);
            }
            2 if self.live.len() > 3 && (is_frozen || trainable > 3) => {
                // Refused where what is left would not fit the smaller budget.
                if o.remove_block(block).is_ok() {
                    self.live.retain(|b| *b != block);
                }
            }
            3 => {
                let record = o.save().unwrap();
                o.restore(&record).unwrap();
            }
            4 => {
                o.begin(Step::new(0.01)).unwrap();
                o.abort().unwrap();
            }
            _ => return,
        }
        self.check_live(["freeze or thaw", "add", "remove", "restore", "abort"][event as usize]);
    }

    /// One step; whether it switched. It rises to what was said before it, and falls back.
    fn step(&mut self, d: &mut Dice) -> bool {
        let (tensors, t, o) = (self.tensors, self.t, &mut self.optimizer);
        let nan = o.stage() == Stage::Training && d.below(12) == 0;
        let streamed = d.below(2) == 0;
        let grad = |b: BlockId| tensors.gradient(b, t, nan);
        let mut params: Vec<_> = (0..).zip(&mut self.params).map(|(b, p)| (b, ViewMut::F32(p))).collect();
        let (told, before) = (o.memory(), HEAP.current_usage());
        HEAP.reset_peak_usage();
        if streamed {
            o.begin(Step::new(0.01)).unwrap();
            for i in 0..o.wanted().unwrap().len() {
                let block = o.wanted().unwrap()[i].block;
                o.grad_with(block, &grad(block), &mut params[block as usize].1).unwrap();
            }
            let _ = o.finish(&mut params).unwrap();
        } else {
            let _ = o.step(Step::new(0.01), |b| Some(grad(b)), &mut params).unwrap();
        }
        o.wait().unwrap();
        let rise = HEAP.peak_usage() - before;
        drop(params);
        let switched = o.report().unwrap().switched;
        self.t += 1;
        let peak = told.switch_peak;
        let what = format!("step {t}, switched {switched}, NaN {nan}, streamed {streamed}");
        // One that is skipped does not come to the resizing of the arena that may follow.
        let slack = self.slack();
        let reached = rise + slack > peak || !switched;
        assert!(reached && rise < peak + slack, "{rise} bytes more, {peak} reported; {what}; {}", self.name);
        self.check_live(&what);
        switched
    }
}
