//! The policies that follow a rule of their own (A4.6).

use super::rules::{Unit, filled, n_s, selectable, units, whole};
use super::{Count, LAYERS, Run, badam, lisa, llama};
use blockllm::names::{self, Ends};
use blockllm::random::Stream;
use blockllm::{BlockSpec, Config, Fill, MaskKind, Order, Policy};
use std::collections::BTreeSet;

const K: u64 = 3;
const SEED: u64 = 11;

fn config(policy: Policy) -> Config {
    Config { policy, seed: SEED, sparsity: 0.7, ..super::common::near_the_paper() }
}

/// The sets of `draws` periods are `rule`'s, each for K steps, and none is larger than what was reserved.
fn follow(table: &[BlockSpec], config: &Config, draws: u64, mut rule: impl FnMut() -> Vec<Count>) -> Vec<Vec<Count>> {
    let mut run = Run::new(table, config);
    let mut sets = Vec::new();
    for draw in 0..draws {
        let want = rule();
        assert!(want.iter().map(|(_, k)| k).sum::<usize>() <= run.optimizer.budget());
        for step in 1..=K {
            assert_eq!(run.set(), want, "draw {draw}, step {step} of it, {config:?}");
            assert!(run.optimizer.probes().is_empty() && !run.optimizer.needs_loss());
            run.step(draw * K + step);
        }
        sets.push(want);
    }
    assert_eq!(run.optimizer.decisions(), draws);
    sets
}

fn layers_of(units: &[Unit], set: &[Count]) -> Vec<usize> {
    selectable(units).into_iter().filter(|&u| units[u].blocks.iter().all(|b| set.contains(b))).collect()
}

#[test]
fn cyclic_visits_each_unit_once_a_round() {
    let mut layers_alone = llama();
    assert!(names::cyclic_units(&mut layers_alone, names::place, Ends::default()).is_empty());
    for (table, count) in [(badam(), LAYERS as usize + 2), (layers_alone, LAYERS as usize), (lisa(), LAYERS as usize)] {
        let units = units(&table);
        let all = selectable(&units);
        assert_eq!(all.len(), count);
        for order in [Order::Ascending, Order::Descending, Order::Random] {
            let (mut stream, mut round) = (Stream::new(SEED), Vec::new());
            let mut orders = Vec::new();
            let rule = || {
                if round.is_empty() {
                    round.clone_from(&all);
                    match order {
                        Order::Descending => round.reverse(),
                        Order::Random => stream.shuffle(&mut round),
                        _ => {}
                    }
                    orders.push(round.clone());
                    round.reverse(); // taken from its end
                }
                whole(&units, &[round.pop().unwrap()])
            };
            let sets = follow(&table, &config(Policy::Cyclic { period: K, order }), 3 * count as u64, rule);
            for (sets, order) in sets.chunks(count).zip(&orders) {
                let visited: Vec<usize> = sets.iter().flat_map(|s| layers_of(&units, s)).collect();
                assert_eq!(visited, *order);
                assert_eq!(visited.iter().copied().collect::<BTreeSet<_>>(), all.iter().copied().collect());
            }
            assert_eq!(orders[0] != orders[1] && orders[1] != orders[2], order == Order::Random);
        }
    }
}

#[test]
fn lisa_draws_gamma_layers_between_the_ends() {
    let table = lisa();
    let units = units(&table);
    let last = table.len() as u32 - 1;
    for gamma in [1, 2, 3, LAYERS] {
        let mut stream = Stream::new(SEED);
        let rule = || {
            let mut layers = selectable(&units);
            stream.shuffle(&mut layers);
            whole(&units, &layers[..gamma as usize])
        };
        let draws = 160;
        let sets = follow(&table, &config(Policy::Lisa { period: K, units: gamma }), draws, rule);
        let mut count = vec![0; units.len()];
        for set in &sets {
            let layers = layers_of(&units, set);
            assert_eq!(layers.len(), gamma as usize);
            assert!([0, last - 1, last].iter().all(|end| set.iter().any(|&(b, n)| b == *end && n == table[b as usize].len())));
            assert_eq!(set.len(), 3 + 9 * gamma as usize);
            layers.iter().for_each(|&u| count[u] += 1);
        }
        // Each layer as often as any: within four standard deviations of its mean.
        let share = f64::from(gamma) / f64::from(LAYERS);
        let (mean, deviation) = (draws as f64 * share, (draws as f64 * share * (1.0 - share)).sqrt());
        let layers = selectable(&units);
        assert!(layers.iter().all(|&u| (f64::from(count[u]) - mean).abs() <= 4.0 * deviation), "{count:?}");
    }
}

/// The cells of the paper, by name.
const CELLS: [&[&str]; 3] = [
    &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"],
    &["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"],
    &["input_layernorm", "post_attention_layernorm"],
];

#[test]
fn half_fine_tuning_takes_half_of_each_cell() {
    // Layers as they are numbered, and from the last to the first: cells go by first appearance, not by number.
    let mut turned = llama();
    turned[1..=9 * LAYERS as usize].rotate_right(9);
    for (mut table, first) in [(llama(), 0), (turned, LAYERS - 1)] {
        assert!(names::half_fine_tuning_units(&mut table, names::place).is_empty());
        table.last_mut().unwrap().always_active = true;
        let find = |name: String| table.iter().position(|s| s.name == name).map(|b| (b as u32, table[b].len())).unwrap();
        let head = find("lm_head.weight".into());
        let (mut stream, mut draws) = (Stream::new(SEED), 0);
        let rule = || {
            let mut set = vec![head];
            for ordinal in 0..LAYERS {
                let layer = (first + ordinal) % LAYERS;
                for cell in CELLS {
                    let mut blocks: Vec<Count> = cell.iter().map(|m| find(format!("model.layers.{layer}.{m}.weight"))).collect();
                    stream.shuffle(&mut blocks);
                    let more = (ordinal as usize + draws) % 2;
                    set.extend(&blocks[..(blocks.len() + more) / 2]);
                }
            }
            draws += 1;
            set.sort_unstable();
            set
        };
        let sets = follow(&table, &config(Policy::HalfFineTuning { period: K }), 80, rule);
        let mut count = vec![0; table.len()];
        for (draw, set) in sets.iter().enumerate() {
            set.iter().for_each(|&(b, _)| count[b as usize] += 1);
            let taken = |layer: u32, cell: usize| {
                CELLS[cell].iter().filter(|m| set.contains(&find(format!("model.layers.{layer}.{m}.weight")))).count()
            };
            // Of three feed-forward weights one and two in turn: in each layer, and from a layer to the next.
            let mlp: Vec<usize> = (0..LAYERS).map(|i| taken((first + i) % LAYERS, 1)).collect();
            let want: Vec<usize> = (0..LAYERS as usize).map(|i| 1 + (i + draw) % 2).collect();
            assert_eq!(mlp, want);
            assert!((0..LAYERS).all(|l| taken(l, 0) == 2 && taken(l, 2) == 1));
        }
        // The ends: the head is always active, the others have no layer.
        assert_eq!((count[0], count[table.len() - 2], count[table.len() - 1]), (0, 0, 80));
        // Every other block about half of the time: within four standard deviations of 40.
        let within = count[1..=9 * LAYERS as usize].iter().all(|&c: &i32| (c - 40).abs() <= 18);
        assert!(within, "{count:?}");
    }
}

#[test]
fn random_blocks_fill_the_budget_from_a_shuffle() {
    let mut blocks = llama();
    blocks.last_mut().unwrap().always_active = true;
    for table in [blocks, badam(), lisa()] {
        let units = units(&table);
        for (fill, tile) in
            [(Fill::LastMasked, 1), (Fill::Uniform, 1), (Fill::Whole, 1), (Fill::LastMasked, 5), (Fill::Uniform, 5)]
        {
            let mask = if tile == 1 { MaskKind::Coordinate } else { MaskKind::Tile(tile) };
            let config = Config { fill, mask, ..config(Policy::RandomBlocks { period: K }) };
            let n_s = n_s(&units, config.sparsity);
            let mut stream = Stream::new(SEED);
            let rule = || {
                let mut ranked = selectable(&units);
                stream.shuffle(&mut ranked);
                filled(&units, &ranked, n_s, fill, tile)
            };
            let sets = follow(&table, &config, 40, rule);
            let mut count = vec![0; table.len()];
            for set in &sets {
                let active: usize = set.iter().map(|(_, k)| k).sum();
                assert!(active <= n_s);
                if fill != Fill::Whole && tile == 1 {
                    assert_eq!(active, n_s, "the room is used up");
                }
                set.iter().for_each(|&(b, _)| count[b as usize] += 1);
            }
            // Idle at times, active at times; small units find a place more often where they must fit whole.
            for (b, spec) in table.iter().enumerate() {
                let plausible = match fill {
                    _ if spec.always_active => 40..=40,
                    Fill::Whole => 2..=38,
                    _ => 2..=26,
                };
                assert!(plausible.contains(&count[b]), "{fill:?} {} {count:?}", spec.name);
            }
        }
    }
}

#[test]
fn full_is_everything_and_never_decides() {
    for table in [llama(), badam(), lisa()] {
        let mut run = Run::new(&table, &Config { policy: Policy::Full, ..super::common::near_the_paper() });
        let all: Vec<Count> = table.iter().enumerate().map(|(b, s)| (b as u32, s.len())).collect();
        for t in 1..=30 {
            assert_eq!(run.set(), all);
            run.step(t);
        }
        assert_eq!(run.optimizer.decisions(), 0);
    }
}

/// What is reserved where the sparsity is not used: the most that the rule can ever take.
#[test]
fn what_is_reserved_is_the_largest_set_of_the_rule() {
    let reserved = |table: &[BlockSpec], policy| Run::new(table, &config(policy)).optimizer.budget();
    let sizes = |table: &[BlockSpec]| {
        let units = units(table);
        let mut sizes: Vec<usize> = selectable(&units).iter().map(|&u| units[u].len()).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        (sizes, whole(&units, &[]).iter().map(|(_, n)| n).sum::<usize>())
    };
    let (badam, lisa) = (badam(), lisa());
    let (largest, _) = sizes(&badam);
    assert_eq!(reserved(&badam, Policy::Cyclic { period: K, order: Order::Random }), largest[0]);
    let (largest, ends) = sizes(&lisa);
    assert_eq!(ends, 24 * 8 + 8 + 24 * 8);
    assert_eq!(reserved(&lisa, Policy::Lisa { period: K, units: 2 }), ends + largest[0] + largest[1]);
    let mut half = llama();
    assert!(names::half_fine_tuning_units(&mut half, names::place).is_empty());
    // q and o, two of the feed-forward, a norm.
    let most: usize = (0..LAYERS as usize).map(|i| 2 * 64 + 2 * (16 + i) * 8 + 8).sum();
    assert_eq!(reserved(&half, Policy::HalfFineTuning { period: K }), most);
}
