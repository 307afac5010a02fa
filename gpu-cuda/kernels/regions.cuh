// The table of active regions that a seal goes over.
#pragma once
#include "launch.cuh"

struct Region {
    u64 gradient_at, k, first_subtree, block, kind;
};

// Bits of `kind`.
const u64 FRESH = 1, MASKED = 2;

// What `inspect` finds in a region, as bits.
const u32 NOT_FINITE = 1, NOT_ZERO = 2;

// The region that a subtree belongs to.
static __device__ __forceinline__ u64 region_of(const Region* regions, u64 count, u64 subtree) {
    u64 low = 0;
    for (u64 high = count; high - low > 1;) {
        const u64 middle = (low + high) / 2;
        if (regions[middle].first_subtree <= subtree) low = middle;
        else high = middle;
    }
    return low;
}
