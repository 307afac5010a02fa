// The normative sum of squares (A2.2): leaves of 1024 elements in 16 lanes, folded pairwise in index order, level by level,
// an odd last one passing up. A thread block makes one subtree of 16 leaves, a thread one lane of a leaf. Since a subtree
// begins at a multiple of a power of two leaves, it is a node of the tree.
#pragma once
#include "launch.cuh"

const u64 LANES = 16, LEAF = 1024, LEAVES = THREADS / LANES, SUBTREE = LEAVES * LEAF;

static __device__ __forceinline__ u64 subtrees_of(u64 n) { return quotient_up(n, SUBTREE); }

// This thread's elements of a subtree are first, first + LANES, ... below `end`.
static __device__ __forceinline__ u64 first_of_lane(u64 subtree) {
    return subtree * SUBTREE + threadIdx.x / LANES * LEAF + threadIdx.x % LANES;
}
static __device__ __forceinline__ u64 end_of_lane(u64 subtree, u64 n) {
    return smaller(n, subtree * SUBTREE + (threadIdx.x / LANES + 1) * LEAF);
}

// Folds the lanes that the thread block's threads bring, of a subtree of `n` elements in all. Every thread must call it.
static __device__ void fold_subtree(double lane, u64 n, double* sum) {
    __shared__ double sums[THREADS];
    const u32 t = threadIdx.x;
    const u64 leaves = smaller(LEAVES, quotient_up(n, LEAF));
    sums[t] = lane;
    __syncthreads();
    for (u32 half = LANES / 2; half > 0; half /= 2) {
        if (t % LANES < half) sums[t] += sums[t + half];
        __syncthreads();
    }
    for (u32 width = 1; width < LEAVES; width *= 2) {
        if (t % (2 * width * LANES) == 0 && t / LANES + width < leaves) sums[t] += sums[t + width * LANES];
        __syncthreads();
    }
    // No barrier after it: the next subtree's lanes go where each thread alone has read since the last one.
    if (t == 0) *sum = sums[0];
}

// Folds `count` subtrees into the first of them. Every thread of one thread block must call it.
static __device__ void fold_subtrees(double* sums, u64 count) {
    for (u64 width = 1; width < count; width *= 2) {
        for (u64 i = threadIdx.x * 2 * width; i + width < count; i += THREADS * 2 * width) sums[i] += sums[i + width];
        __syncthreads();
    }
}
