// Element types and compute types (A7.1). Conversions are integer arithmetic: the same bits on every device, NaN's too, and
// no header of CUDA.
#pragma once
#include "launch.cuh"

struct f16 {
    u16 bits;
};
struct bf16 {
    u16 bits;
};

// --- compute types ---

// |x| as an integer that orders as |x| does, NaN above infinity (A4.4).
static __device__ __forceinline__ u64 magnitude(float x) { return __float_as_uint(x) & 0x7fffffffu; }
static __device__ __forceinline__ u64 magnitude(double x) {
    return (u64)__double_as_longlong(x) & 0x7fffffffffffffffull;
}

template <class F> __device__ __forceinline__ u64 infinity();
template <> __device__ __forceinline__ u64 infinity<float>() { return 0x7f800000u; }
template <> __device__ __forceinline__ u64 infinity<double>() { return 0x7ff0000000000000ull; }

// On the bits: a compiler may assume that NaN does not exist.
template <class F> __device__ __forceinline__ bool is_finite(F x) { return magnitude(x) < infinity<F>(); }
template <class F> __device__ __forceinline__ bool is_nan(F x) { return magnitude(x) > infinity<F>(); }

static __device__ __forceinline__ float root(float x) { return sqrtf(x); }
static __device__ __forceinline__ double root(double x) { return sqrt(x); }

static __device__ __forceinline__ float absolute(float x) { return __uint_as_float((u32)magnitude(x)); }
static __device__ __forceinline__ double absolute(double x) { return __longlong_as_double((long long)magnitude(x)); }

// --- widening, exact ---

static __device__ __forceinline__ float widen_f16(u16 bits) {
    u32 sign = (u32)(bits & 0x8000u) << 16, rest = bits & 0x7fffu;
    if (rest >= 0x7c00u) { // infinity, or NaN, which becomes quiet
        u32 quiet = rest > 0x7c00u ? 0x400000u : 0u;
        return __uint_as_float(sign | 0x7f800000u | quiet | (rest & 0x3ffu) << 13);
    }
    if (rest < 0x400u) { // rest * 2^-24: exact, its sign kept
        float x = (float)rest * 5.9604644775390625e-8f;
        return __uint_as_float(sign | __float_as_uint(x));
    }
    return __uint_as_float(sign | ((rest << 13) + 0x38000000u));
}

static __device__ __forceinline__ float widen_bf16(u16 bits) {
    u32 quiet = (bits & 0x7fffu) > 0x7f80u ? 0x40u : 0u;
    return __uint_as_float((bits | quiet) << 16);
}

static __device__ __forceinline__ double widen_f32(float x) {
    u32 bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) { // devices differ in what they keep of a NaN, and masks order by it
        u64 sign = (u64)(bits & 0x80000000u) << 32, payload = (u64)(bits & 0x7fffffu) << 29;
        return __longlong_as_double((long long)(sign | 0x7ff8000000000000ull | payload));
    }
    return (double)x;
}

static __device__ __forceinline__ void widen(f16 x, float& to) { to = widen_f16(x.bits); }
static __device__ __forceinline__ void widen(bf16 x, float& to) { to = widen_bf16(x.bits); }
static __device__ __forceinline__ void widen(float x, float& to) { to = x; }
static __device__ __forceinline__ void widen(float x, double& to) { to = widen_f32(x); }
static __device__ __forceinline__ void widen(double x, double& to) { to = x; }

template <class F, class E> __device__ __forceinline__ F widened(E x) {
    F out;
    widen(x, out);
    return out;
}

// --- rounding, to nearest, ties to even ---

// Drops `shift` bits of `x` below 2^31, rounding.
static __device__ __forceinline__ u32 shifted(u32 x, u32 shift) {
    u32 half = 1u << (shift - 1), odd = x >> shift & 1u;
    return (x + half - 1u + odd) >> shift;
}

static __device__ __forceinline__ void round_to(float x, f16& to) {
    u32 bits = __float_as_uint(x), sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu, half;
    if (rest > 0x7f800000u) {
        half = 0x7e00u | (rest & 0x7fffffu) >> 13; // NaN, made quiet
    } else if (rest >= 0x47800000u) {
        half = 0x7c00u; // 2^16 and above
    } else if (rest >= 0x38800000u) {
        half = shifted(rest - 0x38000000u, 13); // a carry goes into the exponent, up to infinity
    } else {
        u32 exponent = rest >> 23, mantissa = (rest & 0x7fffffu) | 0x800000u;
        half = exponent < 102u ? 0u : shifted(mantissa, 126u - exponent); // units of 2^-24
    }
    to.bits = (u16)(sign | half);
}

static __device__ __forceinline__ void round_to(float x, bf16& to) {
    u32 bits = __float_as_uint(x);
    bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    to.bits = (u16)(nan ? bits >> 16 | 0x40u : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static __device__ __forceinline__ void round_to(float x, float& to) { to = x; }
static __device__ __forceinline__ void round_to(double x, double& to) { to = x; }

// --- one kernel for each type ---

#define FOR_COMPUTE_TYPES(kernel, Arguments)                                                                           \
    extern "C" __global__ void kernel##_f32(Arguments a) { kernel<float>(a); }                                         \
    extern "C" __global__ void kernel##_f64(Arguments a) { kernel<double>(a); }

// By the gradient's type, and of f32 gradients by the compute type.
#define FOR_GRADIENTS(kernel, Arguments)                                                                               \
    extern "C" __global__ void kernel##_f16(Arguments a) { kernel<f16, float>(a); }                                    \
    extern "C" __global__ void kernel##_bf16(Arguments a) { kernel<bf16, float>(a); }                                  \
    extern "C" __global__ void kernel##_f32(Arguments a) { kernel<float, float>(a); }                                  \
    extern "C" __global__ void kernel##_f64(Arguments a) { kernel<double, double>(a); }                                \
    extern "C" __global__ void kernel##_f64_f32(Arguments a) { kernel<float, double>(a); }

#define FOR_PARAMETERS(kernel, Arguments)                                                                              \
    extern "C" __global__ void kernel##_f16(Arguments a) { kernel<f16, float>(a); }                                    \
    extern "C" __global__ void kernel##_bf16(Arguments a) { kernel<bf16, float>(a); }                                  \
    extern "C" __global__ void kernel##_f32(Arguments a) { kernel<float, float>(a); }                                  \
    extern "C" __global__ void kernel##_f64(Arguments a) { kernel<double, double>(a); }

// By the parameter's type and the gradient's, which is the same where one is named.
#define FOR_PAIRS(kernel, Arguments)                                                                                   \
    extern "C" __global__ void kernel##_f16(Arguments a) { kernel<f16, f16, float>(a); }                               \
    extern "C" __global__ void kernel##_f16_f32(Arguments a) { kernel<f16, float, float>(a); }                         \
    extern "C" __global__ void kernel##_bf16(Arguments a) { kernel<bf16, bf16, float>(a); }                            \
    extern "C" __global__ void kernel##_bf16_f32(Arguments a) { kernel<bf16, float, float>(a); }                       \
    extern "C" __global__ void kernel##_f32(Arguments a) { kernel<float, float, float>(a); }                           \
    extern "C" __global__ void kernel##_f64(Arguments a) { kernel<double, double, double>(a); }                        \
    extern "C" __global__ void kernel##_f64_f32(Arguments a) { kernel<double, float, double>(a); }
