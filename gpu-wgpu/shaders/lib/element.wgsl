// Elements of parameters and gradients (A7.1) as f32 bits: widened exactly, rounded once to nearest even on the way back,
// in integers. Two 16-bit elements share a word; any element may be the first of a tensor.

const F32: u32 = 0u;
const F16: u32 = 1u;
const BF16: u32 = 2u;

fn widen_half(h: u32) -> u32 {
    let sign = (h & 0x8000u) << 16u;
    let exponent = (h >> 10u) & 0x1fu;
    let fraction = h & 0x3ffu;
    if (exponent == 31u) {
        return sign | 0x7f800000u | (fraction << 13u) | select(0u, 0x400000u, fraction != 0u);
    }
    if (exponent != 0u) { return sign | ((exponent + 112u) << 23u) | (fraction << 13u); }
    if (fraction == 0u) { return sign; }
    let s = countLeadingZeros(fraction) - 21u;
    return sign | ((113u - s) << 23u) | (((fraction << s) & 0x3ffu) << 13u);
}

fn narrow_half(x: u32) -> u32 {
    let sign = (x >> 16u) & 0x8000u;
    let m = x & 0x7fffffffu;
    if (m > 0x7f800000u) { return sign | 0x7e00u | ((m >> 13u) & 0x3ffu); }
    let exponent = i32(m >> 23u) - 112;
    if (exponent >= 31) { return sign | 0x7c00u; }
    let significand = (m & 0x7fffffu) | 0x800000u;
    var shift = 13u;
    var base = 0u;
    if (exponent > 0) {
        base = u32(exponent - 1) << 10u;
    } else {
        shift = u32(14 - exponent);
        if (shift > 24u) { return sign; }
    }
    let fraction = significand >> shift;
    let rest = significand & ((1u << shift) - 1u);
    let half = 1u << (shift - 1u);
    let up = rest > half || (rest == half && (fraction & 1u) == 1u);
    return sign | (base + fraction + select(0u, 1u, up));
}

fn narrow_bfloat(x: u32) -> u32 {
    if ((x & 0x7fffffffu) > 0x7f800000u) { return (x >> 16u) | 0x40u; }
    return (x + 0x7fffu + ((x >> 16u) & 1u)) >> 16u;
}

// Element `e` of a buffer, from the word that holds it.
fn element_of_word(word: u32, e: u32, kind: u32) -> u32 {
    if (kind == F32) { return word; }
    let h = (word >> ((e & 1u) * 16u)) & 0xffffu;
    if (kind == F16) { return widen_half(h); }
    return h << 16u;
}

// The word with element `e` replaced; the other half keeps its bits.
fn word_with_element(word: u32, e: u32, kind: u32, x: u32) -> u32 {
    if (kind == F32) { return x; }
    var h: u32;
    if (kind == F16) { h = narrow_half(x); } else { h = narrow_bfloat(x); }
    let shift = (e & 1u) * 16u;
    return (word & ~(0xffffu << shift)) | (h << shift);
}

// log2 of the elements in a word.
fn elements_log2(kind: u32) -> u32 {
    return select(1u, 0u, kind == F32);
}
