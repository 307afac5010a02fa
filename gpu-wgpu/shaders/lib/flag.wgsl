// Words of the arena's flags; as in blockllm::backend::flag.

const SKIP: u32 = 0u;
const SKIPPED: u32 = 1u;
const STREAK: u32 = 2u;
const STREAK_ERRORS: u32 = 3u;
const BAD_SCORES: u32 = 4u;
const NANS: u32 = 5u;
const ZERO_MASKS: u32 = 6u;
const APPLIED: u32 = 7u;
const TRIPPED: u32 = 8u;

// Counters stay at their largest value.
fn saturating_add(a: u32, b: u32) -> u32 {
    return a + min(b, 0xffffffffu - a);
}
