// Unless skipped: zeros in a run.
// library: control flag

@group(0) @binding(1) var<storage, read_write> run: array<u32>;
@group(0) @binding(2) var<storage, read> flags: array<u32>;

@compute @workgroup_size(256)
fn clear(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>) {
    if (flags[SKIP] != 0u) { return; }
    for (var j = c.first + id.x; j < c.end; j += workgroups.x * WORKGROUP) {
        run[c.packed_at + j] = 0u;
    }
}
