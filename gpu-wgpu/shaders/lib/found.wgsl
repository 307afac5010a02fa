// What a reduction meets beside the sum. Needs single.wgsl.

const INFINITE: u32 = 1u;
const TRIPS: u32 = 2u;         // a number whose square is not finite in f32 (A6.4)
const NOT_ZERO: u32 = 4u;
const NOT_A_NUMBER: u32 = 8u;

// Words of a partial sum: sum as f64, what was found, unused.
const PARTIAL: u32 = 4u;

struct Found {
    bits: u32,
    found: u32,
}

fn found_of(x: u32) -> Found {
    let m = magnitude(x);
    var found = select(0u, TRIPS, m > LARGEST_SQUARE);
    if (m == INFINITY) { found |= INFINITE; }
    if (m > INFINITY) { found |= NOT_A_NUMBER; }
    return Found(x, found);
}
