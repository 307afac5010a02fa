// The sign step of what is not active (A6.7). An invocation takes one word of the parameter. The gradient is bound for
// writing though it is only read: it may lie in the parameter's buffer, which can be bound in one way at a time; where
// both lie in one binding, the gradient is read through the parameter's.
// library: control element contains flag

@group(0) @binding(1) var<storage, read_write> gradient: array<u32>;
@group(0) @binding(2) var<storage, read_write> param: array<u32>;
@group(0) @binding(3) var<storage, read> bits: array<u32>;
@group(0) @binding(4) var<storage, read_write> flags: array<atomic<u32>>;

const L2: u32 = 1u;
const DECOUPLED: u32 = 2u;
const ONE_BINDING: u32 = 4u;
const HAS_MASK: u32 = 8u;    // else the whole block is idle

var<workgroup> nans: atomic<u32>;

fn gradient_bits(i: u32) -> u32 {
    let e = c.gradient_at + i;
    let w = e >> elements_log2(c.gradient_type);
    if ((c.options & ONE_BINDING) != 0u) { return element_of_word(param[w], e, c.gradient_type); }
    return element_of_word(gradient[w], e, c.gradient_type);
}

fn is_active(i: u32) -> bool {
    if ((c.options & HAS_MASK) == 0u) { return false; }
    return contains(i);
}

fn state_free_coordinate(i: u32, param_bits: u32) -> u32 {
    var p = bitcast<f32>(param_bits);
    var d = gradient_bits(i);
    if ((c.options & L2) != 0u) {
        d = bitcast<u32>(bitcast<f32>(d) * bitcast<f32>(c.inv_loss_scale) + c.weight_decay * p);
    }
    let m = d & 0x7fffffffu;
    if (m > 0x7f800000u) { atomicAdd(&nans, 1u); }
    if ((c.options & DECOUPLED) != 0u) { p = p * c.shrink; }
    if (m != 0u && m <= 0x7f800000u) {
        p = select(p - c.sign_step, p + c.sign_step, (d >> 31u) == 1u);
    }
    return bitcast<u32>(p);
}

// Counters stay at their largest value.
fn count_nans(n: u32) {
    loop {
        let old = atomicLoad(&flags[NANS]);
        if (atomicCompareExchangeWeak(&flags[NANS], old, saturating_add(old, n)).exchanged) { break; }
    }
}

@compute @workgroup_size(256)
fn state_free(
    @builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let log2 = elements_log2(c.param_type);
    let begin = c.param_at + c.first;
    let end = c.param_at + c.end;
    for (var w = (begin >> log2) + id.x; (w << log2) < end; w += workgroups.x * WORKGROUP) {
        var word = param[w];
        var changed = false;
        for (var e = max(w << log2, begin); e < min((w + 1u) << log2, end); e++) {
            let i = e - c.param_at;
            if (is_active(i)) { continue; }
            word = word_with_element(word, e, c.param_type, state_free_coordinate(i, element_of_word(word, e, c.param_type)));
            changed = true;
        }
        if (changed) { param[w] = word; }
    }
    workgroupBarrier();
    if (local == 0u) {
        let n = atomicLoad(&nans);
        if (n != 0u) { count_nans(n); }
    }
}
