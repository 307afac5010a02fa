// The same of the mask before the switch. Needs a binding `old_bits`.
fn old_contains(i: u32) -> bool {
    if (c.old_masked == 0u) { return true; }
    return ((old_bits[c.old_bits_at + (i >> 5u)] >> (i & 31u)) & 1u) == 1u;
}
