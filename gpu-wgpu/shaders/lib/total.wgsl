// Words of the totals over a step's regions, which fold.wgsl adds up for seal.wgsl.

const TOTAL: u32 = 0u;       // f64
const FOUND: u32 = 2u;       // TRIPS
const ZEROS: u32 = 3u;       // masked regions that are zero everywhere
