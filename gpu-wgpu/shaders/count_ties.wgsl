// How many items of each workgroup's words equal the k-th largest key.
// library: control element gradient selection

@group(0) @binding(1) var<storage, read> gradient: array<u32>;
@group(0) @binding(2) var<storage, read_write> selection: array<atomic<u32>>;

var<workgroup> ties: atomic<u32>;

@compute @workgroup_size(256)
fn count_ties(@builtin(local_invocation_index) id: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let digits = atomicLoad(&selection[PREFIX]);
    let begin = c.first + workgroup.x * c.chunk * 32u;
    let end = min(begin + c.chunk * 32u, c.end);
    var count = 0u;
    for (var i = begin + id; i < end; i += WORKGROUP) {
        count += select(0u, 1u, (gradient_bits(i) & 0x7fffffffu) == digits);
    }
    if (count != 0u) { atomicAdd(&ties, count); }
    workgroupBarrier();
    if (id == 0u) { atomicStore(&selection[COUNTS + workgroup.x], atomicLoad(&ties)); }
}
