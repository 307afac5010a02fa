// Active coordinates before i: where i lies in the packed run, if it is active. Needs bindings `bits` and `prefix`.
fn rank(i: u32) -> u32 {
    if (c.masked == 0u) { return i; }
    var before = prefix[c.prefix_at + (i >> 9u)];
    for (var w = (i >> 9u) << 4u; w < (i >> 5u); w++) {
        before += countOneBits(bits[c.bits_at + w]);
    }
    return before + countOneBits(bits[c.bits_at + (i >> 5u)] & ((1u << (i & 31u)) - 1u));
}

// Whether this binding holds place j of the packed run.
fn holds(j: u32) -> bool {
    return j - c.packed_first < c.packed_count;
}
