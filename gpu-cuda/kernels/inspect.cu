// Guard and sums of squares over the packed gradients of all active regions (A6.3, A6.4), in one launch: a thread block
// for each subtree, whichever region's it is.
#include "element.cuh"
#include "regions.cuh"
#include "tree.cuh"

struct Inspect {
    const void* gradient;
    const Region* regions;
    double* subtrees;
    u32* found; // by region
    u64 count, all_subtrees;
    double inv_loss_scale;
};

template <class F> __device__ void inspect(const Inspect& a) {
    const F inv = (F)a.inv_loss_scale;
    for (u64 s = blockIdx.x; s < a.all_subtrees; s += gridDim.x) {
        const u64 r = region_of(a.regions, a.count, s), own = s - a.regions[r].first_subtree, k = a.regions[r].k;
        const F* g = (const F*)a.gradient + a.regions[r].gradient_at;
        double lane = 0.0;
        u32 found = 0;
        for (u64 i = first_of_lane(own); i < end_of_lane(own, k); i += LANES) {
            const F x = g[i] * inv;
            if (!is_finite(x) || !is_finite(x * x)) found |= NOT_FINITE;
            if (magnitude(g[i]) != 0) found |= NOT_ZERO;
            lane += (double)x * (double)x;
        }
        // Most threads find what others have found before.
        if (found & ~*(volatile u32*)(a.found + r)) atomicOr(a.found + r, found);
        fold_subtree(lane, k - own * SUBTREE, a.subtrees + s);
    }
}

FOR_COMPUTE_TYPES(inspect, Inspect)
