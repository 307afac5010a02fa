//! The engine on the reference, in whole steps, and on another backend, in either drive mode, compared after every step:
//! parameters, and everything that a record holds.
//!
//! A backend that agrees to the bit runs on by itself. One that agrees within bounds starts each step from the
//! reference's state, so that the bounds are those of one step.

use crate::bounds::{self, Coordinate};
use crate::drive::{self, Drive};
use crate::harness::{Agreement, Harness};
use crate::host::Host;
use crate::oracle::Oracle;
use crate::pair::compare;
use blockllm::adam::{Decay, Hyper, Powers};
use blockllm::mask::Mask;
use blockllm::record::{Leaf, LeafType};
use blockllm::{BlockSpec, Config, DType, Optimizer, Record, Reference, Step, StepReport, View};

/// Words of a block's leaf in a record that follow from scores: the sum of squares.
const SCORE: usize = 13;
const STEPS_WORD: usize = 6;
const POWERS: usize = 7;

/// See the [module](self).
pub struct Lockstep<'h, H: Harness> {
    /// The other side's device.
    pub harness: &'h mut H,
    /// The reference's side.
    pub reference: Optimizer<Reference>,
    /// The other side.
    pub device: Optimizer<H::Backend>,
    /// Parameters on the reference's side.
    pub params: Vec<Host>,
    tensors: Vec<H::Tensor>,
    drive: Drive,
    name: String,
}

/// Little-endian words of a leaf.
pub fn words(leaf: &Leaf) -> Vec<u64> {
    let bytes = &leaf.data;
    match leaf.dtype {
        LeafType::U8 => bytes.iter().map(|b| u64::from(*b)).collect(),
        LeafType::U32 | LeafType::F32 => bytes.as_chunks().0.iter().map(|b| u64::from(u32::from_le_bytes(*b))).collect(),
        _ => bytes.as_chunks().0.iter().map(|b| u64::from_le_bytes(*b)).collect(),
    }
}

/// Floats of a leaf, widened exactly.
pub fn numbers(leaf: &Leaf) -> Vec<f64> {
    let word = |w: &u64| if leaf.dtype == LeafType::F32 { f64::from(f32::from_bits(*w as u32)) } else { f64::from_bits(*w) };
    words(leaf).iter().map(word).collect()
}

impl<'h, H: Harness> Lockstep<'h, H> {
    /// Both sides at their start.
    ///
    /// # Panics
    /// Where the configuration is not legal, or the backend fails.
    pub fn new(
        harness: &'h mut H, specs: &[BlockSpec], config: &Config, params: Vec<Host>, drive: Drive, name: impl Into<String>,
    ) -> Self {
        let name = format!("{} {} {drive:?}", H::NAME, name.into());
        let reference = Optimizer::new(Reference::default(), specs, config.clone()).expect("a legal configuration");
        let device = Optimizer::new(harness.backend(), specs, config.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let tensors = params.iter().map(|p| harness.upload(p.view())).collect();
        Self { harness, reference, device, params, tensors, drive, name }
    }

    /// Freezes or thaws a block on both sides.
    ///
    /// # Panics
    /// Where either refuses.
    pub fn freeze(&mut self, block: u32, freeze: bool) {
        if freeze {
            self.reference.freeze(block).expect("a trainable block");
            self.device.freeze(block).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        } else {
            self.reference.thaw(block).expect("a frozen block");
            self.device.thaw(block).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        }
    }

    /// Adds blocks on both sides, with their parameters.
    ///
    /// # Panics
    /// Where either refuses.
    pub fn add(&mut self, specs: &[BlockSpec], params: Vec<Host>) {
        let ours = self.reference.add_blocks(specs).expect("blocks that fit");
        let theirs = self.device.add_blocks(specs).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        assert_eq!(ours, theirs, "{}", self.name);
        self.tensors.extend(params.iter().map(|p| self.harness.upload(p.view())));
        self.params.extend(params);
    }

    /// Removes a block on both sides.
    ///
    /// # Panics
    /// Where either refuses.
    pub fn remove(&mut self, block: u32) {
        self.reference.remove_block(block).expect("a block that is there");
        self.device.remove_block(block).unwrap_or_else(|e| panic!("{}: {e}", self.name));
    }

    /// Takes moments over on both sides.
    ///
    /// # Panics
    /// Where either refuses.
    pub fn adopt(&mut self, record: &Record) {
        let ours = self.reference.adopt(record).expect("moments that fit");
        let theirs = self.device.adopt(record).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        assert_eq!(ours, theirs, "{}", self.name);
    }

    /// Asks both for a decision.
    ///
    /// # Panics
    /// Where either refuses.
    pub fn force_decision(&mut self) {
        self.reference.force_decision().expect("a policy that decides");
        self.device.force_decision().unwrap_or_else(|e| panic!("{}: {e}", self.name));
    }

    /// A fresh backend takes the reference's state, as a record brings it.
    ///
    /// # Panics
    /// Where it does not.
    pub fn restore(&mut self, specs: &[BlockSpec], config: &Config) {
        let record = self.reference.save().expect("the reference");
        self.device =
            Optimizer::new(self.harness.backend(), specs, config.clone()).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        self.device.restore(&record).unwrap_or_else(|e| panic!("{}: {e}", self.name));
    }

    /// One step on both sides, compared. Returns the reference's report.
    ///
    /// # Panics
    /// Where they differ.
    pub fn step(&mut self, step: Step, grads: &[Vec<Host>]) -> StepReport {
        if H::AGREEMENT == Agreement::Bounds {
            let record = self.reference.save().expect("the reference");
            self.device.restore(&record).unwrap_or_else(|e| panic!("{}: {e}", self.name));
            self.tensors = self.params.iter().map(|p| self.harness.upload(p.view())).collect();
        }
        let before = self.params.clone();
        let at = format!("{}, step {}", self.name, self.reference.steps() + 1);
        assert_eq!(self.device.wanted().ok(), self.reference.wanted().ok(), "{at}: wanted");
        let ours = drive::step(&mut Oracle, &mut self.reference, &mut self.params, step, grads, Drive::Whole);
        let theirs = drive::step(self.harness, &mut self.device, &mut self.tensors, step, grads, self.drive);
        let void = |e: String| assert!(e.starts_with("no decision"), "{at}: {e}");
        let _ = ours.as_ref().map_err(|e| void(e.to_string()));
        let _ = theirs.as_ref().map_err(|e| void(e.to_string()));
        assert_eq!(ours.is_ok(), theirs.is_ok(), "{at}: a forced decision");
        let report = self.reference.report().expect("the reference");
        self.check_report(&report, &at);
        let allowed = Bounds::new(self.reference.config(), &report, step, grads, &before);
        self.check_state(&allowed, &at);
        report
    }

    fn check_report(&mut self, want: &StepReport, at: &str) {
        let mut got = self.device.report().unwrap_or_else(|e| panic!("{at}: {e}"));
        let close = |a: f64, b: f64, bound: f64| {
            a.to_bits() == b.to_bits() || (a - b).abs() <= bound * b.abs() || (a.is_nan() && b.is_nan())
        };
        if H::AGREEMENT == Agreement::Bounds {
            let open = want.skipped && !want.norm.is_finite();
            assert!(open || close(got.norm, want.norm, bounds::NORM), "{at}: norm {} is not {}", got.norm, want.norm);
            assert!(open || close(got.clip, want.clip, bounds::NORM), "{at}: clip {} is not {}", got.clip, want.clip);
            for (unit, (g, w)) in got.scores.iter().zip(&want.scores).enumerate() {
                let same = match (g, w) {
                    (Some(g), Some(w)) => g.age == w.age && close(g.value, w.value, bounds::NORM),
                    (g, w) => g.is_none() && w.is_none(),
                };
                assert!(same, "{at}: the score of unit {unit}, {g:?}, is not {w:?}");
            }
            (got.norm, got.clip, got.scores) = (want.norm, want.clip, want.scores.clone());
        }
        if want.norm.is_nan() && got.norm.is_nan() {
            got.norm = want.norm;
        }
        assert_eq!(format!("{got:?}"), format!("{want:?}"), "{at}: report");
    }

    fn check_state(&mut self, allowed: &Bounds<'_>, at: &str) {
        let want = self.reference.save().expect("the reference");
        let got = self.device.save().unwrap_or_else(|e| panic!("{at}: {e}"));
        let names = |r: &Record| r.leaves().iter().map(|l| l.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&got), names(&want), "{at}: leaves of the record");
        let state = State::new(&want, self.reference.blocks().specs.as_slice());
        for (g, w) in got.leaves().iter().zip(want.leaves()) {
            check_leaf::<H>(g, w, allowed, &state, at);
        }
        for (b, want) in self.params.iter().enumerate() {
            let got = self.harness.download(self.device.backend_mut(), &self.tensors[b]);
            let of = |i: usize| allowed.parameter(&state, b, i);
            compare(H::AGREEMENT, got.view(), want.view(), &of, &format!("{at}: parameter of block {b}"));
        }
    }
}

fn check_leaf<H: Harness>(got: &Leaf, want: &Leaf, allowed: &Bounds<'_>, state: &State, at: &str) {
    let what = format!("{at}: leaf {}", want.name);
    let exact = got == want;
    if exact {
        return;
    }
    assert_eq!((got.dtype, got.len()), (want.dtype, want.len()), "{what}");
    if want.name == "norm" {
        // Compared with the report; a skipped step's need not be a number.
        assert!(H::AGREEMENT == Agreement::Bounds || numbers(want).iter().any(|x| x.is_nan()), "{what}");
        return;
    }
    if let Some(moment) = want.name.strip_prefix("m/").map(|n| (1, n)).or(want.name.strip_prefix("v/").map(|n| (2, n))) {
        let block = state.block(moment.1);
        let coordinates = state.active(block);
        let of = |j: usize| coordinates.get(j).map_or(0.0, |&i| allowed.update(state, block, i)[moment.0]);
        let (g, w) = (numbers(got), numbers(want));
        compare(H::AGREEMENT, View::F64(&g), View::F64(&w), &of, &what);
        return;
    }
    assert!(want.name.starts_with("block/"), "{what} differs");
    for (i, (g, w)) in words(got).into_iter().zip(words(want)).enumerate() {
        let (a, b) = (f64::from_bits(g), f64::from_bits(w));
        let score = H::AGREEMENT == Agreement::Bounds && i == SCORE && (a - b).abs() <= 3.0 * bounds::SUM * b;
        assert!(g == w || score || (i == SCORE && a.is_nan() && b.is_nan()), "{what}: word {i} is {g:x}, not {w:x}");
    }
}

/// The reference's state after a step.
struct State {
    names: Vec<String>,
    dtypes: Vec<DType>,
    specs: Vec<BlockSpec>,
    /// By block: step count, and powers.
    powers: Vec<(u64, Powers)>,
    /// By block, its active coordinates and, of each, m and v.
    active: Vec<Vec<usize>>,
    moments: Vec<[Vec<f64>; 2]>,
    /// By block, coordinate to its place among the active ones.
    rank: Vec<Vec<Option<u32>>>,
}

impl State {
    fn new(r: &Record, specs: &[BlockSpec]) -> Self {
        let mut out = Self {
            names: specs.iter().map(|s| s.name.clone()).collect(),
            dtypes: specs.iter().map(|s| s.dtype).collect(),
            specs: specs.to_vec(),
            powers: vec![],
            active: vec![],
            moments: vec![],
            rank: vec![],
        };
        for spec in specs {
            let leaf = |prefix: &str| r.get(&format!("{prefix}/{}", spec.name));
            // A block that was removed has no leaf, and no coordinates here.
            let block = leaf("block").map_or_else(|| vec![0; POWERS + 4], words);
            let power = |i: usize| f64::from_bits(block[POWERS + i]);
            out.powers.push((block[STEPS_WORD], Powers { before: [power(0), power(1)], now: [power(2), power(3)] }));
            let bitmap: Option<Vec<u32>> = leaf("mask").map(|l| words(l).into_iter().map(|w| w as u32).collect());
            let active: Vec<usize> = match (leaf("m"), &bitmap) {
                (None, _) => vec![],
                (Some(_), None) => (0..spec.len()).collect(),
                (Some(_), Some(w)) => Mask::new(w, spec.len()).coordinates().collect(),
            };
            let mut rank = vec![None; spec.len()];
            active.iter().enumerate().for_each(|(j, &i)| rank[i] = Some(j as u32));
            out.active.push(active);
            out.rank.push(rank);
            out.moments.push(["m", "v"].map(|prefix| leaf(prefix).map(numbers).unwrap_or_default()));
        }
        out
    }

    fn block(&self, name: &str) -> usize {
        self.names.iter().position(|n| n == name).expect("a block of this name")
    }

    fn active(&self, block: usize) -> &[usize] {
        &self.active[block]
    }
}

/// How far one step may end from the reference's.
struct Bounds<'a> {
    hyper: Hyper,
    /// No active coordinate moved. Where each block is updated at once, others may have.
    skipped: bool,
    clip: f64,
    grads: &'a [Vec<Host>],
    before: Vec<Vec<f64>>,
    widened: Vec<Vec<Vec<f64>>>,
}

impl<'a> Bounds<'a> {
    fn new(c: &Config, report: &StepReport, step: Step, grads: &'a [Vec<Host>], before: &[Host]) -> Self {
        let hyper = Hyper {
            lr: step.lr,
            betas: c.betas,
            eps: c.eps,
            weight_decay: c.weight_decay,
            decay: c.decay,
            inv_loss_scale: step.inv_loss_scale,
            clip: c.clip,
            sign_scale: c.sign_scale(),
        };
        let widened = grads.iter().map(|micro| micro.iter().map(Host::doubles).collect()).collect();
        let before = before.iter().map(Host::doubles).collect();
        Self { hyper, skipped: report.skipped && !c.immediate, clip: report.clip, grads, before, widened }
    }

    /// Of p, m and v, where the coordinate is active and the step was applied.
    fn update(&self, s: &State, block: usize, i: usize) -> [f64; 3] {
        let (h, spec, p) = (&self.hyper, &s.specs[block], self.before[block][i]);
        let Some(j) = s.rank[block][i].filter(|_| !self.skipped) else { return [0.0; 3] };
        let sum: f64 = self.widened.iter().map(|micro| micro[block][i]).sum();
        let magnitude: f64 = self.widened.iter().map(|micro| micro[block][i].abs()).sum();
        let wd = if h.decay == Decay::L2 { h.weight_decay * spec.scales.weight_decay } else { 0.0 };
        let scale = h.inv_loss_scale * self.clip;
        let g = (sum * scale).abs() + (wd * p).abs();
        // Sums of micro-batches round alike; what flushing costs them is in the bound's own terms.
        let g_error =
            if self.clip < 1.0 { bounds::NORM } else { 0.0 } + magnitude * scale * bounds::U * 2.0 / g.max(bounds::TINY);
        let [m, v] = [0, 1].map(|k| s.moments[block][k][j as usize]);
        bounds::update(Coordinate { p, g, g_error, m, v }, h, spec.scales, &s.powers[block].1, s.dtypes[block])
    }

    fn parameter(&self, s: &State, block: usize, i: usize) -> f64 {
        let (h, spec) = (&self.hyper, &s.specs[block]);
        let g = self.grads.last().map_or(0.0, |_| self.widened[self.widened.len() - 1][block][i]);
        let free = h.sign_scale.map_or(0.0, |_| bounds::state_free(self.before[block][i], g, h, spec.scales, s.dtypes[block]));
        free + self.update(s, block, i)[0]
    }
}
