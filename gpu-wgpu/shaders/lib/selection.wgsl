// Words of the radix select's state; as in src/operations/mask.rs.

const PREFIX: u32 = 0u;    // digits of the k-th largest key found so far
const KNOWN: u32 = 1u;     // which digits those are
const ROOM: u32 = 2u;      // items still to take among those that share them
const TIES: u32 = 3u;      // ties counted in pieces before this one
const ACTIVE: u32 = 4u;    // bits set in pieces before this one
const HISTOGRAM: u32 = 8u; // 256 counts
const COUNTS: u32 = 264u;  // 256 counts, by workgroup
