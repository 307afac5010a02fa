//! The recipe of `engine.json`: gradients and initial parameters are exact functions of integers, so none are stored.

use crate::host::Host;
use blockllm::DType;

/// SplitMix64's finaliser on x plus its increment.
pub fn mix(x: u64) -> u64 {
    let z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Mixes numbers one after another.
pub fn chain(numbers: &[u64]) -> u64 {
    numbers.iter().fold(0, |h, x| mix(h ^ x))
}

/// What a block's gradients are like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Over some magnitudes, with zeros and ties.
    Normal,
    /// All of one magnitude.
    Ties,
    /// All zero.
    Zero,
}

/// x * 2^e, exact: the exponents here stay far inside f64's range, and each half of them farther.
fn scale(x: f64, e: i64) -> f64 {
    let half = e / 2;
    x * 2f64.powi(half as i32) * 2f64.powi((e - half) as i32)
}

fn magnitude(h: u64, dtype: DType, mode: Mode, exp: i64) -> f64 {
    let (sel, e) = (h & 63, ((h >> 8) & 15) as i64 - 12 + exp);
    match (mode, sel) {
        (Mode::Zero, _) => 0.0,
        (Mode::Ties, _) => scale(1.0, exp - 3),
        (Mode::Normal, 0) => 0.0,
        (Mode::Normal, 1..=4) => scale(1.0, exp - 3),
        (Mode::Normal, _) if dtype == DType::F32 => scale(((h >> 16) & 0xFF_FFFF) as f64, e - 24),
        (Mode::Normal, _) => scale((mix(h) >> 11) as f64, e - 53),
    }
}

/// `n` values of the recipe.
pub fn values(base: u64, n: usize, dtype: DType, mode: Mode, exp: i64) -> Host {
    let value = |i: u64| {
        let h = mix(base ^ i);
        let m = magnitude(h, dtype, mode, exp);
        if h >> 63 == 1 { -m } else { m }
    };
    let values = (0..n as u64).map(value);
    match dtype {
        DType::F64 => Host::F64(values.collect()),
        _ => Host::F32(values.map(|x| x as f32).collect()),
    }
}
