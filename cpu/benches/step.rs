//! Time of whole steps of AdamW and of BlockLLM over blocks of a million elements, on the reference and on this backend.
//! Prints medians in milliseconds, and how many times as fast as the reference they are.
//!
//! `cargo bench -p blockllm-cpu`
#![allow(missing_docs)]

use blockllm::{Backend, BlockSpec, Config, Optimizer, Policy, Reference, Slices, Step, Trigger, View, ViewMut};
use blockllm_cpu::Cpu;
use rayon::ThreadPoolBuilder;
use std::sync::Arc;
use std::time::Instant;

const BLOCKS: usize = 4;
const ELEMENTS: usize = 1 << 20;
const STEPS: usize = 21;
const EACH_STEP: Policy = Policy::BlockLlm(Trigger::Period(1));

fn tensors(seed: u32, scale: f32) -> Vec<Vec<f32>> {
    let number = |i: u32| ((i.wrapping_mul(0x9E37_79B9) ^ seed) >> 8) as f32 / (1 << 23) as f32 - 1.0;
    (0..BLOCKS as u32).map(|b| (0..ELEMENTS as u32).map(|i| number(b << 20 | i) * scale).collect()).collect()
}

/// The median over some steps, in milliseconds.
fn median<B>(backend: B, config: &Config) -> f64
where
    B: for<'a> Backend<Param<'a> = ViewMut<'a>, Grad<'a> = View<'a>>,
{
    let specs: Vec<_> = (0..BLOCKS).map(|i| BlockSpec::new(format!("w{i}"), [1024, ELEMENTS / 1024])).collect();
    let (mut p, g) = (tensors(1, 0.1), tensors(2, 1e-3));
    let mut o = Optimizer::new(backend, &specs, config.clone()).unwrap_or_else(|e| panic!("{e}"));
    let mut params: Vec<_> = (0..).zip(p.iter_mut().map(|p| ViewMut::F32(p))).collect();
    let (mut times, mut switches) = (vec![], 0);
    for _ in 0..STEPS {
        let start = Instant::now();
        let step = o.step(Step::new(1e-3).loss(1.0), |b| Some(View::F32(&g[b as usize])), &mut params);
        let _ = step.unwrap_or_else(|e| panic!("{e}"));
        times.push(start.elapsed().as_secs_f64() * 1e3);
        o.wait().unwrap_or_else(|e| panic!("{e}"));
        switches += usize::from(o.is_switch_pending());
    }
    assert_eq!(switches, if config.policy == EACH_STEP { STEPS } else { 0 }, "what the run is for");
    times.sort_by(f64::total_cmp);
    times[STEPS / 2]
}

fn main() {
    let block_llm = |period| Config { policy: Policy::BlockLlm(Trigger::Period(period)), ..Config::default() };
    for (name, config) in [
        ("AdamW", Config { weight_decay: 0.01, ..Config::adamw() }),
        ("BlockLLM, no decision", block_llm(1000)),
        ("BlockLLM, decides and switches on each step", block_llm(1)),
    ] {
        let reference = median(Reference::<Slices>::default(), &config);
        println!("{name}: {BLOCKS} blocks of {ELEMENTS}, reference {reference:.1} ms");
        for threads in [1, 2] {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap_or_else(|e| panic!("{e}"));
            let time = median(<Cpu>::in_pool(Arc::new(pool)), &config);
            println!("    {threads} threads: {time:.1} ms, {:.1} times as fast", reference / time);
        }
    }
}
