//! Every operation against candle's own: the result, the gradients, and that any subset of operands may be idle.
//!
//! candle computes in f64, so that a difference is the error of this crate. Tolerances are relative to the largest value
//! compared, or to the terms it is the sum of, where these cancel.
#![allow(missing_docs)]

mod common;

use blockllm_candle::ops::{self, RotaryTable};
use blockllm_candle::{Embedding, Linear, Module, Parameter, ParameterStore, RmsNorm};
use candle_core::{D, DType, Device, Result, Tensor, Var};
use common::{Random, bits, contents, values};

/// Eight roundings of f32, of 2^-24 each: sums of at most 130 terms, whose errors mostly cancel, and an exp of 1 ulp.
const TOLERANCE: f64 = 8.0 / (1 << 24) as f64;

/// `terms`: the size of the terms that may cancel.
fn assert_close(what: &str, got: &Tensor, want: &Tensor, terms: f64) {
    assert_eq!(got.dims(), want.dims(), "{what}: shape");
    let got = values(got);
    let want: Vec<f64> = want.flatten_all().unwrap().to_vec1().unwrap();
    let scale = want.iter().fold(terms, |a, b| a.max(b.abs()));
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        let error = (f64::from(*got) - want).abs();
        assert!(error <= TOLERANCE * scale, "{what}[{i}]: {got} but {want}, error {error:e} of {scale}");
    }
}

/// A sum of all values with fixed weights, through operations that leave nothing behind in the `GradStore`.
fn weighted_sum(y: &Tensor) -> Result<Tensor> {
    let weights = Random(99).tensor(&[y.elem_count(), 1]);
    match y.dtype() {
        DType::F32 => ops::matmul(&y.reshape((1, ()))?, &weights),
        dtype => y.reshape((1, ()))?.matmul(&weights.to_dtype(dtype)?),
    }
}

/// `ours` takes operands as parameters, each with random values in (-size, size), and uses `tensor()` of those that are
/// not weights; `stock` computes the same by candle's operations, in f64.
fn check(
    name: &str, shapes: &[&[usize]], size: f64, terms: f64, ours: impl Fn(&[Parameter]) -> Result<Tensor>,
    stock: impl Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<()> {
    let mut random = Random(shapes.iter().flat_map(|s| s.iter()).fold(7, |a, b| a * 31 + *b as u64));
    let mut store = ParameterStore::new();
    let operands: Vec<Parameter> = shapes
        .iter()
        .enumerate()
        .map(|(i, shape)| store.add(format!("{name} {shapes:?} operand {i}"), &(random.tensor(shape) * size)?))
        .collect::<Result<_>>()?;
    let double = |p: &Parameter| Ok(Var::from_tensor(&p.var().to_dtype(DType::F64)?)?.into_inner());
    let inputs: Vec<Tensor> = operands.iter().map(double).collect::<Result<_>>()?;
    let (got, want) = (ours(&operands)?, stock(&inputs)?);
    assert_close(&format!("{name} {shapes:?}"), &got, &want, terms);
    let (got, want) = (weighted_sum(&got)?.backward()?, weighted_sum(&want)?.backward()?);
    for (p, input) in operands.iter().zip(&inputs) {
        let (Some(got), Some(want)) = (got.get(p.var()), want.get(input)) else { panic!("{}: no gradient", p.name()) };
        assert_close(&format!("gradient of {}", p.name()), got, want, terms);
    }
    // Every subset of recorded operands but none: their gradients to the bit, and nothing else stored.
    for subset in 1..1 << operands.len() {
        store.set_wanted(|block| subset >> block & 1 == 1);
        let part = weighted_sum(&ours(&operands)?)?.backward()?;
        let wanted: Vec<_> = operands.iter().filter(|p| p.is_wanted()).collect();
        assert_eq!(contents(&part).0, wanted.iter().map(|p| p.var().id()).collect(), "{name} {shapes:?} {subset:b}");
        for p in wanted {
            let (part, all) = (part.get(p.var()).unwrap(), got.get(p.var()).unwrap());
            assert_eq!(bits(part), bits(all), "{} in subset {subset:b}", p.name());
        }
    }
    Ok(())
}

#[test]
fn linear() -> Result<()> {
    for (leading, k, n) in [(&[][..], 3, 2), (&[1], 1, 1), (&[5], 7, 3), (&[2, 3], 17, 33), (&[2, 3, 4], 130, 5)] {
        let x: Vec<usize> = leading.iter().copied().chain([k]).collect();
        let y: Vec<usize> = leading.iter().copied().chain([n]).collect();
        check(
            "linear",
            &[&x, &[n, k]],
            1.0,
            0.0,
            |p| Linear::new(p[1].clone())?.forward(&p[0].tensor()),
            |t| candle_nn::Linear::new(t[1].clone(), None).forward(&t[0].reshape(((), k))?)?.reshape(&y[..]),
        )?;
    }
    Ok(())
}

#[test]
fn embedding() -> Result<()> {
    // Several ids occur more than once, so that their gradients add up.
    for (ids, v, d) in [(&[1][..], 1, 1), (&[9], 4, 3), (&[2, 13], 5, 17), (&[2, 2, 3], 300, 40)] {
        let ids = Random(3).ids(ids, v);
        check(
            "embedding",
            &[&[v, d]],
            1.0,
            0.0,
            |p| Embedding::new(p[0].clone())?.forward(&ids),
            |t| candle_nn::Embedding::new(t[0].clone(), d).forward(&ids),
        )?;
    }
    Ok(())
}

#[test]
fn rms_norm() -> Result<()> {
    // The last has more rows than one part of the sum over rows.
    for shape in [&[1][..], &[5], &[3, 1], &[2, 3, 17], &[2, 2, 2, 130], &[300, 100]] {
        let d = *shape.last().unwrap();
        for epsilon in [1e-5, 1e-1] {
            check(
                "rms_norm",
                &[shape, &[d]],
                1.0,
                1.0,
                |p| RmsNorm::new(p[1].clone(), epsilon)?.forward(&p[0].tensor()),
                |t| candle_nn::RmsNorm::new(t[1].clone(), epsilon as f64).forward_diff(&t[0]),
            )?;
        }
    }
    Ok(())
}

#[test]
fn residual() -> Result<()> {
    // Around the length of the blocks in which it is computed.
    for shape in [&[][..], &[1], &[255], &[256], &[257], &[3, 11, 40]] {
        check("residual", &[shape, shape], 1.0, 0.0, |p| ops::residual(&p[0].tensor(), &p[1].tensor()), |t| &t[0] + &t[1])?;
    }
    Ok(())
}

#[test]
fn matmul() -> Result<()> {
    for (leading, m, k, n) in [(&[][..], 3, 5, 7), (&[1], 1, 1, 1), (&[4], 17, 3, 33), (&[2, 3], 9, 65, 4)] {
        let with = |a, b| leading.iter().copied().chain([a, b]).collect::<Vec<usize>>();
        check(
            "matmul",
            &[&with(m, k), &with(k, n)],
            1.0,
            0.0,
            |p| ops::matmul(&p[0].tensor(), &p[1].tensor()),
            |t| t[0].matmul(&t[1]),
        )?;
        check(
            "matmul_transposed",
            &[&with(m, k), &with(n, k)],
            1.0,
            0.0,
            |p| ops::matmul_transposed(&p[0].tensor(), &p[1].tensor()),
            |t| t[0].matmul(&t[1].t()?),
        )?;
    }
    Ok(())
}

/// cos and sin of the rotary angles, `[T, D / 2]`.
fn angles(t: usize, d: usize) -> Result<(Tensor, Tensor)> {
    let of = |f: fn(f64) -> f64| {
        let value = |i: usize| f((i / (d / 2)) as f64 / 1e4f64.powf(2.0 * (i % (d / 2)) as f64 / d as f64));
        Tensor::from_vec((0..t * d / 2).map(value).collect(), (t, d / 2), &Device::Cpu)
    };
    Ok((of(f64::cos)?, of(f64::sin)?))
}

fn stock_split(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (b, t, width) = x.dims3()?;
    x.reshape((b, t, heads, width / heads))?.transpose(1, 2)?.contiguous()
}

fn stock_merge(x: &Tensor) -> Result<Tensor> {
    let (b, h, t, d) = x.dims4()?;
    x.transpose(1, 2)?.contiguous()?.reshape((b, t, h * d))
}

fn stock_softmax(x: &Tensor, scale: f64) -> Result<Tensor> {
    let t = x.dim(D::Minus1)?;
    let future: Vec<u8> = (0..t * t).map(|i| u8::from(i % t > i / t)).collect();
    let future = Tensor::from_vec(future, (t, t), &Device::Cpu)?.broadcast_as(x.shape())?;
    let never = Tensor::new(f64::NEG_INFINITY, &Device::Cpu)?.broadcast_as(x.shape())?;
    candle_nn::ops::softmax(&future.where_cond(&never, &(x * scale)?)?, D::Minus1)
}

#[test]
fn rope() -> Result<()> {
    // The last is computed in two parts.
    for (b, h, t, d) in [(1, 1, 1, 2), (2, 3, 5, 4), (1, 2, 19, 34), (2, 3, 50, 64)] {
        // More positions than are used.
        let table = RotaryTable::new(t + 3, d, 1e4)?;
        let (cos, sin) = angles(t, d)?;
        check(
            "rope",
            &[&[b, h, t, d]],
            1.0,
            0.0,
            |p| ops::rope(&p[0].tensor(), &table),
            |t| candle_nn::rotary_emb::rope_i_slow(&t[0], &cos, &sin),
        )?;
        check(
            "rope, heads side by side",
            &[&[b, t, h * d]],
            1.0,
            0.0,
            |p| ops::rope(&p[0].tensor(), &table),
            |t| stock_merge(&candle_nn::rotary_emb::rope_i_slow(&stock_split(&t[0], h)?, &cos, &sin)?),
        )?;
    }
    Ok(())
}

#[test]
fn causal_softmax() -> Result<()> {
    for (shape, scale) in [(&[1, 1][..], 1.0), (&[2, 3, 3], 0.3), (&[2, 2, 17, 17], 0.125), (&[3, 40, 40], 1.0)] {
        for size in [1.0, 30.0] {
            check(
                "causal_softmax",
                &[shape],
                size,
                1.0,
                |p| ops::causal_softmax(&p[0].tensor(), scale),
                |t| stock_softmax(&t[0], scale as f64),
            )?;
        }
    }
    Ok(())
}

#[test]
fn swiglu() -> Result<()> {
    for shape in [&[1][..], &[255], &[257], &[2, 3, 170]] {
        // The greatest reach e^90, which overflows to a sigmoid of 0.
        for size in [1.0, 90.0] {
            let ours = |p: &[Parameter]| ops::swiglu(&p[0].tensor(), &p[1].tensor());
            check("swiglu", &[shape, shape], size, 0.0, ours, |t| t[0].silu()? * &t[1])?;
        }
    }
    Ok(())
}

#[test]
fn cross_entropy() -> Result<()> {
    // The last has more rows than one part.
    for (leading, v) in [(&[1][..], 2), (&[5], 3), (&[2, 7], 19), (&[200], 130)] {
        let shape: Vec<usize> = leading.iter().copied().chain([v]).collect();
        let targets = Random(5).ids(leading, v);
        for size in [1.0, 50.0] {
            check(
                "cross_entropy",
                &[&shape],
                size,
                1.0,
                |p| ops::cross_entropy(&p[0].tensor(), &targets),
                |t| candle_nn::loss::cross_entropy(&t[0].reshape(((), v))?, &targets.flatten_all()?),
            )?;
        }
    }
    Ok(())
}

#[test]
fn heads() -> Result<()> {
    for (b, h, t, d) in [(1, 1, 1, 1), (2, 3, 5, 4), (3, 2, 7, 9)] {
        check("split_heads", &[&[b, t, h * d]], 1.0, 0.0, |p| ops::split_heads(&p[0].tensor(), h), |t| stock_split(&t[0], h))?;
        check("merge_heads", &[&[b, h, t, d]], 1.0, 0.0, |p| ops::merge_heads(&p[0].tensor()), |t| stock_merge(&t[0]))?;
    }
    Ok(())
}

#[test]
fn causal_attention() -> Result<()> {
    // Lengths around the tiles of 4 rows and 16 columns in which it is computed, head dimensions around 16.
    for (b, h, t, d) in [(1, 1, 1, 2), (2, 3, 5, 4), (1, 2, 16, 16), (1, 2, 17, 18), (2, 1, 34, 6), (1, 1, 67, 32)] {
        let table = RotaryTable::new(t, d, 1e4)?;
        let (cos, sin) = angles(t, d)?;
        let scale = 1.0 / (d as f64).sqrt();
        let shape = [b, t, h * d];
        let stock = |x: &[Tensor]| {
            let rotated = |x: &Tensor| candle_nn::rotary_emb::rope_i_slow(&stock_split(x, h)?, &cos, &sin);
            let p = stock_softmax(&rotated(&x[0])?.matmul(&rotated(&x[1])?.t()?)?, scale)?;
            stock_merge(&p.matmul(&stock_split(&x[2], h)?)?)
        };
        let fused = |p: &[Parameter]| ops::causal_attention(&p[0].tensor(), &p[1].tensor(), &p[2].tensor(), &table);
        let composed = |p: &[Parameter]| {
            let rotated = |p: &Parameter| ops::split_heads(&ops::rope(&p.tensor(), &table)?, h);
            let scores = ops::matmul_transposed(&rotated(&p[0])?, &rotated(&p[1])?)?;
            let p = ops::matmul(&ops::causal_softmax(&scores, scale as f32)?, &ops::split_heads(&p[2].tensor(), h)?)?;
            ops::merge_heads(&p)
        };
        for size in [1.0, 4.0] {
            // Rounding a score by so much of its size alters the probabilities by as much of theirs.
            let terms = size * size * size;
            check("causal_attention", &[&shape[..]; 3], size, terms, fused, stock)?;
            check("attention of single operations", &[&shape[..]; 3], size, terms, composed, stock)?;
        }
    }
    Ok(())
}

#[test]
fn a_position_never_sees_the_future() -> Result<()> {
    let table = RotaryTable::new(19, 4, 1e4)?;
    let [q, k, v] = [1, 2, 3].map(|seed| Random(seed).tensor(&[2, 19, 8]));
    let y = ops::causal_attention(&q, &k, &v, &table)?;
    for t in [1, 4, 16, 18] {
        let altered = |x: &Tensor| {
            let end = (x.narrow(1, t, 19 - t)? * -1e3)?;
            Tensor::cat(&[&x.narrow(1, 0, t)?, &end], 1)?.contiguous()
        };
        let z = ops::causal_attention(&altered(&q)?, &altered(&k)?, &altered(&v)?, &table)?;
        assert_eq!(bits(&z.narrow(1, 0, t)?), bits(&y.narrow(1, 0, t)?), "before {t}");
        assert_ne!(bits(&z.narrow(1, t, 1)?), bits(&y.narrow(1, t, 1)?), "at {t}");
    }
    Ok(())
}

#[test]
fn nan_is_passed_on() -> Result<()> {
    let mut x = vec![1f32; 2 * 6 * 6];
    x[6 * 6 + 7] = f32::NAN;
    let x = Tensor::from_vec(x, (2, 6, 6), &Device::Cpu)?;
    let mut store = ParameterStore::new();
    let w = store.add("w", &Tensor::ones(6, DType::F32, &Device::Cpu)?)?;
    let targets = Tensor::zeros((2, 6), DType::U32, &Device::Cpu)?;
    let table = RotaryTable::new(6, 2, 1e4)?;
    for (name, y) in [
        ("rms_norm", ops::rms_norm(&x, &w, 1e-5)?),
        ("causal_softmax", ops::causal_softmax(&x, 1.0)?),
        ("swiglu", ops::swiglu(&x, &x)?),
        ("cross_entropy", ops::cross_entropy(&x, &targets)?),
        ("causal_attention", ops::causal_attention(&x, &x, &x, &table)?),
    ] {
        assert!(values(&y).iter().any(|y| y.is_nan()), "{name}");
    }
    Ok(())
}

#[test]
fn views_are_read_at_their_place() -> Result<()> {
    let mut store = ParameterStore::new();
    let w = store.add("w", &Random(1).tensor(&[3, 5]))?;
    let all = Random(2).tensor(&[4, 2, 5]);
    // An offset; and a stride that is odd, but of a dimension of size 1.
    let offset = all.narrow(0, 2, 2)?;
    let thin = all.narrow(0, 1, 1)?.narrow(1, 1, 1)?;
    for x in [offset, thin] {
        let copy = Tensor::from_vec(values(&x), x.shape(), &Device::Cpu)?;
        assert_eq!(bits(&ops::linear(&x, &w)?), bits(&ops::linear(&copy, &w)?));
        assert_eq!(bits(&ops::residual(&x, &x)?), bits(&ops::residual(&copy, &copy)?));
    }
    Ok(())
}
