// Sum of squares without f64 (A2.3), for every finite f32. Needs single.wgsl, double.wgsl, found.wgsl, a binding `partials` and a
// function `element(i)` that gives bits.
//
// Elements fall into three ranges, each scaled by a power of two so that no square and no sum of a leaf leaves the normal
// f32 (Blue's norm): below 2^-47 times 2^90, from 2^47 on times 2^-88. A leaf is 4096 elements: an invocation squares and
// adds 16 of them, 256 invocations fold pairwise. A leaf's three sums become f64 by exact scaling, and everything above is
// f64 addition in integers.
//
// Bound: an addend meets one rounding of its square, at most 15 in its invocation (the first addition is to zero) and 8 in
// the fold: 24 of 2^-24, which is 1.5e-6; f64 additions do not show beside it. All addends are positive, so it holds for
// the sum. Fusing a square into its addition leaves a rounding out.

const PER_INVOCATION: u32 = 16u;
const LEAF: u32 = 4096u;

const SMALL: u32 = 0x28000000u; // 2^-47
const LARGE: u32 = 0x57000000u; // 2^47

var<workgroup> fold: array<vec3<f32>, 256>;
var<workgroup> found: atomic<u32>;

// x is finite.
fn accumulate(sums: vec3<f32>, x: u32) -> vec3<f32> {
    let m = magnitude(x);
    var out = sums;
    if (m >= LARGE) {
        let y = bitcast<f32>(m - (88u << 23u));
        out.z += y * y;
    } else if (m >= SMALL) {
        let y = bitcast<f32>(m);
        out.y += y * y;
    } else if (m >= 0x800000u) {
        let y = bitcast<f32>(m + (90u << 23u));
        out.x += y * y;
    } else {
        // A denormal is an integer times 2^-149; as an operand it might be taken for zero.
        let y = f32(m) * 0x1p-59f;
        out.x += y * y;
    }
    return out;
}

fn assemble(sums: vec3<f32>) -> vec2<u32> {
    let small = double_from_single(sums.x, -180);
    let large = double_from_single(sums.z, 176);
    return double_add(double_add(small, double_from_single(sums.y, 0)), large);
}

// The partial sum of this workgroup over its leaves of [c.first, c.end); added to what is there unless it is the first
// piece.
fn partial_sum(id: u32, workgroup: u32, workgroups: u32) {
    let leaves = (c.end - c.first + LEAF - 1u) / LEAF;
    var total = vec2<u32>(0u, 0u);
    var seen = 0u;
    for (var leaf = workgroup; leaf < leaves; leaf += workgroups) {
        var sums = vec3<f32>(0.0, 0.0, 0.0);
        for (var j = 0u; j < PER_INVOCATION; j++) {
            let i = c.first + leaf * LEAF + j * WORKGROUP + id;
            if (i < c.end) {
                let x = element(i);
                seen |= x.found;
                if ((x.found & (INFINITE | NOT_A_NUMBER)) == 0u) { sums = accumulate(sums, x.bits); }
            }
        }
        fold[id] = sums;
        workgroupBarrier();
        for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
            if (id < half) { fold[id] += fold[id + half]; }
            workgroupBarrier();
        }
        if (id == 0u) { total = double_add(total, assemble(fold[0])); }
        workgroupBarrier();
    }
    if (seen != 0u) { atomicOr(&found, seen); }
    workgroupBarrier();
    if (id == 0u) {
        let at = workgroup * PARTIAL;
        var all = atomicLoad(&found);
        if ((c.options & FIRST_PIECE) == 0u) {
            total = double_add(total, vec2<u32>(partials[at], partials[at + 1u]));
            all |= partials[at + 2u];
        }
        partials[at] = total.x;
        partials[at + 1u] = total.y;
        partials[at + 2u] = all;
    }
}

const FIRST_PIECE: u32 = 1u;
