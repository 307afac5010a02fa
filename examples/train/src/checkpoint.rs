//! One checkpoint, as bytes: a safetensors file with the weights, the optimizer's state and the trainer's, which ends with
//! a checksum over everything before it.

use std::io::{self, Write};

use blockllm_candle::{Parameter, ParameterStore};
use candle_core::{Device, Tensor};
use safetensors::tensor::TensorInfo;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::{Context, Failure, Result};
use crate::model::Sizes;

const FORMAT: &str = "blockllm-train";
const VERSION: &str = "1";
const CHECKSUM: &str = "trainer.checksum";
const CHECKSUM_BYTES: usize = 4;

/// A named array.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Leaf {
    /// Its name, unique in the file.
    pub(crate) name: String,
    /// The type of its elements.
    pub(crate) dtype: Dtype,
    /// Its shape.
    pub(crate) shape: Vec<usize>,
    /// Its elements, little-endian.
    pub(crate) bytes: Vec<u8>,
}

impl Leaf {
    /// Plain bytes.
    pub(crate) fn bytes(name: &str, bytes: Vec<u8>) -> Self {
        Self { name: name.to_string(), dtype: Dtype::U8, shape: vec![bytes.len()], bytes }
    }

    /// An f32 array.
    pub(crate) fn f32(name: &str, shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { name: name.to_string(), dtype: Dtype::F32, shape: shape.to_vec(), bytes }
    }

    /// The elements of an f32 array.
    pub(crate) fn to_f32(&self) -> Vec<f32> {
        self.bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes"))).collect()
    }
}

/// Which run a checkpoint belongs to. It is of no use to any other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) method: String,
    pub(crate) policy: String,
    /// The fingerprint of its options.
    pub(crate) options_crc: u32,
    pub(crate) seed: u64,
    pub(crate) steps: usize,
    pub(crate) sizes: Sizes,
    pub(crate) corpus_crc: u32,
}

/// What has been counted since the run began, over all stops.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) reselections: usize,
    pub(crate) skipped: usize,
    pub(crate) params_active_max: usize,
    pub(crate) gradient_bytes_peak: usize,
    /// `None` where the system does not tell.
    pub(crate) peak_rss_bytes: Option<u64>,
    pub(crate) seconds: f64,
}

/// The trainer's own part of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) run: Run,
    /// Steps that are done.
    pub(crate) step: usize,
    /// Bytes of metrics.jsonl that belong to those steps.
    pub(crate) metrics_bytes: u64,
    pub(crate) val_loss_before: f64,
    pub(crate) totals: Totals,
}

/// Writes a checkpoint.
pub(crate) fn write(out: &mut dyn Write, state: &State, leaves: &[Leaf]) -> io::Result<()> {
    // Wide elements first, so that each array lies aligned; the sort is stable.
    let mut leaves: Vec<&Leaf> = leaves.iter().collect();
    leaves.sort_by_key(|leaf| std::cmp::Reverse(leaf.dtype.bitsize()));
    let mut header = Map::new();
    let state = serde_json::to_string(state)?;
    header.insert("__metadata__".into(), json!({ "format": FORMAT, "version": VERSION, "state": state }));
    let mut offset = 0;
    let mut describe = |name: &str, dtype, shape: &[usize], bytes: usize| -> io::Result<()> {
        let info = TensorInfo { dtype, shape: shape.to_vec(), data_offsets: (offset, offset + bytes) };
        offset += bytes;
        header.insert(name.to_string(), serde_json::to_value(info)?);
        Ok(())
    };
    for leaf in &leaves {
        describe(&leaf.name, leaf.dtype, &leaf.shape, leaf.bytes.len())?;
    }
    describe(CHECKSUM, Dtype::U8, &[CHECKSUM_BYTES], CHECKSUM_BYTES)?;
    let mut header = serde_json::to_vec(&Value::Object(header))?;
    header.resize(header.len().next_multiple_of(8), b' ');

    let mut crc = crc32fast::Hasher::new();
    let mut put = |bytes: &[u8]| {
        crc.update(bytes);
        out.write_all(bytes)
    };
    put(&(header.len() as u64).to_le_bytes())?;
    put(&header)?;
    leaves.iter().try_for_each(|leaf| put(&leaf.bytes))?;
    out.write_all(&crc.finalize().to_le_bytes())
}

/// Whether these bytes are a whole file, as `write` made it.
pub(crate) fn is_whole(bytes: &[u8]) -> bool {
    bytes.split_last_chunk::<CHECKSUM_BYTES>().is_some_and(|(content, sum)| crc32fast::hash(content) == u32::from_le_bytes(*sum))
}

/// Reads a checkpoint of which `is_whole` is true.
pub(crate) fn read(bytes: &[u8]) -> Result<(State, Vec<Leaf>)> {
    let foreign = || "it is no checkpoint of this program".to_string();
    let (_, header) = SafeTensors::read_metadata(bytes).context(foreign)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let field = |name: &str| metadata.get(name).map_or("", String::as_str);
    if field("format") != FORMAT {
        return Err(Failure::new(foreign()));
    }
    if field("version") != VERSION {
        return Err(Failure::new(format!("it has version {}, this program reads version {VERSION}", field("version"))));
    }
    let state = serde_json::from_str(field("state")).context(foreign)?;
    let tensors = SafeTensors::deserialize(bytes).context(foreign)?;
    let leaf = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| Leaf {
        name: name.to_string(),
        dtype: view.dtype(),
        shape: view.shape().to_vec(),
        bytes: view.data().to_vec(),
    };
    Ok((state, tensors.iter().filter(|(name, _)| *name != CHECKSUM).map(leaf).collect()))
}

/// The weights, by name.
pub(crate) fn save_weights(weights: &ParameterStore) -> Result<Vec<Leaf>> {
    let leaf = |weight: &Parameter| -> Result<Leaf> {
        let values = weight.var().flatten_all()?.to_vec1::<f32>()?;
        Ok(Leaf::f32(weight.name(), weight.var().dims(), &values))
    };
    weights.iter().map(leaf).collect()
}

/// Sets the weights. All are checked before the first one is changed.
pub(crate) fn restore_weights(weights: &ParameterStore, leaves: &[Leaf]) -> Result<()> {
    let saved = |weight: &Parameter| {
        let fits = |leaf: &&Leaf| leaf.name == weight.name() && leaf.dtype == Dtype::F32 && leaf.shape == weight.var().dims();
        let missing = || Failure::new(format!("the checkpoint has no fitting weight {}", weight.name()));
        leaves.iter().find(fits).ok_or_else(missing)
    };
    let leaves = weights.iter().map(saved).collect::<Result<Vec<_>>>()?;
    for (weight, leaf) in weights.iter().zip(leaves) {
        weight.var().set(&Tensor::from_vec(leaf.to_f32(), leaf.shape.as_slice(), &Device::Cpu)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (State, Vec<Leaf>) {
        let run = Run {
            method: "m".into(),
            policy: "p".into(),
            options_crc: 1,
            seed: u64::MAX,
            steps: 9,
            sizes: Sizes::TINY,
            corpus_crc: 7,
        };
        let state = State { run, step: 3, metrics_bytes: 99, val_loss_before: 0.1, totals: Totals::default() };
        let leaves = vec![Leaf::bytes("odd", vec![1, 2, 3]), Leaf::f32("w", &[1, 2], &[1.5, -0.0]), Leaf::bytes("no", vec![])];
        (state, leaves)
    }

    #[test]
    fn comes_back_and_any_damage_is_seen() {
        let (state, leaves) = sample();
        let mut bytes = Vec::new();
        write(&mut bytes, &state, &leaves).unwrap();
        assert!(is_whole(&bytes));
        let (again, mut read) = read(&bytes).unwrap();
        assert_eq!(again, state);
        read.sort_by_key(|leaf| leaves.iter().position(|l| l.name == leaf.name));
        assert_eq!(read, leaves);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(!is_whole(&damaged) && !is_whole(&bytes[..at]), "byte {at}");
        }
    }

    #[test]
    fn foreign_and_newer_files_are_refused_by_name() {
        let error = |bytes: &[u8]| format!("{:?}", read(bytes).unwrap_err());
        assert!(error(b"no checkpoint").contains("no checkpoint of this program"));
        let mut bytes = Vec::new();
        write(&mut bytes, &sample().0, &[]).unwrap();
        let at = bytes.windows(13).position(|w| w == br#""version":"1""#).unwrap();
        bytes[at + 11] = b'2';
        assert!(error(&bytes).contains("it has version 2"));
    }
}
