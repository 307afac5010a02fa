// What the update of each block divides and multiplies with, of its powers of beta: differences and roots in f64, rounded
// once (A6.1). One invocation a block.
// library: control wide single double coefficient flag

@group(0) @binding(1) var<storage, read> rows: array<u32>;   // block
@group(0) @binding(2) var<storage, read> powers: array<u32>;
@group(0) @binding(3) var<storage, read> norm: array<u32>;
@group(0) @binding(4) var<storage, read> flags: array<u32>;
@group(0) @binding(5) var<storage, read_write> coefficients: array<u32>;

const OF_NEXT_STEP: u32 = 1u;   // for a score before the step is sealed (A2.1)

fn power(at: u32) -> vec2<u32> {
    return vec2<u32>(powers[at], powers[at + 1u]);
}

@compute @workgroup_size(64)
fn coefficients_of_powers(
    @builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    for (var row = id.x; row < c.items; row += workgroups.x * 64u) {
        let block_id = rows[row];
        var now1 = power(8u * block_id + 4u);
        var now2 = power(8u * block_id + 6u);
        if ((c.options & OF_NEXT_STEP) != 0u) {
            now1 = double_mul(now1, vec2<u32>(c.beta1_low, c.beta1_high));
            now2 = double_mul(now2, vec2<u32>(c.beta2_low, c.beta2_high));
        }
        let at = block_id * COEFFICIENTS;
        coefficients[at + C1] = double_to_single(double_one_minus(now1));
        coefficients[at + C2] = double_to_single(double_sqrt(double_one_minus(now2)));
        coefficients[at + ENTERING_M] = double_to_single(double_one_minus(power(8u * block_id)));
        coefficients[at + ENTERING_V] = double_to_single(double_one_minus(power(8u * block_id + 2u)));
        coefficients[at + CLIP] = double_to_single(vec2<u32>(norm[2], norm[3]));
        coefficients[at + SKIPPED_STEP] = select(0u, 0x3f800000u, flags[SKIP] != 0u);
    }
}
