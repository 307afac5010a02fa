// Bits set before each run of 512 coordinates (A5.5). An invocation takes a run, a workgroup its chunk of them.
// library: control selection scan

@group(0) @binding(1) var<storage, read> bits: array<u32>;
@group(0) @binding(2) var<storage, read> selection: array<u32>;
@group(0) @binding(3) var<storage, read_write> prefix: array<u32>;

@compute @workgroup_size(256)
fn prefix_counts(@builtin(local_invocation_index) id: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let words = (c.end + 31u) >> 5u;
    let begin = (c.first >> 9u) + workgroup.x * (c.chunk >> 4u);
    let end = min(begin + (c.chunk >> 4u), (c.end + 511u) >> 9u);
    var before = selection[COUNTS + workgroup.x];
    for (var start = begin; start < end; start += WORKGROUP) {
        let entry = start + id;
        var count = 0u;
        if (entry < end) {
            for (var w = entry << 4u; w < min((entry + 1u) << 4u, words); w++) {
                count += countOneBits(bits[c.bits_at + w]);
            }
        }
        let sums = scan(id, count);
        if (entry < end) { prefix[c.prefix_at + entry] = before + sums.x; }
        before += sums.y;
    }
}
