// A mask to read (core's `mask.rs`): a bitmap, then one prefix count for every 512 coordinates; no words for a whole block.
#pragma once
#include "launch.cuh"

const u64 PREFIX = 512;

struct Mask {
    const u32* words;
    u64 n;

    __device__ __forceinline__ bool contains(u64 i) const { return !words || (words[i / 32] >> (i % 32) & 1u); }

    // Active coordinates before i.
    __device__ __forceinline__ u64 rank(u64 i) const {
        if (!words) return i;
        u64 count = words[quotient_up(n, 32) + i / PREFIX];
        for (u64 w = i / PREFIX * (PREFIX / 32); w < i / 32; ++w) count += __popc(words[w]);
        return count + __popc(words[i / 32] & ((1u << (i % 32)) - 1u));
    }

    // Active coordinates.
    __device__ __forceinline__ u64 count() const { return rank(n - 1) + contains(n - 1); }
};
