// Moves by its gradient's sign what is not active, without state (A6.7), skipped or not. NaNs are counted, and move nothing.
#include "element.cuh"
#include "flags.cuh"
#include "mask.cuh"

struct StateFree {
    void* p;
    const void* g;
    const u32* mask; // none: every coordinate moves
    u32* flags;
    u64 n;
    double inv_loss_scale, step, shrink, weight_decay;
    u64 decoupled;
};

// -1, 0 or 1, decided on the bits; 0 of NaN.
template <class F> __device__ __forceinline__ F sign(F x, bool negative) {
    if (magnitude(x) == 0 || is_nan(x)) return F(0);
    return negative ? F(-1) : F(1);
}

static __device__ __forceinline__ bool is_negative(float x) { return __float_as_uint(x) >> 31; }
static __device__ __forceinline__ bool is_negative(double x) { return (u64)__double_as_longlong(x) >> 63; }

template <class E, class G, class F> __device__ void state_free(const StateFree& a) {
    E* p = (E*)a.p;
    const G* g = (const G*)a.g;
    const Mask mask = {a.mask, a.n};
    const F inv = (F)a.inv_loss_scale, step = (F)a.step, shrink = (F)a.shrink, wd = (F)a.weight_decay;
    u64 nans = 0;
    for (u64 i = first_item(); i < a.n; i += all_threads()) {
        if (a.mask && mask.contains(i)) continue;
        F x = widened<F>(p[i]), d = widened<F>(g[i]);
        if (!a.decoupled && wd != F(0)) d = d * inv + wd * x;
        nans += is_nan(d);
        if (a.decoupled) x = x * shrink;
        round_to(x - step * sign(d, is_negative(d)), p[i]);
    }
    count(a.flags + NANS, nans);
}

FOR_PAIRS(state_free, StateFree)
