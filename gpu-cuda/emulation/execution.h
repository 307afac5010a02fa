// The execution model of CUDA on a CPU: what a kernel's source needs to compile as C++ and to run.
//
// Each thread of a thread block is a fibre that runs until a barrier or its end. One thread block runs at a time. The order
// of threads and of thread blocks is shuffled from a seed, so that a missing barrier gives wrong numbers; a barrier that
// not every thread comes to aborts. Shared memory is garbage when a thread block starts.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __shared__ static __attribute__((section("shared_memory")))

namespace emulation {

struct Index {
    unsigned x, y, z;
};

// Where the running thread is.
extern Index thread_index, block_index, grid_size;

// Runs once for every thread. Calls `abort` on a divergent barrier.
struct Body {
    void (*run)(const void* arguments);
    const void* arguments;
};
void launch(Body body, unsigned thread_blocks, unsigned threads);

// Waits for the other threads of the thread block.
void barrier();

// What was done since the start.
struct Counts {
    unsigned long long launches, thread_blocks, barriers;
};
extern Counts counts;

// Of a kernel that takes one structure.
template <auto KERNEL> struct Kernel;
template <class Arguments, void (*KERNEL)(Arguments)> struct Kernel<KERNEL> {
    static void run(const void* arguments) { KERNEL(*(const Arguments*)arguments); }
};

} // namespace emulation

#define threadIdx (emulation::thread_index)
#define blockIdx (emulation::block_index)
#define gridDim (emulation::grid_size)

inline void __syncthreads() { emulation::barrier(); }

// One thread runs at a time, and is never interrupted here.
template <class T> T atomicAdd(T* at, T x) { return std::exchange(*at, *at + x); }
template <class T> T atomicOr(T* at, T x) { return std::exchange(*at, *at | x); }
template <class T> T atomicCAS(T* at, T expected, T x) {
    T seen = *at;
    if (seen == expected) *at = x;
    return seen;
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }

template <class To, class From> To bits_as(From x) {
    static_assert(sizeof(To) == sizeof(From));
    To out;
    std::memcpy(&out, &x, sizeof out);
    return out;
}
inline unsigned __float_as_uint(float x) { return bits_as<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return bits_as<float>(x); }
inline long long __double_as_longlong(double x) { return bits_as<long long>(x); }
inline double __longlong_as_double(long long x) { return bits_as<double>(x); }
