//! Recorded steps of a real training run, fed to a backend beside the reference; parameters and state are compared after
//! each.

use crate::drive::Drive;
use crate::harness::Harness;
use crate::host::Host;
use crate::lockstep::Lockstep;
use blockllm::{BlockSpec, Config, Step};

/// Feeds the steps' gradients (by step, by block) to a backend.
///
/// # Panics
/// Where it differs from the reference, or the recording neither decides nor switches.
pub fn replay<H: Harness>(
    h: &mut H, specs: &[BlockSpec], config: &Config, lr: f64, weights: &[Vec<f32>], gradients: &[Vec<Vec<f32>>],
) {
    let params = weights.iter().map(|w| Host::F32(w.clone())).collect();
    let mut pair = Lockstep::new(h, specs, config, params, Drive::Whole, "main job");
    let mut switches = 0;
    for step in gradients {
        let grads = vec![step.iter().map(|g| Host::F32(g.clone())).collect::<Vec<_>>()];
        switches += usize::from(pair.step(Step::new(lr), &grads).switched);
    }
    assert!(switches >= 3, "{switches} switches in {} steps", gradients.len());
}
