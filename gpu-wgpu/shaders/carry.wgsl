// Unless skipped: one moment of coordinates that stay, from the old packed run to the new one, as bits (A5.4). The rest of
// the new run was cleared before.
// library: control flag contains rank old_contains old_rank

@group(0) @binding(1) var<storage, read> old_run: array<u32>;
@group(0) @binding(2) var<storage, read_write> run: array<u32>;
@group(0) @binding(3) var<storage, read> bits: array<u32>;
@group(0) @binding(4) var<storage, read> prefix: array<u32>;
@group(0) @binding(5) var<storage, read> old_bits: array<u32>;
@group(0) @binding(6) var<storage, read> old_prefix: array<u32>;
@group(0) @binding(7) var<storage, read> flags: array<u32>;

@compute @workgroup_size(256)
fn carry(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>) {
    if (flags[SKIP] != 0u) { return; }
    for (var i = c.first + id.x; i < c.end; i += workgroups.x * WORKGROUP) {
        if (!contains(i) || !old_contains(i)) { continue; }
        let to = rank(i);
        let at = old_rank(i);
        if (holds(to) && old_holds(at)) {
            run[c.packed_at + to] = old_run[c.old_packed_at + at];
        }
    }
}
