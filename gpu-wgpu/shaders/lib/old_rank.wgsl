// The same of the mask before the switch. Needs bindings `old_bits` and `old_prefix`.
fn old_rank(i: u32) -> u32 {
    if (c.old_masked == 0u) { return i; }
    var before = old_prefix[c.old_prefix_at + (i >> 9u)];
    for (var w = (i >> 9u) << 4u; w < (i >> 5u); w++) {
        before += countOneBits(old_bits[c.old_bits_at + w]);
    }
    return before + countOneBits(old_bits[c.old_bits_at + (i >> 5u)] & ((1u << (i & 31u)) - 1u));
}

fn old_holds(j: u32) -> bool {
    return j - c.old_packed_first < c.old_packed_count;
}
