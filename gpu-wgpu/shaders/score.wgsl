// Sum of squares of a delivered gradient times inv_loss_scale, rounded to f32 first (A2.4).
// library: control wide single double element gradient found sum_of_squares

@group(0) @binding(1) var<storage, read> gradient: array<u32>;
@group(0) @binding(2) var<storage, read_write> partials: array<u32>;

fn element(i: u32) -> Found {
    return found_of(single_mul(gradient_bits(i), c.inv_loss_scale));
}

@compute @workgroup_size(256)
fn score(
    @builtin(local_invocation_index) id: u32, @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    partial_sum(id, workgroup.x, workgroups.x);
}
