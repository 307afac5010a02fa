// One pass of the radix select: counts the next 8 bits of the keys |g| that share the digits found so far.
// library: control element gradient selection

@group(0) @binding(1) var<storage, read> gradient: array<u32>;
@group(0) @binding(2) var<storage, read_write> selection: array<atomic<u32>>;

var<workgroup> counts: array<atomic<u32>, 256>;

@compute @workgroup_size(256)
fn histogram(
    @builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let known = atomicLoad(&selection[KNOWN]);
    let digits = atomicLoad(&selection[PREFIX]);
    for (var i = c.first + id.x; i < c.end; i += workgroups.x * WORKGROUP) {
        let key = gradient_bits(i) & 0x7fffffffu;
        if ((key & known) == digits) { atomicAdd(&counts[(key >> c.shift) & 255u], 1u); }
    }
    workgroupBarrier();
    let count = atomicLoad(&counts[local]);
    if (count != 0u) { atomicAdd(&selection[HISTOGRAM + local], count); }
}
