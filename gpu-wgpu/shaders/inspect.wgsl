// Sum of squares of a packed run times inv_loss_scale, and what guard and report must know of it (A6.3, A6.4).
// library: control wide single double found sum_of_squares

@group(0) @binding(1) var<storage, read> packed_gradient: array<u32>;
@group(0) @binding(2) var<storage, read_write> partials: array<u32>;

fn element(j: u32) -> Found {
    let g = packed_gradient[c.packed_at + j];
    var out = found_of(single_mul(g, c.inv_loss_scale));
    out.found |= select(NOT_ZERO, 0u, magnitude(g) == 0u);
    return out;
}

@compute @workgroup_size(256)
fn inspect(
    @builtin(local_invocation_index) id: u32, @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    partial_sum(id, workgroup.x, workgroups.x);
}
