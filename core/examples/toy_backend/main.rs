//! A complete backend for a device that works as a GPU does, but is a few lines of host code: memory behind addresses,
//! operations that are recorded and run at submission, readbacks that come some polls later, memory freed in queue order.
//! The documentation's chapter `write_a_backend` goes through it.
//!
//! `cargo run -p blockllm --example toy_backend` trains a small problem on it beside the reference, in both drive modes,
//! and compares every bit of the parameters after every step.

mod backend;
mod device;
mod error;
mod seal;

use backend::{Tensor, Toy};
use blockllm::backend::{Backend, Parameter};
use blockllm::random::philox;
use blockllm::{
    BlockId, BlockSpec, Config, Error, Fill, Optimizer, Policy, Reference, ScoreKind, Step, StepReport, Trigger, View, ViewMut,
    VisitBias,
};
use device::{Buffer, Queue};

const SIZES: [usize; 5] = [40, 7, 90, 33, 30];
const STEPS: u32 = 60;
/// The first step after a decision: a switch that does not come about.
const WILD: u32 = 11;

#[derive(Clone, Copy, Debug)]
enum Drive {
    Whole,
    Streamed,
}

/// In [-1, 1), a function of its arguments.
fn noise(step: u32, micro: u32, block: usize, i: usize) -> f32 {
    let word = philox([step, micro, block as u32, i as u32], [0; 2])[0];
    (word >> 8) as f32 / (1 << 23) as f32 - 1.0
}

fn tensors(f: impl Fn(usize, usize) -> f32) -> Vec<Vec<f32>> {
    (0..SIZES.len()).map(|b| (0..SIZES[b]).map(|i| f(b, i)).collect()).collect()
}

/// Half the squared distance to some target; blocks differ in how much they matter.
fn loss(params: &[Vec<f32>]) -> f64 {
    let of = |b: usize, i: usize| (b + 1) as f64 * f64::from(params[b][i] - noise(0, 0, b, i)).powi(2) / 2.0;
    (0..SIZES.len()).map(|b| (0..SIZES[b]).map(|i| of(b, i)).sum::<f64>()).sum()
}

fn gradients(params: &[Vec<f32>], step: u32, micro: u32) -> Vec<Vec<f32>> {
    let wild = step == WILD && micro == 0;
    tensors(|b, i| match wild && i == 2 {
        true => f32::NAN,
        false => (b + 1) as f32 * (params[b][i] - noise(0, 0, b, i)) + noise(step, micro + 1, b, i) / 4.0,
    })
}

fn configs() -> Vec<(&'static str, Config, u32)> {
    let period = Policy::BlockLlm(Trigger::Period(5));
    let default = Config { policy: period.clone(), ..Config::default() };
    let paper =
        Config { patience: 3, sparsity: 0.6, fill: Fill::LastMasked, visit_bias: VisitBias::Ratio, ..Config::published_code() };
    vec![
        ("default", default.clone(), 1),
        ("default, 3 micro-batches, clipped", Config { clip: Some(1.0), sparsity: 0.6, ..default.clone() }, 3),
        ("default, each block at once", Config { immediate: true, ..default.clone() }, 1),
        ("published code", paper.clone(), 1),
        (
            "published code, 2 micro-batches, processed gradients",
            Config { score: ScoreKind::ProcessedNorm, policy: period, ..paper },
            2,
        ),
    ]
}

fn specs() -> Vec<BlockSpec> {
    SIZES.iter().enumerate().map(|(b, &n)| BlockSpec::new(format!("w{b}"), [1, n])).collect()
}

/// A step on any backend, with all gradients of a micro-batch at hand.
fn whole<'g, B: Backend>(
    o: &mut Optimizer<B>, step: Step, grads: &[Vec<B::Grad<'g>>], params: &mut [Parameter<B::Param<'_>>],
) -> Result<(), Error<B::Error>>
where
    B::Grad<'g>: Copy,
{
    o.begin(step)?;
    let Some((last, early)) = grads.split_last() else { panic!("a step of no micro-batch") };
    for g in early {
        o.accumulate(|block| Some(g[block as usize]))?;
        o.next_micro_batch(None)?;
    }
    let _ = o.finish_whole(|block| Some(last[block as usize]), params)?;
    o.wait()
}

/// The same on the toy device, one gradient at a time, from the last block to the first as a backward pass brings them.
fn streamed(
    o: &mut Optimizer<Toy>, queue: &Queue, step: Step, grads: &[Vec<Vec<f32>>], params: &mut [Parameter<Tensor>],
) -> Result<(), Box<dyn std::error::Error>> {
    o.begin(step)?;
    for (micro, g) in grads.iter().enumerate() {
        if micro > 0 {
            o.next_micro_batch(None)?;
        }
        for w in o.wanted()?.to_vec().iter().rev() {
            let g = upload(queue, &g[w.block as usize]); // and gone before the next one comes
            match w.with_parameter {
                true => o.grad_with(w.block, &tensor(&g), &mut params[w.block as usize].1)?,
                false => o.grad(w.block, &tensor(&g))?,
            }
        }
    }
    let _ = o.finish(params)?;
    Ok(o.wait()?)
}

fn upload(queue: &Queue, x: &[f32]) -> Buffer {
    queue.upload(x).expect("memory for the caller's tensors")
}

fn tensor(buffer: &Buffer) -> Tensor {
    Tensor { address: buffer.address, len: buffer.len }
}

/// The reference and the toy backend side by side.
struct Pair {
    reference: Optimizer<Reference>,
    toy: Optimizer<Toy>,
    queue: Queue,
    params: Vec<Vec<f32>>,
    on_device: Vec<Buffer>,
    micro_batches: u32,
}

impl Pair {
    fn new(config: &Config, micro_batches: u32) -> Result<Self, Box<dyn std::error::Error>> {
        let queue = Queue::default();
        queue.set_capacity(1 << 20);
        let params = tensors(|b, i| noise(0, 1, b, i));
        Ok(Self {
            reference: Optimizer::new(Reference::default(), &specs(), config.clone())?,
            toy: Optimizer::new(Toy::new(&queue), &specs(), config.clone())?,
            on_device: params.iter().map(|p| upload(&queue, p)).collect(),
            queue,
            params,
            micro_batches,
        })
    }

    /// What this step is given on both sides.
    fn inputs(&self, number: u32) -> (Step, Vec<Vec<Vec<f32>>>) {
        // As noisy as a small batch's, so that it stops falling now and then: the paper's rule waits for that.
        let loss = loss(&self.params) * (1.0 + 0.2 * f64::from(noise(number, 0, 0, 0)));
        let step = Step::new(0.02).loss(loss).micro_batches(self.micro_batches);
        (step, (0..self.micro_batches).map(|micro| gradients(&self.params, number, micro)).collect())
    }

    fn reference_step(&mut self, number: u32) -> Result<StepReport, Box<dyn std::error::Error>> {
        let (step, grads) = self.inputs(number);
        let views: Vec<Vec<View<'_>>> = grads.iter().map(|g| g.iter().map(|x| View::F32(x)).collect()).collect();
        let mut params: Vec<_> = (0..).zip(self.params.iter_mut().map(|p| ViewMut::F32(p))).collect();
        whole(&mut self.reference, step, &views, &mut params)?;
        Ok(self.reference.report()?)
    }

    fn toy_step(&mut self, number: u32, drive: Drive) -> Result<(), Box<dyn std::error::Error>> {
        let (step, grads) = self.inputs(number);
        let mut params: Vec<(BlockId, Tensor)> = (0..).zip(self.on_device.iter().map(tensor)).collect();
        if let Drive::Streamed = drive {
            return streamed(&mut self.toy, &self.queue, step, &grads, &mut params);
        }
        let uploaded: Vec<Vec<Buffer>> = grads.iter().map(|g| g.iter().map(|x| upload(&self.queue, x)).collect()).collect();
        let handles: Vec<Vec<Tensor>> = uploaded.iter().map(|g| g.iter().map(tensor).collect()).collect();
        Ok(whole(&mut self.toy, step, &handles, &mut params)?)
    }

    fn compare(&self, number: u32) {
        for (b, (want, got)) in self.params.iter().zip(&self.on_device).enumerate() {
            let got = self.queue.download(got);
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&got), bits(want), "step {number}, parameter of block {b}");
        }
    }
}

/// Trains on both and compares. Tells in a line what came of it.
fn train(config: &Config, micro_batches: u32, drive: Drive) -> Result<String, Box<dyn std::error::Error>> {
    let mut pair = Pair::new(config, micro_batches)?;
    let (start, mut switches, mut skipped) = (loss(&pair.params), 0, 0);
    for number in 1..=STEPS {
        // First the toy: what it is given is made from the parameters before the step.
        pair.toy_step(number, drive)?;
        let report = pair.reference_step(number)?;
        pair.compare(number);
        // As text: the norm of a skipped step is no number, and equals nothing.
        assert_eq!(format!("{:?}", pair.toy.report()?), format!("{report:?}"), "report of step {number}");
        switches += usize::from(report.switched);
        skipped += usize::from(report.skipped);
    }
    let end = loss(&pair.params);
    assert!(end < start / 2.0 && switches >= 4 && skipped == 1, "{start} to {end}, {switches} switches, {skipped} skipped");
    assert!(pair.toy.save()? == pair.reference.save()?, "moments, masks, scores and counters");
    let what = format!("{switches} switches, {skipped} skipped, each bit as the reference");
    let device = format!("{} device buffers made, {} bytes left", pair.queue.allocations(), pair.queue.bytes());
    Ok(format!("loss {start:.2} to {end:.2} in {STEPS} steps, {what}; {device}"))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for (name, config, micro_batches) in configs() {
        for drive in [Drive::Whole, Drive::Streamed] {
            println!("{name}, {drive:?}: {}", train(&config, micro_batches, drive)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
