// Whether coordinate i is active. Needs a binding `bits`.
fn contains(i: u32) -> bool {
    if (c.masked == 0u) { return true; }
    return ((bits[c.bits_at + (i >> 5u)] >> (i & 31u)) & 1u) == 1u;
}
