//! Where golden data is, and how it is opened.

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The path of a golden file.
pub fn path(name: &str) -> PathBuf {
    let folder = std::env::var_os("BLOCKLLM_GOLDEN").map(PathBuf::from);
    folder.unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/golden"))).join(name)
}

/// The bytes of a golden file.
///
/// # Panics
/// Where it cannot be read: a test then fails, it does not skip.
pub fn bytes(name: &str) -> Vec<u8> {
    let path = path(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A golden JSON file.
///
/// # Panics
/// Where it is not JSON.
pub fn json(name: &str) -> Value {
    serde_json::from_slice(&bytes(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// A tensor's elements as f64; f32 and u8 widen exactly.
///
/// # Panics
/// Where there is no such tensor, or it has another type.
pub fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f64> {
    let t = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    match t.dtype() {
        Dtype::F32 => t.data().as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
        Dtype::F64 => t.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        Dtype::U8 => t.data().iter().map(|&b| f64::from(b)).collect(),
        other => panic!("{name}: {other:?}"),
    }
}

/// The shape of a tensor.
///
/// # Panics
/// Where there is no such tensor.
pub fn shape(file: &SafeTensors<'_>, name: &str) -> Vec<usize> {
    file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}")).shape().to_vec()
}

/// What a golden safetensors file says of itself: text by key.
///
/// # Panics
/// Where it is not a safetensors file.
pub fn metadata(bytes: &[u8]) -> BTreeMap<String, String> {
    let (_, header) = SafeTensors::read_metadata(bytes).expect("a safetensors file");
    header.metadata().clone().unwrap_or_default().into_iter().collect()
}

/// Asserts |got - want| within a bound for each element.
///
/// # Panics
/// With the place and both values, where one is farther away.
pub fn close(at: &str, got: &[f64], want: &[f64], bound: impl Fn(usize) -> f64) {
    assert_eq!(got.len(), want.len(), "{at}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= bound(i), "{at}[{i}]: {g:e}, the golden file has {w:e}, bound {:e}", bound(i));
    }
}

/// A float that is stored as the bit pattern of an f64.
///
/// # Panics
/// Where the value is not an unsigned integer.
pub fn from_bits(v: &Value) -> f64 {
    f64::from_bits(v.as_u64().unwrap_or_else(|| panic!("{v} is no bit pattern")))
}
