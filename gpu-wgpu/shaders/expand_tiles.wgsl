// The bitmap of coordinates from that of tiles. An invocation takes a word.
// library: control

@group(0) @binding(1) var<storage, read> tile_bits: array<u32>;
@group(0) @binding(2) var<storage, read_write> bits: array<u32>;

@compute @workgroup_size(256)
fn expand_tiles(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>) {
    let end = (c.end + 31u) >> 5u;
    for (var w = (c.first >> 5u) + id.x; w < end; w += workgroups.x * WORKGROUP) {
        var word = 0u;
        for (var i = w * 32u; i < min(w * 32u + 32u, c.end); i++) {
            let tile = i / c.tile;
            word |= ((tile_bits[c.old_bits_at + (tile >> 5u)] >> (tile & 31u)) & 1u) << (i & 31u);
        }
        bits[c.bits_at + w] = word;
    }
}
