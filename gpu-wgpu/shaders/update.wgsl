// Adam on the active coordinates (A6.1), unless skipped. An invocation takes one word of the parameter, so that no other
// writes the half beside a 16-bit element.
// library: control element contains rank old_contains coefficient

@group(0) @binding(1) var<storage, read> packed_gradient: array<f32>;
@group(0) @binding(2) var<storage, read_write> first_moments: array<f32>;
@group(0) @binding(3) var<storage, read_write> second_moments: array<f32>;
@group(0) @binding(4) var<storage, read_write> param: array<u32>;
@group(0) @binding(5) var<storage, read> bits: array<u32>;
@group(0) @binding(6) var<storage, read> prefix: array<u32>;
@group(0) @binding(7) var<storage, read> old_bits: array<u32>;
@group(0) @binding(8) var<storage, read> coefficients: array<f32>;

const L2: u32 = 1u;
const DECOUPLED: u32 = 2u;
const ENTERING: u32 = 4u;    // what is not in the old mask enters a block with t > 0 (A5.4)

fn coefficient(word: u32) -> f32 {
    return coefficients[c.slot * COEFFICIENTS + word];
}

fn update_coordinate(i: u32, j: u32, param_bits: u32) -> u32 {
    var p = bitcast<f32>(param_bits);
    let at = c.packed_at + j;
    var g = (packed_gradient[c.gradient_at + j] * bitcast<f32>(c.inv_loss_scale)) * coefficient(CLIP);
    if ((c.options & L2) != 0u) { g = g + c.weight_decay * p; }
    if ((c.options & DECOUPLED) != 0u) { p = p * c.shrink; }
    var m = first_moments[at];
    var v = second_moments[at];
    if ((c.options & ENTERING) != 0u && !old_contains(i)) {
        m = coefficient(ENTERING_M) * g;
        v = coefficient(ENTERING_V) * (g * g);
    }
    m = m + c.one_minus_beta1 * (g - m);
    v = c.beta2 * v + (c.one_minus_beta2 * g) * g;
    first_moments[at] = m;
    second_moments[at] = v;
    let denominator = sqrt(v) / coefficient(C2) + c.eps;
    if ((bitcast<u32>(denominator) & 0x7fffffffu) != 0u) {
        p = p - ((c.lr / coefficient(C1)) * m) / denominator;
    }
    return bitcast<u32>(p);
}

@compute @workgroup_size(256)
fn update(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>) {
    if (coefficient(SKIPPED_STEP) != 0.0) { return; }
    let log2 = elements_log2(c.param_type);
    let begin = c.param_at + c.first;
    let end = c.param_at + c.end;
    for (var w = (begin >> log2) + id.x; (w << log2) < end; w += workgroups.x * WORKGROUP) {
        var word = param[w];
        var changed = false;
        for (var e = max(w << log2, begin); e < min((w + 1u) << log2, end); e++) {
            let i = e - c.param_at;
            if (!contains(i)) { continue; }
            let j = rank(i);
            if (!holds(j)) { continue; }
            word = word_with_element(word, e, c.param_type, update_coordinate(i, j, element_of_word(word, e, c.param_type)));
            changed = true;
        }
        if (changed) { param[w] = word; }
    }
}
