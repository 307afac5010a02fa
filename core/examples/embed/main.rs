//! The code of the chapter "embed BlockLLM in your framework" (`core/docs/embed.md`), from nothing to a trainer in four
//! steps: `cargo run -p blockllm --example embed`.
#![allow(missing_docs)]

mod framework;
mod step_1_tensors;
mod step_2_whole_steps;
mod step_3_streaming;
mod step_4_trainer;

use blockllm::{Config, Policy, Trigger};
use framework::Model;
use std::error::Error;
use step_4_trainer::Trainer;

fn config() -> Config {
    Config { sparsity: 0.5, policy: Policy::BlockLlm(Trigger::Period(5)), ..Config::default() }
}

fn main() -> Result<(), Box<dyn Error>> {
    let model = Model::new();
    let mut optimizer = step_2_whole_steps::register(&model, config())?;
    println!("whole steps: loss {:.4}", step_2_whole_steps::train(&model, &mut optimizer, 200)?);
    let mut trainer = Trainer::new(config())?;
    trainer.run(100)?;
    let mut again = Trainer::restore(config(), &trainer.save()?)?; // in another process, say
    println!("trainer: loss {:.4}", again.run(200)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockllm::Inactive;

    #[test]
    fn whole_steps_learn() {
        let model = Model::new();
        let first = model.forward(0).0;
        let mut optimizer = step_2_whole_steps::register(&model, config()).unwrap();
        let last = step_2_whole_steps::train(&model, &mut optimizer, 200).unwrap();
        assert!(last < first / 3.0, "{first} {last}");
    }

    #[test]
    fn a_trainer_that_was_restored_goes_on_to_the_bit() {
        for inactive in [Inactive::Frozen, Inactive::SignSgd(1.0)] {
            let config = Config { inactive, ..config() };
            let mut whole = Trainer::new(config.clone()).unwrap();
            whole.run(30).unwrap();
            let mut first = Trainer::new(config.clone()).unwrap();
            first.run(13).unwrap();
            let mut second = Trainer::restore(config, &first.save().unwrap()).unwrap();
            second.run(30).unwrap();
            let (a, b) = (whole.save().unwrap(), second.save().unwrap());
            assert_eq!((a.weights, a.record, a.step), (b.weights, b.record, b.step));
        }
    }

    #[test]
    fn the_chapter_s_excerpts_are_of_these_files() {
        let files = [
            include_str!("step_1_tensors.rs"),
            include_str!("step_2_whole_steps.rs"),
            include_str!("step_3_streaming.rs"),
            include_str!("step_4_trainer.rs"),
        ];
        let chapter = include_str!("../../docs/embed.md");
        let excerpts: Vec<&str> = chapter.split("```text\n").skip(1).map(|x| x.split("```").next().unwrap_or(x)).collect();
        assert!(excerpts.len() >= 5, "the chapter has excerpts");
        for excerpt in excerpts {
            assert!(files.iter().any(|f| f.contains(excerpt)), "in no file of the example:\n{excerpt}");
        }
    }
}
