// Subtrees of the sum of squares of the processed gradient m̂/(sqrt(v̂)+eps) (A2.1): with moments and powers as they are
// before the step, t counting as one more. A coordinate without moments counts as g/(|g|+eps).
#include "adam.cuh"
#include "element.cuh"
#include "flags.cuh"
#include "mask.cuh"
#include "tree.cuh"

struct ScoreProcessed {
    const void* g;
    double* subtrees;
    const void *m, *v; // of the block's run; none where it has no moments
    const u32* mask;
    const double* powers;
    u64 n;
    double inv_loss_scale, beta1;
    Rates rates;
};

template <class E, class F> __device__ void score_processed(const ScoreProcessed& a) {
    const E* g = (const E*)a.g;
    const F inv = (F)a.inv_loss_scale, eps = (F)a.rates.eps;
    const F one_minus_beta1 = (F)a.rates.one_minus_beta1, beta2 = (F)a.rates.beta2;
    const F one_minus_beta2 = (F)a.rates.one_minus_beta2;
    const Mask mask = {a.mask, a.n};
    const F c1 = (F)(1.0 - a.powers[2] * a.beta1), c2 = (F)sqrt(1.0 - a.powers[3] * a.rates.beta2);
    for (u64 s = blockIdx.x; s < subtrees_of(a.n); s += gridDim.x) {
        double lane = 0.0;
        for (u64 i = first_of_lane(s); i < end_of_lane(s, a.n); i += LANES) {
            const F x = widened<F>(g[i]) * inv;
            F numerator = x, denominator = absolute(x) + eps;
            if (a.m && mask.contains(i)) {
                const u64 j = mask.rank(i);
                F m = ((const F*)a.m)[j], v = ((const F*)a.v)[j];
                moments(m, v, x, one_minus_beta1, beta2, one_minus_beta2);
                numerator = m / c1;
                denominator = root(v) / c2 + eps;
            }
            const double y = denominator == F(0) ? 0.0 : (double)(numerator / denominator);
            lane += y * y;
        }
        fold_subtree(lane, a.n - s * SUBTREE, a.subtrees + s);
    }
}

FOR_GRADIENTS(score_processed, ScoreProcessed)
