// The packed gradient's run: active coordinates in order, widened; copied as bits, or added (A6.2, A6.5).
// library: control element gradient contains rank

@group(0) @binding(1) var<storage, read> gradient: array<u32>;
@group(0) @binding(2) var<storage, read_write> packed_gradient: array<u32>;
@group(0) @binding(3) var<storage, read> bits: array<u32>;
@group(0) @binding(4) var<storage, read> prefix: array<u32>;

const ADD: u32 = 1u;

@compute @workgroup_size(256)
fn gather(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>) {
    for (var i = c.first + id.x; i < c.end; i += workgroups.x * WORKGROUP) {
        if (!contains(i)) { continue; }
        let j = rank(i);
        if (!holds(j)) { continue; }
        let at = c.packed_at + j;
        var x = gradient_bits(i);
        if ((c.options & ADD) != 0u) {
            x = bitcast<u32>(bitcast<f32>(packed_gradient[at]) + bitcast<f32>(x));
        }
        packed_gradient[at] = x;
    }
}
