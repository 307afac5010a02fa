// Arithmetic on f64 that is not negative, as (low, high) words: one IEEE operation each, rounded once to nearest even, in
// integers. Needs wide.wgsl and single.wgsl.

// m * 2^e, the top bit of m set unless it is zero.
struct Double {
    m: vec2<u32>,
    e: i32,
}

const DOUBLE_ONE: vec2<u32> = vec2<u32>(0u, 0x3ff00000u);
const DOUBLE_INFINITY: vec2<u32> = vec2<u32>(0u, 0x7ff00000u);
const DOUBLE_NAN: vec2<u32> = vec2<u32>(0u, 0x7ff80000u);

fn double_is_finite(a: vec2<u32>) -> bool {
    return (a.y & 0x7ff00000u) != 0x7ff00000u;
}

fn double_unpack(a: vec2<u32>) -> Double {
    let exponent = (a.y >> 20u) & 0x7ffu;
    let fraction = vec2<u32>(a.x, a.y & 0xfffffu);
    var m = fraction;
    var e = -1074;
    if (exponent != 0u) {
        m.y |= 0x100000u;
        e = i32(exponent) - 1075;
    }
    if (wide_is_zero(m)) { return Double(m, e); }
    let s = wide_leading_zeros(m);
    return Double(wide_shl(m, s), e - i32(s));
}

// m * 2^e rounded, m of any size; its lowest bit may be sticky where it has 56 bits or more.
fn double_pack(significand: vec2<u32>, scale: i32) -> vec2<u32> {
    if (wide_is_zero(significand)) { return vec2<u32>(0u, 0u); }
    let s = wide_leading_zeros(significand);
    var m = wide_shl(significand, s);
    let exponent = scale - i32(s) + 63 + 1023;
    if (exponent >= 2047) { return DOUBLE_INFINITY; }
    var base = 0u;
    if (exponent <= 0) {
        m = wide_shr_sticky(m, u32(1 - exponent));
    } else {
        base = u32(exponent - 1) << 20u;
    }
    let rest = m.x & 0x7ffu;
    var out = vec2<u32>((m.x >> 11u) | (m.y << 21u), m.y >> 11u);
    let up = rest > 0x400u || (rest == 0x400u && (out.x & 1u) == 1u);
    out = wide_add(out, vec2<u32>(select(0u, 1u, up), base));
    return out;
}

// Of two terms that are not negative; not finite where one of them is not.
fn double_add(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    // NaN is the larger of two that are not finite.
    if (!double_is_finite(a) || !double_is_finite(b)) { return select(a, b, wide_less(a, b)); }
    let swapped = wide_less(a, b);
    let large = double_unpack(select(a, b, swapped));
    let small = double_unpack(select(b, a, swapped));
    if (wide_is_zero(small.m)) { return select(a, b, swapped); }
    // 53 bits at the top of 64: halving loses nothing and makes room for the carry.
    let term = wide_shr_sticky(small.m, u32(large.e - small.e) + 1u);
    return double_pack(wide_add(wide_shr_sticky(large.m, 1u), term), large.e + 1);
}

fn double_mul(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let x = double_unpack(a);
    let y = double_unpack(b);
    if (wide_is_zero(x.m) || wide_is_zero(y.m)) { return vec2<u32>(0u, 0u); }
    let ll = wide_mul(x.m.x, y.m.x);
    let lh = wide_mul(x.m.x, y.m.y);
    let hl = wide_mul(x.m.y, y.m.x);
    let hh = wide_mul(x.m.y, y.m.y);
    let middle = wide_add(wide_add(vec2<u32>(ll.y, 0u), vec2<u32>(lh.x, 0u)), vec2<u32>(hl.x, 0u));
    var high = wide_add(wide_add(hh, vec2<u32>(lh.y, 0u)), vec2<u32>(hl.y, 0u));
    high = wide_add(high, vec2<u32>(middle.y, 0u));
    high.x |= select(0u, 1u, (ll.x | middle.x) != 0u);
    return double_pack(high, x.e + y.e + 64);
}

// 1 - p for p in [0, 1].
fn double_one_minus(p: vec2<u32>) -> vec2<u32> {
    if (all(p == DOUBLE_ONE)) { return vec2<u32>(0u, 0u); }
    let x = double_unpack(p);
    if (wide_is_zero(x.m)) { return DOUBLE_ONE; }
    let term = wide_shr_sticky(x.m, u32(-63 - x.e));
    return double_pack(wide_sub(vec2<u32>(0u, 0x80000000u), term), -63);
}

// a / b, both positive, a finite: 56 bits of quotient and the remainder's.
fn double_div(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    if (!double_is_finite(b)) { return vec2<u32>(0u, 0u); }
    let x = double_unpack(a);
    let y = double_unpack(b);
    var rest = wide_shr_sticky(x.m, 11u);
    let divisor = wide_shr_sticky(y.m, 11u);
    var quotient = vec2<u32>(0u, 0u);
    for (var i = 0; i < 56; i++) {
        quotient = wide_shl(quotient, 1u);
        if (!wide_less(rest, divisor)) {
            rest = wide_sub(rest, divisor);
            quotient.x |= 1u;
        }
        rest = wide_shl(rest, 1u);
    }
    quotient = wide_shl(quotient, 1u);
    quotient.x |= select(1u, 0u, wide_is_zero(rest));
    return double_pack(quotient, x.e - y.e - 56);
}

// Digit by digit: 55 bits of root and the remainder's. Infinity and NaN stay what they are.
fn double_sqrt(a: vec2<u32>) -> vec2<u32> {
    if (!double_is_finite(a)) { return a; }
    let x = double_unpack(a);
    if (wide_is_zero(x.m)) { return a; }
    // 53 or 54 bits at the top of 54, the exponent even.
    let odd = ((x.e + 11) & 1) != 0;
    var digits = wide_shr_sticky(x.m, select(1u, 0u, odd));
    let scale = (x.e + 11 - select(0, 1, odd) - 56) >> 1u;
    var rest = vec2<u32>(0u, 0u);
    var root = vec2<u32>(0u, 0u);
    for (var i = 0; i < 55; i++) {
        rest = wide_shl(rest, 2u);
        rest.x |= digits.y >> 30u;
        digits = wide_shl(digits, 2u);
        var trial = wide_shl(root, 2u);
        trial.x |= 1u;
        root = wide_shl(root, 1u);
        if (!wide_less(rest, trial)) {
            rest = wide_sub(rest, trial);
            root.x |= 1u;
        }
    }
    root = wide_shl(root, 1u);
    root.x |= select(1u, 0u, wide_is_zero(rest));
    return double_pack(root, scale - 1);
}

// f(a): the f32 nearest to a, as bits.
fn double_to_single(a: vec2<u32>) -> u32 {
    if (!double_is_finite(a)) { return INFINITY; }
    let x = double_unpack(a);
    if (wide_is_zero(x.m)) { return 0u; }
    return single_round(x.m, x.e + 63 + 127);
}

// x * 2^scale, exactly; x is a normal number or zero, and so is the result.
fn double_from_single(x: f32, scale: i32) -> vec2<u32> {
    let bits = bitcast<u32>(x);
    if (magnitude(bits) == 0u) { return vec2<u32>(0u, 0u); }
    let exponent = u32(i32(bits >> 23u) - 127 + 1023 + scale);
    return vec2<u32>(bits << 29u, (exponent << 20u) | ((bits & 0x7fffffu) >> 3u));
}
