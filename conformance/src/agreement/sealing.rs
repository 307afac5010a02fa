//! Guard, clip, step counts, counters, and the score table.

use crate::bounds;
use crate::cases::{compute, hyper, numbers, region};
use crate::harness::Harness;
use crate::host::Host;
use crate::pair::{Field, Layout, Pair};
use blockllm::backend::{ScoredUnit, Seal, Switch, Work, flag};
use blockllm::moments::Region;
use blockllm::{DType, MaskKind, View};

/// Three regions, in block order and not in the order of their runs, with a hole between them. Where their moments lie is
/// of no matter here.
fn regions() -> [Region; 3] {
    let of = |block, n, k, gradient_at| Region { gradient_at, ..region(block, n, k, 11, 0) };
    [of(0, 40, 40, 2800), of(1, 1000, 1000, 1750), Region { fresh: true, ..of(2, 2100, 1700, 0) }]
}

fn layout(dtype: DType) -> Layout {
    let blocks = vec![(dtype, 40), (dtype, 1000), (dtype, 2100), (dtype, 5)];
    Layout { blocks, capacity: 2900, mask_words: [0, 0] }
}

fn work(active: &[Region], variant: u64) -> Work<'_> {
    Work {
        step: 1234,
        hyper: hyper(variant),
        mask: MaskKind::Coordinate,
        first: true,
        last: true,
        wanted: &[],
        active,
        summed: active,
        idle: &[],
        scored: &[],
        members: &[],
        switch: (variant % 4 > 1).then_some(Switch::Reset),
        processed: None,
        guard_limit: 3,
    }
}

/// Powers after three steps.
fn powers() -> View<'static> {
    View::F64(&[0.81, 0.998_001, 0.729, 0.997_002_999])
}

/// The norm and the clip factor within bounds, all else exact.
fn check<H: Harness>(pair: &mut Pair<'_, H>) {
    let norms = Field::Norm.of(&pair.host).clone();
    let value = |i: usize| match norms.view(i, 1) {
        View::F64(x) if x[0].is_finite() => x[0],
        // Of a gradient that trips the guard there may be no norm: which of the values that are not finite is open.
        _ => f64::INFINITY,
    };
    pair.check(&|field, i| if field == Field::Norm { bounds::NORM * value(i) } else { 0.0 });
}

fn start<'h, H: Harness>(h: &'h mut H, dtype: DType, case: String) -> (Pair<'h, H>, Host) {
    let mut pair = Pair::new(h, &layout(dtype), case);
    // Of the fresh one too, which starts anew whatever lies there.
    for block in 0..3 {
        pair.write(Field::Powers, 4 * block, powers());
    }
    let g = numbers(41, 2900, compute(dtype));
    pair.write(Field::Gradient, 0, g.view());
    (pair, g)
}

/// Places of an element: the first and last of a region, one in the middle, and one in no region.
const PLACES: [(usize, bool); 6] = [(0, true), (1699, true), (1750, true), (2839, true), (1720, false), (2870, false)];

/// A6.3, A6.4: what is not finite skips the step wherever it lies in a region, and nowhere else.
pub fn guard_and_clip<H: Harness>(h: &mut H) {
    for dtype in [DType::F32, DType::F64].into_iter().filter(|d| H::supports(*d)) {
        let wild = if dtype == DType::F64 { [f64::NAN, f64::INFINITY, 1e200] } else { [f64::NAN, f64::NEG_INFINITY, 1e25] };
        for variant in 0..6 {
            for (i, (place, inside)) in PLACES.into_iter().enumerate() {
                let (mut pair, mut g) = start(h, dtype, format!("{dtype}, variant {variant}, at {place}"));
                let active = regions();
                let mut values = g.doubles();
                values[place] = wild[i % 3];
                g = Host::from_doubles(values.into_iter(), dtype);
                pair.write(Field::Gradient, 0, g.view());
                pair.seal(&work(&active, variant), Seal::Step);
                assert_eq!(skipped(&pair), inside, "{}: the reference itself", pair.case);
                if inside {
                    pair.check(&|field, _| if field == Field::Norm { f64::INFINITY } else { 0.0 });
                } else {
                    check(&mut pair);
                }
            }
            let (mut pair, _) = start(h, dtype, format!("{dtype}, variant {variant}"));
            let active = regions();
            pair.seal(&work(&active, variant), Seal::Step);
            check(&mut pair);
            // An empty set passes, and has a norm of zero.
            pair.seal(&work(&[], variant), Seal::Step);
            check(&mut pair);
        }
    }
}

/// A6.3: sums are added in the order of `summed`, whatever the blocks' numbers are. Two of the three are less than half of
/// the last place of the other, and more than that together.
pub fn sums_in_the_order_that_is_asked_for<H: Harness>(h: &mut H) {
    let active = regions();
    for dtype in [DType::F32, DType::F64].into_iter().filter(|d| H::supports(*d)) {
        let mut told_apart = 0;
        for large in [1.0, 1.0625, 1.125, 1.25] {
            let mut values = [0.0; 2900];
            (values[2800], values[2801]) = (1.0, large);
            (values[1750], values[0]) = (0.4f64.sqrt() * 2f64.powf(-25.5), 0.4f64.sqrt() * 2f64.powf(-25.5));
            let g = Host::from_doubles(values.into_iter(), dtype);
            let mut norms = Vec::new();
            for order in [[0, 1, 2], [1, 2, 0], [2, 1, 0], [1, 0, 2]] {
                let (mut pair, _) = start(h, dtype, format!("{dtype}, {large}, order {order:?}"));
                pair.write(Field::Gradient, 0, g.view());
                let summed = order.map(|i: usize| active[i]);
                pair.seal(&Work { summed: &summed, ..work(&active, 0) }, Seal::Step);
                check(&mut pair);
                let View::F64(norm) = Field::Norm.of(&pair.host).view(0, 1) else { unreachable!("norms are f64") };
                norms.push(norm[0].to_bits());
            }
            told_apart += usize::from(norms[0] != norms[1]);
        }
        assert!(told_apart > 0, "{dtype}: the reference itself does not tell the orders apart");
    }
}

fn skipped<H: Harness>(pair: &Pair<'_, H>) -> bool {
    matches!(Field::Flags.of(&pair.host).view(flag::SKIP, 1), View::U32([1]))
}

/// The largest number whose square is finite passes, its successor trips; so does a product with inv_loss_scale.
pub fn the_guard_at_its_limits<H: Harness>(h: &mut H) {
    let (single, double) = (0x5f7f_ffffu64, 0x5fef_ffff_ffff_ffffu64);
    for (dtype, last) in [(DType::F32, single), (DType::F64, double)].into_iter().filter(|(d, _)| H::supports(*d)) {
        for (bits, trips) in [(last, false), (last + 1, true)] {
            for negative in [false, true] {
                let (mut pair, mut g) = start(h, dtype, format!("{dtype}, bits {bits:x}, negative {negative}"));
                let sign = if negative { 1u64 << (8 * dtype.size() - 1) } else { 0 };
                g.inject(1760, bits | sign);
                pair.write(Field::Gradient, 0, g.view());
                let active = regions();
                pair.seal(&work(&active, 0), Seal::Step);
                assert_eq!(skipped(&pair), trips, "{}: the reference itself", pair.case);
                let large = |field, _| if field == Field::Norm { f64::INFINITY } else { 0.0 };
                if trips { pair.check(&large) } else { check(&mut pair) }
            }
        }
        let (mut pair, g) = start(h, dtype, format!("{dtype}, overflow by the loss scale"));
        let (huge, active) = (if dtype == DType::F32 { 1e38 } else { 1e300 }, regions());
        let mut w = work(&active, 0);
        w.hyper.inv_loss_scale = huge;
        assert!(g.doubles().iter().any(|x| x.abs() > 1e-2));
        pair.seal(&w, Seal::Step);
        assert!(skipped(&pair));
        pair.check(&|field, _| if field == Field::Norm { f64::INFINITY } else { 0.0 });
    }
}

/// Counters go on, restart and stay at their largest value; zero masks are counted where the step switches.
pub fn counters<H: Harness>(h: &mut H) {
    let (mut pair, g) = start(h, DType::F32, String::from("counters"));
    let active = regions();
    let mut wild = g.clone();
    wild.inject(1800, u64::from(f32::NAN.to_bits()));
    for (start, steps) in [(0, 6), (u32::MAX - 1, 4)] {
        pair.set_flags(&[0, start, 0, start, start, start, start, start, 0]);
        for step in 0..steps {
            pair.write(Field::Gradient, 0, if step == 4 { g.view() } else { wild.view() });
            pair.seal(&work(&active, 0), Seal::Step);
            pair.check(&|field, _| if field == Field::Norm { f64::INFINITY } else { 0.0 });
        }
    }
    // The only masked region of the three, all zero: counted on a step that switches.
    let zeros = [0.0f32; 1700];
    pair.write(Field::Gradient, 0, g.view());
    pair.write(Field::Gradient, 0, View::F32(&zeros));
    for variant in [0, 2] {
        pair.seal(&work(&active, variant), Seal::Step);
        check(&mut pair);
    }
    pair.write(Field::Gradient, 1699, View::F32(&[-0.0]));
    pair.seal(&work(&active, 2), Seal::Step);
    check(&mut pair);
    // A whole block of zeros has no mask.
    pair.write(Field::Gradient, 2800, View::F32(&[0.0; 40]));
    pair.seal(&work(&active, 2), Seal::Step);
    check(&mut pair);
}

/// The guard of single blocks, and the step's counters after them.
pub fn one_block_at_a_time<H: Harness>(h: &mut H) {
    let (mut pair, mut g) = start(h, DType::F32, String::from("immediate"));
    let active = regions();
    g.inject(1800, u64::from(f32::INFINITY.to_bits()));
    pair.write(Field::Gradient, 0, g.view());
    for round in 0..5 {
        for r in &active {
            // Switching in the last round: a block that trips is new again.
            pair.seal(&work(core::slice::from_ref(r), round), Seal::Block);
            // No norm: what lies there is left alone.
            pair.check(&crate::pair::nothing);
        }
        pair.seal(&work(&[], round), Seal::Counters);
        pair.check(&crate::pair::nothing);
        if round == 3 {
            g.inject(1800, 0);
            pair.write(Field::Gradient, 0, g.view());
        }
    }
}

/// A2.5: groups are added in order, what is not finite does not enter.
pub fn scores_enter_the_table<H: Harness>(h: &mut H) {
    for dtype in [DType::F32, DType::F64].into_iter().filter(|d| H::supports(*d)) {
        let (mut pair, _) = start(h, dtype, format!("{dtype}"));
        let members = [0, 2, 1, 3];
        let scored = [
            ScoredUnit { unit: 0, first: 0, count: 2, n: 2140 },
            ScoredUnit { unit: 1, first: 2, count: 1, n: 1000 },
            ScoredUnit { unit: 3, first: 3, count: 1, n: 5 },
        ];
        let mut w = work(&[], 0);
        (w.scored, w.members) = (&scored, &members);
        for sums in [[0.1, 3.5, 1e-3, 7e-11], [1e-30, f64::NAN, 0.0, f64::INFINITY], [1e300, 1e-300, 1e77, 0.0]] {
            pair.write(Field::Sums, 0, View::F64(&sums));
            pair.enter_scores(&w);
            let table = Field::Table.of(&pair.host).clone();
            let value = |i: usize| match table.view(i, 1) {
                View::F64(x) => x[0].abs(),
                other => panic!("a table of {}", other.dtype()),
            };
            pair.check(&|field, i| if field == Field::Table && i % 3 == 0 { bounds::SUM * value(i) } else { 0.0 });
        }
    }
}
