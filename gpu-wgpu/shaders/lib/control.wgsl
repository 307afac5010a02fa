// The numbers of one dispatch; the same fields in the same order as `Control` in src/control.rs.
//
// Every `*_at` is such that adding an absolute index (a coordinate, a place in a packed run, a word of a bitmap, a prefix
// count) gives the index inside the binding. It may be "negative": u32 wraps around.
struct Control {
    first: u32,              // coordinates (or items) of this piece
    end: u32,
    n: u32,                  // of the whole
    k: u32,
    gradient_type: u32,      // F32, F16, BF16
    gradient_at: u32,
    param_type: u32,
    param_at: u32,
    packed_at: u32,          // the packed run: which of its places the binding holds
    packed_first: u32,
    packed_count: u32,
    masked: u32,
    bits_at: u32,
    prefix_at: u32,
    old_packed_at: u32,      // the same of the set before
    old_packed_first: u32,
    old_packed_count: u32,
    old_masked: u32,
    old_bits_at: u32,
    old_prefix_at: u32,
    options: u32,            // bits, by kernel
    slot: u32,               // of coefficients; or a block, or a place in a buffer
    items: u32,              // rows of a table, partial sums, workgroups that counted
    chunk: u32,              // words that one workgroup takes
    tile: u32,
    shift: u32,              // of a radix pass
    guard_limit: u32,
    sums_at: u32,
    inv_loss_scale: u32,     // f32 bits: it multiplies in integers
    weight_decay: f32,
    shrink: f32,
    lr: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    eps: f32,
    sign_step: f32,
    beta1_low: u32,          // f64 as two words
    beta1_high: u32,
    beta2_low: u32,
    beta2_high: u32,
    clip_low: u32,
    clip_high: u32,
    number_low: u32,
    number_high: u32,
}

@group(0) @binding(0) var<uniform> c: Control;

const WORKGROUP: u32 = 256u;
