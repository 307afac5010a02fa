//! BlockLlm: scores, keys, ranking and fill, from the gradients that the engine was given.

use super::rules::{Unit, filled, n_s, selectable, units, whole};
use super::{Count, Run, badam, lisa, llama};
use blockllm::random::Stream;
use blockllm::{BlockSpec, Config, Fill, Inactive, MaskKind, Policy, ProbeOrder, ScoreKind, Trigger, VisitBias};
use std::collections::{BTreeMap, BTreeSet};

/// Steps from one decision to the next.
const K: u64 = 2;
const STEPS: u64 = 60;

/// Sum of squares by the tree of A2.2, of one leaf: sixteen lanes, folded.
fn sum_of_squares(elements: impl Iterator<Item = f32>) -> f64 {
    let mut lanes = [0f64; 16];
    for (i, x) in elements.enumerate() {
        assert!(i < 1024);
        lanes[i % 16] += f64::from(x) * f64::from(x);
    }
    for half in [8, 4, 2, 1] {
        for j in 0..half {
            lanes[j] += lanes[j + half];
        }
    }
    lanes[0]
}

/// Which coordinates of a block are active, and their moments.
struct Moments {
    /// By coordinate; `None` where it is not active.
    mv: Vec<Option<(f32, f32)>>,
    t: i32,
}

impl Moments {
    /// The k largest |g|, the lower index first where they are equal (A4.4); zero moments (A5.4, `Reset`).
    fn fresh(g: &[f32], k: usize) -> Self {
        let mut order: Vec<usize> = (0..g.len()).collect();
        order.sort_by(|&a, &b| g[b].abs().total_cmp(&g[a].abs()).then(a.cmp(&b)));
        let mut mv = vec![None; g.len()];
        order[..k].iter().for_each(|&i| mv[i] = Some((0.0, 0.0)));
        Self { mv, t: 0 }
    }

    /// What 6.1 makes of one coordinate's.
    fn next((m, v): (f32, f32), g: f32) -> (f32, f32) {
        let (b1, b2) = (0.9f64, 0.999f64);
        (m + (1.0 - b1) as f32 * (g - m), b2 as f32 * v + ((1.0 - b2) as f32 * g) * g)
    }

    fn update(&mut self, g: &[f32]) {
        self.t += 1;
        for (mv, &g) in self.mv.iter_mut().zip(g) {
            *mv = mv.map(|mv| Self::next(mv, g));
        }
    }
}

/// The processed gradient (A2.1), element by element.
fn processed<'a>(g: &'a [f32], moments: Option<&'a Moments>) -> impl Iterator<Item = f32> + 'a {
    let power = |beta: f64| (0..=moments.map_or(0, |m| m.t)).fold(1.0, |p, _| p * beta);
    let (c1, c2) = ((1.0 - power(0.9)) as f32, (1.0 - power(0.999)).sqrt() as f32);
    g.iter().enumerate().map(move |(i, &g)| {
        let (above, below) = match moments.and_then(|m| m.mv[i]) {
            Some(mv) => {
                let (m, v) = Moments::next(mv, g);
                (m / c1, v.sqrt() / c2 + 1e-8)
            }
            None => (g, g.abs() + 1e-8),
        };
        if below == 0.0 { 0.0 } else { above / below }
    })
}

/// The engine's decisions, by the text.
struct Model {
    config: Config,
    units: Vec<Unit>,
    n_s: usize,
    tile: usize,
    stream: Stream,
    cursor: usize,
    scores: Vec<Option<f64>>,
    visits: Vec<u64>,
    decisions: u64,
    /// The set of the next step, and whether that step switches to it.
    set: Vec<Count>,
    switches: bool,
    moments: BTreeMap<u32, Moments>,
}

impl Model {
    fn new(table: &[BlockSpec], config: &Config) -> Self {
        let units = units(table);
        let (n_s, mut stream) = (n_s(&units, config.sparsity), Stream::new(config.seed));
        let tile = if let MaskKind::Tile(t) = config.mask { t } else { 1 };
        // A3.4: a shuffle of what is not always active, filled; the stream's first draws.
        let mut ranked = selectable(&units);
        stream.shuffle(&mut ranked);
        Self {
            set: filled(&units, &ranked, n_s, config.fill, tile),
            cursor: config.seed as usize % units.len(),
            scores: vec![None; units.len()],
            visits: vec![0; units.len()],
            decisions: 0,
            switches: true,
            moments: BTreeMap::new(),
            config: config.clone(),
            units,
            n_s,
            tile,
            stream,
        }
    }

    fn in_set(&self, block: u32) -> bool {
        self.set.iter().any(|s| s.0 == block)
    }

    fn is_active(&self, unit: usize) -> bool {
        self.units[unit].blocks.iter().all(|b| self.in_set(b.0))
    }

    /// A2.6: of the next step.
    fn probes(&mut self) -> Vec<usize> {
        if self.config.inactive != Inactive::Frozen {
            return Vec::new();
        }
        let p = self.units.len().div_ceil(self.config.patience);
        let mut probes = Vec::new();
        if self.config.probe_order == ProbeOrder::Random {
            probes = (0..self.units.len()).filter(|&u| !self.is_active(u)).collect();
            self.stream.shuffle(&mut probes);
            probes.truncate(p);
        } else {
            for _ in 0..self.units.len() {
                if probes.len() < p {
                    probes.extend((!self.is_active(self.cursor)).then_some(self.cursor));
                    self.cursor = (self.cursor + 1) % self.units.len();
                }
            }
        }
        probes.sort_unstable();
        probes
    }

    /// A2.1.
    fn score(&self, unit: usize, g: &[Vec<f32>]) -> f64 {
        let of_block = |&(b, _): &Count| {
            let g = &g[b as usize];
            match self.config.score {
                ScoreKind::ProcessedNorm => sum_of_squares(processed(g, self.moments.get(&b))),
                _ => sum_of_squares(g.iter().copied()),
            }
        };
        let norm = self.units[unit].blocks.iter().map(of_block).sum::<f64>().sqrt();
        match self.config.score {
            ScoreKind::GradientRms => norm / (self.units[unit].len() as f64).sqrt(),
            _ => norm,
        }
    }

    /// A2.7.
    fn key(&self, unit: usize) -> f64 {
        let (score, visits) = (self.scores[unit].unwrap(), self.visits[unit] as f64);
        match self.config.visit_bias {
            VisitBias::Ratio => score / ((visits + 1.0) / (self.decisions as f64 + 1.0)),
            VisitBias::Exponential => match self.visits.iter().sum::<u64>() {
                0 => score,
                sum => score / (visits / sum as f64).exp(),
            },
            _ => score,
        }
    }

    /// Step `t` with these gradients, of which `probes` were asked for.
    fn step(&mut self, t: u64, probes: &[usize], g: &[Vec<f32>]) {
        let deciding = t.is_multiple_of(K);
        let everything = self.config.inactive != Inactive::Frozen;
        for unit in 0..self.units.len() {
            if probes.contains(&unit) || (deciding && (everything || self.is_active(unit))) {
                self.scores[unit] = Some(self.score(unit, g));
            }
        }
        if std::mem::take(&mut self.switches) {
            self.moments = self.set.iter().map(|&(b, k)| (b, Moments::fresh(&g[b as usize], k))).collect();
        }
        self.moments.iter_mut().for_each(|(b, m)| m.update(&g[*b as usize]));
        if deciding && self.scores.iter().all(Option::is_some) {
            self.decide();
        }
    }

    /// A4.1 to A4.3, A3.7.
    fn decide(&mut self) {
        let mut ranked = selectable(&self.units);
        ranked.sort_by(|&a, &b| self.key(b).partial_cmp(&self.key(a)).unwrap().then(a.cmp(&b)));
        let set = filled(&self.units, &ranked, self.n_s, self.config.fill, self.tile);
        let all_whole = set.iter().all(|s| self.units.iter().any(|u| u.blocks.contains(s)));
        self.switches = !(set == self.set && all_whole);
        self.set = set;
        self.decisions += 1;
        for unit in 0..self.units.len() {
            self.visits[unit] += u64::from(self.units[unit].blocks.iter().any(|b| self.in_set(b.0)));
        }
    }
}

/// What came up in a run, so that a test can tell that it saw what it is about.
#[derive(Default, Debug)]
struct Seen {
    sets: BTreeSet<Vec<Count>>,
    cut_groups: u32,
    void: u32,
    kept: u32,
    partial: u32,
    /// Whole blocks that use up the budget to the last coordinate.
    exact: u32,
}

fn follow(table: &[BlockSpec], config: &Config) -> Seen {
    let (mut run, mut model, mut seen) = (Run::new(table, config), Model::new(table, config), Seen::default());
    assert_eq!(run.optimizer.budget(), model.n_s);
    for t in 1..=STEPS {
        let at = || format!("step {t}, {config:?}");
        let probes = model.probes();
        assert_eq!(run.set(), model.set, "{}", at());
        assert_eq!(run.optimizer.probes().iter().map(|&u| u as usize).collect::<Vec<_>>(), probes, "{}", at());
        let o = &run.optimizer;
        assert!(o.active().coordinates() <= model.n_s, "{}", at());
        assert!(whole(&model.units, &[]).iter().all(|b| model.set.contains(b)), "always active");
        let before = model.decisions;
        run.step(t);
        model.step(t, &probes, &run.gradients);
        let o = &run.optimizer;
        assert_eq!((o.decisions(), o.visits()), (model.decisions, &model.visits[..]), "{}", at());
        assert_eq!(o.is_switch_pending(), model.switches, "{}", at());

        let cut = |u: &Unit| u.blocks.iter().any(|b| model.in_set(b.0)) && !u.blocks.iter().all(|b| model.in_set(b.0));
        seen.cut_groups += u32::from(model.units.iter().any(cut));
        seen.void += u32::from(t.is_multiple_of(K) && model.decisions == before);
        seen.kept += u32::from(model.decisions > before && !model.switches);
        let partial = model.set.iter().any(|&(b, k)| k < table[b as usize].len());
        seen.partial += u32::from(partial);
        seen.exact += u32::from(!partial && model.set.iter().map(|s| s.1).sum::<usize>() == model.n_s);
        seen.sets.insert(model.set.clone());
    }
    seen
}

fn config(score: ScoreKind, visit_bias: VisitBias, fill: Fill, inactive: Inactive) -> Config {
    let policy = Policy::BlockLlm(Trigger::Period(K));
    Config { policy, score, visit_bias, fill, inactive, seed: 40, sparsity: 0.7, patience: 5, ..super::common::near_the_paper() }
}

const FILLS: [Fill; 3] = [Fill::LastMasked, Fill::Uniform, Fill::Whole];

/// Blocks by themselves, the head always active.
fn single() -> Vec<BlockSpec> {
    let mut table = llama();
    table.last_mut().unwrap().always_active = true;
    table
}

fn every_bias_and_fill(score: ScoreKind) {
    for table in [single(), badam(), lisa()] {
        for inactive in [Inactive::Frozen, Inactive::SignSgd(1.0)] {
            for bias in [VisitBias::Ratio, VisitBias::Exponential, VisitBias::None] {
                for fill in FILLS {
                    let seen = follow(&table, &config(score, bias, fill, inactive));
                    let masked = fill != Fill::Whole;
                    assert_eq!(seen.partial > 0, masked, "{seen:?}");
                    assert_eq!(seen.cut_groups > 0, masked && table[1].group.is_some(), "{seen:?}");
                    assert_eq!(seen.void > 0, inactive == Inactive::Frozen, "{seen:?}");
                    // Processed norms of idle blocks are all but their sizes': with no visits to count, little changes.
                    let least = if bias == VisitBias::Ratio { 10 } else { 2 };
                    assert!(seen.sets.len() >= least, "{} sets, {score:?} {bias:?} {fill:?} {inactive:?}", seen.sets.len());
                }
            }
        }
    }
}

#[test]
fn by_gradient_norm() {
    every_bias_and_fill(ScoreKind::GradientNorm);
}

#[test]
fn by_root_mean_square() {
    every_bias_and_fill(ScoreKind::GradientRms);
}

#[test]
fn by_processed_norm() {
    every_bias_and_fill(ScoreKind::ProcessedNorm);
}

/// A set of whole units that wins again is no switch (A3.7).
#[test]
fn the_same_units_win_again() {
    for score in [ScoreKind::GradientNorm, ScoreKind::GradientRms] {
        let most = config(score, VisitBias::None, Fill::Whole, Inactive::SignSgd(1.0));
        let seen = follow(&lisa(), &Config { sparsity: 0.08, ..most });
        assert!(seen.kept > 0 && seen.sets.len() > 1, "{} kept, {} sets", seen.kept, seen.sets.len());
    }
}

/// Blocks are taken until their sum reaches the room: one that meets it is the last, and the next has no share (A4.2).
#[test]
fn a_sum_that_meets_the_room_ends_the_fill() {
    let table = single();
    let n: usize = table.iter().map(BlockSpec::len).sum();
    assert!(n.is_multiple_of(8)); // as every block is, and so this budget
    let sparsity = ((n / 10 * 7 / 8 * 8) as f64 + 0.5) / n as f64;
    for fill in [Fill::LastMasked, Fill::Uniform] {
        let uneven = config(ScoreKind::GradientRms, VisitBias::None, fill, Inactive::SignSgd(1.0));
        let seen = follow(&table, &Config { sparsity, ..uneven });
        assert!(seen.exact > 0 && seen.partial > 0, "{} exact, {} partial", seen.exact, seen.partial);
    }
}

/// What is left once blocks were frozen is less than the room: it is active whole, in shares too.
#[test]
fn a_room_for_more_than_there_is_takes_everything() {
    for fill in FILLS {
        let most = config(ScoreKind::GradientNorm, VisitBias::Ratio, fill, Inactive::SignSgd(1.0));
        let table = single();
        let mut run = Run::new(&table, &Config { sparsity: 0.1, ..most });
        run.step(1);
        let frozen = 1..28; // three layers of twelve
        frozen.clone().for_each(|b| run.optimizer.freeze(b).unwrap());
        run.step(2);
        let rest: Vec<Count> =
            (0..table.len() as u32).filter(|b| !frozen.contains(b)).map(|b| (b, table[b as usize].len())).collect();
        assert_eq!(run.set(), rest, "{fill:?}");
    }
}

#[test]
fn tiles_round_what_is_partial_a4_5() {
    for table in [single(), lisa()] {
        for fill in [Fill::LastMasked, Fill::Uniform] {
            let mask = MaskKind::Tile(7);
            let config = Config { mask, ..config(ScoreKind::GradientRms, VisitBias::Ratio, fill, Inactive::SignSgd(1.0)) };
            assert!(follow(&table, &config).partial > 0);
        }
    }
}

#[test]
fn probes_at_random_come_from_the_same_stream() {
    for table in [single(), badam()] {
        let probe_order = ProbeOrder::Random;
        let frozen = config(ScoreKind::GradientNorm, VisitBias::Ratio, Fill::LastMasked, Inactive::Frozen);
        let seen = follow(&table, &Config { probe_order, ..frozen });
        assert!(seen.sets.len() > 10, "{seen:?}");
    }
}
