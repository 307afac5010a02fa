//! What is refused, and that the message names it.
#![allow(missing_docs)]

mod common;

use blockllm_candle::ops::{self, RotaryTable};
use blockllm_candle::{Embedding, Linear, Parameter, ParameterStore, RmsNorm};
use candle_core::{DType, Device, Result, Tensor, Var};
use common::Random;
use std::fmt::Debug;

/// The error, which must contain all of the words.
#[track_caller]
fn assert_refused<T: Debug>(result: Result<T>, words: &[&str]) {
    let error = result.expect_err("was accepted").to_string();
    for word in words {
        assert!(error.contains(word), "{error:?} does not say {word:?}");
    }
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()
}

fn parameter(shape: &[usize]) -> Parameter {
    ParameterStore::new().add("weight", &zeros(shape)).unwrap()
}

fn ids(values: &[u32]) -> Tensor {
    Tensor::new(values, &Device::Cpu).unwrap()
}

#[test]
fn registration() -> Result<()> {
    let mut store = ParameterStore::new();
    let tensor = zeros(&[2, 3]);
    let var = Var::from_tensor(&tensor)?;
    store.add("a", &tensor)?;
    let b = store.add("b", &var)?;
    assert_eq!((b.block(), b.var().id()), (1, var.id()), "a Var is used as it is");
    assert_refused(store.add("a", &zeros(&[4])), &["named a", "block 0"]);
    assert_refused(store.add("c", &zeros(&[2, 3]).t()?), &["c", "[3, 2]", "not contiguous"]);
    assert_refused(store.add("c", &zeros(&[2, 0])), &["c", "[2, 0]", "no elements"]);
    assert_refused(store.add("c", &ids(&[1])), &["c", "U32", "f16"]);
    assert_refused(store.add("c", &(var.as_tensor() * 2.0)?), &["c", "computed from a variable"]);
    for (same, first) in [(tensor.clone(), "a"), (var.as_tensor().clone(), "b"), (var.detach(), "b"), (var.reshape(6)?, "b")] {
        assert_refused(store.add("c", &same), &["c is the same tensor as", first, "registered once", "cloning"]);
    }
    assert_eq!((store.len(), store.coordinates()), (2, 12), "nothing was added by what was refused");
    for dtype in [DType::F64, DType::F16, DType::BF16] {
        store.add(format!("{dtype:?}"), &zeros(&[5]).to_dtype(dtype)?)?;
    }
    assert_eq!(store.get("F16").unwrap().block(), 3);
    assert!(store.get("c").is_none());
    Ok(())
}

#[test]
fn equal_tensors_that_are_not_the_same_are_no_tie() -> Result<()> {
    let mut store = ParameterStore::new();
    // Each is freed before the next is made, so that addresses come again.
    for i in 0..20 {
        store.add(format!("{i}"), &zeros(&[2, 3]))?;
    }
    // Parts of one large tensor are copied into weights of their own.
    let large = Random(1).tensor(&[4, 6]);
    for i in 0..4 {
        store.add(format!("part {i}"), &large.get(i)?)?;
    }
    Ok(())
}

#[test]
fn layers_refuse_weights_of_another_rank() {
    assert_refused(Linear::new(parameter(&[3])), &["linear", "weight", "[3]", "2 dimensions"]);
    assert_refused(Embedding::new(parameter(&[2, 3, 4])), &["embedding", "weight", "[2, 3, 4]"]);
    assert_refused(RmsNorm::new(parameter(&[2, 3]), 1e-5), &["rms_norm", "weight", "[2, 3]"]);
}

#[test]
fn shapes() -> Result<()> {
    let x = zeros(&[2, 3, 4]);
    let scalar = zeros(&[]);
    let table = RotaryTable::new(5, 4, 1e4)?;
    assert_refused(ops::linear(&x, &parameter(&[5, 3])), &["linear", "[2, 3, 4]", "[5, 3]", "weight"]);
    assert_refused(ops::linear(&x, &parameter(&[4])), &["linear", "[2, 3, 4]", "[4]"]);
    assert_refused(ops::linear(&scalar, &parameter(&[4, 1])), &["linear", "scalar"]);
    assert_refused(ops::embedding(&ids(&[0, 3]), &parameter(&[3, 2])), &["embedding", "id 3", "position 1", "[3, 2]"]);
    assert_refused(ops::embedding(&ids(&[0]), &parameter(&[3])), &["embedding", "[3]"]);
    assert_refused(ops::rms_norm(&x, &parameter(&[3]), 1e-5), &["rms_norm", "[2, 3, 4]", "[3]"]);
    assert_refused(ops::rms_norm(&x, &parameter(&[4]), f32::NAN), &["rms_norm", "epsilon", "NaN"]);
    assert_refused(ops::residual(&x, &zeros(&[2, 4, 3])), &["residual", "[2, 3, 4]", "[2, 4, 3]"]);
    assert_refused(ops::matmul(&x, &x), &["matmul", "[2, 3, 4]", "[.., K, N]"]);
    assert_refused(ops::matmul(&x, &zeros(&[1, 4, 3])), &["matmul", "[1, 4, 3]"]);
    assert_refused(ops::matmul(&zeros(&[4]), &zeros(&[4])), &["matmul", "[4]"]);
    assert_refused(ops::matmul_transposed(&x, &zeros(&[2, 4, 3])), &["matmul_transposed", "[.., N, K]"]);
    assert_refused(ops::rope(&zeros(&[2, 3, 6]), &table), &["rope", "[2, 3, 6]", "H * 4"]);
    assert_refused(ops::rope(&zeros(&[6, 4]), &table), &["rope", "[6, 4]", "at most 5"]);
    assert_refused(ops::rope(&zeros(&[4]), &table), &["rope", "[4]"]);
    assert_refused(RotaryTable::new(5, 3, 1e4), &["rope", "dimension 3", "even"]);
    assert_refused(RotaryTable::new(0, 4, 1e4), &["rope", "0 positions"]);
    assert_refused(RotaryTable::new(5, 4, 0.0), &["rope", "base"]);
    assert_refused(ops::causal_softmax(&x, 1.0), &["causal_softmax", "[2, 3, 4]"]);
    assert_refused(ops::causal_softmax(&scalar, 1.0), &["causal_softmax", "[]"]);
    assert_refused(ops::causal_softmax(&zeros(&[3, 3]), -1.0), &["causal_softmax", "scale", "-1"]);
    assert_refused(ops::swiglu(&x, &zeros(&[3, 4])), &["swiglu", "[2, 3, 4]", "[3, 4]"]);
    assert_refused(ops::cross_entropy(&x, &ids(&[1, 2])), &["cross_entropy", "[2, 3, 4]", "[2]"]);
    assert_refused(ops::cross_entropy(&zeros(&[2, 3]), &ids(&[0, 3])), &["cross_entropy", "target 3", "row 1"]);
    assert_refused(ops::split_heads(&x, 3), &["split_heads", "[2, 3, 4]", "3 * D"]);
    assert_refused(ops::split_heads(&x, 0), &["split_heads"]);
    assert_refused(ops::merge_heads(&x), &["merge_heads", "[2, 3, 4]", "[B, H, T, D]"]);
    let attention = |q: &[usize], k: &[usize], v: &[usize]| ops::causal_attention(&zeros(q), &zeros(k), &zeros(v), &table);
    assert_refused(attention(&[2, 3, 6], &[2, 3, 6], &[2, 3, 6]), &["causal_attention", "[2, 3, 6]", "H * 4"]);
    assert_refused(attention(&[2, 6, 4], &[2, 6, 4], &[2, 6, 4]), &["causal_attention", "at most 5"]);
    assert_refused(attention(&[2, 3, 4], &[2, 2, 4], &[2, 3, 4]), &["causal_attention", "[2, 2, 4]"]);
    assert_refused(attention(&[2, 3, 4], &[2, 3, 4], &[1, 3, 4]), &["causal_attention", "[1, 3, 4]"]);
    Ok(())
}

/// Every operation on these operands, as far as they take floats: x `[2, 4, 4]`, w `[4, 4]`, v `[4]`.
fn all(x: &Tensor, w: &Parameter, v: &Parameter) -> Vec<(&'static str, Result<Tensor>)> {
    let table = RotaryTable::new(4, 4, 1e4).unwrap();
    let ok = zeros(&[2, 4, 4]);
    let targets = Random(1).ids(&[2, 4], 4);
    let mut results = vec![
        ("linear", ops::linear(x, w)),
        ("rms_norm", ops::rms_norm(x, v, 1e-5)),
        ("rope", ops::rope(x, &table)),
        ("causal_softmax", ops::causal_softmax(x, 1.0)),
        ("cross_entropy", ops::cross_entropy(x, &targets)),
        ("split_heads", ops::split_heads(x, 2)),
        ("merge_heads", x.unsqueeze(0).and_then(|x| ops::merge_heads(&x))),
        ("causal_attention", ops::causal_attention(x, &ok, &ok, &table)),
        ("causal_attention", ops::causal_attention(&ok, x, &ok, &table)),
        ("causal_attention", ops::causal_attention(&ok, &ok, x, &table)),
    ];
    for (a, b) in [(x, &ok), (&ok, x)] {
        results.push(("residual", ops::residual(a, b)));
        results.push(("matmul", ops::matmul(a, b)));
        results.push(("matmul_transposed", ops::matmul_transposed(a, b)));
        results.push(("swiglu", ops::swiglu(a, b)));
    }
    results
}

#[test]
fn dtypes_strides_and_empty_operands() -> Result<()> {
    let (w, v) = (parameter(&[4, 4]), parameter(&[4]));
    let x = zeros(&[2, 4, 4]);
    for (name, result) in all(&x, &w, &v) {
        assert!(result.is_ok(), "{name}: {result:?}");
    }
    for dtype in [DType::F64, DType::BF16, DType::F16, DType::U32] {
        for (name, result) in all(&x.to_dtype(dtype)?, &w, &v) {
            assert_refused(result, &[name, &format!("{dtype:?}"), "expected F32"]);
        }
    }
    for (name, result) in all(&x.t()?, &w, &v) {
        assert_refused(result, &[name, "2, 4, 4]", "not contiguous"]);
    }
    for (name, result) in all(&zeros(&[2, 0, 4]), &w, &v) {
        assert_refused(result, &[name, "0", "no elements"]);
    }
    let half = |shape: &[usize]| ParameterStore::new().add("half", &zeros(shape).to_dtype(DType::BF16).unwrap()).unwrap();
    assert_refused(ops::linear(&x, &half(&[4, 4])), &["linear", "half", "BF16", "expected F32"]);
    assert_refused(ops::rms_norm(&x, &half(&[4]), 1e-5), &["rms_norm", "half", "BF16"]);
    assert_refused(ops::embedding(&ids(&[1]), &half(&[4, 4])), &["embedding", "half", "BF16"]);
    assert_refused(ops::embedding(&zeros(&[2]), &w), &["embedding", "ids", "F32", "expected U32"]);
    assert_refused(ops::embedding(&Tensor::zeros(0, DType::U32, &Device::Cpu)?, &w), &["embedding", "ids", "no elements"]);
    assert_refused(ops::cross_entropy(&x, &zeros(&[2, 4])), &["cross_entropy", "targets", "expected U32"]);
    Ok(())
}
