//! The numbers of dispatches: collected on the host while operations are recorded, uploaded at once when they are
//! submitted.

use blockllm::adam::{Decay, Hyper, Scales};
use bytemuck::{Pod, Zeroable};
use wgpu::{Buffer, Queue};

/// The numbers of one dispatch; the same fields in the same order as in `shaders/lib/control.wgsl`, where they are
/// explained. Kernels read those they need.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, Pod, Zeroable)]
#[allow(missing_docs)]
pub struct Control {
    pub first: u32,
    pub end: u32,
    pub n: u32,
    pub k: u32,
    pub gradient_type: u32,
    pub gradient_at: u32,
    pub param_type: u32,
    pub param_at: u32,
    pub packed_at: u32,
    pub packed_first: u32,
    pub packed_count: u32,
    pub masked: u32,
    pub bits_at: u32,
    pub prefix_at: u32,
    pub old_packed_at: u32,
    pub old_packed_first: u32,
    pub old_packed_count: u32,
    pub old_masked: u32,
    pub old_bits_at: u32,
    pub old_prefix_at: u32,
    pub options: u32,
    pub slot: u32,
    pub items: u32,
    pub chunk: u32,
    pub tile: u32,
    pub shift: u32,
    pub guard_limit: u32,
    pub sums_at: u32,
    pub inv_loss_scale: u32,
    pub weight_decay: f32,
    pub shrink: f32,
    pub lr: f32,
    pub one_minus_beta1: f32,
    pub beta2: f32,
    pub one_minus_beta2: f32,
    pub eps: f32,
    pub sign_step: f32,
    pub beta1: [u32; 2],
    pub beta2_double: [u32; 2],
    pub clip: [u32; 2],
    pub number: [u32; 2],
}

/// Bytes of one slice of the control buffer that a dispatch sees.
pub const SLICE: u64 = 256;
const _: () = assert!(size_of::<Control>() as u64 <= SLICE);

/// Bits of `options` that `update` and `state_free` share.
pub mod decay {
    pub const L2: u32 = 1;
    pub const DECOUPLED: u32 = 2;
}

/// An f64 as shaders have it.
pub fn double(x: f64) -> [u32; 2] {
    let bits = x.to_bits();
    [bits as u32, (bits >> 32) as u32]
}

impl Control {
    /// Each number of the caller's rounded once (A6.1, A6.7), as in [`blockllm::adam::Coefficients`] and
    /// [`blockllm::state_free`]; what depends on powers of beta is left to the device.
    pub fn new(h: &Hyper, scales: Scales) -> Self {
        let (lr, wd) = (h.lr * scales.lr, h.weight_decay * scales.weight_decay);
        let l2 = h.decay == Decay::L2 && wd as f32 != 0.0;
        let options = if l2 { decay::L2 } else { 0 } | if h.decay == Decay::Decoupled { decay::DECOUPLED } else { 0 };
        Self {
            options,
            inv_loss_scale: (h.inv_loss_scale as f32).to_bits(),
            weight_decay: wd as f32,
            shrink: (1.0 - lr * wd) as f32,
            lr: lr as f32,
            one_minus_beta1: (1.0 - h.betas[0]) as f32,
            beta2: h.betas[1] as f32,
            one_minus_beta2: (1.0 - h.betas[1]) as f32,
            eps: h.eps as f32,
            sign_step: (lr * h.sign_scale.unwrap_or(0.0)) as f32,
            beta1: double(h.betas[0]),
            beta2_double: double(h.betas[1]),
            clip: double(h.clip.unwrap_or(0.0)),
            ..Self::default()
        }
    }
}

/// A buffer that slices and tables are put into, one after another.
pub struct Chunk {
    /// On the device.
    pub buffer: Buffer,
    bytes: Vec<u8>,
}

impl Chunk {
    pub fn new(buffer: Buffer) -> Self {
        Self { bytes: Vec::with_capacity(buffer.size() as usize), buffer }
    }

    /// Puts `data` at a multiple of `alignment`, with `room` bytes from there on for the binding. Where; nothing if it does
    /// not fit.
    pub fn push(&mut self, data: &[u8], room: u64, alignment: u64) -> Option<u64> {
        let at = (self.bytes.len() as u64).next_multiple_of(alignment);
        let end = at + room.max(data.len() as u64);
        if end > self.buffer.size() {
            return None;
        }
        self.bytes.resize(at as usize, 0);
        self.bytes.extend_from_slice(data);
        self.bytes.resize(end as usize, 0);
        Some(at)
    }

    /// Bytes that were put here.
    pub fn used(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Before all commands of the next submission.
    pub fn upload(&mut self, queue: &Queue) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        queue.write_buffer(&self.buffer, 0, &self.bytes);
        self.bytes.clear();
    }
}
