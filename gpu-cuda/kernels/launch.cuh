// Numbers of a launch. No header of CUDA is needed, here or in any kernel.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// Threads of a thread block, of every kernel.
const u32 THREADS = 256;

// The first item of this thread in a grid-stride loop, and the step to its next.
static __device__ __forceinline__ u64 first_item() { return (u64)blockIdx.x * THREADS + threadIdx.x; }
static __device__ __forceinline__ u64 all_threads() { return (u64)gridDim.x * THREADS; }

static __device__ __forceinline__ u64 smaller(u64 a, u64 b) { return a < b ? a : b; }
static __device__ __forceinline__ u64 quotient_up(u64 a, u64 b) { return a / b + (a % b != 0); }
