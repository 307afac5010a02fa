//! Step 2: blocks, a configuration, and whole steps.

use crate::framework::{Model, Tensor};
use crate::step_1_tensors::Host;
use blockllm::{BlockSpec, Config, Optimizer, Reference, Step, names};
use std::error::Error;

pub type Engine = Optimizer<Reference<Host>>;

/// One block a weight; layers and categories from their names, for policies that go by them.
pub fn register(model: &Model, config: Config) -> Result<Engine, Box<dyn Error>> {
    let specs = model.names.iter().zip(&model.weights).map(|(name, w)| BlockSpec::new(*name, w.shape));
    let mut blocks: Vec<BlockSpec> = specs.collect();
    let unknown = names::set_layers(&mut blocks, names::place);
    assert!(unknown.is_empty(), "parameters that no layout knows: {unknown:?}");
    Ok(Optimizer::new(Reference::default(), &blocks, config)?)
}

/// Handles to all parameters, by block.
pub fn parameters(model: &Model) -> Vec<(u32, Tensor)> {
    (0..).zip(model.weights.iter().cloned()).collect()
}

pub fn train(model: &Model, optimizer: &mut Engine, steps: u64) -> Result<f64, Box<dyn Error>> {
    let mut last = 0.0;
    for step in 0..steps {
        let (loss, backward) = model.forward(step);
        let mut gradients = vec![None; model.weights.len()];
        backward.run(|_| true, |block, g| gradients[block] = Some(g));
        let _ = optimizer.step(Step::new(1e-2).loss(loss), |b| gradients[b as usize].clone(), &mut parameters(model))?;
        optimizer.wait()?; // on a device: poll while you load the next batch
        last = loss;
    }
    Ok(last)
}
