// Every function of the arithmetic libraries on pairs of numbers, for the tests.
// library: control wide single double element

@group(0) @binding(1) var<storage, read> pairs: array<vec4<u32>>;         // a, b: f64
@group(0) @binding(2) var<storage, read_write> doubles: array<vec2<u32>>; // sum, product, quotient, root, 1 - a, back from f32
@group(0) @binding(3) var<storage, read_write> words: array<u32>;         // f(a), f32 product, half, bfloat, widened half

@compute @workgroup_size(64)
fn arithmetic(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x;
    if (i >= c.items) { return; }
    let a = pairs[i].xy;
    let b = pairs[i].zw;
    doubles[6u * i] = double_add(a, b);
    doubles[6u * i + 1u] = double_mul(a, b);
    doubles[6u * i + 2u] = double_div(a, b);
    doubles[6u * i + 3u] = double_sqrt(a);
    doubles[6u * i + 4u] = double_one_minus(a);
    let single = double_to_single(a);
    doubles[6u * i + 5u] = double_from_single(bitcast<f32>(single), 0);
    words[5u * i] = single;
    words[5u * i + 1u] = single_mul(single | (b.x << 31u), double_to_single(b));
    words[5u * i + 2u] = narrow_half(single | (b.x << 31u));
    words[5u * i + 3u] = narrow_bfloat(single | (b.x << 31u));
    words[5u * i + 4u] = widen_half(b.x & 0xffffu);
}
