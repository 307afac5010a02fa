// How many bits each workgroup's words of the bitmap have.
// library: control selection

@group(0) @binding(1) var<storage, read> bits: array<u32>;
@group(0) @binding(2) var<storage, read_write> selection: array<atomic<u32>>;

var<workgroup> bit_count: atomic<u32>;

@compute @workgroup_size(256)
fn count_active(@builtin(local_invocation_index) id: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let begin = (c.first >> 5u) + workgroup.x * c.chunk;
    let end = min(begin + c.chunk, (c.end + 31u) >> 5u);
    var count = 0u;
    for (var w = begin + id; w < end; w += WORKGROUP) {
        count += countOneBits(bits[c.bits_at + w]);
    }
    if (count != 0u) { atomicAdd(&bit_count, count); }
    workgroupBarrier();
    if (id == 0u) { atomicStore(&selection[COUNTS + workgroup.x], atomicLoad(&bit_count)); }
}
