// Coordinate i of the delivered gradient, widened, as bits. Needs element.wgsl and a binding `gradient`.
fn gradient_bits(i: u32) -> u32 {
    let e = c.gradient_at + i;
    return element_of_word(gradient[e >> elements_log2(c.gradient_type)], e, c.gradient_type);
}
