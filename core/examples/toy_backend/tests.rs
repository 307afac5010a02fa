//! Beside the runs of `main`: what a backend that records gets wrong first.

use super::error::ToyError;
use super::*;
use blockllm::DType;
use blockllm::backend::flag;

fn all(drive: Drive) {
    for (name, config, micro_batches) in configs() {
        train(&config, micro_batches, drive).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn whole_steps_are_the_reference_s_to_the_bit() {
    all(Drive::Whole);
}

#[test]
fn streamed_steps_are_the_reference_s_to_the_bit() {
    all(Drive::Streamed);
}

#[test]
fn a_type_that_the_device_lacks_is_refused_with_the_block_s_name() {
    let specs = [specs(), vec![BlockSpec::new("head", [2, 2]).dtype(DType::Bf16)]].concat();
    let made = Optimizer::new(Toy::new(&roomy()), &specs, Config::default());
    let want = ToyError::Unsupported { block: "head".into(), dtype: DType::Bf16 };
    assert_eq!(made.err(), Some(Error::Backend { operation: "prepare the device", error: want }));
}

fn roomy() -> Queue {
    let queue = Queue::default();
    queue.set_capacity(1 << 20);
    queue
}

#[test]
fn a_readback_waits_for_its_submission_and_is_of_its_time() {
    let (queue, mut got) = (roomy(), [0; flag::LEN]);
    let mut toy = Toy::new(&queue);
    let mut buffer = toy.alloc(DType::U32, flag::LEN).unwrap();
    toy.write(&mut buffer, 0, View::U32(&[7; flag::LEN])).unwrap();
    let mut ticket = toy.read(&buffer, 0, flag::LEN).unwrap();
    toy.write(&mut buffer, 0, View::U32(&[8; flag::LEN])).unwrap();
    drop(buffer);
    assert!((0..9).all(|_| toy.poll(&mut ticket, ViewMut::U32(&mut got)) == Ok(false)), "nothing was submitted yet");
    toy.submit().unwrap();
    while !toy.poll(&mut ticket, ViewMut::U32(&mut got)).unwrap() {}
    assert_eq!(got, [7; flag::LEN]);
}

#[test]
fn a_plain_step_is_one_submission_and_makes_no_buffer() {
    let never = Config { policy: Policy::BlockLlm(Trigger::Period(1000)), ..Config::default() };
    let mut pair = Pair::new(&never, 1).unwrap();
    pair.toy_step(1, Drive::Whole).unwrap(); // switches to the first set
    let (submissions, allocations) = (pair.queue.submissions(), pair.queue.allocations());
    pair.toy_step(2, Drive::Whole).unwrap();
    let gradients = SIZES.len();
    assert_eq!((pair.queue.submissions(), pair.queue.allocations()), (submissions + 1, allocations + gradients));
}

#[test]
fn what_an_optimizer_held_is_freed_with_it_though_its_backend_goes_first() {
    let mut pair = Pair::new(&configs()[0].1, 1).unwrap();
    (1..=8).for_each(|number| pair.toy_step(number, Drive::Streamed).unwrap());
    let Pair { toy, queue, on_device, .. } = pair;
    assert!(queue.bytes() > 0);
    drop((toy, on_device));
    queue.submit();
    assert_eq!(queue.bytes(), 0);
}

/// The readback of a deciding step finds no memory. The caller puts the parameters back and restores the record from before
/// the step: nothing that was recorded of it may still run.
#[test]
fn a_step_that_failed_runs_nothing_afterwards() {
    let mut pair = Pair::new(&configs()[0].1, 1).unwrap();
    for number in 1..=4 {
        pair.toy_step(number, Drive::Whole).unwrap();
        pair.reference_step(number).unwrap();
    }
    let record = pair.toy.save().unwrap();
    let gradients = 4 * SIZES.iter().sum::<usize>();
    pair.queue.submit();
    pair.queue.set_capacity(pair.queue.bytes() + gradients);
    let failed = pair.toy_step(5, Drive::Whole).unwrap_err().to_string();
    assert_eq!(failed, "end a step: 120 bytes of device memory asked for, 0 are free");
    pair.queue.set_capacity(1 << 20);
    for (buffer, p) in pair.on_device.iter().zip(&pair.params) {
        pair.queue.reach(buffer, |elements| elements.view_mut(0, p.len()).copy_from(View::F32(p)));
    }
    pair.toy.restore(&record).unwrap();
    pair.compare(4);
    for number in 5..=9 {
        pair.toy_step(number, Drive::Whole).unwrap();
        pair.reference_step(number).unwrap();
        pair.compare(number);
    }
}

/// What the chapter shows of this backend is in it, word for word.
#[test]
fn the_chapter_s_excerpts_are_of_these_files() {
    let files = [include_str!("backend.rs"), include_str!("device.rs"), include_str!("seal.rs"), include_str!("main.rs")];
    let chapter = include_str!("../../docs/write_a_backend.md");
    let excerpts: Vec<&str> = chapter.split("```text\n").skip(1).map(|x| x.split("```").next().unwrap_or(x)).collect();
    assert!(excerpts.len() >= 4, "the chapter has excerpts");
    for excerpt in excerpts {
        assert!(files.iter().any(|f| f.contains(excerpt)), "in no file of the example:\n{excerpt}");
    }
}
