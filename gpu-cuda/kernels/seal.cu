// Decides whether the step is skipped (A6.4): flags, norm and clip factor (A6.3), step counts and powers of beta. One thread
// block; what has an order is done by one thread.
#include "flags.cuh"
#include "regions.cuh"

// Values of `part`.
const u64 STEP = 0, BLOCK = 1, COUNTERS = 2;

struct Seal {
    const Region* regions;
    const double* subtrees; // each region's sum is its first
    const u32* found;
    u32 *flags, *steps;
    double *norm, *powers;
    u64 count, part, switching, guard_limit, has_clip;
    double clip, beta1, beta2;
};

static __device__ void count_step(u32* flags, u64 guard_limit) {
    if (!flags[SKIP]) {
        flags[STREAK] = 0;
        count(flags + APPLIED, 1);
        return;
    }
    count(flags + SKIPPED, 1);
    count(flags + STREAK, 1);
    if (flags[STREAK] >= guard_limit) count(flags + STREAK_ERRORS, 1);
}

// Looks at what was found in the regions, in their order.
static __device__ void decide(const Seal& a) {
    double total = 0.0;
    u32 found = 0;
    u64 zero_masks = 0;
    for (u64 r = 0; r < a.count; ++r) {
        total += a.subtrees[a.regions[r].first_subtree];
        found |= a.found[r];
        zero_masks += a.switching && (a.regions[r].kind & MASKED) && !(a.found[r] & NOT_ZERO);
    }
    a.flags[SKIP] = (found & NOT_FINITE) != 0;
    if (a.part == BLOCK) {
        a.flags[TRIPPED] |= a.flags[SKIP];
        return;
    }
    const double norm = sqrt(total);
    a.norm[NORM] = norm;
    a.norm[CLIP] = a.has_clip && norm > a.clip ? a.clip / norm : 1.0;
    count(a.flags + ZERO_MASKS, zero_masks);
}

static __device__ void start(const Seal& a, u64 block) {
    a.steps[block] = 0;
    for (u32 i = 0; i < POWERS; ++i) a.powers[POWERS * block + i] = 1.0;
}

static __device__ void advance(const Seal& a, const Region& r) {
    if (r.kind & FRESH) start(a, r.block);
    double* p = a.powers + POWERS * r.block;
    p[0] = p[2];
    p[1] = p[3];
    p[2] *= a.beta1;
    p[3] *= a.beta2;
    a.steps[r.block] += 1;
}

extern "C" __global__ void seal(Seal a) {
    if (threadIdx.x == 0) {
        if (a.part == COUNTERS) {
            a.flags[SKIP] = a.flags[TRIPPED];
            a.flags[TRIPPED] = 0;
        } else {
            decide(a);
        }
        if (a.part != BLOCK) count_step(a.flags, a.guard_limit);
    }
    __syncthreads(); // what follows reads SKIP
    if (a.part == COUNTERS) return;
    const bool skipped = a.flags[SKIP];
    for (u64 r = threadIdx.x; r < a.count; r += THREADS) {
        if (!skipped) advance(a, a.regions[r]);
        else if (a.part == BLOCK && a.switching) start(a, a.regions[r].block);
    }
}
