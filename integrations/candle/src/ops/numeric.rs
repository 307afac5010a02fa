//! Loops that the compiler turns into vector instructions, with the same bits on every processor: sums have a fixed
//! order in [`LANES`] partial sums, and products and sums are rounded separately.

/// Partial results of a reduction: one vector of the widest instruction set.
pub(super) const LANES: usize = 16;

/// Runs `f` compiled for the best instruction set of this processor. The closure, and what it calls, must be
/// `#[inline(always)]`: what is not inlined is compiled for the oldest.
pub(super) fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// eˣ within 1 ulp of the true value (0.991 at most over all arguments, 99.2% of the results correctly rounded); results
/// under 2^-125.5 become 0.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2, and eˣ = 2ⁿ eʳ, the latter by a polynomial of degree 6. The polynomial and the
/// two-part ln 2 are those of Cephes' `expf`.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Adding this rounds to an integer and leaves the integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // 9 bits, so that n * LN_2_HIGH is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Outside, the result is 0 or infinite. NaN stays NaN.
    let x = x.clamp(-87.0, 89.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let p = p * (r * r) + r + 1.0;
    // 2^(n - 1) * 2p, as 2^128 is not an f32. At the lower end the exponent's bits are 0, and so is the factor.
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(126);
    2.0 * p * f32::from_bits(exponent << 23)
}

/// 1 / (1 + e^-x)
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Σ aᵢ bᵢ
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, a_tail) = a.as_chunks::<LANES>();
    let (b, b_tail) = b.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            sums[i] += a[i] * b[i];
        }
    }
    for (i, (a, b)) in a_tail.iter().zip(b_tail).enumerate() {
        sums[i] += a * b;
    }
    total(sums)
}

/// The largest value; NaN is passed over.
#[inline(always)]
pub(super) fn max(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (x, tail) = x.as_chunks::<LANES>();
    let mut maxima = [f32::NEG_INFINITY; LANES];
    for x in x {
        for i in 0..LANES {
            maxima[i] = larger(maxima[i], x[i]);
        }
    }
    maxima.iter().chain(tail).fold(f32::NEG_INFINITY, |a, &b| larger(a, b))
}

/// Replaces each xᵢ by exp(scale (xᵢ - shift)) and returns their sum.
#[inline(always)]
pub(super) fn exp_in_place(x: &mut [f32], scale: f32, shift: f32) -> f32 {
    let (x, tail) = x.as_chunks_mut::<LANES>();
    let mut sums = [0.0; LANES];
    for x in x {
        for i in 0..LANES {
            x[i] = exp(scale * (x[i] - shift));
            sums[i] += x[i];
        }
    }
    for (x, sum) in tail.iter_mut().zip(&mut sums) {
        *x = exp(scale * (*x - shift));
        *sum += *x;
    }
    total(sums)
}

/// Σ exp(xᵢ - shift)
#[inline(always)]
pub(super) fn exp_sum(x: &[f32], shift: f32) -> f32 {
    let (x, tail) = x.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for x in x {
        for i in 0..LANES {
            sums[i] += exp(x[i] - shift);
        }
    }
    for (x, sum) in tail.iter().zip(&mut sums) {
        *sum += exp(*x - shift);
    }
    total(sums)
}

/// The sum of the partial sums, by halves.
#[inline(always)]
fn total(mut sums: [f32; LANES]) -> f32 {
    let mut n = LANES;
    while n > 1 {
        n /= 2;
        for i in 0..n {
            sums[i] += sums[i + n];
        }
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The distance of eˣ from the true value, in units of the last place of the latter.
    fn error(x: f32) -> f64 {
        let want = f64::from(x).exp();
        let ulp = 2f64.powi(want.log2().floor() as i32 - 23);
        (f64::from(exp(x)) - want).abs() / ulp
    }

    #[test]
    fn exp_is_within_its_bound_of_the_true_value() {
        // Every 1021st f32 from -86.9 to the largest argument with a finite result: over two million of each sign.
        let negative = (0..(86.9f32).to_bits()).step_by(1021).map(|b| -f32::from_bits(b));
        let positive = (0..=(88.722_83_f32).to_bits()).step_by(1021).map(f32::from_bits);
        let worst = negative.chain(positive).map(|x| (error(x), x)).fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a });
        assert!(worst.0 <= 1.0, "{} ulp at {}", worst.0, worst.1);
    }

    #[test]
    fn exp_at_the_edges() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        assert_eq!(exp(88.722_84), f32::INFINITY);
        assert_eq!(exp(1e30), f32::INFINITY);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(-88.0), 0.0);
        assert_eq!(exp(f32::MIN), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn reductions_take_every_element_once() {
        for n in [1, 2, 15, 16, 17, 31, 32, 33, 50] {
            // Small integers, so that any order of summation is exact.
            let a: Vec<f32> = (1..=n).map(|i| i as f32).collect();
            assert_eq!(dot(&a, &a), a.iter().map(|a| a * a).sum::<f32>());
            for last in 0..n {
                let mut x = vec![-3.0; n];
                x[last] = -2.0;
                assert_eq!(max(&x), -2.0);
                x[last] = f32::NEG_INFINITY;
                assert_eq!(exp_sum(&x, -3.0), (n - 1) as f32);
                assert_eq!(exp_in_place(&mut x, 7.0, -3.0), (n - 1) as f32);
                assert!(x.iter().enumerate().all(|(i, &y)| y == if i == last { 0.0 } else { 1.0 }));
            }
        }
    }
}
