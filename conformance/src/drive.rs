//! One step of an optimizer on any backend, in either drive mode.

use crate::harness::Harness;
use crate::host::Host;
use crate::recipe::mix;
use blockllm::{Backend, Error, Optimizer, Progress, Step, Wanted};

/// How gradients come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drive {
    /// All of a micro-batch at hand.
    Whole,
    /// One at a time, in an order that the step's number shuffles; each is gone before the next comes.
    Streaming,
}

type Result<R, H> = core::result::Result<R, Error<<<H as Harness>::Backend as Backend>::Error>>;

/// Runs one step and waits for what it decides. `grads` has every block's gradient of every micro-batch; only those asked
/// for reach the device.
///
/// # Errors
/// The engine's; a void forced decision ([`Error::Void`]) leaves the step as it is.
pub fn step<H: Harness>(
    h: &mut H, o: &mut Optimizer<H::Backend>, params: &mut [H::Tensor], step: Step, grads: &[Vec<Host>], drive: Drive,
) -> Result<(), H> {
    let progress = match drive {
        Drive::Whole => whole(h, o, params, step, grads)?,
        Drive::Streaming => streamed(h, o, params, step, grads)?,
    };
    if progress == Progress::Pending { o.wait() } else { Ok(()) }
}

fn handles<'p, H: Harness>(params: &'p mut [H::Tensor]) -> Vec<(u32, <H::Backend as Backend>::Param<'p>)> {
    (0..).zip(params.iter_mut().map(H::param)).collect()
}

/// The gradients of these blocks on the device.
fn upload<H: Harness>(h: &mut H, wanted: &[Wanted], grads: &[Host]) -> Vec<Option<H::Tensor>> {
    let mut out: Vec<Option<H::Tensor>> = grads.iter().map(|_| None).collect();
    for w in wanted {
        out[w.block as usize] = Some(h.upload(grads[w.block as usize].view()));
    }
    out
}

fn whole<H: Harness>(
    h: &mut H, o: &mut Optimizer<H::Backend>, params: &mut [H::Tensor], step: Step, grads: &[Vec<Host>],
) -> Result<Progress, H> {
    let Some((last, early)) = grads.split_last() else { panic!("a step of no micro-batch") };
    if early.is_empty() {
        let tensors = upload(h, o.wanted()?, last);
        return o.step(step, |b| tensors[b as usize].as_ref().map(H::grad), &mut handles::<H>(params));
    }
    // The loss comes with the last micro-batch.
    o.begin(Step { loss: None, ..step })?;
    for (micro, grads) in early.iter().enumerate() {
        let tensors = upload(h, o.wanted()?, grads);
        o.accumulate(|b| tensors[b as usize].as_ref().map(H::grad))?;
        o.next_micro_batch(step.loss.filter(|_| micro + 1 == early.len()))?;
    }
    let tensors = upload(h, o.wanted()?, last);
    o.finish_whole(|b| tensors[b as usize].as_ref().map(H::grad), &mut handles::<H>(params))
}

fn streamed<H: Harness>(
    h: &mut H, o: &mut Optimizer<H::Backend>, params: &mut [H::Tensor], step: Step, grads: &[Vec<Host>],
) -> Result<Progress, H> {
    let number = o.steps();
    o.begin(step)?;
    for (micro, grads) in grads.iter().enumerate() {
        if micro > 0 {
            o.next_micro_batch(None)?;
        }
        let mut wanted = o.wanted()?.to_vec();
        wanted.sort_by_key(|w| mix(u64::from(w.block) << 32 ^ number << 8 ^ micro as u64));
        for w in wanted {
            let g = h.upload(grads[w.block as usize].view());
            if w.with_parameter {
                o.grad_with(w.block, &H::grad(&g), &mut H::param(&mut params[w.block as usize]))?;
            } else {
                o.grad(w.block, &H::grad(&g))?;
            }
        }
    }
    // Only the active ones: no others may be needed.
    let active: Vec<u32> = o.active().regions.iter().map(|r| r.block).collect();
    let mut params = handles::<H>(params);
    params.retain(|(b, _)| active.binary_search(b).is_ok());
    o.finish(&mut params)
}
