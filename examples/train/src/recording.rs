//! Gradients of the main job, recorded step by step: real data for tests of backends.

use blockllm::{BlockId, BlockSpec, Config, Optimizer, Progress, Reference, Slices, Step, View, ViewMut};
use candle_core::{Device, Tensor};

use crate::batch::Batch;
use crate::corpus::{self, Corpus};
use crate::model::{Model, Sizes};

/// The first steps of the main job under the default configuration.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The model's 57 weights, f32.
    pub specs: Vec<BlockSpec>,
    /// How they were trained: the default, clipped, with a decision on every third step so that some fall into ten.
    pub config: Config,
    /// Learning rate of each step.
    pub lr: f64,
    /// The weights before the first step, by block.
    pub weights: Vec<Vec<f32>>,
    /// By step, by block.
    pub gradients: Vec<Vec<Vec<f32>>>,
}

type Failed = Box<dyn std::error::Error>;

fn elements(t: &Tensor) -> Result<Vec<f32>, Failed> {
    Ok(t.flatten_all()?.to_vec1()?)
}

/// Trains the standard model for some steps with the reference, and keeps what backward gave.
///
/// # Errors
/// The model's or the engine's.
pub fn record(steps: usize) -> Result<Recording, Failed> {
    let (sizes, seed, lr) = (Sizes::STANDARD, 0, 2e-3);
    let text = Corpus::load(&corpus::built_in(), sizes.context).map_err(|e| format!("{e:?}"))?;
    let model = Model::new(sizes, seed)?;
    let vars: Vec<_> = model.weights().iter().map(|w| w.var().clone()).collect();
    let spec = |(name, shape): (String, Vec<usize>)| BlockSpec::new(name, [1, shape.iter().product()]);
    let specs: Vec<BlockSpec> = sizes.weights().into_iter().map(spec).collect();
    let policy = blockllm::Policy::BlockLlm(blockllm::Trigger::Period(3));
    let config = Config { clip: Some(1.0), policy, ..Config::default() };
    let mut optimizer = Optimizer::new(Reference::<Slices>::default(), &specs, config.clone())?;
    let mut weights = vars.iter().map(|v| elements(v)).collect::<Result<Vec<_>, _>>()?;
    let mut out = Recording { specs, config, lr, weights: weights.clone(), gradients: Vec::new() };
    for step in 1..=steps {
        let batch = Batch::random(&text.train, seed, step, sizes.batch, sizes.context)?;
        let grads = model.loss(&batch)?.backward()?;
        let of = |v: &candle_core::Var| grads.get(v).ok_or_else(|| Failed::from("a weight without a gradient"));
        let gradients = vars.iter().map(|v| elements(of(v)?)).collect::<Result<Vec<_>, Failed>>()?;
        let mut params: Vec<_> = (0..).zip(weights.iter_mut().map(|w| ViewMut::F32(w))).collect();
        let at_hand = |b: BlockId| Some(View::F32(&gradients[b as usize]));
        if optimizer.step(Step::new(lr), at_hand, &mut params)? == Progress::Pending {
            optimizer.wait()?;
        }
        for (var, w) in vars.iter().zip(&weights) {
            var.set(&Tensor::from_slice(w, var.shape(), &Device::Cpu)?)?;
        }
        out.gradients.push(gradients);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_weight_has_a_gradient_on_every_step() {
        let r = record(2).unwrap();
        assert_eq!((r.specs.len(), r.gradients.len()), (57, 2));
        for step in &r.gradients {
            assert!(step.iter().zip(&r.specs).all(|(g, s)| g.len() == s.len() && g.iter().any(|x| *x != 0.0)));
        }
        assert_ne!(r.gradients[0], r.gradients[1]);
    }
}
