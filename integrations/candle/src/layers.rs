//! Layers that hold their weight. Each forward pass reads whether the weight is wanted, so that a model is built once.

use crate::{Parameter, ops};
use candle_core::{Module, Result, Tensor, bail};

/// y = x wᵀ without bias; x `[.., K]`, w `[N, K]`, y `[.., N]`. A forward pass keeps x for backward only where w is wanted.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Parameter,
}

impl Linear {
    /// A layer with this weight.
    ///
    /// # Errors
    /// The weight is not a matrix.
    pub fn new(weight: Parameter) -> Result<Self> {
        check_rank("linear", &weight, 2)?;
        Ok(Self { weight })
    }

    /// The weight, `[N, K]`.
    pub fn weight(&self) -> &Parameter {
        &self.weight
    }
}

impl Module for Linear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::linear(x, &self.weight)
    }
}

/// A table of vectors, one a token; ids `[..]` of u32, table `[V, D]`, y `[.., D]`.
#[derive(Clone, Debug)]
pub struct Embedding {
    table: Parameter,
}

impl Embedding {
    /// A layer with this table.
    ///
    /// # Errors
    /// The table is not a matrix.
    pub fn new(table: Parameter) -> Result<Self> {
        check_rank("embedding", &table, 2)?;
        Ok(Self { table })
    }

    /// The table, `[V, D]`.
    pub fn table(&self) -> &Parameter {
        &self.table
    }
}

impl Module for Embedding {
    fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        ops::embedding(ids, &self.table)
    }
}

/// y = w x / sqrt(mean(x²) + epsilon); x `[.., D]`, w `[D]`.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    weight: Parameter,
    epsilon: f32,
}

impl RmsNorm {
    /// A layer with this weight.
    ///
    /// # Errors
    /// The weight is not a vector.
    pub fn new(weight: Parameter, epsilon: f32) -> Result<Self> {
        check_rank("rms_norm", &weight, 1)?;
        Ok(Self { weight, epsilon })
    }

    /// The weight, `[D]`.
    pub fn weight(&self) -> &Parameter {
        &self.weight
    }
}

impl Module for RmsNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::rms_norm(x, &self.weight, self.epsilon)
    }
}

fn check_rank(layer: &str, weight: &Parameter, rank: usize) -> Result<()> {
    if weight.shape().rank() != rank {
        bail!("{layer}: {} has shape {:?}, expected {rank} dimensions", weight.name(), weight.shape())
    }
    Ok(())
}
