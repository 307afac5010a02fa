// Sums of what the threads before bring.
#pragma once
#include "launch.cuh"

// The sum over the threads before this one, and over all. Every thread of the thread block must call it.
static __device__ u64 exclusive_scan(u64 own, u64* all) {
    __shared__ u64 sums[THREADS];
    const u32 t = threadIdx.x;
    sums[t] = own;
    __syncthreads();
    for (u32 distance = 1; distance < THREADS; distance *= 2) {
        const u64 before = t >= distance ? sums[t - distance] : 0;
        __syncthreads();
        sums[t] += before;
        __syncthreads();
    }
    const u64 sum = sums[t];
    *all = sums[THREADS - 1];
    __syncthreads(); // the next call's numbers go to the same places
    return sum - own;
}
