//! A run that is cut anywhere, restored elsewhere and with its blocks in another order goes on to the bit: under every
//! policy, between steps and inside them, with masks, probes, skipped steps and decisions on their way.
#![cfg(feature = "safetensors")]
#![allow(missing_docs)]

mod common;

use blockllm::policy::{Candidates, Choose};
use blockllm::random::Stream;
use blockllm::record::file::{from_bytes, load, save, to_bytes};
use blockllm::{
    Across, BlockSpec, Config, Decay, Error, Fill, First, Inactive, MaskKind, Missing, Optimizer, Order, Policy, ProbeOrder,
    Record, Reference, ScoreKind, Slices, Step, Trigger, View, ViewMut, VisitBias,
};
use common::{bits, mix, noise};
use std::path::Path;
use std::process::Command;

const STEPS: u64 = 24;
const CUTS: u64 = 200;
const LENGTHS: [usize; 9] = [40, 7, 90, 33, 64, 20, 12, 48, 0];

fn specs() -> Vec<BlockSpec> {
    let spec = |(i, n): (usize, &usize)| {
        let spec = BlockSpec::new(format!("w{i}"), [1, *n]).layer(i as u32 % 3, if i % 2 == 0 { "attention" } else { "mlp" });
        match i {
            1 | 4 => spec.group("pair").scales(0.5, 2.0),
            5 => spec.always_active(),
            6 => spec.frozen(),
            7 => spec.tied("a second name"),
            _ => spec,
        }
    };
    LENGTHS.iter().enumerate().map(spec).collect()
}

/// Not the units that it chose last, by what it remembers of them, but some of the others.
#[derive(Debug)]
struct Others;

impl Choose for Others {
    fn trigger(&self) -> Trigger {
        Trigger::Period(2)
    }

    fn choose(&self, all: &Candidates<'_>, memory: &mut Vec<u64>, draws: &mut Stream) -> Vec<u32> {
        let mut units: Vec<u32> = all.units().filter(|&u| !memory.contains(&all.key(u))).collect();
        draws.shuffle(&mut units);
        units.truncate(3);
        *memory = units.iter().map(|&u| all.key(u)).collect();
        units
    }
}

/// The best by score, of which one is left out by chance.
#[derive(Debug)]
struct AllButOne;

impl Choose for AllButOne {
    fn trigger(&self) -> Trigger {
        Trigger::Patience
    }

    fn scores(&self) -> bool {
        true
    }

    fn choose(&self, all: &Candidates<'_>, _: &mut Vec<u64>, draws: &mut Stream) -> Vec<u32> {
        let mut units: Vec<u32> = all.units().collect();
        units.sort_by(|a, b| all.score(*b).total_cmp(&all.score(*a)).then(a.cmp(b)));
        units.remove(draws.below(units.len() as u64) as usize);
        units
    }
}

fn configs() -> Vec<Config> {
    let policy = Policy::BlockLlm(Trigger::Period(4));
    let base = Config {
        sparsity: 0.6,
        patience: 3,
        seed: 5,
        guard_limit: 3,
        clip: Some(0.5),
        weight_decay: 0.02,
        policy,
        ..Config::default()
    };
    let frozen = Config { inactive: Inactive::Frozen, probes_per_step: Some(2), ..base.clone() };
    let with = |policy: Policy| Config { policy, ..frozen.clone() };
    let period = 3;
    vec![
        base.clone(),
        frozen.clone(),
        Config { across: Across::Reset, mask: MaskKind::Tile(8), fill: Fill::Uniform, ..base.clone() },
        Config {
            probe_order: ProbeOrder::Random,
            visit_bias: VisitBias::Exponential,
            ..with(Policy::BlockLlm(Trigger::Patience))
        },
        Config { first: First::FullGradient, score: ScoreKind::ProcessedNorm, ..frozen.clone() },
        Config { first: First::Scan, score: ScoreKind::GradientNorm, fill: Fill::Whole, ..frozen.clone() },
        Config { missing: Missing::Zero, decay: Decay::L2, ..frozen.clone() },
        Config { policy: Policy::Full, sparsity: 0.0, ..frozen.clone() },
        with(Policy::Cyclic { period, order: Order::Random }),
        Config { inactive: Inactive::SignSgd(0.5), ..with(Policy::Cyclic { period, order: Order::Descending }) },
        with(Policy::Lisa { period, units: 2 }),
        with(Policy::HalfFineTuning { period }),
        Config { inactive: Inactive::SignSgd(1.0), ..with(Policy::RandomBlocks { period }) },
        with(Policy::own(Others)),
        with(Policy::own(AllButOne)),
        Config { immediate: true, clip: None, ..base.clone() },
        Config { immediate: true, clip: None, ..with(Policy::Lisa { period, units: 3 }) },
    ]
}

/// A run, its parameters, and where it stands. Everything that happens is a function of the step, the micro-batch and the
/// block's name.
struct Run {
    o: Optimizer<Reference>,
    /// By name; the optimizer's numbers are places in `order`.
    p: Vec<Vec<f32>>,
    order: Vec<usize>,
    t: u64,
    micro: u32,
}

/// What a caller keeps beside a record.
#[derive(Clone)]
struct Kept {
    record: Vec<u8>,
    p: Vec<Vec<f32>>,
    t: u64,
    micro: u32,
}

impl Run {
    fn new(config: &Config, order: Vec<usize>) -> Self {
        let all = specs();
        let mut specs: Vec<BlockSpec> = order.iter().map(|&i| all[i].clone()).collect();
        // A tied block may have been registered by its other name.
        if order[0] % 2 == 1 {
            specs
                .iter_mut()
                .filter(|s| s.name == "w7")
                .for_each(|s| (s.name, s.tied) = ("a second name".into(), vec!["w7".into()]));
        }
        let o = Optimizer::new(Reference::<Slices>::default(), &specs, config.clone()).unwrap();
        let p = LENGTHS.iter().enumerate().map(|(b, &n)| (0..n).map(|i| noise(0, b, i)).collect()).collect();
        Self { o, p, order, t: 0, micro: 0 }
    }

    fn id(&self, block: usize) -> u32 {
        self.order.iter().position(|b| *b == block).unwrap() as u32
    }

    fn windows(&self) -> u32 {
        if self.o.config().immediate { 1 } else { 1 + (mix(self.t) % 3) as u32 }
    }

    fn gradient(&self, block: usize) -> Vec<f32> {
        let at = self.t * 4 + u64::from(self.micro) + 1;
        // Some steps trip the guard, two of them in a row; some bring zeros, so that scores tie.
        if matches!(self.t % 8, 5 | 6) && block == 5 {
            return vec![f32::INFINITY; LENGTHS[block]];
        }
        let zero = self.t % 6 == 3 && block.is_multiple_of(3);
        (0..LENGTHS[block]).map(|i| if zero { 0.0 } else { noise(at, block, i) * (1.0 + block as f32) }).collect()
    }

    fn is_absent(&self, block: usize) -> bool {
        let zero = self.o.config().missing == Missing::Zero && !self.o.is_switch_pending();
        zero && mix(self.t << 20 ^ u64::from(self.micro) << 10 ^ block as u64).is_multiple_of(6)
    }

    fn key(&self, block: u32) -> u64 {
        mix(self.t << 30 ^ u64::from(self.micro) << 20 ^ self.order[block as usize] as u64)
    }

    /// The next thing that a training loop does.
    fn tick(&mut self) {
        if !self.o.is_step_open() {
            match self.t {
                7 => self.o.freeze(self.id(0)).unwrap(),
                9 => self.o.thaw(self.id(6)).unwrap(),
                12 => self.o.thaw(self.id(0)).unwrap(),
                _ => {}
            }
            if self.t % 10 == 8 {
                let _ = self.o.force_decision(); // some policies have none
            }
            let micro_batches = self.windows();
            let loss = Some(2.0 - (self.t % 7) as f64 * 0.1);
            let step = Step { lr: 0.01, loss, inv_loss_scale: 1.0 / f64::from(micro_batches), micro_batches };
            self.o.begin(step).unwrap();
            self.micro = 0;
            return;
        }
        let next =
            self.o.missing().map(|w| w.block).filter(|b| !self.is_absent(self.order[*b as usize])).min_by_key(|b| self.key(*b));
        if let Some(id) = next {
            let block = self.order[id as usize];
            let g = self.gradient(block);
            self.o.grad_with(id, &View::F32(&g), &mut ViewMut::F32(&mut self.p[block])).unwrap();
        } else if self.micro + 1 < self.windows() {
            self.o.next_micro_batch(None).unwrap();
            self.micro += 1;
        } else {
            let mut p: Vec<Option<&mut Vec<f32>>> = self.p.iter_mut().map(Some).collect();
            let mut params: Vec<_> = (0..).zip(self.order.iter().map(|&b| ViewMut::F32(p[b].take().unwrap()))).collect();
            let _ = self.o.finish(&mut params).unwrap();
            match self.o.wait() {
                Ok(()) | Err(Error::Void { .. }) => {}
                Err(e) => panic!("{e}"),
            }
            self.t += 1;
        }
    }

    fn run_out(&mut self) -> usize {
        let mut ticks = 0;
        while self.t < STEPS {
            self.tick();
            ticks += 1;
        }
        ticks
    }

    fn keep(&mut self) -> Kept {
        Kept { record: to_bytes(&self.o.save().unwrap()).unwrap(), p: self.p.clone(), t: self.t, micro: self.micro }
    }

    fn go_on(config: &Config, order: Vec<usize>, kept: &Kept) -> Self {
        let mut run = Self::new(config, order);
        run.o.restore(&from_bytes(&kept.record).unwrap()).unwrap();
        (run.p, run.t, run.micro) = (kept.p.clone(), kept.t, kept.micro);
        run
    }

    /// All that can be told apart: parameters and state to the bit.
    fn end(&mut self) -> (Vec<Vec<u32>>, Record) {
        (bits(&self.p), self.o.save().unwrap())
    }
}

fn registered() -> Vec<usize> {
    (0..LENGTHS.len()).collect()
}

fn order(seed: u64) -> Vec<usize> {
    let mut order = registered();
    Stream::new(seed).shuffle(&mut order);
    order
}

#[test]
fn a_run_cut_at_200_places_goes_on_wherever_it_is_restored() {
    let configs = configs();
    let mut seen = [0; 4];
    for (c, config) in configs.iter().enumerate() {
        let mut whole = Run::new(config, registered());
        let ticks = whole.run_out() as u64;
        let end = whole.end();
        assert!(whole.o.report().unwrap().skipped_total >= 4, "{config:?}");
        for cut in (c as u64..CUTS).step_by(configs.len()) {
            let at = mix(cut) % ticks;
            let mut run = Run::new(config, registered());
            (0..at).for_each(|_| run.tick());
            if config.immediate && run.o.is_step_open() {
                assert!(matches!(run.o.save(), Err(Error::Order { call: "save", .. })));
                while run.o.is_step_open() {
                    run.tick();
                }
            }
            let open = run.o.is_step_open();
            seen[0] += usize::from(open);
            seen[1] += usize::from(open && run.micro > 0);
            seen[2] += usize::from(open && run.o.is_switch_pending());
            seen[3] += usize::from(!open && run.o.is_switch_pending());
            let kept = run.keep();
            let mut again = Run::go_on(config, order(cut), &kept);
            assert_eq!(again.o.is_step_open(), open);
            assert!(again.keep().record == kept.record, "saved anew at {at}, {config:?}");
            again.run_out();
            assert!(again.end() == end, "cut {cut} at {at} of {ticks}, step {}, {config:?}", kept.t);
            // The run that was saved goes on as if it had not been.
            run.run_out();
            assert!(run.end() == end, "saving changed the run: {at}, {config:?}");
        }
    }
    assert!(seen.iter().all(|n| *n >= 10), "cuts in steps, in later micro-batches, in steps that switch, before them: {seen:?}");
}

#[test]
fn a_restored_step_can_be_aborted_a6_5() {
    let config = &configs()[3];
    let mut run = Run::new(config, registered());
    while run.t < 9 {
        run.tick();
    }
    let before = run.o.save().unwrap();
    (0..4).for_each(|_| run.tick());
    let kept = run.keep();
    assert!(run.o.is_step_open());
    let mut again = Run::go_on(config, order(3), &kept);
    again.o.abort().unwrap();
    assert_eq!(again.o.save().unwrap().leaves().len(), before.leaves().len());
    assert!(
        again.o.save().unwrap() == {
            run.o.abort().unwrap();
            run.o.save().unwrap()
        }
    );
}

/// Also the program that the test below starts: it goes on from the files that it is told of, and leaves what it came to.
#[test]
fn a_run_goes_on_in_a_new_process() {
    const FOLDER: &str = "BLOCKLLM_TEST_RESUME";
    let file = |folder: &Path, name: &str| folder.join(name);
    let floats = |p: &[Vec<f32>]| p.iter().flatten().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let configs = configs();
    if let Some(folder) = std::env::var_os(FOLDER) {
        let folder = Path::new(&folder);
        for (c, config) in configs.iter().enumerate() {
            let bytes = std::fs::read(file(folder, &format!("{c}.params"))).unwrap();
            let mut rest = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
            let p = LENGTHS.iter().map(|&n| rest.by_ref().take(n).collect()).collect();
            let record = to_bytes(&load(&file(folder, &format!("{c}.record"))).unwrap()).unwrap();
            let text = std::fs::read_to_string(file(folder, &format!("{c}.place"))).unwrap();
            let (t, micro) = text.split_once(' ').unwrap();
            let kept = Kept { record, p, t: t.parse().unwrap(), micro: micro.parse().unwrap() };
            let mut run = Run::go_on(config, order(c as u64), &kept);
            run.run_out();
            std::fs::write(file(folder, &format!("{c}.end")), floats(&run.p)).unwrap();
            save(&file(folder, &format!("{c}.end_record")), &run.o.save().unwrap()).unwrap();
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut ends = Vec::new();
    for (c, config) in configs.iter().enumerate() {
        let mut run = Run::new(config, registered());
        (0..90 + c * 11).for_each(|_| run.tick());
        while config.immediate && run.o.is_step_open() {
            run.tick();
        }
        save(&file(folder.path(), &format!("{c}.record")), &run.o.save().unwrap()).unwrap();
        std::fs::write(file(folder.path(), &format!("{c}.params")), floats(&run.p)).unwrap();
        std::fs::write(file(folder.path(), &format!("{c}.place")), format!("{} {}", run.t, run.micro)).unwrap();
        run.run_out();
        ends.push((floats(&run.p), run.o.save().unwrap()));
    }
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", "a_run_goes_on_in_a_new_process"]).env(FOLDER, folder.path());
    let output = program.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    for (c, (p, record)) in ends.iter().enumerate() {
        let end = std::fs::read(file(folder.path(), &format!("{c}.end"))).unwrap();
        assert!(end == *p && load(&file(folder.path(), &format!("{c}.end_record"))).unwrap() == *record, "{:?}", configs[c]);
    }
}
