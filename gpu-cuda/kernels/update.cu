// The update of a region's active coordinates (A6.1), unless the step is skipped. Coordinates that are not in the old mask,
// where there is one, enter (A5.4).
#include "adam.cuh"
#include "element.cuh"
#include "flags.cuh"
#include "mask.cuh"

struct Update {
    void* p;
    const void* g; // packed, as m and v
    void *m, *v;
    const u32 *mask, *old_mask; // no old mask: all stay
    const double *powers, *norm;
    const u32* flags;
    u64 n;
    double inv_loss_scale, lr, shrink, weight_decay;
    u64 decoupled;
    Rates rates;
};

// What depends on the device's own numbers. One thread rounds it for its thread block: f64 is slow on many devices.
template <class F> struct OfStep {
    F clip, lr_over_c1, c2, entering1, entering2;
};

static __device__ double* shared_numbers() {
    __shared__ double numbers[5];
    return numbers;
}

template <class F> __device__ OfStep<F> of_step(const Update& a) {
    double* x = shared_numbers();
    if (threadIdx.x == 0) {
        x[0] = (F)a.norm[CLIP];
        x[1] = (F)a.lr / (F)(1.0 - a.powers[2]);
        x[2] = (F)sqrt(1.0 - a.powers[3]);
        x[3] = (F)(1.0 - a.powers[0]);
        x[4] = (F)(1.0 - a.powers[1]);
    }
    __syncthreads();
    return {(F)x[0], (F)x[1], (F)x[2], (F)x[3], (F)x[4]};
}

template <class E, class F> __device__ void update(const Update& a) {
    if (a.flags[SKIP]) return;
    E* p = (E*)a.p;
    const F* packed = (const F*)a.g;
    F *m = (F*)a.m, *v = (F*)a.v;
    const Mask mask = {a.mask, a.n}, old_mask = {a.old_mask, a.n};
    const OfStep<F> s = of_step<F>(a);
    const F inv = (F)a.inv_loss_scale, shrink = (F)a.shrink, wd = (F)a.weight_decay, eps = (F)a.rates.eps;
    const F one_minus_beta1 = (F)a.rates.one_minus_beta1, beta2 = (F)a.rates.beta2;
    const F one_minus_beta2 = (F)a.rates.one_minus_beta2;
    for (u64 i = first_item(); i < a.n; i += all_threads()) {
        if (!mask.contains(i)) continue;
        const u64 j = mask.rank(i);
        F x = widened<F>(p[i]), g = (packed[j] * inv) * s.clip;
        if (a.decoupled) x = x * shrink;
        else if (wd != F(0)) g = g + wd * x;
        const bool enters = !old_mask.contains(i);
        F m1 = enters ? s.entering1 * g : m[j], v1 = enters ? s.entering2 * (g * g) : v[j];
        moments(m1, v1, g, one_minus_beta1, beta2, one_minus_beta2);
        const F denominator = root(v1) / s.c2 + eps;
        // Zero only with eps = 0 and a gradient that was always zero: the limit is no step.
        if (denominator != F(0)) x = x - (s.lr_over_c1 * m1) / denominator;
        round_to(x, p[i]);
        m[j] = m1;
        v[j] = v1;
    }
}

FOR_PARAMETERS(update, Update)
