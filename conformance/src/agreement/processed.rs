//! Scores of the processed gradient.

use crate::bounds;
use crate::cases::{compute, counts, hyper, mask_words, numbers, region, types};
use crate::harness::Harness;
use crate::host::Host;
use crate::pair::{Field, Layout, Pair};
use blockllm::adam::Powers;
use blockllm::backend::Measure;
use blockllm::moments::Region;
use blockllm::{DType, View, mask};

/// Moments of what is active, none of the rest; masks in either place; no set at all.
pub fn scores_of_processed_gradients<H: Harness>(h: &mut H) {
    for (dtype, of_gradient) in types::<H>() {
        for n in [1, 33, 513, 1025, 4097] {
            for switching in [false, true] {
                let words = mask::words(n) + 9;
                let layout = Layout { blocks: vec![(dtype, 3), (dtype, n)], capacity: n + 9, mask_words: [words; 2] };
                let case = format!("{dtype}, gradient {of_gradient}, n {n}, switching {switching}");
                let mut pair = Pair::new(h, &layout, &case);
                for k in counts(n).into_iter().chain([0]) {
                    pair.case = format!("{case}, k {k}");
                    one(&mut pair, [dtype, of_gradient], n, k, switching);
                }
            }
        }
    }
}

fn squares(dtype: DType, n: usize) -> Host {
    Host::from_doubles(numbers(n as u64 + 2, n, DType::F64).doubles().into_iter().map(|x| x * x), dtype)
}

fn one<H: Harness>(pair: &mut Pair<'_, H>, [dtype, of_gradient]: [DType; 2], n: usize, k: usize, switching: bool) {
    let (r, h) = (region(1, n, k.max(1), 5, 4), hyper(k as u64));
    let (m, v) = (numbers(n as u64 + 1, r.k, compute(dtype)), squares(compute(dtype), r.k));
    pair.write(Field::M, r.at, m.view());
    pair.write(Field::V, r.at, v.view());
    let powers = Powers { before: [0.81, 0.998_001], now: [0.729, 0.997_002_999] };
    pair.write(Field::Powers, 4, View::F64(&[powers.before[0], powers.before[1], powers.now[0], powers.now[1]]));
    let words = mask_words(k as u64, n, r.k);
    if r.masked() {
        pair.write(if switching { Field::OldMasks } else { Field::Masks }, 4, View::U32(&words));
    }
    let g = numbers(n as u64 + 9, n, of_gradient);
    let present = (k > 0).then_some(&r);
    pair.score(1, &g, &h, Measure::Processed { present, switching });
    let allowed = bound(&g, &m, &v, present, &words, &h, powers);
    pair.check(&|field, i| if field == Field::Sums && i == 1 { allowed } else { 0.0 });
}

fn bound(
    g: &Host, m: &Host, v: &Host, present: Option<&Region>, words: &[u32], h: &blockllm::adam::Hyper, powers: Powers,
) -> f64 {
    let (m, v) = (m.doubles(), v.doubles());
    let moments = |i: usize| {
        let mask = match present? {
            r if r.masked() => mask::Mask::new(words, r.n),
            r => mask::Mask::whole(r.n),
        };
        mask.contains(i).then(|| (m[mask.rank(i)], v[mask.rank(i)]))
    };
    let elements = g.doubles().into_iter().enumerate().map(|(i, g)| (g, moments(i)));
    bounds::processed(elements, h, present.map(|_| powers))
}
