//! The backend: every operation of the contract, recorded. The kernels are the reference's own, on slices; a real device
//! has its own and keeps the rest.

use super::device::{Address, Buffer, Memory, Queue};
use super::error::ToyError;
use super::seal;
use blockllm::adam::{self, Coefficients, Hyper, Packed, Powers};
use blockllm::backend::{Arena, Backend, Measure, Moment, Seal, Work, flag, norm};
use blockllm::block::Blocks;
use blockllm::mask::{self, MaskKind};
use blockllm::moments::{self, Region};
use blockllm::reference::HostBuffer;
use blockllm::score::ROW;
use blockllm::{BlockId, Config, DType, Info, View, ViewMut, state_free};

/// A backend on the toy device.
pub struct Toy {
    pub queue: Queue,
    pub readbacks: usize,
}

/// A parameter or gradient of the caller's. A handle, so that a recorded operation can keep it.
#[derive(Clone, Copy)]
pub struct Tensor {
    pub address: Address,
    pub len: usize,
}

/// A copy of its own, which later operations do not change. It can be had some polls after the submission that makes it.
pub struct Ticket {
    staging: Buffer,
    submission: usize,
    polls: u32,
}

/// Where the arena's buffers lie now. The engine moves buffers between the fields, so an operation takes the addresses
/// when it is recorded, not when it runs.
fn addresses(a: &Arena<Buffer>) -> Arena<Address> {
    a.map(|buffer| buffer.address)
}

/// A block's powers as they are on the device when the operation runs.
pub fn powers(memory: &Memory, a: &Arena<Address>, block: BlockId) -> Powers {
    let p = &memory.f64s(a.powers)[4 * block as usize..];
    Powers { before: [p[0], p[1]], now: [p[2], p[3]] }
}

/// Counters stay at their largest value.
pub fn count(flags: &mut [u32], flag: usize, n: u32) {
    flags[flag] = flags[flag].saturating_add(n);
}

impl Toy {
    /// Of a queue that the caller gives: what the caller puts there runs before and after what the engine asks for.
    pub fn new(queue: &Queue) -> Self {
        Self { queue: queue.clone(), readbacks: 0 }
    }

    fn record(&self, kernel: impl FnOnce(&Memory) + 'static) -> Result<(), ToyError> {
        self.queue.record(|memory| kernel(memory));
        Ok(())
    }

    /// Whether the step is skipped is known on the device alone, and not before the operation runs.
    fn record_unless_skipped(
        &self, a: Arena<Address>, kernel: impl FnOnce(&Memory, &Arena<Address>) + 'static,
    ) -> Result<(), ToyError> {
        self.record(move |memory| {
            let skipped = memory.u32s(a.flags)[flag::SKIP] != 0;
            if !skipped {
                kernel(memory, &a);
            }
        })
    }
}

impl Backend for Toy {
    type Error = ToyError;
    type Buffer = Buffer;
    type Ticket = Ticket;
    type Param<'a> = Tensor;
    type Grad<'a> = Tensor;

    fn param_info(p: &Tensor) -> Info {
        Info { len: p.len, dtype: DType::F32, contiguous: true }
    }

    fn grad_info(g: &Tensor) -> Info {
        Self::param_info(g)
    }

    fn prepare(&mut self, blocks: &Blocks, _: &Config) -> Result<(), ToyError> {
        match blocks.specs.iter().find(|s| s.dtype != DType::F32) {
            Some(s) => Err(ToyError::Unsupported { block: s.name.clone(), dtype: s.dtype }),
            None => Ok(()),
        }
    }

    fn alloc(&mut self, dtype: DType, len: usize) -> Result<Buffer, ToyError> {
        self.queue.alloc(dtype, len).map_err(ToyError::OutOfMemory)
    }

    fn zero(&mut self, buffer: &mut Buffer, at: usize, len: usize) -> Result<(), ToyError> {
        let (to, zeros) = (buffer.address, HostBuffer::zeros(buffer.dtype, len));
        self.record(move |memory| memory.at(to).view_mut(at, len).copy_from(zeros.view(0, len)))
    }

    fn copy(&mut self, from: &Buffer, to: &mut Buffer, len: usize) -> Result<(), ToyError> {
        let (from, to) = (from.address, to.address);
        self.record(move |memory| memory.at(to).view_mut(0, len).copy_from(memory.at(from).view(0, len)))
    }

    fn write(&mut self, to: &mut Buffer, at: usize, from: View<'_>) -> Result<(), ToyError> {
        // A copy: the caller's elements may be gone when it runs.
        let (to, len, mut elements) = (to.address, from.len(), HostBuffer::zeros(to.dtype, from.len()));
        elements.view_mut(0, len).copy_from(from);
        self.record(move |memory| memory.at(to).view_mut(at, len).copy_from(elements.view(0, len)))
    }

    fn read(&mut self, from: &Buffer, at: usize, len: usize) -> Result<Ticket, ToyError> {
        let staging = self.alloc(from.dtype, len)?;
        self.readbacks += 1;
        let (from, to) = (from.address, staging.address);
        self.record(move |memory| memory.at(to).view_mut(0, len).copy_from(memory.at(from).view(at, len)))?;
        Ok(Ticket { staging, submission: self.queue.submissions() + 1, polls: 2 })
    }

    fn poll(&mut self, ticket: &mut Ticket, to: ViewMut<'_>) -> Result<bool, ToyError> {
        if self.queue.submissions() < ticket.submission || ticket.polls > 0 {
            ticket.polls = ticket.polls.saturating_sub(1);
            return Ok(false);
        }
        self.queue.reach(&ticket.staging, |elements| to.copy_from(elements.view(0, elements.len())));
        Ok(true)
    }

    fn gather(&mut self, a: &mut Arena<Buffer>, r: &Region, g: &Tensor, add: bool) -> Result<(), ToyError> {
        let (a, r, g) = (addresses(a), *r, *g);
        self.record(move |memory| {
            let (masks, g, mut packed) = (memory.u32s(a.masks), memory.f32s(g.address), memory.f32s(a.gradient));
            let (mask, run) = (r.mask(&masks), &mut packed[r.gradient()]);
            if add { adam::gather_add(&g, mask, run) } else { adam::gather(&g, mask, run) }
        })
    }

    fn build_mask(&mut self, a: &mut Arena<Buffer>, r: &Region, g: &Tensor, kind: MaskKind) -> Result<(), ToyError> {
        let (a, r, g) = (addresses(a), *r, *g);
        self.record(move |memory| {
            mask::build::<f32, f32>(&memory.f32s(g.address), r.k, kind, &mut memory.u32s(a.masks)[r.mask_words()]);
        })
    }

    fn score(
        &mut self, a: &mut Arena<Buffer>, block: BlockId, g: &Tensor, h: &Hyper, measure: Measure<'_>,
    ) -> Result<(), ToyError> {
        let (a, g, h) = (addresses(a), *g, *h);
        let present = match measure {
            Measure::Gradient => None,
            // During a switch the moments lie where the old set's masks say.
            Measure::Processed { present, switching } => Some((present.copied(), if switching { a.old_masks } else { a.masks })),
        };
        self.record(move |memory| {
            let g = memory.f32s(g.address);
            memory.f64s(a.sums)[block as usize] = match present {
                None => adam::score::<f32, f32>(&g, h.inv_loss_scale),
                Some((present, masks)) => {
                    let (masks, m, v) = (memory.u32s(masks), memory.f32s(a.m), memory.f32s(a.v));
                    let state = |r: Region| (r.mask(&masks), [&m[r.packed()], &v[r.packed()]], powers(memory, &a, block));
                    adam::score_processed::<f32, f32>(&g, &h, present.map(state))
                }
            };
        })
    }

    fn state_free(&mut self, a: &mut Arena<Buffer>, r: &Region, g: &Tensor, p: &mut Tensor, h: &Hyper) -> Result<(), ToyError> {
        let (a, r, g, p, h) = (addresses(a), *r, *g, *p, *h);
        self.record(move |memory| {
            let (masks, g, mut p) = (memory.u32s(a.masks), memory.f32s(g.address), memory.f32s(p.address));
            let mask = (r.k > 0).then(|| r.mask(&masks)); // an idle region has no words in `masks`
            let is_active = |i: usize| mask.is_some_and(|m| m.contains(i));
            let nans = state_free::update::<f32, f32, f32>(&mut p, &g, is_active, &h, r.scales);
            count(&mut memory.u32s(a.flags), flag::NANS, nans);
        })
    }

    fn seal(&mut self, a: &mut Arena<Buffer>, w: &Work<'_>, part: Seal) -> Result<(), ToyError> {
        let (a, regions, h, switches, limit) = (addresses(a), w.summed.to_vec(), w.hyper, w.switch.is_some(), w.guard_limit);
        self.record(move |memory| {
            if part != Seal::Counters {
                let inspected = seal::inspect(memory, &a, &regions, h.inv_loss_scale);
                seal::advance(memory, &a, &regions, h.betas, part == Seal::Block && switches);
                if part == Seal::Step {
                    seal::clip(memory, &a, inspected, h.clip, switches);
                }
            }
            seal::count_step(&mut memory.u32s(a.flags), part, limit);
        })
    }

    fn enter_scores(&mut self, a: &mut Arena<Buffer>, w: &Work<'_>) -> Result<(), ToyError> {
        let (a, step, scored, members) = (addresses(a), w.step, w.scored.to_vec(), w.members.to_vec());
        self.record(move |memory| {
            let (sums, mut table) = (memory.f64s(a.sums), memory.f64s(a.table));
            for s in scored {
                let members = &members[s.first as usize..][..s.count as usize];
                let sum = members.iter().fold(0.0, |sum, &block| sum + sums[block as usize]);
                if sum.is_finite() {
                    table[s.unit as usize * ROW..][..ROW].copy_from_slice(&[sum, s.n as f64, step as f64]);
                } else {
                    count(&mut memory.u32s(a.flags), flag::BAD_SCORES, 1);
                }
            }
        })
    }

    fn clear(&mut self, a: &mut Arena<Buffer>, r: &Region) -> Result<(), ToyError> {
        let (a, r) = (addresses(a), *r);
        self.record_unless_skipped(a, move |memory, a| {
            memory.f32s(a.m)[r.packed()].fill(0.0);
            memory.f32s(a.v)[r.packed()].fill(0.0);
        })
    }

    fn carry(&mut self, a: &mut Arena<Buffer>, moment: Moment, old: Option<&Region>, new: &Region) -> Result<(), ToyError> {
        let (a, old, new) = (addresses(a), old.copied(), *new);
        self.record_unless_skipped(a, move |memory, a| {
            let from = memory.f32s(if moment == Moment::First { a.m } else { a.v });
            let (masks, old_masks, mut spare) = (memory.u32s(a.masks), memory.u32s(a.old_masks), memory.f32s(a.spare));
            let to = &mut spare[new.packed()];
            match old {
                None => to.fill(0.0),
                Some(old) => moments::carry(&from[old.packed()], old.mask(&old_masks), to, new.mask(&masks)),
            }
        })
    }

    fn update(
        &mut self, a: &mut Arena<Buffer>, r: &Region, old: Option<&Region>, p: &mut Tensor, h: &Hyper,
    ) -> Result<(), ToyError> {
        let (a, r, old, p, h) = (addresses(a), *r, old.copied(), *p, *h);
        self.record_unless_skipped(a, move |memory, a| {
            // Powers and clip factor are read when it runs: `seal` has only just left them on the device.
            let (powers, clip) = (powers(memory, a, r.block), memory.f64s(a.norm)[norm::CLIP]);
            let c = Coefficients::<f32>::new(&h, r.scales, &powers, clip);
            let (masks, old_masks, mut p) = (memory.u32s(a.masks), memory.u32s(a.old_masks), memory.f32s(p.address));
            let (g, mut m, mut v) = (memory.f32s(a.gradient), memory.f32s(a.m), memory.f32s(a.v));
            let packed = Packed { g: &g[r.gradient()], m: &mut m[r.packed()], v: &mut v[r.packed()] };
            adam::update(&mut p, r.mask(&masks), old.map(|o| o.mask(&old_masks)), packed, &c);
        })
    }

    fn submit(&mut self) -> Result<(), ToyError> {
        self.queue.submit();
        Ok(())
    }
}
