// Unsigned integers of 64 bits as (low, high) words.

fn wide_add(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2<u32>(low, a.y + b.y + select(0u, 1u, low < a.x));
}

fn wide_sub(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return vec2<u32>(a.x - b.x, a.y - b.y - select(0u, 1u, a.x < b.x));
}

fn wide_less(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.y < b.y || (a.y == b.y && a.x < b.x);
}

fn wide_is_zero(a: vec2<u32>) -> bool {
    return (a.x | a.y) == 0u;
}

fn wide_leading_zeros(a: vec2<u32>) -> u32 {
    return select(countLeadingZeros(a.y), 32u + countLeadingZeros(a.x), a.y == 0u);
}

// s < 64. A shift of a word by 32 is no shift in WGSL, hence the cases.
fn wide_shl(a: vec2<u32>, s: u32) -> vec2<u32> {
    if (s == 0u) { return a; }
    if (s >= 32u) { return vec2<u32>(0u, a.x << (s - 32u)); }
    return vec2<u32>(a.x << s, (a.y << s) | (a.x >> (32u - s)));
}

// What is shifted out leaves the lowest bit set: enough to round by, two bits or more above it.
fn wide_shr_sticky(a: vec2<u32>, s: u32) -> vec2<u32> {
    if (s == 0u) { return a; }
    if (s >= 64u) { return vec2<u32>(select(1u, 0u, wide_is_zero(a)), 0u); }
    var out: vec2<u32>;
    var lost: u32;
    if (s < 32u) {
        out = vec2<u32>((a.x >> s) | (a.y << (32u - s)), a.y >> s);
        lost = a.x << (32u - s);
    } else if (s == 32u) {
        out = vec2<u32>(a.y, 0u);
        lost = a.x;
    } else {
        out = vec2<u32>(a.y >> (s - 32u), 0u);
        lost = a.x | (a.y << (64u - s));
    }
    out.x |= select(0u, 1u, lost != 0u);
    return out;
}

// The whole product of two words.
fn wide_mul(a: u32, b: u32) -> vec2<u32> {
    let al = a & 0xffffu;
    let ah = a >> 16u;
    let bl = b & 0xffffu;
    let bh = b >> 16u;
    let low = al * bl;
    let middle = ah * bl + (low >> 16u);
    let other = al * bh + (middle & 0xffffu);
    return vec2<u32>((other << 16u) | (low & 0xffffu), ah * bh + (middle >> 16u) + (other >> 16u));
}
