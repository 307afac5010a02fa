// Moments after a gradient (A6.1), each operation rounded in the compute type.
#pragma once
#include "launch.cuh"

// In f64 as they are; rounded once to the compute type where they are used.
struct Rates {
    double one_minus_beta1, beta2, one_minus_beta2, eps;
};

template <class F> __device__ __forceinline__ void moments(F& m, F& v, F g, F one_minus_beta1, F beta2, F one_minus_beta2) {
    m = m + one_minus_beta1 * (g - m);
    v = beta2 * v + (one_minus_beta2 * g) * g;
}
