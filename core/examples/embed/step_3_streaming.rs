//! Step 3: only the gradients that are wanted, one at a time, in windows of micro-batches.

use crate::framework::Model;
use crate::step_2_whole_steps::{Engine, parameters};
use blockllm::Step;
use std::error::Error;

/// One step over `micro_batches` batches. Returns the mean of their losses.
pub fn window(model: &Model, optimizer: &mut Engine, lr: f64, batches: &[u64]) -> Result<f64, Box<dyn Error>> {
    let count = batches.len() as u32;
    // The engine sums; 1/n makes it the mean.
    let step = Step { inv_loss_scale: 1.0 / f64::from(count), ..Step::new(lr).micro_batches(count) };
    let mut mean = 0.0;
    for (i, batch) in batches.iter().enumerate() {
        let (loss, backward) = model.forward(*batch);
        mean += loss / f64::from(count);
        match i {
            0 => optimizer.begin(step.loss(mean))?,
            _ => optimizer.next_micro_batch(Some(mean))?, // the last one's counts
        }
        let wanted: Vec<u32> = optimizer.wanted()?.iter().map(|w| w.block).collect();
        let mut done = Ok(());
        backward.run(
            |block| wanted.contains(&(block as u32)),
            |block, g| {
                let mut parameter = model.weights[block].clone();
                let taken = optimizer.grad_with(block as u32, &g, &mut parameter); // `g` may be freed now
                done = std::mem::replace(&mut done, Ok(())).and(taken);
            },
        );
        done?;
    }
    let _ = optimizer.finish(&mut parameters(model))?;
    optimizer.wait()?;
    Ok(mean)
}
