// f32 as bit patterns. Needs wide.wgsl. A shader compiler may assume that NaN and infinity do not exist, and a device may
// take denormals for zero: what rests on either is decided here, in integers.

const INFINITY: u32 = 0x7f800000u;
// The largest number whose square is finite in f32 (A6.4).
const LARGEST_SQUARE: u32 = 0x5f7fffffu;

// |x| as an integer that orders as |x| does, NaN above infinity (A4.4).
fn magnitude(x: u32) -> u32 {
    return x & 0x7fffffffu;
}

// m * 2^(exponent - 190), m with its top bit set, rounded once to nearest even; `exponent` is biased as in an f32.
fn single_round(m: vec2<u32>, exponent: i32) -> u32 {
    if (exponent >= 255) { return INFINITY; }
    var w = m;
    var base = 0u;
    if (exponent <= 0) {
        w = wide_shr_sticky(m, u32(1 - exponent));
    } else {
        base = u32(exponent - 1) << 23u;
    }
    let fraction = w.y >> 8u;
    let rest = w.y & 0xffu;
    let up = rest > 0x80u || (rest == 0x80u && (w.x != 0u || (fraction & 1u) == 1u));
    // A carry runs into the exponent, and from the largest number to infinity.
    return base + fraction + select(0u, 1u, up);
}

// Significand with its top bit at 23, and biased exponent, of a number that is not zero.
fn single_parts(bits: u32) -> vec2<i32> {
    let fraction = bits & 0x7fffffu;
    let exponent = (bits >> 23u) & 0xffu;
    if (exponent != 0u) { return vec2<i32>(i32(fraction | 0x800000u), i32(exponent)); }
    let s = countLeadingZeros(fraction) - 8u;
    return vec2<i32>(i32(fraction << s), 1 - i32(s));
}

// f(x * y), y positive and finite: rounded once, denormals as they are, NaN and infinity as x has them.
fn single_mul(x: u32, y: u32) -> u32 {
    let m = magnitude(x);
    if (y == 0x3f800000u || m == 0u || m >= INFINITY) { return x; }
    let a = single_parts(m);
    let b = single_parts(y);
    var product = wide_shl(wide_mul(u32(a.x), u32(b.x)), 16u);
    var exponent = a.y + b.y - 126;
    if ((product.y >> 31u) == 0u) {
        product = wide_shl(product, 1u);
        exponent -= 1;
    }
    return (x & 0x80000000u) | single_round(product, exponent);
}
