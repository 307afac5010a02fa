// The bitmap: what lies above the k-th largest key, and the first of what equals it (A4.4). An invocation takes a word.
// library: control element gradient selection scan

@group(0) @binding(1) var<storage, read> gradient: array<u32>;
@group(0) @binding(2) var<storage, read> selection: array<u32>;
@group(0) @binding(3) var<storage, read_write> bits: array<u32>;

// Bits of items above the key, and equal to it.
fn compare(w: u32) -> vec2<u32> {
    let digits = selection[PREFIX];
    var above = 0u;
    var equal = 0u;
    for (var i = w * 32u; i < min(w * 32u + 32u, c.end); i++) {
        let key = gradient_bits(i) & 0x7fffffffu;
        above |= select(0u, 1u, key > digits) << (i & 31u);
        equal |= select(0u, 1u, key == digits) << (i & 31u);
    }
    return vec2<u32>(above, equal);
}

fn lowest(bit_set: u32, count: u32) -> u32 {
    var out = bit_set;
    while (countOneBits(out) > count) { out &= ~(1u << firstLeadingBit(out)); }
    return out;
}

@compute @workgroup_size(256)
fn mark(@builtin(local_invocation_index) id: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {
    let begin = (c.first >> 5u) + workgroup.x * c.chunk;
    let end = min(begin + c.chunk, (c.end + 31u) >> 5u);
    var before = selection[COUNTS + workgroup.x];
    for (var start = begin; start < end; start += WORKGROUP) {
        let w = start + id;
        var found = vec2<u32>(0u, 0u);
        if (w < end) { found = compare(w); }
        let ties = scan(id, countOneBits(found.y));
        if (w < end) {
            let taken = before + ties.x;
            let room = selection[ROOM];
            bits[c.bits_at + w] = found.x | lowest(found.y, select(0u, room - taken, room > taken));
        }
        before += ties.y;
    }
}
