//! Inputs of the operation checks: lengths around everything a kernel may trip over, gradients over many magnitudes, and
//! what no gradient should be.

use crate::harness::Harness;
use crate::host::Host;
use crate::recipe::{Mode, chain, mix, values};
use blockllm::adam::{Decay, Hyper, Scales};
use blockllm::moments::Region;
use blockllm::{DType, mask};

/// Around words of a mask, prefix counts, leaves of the tree, workgroups; and some of no particular form.
pub const LENGTHS: [usize; 17] = [1, 2, 31, 32, 33, 63, 255, 257, 511, 512, 513, 1023, 1024, 1025, 2500, 4097, 9000];

/// Pairs of a parameter's and a gradient's type (A7.1) that the backend supports.
pub fn types<H: Harness>() -> impl Iterator<Item = (DType, DType)> {
    use DType::{Bf16, F16, F32, F64};
    let pairs = [(F32, F32), (F16, F16), (F16, F32), (Bf16, Bf16), (Bf16, F32), (F64, F64), (F64, F32)];
    pairs.into_iter().filter(|(p, _)| H::supports(*p))
}

/// The compute type beside this parameter type.
pub fn compute(dtype: DType) -> DType {
    dtype.compute().expect("a trainable type")
}

/// `n` numbers of the recipe, rounded to a type.
pub fn numbers(seed: u64, n: usize, dtype: DType) -> Host {
    modal(seed, n, dtype, Mode::Normal)
}

/// The same of some mode.
pub fn modal(seed: u64, n: usize, dtype: DType, mode: Mode) -> Host {
    let exact = values(chain(&[seed, 5]), n, DType::F64, mode, 0);
    Host::from_doubles(exact.doubles().into_iter(), dtype)
}

/// Bits of NaN, infinities, denormals, zeros and the largest finite number.
pub fn special(dtype: DType) -> [u64; 9] {
    let (sign, exponent, one): (u64, u64, u64) = match dtype {
        DType::F16 => (1 << 15, 0x7c00, 1),
        DType::Bf16 => (1 << 15, 0x7f80, 1),
        DType::F32 => (1 << 31, 0x7f80_0000, 1),
        _ => (1 << 63, 0x7ff0 << 48, 1),
    };
    let nan = exponent | exponent >> 1;
    [nan, sign | nan, exponent, sign | exponent, one, sign | one, sign, 0, exponent - 1]
}

/// Replaces some elements by special ones, NaN and infinity included where `wild`.
pub fn sprinkle(x: &mut Host, seed: u64, wild: bool) {
    let (n, bits) = (x.len() as u64, special(x.dtype()));
    for j in 0..n / 5 + 1 {
        let h = mix(seed ^ j);
        let kind = (h >> 32) as usize % bits.len();
        if wild || (4..8).contains(&kind) {
            x.inject((h % n) as usize, bits[kind]);
        }
    }
}

/// Numbers of a step; `variant` picks decay (L2 with a weight decay of 0 too), loss scale and clip.
pub fn hyper(variant: u64) -> Hyper {
    Hyper {
        lr: 3e-3,
        betas: [0.9, 0.999],
        eps: 1e-8,
        weight_decay: [0.0, 0.1, 0.1, 0.0][variant as usize % 4],
        decay: if variant % 4 >= 2 { Decay::L2 } else { Decay::Decoupled },
        inv_loss_scale: [1.0, 0.1, 1.0 / 1024.0][(variant / 3) as usize % 3],
        clip: if variant % 2 == 1 { Some(0.7) } else { None },
        sign_scale: Some(0.25),
    }
}

/// A region of `k` of `n` coordinates somewhere inside the arena; its gradient is packed elsewhere than its moments.
pub fn region(block: u32, n: usize, k: usize, at: usize, mask_at: usize) -> Region {
    Region {
        block,
        n,
        k,
        at,
        gradient_at: at.saturating_sub(3),
        mask_at,
        fresh: false,
        scales: Scales { lr: 1.5, weight_decay: 0.5 },
    }
}

/// Counts of active coordinates worth trying among `n`.
pub fn counts(n: usize) -> Vec<usize> {
    let mut k = vec![1, n / 20, n / 2, n - 1, n];
    k.retain(|&k| k >= 1);
    k.dedup();
    k
}

/// Words of a mask of `k` of `n` coordinates, chosen at random by the reference.
pub fn mask_words(seed: u64, n: usize, k: usize) -> Vec<u32> {
    let g: Vec<f32> = (0..n as u64).map(|i| (mix(seed ^ i) >> 40) as f32).collect();
    let mut words = vec![0; mask::words(n)];
    mask::build::<f32, f32>(&g, k, blockllm::MaskKind::Coordinate, &mut words);
    words
}
