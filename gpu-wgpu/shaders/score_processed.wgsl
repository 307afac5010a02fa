// Sum of squares of the processed gradient m/c1 / (sqrt(v)/c2 + eps) with the moments as this step would make them; of
// g / (|g| + eps) where a coordinate has none (A2.1).
// library: control wide single double element gradient contains rank coefficient found sum_of_squares

@group(0) @binding(1) var<storage, read> gradient: array<u32>;
@group(0) @binding(2) var<storage, read> first_moments: array<u32>;
@group(0) @binding(3) var<storage, read> second_moments: array<u32>;
@group(0) @binding(4) var<storage, read> bits: array<u32>;
@group(0) @binding(5) var<storage, read> prefix: array<u32>;
@group(0) @binding(6) var<storage, read> coefficients: array<f32>;
@group(0) @binding(7) var<storage, read_write> partials: array<u32>;

const PRESENT: u32 = 2u;
const OTHERS: u32 = 4u;

fn quotient(g: u32, numerator: f32, denominator: f32) -> Found {
    if (magnitude(g) >= INFINITY) { return Found(0u, NOT_A_NUMBER); }
    if (magnitude(bitcast<u32>(denominator)) == 0u) { return Found(0u, 0u); }
    return found_of(bitcast<u32>(numerator / denominator));
}

// With several pieces of the packed run, a coordinate counts where its moments are bound, and one that has none once.
fn element(i: u32) -> Found {
    let bits_of_g = single_mul(gradient_bits(i), c.inv_loss_scale);
    let g = bitcast<f32>(bits_of_g);
    var is_active = false;
    if ((c.options & PRESENT) != 0u) { is_active = contains(i); }
    if (!is_active) {
        if ((c.options & OTHERS) == 0u) { return Found(0u, 0u); }
        return quotient(bits_of_g, g, abs(g) + c.eps);
    }
    let j = rank(i);
    if (!holds(j)) { return Found(0u, 0u); }
    var m = bitcast<f32>(first_moments[c.packed_at + j]);
    var v = bitcast<f32>(second_moments[c.packed_at + j]);
    m = m + c.one_minus_beta1 * (g - m);
    v = c.beta2 * v + (c.one_minus_beta2 * g) * g;
    let at = c.slot * COEFFICIENTS;
    return quotient(bits_of_g, m / coefficients[at + C1], sqrt(v) / coefficients[at + C2] + c.eps);
}

@compute @workgroup_size(256)
fn score_processed(
    @builtin(local_invocation_index) id: u32, @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    partial_sum(id, workgroup.x, workgroups.x);
}
