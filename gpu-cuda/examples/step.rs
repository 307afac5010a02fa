//! Steps of an optimizer over parameters on the device, and how long they take: `step [COORDINATES] [STEPS]`.

use blockllm::{BlockSpec, Config, Optimizer, Progress, Step};
use blockllm_cuda::{Cuda, Tensor, TensorMut};
use std::error::Error;
use std::time::Instant;

const BLOCKS: usize = 50;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<usize>());
    let n = arguments.next().unwrap_or(Ok(2_800_000))? / BLOCKS;
    let steps = arguments.next().unwrap_or(Ok(6))?;
    let context = blockllm_cuda::open(0)?;
    let stream = context.new_stream()?;
    println!("device: {}; {BLOCKS} blocks of {n} f32 coordinates", context.name()?);

    let numbers = |seed: usize| (0..n).map(move |i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 2003.0 - 0.5);
    let specs: Vec<BlockSpec> = (0..BLOCKS).map(|b| BlockSpec::new(format!("block {b}"), [1, n])).collect();
    let upload = |seed: usize| stream.clone_htod(&numbers(seed).collect::<Vec<f32>>());
    let mut parameters = (0..BLOCKS).map(upload).collect::<Result<Vec<_>, _>>()?;
    let gradients = (BLOCKS..2 * BLOCKS).map(upload).collect::<Result<Vec<_>, _>>()?;

    let mut optimizer = Optimizer::new(Cuda::new(stream.clone())?, &specs, Config::default())?;
    for step in 1..=steps {
        let start = Instant::now();
        let mut moved = Vec::new();
        for (block, p) in (0..).zip(&mut parameters) {
            moved.push((block, TensorMut::new(p.as_view_mut(), &stream)?));
        }
        let gradient = |block: u32| Tensor::new(gradients[block as usize].as_view(), &stream).ok();
        let step_of = Step { loss: Some(1.0 / step as f64), ..Step::new(1e-3) };
        if optimizer.step(step_of, gradient, &mut moved)? == Progress::Pending {
            optimizer.wait()?;
        }
        drop(moved);
        stream.synchronize()?;
        println!("step {step}: {:.3} s", start.elapsed().as_secs_f64());
    }
    println!("{:?}", optimizer.backend().counts());
    println!("scratch: {} bytes of {:?}", optimizer.memory().scratch, optimizer.memory());
    Ok(())
}
