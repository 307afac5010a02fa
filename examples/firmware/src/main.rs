//! A microcontroller that goes on learning. A network of 4,372 weights tells four kinds of movement apart by a sensor's
//! readings; the sensor ages, and the network is fine-tuned on the device. The heap has 64 KiB: weights, one gradient and
//! the state of full Adam would not fit; with state for a fifth of the weights there is room to spare.
//!
//! Runs under QEMU by `cargo run --release`, prints over semihosting, and exits with 0 where it has learned.

#![no_std]
#![no_main]

extern crate alloc;

mod network;
mod sensor;

use alloc::vec::Vec;
use blockllm::{BlockSpec, Config, Inactive, Optimizer, Reference, Slices, Step, View, ViewMut};
use core::mem::MaybeUninit;
use cortex_m_rt::entry;
use cortex_m_semihosting::{debug, hprintln};
use embedded_alloc::LlffHeap;
use network::{Network, WEIGHTS};
use panic_semihosting as _;
use sensor::Sensor;

const HEAP: usize = 64 * 1024;

#[global_allocator]
static ALLOCATOR: LlffHeap = LlffHeap::empty();

/// Windows of a step.
const BATCH: usize = 16;

/// Hands each gradient to the optimizer as it is made; the buffer is then free for the next.
fn train(o: &mut Optimizer<Reference<Slices>>, n: &mut Network, s: &mut Sensor, steps: usize, lr: f64) {
    for _ in 0..steps {
        let batch = s.batch(BATCH);
        let loss = n.forward(&batch);
        o.begin(Step::new(lr).loss(f64::from(loss))).expect("a step");
        // From the first layer to the last: a weight may move when the gradients below, which pass through it, are made.
        for w in o.wanted().expect("known").to_vec() {
            let (g, p) = n.gradient(w.block as usize, &batch);
            match w.with_parameter {
                true => o.grad_with(w.block, &View::F32(g), &mut ViewMut::F32(p)).expect("a gradient"),
                false => o.grad(w.block, &View::F32(g)).expect("a gradient"),
            }
        }
        let mut params: Vec<_> = (0..).zip(n.weights.iter_mut().map(|w| ViewMut::F32(w))).collect();
        let _ = o.finish(&mut params).expect("an update");
        o.wait().expect("a decision");
    }
}

/// Of 400 fresh windows, those that are told right, in percent.
fn accuracy(n: &Network, s: &mut Sensor) -> usize {
    (0..25).map(|_| s.batch(BATCH).iter().filter(|(x, class)| n.classify(x) == *class).count()).sum::<usize>() / 4
}

fn optimizer(config: Config) -> Optimizer<Reference<Slices>> {
    let blocks: Vec<_> = WEIGHTS.iter().map(|(name, shape)| BlockSpec::new(*name, *shape)).collect();
    Optimizer::new(Reference::default(), &blocks, config).expect("a legal configuration")
}

#[entry]
fn main() -> ! {
    static mut MEMORY: [MaybeUninit<u8>; HEAP] = [MaybeUninit::uninit(); HEAP];
    // SAFETY: called once, before anything is allocated; the memory is used by nothing else.
    unsafe { ALLOCATOR.init(MEMORY.as_mut_ptr() as usize, HEAP) }

    let mut sensor = Sensor::new(7);
    let mut network = Network::new(|| sensor.random());
    let config = Config { sparsity: 0.8, inactive: Inactive::SignSgd(0.3), ..Config::default() };
    let mut o = optimizer(config.clone());
    let weights: usize = network.weights.iter().map(Vec::len).sum();
    let held = ALLOCATOR.used();
    let adam = held - o.memory().state() + 2 * 4 * weights;
    hprintln!("{} weights; heap {} bytes; in use {}, of which optimizer state {}", weights, HEAP, held, o.memory().state());
    hprintln!("with the state of full Adam it would be {}: {}", adam, if adam > HEAP { "no room" } else { "room" });

    train(&mut o, &mut network, &mut sensor, 300, 2e-3);
    let fresh = accuracy(&network, &mut sensor);
    sensor.age();
    let aged = accuracy(&network, &mut sensor);
    train(&mut o, &mut network, &mut sensor, 300, 2e-3);
    let tuned = accuracy(&network, &mut sensor);
    hprintln!("told right: {} % as made, {} % with an aged sensor, {} % after fine-tuning on the device", fresh, aged, tuned);
    hprintln!("{} decisions; free heap at the end {}", o.decisions(), ALLOCATOR.free());
    let learned = adam > HEAP && fresh >= 90 && aged <= 60 && tuned >= 90;
    debug::exit(if learned { debug::EXIT_SUCCESS } else { debug::EXIT_FAILURE });
    loop {
        cortex_m::asm::wfi();
    }
}
