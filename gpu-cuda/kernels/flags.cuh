// Words of the arena's flags, norm and powers, as core's `backend/arena.rs` has them.
#pragma once
#include "launch.cuh"

const u32 SKIP = 0, SKIPPED = 1, STREAK = 2, STREAK_ERRORS = 3, BAD_SCORES = 4, NANS = 5, ZERO_MASKS = 6, APPLIED = 7,
          TRIPPED = 8;
const u32 NORM = 0, CLIP = 1;
const u32 POWERS = 4; // of a block: before, before, now, now

static __device__ __forceinline__ u32 saturating_sum(u32 a, u64 b) {
    u64 sum = a + b;
    return sum > 0xffffffffull ? 0xffffffffu : (u32)sum;
}

// Counters stay at their largest value, so that an atomic addition alone will not do.
static __device__ __forceinline__ void count(u32* counter, u64 by) {
    for (u32 seen = *(volatile u32*)counter; by != 0;) {
        u32 before = atomicCAS(counter, seen, saturating_sum(seen, by));
        if (before == seen) return;
        seen = before;
    }
}
