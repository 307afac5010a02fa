// Unless skipped: step count and powers of beta of each region go on by one (A6.1). A block that trips while it switches by
// itself is new again (A6.5). One invocation a region.
// library: control wide single double flag

@group(0) @binding(1) var<storage, read> rows: array<u32>;   // block, 1 where it is fresh
@group(0) @binding(2) var<storage, read> flags: array<u32>;
@group(0) @binding(3) var<storage, read_write> steps: array<u32>;
@group(0) @binding(4) var<storage, read_write> powers: array<u32>;

const RENEW: u32 = 32u;      // where skipped: t = 0

@compute @workgroup_size(64)
fn advance(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>) {
    if (flags[SKIP] != 0u && (c.options & RENEW) == 0u) { return; }
    for (var row = id.x; row < c.items; row += workgroups.x * 64u) {
        let block_id = rows[2u * row];
        let fresh = rows[2u * row + 1u] != 0u;
        if (flags[SKIP] != 0u) {
            renew(block_id);
            continue;
        }
        steps[block_id] = select(steps[block_id] + 1u, 1u, fresh);
        advance_power(8u * block_id, fresh, vec2<u32>(c.beta1_low, c.beta1_high));
        advance_power(8u * block_id + 2u, fresh, vec2<u32>(c.beta2_low, c.beta2_high));
    }
}

fn renew(block_id: u32) {
    steps[block_id] = 0u;
    for (var i = 0u; i < 8u; i += 2u) {
        powers[8u * block_id + i] = DOUBLE_ONE.x;
        powers[8u * block_id + i + 1u] = DOUBLE_ONE.y;
    }
}

// Before and now lie 4 words apart.
fn advance_power(at: u32, fresh: bool, beta: vec2<u32>) {
    var now = vec2<u32>(powers[at + 4u], powers[at + 5u]);
    if (fresh) { now = DOUBLE_ONE; }
    powers[at] = now.x;
    powers[at + 1u] = now.y;
    now = double_mul(now, beta);
    powers[at + 4u] = now.x;
    powers[at + 5u] = now.y;
}
