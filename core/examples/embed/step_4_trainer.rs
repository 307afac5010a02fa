//! Step 4: a trainer: a schedule, reports, memory told before it is needed, and checkpoints that go on to the bit.

use crate::framework::Model;
use crate::step_2_whole_steps::{Engine, register};
use crate::step_3_streaming::window;
use blockllm::{Config, Record};
use std::error::Error;

/// What is kept between two processes: the engine's record, and what is the caller's.
pub struct Checkpoint {
    pub record: Record,
    pub weights: Vec<Vec<f32>>,
    pub step: u64,
}

pub struct Trainer {
    pub model: Model,
    pub optimizer: Engine,
    pub step: u64,
}

impl Trainer {
    pub fn new(config: Config) -> Result<Self, Box<dyn Error>> {
        let model = Model::new();
        let optimizer = register(&model, config)?;
        let memory = optimizer.memory();
        println!("state {} B, gradients of the first step {} B", memory.state(), memory.gradients_total);
        Ok(Self { model, optimizer, step: 0 })
    }

    pub fn run(&mut self, to: u64) -> Result<f64, Box<dyn Error>> {
        let mut loss = f64::NAN;
        while self.step < to {
            let lr = 1e-2 * (1.0 - self.step as f64 / 400.0); // the schedule is the caller's
            loss = window(&self.model, &mut self.optimizer, lr, &[2 * self.step, 2 * self.step + 1])?;
            self.step += 1;
            if self.step.is_multiple_of(50) {
                let report = self.optimizer.report()?; // a readback: not on every step of a device
                report.check::<std::convert::Infallible>()?; // too many skipped steps in a row
                println!(
                    "step {}: loss {loss:.4}, {} active, {} decisions",
                    report.step,
                    report.active_coordinates(),
                    report.decisions
                );
            }
        }
        Ok(loss)
    }

    pub fn save(&mut self) -> Result<Checkpoint, Box<dyn Error>> {
        let weights = self.model.weights.iter().map(|w| w.data.borrow().clone()).collect();
        Ok(Checkpoint { record: self.optimizer.save()?, weights, step: self.step })
    }

    pub fn restore(config: Config, from: &Checkpoint) -> Result<Self, Box<dyn Error>> {
        let mut new = Self::new(config)?;
        new.optimizer.restore(&from.record)?;
        new.model.weights.iter().zip(&from.weights).for_each(|(w, kept)| w.data.borrow_mut().clone_from(kept));
        new.step = from.step;
        Ok(new)
    }
}
