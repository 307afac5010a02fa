// The key of each tile: its largest |g| (A4.5). Keys were zeroed before. An invocation takes 8 coordinates.
// library: control element gradient

@group(0) @binding(1) var<storage, read> gradient: array<u32>;
@group(0) @binding(2) var<storage, read_write> keys: array<atomic<u32>>;

const PER_INVOCATION: u32 = 8u;

@compute @workgroup_size(256)
fn tile_keys(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>) {
    for (var start = c.first + id.x * PER_INVOCATION; start < c.end; start += workgroups.x * WORKGROUP * PER_INVOCATION) {
        var tile = start / c.tile;
        var largest = 0u;
        for (var i = start; i < min(start + PER_INVOCATION, c.end); i++) {
            if (i / c.tile != tile) {
                atomicMax(&keys[c.packed_at + tile], largest);
                tile = i / c.tile;
                largest = 0u;
            }
            largest = max(largest, gradient_bits(i) & 0x7fffffffu);
        }
        atomicMax(&keys[c.packed_at + tile], largest);
    }
}
