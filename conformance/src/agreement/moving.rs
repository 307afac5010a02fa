//! What moves moments and parameters.

use crate::bounds::{self, Coordinate};
use crate::cases::{compute, counts, hyper, mask_words, modal, numbers, region, special, sprinkle, types};
use crate::harness::Harness;
use crate::host::Host;
use crate::pair::{Field, Layout, Pair, nothing};
use crate::recipe::{Mode, chain};
use blockllm::adam::{Decay, Hyper, Powers};
use blockllm::backend::{Arena, Moment, flag, norm};
use blockllm::mask::{self, Mask};
use blockllm::moments::Region;
use blockllm::reference::HostBuffer;
use blockllm::{DType, View};

const POWERS: Powers = Powers { before: [0.81, 0.998_001], now: [0.729, 0.997_002_999] };
const CLIP: f64 = 0.812_345_678_9;

fn layout(dtype: DType, n: usize) -> Layout {
    let words = mask::words(n) + 9;
    Layout { blocks: vec![(dtype, 3), (dtype, n)], capacity: n + 40, mask_words: [words; 2] }
}

fn set_skip<H: Harness>(pair: &mut Pair<'_, H>, skip: bool) {
    let mut flags = [5; flag::LEN];
    flags[flag::SKIP] = u32::from(skip);
    pair.set_flags(&flags);
}

/// Regions that overlap in the arena in either direction, all pairs of few, half and all coordinates; and a block that
/// was not there before.
pub fn clear_and_carry<H: Harness>(h: &mut H) {
    for dtype in [DType::F32, DType::F64].into_iter().filter(|d| H::supports(*d)) {
        for n in [1, 33, 512, 1025, 5000] {
            let mut pair = Pair::new(h, &layout(dtype, n), String::new());
            for (old_k, new_k) in counts(n).into_iter().flat_map(|a| counts(n).into_iter().map(move |b| (a, b))) {
                for (old_at, new_at) in [(0, 7), (31, 2)] {
                    let (old, new) = (region(1, n, old_k, old_at, 2), region(1, n, new_k, new_at, 5));
                    pair.write(Field::OldMasks, 2, View::U32(&mask_words(old_k as u64, n, old_k)));
                    pair.write(Field::Masks, 5, View::U32(&mask_words(new_k as u64 + 1, n, new_k)));
                    for (skip, from) in [(false, Some(&old)), (false, None), (true, Some(&old))] {
                        pair.case = format!("{dtype}, n {n}, k {old_k} to {new_k}, at {old_at} to {new_at}, skip {skip}");
                        set_skip(&mut pair, skip);
                        pair.carry(Moment::First, from, &new);
                        pair.check(&nothing);
                        pair.carry(Moment::Second, from, &new);
                        pair.check(&nothing);
                    }
                }
            }
            for (k, skip) in counts(n).into_iter().flat_map(|k| [(k, true), (k, false)]) {
                set_skip(&mut pair, skip);
                pair.clear(&region(1, n, k, 9, 0));
                pair.check(&nothing);
            }
        }
    }
}

/// One update's inputs on both sides. Returns the parameter.
fn prepare<H: Harness>(pair: &mut Pair<'_, H>, r: &Region, dtype: DType, seed: u64) -> Host {
    let f = compute(dtype);
    let squares = numbers(seed + 2, r.k, DType::F64).doubles().into_iter().map(|x| x * x);
    pair.write(Field::Gradient, r.gradient_at, numbers(seed, r.k, f).view());
    pair.write(Field::M, r.at, numbers(seed + 1, r.k, f).view());
    pair.write(Field::V, r.at, Host::from_doubles(squares, f).view());
    if r.masked() {
        pair.write(Field::Masks, r.mask_at, View::U32(&mask_words(seed, r.n, r.k)));
    }
    let p = POWERS;
    pair.write(Field::Powers, 4 * r.block as usize, View::F64(&[p.before[0], p.before[1], p.now[0], p.now[1]]));
    pair.write(Field::Norm, norm::CLIP, View::F64(&[CLIP]));
    numbers(seed + 3, r.n, dtype)
}

fn doubles(b: &HostBuffer) -> Vec<f64> {
    match b.view(0, b.len()) {
        View::F32(x) => x.iter().map(|e| f64::from(*e)).collect(),
        View::F64(x) => x.to_vec(),
        other => panic!("numbers of {}", other.dtype()),
    }
}

/// Bounds of p, m, v of the `j`-th active coordinate, which is coordinate `i`.
fn allowed(a: &Arena<HostBuffer>, r: &Region, p: f64, j: usize, h: &Hyper, dtype: DType) -> [f64; 3] {
    let at = |b: &HostBuffer| doubles(b)[r.at + j];
    let packed = doubles(&a.gradient)[r.gradient_at + j];
    let wd = if h.decay == Decay::L2 { h.weight_decay * r.scales.weight_decay } else { 0.0 };
    let g = (packed * h.inv_loss_scale * CLIP).abs() + (wd * p).abs();
    let x = Coordinate { p, g, g_error: 0.0, m: at(&a.m), v: at(&a.v) };
    bounds::update(x, h, r.scales, &POWERS, dtype)
}

fn updated<H: Harness>(pair: &mut Pair<'_, H>, r: &Region, old: Option<&Region>, dtype: DType, variant: u64) {
    let (seed, h) = (chain(&[r.n as u64, r.k as u64, variant]), hyper(variant));
    let mut p = prepare(pair, r, dtype, seed);
    if let Some(old) = old.filter(|o| o.masked()) {
        pair.write(Field::OldMasks, old.mask_at, View::U32(&mask_words(seed + 7, old.n, old.k)));
    }
    let before = p.doubles();
    let words = mask_words(seed, r.n, r.k);
    let mask = if r.masked() { Mask::new(&words, r.n) } else { Mask::whole(r.n) };
    let coordinates: Vec<usize> = mask.coordinates().collect();
    let of = |a: &Arena<HostBuffer>, i: usize| match mask.contains(i) {
        true => allowed(a, r, before[i], mask.rank(i), &h, dtype)[0],
        false => 0.0,
    };
    pair.update(r, old, &mut p, &h, &of);
    let host = pair.host.map(Clone::clone);
    pair.check(&|field, e| {
        let Some(i) = e.checked_sub(r.at).and_then(|j| coordinates.get(j)) else { return 0.0 };
        let [_, dm, dv] = allowed(&host, r, before[*i], e - r.at, &h, dtype);
        match field {
            Field::M => dm,
            Field::V => dv,
            _ => 0.0,
        }
    });
}

/// A6.1 in every pair of types, masked and whole, both kinds of decay.
pub fn update<H: Harness>(h: &mut H) {
    for (dtype, _) in types::<H>().filter(|(p, g)| p == g) {
        for n in [1, 33, 512, 1025, 2500] {
            for (i, k) in counts(n).into_iter().enumerate() {
                let mut pair = Pair::new(h, &layout(dtype, n), format!("{dtype}, n {n}, k {k}"));
                set_skip(&mut pair, false);
                updated(&mut pair, &region(1, n, k, 7, 5), None, dtype, i as u64);
            }
        }
    }
}

/// A5.4: what was not active in the old mask starts as if it had always seen its present gradient.
pub fn update_of_coordinates_that_enter<H: Harness>(h: &mut H) {
    for (dtype, _) in types::<H>().filter(|(p, g)| p == g) {
        let n = 1300;
        for (variant, (old_k, k)) in [(60, 650), (650, 1300), (1299, 700), (1300, 30)].into_iter().enumerate() {
            let mut pair = Pair::new(h, &layout(dtype, n), format!("{dtype}, k {old_k} to {k}"));
            set_skip(&mut pair, false);
            updated(&mut pair, &region(1, n, k, 7, 5), Some(&region(1, n, old_k, 0, 3)), dtype, variant as u64);
        }
    }
}

/// A6.4: no bit of parameters or state.
pub fn a_skipped_step_moves_nothing<H: Harness>(h: &mut H) {
    for (dtype, _) in types::<H>().filter(|(p, g)| p == g) {
        for k in [1, 400, 700] {
            let mut pair = Pair::new(h, &layout(dtype, 700), format!("{dtype}, k {k}"));
            let r = region(1, 700, k, 7, 5);
            let mut p = prepare(&mut pair, &r, dtype, 1);
            set_skip(&mut pair, true);
            pair.update(&r, None, &mut p, &hyper(1), &|_, _| 0.0);
            pair.check(&nothing);
        }
    }
}

/// The counter of NaNs stays at its largest value.
pub fn the_count_of_nans_saturates<H: Harness>(h: &mut H) {
    let n = 5000;
    let mut pair = Pair::new(h, &layout(DType::F32, n), "NaNs");
    let (g, r) = (Host::F32(vec![f32::NAN; n]), region(1, n, 0, 0, 0));
    let mut flags = [0; flag::LEN];
    for start in [u32::MAX - 5001, u32::MAX - 4999, u32::MAX] {
        flags[flag::NANS] = start;
        pair.set_flags(&flags);
        let mut p = numbers(1, n, DType::F32);
        pair.state_free(&r, &g, &mut p, &hyper(0), &|_| 0.0);
        pair.check(&nothing);
    }
}

fn sign_stepped<H: Harness>(h: &mut H, wild: bool) {
    for (dtype, of_gradient) in types::<H>() {
        for n in [1, 2, 33, 513, 1025, 2501] {
            for (variant, k) in [0, 1, n / 2, n - 1].into_iter().enumerate().filter(|(_, k)| *k < n) {
                let seed = chain(&[n as u64, k as u64]);
                let (r, h_) = (region(1, n, k, 7, 5), hyper(variant as u64 + 1));
                let case = format!("{dtype}, gradient {of_gradient}, n {n}, k {k}");
                let mut pair = Pair::new(h, &layout(dtype, n), case);
                if k > 0 {
                    pair.write(Field::Masks, 5, View::U32(&mask_words(seed, n, k)));
                }
                // It is not stopped by a skip.
                set_skip(&mut pair, variant % 2 == 0);
                let (mut p, mut g) = (numbers(seed, n, dtype), modal(seed + 1, n, of_gradient, Mode::Normal));
                if wild {
                    sprinkle(&mut g, seed, true);
                }
                if wild && n > 2 {
                    // A parameter that is NaN is no NaN gradient, unless decay brings it in.
                    p.inject(n / 3, special(dtype)[0]);
                }
                let (before, grads) = (p.doubles(), g.doubles());
                let bound = |i: usize| bounds::state_free(before[i], grads[i], &h_, r.scales, dtype);
                pair.state_free(&r, &g, &mut p, &h_, &bound);
                pair.check(&nothing);
            }
        }
    }
}

/// A6.7: idle blocks, and the rest of masked ones.
pub fn sign_steps<H: Harness>(h: &mut H) {
    sign_stepped(h, false);
}

/// NaN moves nothing and is counted, infinity has a sign, zeros have none.
pub fn sign_steps_of_special_values<H: Harness>(h: &mut H) {
    sign_stepped(h, true);
}
