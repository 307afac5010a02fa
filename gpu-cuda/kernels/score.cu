// Subtrees of the sum of squares of g * inv_loss_scale, which is rounded to the compute type first (A2.4). `fold` makes one
// sum of them.
#include "element.cuh"
#include "tree.cuh"

struct Score {
    const void* g;
    double* subtrees;
    u64 n;
    double inv_loss_scale;
};

template <class E, class F> __device__ void score(const Score& a) {
    const E* g = (const E*)a.g;
    const F inv = (F)a.inv_loss_scale;
    for (u64 s = blockIdx.x; s < subtrees_of(a.n); s += gridDim.x) {
        double lane = 0.0;
        for (u64 i = first_of_lane(s); i < end_of_lane(s, a.n); i += LANES) {
            const double x = (double)(widened<F>(g[i]) * inv);
            lane += x * x;
        }
        fold_subtree(lane, a.n - s * SUBTREE, a.subtrees + s);
    }
}

FOR_GRADIENTS(score, Score)
